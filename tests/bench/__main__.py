"""``make bench``: measures the parts of the system beside what else there is, and writes the page of it.

Each part writes ``docs/performance/PART.json``; the tables of ``docs/performance.md`` are made of these files.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.figures import Figure, facts, shown, write
from tests.bench.parts import BY_NAME, PARTS, Part
from tests.bench.site import site
from tests.bench.sizes import ROUNDS, Sizes

ROOT = Path(__file__).resolve().parents[2]
PAGE_FOLDER = ROOT / "docs" / "performance"


def run(parts: Sequence[Part], folder: Path, out: Path, sizes: Sizes) -> None:
    """Measure some parts, and write what each found as soon as it has."""
    alone = [part for part in parts if not part.on_site and not part.own_file]
    on_site = [part for part in parts if part.on_site]
    for part in alone:
        with facts(part.name, quick=sizes.quick) as row:
            figures: list[Figure] = part.measure(folder / part.name, sizes)
        _report(part, out, row, figures)
    if on_site:
        with site(folder, quick=sizes.quick) as place:
            for part in on_site:
                with facts(part.name, quick=sizes.quick) as row:
                    figures = part.measure(place, sizes)
                _report(part, out, row, figures)
    for part in parts:
        if part.own_file:
            part.measure(folder / part.name, out, sizes)


def _report(part: Part, out: Path, row: dict[str, object], figures: list[Figure]) -> None:
    path = write(out, row, figures)
    print(f"{part.title} ({path})")
    print("\n".join(shown(figure) for figure in figures), flush=True)


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"default: all of {', '.join(BY_NAME)}")
    parser.add_argument("--quick", action="store_true", help="toy sizes: shows that every part runs")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"repeats of each comparison (default {ROUNDS})")
    parser.add_argument("--out", type=Path, help="folder of the files; default: docs/performance, and the page is made")
    parser.add_argument("--folder", type=Path, help="where data lie meanwhile; default: a temporary folder")
    options = parser.parse_args()
    unknown = [name for name in options.part if name not in BY_NAME]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    parts = [BY_NAME[name] for name in options.part] or list(PARTS)
    if options.quick and options.out is None:
        parser.error("--quick needs --out: its figures are for no page")
    if not options.quick:
        print(f"{len(parts)} parts, about {sum(part.minutes for part in parts):.0f} minutes on two idle cores")
    sizes = Sizes(rounds=1 if options.quick else options.rounds, quick=options.quick)
    with tempfile.TemporaryDirectory(prefix="firstread-bench-", dir=options.folder) as folder:
        run(parts, Path(folder), options.out or PAGE_FOLDER, sizes)
    if options.out is None:
        subprocess.run([sys.executable, "-m", "tools.docs.generate"], check=True, cwd=ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
