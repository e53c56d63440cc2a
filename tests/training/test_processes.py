"""A pool's processes end with the process that started them, and its work with the first error."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from training.processes import worker_pool

PARENT = """
import os, time
from training.processes import worker_pool
with worker_pool(2) as pool:
    ids = [pool.submit(os.getpid) for _ in range(4)]
    print(*{future.result() for future in ids}, flush=True)
    pool.submit(time.sleep, 600)
    time.sleep(600)
"""


def test_a_pool_ends_with_a_parent_that_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}) as parent:
        assert parent.stdout is not None and parent.stdout.readline().strip()
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        parent.kill()
        _, alive = psutil.wait_procs(children, timeout=30)
        for process in alive:
            process.kill()
        assert alive == [], "one waits for work, one is at it"


def test_after_an_error_what_has_not_begun_is_left(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(FileNotFoundError), worker_pool(1) as pool:
        first = pool.submit(os.stat, tmp_path / "none")
        rest = [pool.submit(time.sleep, 2) for _ in range(50)]
        first.result()
    assert any(future.cancelled() for future in rest) and time.monotonic() - started < 60
