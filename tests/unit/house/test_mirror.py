"""The tests of modules lie as the modules do, so that each is found from the other."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
UNIT = ROOT / "tests" / "unit"


def test_every_unit_test_lies_where_its_module_or_folder_does() -> None:
    strays = []
    for path in sorted(UNIT.rglob("test_*.py")):
        place = path.relative_to(UNIT)
        if place.parts[0] == "house":
            continue
        subject = ROOT / place.parent / path.stem.removeprefix("test_")
        if not (subject.is_dir() or subject.with_suffix(".py").is_file()):
            strays.append(str(place))
    assert strays == []
