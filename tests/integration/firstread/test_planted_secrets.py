"""Secrets that are planted wherever a site may have some, and looked for in everything that is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from firstread.processes.spawning import firstread_command
from tests.builders.guarded_servers import PASSWORD, Guarded, guarded_redis
from tests.builders.listening import small_files
from tests.builders.servers import Certificate
from tests.builders.timing import free_port, until

ROOT = Path(__file__).resolve().parents[3]
OTHERS = {
    "HEARTBEAT": "https://127.0.0.1:1/ping/geheim-heartbeat",
    "HOOK_SECRET": "geheim-webhook",
    "MAIL_PASSWORD": "geheim-mail",
    "AWS_SECRET_ACCESS_KEY": "geheim-store",
}
PLANTED = (PASSWORD, "geheim-falsch", *OTHERS.values())

DESTINATIONS = """
[[destination]]
name = "hook"
kind = "webhook"
url = "https://127.0.0.1:1/hook"
secret = {{ file = "{hook}" }}
[[destination]]
name = "mail"
kind = "email"
host = "127.0.0.1"
port = 1
sender = "firstread@example.org"
to = ["duty@example.org"]
username = "duty"
password = {{ env = "MAIL_PASSWORD" }}
"""

UNEXPECTED = """
import sys, types, click
import firstread_cli.main as program
from firstread.settings import Settings

def fall() -> None:
    settings = Settings()
    raise RuntimeError(f"{settings.database_url} {settings.broker_url} {settings.heartbeat_url.get_secret_value()}")

module = types.ModuleType("fall")
module.fall = click.Command("fall", callback=fall)
sys.modules["fall"] = module
program.COMMANDS["fall"] = ("fall:fall", "")
program.main(["fall"])
"""


@dataclass(frozen=True)
class PlantedSite:
    """A home, and the environment of its processes."""

    home: Path
    environ: dict[str, str]
    metrics_port: int
    dicom_port: int

    def run(self, *arguments: str, **changes: str) -> str:
        """What a command prints, on both channels."""
        return self.python(*firstread_command(*arguments)[1:], **changes)

    def python(self, *arguments: str, **changes: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self.environ | changes,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        return done.stdout + done.stderr

    def written(self) -> str:
        """Everything in the log folder."""
        return "".join(p.read_text("utf-8", "replace") for p in (self.home / "log").rglob("*") if p.is_file())


@pytest.fixture
def planted(
    postgres_with_tls: Guarded, certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PlantedSite:
    """A site all of whose secrets come from files, but for those that have a name in the environment."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "destinations.toml").write_text(DESTINATIONS.format(hook=tmp_path / "hook"))
    database = f"postgresql://firstread:{PASSWORD}@localhost:{postgres_with_tls.port}/postgres?sslmode=require"
    files = {
        "hook": OTHERS["HOOK_SECRET"],
        "database": database,
        "broker": f"redis://:{PASSWORD}@127.0.0.1:1/0",
        "heartbeat": OTHERS["HEARTBEAT"],
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content + "\n")
    metrics_port, dicom_port = free_port(), free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTREAD_")} | {
        "FIRSTREAD_HOME": str(home),
        "FIRSTREAD_DATABASE_URL_FILE": str(tmp_path / "database"),
        "FIRSTREAD_BROKER_URL_FILE": str(tmp_path / "broker"),
        "FIRSTREAD_HEARTBEAT_URL_FILE": str(tmp_path / "heartbeat"),
        "FIRSTREAD_DICOM_PORT": str(dicom_port),
        "FIRSTREAD_METRICS_PORT": str(metrics_port),
        "FIRSTREAD_LOG_LEVEL": "DEBUG",
        "FIRSTREAD_MIN_FREE_MB": "0",
        "FIRSTREAD_GRACE_S": "0.3",
        "MAIL_PASSWORD": OTHERS["MAIL_PASSWORD"],
        "AWS_SECRET_ACCESS_KEY": OTHERS["AWS_SECRET_ACCESS_KEY"],
    }
    return PlantedSite(home, environ, metrics_port, dicom_port)


def leaks(text: str) -> list[str]:
    return [secret for secret in PLANTED if secret in text]


def test_the_doctor_prints_every_setting_and_no_secret(planted: PlantedSite) -> None:
    assert "database is at" in planted.run("migrate")
    plain, as_json = planted.run("doctor", "--quick"), planted.run("doctor", "--quick", "--json")
    shown = json.loads(as_json)["settings"]
    assert {shown[name]["source"] for name in ("database_url", "broker_url", "heartbeat_url")} == {"secret file"}
    assert "postgresql://firstread:***@localhost" in plain and "destination mail" in plain
    assert leaks(plain + as_json) == []


def test_a_start_that_fails_names_the_place_and_no_secret(planted: PlantedSite, tmp_path: Path) -> None:
    (tmp_path / "database").write_text((tmp_path / "database").read_text().replace(PASSWORD, "geheim-falsch"))
    for verb in ("migrate", "listen", "work", "up"):
        text = planted.run(verb)
        assert "password authentication failed" in text or "the broker at" in text, text
        assert "Traceback" not in text and leaks(text) == []
    (tmp_path / "database").write_text("postgresql://firstread:geheim-falsch@host:no-port/x")
    text = planted.run("listen")
    assert "FIRSTREAD_DATABASE_URL: not the URL of a database" in text and leaks(text) == []


def test_a_traceback_has_its_frames_and_no_secret(planted: PlantedSite, tmp_path: Path) -> None:
    text = planted.python("-c", UNEXPECTED)
    assert "Traceback" in text and "RuntimeError: postgresql://firstread:***@localhost" in text
    assert leaks(text) == []


def test_logs_and_metrics_of_a_process_whose_broker_goes_away_hold_no_secret(
    planted: PlantedSite, certificate: Certificate, tmp_path: Path
) -> None:
    planted.run("migrate")
    (tmp_path / "redis").mkdir()
    with guarded_redis(tmp_path / "redis", certificate) as redis:
        url = f"rediss://:{PASSWORD}@localhost:{redis.port}/0?ssl_ca_certs={redis.ca_file}"
        (tmp_path / "broker").write_text(url)
        process = subprocess.Popen(
            firstread_command("listen"),
            env=planted.environ,
            cwd=ROOT,
            stdout=(tmp_path / "out").open("wb"),
            stderr=subprocess.STDOUT,
        )
        try:
            until(lambda: answers(planted) or process.poll() is not None, 60, (tmp_path / "out").read_text)
            planted.run("send", str(small_files(tmp_path / "a")[0].parent), "--port", str(planted.dicom_port))
        except BaseException:
            process.kill()
            raise
    try:  # without its broker
        files = small_files(tmp_path / "b", study="later")
        sent = planted.run("send", str(files[0].parent), "--port", str(planted.dicom_port))
        until(lambda: "broker" in planted.written(), 30, planted.written)
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{planted.metrics_port}/metrics", timeout=20).read().decode()
        assert "firstread_" in metrics
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert leaks(planted.written() + (tmp_path / "out").read_text() + metrics + sent) == []


def answers(planted: PlantedSite) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{planted.metrics_port}/metrics", timeout=5):
            return True
    except OSError:
        return False
