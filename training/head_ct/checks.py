"""How often the checks of head CT that look at pixels warn: on plain heads, and on heads that were changed.

``firstread head checks --data DIR --out FILE`` writes the table (``docs/experiments`` holds the release's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import cv2
import numpy as np

from firstread.phantoms.anatomy import AGES
from firstread.phantoms.chest import body_volume
from firstread.phantoms.head import BLEEDS, HeadSpec, head_volume
from training.datasets.base import studies
from training.evaluation import metrics
from training.evaluation.report import write_table
from training.head_ct.disturbed import DISTURBED
from training.head_ct.readers import CtIchTwoWindows
from training.head_ct.vessels import CALCIFICATIONS, PAINTED, PlainHead, with_tubes
from training.options import EXISTING_FOLDER
from worker.pipelines.head_ct.cavity import cavities_of
from worker.pipelines.head_ct.checks import cautions_of
from worker.pipelines.head_ct.likeness import likeness_of
from worker.pipelines.reasons import Caution

GATE_TITLE: Final = "The gate by pixels: heads of every age, and what is no head"
TITLE: Final = "Checks by pixels: how many heads get a warning"
PIXEL_MM: Final = 0.72
STEP_MM: Final = 5.0
"""Of CT-ICH's pictures in two windows, which do not say."""

VESSELS_HU: Final = (120.0, 160.0, 200.0, 250.0)
CODES: Final = (Caution.CONTRAST_SUSPECTED, Caution.ARTEFACT_SUSPECTED)
CALCIUM_HU: Final = 350.0
DRAWN: Final = 6
DRAWN_GATE: Final = 12
Rows = list[dict[str, Any]]


@dataclass
class Tally:
    """Which heads of a row got which warning."""

    warned: dict[str, int] = field(default_factory=dict)
    n: int = 0

    def add(self, codes: Mapping[str, bool]) -> None:
        """Count one head."""
        self.n += 1
        for code, found in codes.items():
            self.warned[code] = self.warned.get(code, 0) + bool(found)

    def row(self, name: str) -> dict[str, Any]:
        """The row of the table."""
        return {"heads": name, "n": self.n} | {
            code: metrics.wilson(count, self.n).as_dict() for code, count in self.warned.items()
        }


def warnings_of(hu: np.ndarray, pixel_mm: float, step_mm: float) -> dict[str, bool]:
    """Which checks would warn."""
    cautions = cautions_of(hu, pixel_mm, step_mm)
    return {str(code): code in cautions for code in CODES}


@dataclass(frozen=True)
class NamedHead:
    """A plain head of the data set, and whether its patient bled."""

    head: PlainHead
    bled: bool


def real_heads(data: Path) -> Iterator[NamedHead]:
    """Every patient of CT-ICH in two windows, as real Hounsfield units."""
    dataset = CtIchTwoWindows(data)
    items = dataset.items()
    for members in studies(items).values():
        hu = np.stack([dataset.pixels(items[i]) for i in members])
        bled = any(items[i].labels.get("any") == 1.0 for i in members)
        head = PlainHead(hu, PIXEL_MM, STEP_MM, cavities_of(hu, PIXEL_MM))
        yield NamedHead(head, bled)


def drawn_heads() -> Iterator[PlainHead]:
    """Phantoms of the repository."""
    spec = HeadSpec(slices=32, size=256)
    pixel_mm = spec.field_mm / spec.size
    for seed in range(DRAWN):
        hu, _ = head_volume(spec, seed)
        yield PlainHead(hu, pixel_mm, spec.step_mm, cavities_of(hu, pixel_mm))


def rows_of(real: Iterable[NamedHead], drawn: Iterable[PlainHead], painted: int) -> Rows:
    """A row for each kind of head.

    Parameters
    ----------
    painted : int
        Every how many-th real head is changed as well.
    """
    tallies: dict[str, Tally] = {}

    def count(name: str, head: PlainHead, hu: np.ndarray | None = None) -> None:
        codes = warnings_of(head.hu if hu is None else hu, head.pixel_mm, head.step_mm)
        tallies.setdefault(name, Tally()).add(codes)

    for number, named in enumerate(real):
        count(f"real, {'with' if named.bled else 'without'} a bleed", named.head)
        if number % painted == 0 and named.head.cavities.shown:
            for name, change in CHANGED.items():
                count(f"real, {name}", named.head, change(named.head))
    for head in drawn:
        count("drawn", head)
        for name, change in CHANGED.items():
            count(f"drawn, {name}", head, change(head))
    return [tally.row(name) for name, tally in sorted(tallies.items(), key=lambda item: _place(item[0]))]


def gate_rows(real: Iterable[NamedHead]) -> Rows:
    """What the gate makes of drawn heads of every age, of drawn trunks, and of the real heads."""
    tallies: dict[str, Tally] = {}
    for name, hu, pixel_mm in _gated(real):
        likeness = likeness_of(hu, pixel_mm)
        scored = likeness.certain or likeness.possible(False)
        judged = {"scored": likeness.certain, "head_uncertain": scored and not likeness.certain, "refused": not scored}
        tallies.setdefault(name, Tally()).add(judged)
    return [tally.row(name) for name, tally in tallies.items()]


def _gated(real: Iterable[NamedHead]) -> Iterator[tuple[str, np.ndarray, float]]:
    for named in real:
        yield "real heads", named.head.hu, named.head.pixel_mm
    for age in AGES:
        for seed in range(DRAWN_GATE):
            bleed = (None, *BLEEDS)[seed % (len(BLEEDS) + 1)]
            spec = HeadSpec(slices=22 if age == "newborn" else 30, size=192, bleed=bleed, age=age)
            yield f"drawn heads, {age}", head_volume(spec, seed)[0], spec.field_mm / spec.size
    for whose, field_mm in (("an adult's", 400.0), ("a child's", 200.0)):
        for seed in range(DRAWN_GATE):
            yield f"drawn trunks of {whose} size", body_volume(24, 192, 400.0, seed), field_mm / 192


def _place(name: str) -> tuple[bool, bool, int]:
    """Where a row stands: real before drawn, unchanged before changed, changes in their order."""
    changes = list(CHANGED)
    change = name.partition(", ")[2]
    return name.startswith("drawn"), change in changes, changes.index(change) if change in changes else 0


def _changes() -> dict[str, Callable[[PlainHead], np.ndarray]]:
    """The ways in which a head is changed, by the words that name them in the table."""
    changes: dict[str, Callable[[PlainHead], np.ndarray]] = {
        "calcified pineal gland, plexus, pallidum and falx": lambda head: with_tubes(head, CALCIFICATIONS, CALCIUM_HU)
    }
    for name, paint in PAINTED.items():
        for value in VESSELS_HU:
            changes[f"{name} at {value:g} HU"] = lambda head, paint=paint, value=value: paint(head, value)  # type: ignore[misc]
    return changes | DISTURBED


CHANGED: Final = _changes()


@click.command("checks")
@click.option(
    "--data", type=EXISTING_FOLDER, required=True, help="Folder of CT-ICH in two windows (ct_ich_two_windows)."
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The tables, without suffix."
)
@click.option(
    "--painted",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Change every how many-th real head as well.",
)
def checks(data: Path, out: Path, painted: int) -> None:
    """Count the warnings of checks that look at pixels, on plain heads, real and drawn, and on changed ones."""
    cv2.setNumThreads(1)
    budget = (
        f"every head as it is, every {painted}. real head also changed; "
        "the limits were set with these patients in sight"
    )
    rows = rows_of(real_heads(data), drawn_heads(), painted)
    click.echo(write_table(out.parent, out.stem, TITLE, budget, rows).read_text(encoding="utf-8"))
    budget = f"every real head, and {DRAWN_GATE} drawn ones of each kind, five of six with a bleed"
    table = write_table(out.parent, f"{out.stem}_gate", GATE_TITLE, budget, gate_rows(real_heads(data)))
    click.echo(table.read_text(encoding="utf-8"))
