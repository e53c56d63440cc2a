"""The manifest of a package: SHA-256 by file. An archive always has one, a folder where it is signed."""

from __future__ import annotations

import json
from pathlib import Path

from worker.packages.card import ChecksumError, PackageError
from worker.packages.package import sha256_of

MANIFEST, SIGNATURE = "manifest.json", "signature.json"
BESIDE = (MANIFEST, SIGNATURE)
"""What speaks of the package's files and is none of them."""
MANIFEST_BYTES, SIGNATURE_BYTES = 64 << 10, 4 << 10


def manifest_of(files: list[Path]) -> bytes:
    """What stands in ``manifest.json``."""
    return json.dumps({"sha256": {path.name: sha256_of(path) for path in files}}, indent=2).encode()


def parse_manifest(content: bytes) -> dict[str, str]:
    """SHA-256 by name of file; ``ValueError`` where it is no manifest."""
    manifest = json.loads(content)
    digests = manifest.get("sha256") if isinstance(manifest, dict) else None
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        raise ValueError(f"{MANIFEST} names no checksums")
    return digests


def read_small(path: Path, limit: int) -> bytes:
    """A file of a package that must be small. :class:`PackageError` where it is larger, or cannot be read."""
    try:
        with path.open("rb") as handle:
            content = handle.read(limit + 1)
    except OSError as error:
        raise PackageError(f"{path.name} cannot be read ({error.strerror})") from error
    if len(content) > limit:
        raise PackageError(f"{path.name} is larger than {limit >> 10} KiB")
    return content


def files_in(directory: Path) -> list[Path]:
    """Every file of a package, however deep, but for manifest and signature."""
    return sorted(p for p in directory.rglob("*") if (p.is_symlink() or not p.is_dir()) and p.name not in BESIDE)


def verify_manifest(directory: Path) -> None:
    """Raise :class:`ChecksumError` unless the package has the files that its manifest lists, unchanged, and no other.

    Raises
    ------
    PackageError
        If there is no manifest that can be read.
    """
    try:
        digests = parse_manifest(read_small(directory / MANIFEST, MANIFEST_BYTES))
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{MANIFEST} cannot be read: {error}") from error
    there = {str(path.relative_to(directory)): path for path in files_in(directory)}
    for name in sorted(there.keys() | digests.keys()):
        if name not in there:
            raise ChecksumError(f"{name!r} of the manifest is missing")
        if name not in digests:
            raise ChecksumError(f"{name!r} is not in the manifest")
        path = there[name]
        if path.is_symlink() or not path.is_file() or sha256_of(path) != digests[name]:
            raise ChecksumError(f"{name!r} is not the file that the manifest names")
