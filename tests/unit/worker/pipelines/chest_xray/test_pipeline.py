"""The chest pipeline through its runner, on drawn films, with a stand-in for the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from firstread.phantoms.chest import FilmSpec, chest_image, film, limb_image
from tests.builders.chest import LowerLungEngine, chest_served, film_ds, received, study_of
from worker.errors import NonFiniteScore, NoServingPackage
from worker.pipelines.base import Lost, Outcome, StoredInstance, StudyImages
from worker.pipelines.registry import row
from worker.pipelines.runner import RunResult, run
from worker.pipelines.unread import GONE, sentence

ILL = FilmSpec(size=256, opacity=True)


def _run(study: StudyImages, engine: LowerLungEngine | None = None, **card: Any) -> RunResult:
    return run(row("chest_xray"), study, chest_served(**card), engine or LowerLungEngine())


def _done(result: RunResult) -> Outcome:
    assert result.outcome is not None, result.reasons
    return result.outcome


def _p(outcome: Outcome) -> dict[str, float]:
    return {f.name: f.probability for f in outcome.findings if f.role == "active" and f.probability is not None}


def test_an_opacity_flags_pneumonia_and_its_kind_never_flags(tmp_path: Path) -> None:
    ill = _done(_run(study_of(received(tmp_path, film_ds(ILL), 1))))
    well = _done(_run(study_of(received(tmp_path, film_ds(), 2))))
    assert [f.name for f in ill.findings if f.flagged] == ["pneumonia"]
    assert not any(f.flagged for f in well.findings)
    assert set(_p(ill)) == {"pneumonia", "normal", "bacterial", "viral", "covid19"}
    assert _p(ill)["pneumonia"] > 0.5 > _p(well)["pneumonia"]
    assert "confounded_by_age" in ill.warnings
    assert {score.finding for score in ill.slice_scores} == set(_p(ill))
    assert ill.evidence.key_instance == 1
    picture = next(iter(ill.evidence.pictures.values()))
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3


def test_the_map_says_side_and_lung_share(tmp_path: Path) -> None:
    density, truth = chest_image(ILL, 0)
    result = _run(study_of(received(tmp_path, film_ds(ILL), 1)))
    side = "right" if np.nonzero(truth)[1].mean() < density.shape[1] / 2 else "left"
    assert result.details["map_side"] == side
    share = result.details["map_lung_share"]
    assert isinstance(share, float) and share > 0.5
    assert "low_evidence" not in _done(result).warnings
    assert isinstance(result.details["occlusion_agreement"], float)


def test_a_positive_map_outside_the_lungs_is_low_evidence_and_a_normal_one_never(tmp_path: Path) -> None:
    corner = LowerLungEngine(points_at=(14, 14))
    ill = _done(_run(study_of(received(tmp_path, film_ds(ILL), 1)), corner))
    well = _done(_run(study_of(received(tmp_path, film_ds(), 2)), corner))
    assert "low_evidence" in ill.warnings
    assert "low_evidence" not in well.warnings


CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
NO_WINDOW = {"WindowCenter": None, "WindowWidth": None}


@pytest.mark.parametrize(
    ("stored", "elements"),
    [
        ({"photometric": "MONOCHROME1"}, {}),
        ({"bits": 8}, {}),
        ({"bits": 16}, NO_WINDOW),
        ({"bits": 10}, {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 900, "WindowWidth": 2100}),
        ({}, {"Modality": "DX", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1"}),
        ({}, {"Modality": "OT", "SOPClassUID": CAPTURE, "ViewPosition": None}),
    ],
)
def test_every_way_to_store_a_film_scores_alike(stored: Any, elements: dict[str, Any], tmp_path: Path) -> None:
    spec = FilmSpec(size=256, opacity=True, **stored)
    plain = _p(_done(_run(study_of(received(tmp_path, film_ds(ILL), 1)))))
    other = _p(_done(_run(study_of(received(tmp_path, film_ds(spec, **elements), 2)))))
    assert other["pneumonia"] == pytest.approx(plain["pneumonia"], abs=0.05)


def _instance(folder: Path, ds: Dataset, **elements: Any) -> StoredInstance:
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return received(folder, ds)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda f: _instance(f, film(limb_image(256), FilmSpec(size=256), body_part="EXTREMITY")), "not_a_chest"),
        (lambda f: _instance(f, film(limb_image(256), FilmSpec(size=256))), "not_a_chest"),
        (lambda f: _instance(f, film_ds(), BodyPartExamined="KNEE"), "not_a_chest"),
        (lambda f: _instance(f, film_ds(), ViewPosition="LL"), "lateral_view"),
        (lambda f: _instance(f, film_ds(), ViewPosition="", SeriesDescription="W Chest Lat."), "lateral_view"),
        (lambda f: _instance(f, film_ds(), PatientOrientation=["A", "F"]), "lateral_view"),
        (lambda f: _instance(f, film_ds(FilmSpec(size=96))), "too_small"),
        (lambda f: _instance(f, film_ds(), Modality="MR"), "not_a_radiograph"),
        (lambda f: _instance(f, film_ds(), PixelData=b"\0" * 4), "unreadable_pixel_data"),
        (lambda f: _instance(f, film_ds(), PixelData=b"\7\0" * 256 * 256), "unreadable_pixel_data"),
    ],
)
def test_what_is_no_frontal_chest_film_is_refused_with_the_reason(make: Any, reason: str, tmp_path: Path) -> None:
    result = _run(study_of(make(tmp_path)))
    assert result.outcome is None
    assert reason in result.reasons


def test_a_limb_is_refused_even_where_a_person_asked(tmp_path: Path) -> None:
    limb = received(tmp_path, film(limb_image(256), FilmSpec(size=256)))
    assert _run(study_of(limb, forced=True)).reasons == ("not_a_chest",)


def test_what_a_person_asked_for_is_scored_with_a_doubt_from_the_header(tmp_path: Path) -> None:
    odd = received(tmp_path, film_ds(ILL, Modality="MR", BodyPartExamined=None, StudyDescription="Knee"))
    outcome = _done(_run(study_of(odd, forced=True)))
    assert "chest_uncertain" in outcome.warnings


def test_a_body_part_that_the_header_names_is_believed_even_where_a_person_asked(tmp_path: Path) -> None:
    knee = received(tmp_path, film_ds(ILL, BodyPartExamined="KNEES"))
    assert _run(study_of(knee, forced=True)).reasons == ("not_a_chest",)


def test_a_film_stored_inverted_is_turned_round(tmp_path: Path) -> None:
    ds = film_ds(FilmSpec(size=256, opacity=True, photometric="MONOCHROME1"), PhotometricInterpretation="MONOCHROME2")
    outcome = _done(_run(study_of(received(tmp_path, ds))))
    assert "polarity_corrected" in outcome.warnings
    assert _p(outcome)["pneumonia"] > 0.5


@pytest.mark.parametrize(
    ("age", "warned"), [("003Y", False), ("040Y", False), ("010Y", True), ("006M", True), ("", False)]
)
def test_ages_outside_the_training_films_are_warned_of_and_scored(age: str, warned: bool, tmp_path: Path) -> None:
    outcome = _done(_run(study_of(received(tmp_path, film_ds(ILL, PatientAge=age)))))
    assert ("outside_training_population" in outcome.warnings) == warned
    assert _p(outcome)["pneumonia"] > 0.5


def test_a_study_is_as_suspicious_as_its_worst_frontal_film(tmp_path: Path) -> None:
    uid = "1.2.3.4"
    films = [
        received(tmp_path, film_ds(FilmSpec(size=256), 1, SeriesInstanceUID=uid, SOPInstanceUID="1.2.3.4.1"), 1),
        received(tmp_path, film_ds(ILL, 2, SeriesInstanceUID=uid, SOPInstanceUID="1.2.3.4.2"), 2),
        received(tmp_path, film_ds(ILL, 3, SeriesInstanceUID=uid, SOPInstanceUID="1.2.3.4.3", ViewPosition="LL"), 3),
    ]
    outcome = _done(_run(study_of(*films)))
    assert outcome.evidence.key_instance == 2
    assert {score.instance_key for score in outcome.slice_scores} == {1, 2}
    assert _p(outcome)["pneumonia"] == max(s.probability for s in outcome.slice_scores if s.finding == "pneumonia")


def _in_series(folder: Path, spec: FilmSpec, key: int, series: int, **elements: Any) -> StoredInstance:
    uids = {"SeriesInstanceUID": f"1.2.3.{series}", "SOPInstanceUID": f"1.2.3.{series}.{key}"}
    return received(folder, film_ds(spec, key, **uids | elements), key)


def test_an_opacity_in_a_series_of_its_own_flags_and_all_evidence_is_of_that_film(tmp_path: Path) -> None:
    well = _in_series(tmp_path, FilmSpec(size=256), 1, 1, ViewPosition="PA")
    ill = _in_series(tmp_path, ILL, 2, 2, ViewPosition="AP", InstanceNumber=2)
    limb = _in_series(tmp_path, FilmSpec(size=256), 3, 3, BodyPartExamined="KNEE")
    result = _run(study_of(well, ill, limb))
    outcome = _done(result)
    assert [f.name for f in outcome.findings if f.flagged] == ["pneumonia"]
    assert outcome.SeriesInstanceUID == "1.2.3.2"
    assert outcome.evidence.key_instance == 2
    assert {score.instance_key for score in outcome.slice_scores} == {1, 2}
    chosen = {note.SeriesInstanceUID: note.chosen for note in result.notes}
    assert chosen == {"1.2.3.1": True, "1.2.3.2": True, "1.2.3.3": False}
    assert result.details["view"] == "AP"


def test_a_series_of_which_no_film_passes_says_why_beside_the_score(tmp_path: Path) -> None:
    well = _in_series(tmp_path, FilmSpec(size=256), 1, 1)
    broken = _in_series(tmp_path, FilmSpec(size=256), 2, 2, PixelData=b"\0" * 4)
    result = _run(study_of(well, broken))
    assert [note.reasons for note in result.notes] == [(), ("unreadable_pixel_data",)]
    assert [note.chosen for note in result.notes] == [True, False]
    assert result.details["films_left_out"] == 1
    assert "pictures_left_out" in _done(result).warnings
    assert result.detail.startswith("1 of 2 films could not be read (1: ")
    alone = _run(study_of(broken))
    assert alone.reasons == ("unreadable_pixel_data",) and alone.detail.startswith("1 of 1 films could not be read")


def test_a_film_whose_file_is_gone_does_not_hide_behind_another(tmp_path: Path) -> None:
    well = _in_series(tmp_path, FilmSpec(size=256), 1, 1)
    lost = Lost("1.2.3.2", well.SOPClassUID, 2, GONE), Lost("1.2.3.9", "1.2.840.10008.5.1.4.1.1.88.67", 1, GONE)
    result = _run(replace(study_of(well), lost=lost))
    outcome = _done(result)
    assert "pictures_left_out" in outcome.warnings and not any(f.flagged for f in outcome.findings)
    assert result.detail == sentence(2, "films", [GONE])


def test_every_series_has_its_turn_and_films_past_the_limit_are_counted(tmp_path: Path) -> None:
    many = [_in_series(tmp_path, FilmSpec(size=256), key, 1, ViewPosition="PA") for key in range(1, 11)]
    late = _in_series(tmp_path, ILL, 11, 2, ViewPosition="AP")
    raw = _in_series(tmp_path, ILL, 12, 3, PresentationIntentType="FOR PROCESSING")
    result = _run(study_of(*many, late, raw))
    outcome = _done(result)
    assert outcome.evidence.key_instance == 11
    assert result.details["n_films"] == 8
    assert result.details["films_left_out"] == 4
    assert "pictures_left_out" in outcome.warnings
    assert 12 not in {score.instance_key for score in outcome.slice_scores}


def test_a_shadow_package_is_stored_and_never_flags(tmp_path: Path) -> None:
    served = chest_served()
    active = served["pneumonia"][0]
    card = active.card.model_copy(update={"version": "2.0.0"})
    served["pneumonia"].append(type(active)(card, "shadow"))
    result = run(row("chest_xray"), study_of(received(tmp_path, film_ds(ILL))), served, LowerLungEngine())
    roles = {(f.model_version, f.role, f.flagged) for f in _done(result).findings if f.name == "pneumonia"}
    assert roles == {("1.0.0", "active", True), ("2.0.0", "shadow", False)}


def test_without_a_binary_package_nothing_is_said(tmp_path: Path) -> None:
    served = {"pneumonia4": chest_served()["pneumonia4"]}
    with pytest.raises(NoServingPackage):
        run(row("chest_xray"), study_of(received(tmp_path, film_ds())), served, LowerLungEngine())


def test_a_score_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    class Broken(LowerLungEngine):
        def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
            return {"p": super().run(package, x)["p"] * np.nan}

    with pytest.raises(NonFiniteScore):
        _run(study_of(received(tmp_path, film_ds())), Broken())


def test_a_card_may_ask_for_the_four_class_model_to_join_the_binary_score(tmp_path: Path) -> None:
    blend = {"own": 0.0, "four": 1.0, "bias": 1.0, "threshold": 0.7}
    outcome = _done(_run(study_of(received(tmp_path, film_ds(ILL))), parameters={"blend": blend}))
    (joint,) = [f for f in outcome.findings if f.name == "pneumonia" and f.role == "active"]
    (normal,) = [f for f in outcome.findings if f.name == "normal"]
    (member,) = [f for f in outcome.findings if f.name == "pneumonia" and f.role == "member"]
    assert joint.model_name == "pneumonia+pneumonia4"
    assert joint.threshold == 0.7
    assert joint.probability is not None
    assert normal.probability is not None
    odds = (1 - normal.probability) / normal.probability
    assert joint.probability == pytest.approx(np.e * odds / (1 + np.e * odds), rel=1e-4)
    assert member.model_name == "pneumonia"
    assert not member.flagged


@pytest.mark.parametrize(
    ("partner", "joined"),
    [
        ({"name": "pneumonia4", "version": "1.0.0", "sha256": ""}, True),
        ({"name": "pneumonia4", "version": "2.0.0", "sha256": ""}, False),
        ({"name": "pneumonia4", "version": "1.0.0", "sha256": "f00"}, False),
        (None, True),
    ],
)
def test_a_joint_score_wants_the_package_that_it_was_fitted_with(
    partner: dict[str, str] | None, joined: bool, tmp_path: Path
) -> None:
    blend: dict[str, Any] = {"own": 0.0, "four": 1.0, "bias": 1.0, "threshold": 0.999}
    blend |= {} if partner is None else {"partner": partner}
    outcome = _done(_run(study_of(received(tmp_path, film_ds(ILL))), parameters={"blend": blend}))
    (binary,) = [f for f in outcome.findings if f.name == "pneumonia" and f.role == "active"]
    assert binary.model_name == ("pneumonia+pneumonia4" if joined else "pneumonia")
    assert binary.threshold == (0.999 if joined else 0.5)
    assert binary.flagged is not joined
    assert ("joint_score_missing" in outcome.warnings) is not joined


def test_a_joint_score_without_any_four_class_package_is_warned_of(tmp_path: Path) -> None:
    blend = {"own": 0.5, "four": 0.5, "bias": 0.0, "threshold": 0.5}
    served = {"pneumonia": chest_served(parameters={"blend": blend})["pneumonia"]}
    outcome = _done(run(row("chest_xray"), study_of(received(tmp_path, film_ds(ILL))), served, LowerLungEngine()))
    assert "joint_score_missing" in outcome.warnings
    assert [f.name for f in outcome.findings if f.flagged] == ["pneumonia"]
