"""A pipeline is added by one description and one folder, and everything else follows from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from sqlalchemy import select, text

import worker.pipelines
from dicom_listener.inbox.files import pipeline_of
from dicom_listener.inbox.picture import wrap_picture
from firstread import pipelines
from firstread.actions.verdicts import acknowledge, record_verdict
from firstread.dicom.uids import stable_uid
from firstread.export.studies import export_studies
from firstread.pipelines import Concept, FindingTerm, MeasureTerm, OutlineTerm, PictureClass, Pipeline
from firstread.priority import priority_of
from firstread.records import Database, Flag, Job, SliceScoreRow
from firstread.records.view_rows import view_rows
from firstread.settings import Settings
from firstread_cli.listings import results
from tests.builders.closed_revisions import job_of, put_revision
from tests.builders.scoring import scorer_of
from tests.builders.site import database_in, settings_in
from tests.builders.stored_images import image_header
from worker.engine.serving import Serving
from worker.outputs.deliveries.rows import new_delivery
from worker.outputs.messages import message
from worker.outputs.objects.files import ensure_objects
from worker.outputs.senders.mail import mail_text
from worker.packages.card import Card, InputSpec
from worker.packages.operating_points import OperatingPoint
from worker.packages.store import PackageStore
from worker.pipelines import registry
from worker.pipelines.base import Served

FOLDER = Path(__file__).parents[2] / "builders" / "pipelines"
"""Holds ``knee_mr/`` as it would stand in ``worker/pipelines/``."""

KNEE_MR = Pipeline(
    name="knee_mr",
    priority=8,
    modalities=frozenset({"MR"}),
    alone=frozenset(),
    findings=(
        FindingTerm("tear", "Tear of the meniscus", Concept("202327008", "SCT", "Tear of meniscus"), listed=True),
    ),
    leading="tear",
    tasks=frozenset({"knee"}),
    headline="suspected tear",
    subject="knee MR",
    procedure="MR of knee",
    measures=(MeasureTerm("tear_volume", quantity=pipelines.VOLUME, from_outline=True),),
    baselines=frozenset({"knee_atlas"}),
    picture=PictureClass("1.2.840.10008.5.1.4.1.1.7", "OT"),
    outline=OutlineTerm(
        "Tear", Concept("125643001", "SCT", "Open wound"), Concept("72696002", "SCT", "Knee"), in_space=True
    ),
    sides_from="ImageOrientationPatient",
)
CARD = Card(
    name="knee_net",
    version="1.0",
    pipeline="knee_mr",
    task="knee",
    labels=["tear"],
    input=InputSpec(kind="grey", height=64, width=64),
    architecture={},
    operating_points={"flag": OperatingPoint(finding="tear", threshold=0.5, chosen_for="a test")},
)


class KneeModel:
    """The brightest pixel of an image is its probability."""

    batch_sizes = (1, 8)

    def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"p": x.max(axis=(1, 2, 3))[:, None]}

    def gradients(self, x: np.ndarray, finding: str) -> np.ndarray:
        return np.zeros(x.shape[:3], dtype=np.float32)

    def class_maps(self, x: np.ndarray, finding: str) -> np.ndarray:
        return np.zeros((2, *x.shape[:3]), dtype=np.float32)


@dataclass(frozen=True)
class Site:
    """A site whose worker has scored one knee."""

    settings: Settings
    db: Database
    study_uid: str
    job: Job


@pytest.fixture
def knee(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two things that a new pipeline needs: the description and the folder."""
    monkeypatch.setattr(pipelines, "PIPELINES", (*pipelines.PIPELINES, KNEE_MR))
    monkeypatch.setattr(worker.pipelines, "__path__", [*worker.pipelines.__path__, str(FOLDER)])
    monkeypatch.setattr(registry, "REGISTRY", registry.rows_of(pipelines.PIPELINES))


@pytest.fixture
def site(knee: None, tmp_path: Path) -> Iterator[Site]:
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)
    uid = stable_uid("knee")
    revision = put_revision(db, settings, [image(number, uid) for number in (1, 2, 3)])
    serving = Serving()
    serving.add(Served(CARD), KneeModel())
    with scorer_of(db, settings, serving, serving.pipelines(registry.REGISTRY)) as scorer:
        assert scorer.answer() == 1
    job = job_of(db, revision, "knee_mr")
    assert job is not None
    yield Site(settings, db, uid, job)
    db.dispose()


def image(number: int, uid: str) -> Dataset:
    """A slice of a knee; the second has a bright tear."""
    ds = image_header("ct", number, uid)
    ds.SOPClassUID, ds.Modality = MRImageStorage, "MR"
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        delattr(ds, keyword)
    pixels = np.full((64, 64), 100, dtype=np.uint16)
    if number == 2:
        pixels[20:30, 20:30] = 900
    ds.PixelData = pixels.tobytes()
    return ds


def test_a_study_goes_from_job_to_rows_and_views(site: Site) -> None:
    assert (site.job.state, site.job.reason) == ("DONE", None)
    with site.db.read() as session:
        rows = {row["finding"]: row for row in view_rows(session, text("SELECT * FROM study_result"))}
        scores = session.scalars(select(SliceScoreRow.probability).order_by(SliceScoreRow.id)).all()
        flag = session.scalars(select(Flag)).one()
    assert rows["tear"]["pipeline"] == "knee_mr"
    assert rows["tear"]["flagged"] and rows["tear"]["probability"] == pytest.approx(0.9)
    assert rows["tear_volume"]["value"] == pytest.approx(0.1)
    assert scores == pytest.approx([0.1, 0.9, 0.1])
    assert flag.finding == "tear" and flag.volume_ml == pytest.approx(0.1)


def test_messages_and_objects_say_what_the_description_says(site: Site) -> None:
    with site.db.write() as session:
        delivery = new_delivery(session.get_one(Job, site.job.id), "desk", "email")
        session.add(delivery)
        session.flush()
        mail = mail_text(message(session, delivery, patient_data=False))
    assert mail.startswith("Firstread: suspected tear, study ")
    assert "Tear of the meniscus: 0.90, threshold 0.50  FLAGGED" in mail
    assert f"firstread flags ack {site.study_uid} --pipeline knee_mr" in mail

    objects = {row.kind: row for row in ensure_objects(site.db, site.settings, site.job.id)}
    assert {kind: row.reason for kind, row in objects.items()} == {"sr": None, "seg": None, "sc": None}
    report, outline, capture = (dcmread(site.settings.objects_dir / str(objects[k].path)) for k in ("sr", "seg", "sc"))
    text = report.to_json()
    for words in ("Tear of meniscus", "MR of knee", '"Volume"', "The outlined volume is 0.10 mL."):
        assert words in text
    segment = outline.SegmentSequence[0]
    assert (segment.SegmentLabel, outline.NumberOfFrames) == ("Tear", 1)
    assert segment.AnatomicRegionSequence[0].CodeMeaning == "Knee"
    assert capture.SeriesDescription == "Firstread knee MR: heat map (not for diagnosis)"
    assert list(capture.PatientOrientation) == ["L", "P"]


def test_people_and_commands_know_it(site: Site, tmp_path: Path) -> None:
    assert acknowledge(site.db, site.study_uid, "Dr. A").pipeline == "knee_mr"
    assert record_verdict(site.db, site.study_uid, "knee_mr", agree=True, by="Dr. A").finding == "tear"
    export_studies(site.db, site.settings, tmp_path / "out")
    assert [folder.name for folder in (tmp_path / "out").iterdir() if folder.is_dir()] == ["knee_mr"]
    listed = CliRunner().invoke(results, ["--json"], catch_exceptions=False)
    assert {row["finding"] for row in json.loads(listed.output)} == {"tear", "tear_volume"}
    listed = CliRunner().invoke(results, [], catch_exceptions=False)
    assert "tear" in listed.output and "tear_volume" not in listed.output


def test_the_listener_and_the_settings_know_it(knee: None, tmp_path: Path) -> None:
    assert priority_of(["MR"]) == priority_of(["OT"], forced_pipeline="knee_mr") == 8
    assert pipeline_of(Path("knee_mr", "a.png")) == "knee_mr"
    Image.new("L", (16, 16)).save(tmp_path / "a.png")
    assert wrap_picture(tmp_path / "a.png", "knee_mr").SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert Settings(force_pipelines=["knee_mr"]).force_pipelines == ("knee_mr",)


def test_its_newest_package_serves_unless_somebody_says_otherwise(knee: None, tmp_path: Path) -> None:
    for card in (CARD, CARD.model_copy(update={"name": "knee_atlas", "task": "knee_atlas"})):
        folder = tmp_path / "models" / card.name / card.version
        folder.mkdir(parents=True)
        card.write(folder / "card.json")
    roles = {entry.key: entry.role for entry in PackageStore([tmp_path / "models"], tmp_path).entries()}
    assert roles == {"knee_net/1.0": "active", "knee_atlas/1.0": "off"}
