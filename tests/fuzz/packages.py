"""Model packages that are imported: a whole archive, or a sound one with a member changed and its checksums made anew.

The first byte of an input says which member the rest is.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.bounds import Bounds
from tests.fuzz.door import CORPUS, Broken, Door, Feed
from worker.packages.archive import import_package
from worker.packages.card import PackageError
from worker.packages.manifest import MANIFEST, SIGNATURE
from worker.packages.package import CARD, GOLDEN, WEIGHTS

MEMBERS: Final = (None, CARD, WEIGHTS, GOLDEN, MANIFEST, SIGNATURE)
TOY: Final = "toy.firstread.zip"
GROWTH_MB: Final = 700
"""TensorFlow takes its own on the first network; the limit of what a package may unpack to is 1 GiB."""
CPU_S: Final = 60.0


def toy_members() -> dict[str, bytes]:
    """The members of the toy package in the corpus."""
    with zipfile.ZipFile(io.BytesIO((CORPUS / "package" / TOY).read_bytes()[1:])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(data: bytes, members: dict[str, bytes]) -> bytes:
    """The archive that an input stands for."""
    name = MEMBERS[data[0] % len(MEMBERS)] if data else None
    if name is None:
        return data[1:]
    parts = {**members, name: data[1:]}
    if name == WEIGHTS:
        card = json.loads(parts[CARD]) | {"sha256": hashlib.sha256(parts[WEIGHTS]).hexdigest()}
        parts[CARD] = json.dumps(card).encode()
    if name != MANIFEST:
        digests = {
            each: hashlib.sha256(content).hexdigest()
            for each, content in parts.items()
            if each not in (MANIFEST, SIGNATURE)
        }
        parts[MANIFEST] = json.dumps({"sha256": digests}).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for each, content in parts.items():
            archive.writestr(each, content)
    return buffer.getvalue()


class Importer:
    """Imports packages into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models = folder / "models"
        self._members = toy_members()
        self._bounds = Bounds(GROWTH_MB, CPU_S)

    def feed(self, data: bytes) -> str:
        """One archive."""
        path = self._folder / "given.firstread.zip"
        path.write_bytes(archive_of(data, self._members))
        try:
            with self._bounds.kept():
                target = import_package(path, self._models)
            outcome = "imported"
            if target.parent.parent != self._models:
                raise Broken("a package was written elsewhere")
        except PackageError as error:
            outcome = type(error).__name__
            if not str(error) or "\n" in str(error) or len(str(error)) > 2000:
                raise Broken("a package was refused without a line that says why") from error
        finally:
            path.unlink()
        self._check(outcome)
        shutil.rmtree(self._models, ignore_errors=True)
        return outcome

    def _check(self, outcome: str) -> None:
        if {p.name for p in self._folder.iterdir()} - {"models"}:
            raise Broken("something was written outside of the folder of packages")
        inside = {p.name for p in self._models.iterdir()} if self._models.is_dir() else set()
        if outcome != "imported" and inside:
            raise Broken("a package that was refused left something behind")


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Feed]:
    """A folder for packages."""
    importer = Importer(folder)
    importer.feed(b"\0" + b"PK")  # loads what has to be loaded once
    importer.feed((CORPUS / "package" / TOY).read_bytes())
    importer._bounds = Bounds(GROWTH_MB, CPU_S)
    yield importer.feed


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*path, key))


def _put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _put(value[path[0]], path[1:], new)
    return copy


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def inputs() -> st.SearchStrategy[bytes]:
    """Cards with values changed, and arrays of other shapes and kinds."""
    members = toy_members()
    card = json.loads(members[CARD])
    places = list(_places(card))
    odd: st.SearchStrategy[Any] = st.sampled_from(
        [None, True, 0, -1, 1, 2**31, 10**30, 1e308, "", "x" * 5000, [], {}, [[[[[]]]]], "tiny_unet", "../up"]
    )
    change = st.tuples(st.sampled_from(places), odd)

    def card_of(changes: list[tuple[tuple[Any, ...], Any]]) -> bytes:
        value = card
        for path, new in changes:
            with contextlib.suppress(KeyError, IndexError, TypeError):
                value = _put(value, path, new)
        return bytes([1]) + json.dumps(value).encode()

    with np.load(io.BytesIO(members[WEIGHTS])) as npz:
        weights = {name: npz[name] for name in npz.files}
    with np.load(io.BytesIO(members[GOLDEN])) as npz:
        golden = {name: npz[name] for name in npz.files}
    kinds = st.sampled_from(["<f2", "<f8", "|u1", "<c8", "|S3", "<M8[s]", "|b1"])

    def arrays_of(which: int, name: int, kind: str, shape: list[int], fill: float) -> bytes:
        arrays = dict(weights if which == 2 else golden)
        key = sorted(arrays)[name % len(arrays)]
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            arrays[key] = np.full(shape, fill).astype(kind)
        return bytes([which]) + _npz(arrays)

    shapes = st.lists(st.integers(0, 9), max_size=4)
    fills = st.sampled_from([0.0, 1.0, float("nan"), float("inf"), -1e9])
    return st.one_of(
        st.lists(change, min_size=1, max_size=3).map(card_of),
        st.builds(arrays_of, st.sampled_from([2, 3]), st.integers(0, 99), kinds, shapes, fills),
    )


DOORS: Final = {"package": Door("package", opened, inputs, longest=96 * 2**10)}
