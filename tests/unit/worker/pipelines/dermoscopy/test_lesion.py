"""What is measured on an outline, framing there and back, next steps, and the detector of hair."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from firstread.phantoms.lesion import LesionSpec, lesion_image
from training.dermoscopy.traits import hair_share, is_hairy
from worker.pipelines.dermoscopy.evidence import lesion_picture, wrapped
from worker.pipelines.dermoscopy.lesion import framed, framing, measured, outlined, unframed
from worker.pipelines.next_steps import NextStepsError, next_steps, next_steps_or_defaults


def _ellipse(half_height: int, half_width: int, shape: tuple[int, int] = (300, 400)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    cv2.ellipse(mask, (shape[1] // 2, shape[0] // 2), (half_width, half_height), 0, 0, 360, 1, -1)
    return mask.astype(bool)


def test_a_circle_measures_as_one() -> None:
    lesion = measured(_ellipse(60, 60))
    assert lesion is not None
    assert lesion.area_fraction == pytest.approx(np.pi * 60**2 / (300 * 400), rel=0.02)
    assert lesion.diameter == pytest.approx(121, abs=1.5) and lesion.unit == "px"
    assert lesion.border_irregularity == pytest.approx(1.0, abs=0.03)


def test_the_border_index_of_an_ellipse_is_ramanujans() -> None:
    a, b = 120.0, 60.0
    h = ((a - b) / (a + b)) ** 2
    perimeter = np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))
    lesion = measured(_ellipse(60, 120))
    assert lesion is not None
    assert lesion.border_irregularity == pytest.approx(perimeter**2 / (4 * np.pi * np.pi * a * b), rel=0.04)


def test_a_ragged_border_is_more_irregular_at_every_size() -> None:
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    for scale in (1, 3):
        ragged = np.zeros((200 * scale, 200 * scale), np.uint8)
        radius = 60 * scale * (1 + 0.12 * np.sin(11 * angle))
        points = np.stack([100 * scale + radius * np.cos(angle), 100 * scale + radius * np.sin(angle)], axis=1)
        cv2.fillPoly(ragged, [points.astype(np.int32)], 1)
        lesion = measured(ragged.astype(bool))
        assert lesion is not None and 1.3 < lesion.border_irregularity < 2.2


def test_spacing_of_rows_and_columns_counts_apart() -> None:
    lesion = measured(_ellipse(50, 100), spacing_mm=(0.4, 0.1))
    assert lesion is not None and lesion.unit == "mm"
    assert lesion.diameter == pytest.approx(40.3, abs=0.6)


def test_an_empty_mask_measures_nothing() -> None:
    assert measured(np.zeros((10, 10), bool)) is None


def test_the_largest_component_is_kept_and_its_holes_are_filled() -> None:
    p = np.zeros((100, 100), np.float32)
    p[20:60, 20:60] = 0.9
    p[35:45, 35:45] = 0.1
    p[80:85, 80:85] = 0.8
    assert outlined(p, 0.5).sum() == 1600
    assert outlined(p, 0.5, largest=False, fill=False).sum() == 1500 + 25
    assert outlined(p, 0.5, largest=True, fill=False).sum() == 1500
    assert outlined(p, 0.85, largest=False, fill=True).sum() == 1600
    assert not outlined(p, 0.95).any()


@pytest.mark.parametrize(("height", "width"), [(450, 600), (600, 450), (500, 500), (360, 640), (641, 333)])
def test_framing_gives_four_to_three_and_comes_back(height: int, width: int) -> None:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = 0.3 * x + 0.7 * y
    frame = framing(height, width)
    inside = framed(image, frame)
    assert inside.shape[1] / inside.shape[0] == pytest.approx(4 / 3, abs=0.01)
    small = cv2.resize(inside, (160, 120), interpolation=cv2.INTER_AREA)
    back = unframed(small, frame, (height, width))
    assert back.shape == (height, width)
    middle = np.s_[height // 8 : -height // 8, width // 8 : -width // 8]
    assert np.abs(back - image)[middle].max() < 3.0


def test_a_four_to_three_landscape_is_left_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)
    assert np.array_equal(framed(image, framing(150, 200)), image)


def test_a_sites_own_sentence_takes_the_place_of_the_default(tmp_path: Path) -> None:
    path = tmp_path / "steps.toml"
    path.write_text('melanoma = "Call Dr. Example today."\n', encoding="utf-8")
    steps = next_steps(path)
    assert steps["melanoma"] == "Call Dr. Example today."
    assert steps["nevus"] == next_steps()["nevus"]


def test_a_changed_file_of_next_steps_counts_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "steps.toml"
    path.write_text('melanoma = "Monday."\n', encoding="utf-8")
    assert next_steps(path)["melanoma"] == "Monday."
    path.write_text('melanoma = "Tuesday."\n', encoding="utf-8")
    assert next_steps(path)["melanoma"] == "Tuesday."


@pytest.mark.parametrize(
    "text", ['melanom = "typing error"', "melanoma = 3", "melanoma = ", f'melanoma = "{"x" * 301}"']
)
def test_a_wrong_file_of_next_steps_says_what_is_wrong(text: str, tmp_path: Path) -> None:
    path = tmp_path / "steps.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NextStepsError, match=r"steps\.toml"):
        next_steps(path)
    with pytest.raises(NextStepsError):
        next_steps(tmp_path / "missing.toml")
    assert next_steps_or_defaults(path) == next_steps()


def test_the_defaults_only_say_who_should_look() -> None:
    assert all("look" in sentence or "check" in sentence for sentence in next_steps().values())


def test_the_evidence_picture_holds_outline_heat_and_words() -> None:
    rgb, mask = lesion_image(LesionSpec(height=150, width=200, hairs=0))
    plain = lesion_picture(rgb, None, None, "melanoma 0.10")
    full = lesion_picture(rgb, mask, np.full((9, 12), 0.6, np.float32), "melanoma 0.10", "Somebody should look. " * 9)
    assert plain.shape[1] == full.shape[1] and full.shape[0] > plain.shape[0]
    assert (full[:, 480:960] == (0, 255, 120)).all(axis=-1).sum() > 100


@pytest.mark.parametrize("name", ["Hautärztin", "Çünkü ışık", "δέρμα", "кожа", "皮肤科"])
def test_words_of_other_languages_are_drawn_as_they_are(name: str) -> None:
    rgb, _ = lesion_image(LesionSpec(height=150, width=200, hairs=0))
    drawn = lesion_picture(rgb, None, None, name)[:30]
    replaced = lesion_picture(rgb, None, None, name.encode("ascii", "replace").decode())[:30]
    unknown = lesion_picture(rgb, None, None, "\ue000" * len(name))[:30]
    assert drawn.any()
    assert (drawn != replaced).any() and (drawn != unknown).any()


def test_a_long_step_is_broken_where_the_picture_ends() -> None:
    for words in ("überweisen " * 40, "皮肤科医生" * 30, "W" * 300):
        lines = wrapped(words, 600)
        assert len(lines) > 2 and "".join(lines).replace(" ", "") == words.replace(" ", "")
        assert all(cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 0.55, 1)[0][0] <= 600 for line in lines)
    assert wrapped("", 600) == []


def test_hair_is_recognised() -> None:
    bare, _ = lesion_image(LesionSpec(hairs=0))
    hairy = cv2.resize(bare, (200, 150), interpolation=cv2.INTER_AREA)
    for x in range(10, 190, 20):
        cv2.line(hairy, (x, 5), (x + 15, 140), (50, 36, 32), 1)
    assert hair_share(bare) < 0.005 and not is_hairy(bare)
    assert is_hairy(hairy)
