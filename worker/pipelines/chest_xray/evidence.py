"""What a chest film's score rests on: maps of the models that made it, their numbers, and the picture.

The map that is shown, measured and judged is that of the score that flags. Where the four-class model has joined it,
that is the mean of both models' maps, each weighted with what its model brings to the joint log odds of this very film.
One model's map alone would show where half of a judgement came from: a film would be doubted because of a model that
hardly spoke, or believed because of one. ``tools/experiments/looks.py`` measured it against either model's map alone
and their plain mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from worker.packages.preprocessing.lungs import LungField
from worker.pipelines.base import Detail, Engine, Served
from worker.pipelines.chest_xray.maps import WHOLE, FilmPart, Map, agreement, enlarged, log_odds, on_film, place_of
from worker.pipelines.heatmap import picture

LUNG_SHARE_MIN: Final = 0.5
PICTURE_PX: Final = 1024


@dataclass(frozen=True)
class Voice:
    """One model's part in the score that flags: its package, the label whose map is taken, and its share."""

    package: Served
    label: str
    share: float


@dataclass(frozen=True)
class FilmMaps:
    """Enlarged maps of one film: of each voice, theirs joined, and Grad-CAM++ joined in the same way."""

    voices: tuple[Map, ...]
    joined: Map
    plus: Map


def joint_shares(p_own: float, p_normal: float, blend: Mapping[str, float]) -> tuple[float, float]:
    """What the binary and the four-class model bring to the joint log odds of one film: two shares that add up to 1.

    A model that speaks against pneumonia has no part in a call of it. Where neither speaks for it, the shares are the
    blend's own weights; the bias is nobody's.
    """
    parts = np.array([blend["own"], blend["four"]]) * log_odds(np.array([p_own, 1.0 - p_normal]))
    rising = np.maximum(parts, 0.0)
    if rising.sum() <= 0:
        rising = np.maximum([blend["own"], blend["four"]], 0.0)
    total = float(rising.sum())
    return (float(rising[0] / total), float(rising[1] / total)) if total > 0 else (1.0, 0.0)


def film_maps(
    engine: Engine,
    voices: Sequence[Voice],
    inputs: Mapping[str, np.ndarray],
    film: int,
    parts: Mapping[str, FilmPart] | None = None,
) -> FilmMaps:
    """Class maps of one film from one pass a model, laid on the whole film.

    ``parts`` says by package which part of the film is its input: all of it where it is not named.

    Raises
    ------
    worker.errors.EngineError, EngineTimeout, NonFiniteScore, worker.errors.LeaseLost
        As the engine.
    """
    pairs = []
    for voice in voices:
        key = voice.package.key
        first, second = engine.class_maps(key, inputs[key][film : film + 1], voice.label)
        part = (parts or {}).get(key, WHOLE)
        pairs.append((on_film(first[0], part), on_film(second[0], part)))
    joined = [sum(voice.share * pair[k] for voice, pair in zip(voices, pairs, strict=True)) for k in (0, 1)]
    return FilmMaps(tuple(pair[0] for pair in pairs), enlarged(np.asarray(joined[0])), enlarged(np.asarray(joined[1])))


def map_numbers(maps: FilmMaps, field: LungField) -> dict[str, Detail]:
    """Share of the map in the lungs, side and zone of its peak, and how far other maps agree with it.

    ``map_agreement`` is the correlation of the two models' maps, ``plus_agreement`` that of the joined map with
    Grad-CAM++, whose own share in the lungs is ``plus_lung_share``.
    """
    place = place_of(maps.joined, field)
    numbers: dict[str, Detail] = {
        "lungs_measured": field.measured,
        "map_lung_share": _share(place.lung_share),
        "map_side": place.side,
        "map_zone": place.zone,
        "plus_agreement": round(agreement(maps.joined, maps.plus), 3),
        "plus_lung_share": _share(place_of(maps.plus, field).lung_share),
    }
    if len(maps.voices) > 1:
        numbers["map_agreement"] = round(agreement(*maps.voices[:2]), 3)
    return numbers


def low_evidence(heat: Map, field: LungField, package: Served) -> bool:
    """Whether most of a map lies outside the lungs, or there is none: of positive films alone a reason to doubt."""
    limit = float(package.card.parameters.get("lung_share_min", LUNG_SHARE_MIN))
    return not place_of(heat, field).lung_share >= limit


def occlusion_numbers(blocked: np.ndarray, heat: Map, field: LungField) -> dict[str, float]:
    """Agreement of occlusion, which is no activation map, with the joined one, and its share in the lungs.

    Parameters
    ----------
    blocked : ndarray
        :func:`worker.pipelines.chest_xray.maps.occlusion_map` of the score that flags.
    """
    full = enlarged(blocked)
    return {
        "occlusion_agreement": round(agreement(heat, full), 3),
        "occlusion_lung_share": round(float(np.nan_to_num(place_of(full, field).lung_share)), 3),
    }


def overlay(grey: np.ndarray, heat: Map | None, title: tuple[str, ...], sides_known: bool = True) -> np.ndarray:
    """The film beside itself with a map on it, sides marked: RGB uint8. No heat gives the film alone.

    Sides that no header tells are those of the usual display, and are marked as assumed.
    """
    factor = min(1.0, PICTURE_PX / max(grey.shape))
    size = (max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, (0.5, 99.5))
    eight = np.clip((small - low) * (255.0 / max(float(high - low), 1e-6)), 0, 255).astype(np.uint8)
    map_of_size = None if heat is None else cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR)
    return picture(eight, map_of_size, title, assumed=not sides_known)


def _share(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 3)
