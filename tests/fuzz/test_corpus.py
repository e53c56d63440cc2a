"""The kept inputs of every door break nothing: those to begin from, and those that once did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.door import CORPUS, MODULES, Broken, door_of, place_of_its_own
from tests.fuzz.findings import Findings, cut_down
from tests.fuzz.mutation import mutated

MOST_BYTES = 2**20


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MODULES)
def test_no_kept_input_breaks_a_promise(name: str) -> None:
    door = door_of(name)
    kept = door.corpus()
    assert kept
    faults = {}
    with place_of_its_own() as place, door.opened(place) as feed:
        for file, data in kept.items():
            try:
                assert feed(data)
            except Broken as broken:
                faults[file] = str(broken)
    assert faults == {}


def test_the_corpus_is_small_and_every_folder_is_a_door() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(MODULES)
    assert sum(path.stat().st_size for path in files) < MOST_BYTES


def test_what_is_found_is_cut_down_and_kept_once(tmp_path: Path) -> None:
    def feed(data: bytes) -> str:
        if b"!" in data:
            raise Broken("an exclamation")
        if b"?" in data:
            raise KeyError("not typed")
        return "good"

    findings = Findings(feed, tmp_path, "bytes")
    for data in (b"abc", b"abc!def", b"x!", b"why?"):
        findings.give(data)
    assert findings.outcomes == {"good": 1, "BROKEN": 3}
    assert set(findings.faults) == {"broken: an exclamation", "KeyError in test_corpus.py:feed"}
    assert {(tmp_path / file).read_bytes() for file in findings.faults.values()} == {b"!", b"?"}
    assert cut_down(feed, b"aa?aa", "KeyError in test_corpus.py:feed") == b"?"


def test_changes_at_random_repeat_by_their_seed() -> None:
    import random

    others = [b"abcdefgh" * 20, b"\0" * 90]
    twice = [[mutated(random.Random(n), others[0], others, 200) for n in range(50)] for _ in range(2)]
    assert twice[0] == twice[1] and len(set(twice[0])) > 40 and max(map(len, twice[0])) <= 200
