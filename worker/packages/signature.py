"""Signatures of packages: Ed25519 (RFC 8032) over the manifest, in a file of its own beside it.

A signature says who made a package; whether it is whole says its manifest, which the signature is over. Keys are PEM
files: the private one in PKCS #8, public ones as SubjectPublicKeyInfo, several of them one behind the other in the file
that ``FIRSTREAD_MODEL_KEYS`` names. Other text between them is a comment, as in files of certificates.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.packages.card import PackageError
from worker.packages.manifest import (
    MANIFEST,
    MANIFEST_BYTES,
    SIGNATURE,
    SIGNATURE_BYTES,
    files_in,
    manifest_of,
    read_small,
    verify_manifest,
)

SUBJECT = b"firstread model package: manifest\n"
"""Before the manifest in what is signed, so that a signature of the same key over something else is none of this."""

KEYS_BYTES = 256 << 10
MOST_KEYS = 64
PUBLIC_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)

Keys = Mapping[str, Ed25519PublicKey]
"""Public keys by :func:`key_id`."""


class SignatureError(PackageError):
    """A package is not signed by one of the keys that are trusted, or a key cannot be used."""


class Signature(BaseModel):
    """What stands in ``signature.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Literal["ed25519"] = "ed25519"
    key: str = Field(pattern="^[0-9a-f]{32}$")
    """:func:`key_id` of the key that signed."""
    signature: str = Field(max_length=100)
    """64 bytes in base 64."""


def key_id(key: Ed25519PublicKey) -> str:
    """A short name of a public key: the first half of its SHA-256, in hex."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]


def make_key(path: Path, passphrase: str = "") -> str:
    """Make a private key, and beside it the public one as ``NAME.pub``; neither is written over.

    Parameters
    ----------
    passphrase : str
        Encrypts the private key; empty: it lies there as it is, for its owner alone to read.

    Returns
    -------
    str
        The key's :func:`key_id`.

    Raises
    ------
    SignatureError
        If a file is there already, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    name = key_id(key.public_key())
    for file, content, mode in (
        (path, private, 0o600),
        (path.with_name(f"{path.name}.pub"), f"# {path.name}, key {name}\n".encode() + public, 0o644),
    ):
        try:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as handle:
                handle.write(content)
        except OSError as error:
            raise SignatureError(f"{file} cannot be written ({error.strerror})") from error
    return name


def read_private_key(path: Path, passphrase: str = "") -> Ed25519PrivateKey:
    """A key that signs.

    Raises
    ------
    SignatureError
        If the file holds none, or the passphrase is another one.
    """
    try:
        content = read_small(path, KEYS_BYTES)
        key = serialization.load_pem_private_key(content, passphrase.encode() or None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{path} holds no private key that this passphrase opens") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path} holds a key of another kind; packages are signed with Ed25519")
    return key


def is_encrypted(path: Path) -> bool:
    """Whether a private key wants a passphrase."""
    return b"BEGIN ENCRYPTED PRIVATE KEY" in read_small(path, KEYS_BYTES)


def read_public_keys(path: Path) -> Keys:
    """The keys that are trusted, by name.

    Raises
    ------
    SignatureError
        If the file cannot be read, holds none, or one that is no public key of Ed25519.
    """
    try:
        blocks = PUBLIC_KEY.findall(read_small(path, KEYS_BYTES))
    except PackageError as error:
        raise SignatureError(f"{path.parent}/{error}") from error
    keys: dict[str, Ed25519PublicKey] = {}
    for number, block in enumerate(blocks[: MOST_KEYS + 1], start=1):
        try:
            key = serialization.load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise SignatureError(f"{path}: key {number} is no public key of Ed25519")
        keys[key_id(key)] = key
    if not 1 <= len(blocks) <= MOST_KEYS:
        raise SignatureError(f"{path} holds {len(blocks) or 'no'} public keys; 1 to {MOST_KEYS} are read")
    return keys


def sign_folder(directory: Path, key: Ed25519PrivateKey) -> str:
    """Write manifest and signature of a package; returns the name of the key.

    Raises
    ------
    SignatureError
        If they cannot be written there.
    """
    manifest = manifest_of(files_in(directory))
    name = key_id(key.public_key())
    signature = Signature(key=name, signature=base64.b64encode(key.sign(SUBJECT + manifest)).decode())
    try:
        # A package between the two is one whose signature does not hold: it does not serve where one is wanted.
        for file, content in ((MANIFEST, manifest), (SIGNATURE, signature.model_dump_json(indent=2).encode() + b"\n")):
            partial = directory.parent / f".{directory.name}-{file}.part"
            partial.write_bytes(content)
            os.replace(partial, directory / file)
    except OSError as error:
        raise SignatureError(
            f"{directory} cannot be written to ({error.strerror}); export the package and sign the file"
        ) from error
    return name


def signed_by(directory: Path) -> str:
    """Name of the key that a package says it is signed by; empty where it has no signature. Verifies nothing.

    Raises
    ------
    SignatureError
        If there is one that cannot be read.
    """
    return "" if (signature := _read_signature(directory)) is None else signature.key


def verify_signature(directory: Path, keys: Keys, label: str) -> str:
    """The name of the trusted key that signed a package whose files are those of its manifest, and no other.

    Parameters
    ----------
    label : str
        What the package is called in errors.

    Raises
    ------
    SignatureError
        If it is not signed, by another key, over another manifest, or its files are others.
    """
    try:
        signature = _read_signature(directory)
        if signature is None:
            raise SignatureError(f"not signed: {SIGNATURE} is missing")
        key = keys.get(signature.key)
        if key is None:
            raise SignatureError(f"signed by key {signature.key}, which is not trusted here")
        manifest = read_small(directory / MANIFEST, MANIFEST_BYTES)
        try:
            key.verify(base64.b64decode(signature.signature, validate=True), SUBJECT + manifest)
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(f"the signature of key {signature.key} is not of this {MANIFEST}") from error
        verify_manifest(directory)
    except PackageError as error:
        raise SignatureError(f"{label}: {error}") from error
    return signature.key


def require_signature(directory: Path, keys_file: Path | None) -> str:
    """:func:`verify_signature` by the keys of a file; where none is set, every package passes.

    Returns
    -------
    str
        The name of the key; empty where no signature is wanted.
    """
    if keys_file is None:
        return ""
    return verify_signature(directory, read_public_keys(keys_file), f"{directory.parent.name}/{directory.name}")


def _read_signature(directory: Path) -> Signature | None:
    path = directory / SIGNATURE
    if not os.path.lexists(path):
        return None
    try:
        return Signature.model_validate_json(read_small(path, SIGNATURE_BYTES))
    except ValidationError as error:
        raise SignatureError(f"{SIGNATURE} holds no signature") from error
