"""What another dermoscope, camera or light does to a picture of a lesion, each as a function of its strength.

Pictures are float32 (H, W, 3) in [0, 1], masks (h, w) of any size of the same frame. Colours change in stored (gamma
encoded) values: a factor of a channel there is the factor of the light to the power of 1 / 2.2.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Picture = NDArray[np.float32]

YIQ: Final = np.asarray([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=np.float32)
"""Rows: luminance and two axes of colour (NTSC), by which hue and saturation change at the same lightness."""

LEVELS: Final = 1024
"""Steps of a tone curve: four times those of a picture."""

MARGIN: Final = 0.04
"""How far round a drawn outline, as a share of the width, a picture is not taken for plain skin."""

SMOOTH: Final = 0.08
"""Deviation of the Gaussian, as a share of the width, that carries skin across the lesion."""

COARSE: Final = 4
"""Skin is smoothed on a picture so many times smaller: it has no detail."""

FAR: Final = 0.02

LEAST_SKIN: Final = 0.05
"""Share of a picture that must be skin for more of it to be drawn around the picture."""


def balance(picture: Picture, gains: ArrayLike) -> Picture:
    """Another white balance: factors of red, green and blue."""
    return np.asarray(np.clip(picture * np.asarray(gains, dtype=np.float32), 0.0, 1.0), dtype=np.float32)


def bend(picture: Picture, gamma: ArrayLike) -> Picture:
    """Another tone curve: below 1 lightens the middle, above 1 darkens it; one exponent, or one a channel."""
    exponents = np.broadcast_to(np.asarray(gamma, dtype=np.float32), (3,))
    curves = (np.arange(LEVELS, dtype=np.float32)[:, None] / (LEVELS - 1)) ** exponents
    place = np.rint(np.clip(picture, 0.0, 1.0) * (LEVELS - 1)).astype(np.int16)
    return np.stack([np.take(curves[:, c], place[..., c]) for c in range(3)], axis=-1)


def turn_hue(picture: Picture, degrees: float = 0.0, saturation: float = 1.0) -> Picture:
    """Colours turned round the grey axis and drawn away from it or towards it, at the same luminance."""
    cos, sin = saturation * np.cos(np.deg2rad(degrees)), saturation * np.sin(np.deg2rad(degrees))
    turn = np.asarray([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], dtype=np.float32)
    matrix = np.linalg.inv(YIQ) @ turn @ YIQ
    return np.asarray(np.clip(cv2.transform(picture, matrix.astype(np.float32)), 0.0, 1.0), dtype=np.float32)


def sharpen(picture: Picture, amount: float, sigma: float) -> Picture:
    """An unsharp mask, as cameras apply it."""
    smooth = cv2.GaussianBlur(picture, (0, 0), sigma)
    return np.asarray(np.clip(picture + np.float32(amount) * (picture - smooth), 0.0, 1.0), dtype=np.float32)


def blur(picture: Picture, sigma: float) -> Picture:
    """A Gaussian of so many pixels."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), dtype=np.float32)


def coarsen(picture: Picture, factor: float) -> Picture:
    """Reduced by a factor and enlarged again: what a camera of fewer pixels leaves."""
    height, width = picture.shape[:2]
    size = max(8, round(width / factor)), max(8, round(height / factor))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), 0.0, 1.0))


def inside_rim(shape: tuple[int, ...], radius: float, centre: tuple[float, float], softness: float) -> Picture:
    """How much of each pixel (h, w) lies in the round field of a dermoscope: 1 inside, 0 outside.

    Parameters
    ----------
    radius, softness : float
        Of the field, and width of its edge, as shares of the picture's width.
    centre : (float, float)
        Down and right of the picture's centre, as shares of its width.
    """
    height, width = shape[:2]
    down = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / width - np.float32(centre[0])
    right = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / width - np.float32(centre[1])
    distance = np.sqrt(down[:, None] ** 2 + right[None] ** 2)
    return np.asarray(np.clip((radius - distance) / max(softness, 1 / width) + 0.5, 0.0, 1.0), dtype=np.float32)


def put_rim(picture: Picture, inside: Picture, level: float) -> Picture:
    """The picture inside a round field, and one dark grey outside."""
    return np.asarray(picture * inside[..., None] + np.float32(level) * (1 - inside[..., None]), dtype=np.float32)


def vignette(picture: Picture, strength: float) -> Picture:
    """Light that falls off towards the corners, where ``strength`` of it is lost."""
    height, width = picture.shape[:2]
    down = (np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1
    right = (np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1
    loss = np.float32(strength / 2) * (down[:, None] ** 2 + right[None] ** 2)
    return np.asarray(picture * (1 - loss)[..., None], dtype=np.float32)


def plain_skin(picture: Picture, mask: np.ndarray) -> Picture | None:
    """The picture with the lesion covered by the skin around it; None where there is too little skin.

    Normalized convolution (Knutsson and Westin 1993): colours of the skin, smoothed, over how much of it there is.

    Parameters
    ----------
    mask : ndarray, shape (H, W)
        The drawn outline, of the picture's own size; above one half is lesion.
    """
    height, width = picture.shape[:2]
    side = 2 * max(1, round(MARGIN * width)) + 1
    lesion = cv2.dilate((mask > 0.5).astype(np.uint8), np.ones((side, side), np.uint8))
    if 1.0 - float(lesion.mean()) < LEAST_SKIN:
        return None
    size = max(8, width // COARSE), max(8, height // COARSE)
    bare = np.float32(1.0) - lesion.astype(np.float32)
    share = cv2.resize(bare, size, interpolation=cv2.INTER_AREA)[..., None]
    colour = cv2.resize(picture * bare[..., None], size, interpolation=cv2.INTER_AREA)
    middle = colour.sum(axis=(0, 1)) / share.sum()
    sigma = SMOOTH * size[0]
    near, near_colour = (cv2.GaussianBlur(x, (0, 0), sigma).reshape(*x.shape) for x in (share, colour))
    # a little of the mean everywhere: it decides where no skin is near
    filled = (near_colour + FAR * middle) / (near + FAR)
    smooth = cv2.resize(filled.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.where(lesion[..., None] > 0, smooth, picture), dtype=np.float32)


def surround(picture: Picture, mask: np.ndarray, factor: float) -> tuple[Picture, np.ndarray]:
    """The picture reduced by a factor (below 1), with more of the same skin around it: a wider field.

    What lies around is the skin of the picture, reflected, without its lesion; where nearly all is lesion, the
    picture's own rim is carried on.

    Parameters
    ----------
    mask : ndarray of float32, shape (H, W)
        Of the picture's own size.

    Returns
    -------
    picture, mask
        Of the same sizes.
    """
    height, width = picture.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    margins = (height - size[1]) // 2, (width - size[0]) // 2
    rest = height - size[1] - margins[0], width - size[0] - margins[1]
    around, small = plain_skin(picture, mask), cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    kind = cv2.BORDER_REPLICATE if around is None else cv2.BORDER_REFLECT_101
    skin = small if around is None else cv2.resize(around, size, interpolation=cv2.INTER_AREA)
    out = cv2.copyMakeBorder(skin, margins[0], rest[0], margins[1], rest[1], kind)
    lesion = np.zeros((height, width), dtype=np.float32)
    place = slice(margins[0], margins[0] + size[1]), slice(margins[1], margins[1] + size[0])
    out[place] = small
    lesion[place] = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(out, dtype=np.float32), lesion


def enlarge(picture: Picture, mask: np.ndarray, factor: float) -> tuple[Picture, np.ndarray]:
    """The middle of the picture, enlarged by a factor (above 1): a closer look."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 0.0, factor)
    out = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    lesion = cv2.warpAffine(mask.astype(np.float32), matrix, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(np.clip(out, 0.0, 1.0), dtype=np.float32), lesion
