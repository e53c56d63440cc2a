"""``make dist``: builds wheel and images, runs the commands of each, and upgrades a filled home and goes back.

Ends with 1 where something does not build or run, and with 3 where all is well but nothing here builds images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from tools.dist.images import IMAGES, NoBuilder, build_and_check
from tools.dist.running import ROOT, NotBuilt
from tools.dist.upgrade import RELEASE, Home, commit_of, extract, upgrade_and_back
from tools.dist.wheel import build_wheel, check_commands, environ, install_wheel, make_environment

PARTS = ("wheel", "upgrade", "images")
NO_BUILDER = 3


def try_wheel(out: Path, folder: Path) -> list[str]:
    """Build it and run its commands from an environment of its own."""
    wheel = build_wheel(ROOT, out)
    lines = check_commands(make_environment(folder / "wheel", wheel), wheel)
    return [f"{wheel} ({wheel.stat().st_size / 2**20:.0f} MiB)", *lines]


def try_upgrade(folder: Path) -> list[str]:
    """Upgrade a home that the last release filled with real pictures, and go back, in one environment."""
    from firstread.phantoms.ct import write_series
    from firstread_cli.demo.cases import demo_cases

    wheels = {
        RELEASE: build_wheel(extract(commit_of(RELEASE), folder / "release"), folder / "wheels"),
        "this": build_wheel(ROOT, folder / "wheels"),
    }
    bin_folder = make_environment(folder / "upgrade", wheels["this"])
    studies = [folder / "studies" / str(number) for number in range(3)]
    for study, case in zip(studies, demo_cases(0), strict=False):
        write_series(list(case.objects), study)

    def installs(version: str) -> dict[str, str]:
        install_wheel(bin_folder, wheels[version])
        return environ()

    home = Home(
        folder / "home", [bin_folder / "firstread"], {name: partial(installs, name) for name in wheels}
    )
    return upgrade_and_back(home, "this", studies)


def main() -> int:
    """Do what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.dist", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help=f"default: {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "dist", help="where the wheel goes")
    parser.add_argument("--image", action="append", choices=list(IMAGES), help="default: all of them")
    parser.add_argument("--builder-option", action="append", default=[], help="goes to the builder as it is")
    options = parser.parse_args()
    status, notes = 0, []
    with tempfile.TemporaryDirectory(prefix="firstread-dist-") as name:
        for part in options.part or PARTS:
            print(f"dist: {part} ...", flush=True)
            try:
                if part == "wheel":
                    lines = try_wheel(options.out, Path(name))
                elif part == "upgrade":
                    lines = try_upgrade(Path(name))
                else:
                    lines = build_and_check(options.image or list(IMAGES), options.builder_option)
                notes += [f"{part}: {line}" for line in lines]
            except NoBuilder as reason:
                status = status or NO_BUILDER
                notes.append(f"{part}: NOT BUILT, nothing here builds images: {reason}")
            except NotBuilt as error:
                status = 1
                notes.append(f"{part}: FAILED: {error}")
    print("\n".join(notes))
    return status


if __name__ == "__main__":
    sys.exit(main())
