"""``firstread doctor``: a check of each part of a site, a line each, with what to do about what is wrong."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from firstread.errors import FirstreadError
from firstread.records import Database, Process
from firstread.records.clock import now_of
from firstread.settings import ENV_PREFIX, Settings
from firstread.settings.secrets import secrets_of, without
from firstread.storage.store import retention_watermark_bytes
from firstread.upkeep.retention import kept_back
from firstread_cli.doctor import Check
from firstread_cli.doctor.clocks import check_clock, check_senders
from firstread_cli.doctor.intake import check_inbox, check_refusals, check_stow
from firstread_cli.doctor.phantom_study import check_study
from firstread_cli.doctor.senders import check_habits
from firstread_cli.doctor.silence import check_silence
from firstread_cli.doctor.tls import check_tls
from firstread_cli.tables import echo, print_json, print_table

if TYPE_CHECKING:
    from worker.packages.store import PackageEntry

STALE_HEARTBEAT_S = 30.0


def check_names(settings: Settings) -> Iterator[Check]:
    """Names in the environment that look like settings and are not."""
    unknown = settings.names().unknown
    if unknown:
        yield Check("settings", "warn", f"no settings of this version, and ignored: {', '.join(unknown)}")


def check_home(settings: Settings) -> Iterator[Check]:
    """Home and inbox are there, writable, and have room."""
    for name, path in (("home", settings.home), ("inbox", settings.inbox_dir)):
        if not path.is_dir():
            yield Check(name, "warn", f"{path} is not there yet; `firstread up` makes it")
        elif not os.access(path, os.W_OK):
            yield Check(name, "fail", f"{path} is not writable for this user")
        else:
            yield Check(name, "ok", str(path))
    place = settings.home if settings.home.is_dir() else settings.home.parent
    usage = shutil.disk_usage(place if place.is_dir() else Path("/"))
    free_mb, watermark_mb = usage.free // 2**20, retention_watermark_bytes(settings, usage.total) // 2**20
    enough_mb = min(2 * settings.min_free_mb, watermark_mb or 2 * settings.min_free_mb)
    status = "ok" if free_mb >= enough_mb else "warn" if free_mb > settings.min_free_mb else "fail"
    going = f"images of finished studies go under {watermark_mb} MiB" if watermark_mb else "no images go for want of it"
    yield Check("disk", status, f"{free_mb} MiB free; {going}, new ones are refused under {settings.min_free_mb} MiB")


def check_database(settings: Settings) -> Iterator[Check]:
    """The database answers and stands at this version's schema; processes show a heartbeat."""
    from firstread_cli.database import open_database

    try:
        db = open_database(settings)
    except (FirstreadError, SQLAlchemyError) as error:
        yield Check("database", "fail", str(error).splitlines()[0])
        return
    yield Check("database", "ok", db.shown)
    with db.read() as session:
        processes = session.scalars(select(Process)).all()
        now = now_of(session)
        waiting = session.execute(
            text("SELECT COUNT(*) FROM study_result WHERE state IN ('WAITING', 'SCORING')")
        ).scalar()
    for row in sorted(processes, key=lambda p: (p.kind, p.started_at)):
        age_s = (now - row.heartbeat_at).total_seconds()
        status = "ok" if age_s < STALE_HEARTBEAT_S else "warn"
        yield Check(f"process {row.kind}", status, f"pid {row.pid} on {row.host}, last sign of life {age_s:.0f} s ago")
    yield Check("queue", "ok", f"{waiting} results waiting or being scored")
    yield from _room(settings, db)


def _room(settings: Settings, db: Database) -> Iterator[Check]:
    """Where the disk is short of space in spite of the retention: what keeps the images."""
    if not settings.spool_dir.is_dir():
        return
    usage = shutil.disk_usage(settings.spool_dir)
    if usage.free >= retention_watermark_bytes(settings, usage.total):
        return
    counts = kept_back(db)
    yield Check(
        "room",
        "warn",
        f"studies whose images may not go: {counts['flag']} with an open flag (`firstread flags ack UID`), "
        f"{counts['delivery']} with a delivery pending or failed (`firstread deliveries`), "
        f"{counts['work']} not finished",
    )


def check_broker(settings: Settings) -> Iterator[Check]:
    """The broker answers; how many messages wait."""
    import redis

    from firstread.queue import broker_problem, depth, redis_client

    problem = broker_problem(settings)
    if problem:
        yield Check("broker", "fail", f"{problem}{'; is `firstread up` running?' if settings.embedded_broker else ''}")
        return
    where = "embedded" if settings.embedded_broker else settings.printable()["broker_url"]
    client = redis_client(settings)
    try:
        yield Check("broker", "ok", f"{where}, {depth(client)} messages wait")
        policy = client.config_get("maxmemory-policy").get("maxmemory-policy")
        if policy not in (None, "noeviction"):
            yield Check("broker policy", "warn", f"maxmemory-policy is {policy}; noeviction loses no message")
    except redis.RedisError as error:
        yield Check("broker", "fail", f"{where} does not answer ({type(error).__name__})")
    finally:
        client.close()


def check_ports(settings: Settings) -> Iterator[Check]:
    """C-ECHO to our own listener; whether /metrics answers."""
    from firstread.dicom.sender import echo

    host = "127.0.0.1" if settings.dicom_host == "0.0.0.0" else settings.dicom_host
    where = f"{settings.ae_title} at {host}:{settings.dicom_port}"
    problem = echo(host=host, port=settings.dicom_port, called_ae=settings.ae_title, calling_ae="DOCTOR")
    yield Check("dicom", "fail" if problem else "ok", f"{where} {problem or 'answers C-ECHO'}")
    port = settings.port_of_metrics("up")
    if port:
        yield from _check_metrics(f"http://{settings.metrics_host}:{port}/metrics")


def _check_metrics(url: str) -> Iterator[Check]:
    """The endpoint answers; which processes end again and again right after their start."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        yield Check("metrics", "warn", f"{url} does not answer ({getattr(reason, 'strerror', None) or reason})")
        return
    yield Check("metrics", "ok", url)
    failing = (family for family in families if family.name == "firstread_failing_processes")
    names = [sample.labels["process"] for family in failing for sample in family.samples if sample.value]
    for name in names:
        yield Check(f"process {name}", "fail", f"ends right after each start; see log/{name}.log and log/{name}.out")


def check_next_steps(settings: Settings) -> Iterator[Check]:
    """The site's own sentences can be read."""
    from worker.pipelines.next_steps import NextStepsError, next_steps

    if settings.next_steps is None:
        return
    try:
        texts = next_steps(settings.next_steps)
    except NextStepsError as error:
        yield Check("next steps", "fail", f"{error}; the defaults stand in")
    else:
        yield Check("next steps", "ok", f"{len(texts)} sentences")


def check_models(settings: Settings) -> Iterator[Check]:
    """Every package passes its checksum and its golden outputs."""
    from worker.packages.card import PackageError
    from worker.packages.package import load
    from worker.packages.runtimes.startup import ensure_tensorflow
    from worker.packages.signature import require_signature
    from worker.packages.store import open_store

    entries = open_store(settings).entries()
    if not entries:
        yield Check("models", "fail", f"no package in {settings.models_dir}")
    else:
        ensure_tensorflow()
    for entry in entries:
        name = f"model {entry.key}"
        try:
            signer = require_signature(entry.directory, settings.model_keys)
            load(entry.directory)
        except PackageError as error:
            yield Check(name, "fail", str(error))
        else:
            signed = f"signed by key {signer}, " if signer else ""
            yield Check(name, "ok", f"{entry.role}, {signed}checksum and golden outputs hold")
    if settings.engine == "openvino":
        yield from _check_engine(settings, [entry for entry in entries if entry.role != "off"])


def _check_engine(settings: Settings, entries: Sequence[PackageEntry]) -> Iterator[Check]:
    """The converted file of every package that serves passes its own checksum and golden outputs on this machine."""
    from worker.packages.card import PackageError
    from worker.packages.openvino_file import ProcessorError, load_first
    from worker.packages.package import first_line

    for entry in entries:
        if entry.card is None:
            continue
        name = f"engine {entry.key}"
        try:
            passed_over: dict[str, PackageError] = {}
            precision, _ = load_first(
                entry.directory,
                entry.card,
                settings.engine_precisions,
                passed_over.__setitem__,
                settings.inference_threads,
            )
        except PackageError as error:
            yield Check(name, "warn", f"TensorFlow serves in the place of OpenVINO: {first_line(error)}")
        else:
            words = "".join(f"; not {other}: {first_line(error)}" for other, error in passed_over.items())
            is_whole = all(isinstance(error, ProcessorError) for error in passed_over.values())
            held = f"OpenVINO {precision}, checksum and its own golden outputs hold{words}"
            yield Check(name, "ok" if is_whole else "warn", held)


def check_destinations(settings: Settings) -> Iterator[Check]:
    """Each destination: C-ECHO to a PACS, greeting and login at a mail server, a connection to a web or HL7 server."""
    from worker.outputs.destinations.file import DestinationsError, complaint_at_start, read_destinations
    from worker.outputs.senders.probe import ONLY_CONNECTED, probe

    try:
        complaint = complaint_at_start(settings)
        if complaint:
            yield Check("destinations", "fail", complaint)
            return
        destinations = read_destinations(settings)
    except DestinationsError as error:
        yield Check("destinations", "fail", str(error))
        return
    for destination in destinations:
        problem = probe(destination, settings.ae_title)
        good = "takes connections" if destination.kind in ONLY_CONNECTED else "answers"
        yield Check(f"destination {destination.name}", "fail" if problem else "ok", problem or good)


def print_settings(settings: Settings) -> None:
    """Every setting, its value (secrets hidden) and where it came from."""
    sources, values = settings.sources(), settings.printable()
    rows = [
        {"setting": ENV_PREFIX + name.upper(), "value": values[name], "source": sources[name]}
        for name in type(settings).model_fields
    ]
    print_table(rows, ("setting", "value", "source"))


@click.command()
@click.option("--quick", is_flag=True, help="Leave out the models and the synthetic study.")
@click.option("--json", "as_json", is_flag=True, help="JSON, settings included.")
def doctor(quick: bool, as_json: bool) -> None:
    """Check settings, disk, database, broker, ports, destinations, models, and one synthetic study end to end."""
    settings = Settings()
    if not as_json:
        print_settings(settings)
        echo()
    steps: list[Callable[[Settings], Iterator[Check]]] = [
        check_names,
        check_home,
        check_database,
        check_broker,
        check_ports,
        check_tls,
        check_stow,
        check_destinations,
        check_silence,
        check_next_steps,
        check_clock,
        check_senders,
        check_habits,
        check_refusals,
        check_inbox,
    ]
    if not quick:
        steps += [check_models, check_study]
    checks: list[Check] = []
    secrets = secrets_of(settings)
    for step in steps:
        if step is check_study and any(check.name == "dicom" and check.status == "fail" for check in checks):
            continue
        for found in step(settings):
            check = replace(found, detail=without(secrets, found.detail))
            checks.append(check)
            if not as_json:
                echo(f"{check.status:4}  {check.name}: {check.detail}")
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        sources, values = settings.sources(), settings.printable()
        print_json(
            {
                "settings": {name: {"value": values[name], "source": sources[name]} for name in values},
                "checks": [vars(check) for check in checks],
                "ok": not failed,
            }
        )
    raise SystemExit(1 if failed else 0)
