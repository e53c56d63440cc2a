"""What a drawn head is like at an age: its size, its skull, its brain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Age = Literal["newborn", "toddler", "adult", "old"]
AGES: Final[tuple[Age, ...]] = ("newborn", "toddler", "adult", "old")


@dataclass(frozen=True)
class Anatomy:
    """Lengths in mm, densities in Hounsfield units.

    Attributes
    ----------
    scale : float
        Size against an adult's head.
    marrow_hu : float or None
        Between two tables of bone; None for a skull of one table.
    suture_mm, fontanelle_mm : float
        Width of open sutures and of the anterior fontanelle; 0 where they are closed.
    ventricles : float
        Width of the ventricles against an adult's.
    sulci : float
        How seldom sulci are seen: a lower value draws more of them.
    """

    scale: float = 1.0
    scalp_mm: float = 5.0
    skull_mm: float = 7.0
    skull_hu: float = 1250.0
    marrow_hu: float | None = 450.0
    suture_mm: float = 0.0
    fontanelle_mm: float = 0.0
    grey_hu: float = 37.0
    white_hu: float = 28.0
    ventricles: float = 1.0
    sulci: float = 0.9


ANATOMY: Final[dict[Age, Anatomy]] = {
    "newborn": Anatomy(0.62, 3.0, 1.5, 400.0, None, 6.0, 25.0, 28.0, 21.0, 0.8, 1.6),
    "toddler": Anatomy(0.86, 4.0, 3.5, 900.0, None, 1.0, 0.0, 35.0, 27.0, 0.9, 1.2),
    "adult": Anatomy(),
    "old": Anatomy(ventricles=1.9, sulci=0.2, white_hu=26.0),
}
"""A newborn's circumference is about 34 cm, and its skull 1 to 2 mm thick."""
