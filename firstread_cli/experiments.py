"""``firstread chest``: experiments with chest films. Each prints a table, and writes it as Markdown and JSON."""

from __future__ import annotations

import click

from tools.experiments.erasure import erase
from tools.experiments.looks import looks
from tools.experiments.upscaler import upscaler
from training.chest.blend import blend
from training.chest.compare import compare
from training.chest.maps import maps
from training.chest.stress import stress


@click.group("chest")
def chest() -> None:
    """Chest X-ray experiments: comparisons, damaged films, what models look at, the joint score."""


for command in (compare, stress, upscaler, looks, maps, erase, blend):
    chest.add_command(command)
