"""How much is measured: a bench, or the toy size at which a test runs every part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

ROUNDS = 5
"""Repeats of a bench: the median of fewer says little."""


@dataclass(frozen=True)
class Sizes:
    """Attributes
    ----------
    rounds : int
        Repeats of everything that is compared, by turns.
    quick : bool
        Toy sizes, whose figures mean nothing.
    """

    rounds: int = ROUNDS
    quick: bool = False

    def pick(self, full: T, toy: T) -> T:
        """One of two sizes."""
        return toy if self.quick else full
