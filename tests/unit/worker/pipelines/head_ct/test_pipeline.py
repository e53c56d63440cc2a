"""The head-CT pipeline through its runner, on drawn heads, with a thresholding stand-in for the engine."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from firstread.phantoms.ct import CtLabels, ct_series, enhanced_ct
from firstread.phantoms.head import Bleed, HeadPhantom, HeadSpec, head_grid, head_study
from firstread.report.predictive_value import PredictiveValue
from tests.builders.study_images import LABELS, ThresholdEngine, head_card, served, study_from
from worker.errors import NonFiniteScore, NoServingPackage
from worker.packages.operating_points import OperatingPoint
from worker.pipelines.base import Outcome, Served, StudyImages
from worker.pipelines.registry import row
from worker.pipelines.runner import STAGES, RunResult, run

SMALL = HeadSpec(slices=28, size=128)
BALL = replace(SMALL, bleed="intraparenchymal")


@pytest.fixture(scope="module")
def ball() -> HeadPhantom:
    return head_study(BALL)


@pytest.fixture(scope="module")
def plain() -> HeadPhantom:
    return head_study(SMALL)


def _run(study: StudyImages, engine: ThresholdEngine | None = None, **card: Any) -> RunResult:
    return run(row("head_ct"), study, served(head_card(**card)), engine or ThresholdEngine())


def _done(result: RunResult) -> Outcome:
    assert result.outcome is not None, result.reasons
    return result.outcome


def _any(outcome: Outcome) -> tuple[float, bool]:
    (finding,) = [f for f in outcome.findings if f.name == "any" and f.role == "active"]
    assert finding.probability is not None
    return finding.probability, finding.flagged


@pytest.mark.parametrize("bleed", ["epidural", "intraparenchymal", "intraventricular", "subdural"])
def test_a_bleed_is_flagged(bleed: Bleed, tmp_path: Path) -> None:
    phantom = head_study(replace(SMALL, bleed=bleed, signed=bleed == "epidural"))
    outcome = _done(_run(study_from(phantom.objects, tmp_path)))
    assert _any(outcome)[1]
    areas = phantom.blood.sum(axis=(1, 2))
    key = outcome.evidence.key_instance
    assert key is not None and areas[key - 1] > 0.7 * areas.max()


def test_a_plain_head_is_not(plain: HeadPhantom, tmp_path: Path) -> None:
    result = _run(study_from(plain.objects, tmp_path))
    outcome = _done(result)
    p, flagged = _any(outcome)
    assert not flagged and p < 0.3
    assert outcome.warnings == ()
    assert [f.value for f in outcome.findings if f.name == "bleed_volume"] == pytest.approx([0.0], abs=0.2)
    assert set(result.seconds) == set(STAGES)
    assert json.dumps(result.details)


@pytest.mark.parametrize(("specificity", "share"), [(0.2, 0.0319), (0.55, 0.0553), (0.8, 0.1165), (None, None)])
def test_a_flag_stays_a_flag_however_seldom_it_is_right(
    ball: HeadPhantom, plain: HeadPhantom, specificity: float | None, share: float | None, tmp_path: Path
) -> None:
    point = OperatingPoint(finding="any", threshold=0.5, chosen_for="a test", sensitivity=0.95, specificity=specificity)
    bleed = _done(_run(study_from(ball.objects, tmp_path / "a"), operating_points={"flag": point}))
    assert _any(bleed)[1]
    assert bleed.predictive_value == (None if share is None else PredictiveValue("any", share, 0.027))
    other = _done(_run(study_from(plain.objects, tmp_path / "b"), operating_points={"flag": point}))
    assert not _any(other)[1] and other.predictive_value is None


def test_every_finding_and_every_slice_has_its_row(ball: HeadPhantom, tmp_path: Path) -> None:
    study = study_from(ball.objects, tmp_path)
    outcome = _done(_run(study))
    assert [f.name for f in outcome.findings] == [*LABELS, "bleed_volume"]
    assert all((f.probability is None) != (f.value is None) for f in outcome.findings)
    rows = [(s.instance_key, s.frame, s.finding) for s in outcome.slice_scores]
    assert len(rows) == len(set(rows)) == 28 * len(LABELS)
    assert {s.instance_number for s in outcome.slice_scores} == set(range(1, 29))


def test_the_order_of_arrival_and_of_numbers_does_not_matter(ball: HeadPhantom, tmp_path: Path) -> None:
    straight = _done(_run(study_from(ball.objects, tmp_path / "a")))
    shuffled = [deepcopy(ds) for ds in ball.objects]
    rng = np.random.default_rng(1)
    rng.shuffle(shuffled)
    for number, ds in enumerate(shuffled, start=1):
        ds.InstanceNumber = number
    study = study_from(shuffled, tmp_path / "b")
    again = _done(_run(study))
    assert _any(again) == _any(straight)
    by_place = {i.key: float(i.ds.ImagePositionPatient[2]) for i in study.instances}
    scores = {by_place[s.instance_key]: s.probability for s in again.slice_scores if s.finding == "any"}
    expected = [s.probability for s in straight.slice_scores if s.finding == "any"]
    assert [scores[z] for z in sorted(scores)] == pytest.approx(expected)


def test_volume_and_mask_lie_where_the_blood_is(ball: HeadPhantom, tmp_path: Path) -> None:
    outcome = _done(_run(study_from(ball.objects, tmp_path)))
    (volume,) = [f for f in outcome.findings if f.name == "bleed_volume"]
    assert volume.unit == "mL" and volume.value == pytest.approx(ball.volume_ml, rel=0.35)
    evidence = outcome.evidence
    assert evidence.mask is not None and evidence.mask.shape == ball.blood.shape and evidence.mask.dtype == bool
    assert evidence.mask_keys == tuple((key, 0) for key in range(1, 29))
    both = 2 * np.count_nonzero(evidence.mask & ball.blood)
    assert both / (evidence.mask.sum() + ball.blood.sum()) > 0.7


def test_a_mirrored_image_is_turned_for_reading_and_its_mask_turned_back(ball: HeadPhantom, tmp_path: Path) -> None:
    mirrored = []
    for ds, hu in zip(ball.objects, ball.hu, strict=True):
        copy = deepcopy(ds)
        copy.PixelData = (np.rint(hu[::-1, ::-1]) + 1024).astype("<u2").tobytes()
        copy.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
        mirrored.append(copy)
    straight = _done(_run(study_from(ball.objects, tmp_path / "a")))
    turned = _done(_run(study_from(mirrored, tmp_path / "b")))
    assert _any(turned)[0] == pytest.approx(_any(straight)[0], abs=1e-4)
    assert straight.evidence.mask is not None and turned.evidence.mask is not None
    np.testing.assert_array_equal(turned.evidence.mask[:, ::-1, ::-1], straight.evidence.mask)
    np.testing.assert_array_equal(turned.evidence.pictures["key_slice"], straight.evidence.pictures["key_slice"])


def test_an_enhanced_object_gives_what_its_slices_give(ball: HeadPhantom, tmp_path: Path) -> None:
    order = [int(i) for i in np.random.default_rng(2).permutation(28)]
    enhanced = enhanced_ct(ball.hu, head_grid(BALL), CtLabels(), order)
    outcome = _done(_run(study_from([enhanced], tmp_path / "a")))
    single = _done(_run(study_from(ball.objects, tmp_path / "b")))
    assert _any(outcome) == pytest.approx(_any(single))
    by_frame = {s.frame: s.probability for s in outcome.slice_scores if s.finding == "any"}
    by_slice = [s.probability for s in single.slice_scores if s.finding == "any"]
    assert sorted(by_frame) == list(range(1, 29))
    assert [by_frame[order.index(i) + 1] for i in range(28)] == pytest.approx(by_slice)
    assert outcome.evidence.key_frame == order.index(int(np.argmax(by_slice))) + 1


def test_thin_slices_are_averaged_and_each_gets_its_score(tmp_path: Path) -> None:
    thin = replace(BALL, slices=112, step_mm=1.25, thickness_mm=1.25)
    phantom = head_study(thin)
    engine = ThresholdEngine()
    result = _run(study_from(phantom.objects, tmp_path), engine)
    outcome = _done(result)
    assert engine.batches[0][1][0] == 28
    assert "slices_averaged" in outcome.warnings
    assert len({s.instance_key for s in outcome.slice_scores}) == 112
    assert outcome.evidence.mask is not None and len(outcome.evidence.mask) == 112
    (volume,) = [f.value for f in outcome.findings if f.name == "bleed_volume"]
    assert volume == pytest.approx(phantom.volume_ml, rel=0.35)


def test_a_classifier_without_mask_is_asked_for_its_gradients_only_when_it_flags(
    plain: HeadPhantom, ball: HeadPhantom, tmp_path: Path
) -> None:
    quiet, loud = ThresholdEngine(mask=False), ThresholdEngine(mask=False)
    unflagged = _done(_run(study_from(plain.objects, tmp_path / "a"), quiet))
    flagged = _done(_run(study_from(ball.objects, tmp_path / "b"), loud))
    assert (quiet.asked_gradients, loud.asked_gradients) == (0, 1)
    assert unflagged.evidence.pictures["key_slice"].shape[1] * 2 == flagged.evidence.pictures["key_slice"].shape[1]
    assert flagged.evidence.mask is None and all(f.name != "bleed_volume" for f in flagged.findings)


def test_several_active_packages_are_averaged_and_a_shadow_never_flags(ball: HeadPhantom, tmp_path: Path) -> None:
    class Unequal(ThresholdEngine):
        def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
            out = super().run(package, x)
            level = {"a/1": 0.9, "b/1": 0.3, "s/1": 0.99}[package]
            out["p"] = np.full_like(out["p"], level)
            return out

    cards = head_card("s"), head_card("a", flag=0.5), head_card("b", flag=0.5)
    packages = served(*cards, roles=("shadow",))
    outcome = _done(run(row("head_ct"), study_from(ball.objects, tmp_path), packages, Unequal()))
    findings = {(f.model_name, f.role): f for f in outcome.findings if f.name == "any"}
    assert findings["a+b", "active"].probability == pytest.approx(0.6)
    assert findings["a+b", "active"].flagged
    assert findings["a", "member"].probability == pytest.approx(0.9)
    assert not any(f.flagged for f in outcome.findings if f.role != "active")
    assert findings["s", "shadow"].probability == pytest.approx(0.99)
    assert {s.role for s in outcome.slice_scores} == {"active", "member", "shadow"}


def test_a_baseline_has_no_part_in_the_flag(ball: HeadPhantom, tmp_path: Path) -> None:
    slices = head_card("slices", flag=0.0).model_copy(update={"task": "bleed_slice"})
    for role in ("active", "shadow"):
        packages = {**served(head_card("a", flag=1.0)), "bleed_slice": [Served(slices, role)]}
        outcome = _done(run(row("head_ct"), study_from(ball.objects, tmp_path / role), packages, ThresholdEngine()))
        findings = {(f.model_name, f.role, f.flagged) for f in outcome.findings if f.name == "any"}
        assert findings == {("a", "active", False)} | ({("slices", "shadow", False)} if role == "shadow" else set())


def test_a_flag_without_any_marked_place_is_said_to_have_low_evidence(plain: HeadPhantom, tmp_path: Path) -> None:
    class Sure(ThresholdEngine):
        def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
            out = super().run(package, x)
            return {"p": np.full_like(out["p"], 0.9), "mask": np.zeros_like(out["mask"])}

    assert "low_evidence" in _done(_run(study_from(plain.objects, tmp_path), Sure())).warnings


def test_nan_from_a_model_is_a_failure(ball: HeadPhantom, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteScore):
        _run(study_from(ball.objects, tmp_path), ThresholdEngine(poison=True))


def test_without_a_package_the_study_waits(plain: HeadPhantom, tmp_path: Path) -> None:
    with pytest.raises(NoServingPackage):
        run(row("head_ct"), study_from(plain.objects, tmp_path), {"bleed": []}, ThresholdEngine())


def test_stages_are_observed_and_the_volume_is_decoded_once(plain: HeadPhantom, tmp_path: Path) -> None:
    seen: list[str] = []
    study = study_from(plain.objects, tmp_path)
    run(row("head_ct"), study, served(head_card()), ThresholdEngine(), lambda stage, seconds: seen.append(stage))
    assert seen == list(STAGES)


def test_pictures_mark_the_sides_only_where_they_are_known(ball: HeadPhantom, tmp_path: Path) -> None:
    without = [deepcopy(ds) for ds in ball.objects]
    for ds in without:
        del ds.ImageOrientationPatient, ds.ImagePositionPatient
    known = _done(_run(study_from(ball.objects, tmp_path / "a")))
    unknown = _done(_run(study_from(without, tmp_path / "b")))
    left = [o.evidence.pictures["key_slice"][270:300, :30] for o in (known, unknown)]
    assert left[0].max() > 200 and left[1].max() < 100
    assert {"geometry_missing", "spacing_unknown"} <= set(unknown.warnings)
    assert all(f.name != "bleed_volume" for f in unknown.findings)


def test_a_patient_outside_the_training_population_is_scored_with_a_warning(tmp_path: Path) -> None:
    child = head_study(SMALL, CtLabels(age="006M")).objects
    population = {"age_min": 18, "age_max": 95}
    outcome = _done(_run(study_from(child, tmp_path), population=population))
    assert "outside_training_population" in outcome.warnings
    adult = head_study(SMALL, CtLabels(age="045Y")).objects
    assert (
        "outside_training_population"
        not in _done(_run(study_from(adult, tmp_path / "b"), population=population)).warnings
    )


def test_two_patients_under_one_study_are_a_warning(plain: HeadPhantom, tmp_path: Path) -> None:
    objects = [deepcopy(ds) for ds in plain.objects]
    objects[3].PatientID = "PHANTOM-OTHER"
    assert "patient_mismatch" in _done(_run(study_from(objects, tmp_path))).warnings


def test_statistics_for_drift(plain: HeadPhantom, tmp_path: Path) -> None:
    statistics = _done(_run(study_from(plain.objects, tmp_path))).statistics
    assert statistics["thickness_mm"] == 5 and 20 < statistics["intensity_mean"] < 45


def test_a_tilted_gantry_is_still_axial(tmp_path: Path) -> None:
    tilted = head_study(replace(SMALL, tilt_deg=23.0)).objects
    assert _any(_done(_run(study_from(tilted, tmp_path))))[1] is False


def test_slices_of_another_size_do_not_mix(ball: HeadPhantom, tmp_path: Path) -> None:
    other = head_study(replace(SMALL, size=64, slices=9), CtLabels(series="1"))
    for number, ds in enumerate(other.objects):
        ds.SOPInstanceUID = f"1.2.3.{number}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    result = _run(study_from([*other.objects, *ball.objects], tmp_path))
    assert result.details["n_slices"] == 28


def _copy(ds: Dataset, **changes: object) -> Dataset:
    copy = deepcopy(ds)
    for keyword, value in changes.items():
        setattr(copy, keyword, value)
    return copy


def test_one_unreadable_slice_is_left_out_with_a_warning(ball: HeadPhantom, tmp_path: Path) -> None:
    objects = [deepcopy(ds) for ds in ball.objects]
    objects[2].PixelData = objects[2].PixelData[:100]
    outcome = _done(_run(study_from(objects, tmp_path)))
    assert "unreadable_slices" in outcome.warnings
    assert 3 not in {s.instance_key for s in outcome.slice_scores}
    assert outcome.evidence.mask is not None and len(outcome.evidence.mask) == 27


def test_mostly_unreadable_is_a_reason(ball: HeadPhantom, tmp_path: Path) -> None:
    objects = [_copy(ds, PixelData=ds.PixelData[:100]) for ds in ball.objects]
    assert _run(study_from(objects, tmp_path)).reasons == ("unreadable_pixel_data",)


def test_ct_series_helper_writes_signed_hu(tmp_path: Path) -> None:
    hu = np.full((1, 16, 16), 40.0, np.float32)
    (ds,) = ct_series(hu, head_grid(SMALL), CtLabels(), signed=True)
    assert ds.PixelRepresentation == 1 and ds.RescaleIntercept == 0
