"""Starting TensorFlow: what must be set before its import, and what it prints on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from worker.packages.runtimes.device import DEVICE

CHATTER = r"(WARNING: All log messages before absl::InitializeLog|[IW]\d{4} \d\d:|\S+ \S+: [IW] )"
"""Beginnings of lines that say nothing is wrong: absl's notice, and messages of the levels INFO and WARNING.

No environment variable silences those from before absl is initialised (TensorFlow 2.21)."""

UNUSED = ("sklearn", "matplotlib")
"""What Keras loads where it is installed, for wrappers and plots: 60 MB that scoring has no use for."""

_FILTER = """
import os, re, sys
chatter = re.compile(sys.argv[1].encode())
for line in sys.stdin.buffer:
    if not chatter.match(line):
        os.write(2, line)
"""

END_S = 5.0


@contextmanager
def chatter_left_out() -> Iterator[None]:
    """During the block, what is written to the file descriptor of stderr is passed on without TensorFlow's notices.

    A process of its own reads and passes on, so that the last lines of a library that aborts are not lost.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        reader = subprocess.Popen([sys.executable, "-I", "-S", "-c", _FILTER, CHATTER], stdin=subprocess.PIPE)
    except OSError:
        os.close(stderr)
        yield
        return
    assert reader.stdin is not None
    os.dup2(reader.stdin.fileno(), 2)
    reader.stdin.close()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        with suppress(subprocess.TimeoutExpired):  # a process that was started in the block may hold the other end
            reader.wait(END_S)


@contextmanager
def unused_left_out(names: Collection[str] = UNUSED) -> Iterator[None]:
    """During the block, modules that are not loaded yet are as if they were not installed; after it they can be."""
    missing: dict[str, Any] = {name: None for name in names if name not in sys.modules}
    sys.modules.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def start_tensorflow(threads: int = 0) -> None:
    """Import TensorFlow as the backend of Keras and set it up, before it is used first.

    Parameters
    ----------
    threads : int
        Threads of one operation; 0 leaves one a core.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with chatter_left_out(), unused_left_out():
        import keras
        import tensorflow as tf

        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if not gpus:
            DEVICE.free_bytes = None
        elif DEVICE.mixed_precision:
            keras.mixed_precision.set_global_policy("mixed_float16")


def ensure_tensorflow(threads: int = 0) -> None:
    """:func:`start_tensorflow` where this process has not loaded TensorFlow yet."""
    if "tensorflow" not in sys.modules:
        start_tensorflow(threads)
