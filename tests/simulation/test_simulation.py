"""Histories end as they must, repeat by their seed, and notice code that is broken."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.simulation.breaks import BREAKS, RECORD, Break, first_found
from tests.simulation.history import ground, run
from tests.simulation.site import Ground

HISTORIES = 1000
BUDGET_S = 60.0
"""A slow machine runs as many as it can in this time; ``make soak`` runs 50,000."""
FAULTS_OF_OURS = {
    135: "a refused file of the inbox was moved before an error, and no row said so",
    188: "the folder of rejected files was not synced into the inbox, and a power cut took it",
    476: "an object that cannot be used was renamed before an error, and no row said so",
    500: "an object that cannot be used could not be written, and no row said so",
    1983: "a listener stood still while another took its claim, and left a file in the spool",
}
"""Seeds that found something in our own code, and what."""
RECORDED = {
    name: entry["histories"]
    for name, entry in json.loads(RECORD.read_text(encoding="utf-8"))["breaks"].items()
    if entry["histories"]
}
SEARCHED = 300
"""Histories until a break must be noticed here, where its recorded one does not notice it any more."""


@pytest.fixture(scope="module")
def on() -> Iterator[Ground]:
    with ground() as made:
        yield made


@pytest.mark.timeout(240)
def test_histories_end_as_they_must(on: Ground) -> None:
    end, count = time.monotonic() + BUDGET_S, 0
    for seed in range(1, HISTORIES + 1):
        history = run(on, seed)
        assert not history.complaints, f"{history}\nagain: python -m tests.simulation --seed {seed}"
        count += 1
        if time.monotonic() > end:
            break
    print(f"{count} histories")
    assert count >= 5


def test_a_seed_makes_the_same_history_again(on: Ground) -> None:
    first, second = run(on, 7), run(on, 7)
    assert first.trace and first.trace == second.trace


@pytest.mark.parametrize("seed", sorted(FAULTS_OF_OURS))
def test_what_a_seed_found_in_our_code_stays_mended(on: Ground, seed: int) -> None:
    assert run(on, seed).complaints == [], FAULTS_OF_OURS[seed]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("broken", [each for each in BREAKS if each.name in RECORDED], ids=lambda broken: broken.name)
def test_broken_code_is_noticed(on: Ground, broken: Break) -> None:
    first = RECORDED[broken.name]
    found = first_found(on, broken, range(first, first + 1)) or first_found(on, broken, range(1, SEARCHED + 1))
    assert found is not None
