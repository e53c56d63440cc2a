"""``firstread work`` with the probe worker below it: ``python -m tests.builders.probe_supervisor``."""

from __future__ import annotations

import sys

from firstread.settings import Settings
from worker.process.supervisor import run_supervisor

if __name__ == "__main__":
    sys.exit(run_supervisor(Settings(), [sys.executable, "-m", "tests.builders.probe_worker"]))
