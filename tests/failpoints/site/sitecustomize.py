"""Python runs this at the start of a process with this folder in PYTHONPATH: see tests/failpoints."""

import os
import sys
from pathlib import Path

if os.environ.get("FIRSTREAD_FAILPOINT") or os.environ.get("FIRSTREAD_FAILPOINT_FILE"):
    root = str(Path(__file__).resolve().parents[3])
    sys.path.append(root)
    try:
        from tests.failpoints import obey_environment
    finally:
        sys.path.remove(root)
    obey_environment()
