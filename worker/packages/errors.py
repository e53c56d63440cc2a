"""What can be wrong with a model package."""

from __future__ import annotations

from firstread.errors import FirstreadError


class PackageError(FirstreadError):
    """A package cannot serve: files missing, card invalid, weights or network that do not fit."""


class ChecksumError(PackageError):
    """The weights file is not the one that the card was written for."""


class SelfTestError(PackageError):
    """The golden pixels do not give the golden probabilities."""
