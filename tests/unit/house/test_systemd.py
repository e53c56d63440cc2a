"""The systemd units: real commands, real settings, and what systemd itself says of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from firstread.settings import ENV_PREFIX, Settings
from firstread.storage.home import HOME_MODE
from firstread_cli.main import COMMANDS, cli
from tests.builders.programs import need
from tools.docs.security import FIGURES, measured, version

FOLDER = Path(__file__).resolve().parents[3] / "deploy/systemd"
MOST_EXPOSED = 2.0
"""Of 10, by systemd's reckoning."""
UNITS = sorted(FOLDER.glob("*.service"))


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.stem)
def test_a_unit_runs_a_command_of_ours(path: Path) -> None:
    lines = re.findall(r"^Exec\w+=(.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert lines
    for line in lines:
        program, verb, *arguments = line.split()
        assert program == "/opt/firstread/.venv/bin/firstread"
        assert verb in COMMANDS
        command = cli.get_command(cli.make_context("firstread", [verb]), verb)
        assert command is not None
        command.make_context(verb, arguments)


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.stem)
def test_systemd_finds_nothing_wrong(path: Path, tmp_path: Path) -> None:
    program = need("systemd-analyze", "systemd")
    copy = tmp_path / path.name
    copy.write_text(
        path.read_text(encoding="utf-8").replace("/opt/firstread/.venv/bin/firstread", shutil.which("true") or "")
    )
    done = subprocess.run([program, "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False)
    ours = [line for line in done.stderr.splitlines() if path.name in line]
    assert ours == []


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.stem)
def test_systemd_makes_the_home_with_the_mode_that_we_give_it(path: Path) -> None:
    """Others may pass through it to the inbox; systemd's own 0755 would let them list it."""
    modes = re.findall(r"^StateDirectoryMode=(\d+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [int(mode, 8) for mode in modes] == [HOME_MODE]


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.stem)
def test_a_unit_may_do_little_more_than_its_work(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^User=firstread$", text, flags=re.MULTILINE)
    assert re.findall(r"^(?:CapabilityBoundingSet|AmbientCapabilities)=(.*)$", text, flags=re.MULTILINE) == ["", ""]
    assert re.findall(r"^ReadWritePaths=(.*)$", text, flags=re.MULTILINE) == ["/var/lib/firstread"]
    unit = measured(path, need("systemd-analyze", "systemd"))
    assert unit["exposure"] <= MOST_EXPOSED
    assert not {name for name in unit["open"] if name.startswith("CapabilityBoundingSet")}


def test_the_figures_of_the_document_are_those_of_the_units() -> None:
    program = need("systemd-analyze", "systemd")
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    assert set(figures["units"]) == {path.name for path in UNITS}
    if figures["systemd"] != version(program):
        pytest.skip(f"the figures are those of systemd {figures['systemd']}, which reckons otherwise")
    assert figures["units"] == {path.name: measured(path, program) for path in UNITS}


def test_the_environment_file_is_made_of_settings() -> None:
    text = (FOLDER / "firstread.env").read_text(encoding="utf-8")
    names = re.findall(r"^#?([A-Z_]+)=", text, flags=re.MULTILINE)
    assert {"FIRSTREAD_HOME", "FIRSTREAD_DATABASE_URL", "FIRSTREAD_BROKER_URL"} <= set(names)
    assert {name.removeprefix(ENV_PREFIX).lower() for name in names} <= set(Settings.model_fields)
