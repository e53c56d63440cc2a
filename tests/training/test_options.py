"""What commands about training settle before TensorFlow starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from training.options import FOLDER, ONEDNN, settle_tensorflow

MODULES = (
    "firstread_cli.experiments",
    "firstread_cli.training",
    "training.train",
    "training.chest.compare",
    "training.head_ct.split_gap",
    "training.dermoscopy.question",
    "training.dermoscopy.stand_in",
)
"""What is imported before it is settled."""


@pytest.mark.parametrize(("given", "counts"), [(None, "1"), ("0", "0")])
def test_asks_for_onednn_unless_the_environment_says_otherwise(
    given: str | None, counts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ONEDNN, given or "")  # so that it is put back
    if given is None:
        monkeypatch.delenv(ONEDNN)
    settle_tensorflow(0)
    assert os.environ[ONEDNN] == counts


def test_no_command_has_loaded_tensorflow_before_it_is_settled() -> None:
    code = f"import sys, {', '.join(MODULES)}; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


def test_a_folder_that_could_not_be_made_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(click.BadParameter, match="taken is a file"):
        FOLDER.convert(str(tmp_path / "taken" / "runs" / "one"), None, None)
    with pytest.raises(click.BadParameter, match="is a file"):
        FOLDER.convert(str(tmp_path / "taken"), None, None)
    for folder in (tmp_path / "runs" / "one", tmp_path, Path("runs")):
        assert FOLDER.convert(str(folder), None, None) == folder
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def nobody() -> Iterator[None]:
    """Root may write anywhere, so that root is somebody else for a while."""
    ours = os.geteuid()
    if ours == 0:
        os.seteuid(65534)
    yield
    os.seteuid(ours)


def test_a_folder_of_somebody_else_is_refused_at_once(tmp_path: Path, nobody: None) -> None:
    theirs = tmp_path if os.geteuid() == 65534 else Path("/")
    with pytest.raises(click.BadParameter, match="takes no files from this user"):
        FOLDER.convert(str(theirs / "run" / "one"), None, None)
