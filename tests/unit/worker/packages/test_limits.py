"""Packages that ask for too much, or are packed strangely: one line each, before anything is built."""

from __future__ import annotations

import json
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.worker.packages.test_package import copy_of, toy_card, toy_model
from training.package.writing import write_package
from worker.packages.archive import export_package, import_package
from worker.packages.card import PackageError
from worker.packages.limits import ARRAYS_BYTES, MOST_VALUES, require_array_limits
from worker.packages.manifest import MANIFEST
from worker.packages.package import CARD, GOLDEN, load

NESTED: Any = 1
for _ in range(12):
    NESTED = [NESTED]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_package(root / "toy" / "1.0.0", toy_model(), toy_card(), "Apache-2.0")
    return root


def _refused(call: Callable[[], object]) -> str:
    """The one line of a refusal, which comes at once and takes no memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(PackageError) as caught:
        call()
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": {"builder": "tiny_unet", "classes": 10**9, "width": 4}}, "out of bounds"),
        ({"architecture": {"builder": "tiny_unet", "classes": 2, "width": float("inf")}}, "out of bounds"),
        ({"architecture": {"builder": "tiny_unet", "classes": 2, "width": NESTED}}, "nested deeper"),
        ({"architecture": {"builder": "tiny_unet", "classes": 2, "width": [1] * (MOST_VALUES + 1)}}, "options"),
        ({"architecture": {"builder": "tiny_unet", "classes": 2, "width": "wide"}}, "Error"),
        ({"architecture": {"builder": "no such"}}, "no such"),
        ({"input": {"height": 100_000, "width": 100_000}}, "out of bounds"),
        ({"input": {"height": 0}}, "out of bounds"),
        ({"labels": [f"l{n}" for n in range(2000)]}, "labels"),
        ({"labels": 7}, "labels"),
        ({"parameters": {"blend": 7}}, CARD),
        ({"pipeline": "no such", "parameters": {"blend": {"own": 1}}}, CARD),
    ],
)
def test_a_card_that_asks_for_too_much_or_for_nonsense(
    shipped: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    directory = copy_of(shipped, tmp_path)
    card = json.loads((directory / CARD).read_text())
    card |= changes | {"decisions_sha256": ""}
    if isinstance(changes.get("input"), dict):
        card["input"] = json.loads((shipped / "toy/1.0.0" / CARD).read_text())["input"] | changes["input"]
    (directory / CARD).write_text(json.dumps(card))
    assert words in _refused(lambda: load(directory))


@pytest.mark.parametrize(
    "content",
    ["{}".encode("utf-16"), b"\xff\xfe\x00", b"[]", b"7", b"null", b"", b"[" * 100_000, b" " * (9 << 20)],
)
def test_a_card_that_is_none(shipped: Path, tmp_path: Path, content: bytes) -> None:
    directory = copy_of(shipped, tmp_path)
    (directory / CARD).write_bytes(content)
    assert CARD in _refused(lambda: load(directory))


@pytest.mark.parametrize("manifest", [[], "text", None, 7, {}, {"sha256": []}, {"sha256": None}, {"x": "y" * 70_000}])
def test_a_manifest_that_is_none(shipped: Path, tmp_path: Path, manifest: Any) -> None:
    path = _repacked(shipped, tmp_path, json.dumps(manifest).encode())
    assert MANIFEST in _refused(lambda: import_package(path, tmp_path / "there"))
    assert not list((tmp_path / "there").iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_unusual_packing_is_named(shipped: Path, tmp_path: Path, method: int) -> None:
    path = _repacked(shipped, tmp_path, None, method)
    assert f"method {method}" in _refused(lambda: import_package(path, tmp_path / "there"))


def test_an_encrypted_archive_is_named(shipped: Path, tmp_path: Path) -> None:
    path = export_package(shipped / "toy" / "1.0.0", tmp_path)
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(signature)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(signature, place + 4)
    path.write_bytes(data)
    assert "encrypted" in _refused(lambda: import_package(path, tmp_path / "there"))


def test_arrays_that_unpack_to_too_much_are_not_unpacked(shipped: Path, tmp_path: Path) -> None:
    directory = copy_of(shipped, tmp_path)
    bomb = directory / "bomb.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        for _ in range(ARRAYS_BYTES // (1 << 24) + 1):
            member.write(bytes(1 << 24))
    assert bomb.stat().st_size < 2 << 20
    assert "unpacks to more" in _refused(lambda: require_array_limits(bomb))
    bomb.replace(directory / GOLDEN)
    assert GOLDEN in _refused(lambda: load(directory))
    np.savez(directory / GOLDEN, pixels=np.zeros(2))
    assert GOLDEN in _refused(lambda: load(directory))


def _repacked(shipped: Path, folder: Path, manifest: bytes | None, method: int = zipfile.ZIP_DEFLATED) -> Path:
    good, bad = export_package(shipped / "toy" / "1.0.0", folder), folder / "bad.zip"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w", method) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name) if name != MANIFEST or manifest is None else manifest)
    return bad
