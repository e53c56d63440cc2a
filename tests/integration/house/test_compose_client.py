"""What the real Compose client says of docker-compose.yml; it needs no engine for that."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.builders.programs import need

ROOT = Path(__file__).resolve().parents[3]


def compose(folder: Path, env: str) -> subprocess.CompletedProcess[str]:
    """``docker-compose config`` in a folder with our file and a ``.env``."""
    program = need("docker-compose", "docker-compose")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    (folder / ".env").write_text(env, encoding="utf-8")
    return subprocess.run(
        [program, "config"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )


def example() -> str:
    """The example with its passwords filled in."""
    text = (ROOT / "deploy/env.example").read_text(encoding="utf-8")
    return re.sub(r"^(\w+PASSWORD)=$", r"\1=secret", text, flags=re.MULTILINE)


def test_the_client_takes_the_file_with_the_example_filled_in(tmp_path: Path) -> None:
    done = compose(tmp_path, example())
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services["listener"]["environment"]["FIRSTREAD_DATABASE_URL"].startswith(
        "postgresql://firstread_service:secret@"
    )
    assert services["worker"]["command"] == ["firstread", "work"]


def test_settings_in_the_env_file_reach_our_containers_and_what_is_fixed_wins(tmp_path: Path) -> None:
    given = {
        "FIRSTREAD_QUIET_S": "7.5",
        "FIRSTREAD_ALLOWED_CALLING_AE": '["CT1", "CT2"]',
        "FIRSTREAD_DESTINATIONS": "/etc/firstread/destinations.toml",
        "HOOK_SECRET": "sesame",
    }
    wrong = {"FIRSTREAD_HOME": "/elsewhere", "FIRSTREAD_METRICS_PORT": "1", "FIRSTREAD_DATABASE_URL": "sqlite:////x"}
    lines = [f"{name}={value}" for name, value in (given | wrong).items()]
    done = compose(tmp_path, example() + "\n".join(lines))
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    for name in ("migrate", "listener", "deliver", "worker"):
        environment = services[name]["environment"]
        assert {key: environment[key] for key in given} == given, name
        assert environment["FIRSTREAD_HOME"] == "/var/lib/firstread"
        assert environment["FIRSTREAD_DATABASE_URL"].startswith("postgresql://")
    ports = {name: str(services[name]["environment"]["FIRSTREAD_METRICS_PORT"]) for name in ("listener", "worker")}
    assert ports == {"listener": "9108", "worker": "9109"}
    assert not {"FIRSTREAD_QUIET_S", "HOOK_SECRET"} & set(services["redis"].get("environment") or {})


def test_the_client_refuses_an_empty_password(tmp_path: Path) -> None:
    done = compose(tmp_path, (ROOT / "deploy/env.example").read_text(encoding="utf-8"))
    assert done.returncode != 0
    assert "set it in .env" in done.stderr
