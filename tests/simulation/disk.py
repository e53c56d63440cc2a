"""A disk that forgets at a power cut what was never synced.

Files lie in a real folder, so that everything reads them as ever. Beside it stands what would survive: of a file the
bytes of its last sync, of a folder the names of its last sync. At a power cut each change of a name since then is kept
or lost by lot: all of them up to some moment, as a journal does, or each by itself, as POSIX allows. What a file holds
beyond its last sync is cut, or zero.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.simulation.world import World


@dataclass(eq=False)
class Inode:
    """A file's content as far as it is on the disk."""

    synced: int = 0


@dataclass(eq=False)
class Change:
    """One change of a name that no sync has followed yet."""

    kind: str
    path: Path
    inode: Inode | None = None
    target: Path | None = None
    saved: Path | None = None
    """What a removal or an overwriting took away."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """What it touches."""
        return (self.path,) if self.target is None else (self.path, self.target)


class SimDisk:
    """See :class:`firstread.storage.disk.Changes`."""

    def __init__(self, world: World, root: Path) -> None:
        self.world = world
        self.root = root
        self.grave = root / ".grave"
        self.grave.mkdir(parents=True, exist_ok=True)
        self._inodes: dict[Path, Inode] = {}
        self._pending: list[Change] = []
        self._graves = 0
        self.full_until = -1.0

    # what the code asks for

    def make_folder(self, path: Path, mode: int) -> None:
        if path.exists():
            return
        path.mkdir(mode)
        self._pending.append(Change("mkdir", path))

    def create(self, path: Path) -> BinaryIO:
        self._room()
        saved = self._bury(path) if path.exists() else None
        file = open(path, "w+b")  # noqa: SIM115  # the caller's
        inode = self._inodes[path] = Inode()
        self._stamp(path)
        self._pending.append(Change("create", path, inode, saved=saved))
        return file

    def write(self, file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
        self._room()
        file.write(data)

    def sync(self, file: BinaryIO) -> None:
        self._room()
        file.flush()
        path = Path(file.name)
        inode = self._inodes.get(path)
        if inode is not None:
            inode.synced = path.stat().st_size
        self._stamp(path)

    def rename(self, source: Path, target: Path) -> None:
        saved = self._bury(target) if target.is_file() else None
        os.rename(source, target)
        for path in [p for p in self._inodes if p == source or source in p.parents]:
            self._inodes[target / path.relative_to(source)] = self._inodes.pop(path)
        self._pending.append(Change("rename", source, self._inodes.get(target), target, saved))

    def unlink(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(2, "No such file or directory", str(path))
        saved = self._bury(path)
        self._pending.append(Change("unlink", path, self._inodes.pop(path, None), saved=saved))

    def remove_tree(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)
        gone = [p for p in self._inodes if path in p.parents]
        for inner in gone:
            del self._inodes[inner]
        self._pending = [c for c in self._pending if not any(path == p or path in p.parents for p in c.paths)]

    def sync_folder(self, path: Path) -> None:
        if not path.is_dir():
            raise FileNotFoundError(2, "No such file or directory", str(path))
        # a rename between two folders is one step of the journal: the sync of either brings it to the disk
        self._pending = [c for c in self._pending if all(p.parent != path for p in c.paths)]

    # what a power cut does

    def cut(self, rng: random.Random) -> None:
        """Lose what was not synced."""
        lost = self._lost(rng)
        for change in reversed(self._pending):
            if change in lost:
                self._undo(change)
        for path, inode in list(self._inodes.items()):
            if path.is_file():
                self._tear(path, inode, rng)
                inode.synced = path.stat().st_size
        self._pending = []

    def _lost(self, rng: random.Random) -> set[Change]:
        if rng.random() < 0.5:
            kept = rng.randint(0, len(self._pending))
            return set(self._pending[kept:])
        lost: list[Change] = []
        for change in self._pending:
            follows = any(self._depends(change, earlier) for earlier in lost)
            if follows or rng.random() < 0.5:
                lost.append(change)
        return set(lost)

    @staticmethod
    def _depends(change: Change, earlier: Change) -> bool:
        if change.inode is not None and change.inode is earlier.inode:
            return True
        return any(a == b or b in a.parents for a in change.paths for b in earlier.paths)

    def _undo(self, change: Change) -> None:
        if change.kind == "mkdir":
            shutil.rmtree(change.path, ignore_errors=True)
            for inner in [p for p in self._inodes if change.path in p.parents]:
                del self._inodes[inner]
        elif change.kind == "create":
            change.path.unlink(missing_ok=True)
            self._inodes.pop(change.path, None)
            self._raise(change.saved, change.path)
        elif change.kind == "rename":
            assert change.target is not None
            if change.target.exists():
                os.rename(change.target, change.path)
                for path in [p for p in self._inodes if p == change.target or change.target in p.parents]:
                    self._inodes[change.path / path.relative_to(change.target)] = self._inodes.pop(path)
            self._raise(change.saved, change.target)
        else:
            self._raise(change.saved, change.path)
            if change.inode is not None:
                self._inodes[change.path] = change.inode

    def _tear(self, path: Path, inode: Inode, rng: random.Random) -> None:
        size = path.stat().st_size
        if size <= inode.synced:
            return
        kept = rng.choice((inode.synced, rng.randint(inode.synced, size), size))
        with open(path, "r+b") as file:
            file.truncate(kept)
            if rng.random() < 0.3:  # the size was written, the bytes were not
                file.truncate(inode.synced)
                file.truncate(size)

    def _room(self) -> None:
        if self.world.now < self.full_until:
            raise OSError(28, "No space left on device")

    def _bury(self, path: Path) -> Path:
        self._graves += 1
        saved = self.grave / str(self._graves)
        os.rename(path, saved)
        return saved

    @staticmethod
    def _raise(saved: Path | None, path: Path) -> None:
        if saved is not None and saved.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(saved, path)

    def _stamp(self, path: Path) -> None:
        at = self.world.database_now().timestamp()
        os.utime(path, (at, at))
