"""One door in a process of its own, since libFuzzer ends the process that it runs in.

``python -m tests.fuzz.guided DOOR SECONDS FOLDER SEED``: for half of the time structures, then bytes that are changed
under the guidance of coverage. Without atheris they are changed at random.
"""

from __future__ import annotations

import gc
import importlib.util
import inspect
import random
import sys
import time
from pathlib import Path
from typing import Final

from tests.fuzz import structured
from tests.fuzz.door import CORPUS, Door, door_of, place_of_its_own
from tests.fuzz.findings import Findings
from tests.fuzz.mutation import mutated

COVERED: Final = (
    *("dicom_listener", "firstread.dicom", "firstread.metrics.http", "worker.packages", "worker.outputs.destinations"),
    *("worker.pipelines", "pydicom.dataelem", "pydicom.values", "pydicom.charset", "firstread.settings"),
    *("pynetdicom.pdu", "pynetdicom.pdu_items", "zipfile", "tomllib", "http.server", "firstread_web", "h11"),
)
"""Whose branches guide the search."""
BYTES, STRUCTURES = "bytes", "structures"


def _instrument() -> int:
    """Let the functions of what is loaded and covered count their branches; returns how many there are."""
    import atheris

    done = 0
    for module in [m for name, m in sorted(sys.modules.items()) if name.startswith(COVERED)]:
        owners = [module, *(one for one in vars(module).values() if inspect.isclass(one))]
        for owner in [one for one in owners if getattr(one, "__module__", module.__name__) == module.__name__]:
            for one in vars(owner).values():
                function = one.__func__ if isinstance(one, classmethod | staticmethod) else one
                function = function.fget if isinstance(function, property) else function
                if inspect.isfunction(function) and function.__module__ == module.__name__:
                    atheris.instrument_func(function)
                    done += 1
    return done


def _guided(findings: Findings, door: Door, seconds: int, folder: Path, seed: int) -> None:
    import atheris

    grown = folder / "grown"
    grown.mkdir(exist_ok=True)
    options = {
        "max_total_time": seconds,
        "max_len": door.longest,
        "seed": seed,
        "timeout": 300,
        "report_slow_units": 300,
        "rss_limit_mb": 0,
        "print_final_stats": 1,
        "artifact_prefix": f"{folder}/crash-",
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([door.name, *arguments, str(grown), str(CORPUS / door.name)], findings.give)
    atheris.Fuzz()


def _unguided(findings: Findings, door: Door, seconds: int, seed: int) -> None:
    rng, end = random.Random(seed), time.monotonic() + seconds
    kept = list(door.corpus().values())
    seen: set[str] = set()
    while time.monotonic() < end:
        data = mutated(rng, rng.choice(kept), kept, door.longest)
        findings.give(data)
        if len(findings.outcomes) > len(seen):  # an end that was not seen before is worth going on from
            seen = set(findings.outcomes)
            kept.append(data)


def main() -> int:
    """Run until the time is over."""
    name, seconds, folder, seed = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    guided, door = importlib.util.find_spec("atheris") is not None, door_of(name)
    if guided:
        print(f"{_instrument()} functions count their branches", flush=True)
    half = max(1, seconds // 2)
    with place_of_its_own() as place, door.opened(place) as feed:
        built = Findings(feed, folder, STRUCTURES)
        structured.run(built, door, half, seed)
        built.write()
    gc.collect()
    with place_of_its_own() as place, door.opened(place) as feed:
        findings = Findings(feed, folder, BYTES)
        if guided:
            _guided(findings, door, half, folder, seed)
        else:
            _unguided(findings, door, half, seed)
        findings.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
