"""A package as one file that sites can pass on: a zip with a checksum for every member."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from worker.packages.card import Card, ChecksumError, PackageError
from worker.packages.limits import require_readable_members
from worker.packages.package import (
    CARD,
    GOLDEN,
    LICENCE,
    PAGE,
    WEIGHTS,
    first_line,
    load,
    read_card,
    sha256_of,
    verify_checksum,
)

MEMBERS = (CARD, WEIGHTS, GOLDEN, LICENCE, PAGE)
MANIFEST = "manifest.json"
LIMIT_BYTES = 1 << 30
MANIFEST_BYTES = 64 << 10
UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError, RecursionError)
"""What a damaged or strange archive makes of reading it."""
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def export_package(directory: Path, target: Path) -> Path:
    """Write a package to one zip file, after its checksum is verified.

    Parameters
    ----------
    directory : Path
        The package.
    target : Path
        A file name, or a folder in which ``<name>-<version>.firstread.zip`` is made.
    """
    card = read_card(directory)
    verify_checksum(directory, card)
    path = target / f"{card.name}-{card.version}.firstread.zip" if target.is_dir() else target
    members = [directory / name for name in MEMBERS if (directory / name).is_file()]
    manifest = {"sha256": {member.name: sha256_of(member) for member in members}}
    partial = path.with_name(path.name + ".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, json.dumps(manifest, indent=2))
        for member in members:
            archive.write(member, member.name)
    os.replace(partial, path)
    return path


def import_package(archive_path: Path, models_dir: Path, before: Callable[[Card], None] | None = None) -> Path:
    """Unpack a package into ``models_dir/<name>/<version>``, whole and after its self-test, or not at all.

    Parameters
    ----------
    before : callable, optional
        Called with the card of a package that passed, just before it appears in the folder.

    Raises
    ------
    ChecksumError
        If a member is not what the manifest or the card names.
    SelfTestError
        If the golden pixels do not give the golden outputs.
    PackageError
        If the file is no package, is too large, names unsafe paths, or that version is there already.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=models_dir, prefix=".import-"))
    try:
        _unpack(archive_path, staging)
        card = read_card(staging)
        verify_checksum(staging, card)
        if not SAFE_NAME.fullmatch(card.name) or not SAFE_NAME.fullmatch(card.version):
            raise PackageError("the card's name or version cannot be a folder")
        target = models_dir / card.name / card.version
        if target.exists():
            raise PackageError(f"{card.name}/{card.version} is there already")
        load(staging)
        if before is not None:
            before(card)
        target.parent.mkdir(exist_ok=True)
        staging.chmod(0o755)
        os.rename(staging, target)
        return target
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack(archive_path: Path, staging: Path) -> None:
    """The members into a folder, each as the manifest names it. Limits count before anything is unpacked."""
    try:
        with zipfile.ZipFile(archive_path) as archive:
            infos = archive.infolist()
            names = {info.filename for info in infos}
            if len(names) != len(infos) or names - {*MEMBERS, MANIFEST} or MANIFEST not in names:
                raise PackageError(f"{archive_path.name} is no model package")
            require_readable_members(infos, archive_path.name)
            if sum(info.file_size for info in infos) > LIMIT_BYTES:
                raise PackageError(f"{archive_path.name} unpacks to more than {LIMIT_BYTES >> 20} MiB")
            digests = _digests(archive)
            for name in names - {MANIFEST}:
                data = archive.read(name)
                if hashlib.sha256(data).hexdigest() != digests.get(name):
                    raise ChecksumError(f"{name} in the archive is damaged")
                (staging / name).write_bytes(data)
    except UNREADABLE as error:
        raise PackageError(f"cannot read {archive_path.name}: {first_line(error)}") from error


def _digests(archive: zipfile.ZipFile) -> dict[str, str]:
    """SHA-256 by member, from the manifest; ``ValueError`` where it is none."""
    if archive.getinfo(MANIFEST).file_size > MANIFEST_BYTES:
        raise ValueError(f"{MANIFEST} is larger than {MANIFEST_BYTES >> 10} KiB")
    manifest = json.loads(archive.read(MANIFEST))
    digests = manifest.get("sha256") if isinstance(manifest, dict) else None
    if not isinstance(digests, dict):
        raise ValueError(f"{MANIFEST} names no checksums")
    return digests
