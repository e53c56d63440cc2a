"""Maps of a chest film: who made the score, the joined map, the second opinions, and when a map is doubted."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders.chest import chest_card, chest_served
from worker.packages.preprocessing.lungs import SIDE, LungField
from worker.pipelines.base import Served
from worker.pipelines.chest_xray.evidence import (
    Voice,
    film_maps,
    joint_shares,
    low_evidence,
    map_numbers,
    occlusion_numbers,
)
from worker.pipelines.chest_xray.maps import FilmPart, enlarged, occluded
from worker.pipelines.chest_xray.scores import combined_scores, joint_occlusion, voices_of

BLEND = {"own": 0.5, "four": 0.5, "bias": 0.2, "threshold": 0.6}
LEFT, RIGHT = (8, 4), (8, 11)
OUTSIDE = (15, 0)


def _field() -> LungField:
    """Two lungs that fill the middle rows, left and right of the spine."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[SIDE // 4 : 3 * SIDE // 4, SIDE // 8 : 7 * SIDE // 8] = True
    return LungField(mask, 0.5, 0.25, 0.75, True)


class PointingEngine:
    """Each package points at a place of its own; Grad-CAM++ at another one, if told so."""

    def __init__(self, places: dict[str, tuple[int, int]], plus: tuple[int, int] | None = None) -> None:
        self.places = places
        self.plus = plus
        self.asked: list[tuple[str, str]] = []

    def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
        y, left = (4 * v for v in self.places[package])
        excess = x[:, y : y + 4, left : left + 4, 0].mean(axis=(1, 2))
        return {"p": 1 / (1 + np.exp(-excess))[:, None]}

    def gradients(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        return np.asarray(self.class_maps(package, x, finding)[0])

    def class_maps(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        self.asked.append((package, finding))
        maps = np.zeros((2, 1, 16, 16), np.float32)
        for k, (y, left) in enumerate((self.places[package], self.plus or self.places[package])):
            maps[k, 0, y, left] = 1.0
        return maps


def _voices(own: float, four: float) -> list[Voice]:
    served = chest_served()
    return [Voice(served["pneumonia"][0], "pneumonia", own), Voice(served["pneumonia4"][0], "viral", four)]


def _maps(engine: PointingEngine, voices: list[Voice]) -> np.ndarray:
    inputs = {voice.package.key: np.zeros((1, 64, 64, 1), np.float32) for voice in voices}
    return np.stack([(maps := film_maps(engine, voices, inputs, 0)).joined, maps.plus])


@pytest.mark.parametrize(
    ("p_own", "p_normal", "expected"),
    [
        (0.9, 0.1, (0.5, 0.5)),
        (0.5, 0.1, (0.0, 1.0)),
        (0.2, 0.1, (0.0, 1.0)),
        (0.9, 0.8, (1.0, 0.0)),
        (1 / (1 + np.exp(-3)), 1 / (1 + np.exp(1)), (0.75, 0.25)),
        (0.1, 0.9, (0.5, 0.5)),
    ],
)
def test_a_model_has_the_share_that_it_brings_to_the_joint_log_odds(
    p_own: float, p_normal: float, expected: tuple[float, float]
) -> None:
    assert joint_shares(p_own, p_normal, BLEND) == pytest.approx(expected, abs=1e-6)


def test_a_weight_of_zero_has_no_share() -> None:
    assert joint_shares(0.2, 0.9, {"own": 0.0, "four": 0.0}) == (1.0, 0.0)
    assert joint_shares(0.9, 0.1, {"own": 0.0, "four": 1.0}) == (0.0, 1.0)


@pytest.mark.parametrize(("shares", "doubted"), [((1.0, 0.0), True), ((0.1, 0.9), False), ((0.9, 0.1), True)])
def test_the_map_that_is_judged_is_that_of_the_joint_score(shares: tuple[float, float], doubted: bool) -> None:
    voices = _voices(*shares)
    engine = PointingEngine({"pneumonia/1.0.0": OUTSIDE, "pneumonia4/1.0.0": LEFT})
    joined, _ = _maps(engine, voices)
    assert joined.max() == pytest.approx(1.0)
    assert low_evidence(joined, _field(), voices[0].package) is doubted
    assert engine.asked == [("pneumonia/1.0.0", "pneumonia"), ("pneumonia4/1.0.0", "viral")]


def test_an_empty_map_is_no_evidence() -> None:
    package = chest_served()["pneumonia"][0]
    assert low_evidence(np.zeros((SIDE, SIDE), np.float32), _field(), package)
    lenient = Served(chest_card("pneumonia", ["pneumonia"], parameters={"lung_share_min": 0.0}))
    assert not low_evidence(np.ones((SIDE, SIDE), np.float32), _field(), lenient)


def test_numbers_tell_both_models_and_both_methods_apart() -> None:
    voices = _voices(1.0, 0.0)
    engine = PointingEngine({"pneumonia/1.0.0": LEFT, "pneumonia4/1.0.0": RIGHT}, plus=OUTSIDE)
    inputs = {voice.package.key: np.zeros((1, 64, 64, 1), np.float32) for voice in voices}
    numbers = map_numbers(film_maps(engine, voices, inputs, 0), _field())
    assert numbers["map_side"] == "right"
    assert numbers["map_zone"] == "middle"
    shares = {name: number for name, number in numbers.items() if isinstance(number, float)}
    assert shares["map_lung_share"] > 0.9
    assert shares["plus_lung_share"] < 0.1
    assert shares["plus_agreement"] < 0.1
    assert shares["map_agreement"] < 0.1
    same = map_numbers(film_maps(PointingEngine({"pneumonia/1.0.0": LEFT}), voices[:1], inputs, 0), _field())
    assert same["plus_agreement"] == pytest.approx(1.0)
    assert "map_agreement" not in same


def _occlusion(served: dict[str, list[Served]], x: np.ndarray) -> np.ndarray:
    """The occlusion map of the joint score where the binary model looks left and the four-class one right."""

    class Engine(PointingEngine):
        def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
            p = super().run(package, x)["p"]
            return {"p": p if package.startswith("pneumonia/") else np.hstack([1 - p, p, 0 * p, 0 * p])}

    engine = Engine({"pneumonia/1.0.0": LEFT, "pneumonia4/1.0.0": RIGHT})
    inputs = dict.fromkeys(engine.places, x)
    return joint_occlusion(engine, served, inputs, 0, {}, 0.6)


def test_occlusion_falls_where_the_score_that_flags_hangs_on_the_film() -> None:
    x = np.zeros((1, 64, 64, 1), np.float32)
    x[0, 32:36, 16:20] = x[0, 32:36, 44:48] = 8.0
    alone = _occlusion(chest_served(), x)
    joint = _occlusion(chest_served(parameters={"blend": BLEND}), x)
    four = _occlusion(chest_served(parameters={"blend": BLEND | {"own": 0.0}}), x)
    places = [np.unravel_index(int(found.argmax()), found.shape) for found in (alone, four)]
    assert [int(column) for _, column in places] == [0, 1]
    assert np.ptp(joint.max(axis=0)) < 0.5 * np.ptp(alone.max(axis=0))
    heat = np.zeros((2, 16, 16), np.float32)
    heat[0][LEFT] = heat[1][RIGHT] = 1.0
    here, there = (occlusion_numbers(alone, enlarged(one), _field()) for one in heat)
    assert here["occlusion_agreement"] > 0.1 > there["occlusion_agreement"]
    assert 0.3 < here["occlusion_lung_share"] < 1.0


def test_patches_lie_on_the_film_whatever_part_of_it_a_network_sees() -> None:
    x = np.random.default_rng(0).random((60, 60, 1)).astype(np.float32)
    inner = FilmPart(0.0, 0.5, 1.0, 0.5)
    changed = [np.abs(copy - x).sum(axis=(0, 2)) > 0 for copy in occluded(x, (4, 4), inner)]
    assert not changed[0].any(), "the film's left quarter is not in its right half"
    assert np.flatnonzero(changed[3])[[0, -1]].tolist() == [pytest.approx(22, abs=2), 59]


def test_voices_are_the_binary_model_and_the_strongest_kind() -> None:
    served = chest_served(parameters={"blend": BLEND})
    outputs = {
        "pneumonia/1.0.0": {"p": np.array([[0.5], [0.9]])},
        "pneumonia4/1.0.0": {"p": np.array([[0.1, 0.2, 0.6, 0.1], [0.1, 0.7, 0.1, 0.1]])},
    }
    combined, own = combined_scores(served, outputs)
    first, second = (voices_of(served, combined, own, film) for film in (0, 1))
    assert [(v.label, v.share) for v in first] == [("pneumonia", 0.0), ("viral", 1.0)]
    assert [(v.label, round(v.share, 3)) for v in second] == [("pneumonia", 0.5), ("bacterial", 0.5)]
    plain = chest_served()
    combined, own = combined_scores(plain, outputs)
    assert [v.share for v in voices_of(plain, combined, own, 0)] == [1.0, 0.0]
    alone = {"pneumonia": plain["pneumonia"]}
    combined, own = combined_scores(alone, outputs)
    assert [v.share for v in voices_of(alone, combined, own, 0)] == [1.0]
