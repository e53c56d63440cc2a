"""Options, and kinds of values, that commands about training take."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

THREADS = click.option(
    "--threads", type=click.IntRange(min=0), default=0, help="Threads of TensorFlow; 0: its own choice."
)
