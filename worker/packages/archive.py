"""A package as one file that sites can pass on: a zip with a checksum for every member."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from worker.packages.card import Card, ChecksumError, PackageError
from worker.packages.converted import FILES, file_of
from worker.packages.limits import DAMAGED, require_readable_members
from worker.packages.manifest import (
    MANIFEST,
    MANIFEST_BYTES,
    SIGNATURE,
    SIGNATURE_BYTES,
    manifest_of,
    parse_manifest,
    verify_manifest,
)
from worker.packages.openvino_file import verify_all
from worker.packages.package import (
    CARD,
    GOLDEN,
    LICENCE,
    PAGE,
    WEIGHTS,
    first_line,
    load,
    read_card,
)
from worker.packages.signature import Keys, sign_folder, verify_signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PARTS = (CARD, WEIGHTS, GOLDEN, LICENCE, PAGE)
MEMBERS = (*PARTS, *FILES)
LIMIT_BYTES = 1 << 30
UNREADABLE = (OSError, *DAMAGED, KeyError, ValueError, RuntimeError, RecursionError)
"""What a damaged or strange archive makes of reading it."""
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def export_package(directory: Path, target: Path) -> Path:
    """Write a package to one zip file, after its checksum is verified; with its signature, where it has one.

    Parameters
    ----------
    directory : Path
        The package.
    target : Path
        A file name, or a folder in which ``<name>-<version>.firstread.zip`` is made.
    """
    card = read_card(directory)
    verify_all(directory, card)
    path = target / f"{card.name}-{card.version}.firstread.zip" if target.is_dir() else target
    signed = (directory / SIGNATURE).is_file()
    names = MEMBERS if signed else (*PARTS, *map(file_of, card.converted))
    members = [directory / name for name in names if (directory / name).is_file()]
    manifest = manifest_of(members)
    if signed:
        verify_manifest(directory)
        manifest = (directory / MANIFEST).read_bytes()
        members.append(directory / SIGNATURE)
    partial = path.with_name(path.name + ".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, manifest)
        for member in members:
            archive.write(member, member.name)
    os.replace(partial, path)
    return path


def sign_archive(path: Path, key: Ed25519PrivateKey) -> str:
    """Sign a package that lies in one file, in place; returns the name of the key.

    Raises as :func:`import_package` and :func:`worker.packages.signature.sign_folder` do.
    """
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held) / "package"
        folder.mkdir()
        _unpack(path, folder)
        name = sign_folder(folder, key)
        export_package(folder, path)
    return name


def import_package(
    archive_path: Path, models_dir: Path, before: Callable[[Card], None] | None = None, keys: Keys | None = None
) -> Path:
    """Unpack a package into ``models_dir/<name>/<version>``, whole and after its self-test, or not at all.

    Parameters
    ----------
    before : callable, optional
        Called with the card of a package that passed, just before it appears in the folder.
    keys : mapping, optional
        Public keys, one of which must have signed the package.

    Raises
    ------
    SignatureError
        If none of ``keys`` did.
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
        if keys is not None:
            verify_signature(staging, keys, archive_path.name)
        card = read_card(staging)
        verify_all(staging, card)
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
            if len(names) != len(infos) or names - {*MEMBERS, MANIFEST, SIGNATURE} or MANIFEST not in names:
                raise PackageError(f"{archive_path.name} is no model package")
            require_readable_members(infos, archive_path.name)
            if sum(info.file_size for info in infos) > LIMIT_BYTES:
                raise PackageError(f"{archive_path.name} unpacks to more than {LIMIT_BYTES >> 20} MiB")
            manifest = _small(archive, MANIFEST, MANIFEST_BYTES)
            digests = parse_manifest(manifest)
            if SIGNATURE in names:
                (staging / SIGNATURE).write_bytes(_small(archive, SIGNATURE, SIGNATURE_BYTES))
                (staging / MANIFEST).write_bytes(manifest)
            for name in names - {MANIFEST, SIGNATURE}:
                data = archive.read(name)
                if hashlib.sha256(data).hexdigest() != digests.get(name):
                    raise ChecksumError(f"{name} in the archive is damaged")
                (staging / name).write_bytes(data)
    except UNREADABLE as error:
        raise PackageError(f"cannot read {archive_path.name}: {first_line(error)}") from error


def _small(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A member that must be small; ``ValueError`` where it is larger."""
    if archive.getinfo(name).file_size > limit:
        raise ValueError(f"{name} is larger than {limit >> 10} KiB")
    return archive.read(name)
