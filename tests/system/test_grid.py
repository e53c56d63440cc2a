"""Some cells of the grid (``python -m tests.grid``): processes that are killed at a step, and a disk that is full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grid.cells import Cell, cells, run_cell
from tests.grid.place import PLACES, Place, sqlite_place

pytestmark = pytest.mark.timeout(240)
SHORT = (
    Cell("sqlite", "kill", "spool.rename", "after"),
    Cell("sqlite", "kill", "result.commit", "before"),
    Cell("sqlite", "full", "spool.write", "before"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A site on SQLite whose processes obey failpoints."""
    with sqlite_place(Path(tmp_path_factory.mktemp("grid"))) as running:
        yield running


@pytest.mark.parametrize("number", range(len(SHORT)), ids=[cell.name for cell in SHORT])
def test_nothing_is_lost_in_a_cell(place: Place, number: int) -> None:
    outcome = run_cell(place, SHORT[number], number)
    assert outcome.outcome == "held", (outcome.faults, place.output())


def test_every_cell_has_a_name_of_its_own_and_those_above_are_among_them() -> None:
    every = {name: list(cells(name)) for name in PLACES}
    assert all(len({cell.name for cell in row}) == len(row) > 100 for row in every.values())
    assert set(SHORT) <= set(every["sqlite"])
