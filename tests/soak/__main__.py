"""``python -m tests.soak``: two hours by default; ends with 1 where a count does not agree or something grows."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import facts
from tests.builders.programs import is_here
from tests.soak.reconcile import Agreement, agreement, deliveries_that_wait, studies_that_wait, waits_s
from tests.soak.sampling import Sampler, disk_growth, growth
from tests.soak.senders import Heads, Ledger, Sender
from tests.soak.site import ROOT, Pacs, Site, site

REPORT: Final = ROOT / "docs" / "reliability" / "soak.json"
MOST_WAITING: Final = 20
MOST_UNDELIVERED: Final = 200
"""Senders pause above these, so that a slow machine is loaded and not buried."""
START_S: Final = 600.0
DRAIN_S: Final = 1800.0
LOOK_S: Final = 0.5
GROWTH_LIMITS: Final = {"memory": 60.0, "descriptors": 6.0, "threads": 6.0}
"""Growth an hour that is too much, where the whole interval lies above it: MB, and numbers."""


class Soak:
    """One run.

    Parameters
    ----------
    options : argparse.Namespace
        As given to the command.
    """

    def __init__(self, options: argparse.Namespace, place: Site, pacs: Pacs | None) -> None:
        self._options = options
        self._place = place
        self._pacs = pacs
        self._rng = random.Random(options.seed)
        self.ledger = Ledger()

    def _waiting(self) -> int:
        return studies_that_wait(self._place.db, len(self.ledger.studies))

    def _may_go_on(self) -> bool:
        """Whether the next study may come."""
        return self._waiting() < MOST_WAITING and deliveries_that_wait(self._place.db) < MOST_UNDELIVERED

    def _alive(self) -> None:
        if self._place.process.poll() is not None:
            raise RuntimeError(f"`firstread up` ended with {self._place.process.returncode}")

    def run(self) -> dict[str, Any]:
        """Everything between the start and the last count."""
        options, place = self._options, self._place
        _wait(lambda: place.is_ready, START_S, self._alive, "starting")
        sampler = Sampler(
            place.process.pid,
            place.settings,
            options.sample_every_s,
            lambda: len(self.ledger.studies) - self._waiting(),
        )
        heads = Heads()
        crowd = [
            Sender(
                number,
                options.senders,
                place.settings,
                place.folder / "sent",
                heads,
                self.ledger,
                self._may_go_on,
                options.pause_s,
                options.seed,
            )
            for number in range(options.senders)
        ]
        for thread in (sampler, *crowd, *([self._pacs] if self._pacs else [])):
            thread.start()
        self._kill_until(time.monotonic() + 60 * options.minutes)
        for sender in crowd:
            sender.stop()
        for sender in crowd:
            sender.join()
        if self._pacs is not None:
            self._pacs.stay()
        found = self._drain()
        sampler.stop()
        found.faults += [f"{sender.name}: {sender.error!r}" for sender in crowd if sender.error is not None]
        grown = growth(sampler.samples)
        found.faults += too_much(grown)
        return self._report(found, grown, disk_growth(sampler.disk))

    def _kill_until(self, end: float) -> None:
        every_s = self._options.kill_every_s
        next_kill = time.monotonic() + every_s * self._rng.uniform(0.5, 1.5)
        while time.monotonic() < end:
            self._alive()
            if time.monotonic() > next_kill:
                self._place.kill_one(self._rng)
                next_kill = time.monotonic() + every_s * self._rng.uniform(0.5, 1.5)
            time.sleep(LOOK_S)

    def _drain(self) -> Agreement:
        """Wait until all counts agree, or there is no more time."""
        end = time.monotonic() + self._options.drain_s
        while True:
            self._alive()
            server = self._pacs.server if self._pacs is not None else None
            found = agreement(self._place.settings, self._place.db, self.ledger, server)
            if not found.faults or time.monotonic() > end:
                return found
            time.sleep(4 * LOOK_S)

    def _report(self, found: Agreement, grown: dict[str, Any], disk: dict[str, Any]) -> dict[str, Any]:
        ledger = self.ledger
        return {
            "studies": len(ledger.studies),
            "ways": dict(Counter(ledger.ways.values()).most_common()),
            "images_acknowledged": sum(ledger.acknowledged.values()),
            "broken_off": ledger.broken_off,
            "sent_again_after_a_death": ledger.tried_again,
            "killed": dict(self._place.kills),
            "pacs_gone": self._pacs.gone if self._pacs is not None else None,
            "median_wait_s": waits_s(self._place.db, ledger),
            "counts": found.counts,
            "faults": found.faults,
            "growth": grown,
            "disk": disk,
        }


def too_much(grown: dict[str, Any]) -> list[str]:
    """What grows for sure by more than it may."""
    return [
        f"{kind}: {measure} grows by at least {row[measure]['an_hour']['low']:g} an hour"
        for kind, row in grown.items()
        for measure, limit in GROWTH_LIMITS.items()
        if row[measure]["an_hour"] is not None and row[measure]["an_hour"]["low"] > limit
    ]


def _wait(ready: Callable[[], bool], limit_s: float, alive: Callable[[], None], what: str) -> None:
    end = time.monotonic() + limit_s
    while not ready():
        alive()
        if time.monotonic() > end:
            raise RuntimeError(f"{what} took longer than {limit_s:g} s")
        time.sleep(LOOK_S)


def soak(options: argparse.Namespace) -> dict[str, Any]:
    """The whole run in a folder of its own; the report."""
    folder = Path(tempfile.mkdtemp(prefix="firstread-soak-"))
    pacs = Pacs(folder / "pacs", options.pacs_up_s, options.pacs_down_s, options.seed) if is_here("Orthanc") else None
    good = False
    try:
        with facts("soak", quick=options.minutes < 5) as row:
            if pacs is not None:
                pacs.open()
            row |= {"minutes": options.minutes, "senders": options.senders, "pause_s": options.pause_s}
            row["seed"] = options.seed
            row["models"] = "shipped" if options.shipped_models else "a toy network"
            port = pacs.ports[0] if pacs is not None else None
            with site(folder, port, shipped_models=options.shipped_models) as place:
                row |= Soak(options, place, pacs).run()
        good = not row["faults"]
        return row
    finally:
        if pacs is not None:
            pacs.stay()
            pacs.close()
        if good or not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"kept: {folder}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--senders", type=int, default=8)
    parser.add_argument("--pause-s", type=float, default=0.5, help="mean of a sender's pauses between two studies")
    parser.add_argument("--kill-every-s", type=float, default=45.0, help="0.5 to 1.5 times this between two deaths")
    parser.add_argument("--pacs-up-s", type=float, default=120.0)
    parser.add_argument("--pacs-down-s", type=float, default=40.0)
    parser.add_argument("--sample-every-s", type=float, default=5.0)
    parser.add_argument("--drain-s", type=float, default=DRAIN_S, help="longest wait for the last counts")
    parser.add_argument("--shipped-models", action="store_true", help="the shipped packages, in place of a toy network")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the home where a count does not agree")
    parser.add_argument("--out", type=Path, default=REPORT)
    options = parser.parse_args()
    row = soak(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{row['studies']} studies, {row['images_acknowledged']} acknowledgements; killed {row['killed']}")
    for kind, measures in row["growth"].items():
        memory = measures["memory"]
        print(f"  {kind}: {memory['most']} MB at most, growth an hour {memory['an_hour']}")
    print("\n".join(row["faults"]) or "every count agrees, nothing is missing, nothing is there twice")
    return 1 if row["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
