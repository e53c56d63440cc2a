"""``firstread prepare`` on a tree of many small files: files a second, memory from the first shard to the last, a kill.

The tree has the layout of RSNA 2019, whose 752,803 training images the hours are extrapolated to. Preparation is killed
once (SIGKILL) when a part of the shards is there, and goes on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.figures import Collected, Figure
from tests.bench.processes import PeakMemory, cores
from tests.bench.sizes import Sizes
from tests.builders.rsna_tree import write_tree

RSNA_IMAGES = 752_803
SHARD = 512
LOOK_S = 0.5
WORDS = "small RSNA files"


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """200,000 slices of 64 x 64, prepared for the published three windows, one process a core."""
    files = sizes.pick(200_000, 400)
    write_tree(folder / "tree", files)
    found, shards = Collected(), folder / "shards"
    subject = f"{files:,} {WORDS}, {cores()} processes"
    started = time.monotonic()
    process = _prepare(folder)
    first = _wait_for(shards, process, 1)
    _wait_for(shards, process, max(2, files // SHARD // 4))
    process.send_signal(signal.SIGKILL)
    process.wait()
    before_kill = time.monotonic() - started
    kept = {path: path.stat().st_mtime_ns for path in shards.glob("*.tfrecord")}
    again = time.monotonic()
    process = _prepare(folder)
    with PeakMemory(process.pid) as peak:
        _wait_for(shards, process, len(kept) + 1)
        early_mb = peak.family_mb
        if process.wait() != 0:
            raise RuntimeError("prepare ended with an error")
    seconds = before_kill + time.monotonic() - again
    remade = sum(path.stat().st_mtime_ns != mtime for path, mtime in kept.items())
    found.add(subject, "until the first shard", "s", first - started)
    found.add(subject, "files", "1/s", files / seconds)
    found.add(subject, f"hours for {RSNA_IMAGES:,} images of this size", "h", RSNA_IMAGES * seconds / files / 3600)
    found.add(subject, "peak until the next shard after the kill", "MB", early_mb)
    found.add(subject, "peak until the end", "MB", peak.family_mb)
    found.add(subject, "finished shards that were made again after SIGKILL", "", float(remade))
    return found.figures()


def _prepare(folder: Path) -> subprocess.Popen[bytes]:
    """The command on the tree, with its index of headers beside the shards."""
    command = [sys.executable, "-m", "firstread_cli.main", "prepare", "rsna", "--data", str(folder / "tree")]
    environment_command = ["env", f"XDG_CACHE_HOME={folder / 'cache'}", "TF_CPP_MIN_LOG_LEVEL=3", *command]
    return subprocess.Popen([*environment_command, "--out", str(folder / "shards")], stdout=subprocess.DEVNULL)


def _wait_for(shards: Path, process: subprocess.Popen[bytes], count: int) -> float:
    """The time at which so many shards are there, or the process has ended."""
    while process.poll() is None and len(list(shards.glob("*.tfrecord"))) < count:
        time.sleep(LOOK_S)
    return time.monotonic()
