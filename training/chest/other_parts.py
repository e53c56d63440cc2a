"""Drawn radiographs of other parts of the body, coarse and in great variety: limbs, joints, hands, skulls, bellies.

They teach the gate what is no chest (:mod:`training.chest.gate`); at the gate's 24 x 24 pixels a drawing will do.
"""

from __future__ import annotations

import cv2
import numpy as np

Film = np.ndarray
SIDE = 96


def other_part(rng: np.random.Generator) -> Film:
    """One film of a random kind: float32 (SIDE, SIDE) in [0, 1], bright for dense."""
    kinds = (limb, limb, limb, two_limbs, hand, skull, belly)
    film = kinds[int(rng.integers(len(kinds)))](rng)
    film = cv2.GaussianBlur(film, (0, 0), float(rng.uniform(0.6, 2.0)))
    film = film + rng.normal(0.0, 0.01, film.shape)
    gradient = np.linspace(-1, 1, SIDE) * rng.uniform(-0.06, 0.06)
    return np.asarray(np.clip(film + gradient[None, :], 0.0, 1.0), dtype=np.float32)


def limb(rng: np.random.Generator, centre: float | None = None, reach: float = 0.4) -> Film:
    """A strip of soft tissue with one or two bones, often with a joint; upright, tilted or lying."""
    film = np.full((SIDE, SIDE), float(rng.uniform(0.0, 0.12)), dtype=np.float32)
    width = float(rng.uniform(0.1, reach))
    middle = float(rng.uniform(0.35, 0.65)) if centre is None else centre
    tilt, taper = float(rng.uniform(-0.35, 0.35)), float(rng.uniform(-0.5, 0.5))
    y, x = (np.mgrid[0:SIDE, 0:SIDE] + 0.5) / SIDE
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


def two_limbs(rng: np.random.Generator) -> Film:
    """Both legs or forearms side by side."""
    return np.asarray(np.maximum(limb(rng, 0.28, 0.2), limb(rng, 0.72, 0.2)))


def hand(rng: np.random.Generator) -> Film:
    """Fingers or toes from a palm."""
    film = np.full((SIDE, SIDE), float(rng.uniform(0.0, 0.1)), dtype=np.float32)
    palm = (int(SIDE * rng.uniform(0.4, 0.6)), int(SIDE * rng.uniform(0.65, 0.8)))
    cv2.ellipse(film, palm, (int(SIDE * 0.2), int(SIDE * 0.2)), 0, 0, 360, float(rng.uniform(0.5, 0.7)), -1)
    for finger in range(5):
        tip = (
            int(palm[0] + SIDE * (0.13 * (finger - 2) + rng.uniform(-0.03, 0.03))),
            int(SIDE * rng.uniform(0.08, 0.3)),
        )
        cv2.line(film, palm, tip, 0.45, int(SIDE * 0.08))
        cv2.line(film, palm, tip, float(rng.uniform(0.7, 0.95)), int(SIDE * 0.035))
    return np.ascontiguousarray(np.rot90(film, int(rng.choice([0, 0, 2]))))


def skull(rng: np.random.Generator) -> Film:
    """An oval with a bright rim, on a neck."""
    film = np.full((SIDE, SIDE), float(rng.uniform(0.0, 0.1)), dtype=np.float32)
    centre = (int(SIDE * rng.uniform(0.42, 0.58)), int(SIDE * rng.uniform(0.35, 0.5)))
    axes = (int(SIDE * rng.uniform(0.26, 0.42)), int(SIDE * rng.uniform(0.3, 0.42)))
    cv2.rectangle(film, (centre[0] - SIDE // 7, centre[1]), (centre[0] + SIDE // 7, SIDE), 0.5, -1)
    cv2.ellipse(film, centre, axes, 0, 0, 360, float(rng.uniform(0.5, 0.65)), -1)
    cv2.ellipse(film, centre, axes, 0, 0, 360, 0.9, 3)
    for side in (-1, 1):
        cv2.circle(film, (centre[0] + side * axes[0] // 3, centre[1] + axes[1] // 4), SIDE // 14, 0.35, -1)
    return film


def belly(rng: np.random.Generator) -> Film:
    """A wide grey body with a spine, a pelvis and pockets of gas."""
    film = np.full((SIDE, SIDE), float(rng.uniform(0.0, 0.2)), dtype=np.float32)
    half = float(rng.uniform(0.35, 0.5))
    cv2.rectangle(
        film, (int(SIDE * (0.5 - half)), 0), (int(SIDE * (0.5 + half)), SIDE), float(rng.uniform(0.5, 0.65)), -1
    )
    cv2.line(film, (SIDE // 2, 0), (SIDE // 2, int(SIDE * 0.75)), 0.85, SIDE // 9)
    for side in (-1, 1):
        centre = (int(SIDE * (0.5 + side * 0.24)), int(SIDE * rng.uniform(0.7, 0.9)))
        cv2.ellipse(film, centre, (SIDE // 6, SIDE // 5), 25 * side, 0, 360, 0.85, 4)
    for _ in range(int(rng.integers(2, 9))):
        spot = (int(SIDE * rng.uniform(0.2, 0.8)), int(SIDE * rng.uniform(0.1, 0.8)))
        size = (int(SIDE * rng.uniform(0.03, 0.09)), int(SIDE * rng.uniform(0.03, 0.07)))
        cv2.ellipse(film, spot, size, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0.2, 0.35)), -1)
    return film
