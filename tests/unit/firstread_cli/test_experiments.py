"""``firstread chest`` and ``firstread dermoscopy``: what they offer, and that asking costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PROBE = """
import sys
from click.testing import CliRunner
from firstread_cli.main import cli
asked = ("chest", "chest compare", "chest stress", "dermoscopy question", "dermoscopy shifts")
for words in map(str.split, asked):
    result = CliRunner().invoke(cli, [*words, "--help"], catch_exceptions=False)
    assert result.exit_code == 0
    print(result.output)
heavy = {"tensorflow", "keras"} & {name.split(".")[0] for name in sys.modules}
print("loaded:", sorted(heavy))
"""


def test_help_lists_the_experiments_and_loads_no_network_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert {"compare", "stress", "maps", "blend", "gate"} <= set(words)
    assert {"SUITE", "PACKAGE...", "--data", "--full", "--films", "--pictures"} <= set(words)
    assert "loaded: []" in done.stdout
