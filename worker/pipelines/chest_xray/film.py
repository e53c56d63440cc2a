"""A chest film, and how it is read: through Modality LUT and VOI LUT, bright for dense, head up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from firstread.dicom.datasets import Content
from firstread.dicom.pixels.display import modality_values, voi_views
from firstread.dicom.pixels.hounsfield import padding_of
from firstread.dicom.pixels.lookup import palette_rgb
from firstread.dicom.pixels.reading import UnreadablePixels, layout_of, read_frame
from firstread.dicom.values import number, text
from worker.pipelines.base import StoredInstance
from worker.pipelines.reasons import Caution

Grey = NDArray[np.float32]

COLOUR_TOLERANCE: Final = 12.0
"""Largest 95th percentile of the difference between two colour planes of a picture that still counts as grey."""

SATURATION_LIMIT: Final = 0.6
"""A window that leaves more of the film than this at its ends is no window for this film, and is not used."""


_RANK_OF_VIEW: Final = {"PA": 0, "AP": 1}


@dataclass(frozen=True)
class FilmCandidate:
    """One frame that may be a frontal chest film, by its header.

    Attributes
    ----------
    frame : int
        0 for a single-frame object, else counted from 1.
    view : str
        View Position, in capitals.
    cautions : tuple of str
        Codes of what is doubtful about the header.
    """

    instance: StoredInstance
    frame: int
    view: str
    cautions: tuple[str, ...] = ()

    @property
    def raw(self) -> bool:
        """Whether it is a detector's image, not processed for people."""
        return Caution.FOR_PROCESSING in self.cautions

    @property
    def rank(self) -> tuple[bool, int, float, int, str]:
        """Smaller is better: processed for people, posterior-anterior, then by number."""
        order = number(self.instance.ds, "InstanceNumber") or 0.0
        return (self.raw, _RANK_OF_VIEW.get(self.view, 2), order, self.frame, self.instance.SOPInstanceUID)


class ColourImage(UnreadablePixels):
    """The picture has colours: no radiograph."""


@dataclass(frozen=True)
class FilmTurn:
    """How a stored film is brought upright, the patient's right at the left (PS3.3 C.7.6.1.1.1)."""

    transpose: bool = False
    mirror: bool = False
    upside_down: bool = False
    known: bool = False

    def apply(self, film: np.ndarray) -> np.ndarray:
        """Film (H, W) as it is displayed."""
        out = film.T if self.transpose else film
        out = out[:, ::-1] if self.mirror else out
        return np.ascontiguousarray(out[::-1] if self.upside_down else out)


@dataclass(frozen=True)
class Film:
    """A frontal chest film that was read.

    Attributes
    ----------
    grey : ndarray of float32, shape (H, W)
        Display values, upright, bright for dense.
    likeness : float
        How much the pixels look like a frontal chest (:mod:`worker.pipelines.chest_xray.likeness`).
    cautions : tuple of str
        Codes of what is doubtful about it.
    """

    instance: StoredInstance
    frame: int
    view: str
    grey: Grey
    turn: FilmTurn
    likeness: float
    cautions: tuple[str, ...] = ()


def turn_of(ds: Dataset) -> FilmTurn:
    """How a frontal film is turned, from Patient Orientation; the usual display where it does not say."""
    parts = text(ds, "PatientOrientation", 16).upper().split("\\")
    if len(parts) != 2 or not all(parts):
        return FilmTurn()
    row, column = parts[0][0], parts[1][0]
    if row in "LR" and column in "FH":
        return FilmTurn(mirror=row == "R", upside_down=column == "H", known=True)
    if row in "FH" and column in "LR":
        return FilmTurn(transpose=True, mirror=column == "R", upside_down=row == "H", known=True)
    return FilmTurn()


def read_film(
    path: Path, ds: Dataset, index: int = 0, cautions: list[str] | None = None, content: Content | None = None
) -> tuple[Grey, FilmTurn]:
    """One frame of a radiograph, upright, bright where the body is dense.

    Parameters
    ----------
    path : Path
        The file.
    ds : Dataset
        Its header.
    index : int
        Frame, counted from 0.
    cautions : list of str, optional
        Codes of what had to be assumed are added to it.
    content : Content, optional
        The file as :func:`firstread.dicom.datasets.read_content` gave it, which is not parsed again then.

    Returns
    -------
    film : ndarray of float32, shape (H, W)
        Display values in arbitrary units; padding is as dark as the darkest pixel.
    turn : FilmTurn
        What was done to the stored orientation.

    Raises
    ------
    UnreadablePixels
        If the pixel data or a look-up table cannot be read, or the film is all one value; :class:`ColourImage` for a
        picture with colours.
    """
    noted = [] if cautions is None else cautions
    stored = read_frame(path, index, noted, content)
    layout = layout_of(ds)
    depth = layout.bits_stored
    if layout.photometric == "PALETTE COLOR" and stored.ndim == 2:
        stored, depth = palette_rgb(ds, stored), 16
    film = _grey_of(stored, depth) if stored.ndim == 3 else _display_values(stored, ds, index, noted)
    padding = _padding(stored, ds) if stored.ndim == 2 else None
    low, high = _extent(film, padding)
    if not np.isfinite([low, high]).all() or high <= low:
        raise UnreadablePixels("the film is all one value")
    shape = text(ds, "PresentationLUTShape", 16).upper()
    if stored.ndim == 2 and (
        shape == "INVERSE" if shape in ("IDENTITY", "INVERSE") else _is_inverse(layout.photometric)
    ):
        film = np.float32(high + low) - film
    if padding is not None:
        film = np.where(padding, np.float32(low), film)
    turn = turn_of(ds)
    return turn.apply(film), turn


def _is_inverse(photometric: str) -> bool:
    return photometric == "MONOCHROME1"


def _grey_of(rgb: np.ndarray, depth: int) -> Grey:
    """Luminance of a colour-coded picture that is grey all the same; ``depth`` is that of more than eight bits."""
    full = 255.0 if rgb.dtype.itemsize == 1 else 2.0**depth - 1.0
    sample = rgb[:: max(1, rgb.shape[0] // 256), :: max(1, rgb.shape[1] // 256)].astype(np.float32)
    spread = (sample.max(axis=-1) - sample.min(axis=-1)) * np.float32(255.0 / full)
    if float(np.percentile(spread, 95)) > COLOUR_TOLERANCE:
        raise ColourImage("a picture with colours")
    return np.asarray(rgb.mean(axis=-1, dtype=np.float32))


def _display_values(stored: np.ndarray, ds: Dataset, index: int, cautions: list[str]) -> Grey:
    """Modality LUT, then the first VOI LUT or window that leaves something to see; without any, with a caution."""
    values = modality_values(stored, ds, index)
    plain = values.astype(np.float32)
    windowed = None
    for windowed in voi_views(values, ds, index):
        if not _saturated(windowed, plain):
            return windowed
    if windowed is not None:
        cautions.append(str(Caution.WINDOW_NOT_USED))
    return plain


def _saturated(windowed: Grey, values: Grey) -> bool:
    sample, raw = windowed[::8, ::8], values[::8, ::8]
    at_ends = float(np.mean((sample <= sample.min()) | (sample >= sample.max())))
    before = float(np.mean((raw <= raw.min()) | (raw >= raw.max())))
    return at_ends > max(SATURATION_LIMIT, before + 0.05)


def _padding(stored: np.ndarray, ds: Dataset) -> np.ndarray | None:
    """Where the film is padding: Pixel Padding Value, up to its limit (PS3.3 C.7.5.1.1.2); None where nothing is."""
    ends = padding_of(ds, layout_of(ds))
    if ends is None:
        return None
    # A padding value above all that is stored with a sign is the same 16 bits without one.
    wrap = 2 ** (8 * stored.dtype.itemsize) if stored.dtype.kind == "i" and ends[0] > np.iinfo(stored.dtype).max else 0
    mask = (stored >= ends[0] - wrap) & (stored <= ends[1] - wrap)
    return mask if mask.any() and not mask.all() else None


def _extent(film: Grey, padding: np.ndarray | None) -> tuple[float, float]:
    values = film if padding is None else film[~padding]
    return float(values.min()), float(values.max())
