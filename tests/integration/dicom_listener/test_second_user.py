"""Another user of the machine: drops files into the inbox, reads what was rejected, and sees nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firstread.settings import Settings
from firstread.storage.home import prepare_home
from tests.builders.listening import QUICK, listening, outcomes, small_files
from tests.builders.timing import until

NOBODY = 65534


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that others can reach: pytest's own folders are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="firstread-second-"))
    folder.chmod(0o755)
    yield folder / "home"
    shutil.rmtree(folder)


class Other:
    """Runs commands as another user where this one may become another, else as this one.

    Without that right the same files are looked at by their modes alone.
    """

    changes = os.geteuid() == 0

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        become: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if self.changes else {}
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd="/", **become)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o2777), (0o077, 0o2770)])
def test_drops_files_and_reads_what_was_rejected(
    home: Path, make_settings: Callable[..., Settings], tmp_path: Path, umask: int, mode: int
) -> None:
    settings = make_settings(home=home, database_url=f"sqlite:///{home / 'firstread.sqlite'}", **QUICK)
    files = [path.read_bytes() for path in small_files(tmp_path / "ct", n=2)]
    source = home.parent / "source"
    source.mkdir()
    for number, content in enumerate([*files, b"no image at all"]):
        (source / f"{number}.dcm").write_bytes(content)
        (source / f"{number}.dcm").chmod(0o644)
    source.chmod(0o755)
    other, before = Other(), os.umask(umask)
    try:
        prepare_home(settings, inbox=True)
        if other.changes:
            os.chown(settings.inbox_dir, -1, NOBODY)
        settings.inbox_dir.chmod(mode)
        with listening(settings) as service:
            for number in range(3):
                dropped = other.run("cp", str(source / f"{number}.dcm"), str(settings.inbox_dir / f"x{number}.dcm"))
                assert dropped.returncode == 0, dropped.stderr
            folder = settings.inbox_dir / "head_ct"
            assert other.run("cp", str(source / "0.dcm"), str(folder / "again.dcm")).returncode == 0
            rejected = settings.inbox_dir / "rejected"
            until(lambda: outcomes(service.db).get("stored") == 2 and list(rejected.rglob("*.txt")))
            for name in ("x2.dcm", "x2.dcm.txt"):
                assert other.run("cat", str(rejected / name)).returncode == 0
            assert "not_dicom" in other.run("cat", str(rejected / "x2.dcm.txt")).stdout
            assert settings.inbox_dir.stat().st_mode & 0o7777 == mode
            if other.changes:
                assert other.run("ls", str(home)).returncode != 0
                for private in ("spool", "evidence", "log", "run", "firstread.sqlite"):
                    assert other.run("cat", str(home / private)).returncode != 0
                    if (home / private).is_dir():
                        assert other.run("ls", str(home / private)).returncode != 0
    finally:
        os.umask(before)
    assert home.stat().st_mode & 0o777 == 0o751
    for name in ("spool", "evidence", "log", "run"):
        assert (home / name).stat().st_mode & 0o777 == 0o700
    for path in (home / "spool").rglob("*.dcm"):
        assert path.stat().st_mode & 0o777 == 0o600
    for path in home.glob("firstread.sqlite*"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_an_older_home_is_tightened_and_nothing_is_widened(home: Path, make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(home=home, database_url=f"sqlite:///{home / 'firstread.sqlite'}")
    for name in ("spool/20260101/10", "evidence/202601/x", "log", "objects/a", "inbox/head_ct"):
        (home / name).mkdir(parents=True)
    names = (
        "spool/20260101/10/a.dcm",
        "evidence/202601/x/key.png",
        "log/listen.log",
        "firstread.sqlite",
        "firstread.sqlite-wal",
        "inbox/a.dcm",
        "destinations.toml",
    )
    files = [home / name for name in names]
    for path in files:
        path.touch()
    for path in (home, *home.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    (home / "objects").chmod(0o500)
    prepare_home(settings, inbox=True)
    assert home.stat().st_mode & 0o7777 == 0o751
    for name, mode in {
        "spool": 0o700,
        "spool/20260101": 0o700,
        "evidence/202601/x": 0o700,
        "log": 0o700,
        "objects": 0o500,
        "inbox": 0o777,
        "inbox/head_ct": 0o777,
    }.items():
        assert (home / name).stat().st_mode & 0o777 == mode, name
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600] * 5 + [0o666] * 2
    home.chmod(0o700)
    prepare_home(settings)
    assert home.stat().st_mode & 0o777 == 0o700
