"""``firstread work`` with the probe worker, which pauses for a moment alone after each death: many are on purpose."""

from __future__ import annotations

import sys

from firstread.settings import Settings
from worker.process import supervisor

if __name__ == "__main__":
    supervisor.EARLY_END_S = 0.1
    supervisor.LONGEST_PAUSE_S = 0.5
    sys.exit(supervisor.run_supervisor(Settings(), [sys.executable, "-m", "tests.builders.probe_worker"]))
