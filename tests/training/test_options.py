"""What commands about training settle before TensorFlow starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from training.options import ONEDNN, settle_tensorflow

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
