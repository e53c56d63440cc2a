"""Drawn pictures that are no frontal chest: other parts of the body, slices, pages, charts, scenes."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

DRAWN_PX = 96
"""Side of a drawn picture in pixels."""

Draw = Callable[[np.random.Generator], np.ndarray]


def drawn(rng: np.random.Generator, kinds: tuple[Draw, ...]) -> np.ndarray:
    """A picture of one of ``kinds``, blurred, shaded and grainy.

    Returns
    -------
    ndarray of float32, shape (DRAWN_PX, DRAWN_PX), in [0, 1], bright for dense
    """
    film = kinds[int(rng.integers(len(kinds)))](rng)
    film = cv2.GaussianBlur(film, (0, 0), float(rng.uniform(0.6, 2.0)))
    film = film + rng.normal(0.0, 0.01, film.shape)
    gradient = np.linspace(-1, 1, DRAWN_PX) * rng.uniform(-0.06, 0.06)
    return np.asarray(np.clip(film + gradient[None, :], 0.0, 1.0), dtype=np.float32)


def other_part(rng: np.random.Generator) -> np.ndarray:
    """A drawn radiograph of a part of the body other than the chest."""
    return drawn(rng, PARTS)


def other_picture(rng: np.random.Generator) -> np.ndarray:
    """A drawn page, chart, scene, slice, fan of ultrasound, or next to nothing."""
    return drawn(rng, PICTURES)


def limb(rng: np.random.Generator, centre: float | None = None, reach: float = 0.4) -> np.ndarray:
    """A strip of soft tissue with one or two bones, often with a joint; upright, tilted or lying."""
    film = np.full((DRAWN_PX, DRAWN_PX), float(rng.uniform(0.0, 0.12)), dtype=np.float32)
    width = float(rng.uniform(0.1, reach))
    middle = float(rng.uniform(0.35, 0.65)) if centre is None else centre
    tilt, taper = float(rng.uniform(-0.35, 0.35)), float(rng.uniform(-0.5, 0.5))
    y, x = (np.mgrid[0:DRAWN_PX, 0:DRAWN_PX] + 0.5) / DRAWN_PX
    distance = x - middle - tilt * (y - 0.5)
    local = width * (1 + taper * (y - 0.5))
    tissue = float(rng.uniform(0.25, 0.55))
    film[np.abs(distance) < local] = tissue
    joint = float(rng.uniform(0.2, 0.8)) if rng.random() < 0.6 else -1.0
    knob = np.exp(-(((y - joint) / 0.09) ** 2)) if joint > 0 else np.zeros_like(y)
    offsets = (0.0,) if rng.random() < 0.5 else (-0.45, 0.45)
    for offset in offsets:
        bone = local * float(rng.uniform(0.16, 0.34)) * (1 + 0.9 * knob)
        at = np.abs(distance - offset * local * (1 - 0.5 * knob))
        film[at < bone] = tissue + float(rng.uniform(0.2, 0.4))
        film[at < 0.45 * bone] = tissue + float(rng.uniform(0.1, 0.3))
    if joint > 0:
        film[(np.abs(y - joint) < 0.012) & (np.abs(distance) < 0.8 * local)] = tissue
    turns = int(rng.choice([0, 0, 0, 1]))
    return np.ascontiguousarray(np.rot90(film, turns))


def two_limbs(rng: np.random.Generator) -> np.ndarray:
    """Both legs or forearms side by side."""
    return np.asarray(np.maximum(limb(rng, 0.28, 0.2), limb(rng, 0.72, 0.2)))


def hand(rng: np.random.Generator) -> np.ndarray:
    """Fingers or toes from a palm."""
    film = np.full((DRAWN_PX, DRAWN_PX), float(rng.uniform(0.0, 0.1)), dtype=np.float32)
    palm = (int(DRAWN_PX * rng.uniform(0.4, 0.6)), int(DRAWN_PX * rng.uniform(0.65, 0.8)))
    cv2.ellipse(film, palm, (int(DRAWN_PX * 0.2), int(DRAWN_PX * 0.2)), 0, 0, 360, float(rng.uniform(0.5, 0.7)), -1)
    for finger in range(5):
        tip = (
            int(palm[0] + DRAWN_PX * (0.13 * (finger - 2) + rng.uniform(-0.03, 0.03))),
            int(DRAWN_PX * rng.uniform(0.08, 0.3)),
        )
        cv2.line(film, palm, tip, 0.45, int(DRAWN_PX * 0.08))
        cv2.line(film, palm, tip, float(rng.uniform(0.7, 0.95)), int(DRAWN_PX * 0.035))
    return np.ascontiguousarray(np.rot90(film, int(rng.choice([0, 0, 2]))))


def skull(rng: np.random.Generator) -> np.ndarray:
    """An oval with a bright rim, on a neck."""
    film = np.full((DRAWN_PX, DRAWN_PX), float(rng.uniform(0.0, 0.1)), dtype=np.float32)
    centre = (int(DRAWN_PX * rng.uniform(0.42, 0.58)), int(DRAWN_PX * rng.uniform(0.35, 0.5)))
    axes = (int(DRAWN_PX * rng.uniform(0.26, 0.42)), int(DRAWN_PX * rng.uniform(0.3, 0.42)))
    cv2.rectangle(film, (centre[0] - DRAWN_PX // 7, centre[1]), (centre[0] + DRAWN_PX // 7, DRAWN_PX), 0.5, -1)
    cv2.ellipse(film, centre, axes, 0, 0, 360, float(rng.uniform(0.5, 0.65)), -1)
    cv2.ellipse(film, centre, axes, 0, 0, 360, 0.9, 3)
    for side in (-1, 1):
        cv2.circle(film, (centre[0] + side * axes[0] // 3, centre[1] + axes[1] // 4), DRAWN_PX // 14, 0.35, -1)
    return film


def belly(rng: np.random.Generator) -> np.ndarray:
    """A wide grey body with a spine, a pelvis and pockets of gas."""
    film = np.full((DRAWN_PX, DRAWN_PX), float(rng.uniform(0.0, 0.2)), dtype=np.float32)
    half = float(rng.uniform(0.35, 0.5))
    cv2.rectangle(
        film,
        (int(DRAWN_PX * (0.5 - half)), 0),
        (int(DRAWN_PX * (0.5 + half)), DRAWN_PX),
        float(rng.uniform(0.5, 0.65)),
        -1,
    )
    cv2.line(film, (DRAWN_PX // 2, 0), (DRAWN_PX // 2, int(DRAWN_PX * 0.75)), 0.85, DRAWN_PX // 9)
    for side in (-1, 1):
        centre = (int(DRAWN_PX * (0.5 + side * 0.24)), int(DRAWN_PX * rng.uniform(0.7, 0.9)))
        cv2.ellipse(film, centre, (DRAWN_PX // 6, DRAWN_PX // 5), 25 * side, 0, 360, 0.85, 4)
    for _ in range(int(rng.integers(2, 9))):
        spot = (int(DRAWN_PX * rng.uniform(0.2, 0.8)), int(DRAWN_PX * rng.uniform(0.1, 0.8)))
        size = (int(DRAWN_PX * rng.uniform(0.03, 0.09)), int(DRAWN_PX * rng.uniform(0.03, 0.07)))
        cv2.ellipse(film, spot, size, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0.2, 0.35)), -1)
    return film


def spine(rng: np.random.Generator) -> np.ndarray:
    """A column of vertebrae in soft tissue, straight or bent, with discs between them."""
    film = np.full((DRAWN_PX, DRAWN_PX), float(rng.uniform(0.3, 0.5)), dtype=np.float32)
    y, x = (np.mgrid[0:DRAWN_PX, 0:DRAWN_PX] + 0.5) / DRAWN_PX
    middle = rng.uniform(0.35, 0.65) + rng.uniform(-0.12, 0.12) * np.sin(np.pi * y + rng.uniform(0, np.pi))
    bone = np.abs(x - middle) < rng.uniform(0.1, 0.2)
    disc = np.sin(2 * np.pi * y * rng.uniform(4, 8) + rng.uniform(0, 6)) > 0.8
    film[bone] = float(rng.uniform(0.7, 0.9))
    film[bone & disc] = float(rng.uniform(0.4, 0.6))
    return film


def breast(rng: np.random.Generator) -> np.ndarray:
    """Half an oval from one side, with strands."""
    film = np.full((DRAWN_PX, DRAWN_PX), float(rng.uniform(0.0, 0.05)), dtype=np.float32)
    axes = (int(DRAWN_PX * rng.uniform(0.4, 0.75)), int(DRAWN_PX * rng.uniform(0.3, 0.5)))
    cv2.ellipse(film, (0, DRAWN_PX // 2), axes, 0, 0, 360, float(rng.uniform(0.35, 0.55)), -1)
    strands = cv2.resize(
        rng.normal(size=(10, 10)).astype(np.float32), (DRAWN_PX, DRAWN_PX), interpolation=cv2.INTER_CUBIC
    )
    film += 0.12 * strands * (film > 0.2)
    return np.ascontiguousarray(film[:, ::-1] if rng.random() < 0.5 else film)


def page(rng: np.random.Generator) -> np.ndarray:
    """Lines of text, dark on white, perhaps with a heading and a picture."""
    film = np.ones((DRAWN_PX, DRAWN_PX), dtype=np.float32)
    step = int(rng.integers(4, 10))
    left, right = int(DRAWN_PX * rng.uniform(0.03, 0.3)), int(DRAWN_PX * rng.uniform(0.6, 0.97))
    for y in range(int(DRAWN_PX * rng.uniform(0.03, 0.2)), int(DRAWN_PX * rng.uniform(0.4, 0.97)), step):
        x = left
        end = right if rng.random() < 0.8 else int(rng.uniform(left, right))
        while x < end:
            word = int(rng.integers(2, 11))
            film[y : y + max(1, step // 2), x : min(x + word, end)] = float(rng.uniform(0.0, 0.4))
            x += word + 2
    if rng.random() < 0.4:
        corner = rng.integers(5, DRAWN_PX // 2, 2)
        size = rng.integers(15, DRAWN_PX // 2, 2)
        film[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = float(rng.uniform(0, 0.8))
    return film


def chart(rng: np.random.Generator) -> np.ndarray:
    """Axes with a curve, bars or dots."""
    film = np.full((DRAWN_PX, DRAWN_PX), 1.0, dtype=np.float32)
    left, bottom = int(DRAWN_PX * rng.uniform(0.06, 0.2)), int(DRAWN_PX * rng.uniform(0.8, 0.94))
    cv2.line(film, (left, 4), (left, bottom), 0.0, 1)
    cv2.line(film, (left, bottom), (DRAWN_PX - 4, bottom), 0.0, 1)
    values = np.clip(np.cumsum(rng.normal(0, 0.1, 24)) + rng.uniform(0.2, 0.8), 0, 1)
    xs = np.linspace(left + 2, DRAWN_PX - 6, 24).astype(int)
    ys = (bottom - values * (bottom - 8)).astype(int)
    kind = int(rng.integers(3))
    for x, y, after in zip(xs, ys, np.roll(ys, -1), strict=True):
        if kind == 0 and x < xs[-1]:
            cv2.line(film, (int(x), int(y)), (int(x) + 4, int(after)), 0.2, 2)
        elif kind == 1:
            cv2.rectangle(film, (int(x), int(y)), (int(x) + 2, bottom), float(rng.uniform(0.2, 0.7)), -1)
        elif kind == 2:
            cv2.circle(film, (int(x), int(y)), 2, 0.1, -1)
    return film


def scene(rng: np.random.Generator) -> np.ndarray:
    """What a photograph is to a rule that sees 64 pixels: noise of all sizes, light from one side, a few things."""
    film = np.zeros((DRAWN_PX, DRAWN_PX), dtype=np.float32)
    for cells in (2, 4, 8, 16, 32, 64):
        noise = rng.normal(size=(cells, cells)).astype(np.float32)
        film += cells ** -float(rng.uniform(0.3, 1.0)) * cv2.resize(
            noise, (DRAWN_PX, DRAWN_PX), interpolation=cv2.INTER_CUBIC
        )
    film = (film - film.min()) / max(1e-6, float(film.max() - film.min()))
    for _ in range(int(rng.integers(0, 7))):
        spot = (int(rng.integers(DRAWN_PX)), int(rng.integers(DRAWN_PX)))
        size = (int(rng.integers(4, DRAWN_PX // 2)), int(rng.integers(4, DRAWN_PX // 2)))
        grey = float(rng.uniform(0, 1))
        if rng.random() < 0.5:
            cv2.ellipse(film, spot, size, float(rng.uniform(0, 180)), 0, 360, grey, -1)
        else:
            cv2.rectangle(film, spot, (spot[0] + size[0], spot[1] + size[1]), grey, -1)
    return np.asarray(film, dtype=np.float32)


def axial_slice(rng: np.random.Generator) -> np.ndarray:
    """An axial slice of a trunk or a head: an oval in black, with organs, spine, perhaps two lungs."""
    film = np.zeros((DRAWN_PX, DRAWN_PX), dtype=np.float32)
    wide, high = DRAWN_PX * rng.uniform(0.34, 0.49), DRAWN_PX * rng.uniform(0.25, 0.4)
    centre = np.array([DRAWN_PX / 2, DRAWN_PX / 2]) + rng.uniform(-4, 4, 2)

    def oval(x: float, y: float, width: float, height: float, grey: float) -> None:
        at = (int(centre[0] + x * wide), int(centre[1] + y * high))
        cv2.ellipse(film, at, (max(1, int(width * wide)), max(1, int(height * high))), 0, 0, 360, grey, -1)

    oval(0, 0, 1, 1, float(rng.uniform(0.3, 0.5)))
    oval(0, 0, 0.9, 0.86, float(rng.uniform(0.45, 0.65)))
    if rng.random() < 0.6:
        for side in (-1, 1):
            oval(
                side * 0.48,
                -0.05,
                float(rng.uniform(0.28, 0.4)),
                float(rng.uniform(0.5, 0.75)),
                float(rng.uniform(0.05, 0.2)),
            )
    else:
        for _ in range(int(rng.integers(2, 7))):
            oval(float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.6, 0.6)), 0.2, 0.2, float(rng.uniform(0.2, 0.8)))
    oval(0, 0.68, 0.16, 0.22, 0.95)
    return film


def fan(rng: np.random.Generator) -> np.ndarray:
    """A fan of ultrasound: speckle in a sector on black."""
    y, x = (np.mgrid[0:DRAWN_PX, 0:DRAWN_PX] + 0.5) / DRAWN_PX
    radius, angle = np.hypot(x - 0.5, y + 0.1), np.arctan2(x - 0.5, y + 0.1)
    speckle = cv2.resize(rng.gamma(1.5, 0.2, (40, 40)).astype(np.float32), (DRAWN_PX, DRAWN_PX))
    inside = (
        (radius > rng.uniform(0.15, 0.3)) & (radius < rng.uniform(0.8, 1.1)) & (np.abs(angle) < rng.uniform(0.4, 0.9))
    )
    return np.asarray(np.where(inside, np.clip(speckle, 0, 1), 0.0), dtype=np.float32)


def plain(rng: np.random.Generator) -> np.ndarray:
    """Next to nothing: a flat exposure, a wedge, a disc, noise."""
    film = rng.normal(0.5, float(rng.uniform(0.005, 0.2)), (DRAWN_PX, DRAWN_PX)).astype(np.float32)
    direction = float(rng.uniform(0, 2 * np.pi))
    y, x = np.mgrid[0:DRAWN_PX, 0:DRAWN_PX] / DRAWN_PX - 0.5
    film += float(rng.uniform(0, 1)) * (np.cos(direction) * x + np.sin(direction) * y)
    film += float(rng.uniform(-0.6, 0.6)) * (np.hypot(x, y) < rng.uniform(0.1, 0.6))
    return np.asarray(film, dtype=np.float32)


PARTS: tuple[Draw, ...] = (limb, limb, limb, two_limbs, hand, skull, belly, spine, breast)
PICTURES: tuple[Draw, ...] = (page, chart, scene, scene, axial_slice, fan, plain)
