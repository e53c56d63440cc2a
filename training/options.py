"""Options, and kinds of values, that commands about training take."""

from __future__ import annotations

import os
from pathlib import Path

import click

FOLDER = click.Path(file_okay=False, path_type=Path)
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
