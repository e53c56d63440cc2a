"""Colours: chrominance that native pixels share in pairs, and any profile brought to sRGB, which the models know."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageCms
from pydicom.pixels.processing import convert_color_space

TOLERANCE: Final = 3
"""Levels by which no colour of :func:`_probe` may differ in a profile that still counts as sRGB."""

_FROM_PARTIAL: Final = np.array(
    [[1.1644, 0.0, 1.5960], [1.1644, -0.3917, -0.8129], [1.1644, 2.0172, 0.0]], dtype=np.float32
)
"""Inverse of the equations for YBR_PARTIAL_422 (PS3.3 C.7.6.3.1.2 until 2017): Y from 16 to 235, chrominance to 240."""


def rgb_of_pairs(data: bytes, rows: int, columns: int, photometric: str) -> np.ndarray:
    """One frame as uint8 (rows, columns, 3) in RGB.

    Two pixels take four bytes, Y Y CB CR (PS3.3 C.7.6.3.1.2); both get the chrominance that is stored for them.

    Parameters
    ----------
    data : bytes
        Two for each pixel; ``columns`` is even.
    """
    pairs = np.frombuffer(data, np.uint8).reshape(rows, columns // 2, 4)
    ybr = np.empty((rows, columns, 3), np.uint8)
    ybr[:, 0::2, 0], ybr[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    for channel in (1, 2):
        ybr[..., channel] = np.repeat(pairs[..., channel + 1], 2, axis=1)
    if photometric == "YBR_FULL_422":
        return np.asarray(convert_color_space(ybr, "YBR_FULL", "RGB"))
    shifted = ybr.astype(np.float32) - np.array([16, 128, 128], np.float32)
    return np.clip(np.round(shifted @ _FROM_PARTIAL.T), 0, 255).astype(np.uint8)


def to_srgb(rgb: np.ndarray, profile: bytes | None) -> np.ndarray:
    """A picture (H, W, 3) of uint8 in sRGB.

    Parameters
    ----------
    profile : bytes or None
        ICC profile (ICC.1) of the picture's colours: of a JPEG or PNG, or the ICC Profile (0028,2000) of a DICOM
        object. None, a broken one, or one that is not of RGB leaves the picture as it is.
    """
    transform = _transform(profile) if profile else None
    if transform is None:
        return rgb
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(ImageCms.applyTransform(image, transform))


def is_srgb(profile: bytes | None) -> bool:
    """Whether :func:`to_srgb` leaves the colours as they are."""
    return not profile or _transform(profile) is None


@lru_cache(maxsize=16)
def is_rgb_profile(profile: bytes) -> bool:
    """Whether bytes are an ICC profile of RGB, which alone :func:`to_srgb` can follow."""
    try:
        return str(ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space).strip() == "RGB"
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Transform to sRGB; None where none is needed or none can be made."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if str(source.profile.xcolor_space).strip() != "RGB":
            return None
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), "RGB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
        moved = ImageCms.applyTransform(Image.fromarray(_probe()), transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    far = np.abs(np.asarray(moved, np.int16) - _probe().astype(np.int16)).max()
    return transform if far > TOLERANCE else None


def _probe() -> np.ndarray:
    """Colours all over the cube, as a picture."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
