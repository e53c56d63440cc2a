"""The parts of the bench, in the order in which they run."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """One part; its module ``tests.bench.<name>`` has the function ``measure``.

    Attributes
    ----------
    title : str
        As the page names it.
    minutes : float
        About how long it takes on two idle cores, with two engines.
    on_site : bool
        Whether it is measured on a site with listener and worker, which the parts share.
    own_file : bool
        Whether it writes its file itself.
    """

    name: str
    title: str
    minutes: float
    on_site: bool = False
    own_file: bool = False

    def measure(self, *arguments: Any) -> Any:
        """Run it."""
        return importlib.import_module(f"tests.bench.{self.name}").measure(*arguments)


PARTS = (
    Part("receive", "Receiving", 3),
    Part("decoder", "Decoding", 3),
    Part("inference", "Inference", 5),
    Part("costs", "Where the processor time of a study goes", 4),
    Part("backlog", "A backlog", 12, on_site=True),
    Part("start", "The start of a worker", 8, on_site=True),
    Part("flag", "From the last image to the flag", 11, on_site=True),
    Part("grace", "When a study closes", 2),
    Part("intake", "Intake and scoring at once", 6, on_site=True),
    Part("rejected", "Studies that are refused", 3, on_site=True),
    Part("urgent", "An urgent study behind others", 3, on_site=True),
    Part("films", "Chest films", 3, on_site=True),
    Part("memory", "Memory", 15, on_site=True),
    Part("pages", "Pages of the worklist", 3),
    Part("training", "Steps of training", 35),
    Part("shards", "Preparing shards for training", 60),
    Part("queries", "Queries", 30, own_file=True),
    Part("simulation", "Simulation", 1, own_file=True),
)
BY_NAME = {part.name: part for part in PARTS}
