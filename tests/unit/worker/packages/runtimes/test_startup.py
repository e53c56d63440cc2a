"""What TensorFlow prints at its start: chatter goes, errors stay, also the last words before an abort."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from worker.packages.runtimes.startup import unused_left_out

LINES = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    "I0000 00:00:1795890277.179527   24040 port.cc:153] oneDNN custom operations are on.\n"
    "2026-11-28 18:00:00.123456: W tensorflow/core/framework.cc:1] something old\n"
    "E0000 00:00:1795890277.179527   24040 cuda.cc:9] no device\n"
    "F0000 00:00:1795890277.179527   24040 cpu.cc:9] compiled to use AVX\n"
    "Traceback (most recent call last):\n"
)


@pytest.mark.parametrize("end", ["", "os.abort()"])
def test_errors_are_kept(end: str) -> None:
    code = (
        "import os, sys\nfrom worker.packages.runtimes.startup import chatter_left_out\n"
        f"with chatter_left_out():\n    os.write(2, {LINES.encode()!r})\n    {end}\n"
        "print('I0000 00:00 after the block', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    first_letters = [line[:1] for line in done.stderr.splitlines()]
    assert first_letters == (["E", "F", "T"] if end else ["E", "F", "T", "I"])


def test_what_is_left_out_can_be_loaded_afterwards() -> None:
    name = "colorsys"  # of the standard library; nothing here has a use for it
    sys.modules.pop(name, None)
    with unused_left_out((name, "json")):
        with pytest.raises(ImportError):
            importlib.import_module(name)
        assert importlib.import_module("json").loads("1") == 1  # is loaded already
    assert importlib.import_module(name)
