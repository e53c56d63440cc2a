"""The entry point: what ends in one clear line."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from firstread_cli.main import COMMANDS, main


@click.command("written")
@click.argument("path", type=click.Path(path_type=Path))
def written(path: Path) -> None:
    """Write a file."""
    path.write_text("0" * 2**16, encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/dev/full", "firstread: a file: No space left on device"),
        ("/dev/null/x", "firstread: /dev/null/x: Not a directory"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    path: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "written", (f"{__name__}:written", ""))
    with pytest.raises(SystemExit) as stopped:
        main(["written", path])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == f"{line}\n"


def test_a_fault_of_ours_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "written", (f"{__name__}:written", ""))
    with pytest.raises(FileNotFoundError):
        main(["written", str(tmp_path / "nowhere" / "x")])
