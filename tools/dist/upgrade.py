"""From the last release to this version and back, in a home that has studies: nothing of them is lost.

The release is built from its own commit. Each version fills the home with a study by its own processes, and the rows
of the view ``study_result`` are compared after each change.
"""

from __future__ import annotations

import io
import re
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.dist.running import ROOT, NotBuilt, free_port, run, stop, wait_for

RELEASE = "0.1.0"
LATE_S = 600.0
KEY = ("study_instance_uid", "pipeline", "finding")
Rows = dict[tuple[str, ...], dict[str, Any]]


def commit_of(version: str) -> str:
    """The commit of a release: its tag, or the one that gave it a date in the change log.

    Raises :class:`NotBuilt` where neither is in the history that is here, as in a shallow clone.
    """
    tag = _git("rev-parse", "--verify", "--quiet", f"v{version}^{{commit}}")
    if tag:
        return tag
    found = _git("log", "--format=%H %P", "--reverse", f"-S## {version} (", "--", "CHANGELOG.md").splitlines()
    if not found or (_git("rev-parse", "--is-shallow-repository") == "true" and " " not in found[0].strip()):
        raise NotBuilt(f"the history that is here has no release {version}")
    return found[0].split()[0]


def revision_of(version: str) -> str:
    """The schema of a release, as the change log names it for the way back."""
    section = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition(f"\n## {version}")[2].split("\n## ")[0]
    named = re.search(r"Schema revision (\w+)", section)
    if named is None:
        raise NotBuilt(f"CHANGELOG.md names no schema of {version}")
    return named[1]


def extract(commit: str, folder: Path) -> Path:
    """The tree of a commit in a folder."""
    archive = subprocess.run(["git", "archive", "--format=tar", commit], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def _git(*words: str) -> str:
    """What git says; nothing where there is no git, or no history."""
    if shutil.which("git") is None:
        return ""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()


@dataclass
class Home:
    """A home, and the version that is installed for it.

    Attributes
    ----------
    firstread : sequence of str or Path
        The command.
    versions : mapping
        What installs a version, and the variables that it needs.
    serves : str
        The command that takes studies: ``up``; ``listen`` where nothing is to be scored.
    """

    folder: Path
    firstread: Sequence[str | Path]
    versions: Mapping[str, Callable[[], Mapping[str, str]]]
    serves: str = "up"

    def __post_init__(self) -> None:
        self._env: dict[str, str] = {}
        ports = {name: str(free_port()) for name in ("DICOM_PORT", "METRICS_PORT")}
        values = {"HOME": str(self.folder), "MIN_FREE_MB": "0", "RETENTION_FREE_MB": "0", "WEB_PORT": "0"}
        self._values = {f"FIRSTREAD_{name}": value for name, value in (values | ports).items()}

    def install(self, version: str) -> None:
        """Put another version in place, and let it migrate."""
        self._env = {**self.versions[version](), **self._values}
        if version == RELEASE:  # which had no page
            self._env.pop("FIRSTREAD_WEB_PORT")
        self.call("migrate")

    def call(self, *words: str) -> str:
        """What a command prints."""
        return run([*self.firstread, *words], cwd=self.folder.parent, env=self._env)

    def rows(self) -> Rows:
        """What is known of every study, by study, pipeline and finding."""
        with closing(sqlite3.connect(f"file:{self.folder / 'firstread.sqlite'}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute("SELECT * FROM study_result")]
        return {tuple(str(row[name]) for name in KEY): row for row in rows}

    def take(self, study: Path) -> int:
        """Serve, send a study, wait until all that is to come of it is there, and stop; how many rows are new."""
        before = self.rows()
        ends = {"WAITING"} if self.serves == "listen" else {"DONE", "REJECTED"}
        with self._serving() as is_open:
            wait_for(is_open, LATE_S, f"firstread {self.serves} takes studies")
            self.call("send", str(study))

            def settled() -> bool:
                new = [row for key, row in self.rows().items() if key not in before]
                return bool(new) and {row["state"] for row in new} <= ends

            wait_for(settled, LATE_S, f"results of {study.name}")
        return len(self.rows()) - len(before)

    @contextmanager
    def _serving(self) -> Iterator[Callable[[], bool]]:
        log = self.folder.parent / f"{self.serves}.out"
        sign = b"listening on" if self.serves == "listen" else b"ready ("
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*map(str, self.firstread), self.serves], cwd=self.folder.parent, env=self._env, stdout=out, stderr=out
            )

        def is_open() -> bool:
            if process.poll() is not None:
                raise NotBuilt(f"firstread {self.serves} ended: {log.read_text(errors='replace')[-2000:]}")
            return sign in log.read_bytes()

        try:
            yield is_open
        finally:
            stop(process)


def upgrade_and_back(home: Home, this_version: str, studies: Sequence[Path]) -> list[str]:
    """Fill, upgrade, go on, go back, go on; lines about what was seen.

    Parameters
    ----------
    studies : sequence of Path
        One for each time that a version takes one: three, or two where the release is not to go on after the way back.

    Raises
    ------
    NotBuilt
        Where a step fails, or a row is another than before.
    """
    first, second, *third = studies
    home.install(RELEASE)
    filled = home.take(first)
    before = home.rows()
    home.install(this_version)
    compare(before, home.rows(), f"after the upgrade from {RELEASE}")
    grown = home.take(second)
    between = home.rows()
    compare(before, between, "after this version took another study")
    home.call("migrate", "--downgrade", revision_of(RELEASE))
    home.install(RELEASE)
    compare(between, home.rows(), f"after the way back to {RELEASE}")
    for study in third:
        home.take(study)
        compare(between, home.rows(), f"after {RELEASE} took another study")
    return [f"{filled} rows of {RELEASE} and {grown} of this version were the same after each change"]


def compare(before: Rows, after: Rows, when: str) -> None:
    """Whether every row is there as it was, in the columns that both versions have."""
    for key, row in before.items():
        now = after.get(key)
        if now is None:
            raise NotBuilt(f"{when}: the row of {' / '.join(key)} is gone")
        changed = {name for name in row.keys() & now.keys() if row[name] != now[name]}
        if changed:
            told = {name: (row[name], now[name]) for name in sorted(changed)}
            raise NotBuilt(f"{when}: {' / '.join(key)} has changed: {told}")
