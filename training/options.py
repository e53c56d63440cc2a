"""Options, and kinds of values, that commands about training take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class NewFolder(click.Path):
    """A folder to write into, there or not yet; asked for before hours of work, not after them."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; fails where what is there of it is no folder, or takes no files."""
        folder = Path(os.fsdecode(super().convert(value, param, ctx)))
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))
        if not os.path.isdir(there):
            self.fail(f"{folder} cannot be made: {there} is a file", param, ctx)
        if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
            self.fail(f"{folder} cannot be made: {there} takes no files from this user", param, ctx)
        return folder


FOLDER = NewFolder()
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

THREADS = click.option(
    "--threads", type=click.IntRange(min=0), default=0, help="Threads of TensorFlow; 0: its own choice."
)
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
"""TensorFlow's own variable: whether it takes the convolutions of oneDNN."""


def settle_tensorflow(threads: int) -> None:
    """Choose TensorFlow's convolutions, quiet its log, and bound its threads (0: its own choice), before it starts.

    On processors without instructions for networks (AVX-512 VNNI and later ones) it leaves the convolutions of oneDNN
    out, with which a step of training takes less time there (``docs/performance.md``). What the environment says
    counts.
    """
    os.environ.setdefault(ONEDNN, "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its information would stand between our own lines
    if not threads:
        return
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
