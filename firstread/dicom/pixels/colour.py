"""Colours of a camera or a screen brought to sRGB, which is what the models have learnt from."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageCms

TOLERANCE: Final = 3
"""Levels by which no colour of :func:`_probe` may differ in a profile that still counts as sRGB."""


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
