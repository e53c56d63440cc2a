"""What the real Compose client says of docker-compose.yml; it needs no engine for that."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def compose(env_file: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed (Debian: docker-compose)")
    command = [program, "--env-file", str(env_file), "config"]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/bin:/bin"}
    )


def test_the_client_takes_the_file_with_the_example_filled_in(tmp_path: Path) -> None:
    example = (ROOT / "deploy/env.example").read_text(encoding="utf-8")
    filled = tmp_path / "filled.env"
    filled.write_text(re.sub(r"^(\w+PASSWORD)=$", r"\1=secret", example, flags=re.MULTILINE), encoding="utf-8")
    done = compose(filled)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services["listener"]["environment"]["FIRSTREAD_DATABASE_URL"].startswith("postgresql://firstread:secret@")
    assert services["worker"]["command"] == ["firstread", "work"]


def test_the_client_refuses_an_empty_password(tmp_path: Path) -> None:
    env_file = tmp_path / "empty.env"
    shutil.copy(ROOT / "deploy/env.example", env_file)
    done = compose(env_file)
    assert done.returncode != 0
    assert "set it in .env" in done.stderr
