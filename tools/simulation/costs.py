"""What a study costs a worker, from the files that the bench wrote; nothing is typed in by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.packages.runtimes.device import CPU_BATCHES

ENGINE = "TensorFlow"
SERVED = "TensorFlow, as served"
BACKLOG_SLICES = 30
"""Of a head of the part ``backlog``."""

LEAST_SHARE = 0.1
"""Of what a head costs, at least so much is not the network, whatever a busy machine made of the two measurements."""


class NotMeasured(Exception):
    """A part of the bench whose figures are wanted; the text names it."""


@dataclass(frozen=True)
class Costs:
    """Of one worker on the machine of the bench.

    Attributes
    ----------
    cores : int
        Of that machine.
    head_core_s : float
        A head beside the network, in seconds of one core.
    film_core_s, refused_core_s : float
        A positive film with its maps, and slices that are refused, altogether.
    rows_s : dict of int to float
        Seconds of the device a batch, by its fixed sizes.
    measured_backlog_per_h : float
        Heads an hour, for the comparison with what the simulation makes of the same backlog.
    loads : dict of str to (float, float)
        Load average before and after each part.
    """

    cores: int
    head_core_s: float
    film_core_s: float
    refused_core_s: float
    rows_s: dict[int, float]
    measured_backlog_per_h: float
    loads: dict[str, tuple[float, float]]

    def batch_s(self, rows: int) -> float:
        """Seconds for so many rows: the device runs fixed sizes, and fills the last one up."""
        seconds = 0.0
        while rows > 0:
            size = next((s for s in CPU_BATCHES if s >= rows), CPU_BATCHES[-1])
            seconds += self.rows_s[size]
            rows -= size
        return seconds


def largest_batch() -> int:
    """As the engine fills it for a processor."""
    return CPU_BATCHES[-1]


def read(folder: Path) -> Costs:
    """Costs from the files of the bench.

    Raises
    ------
    NotMeasured
        Where a part has no file, or its file lacks what is wanted.
    """
    backlog, inference = _part(folder, "backlog"), _part(folder, "inference")
    films, refused = _part(folder, "films"), _part(folder, "rejected")
    cores = int(backlog["machine"]["cores"])
    rows_s = {size: size / _median(inference, SERVED, f"passes/s, batch {size}") for size in CPU_BATCHES}
    head_s = _median(backlog, ENGINE, "CPU s a study")
    parts = (backlog, inference, films, refused)
    costs = Costs(
        cores=cores,
        head_core_s=0.0,
        film_core_s=_median(films, ENGINE, "CPU s a film"),
        refused_core_s=_median(refused, None, "CPU s a study"),
        rows_s=rows_s,
        measured_backlog_per_h=_median(backlog, ENGINE, "studies/h"),
        loads={part["part"]: (part["load_before"], part["load_after"]) for part in parts},
    )
    network_s = cores * BACKLOG_SLICES * costs.rows_s[CPU_BATCHES[-1]] / CPU_BATCHES[-1]
    return Costs(**{**costs.__dict__, "head_core_s": max(LEAST_SHARE * head_s, head_s - network_s)})


def _part(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    if not path.is_file():
        raise NotMeasured(f"{name}: `python -m tests.bench {name}` writes its figures")
    part: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return part


def _median(part: dict[str, Any], subject: str | None, measure: str) -> float:
    wanted: Callable[[dict[str, Any]], bool] = lambda row: (  # noqa: E731
        row["measure"] == measure and subject in (None, row["subject"]) and "median" in row
    )
    row = next(filter(wanted, part["figures"]), None)
    if row is None:
        raise NotMeasured(f"{part['part']}: no figure `{measure}`")
    return float(row["median"])
