"""The dermoscopy pipeline through its runner, on drawn lesions, with a stand-in for the engine."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, UID, JPEG2000Lossless, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from firstread.dicom.uids import stable_uid
from firstread.phantoms.lesion import LesionSpec, lesion_image, lesion_photograph
from firstread.report.predictive_value import PredictiveValue
from tests.builders.no_skin import NO_SKIN
from tests.builders.skin import BROWN, DARK, SKIN, DarknessEngine, lesion_card, repainted, served
from tests.builders.study_images import study_from
from training.dermoscopy.readers import Lesions
from worker.errors import NonFiniteScore, NoServingPackage
from worker.packages.operating_points import OperatingPoint, Prevalence
from worker.packages.package import load
from worker.packages.preprocessing.compose import compose
from worker.pipelines.base import Lost, Outcome, Served, StudyImages
from worker.pipelines.dermoscopy.gate import doubt, gate, judged
from worker.pipelines.dermoscopy.lesion import CLASSES, DX, folded
from worker.pipelines.dermoscopy.likeness import unlike_skin
from worker.pipelines.dermoscopy.pipeline import preprocess
from worker.pipelines.dermoscopy.selection import select
from worker.pipelines.next_steps import next_steps
from worker.pipelines.registry import Orders, row
from worker.pipelines.runner import RunResult, run
from worker.pipelines.unread import GONE, sentence


def _run(study: StudyImages, engine: DarknessEngine | None = None, **card: Any) -> RunResult:
    return run(row("dermoscopy"), study, served(lesion_card(**card)), engine or DarknessEngine())


def _done(result: RunResult) -> Outcome:
    assert result.outcome is not None, result.reasons
    return result.outcome


def _values(outcome: Outcome) -> dict[str, float]:
    values = {}
    for finding in outcome.findings:
        if finding.role == "active":
            number = finding.probability if finding.value is None else finding.value
            assert number is not None
            values[finding.name] = number
    return values


def test_a_dark_lesion_flags_melanoma_and_a_brown_one_does_not(tmp_path: Path) -> None:
    dark = _done(_run(study_from([lesion_photograph(DARK)], tmp_path / "dark")))
    brown = _done(_run(study_from([lesion_photograph(BROWN)], tmp_path / "brown")))
    assert [f.name for f in dark.findings if f.flagged] == ["melanoma"]
    assert not any(f.flagged for f in brown.findings)
    assert set(_values(dark)) == {*CLASSES, *DX, "lesion_area", "lesion_diameter", "border_irregularity"}
    assert sum(_values(dark)[name] for name in CLASSES) == pytest.approx(1.0)
    assert _values(dark)["melanoma"] == pytest.approx(_values(dark)["dx_mel"])
    assert dark.warnings == ()
    assert dark.next_step == next_steps()["melanoma"]
    assert brown.next_step == next_steps()["nevus"]


@pytest.mark.parametrize(("prevalence", "is_hint"), [(0.01, True), (0.0176, False)])
def test_a_melanoma_that_would_seldom_be_right_is_a_hint(prevalence: float, is_hint: bool, tmp_path: Path) -> None:
    point = OperatingPoint(
        finding="melanoma",
        threshold=0.3,
        chosen_for="a test",
        sensitivity=0.9,
        specificity=0.8,
        prevalence=Prevalence(value=prevalence, source="a test"),
    )
    outcome = _done(_run(study_from([lesion_photograph(DARK)], tmp_path), operating_points={"flag_melanoma": point}))
    (melanoma,) = [f for f in outcome.findings if f.name == "melanoma"]
    assert melanoma.probability is not None and melanoma.probability > 0.3
    assert (melanoma.threshold, melanoma.flagged) == ((None, False) if is_hint else (0.3, True))
    assert ("hint_only" in outcome.warnings) is is_hint
    assert outcome.predictive_value == (None if is_hint else PredictiveValue("melanoma", 0.0746, prevalence))
    assert outcome.evidence.mask is not None and outcome.next_step == next_steps()["melanoma"]


def test_the_outline_is_the_truth_at_the_pictures_own_size(tmp_path: Path) -> None:
    spec = LesionSpec(hairs=0)
    outcome = _done(_run(study_from([lesion_photograph(spec)], tmp_path)))
    _, truth = lesion_image(spec)
    mask = outcome.evidence.mask
    assert mask is not None and mask.shape == (1, *truth.shape) and mask.dtype == bool
    assert (mask[0] & truth).sum() / (mask[0] | truth).sum() > 0.85
    assert _values(outcome)["lesion_area"] == pytest.approx(truth.mean(), rel=0.12)
    picture = outcome.evidence.pictures["lesion"]
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert outcome.evidence.mask_keys == ((1, 0),)


def test_a_portrait_and_a_square_are_framed_not_squeezed(tmp_path: Path) -> None:
    rgb, truth = lesion_image(LesionSpec(height=300, width=400, hairs=0))
    cases = {
        "portrait": (np.rot90(rgb), np.rot90(truth)),
        "square": (rgb[:, 50:350], truth[:, 50:350]),
        "wide": (rgb[60:240], truth[60:240]),
    }
    for name, (pixels, mask) in cases.items():
        ds = repainted(lesion_photograph(BROWN), pixels)
        outline = _done(_run(study_from([ds], tmp_path / name))).evidence.mask
        assert outline is not None and outline[0].shape == mask.shape
        assert (outline[0] & mask).sum() / (outline[0] | mask).sum() > 0.8, name


@pytest.mark.parametrize(("rows", "columns"), [(1600, 2400), (2000, 2000), (2400, 1600)])
def test_the_outline_lies_where_the_lesion_is_in_a_large_picture(rows: int, columns: int, tmp_path: Path) -> None:
    """Larger than what is kept in memory, not 4:3, the lesion near a corner: a shift or a scale would show."""
    rgb, truth = np.full((rows, columns, 3), (222, 176, 152), np.uint8), np.zeros((rows, columns), np.uint8)
    at, half = (columns * 3 // 4, rows // 4), (columns // 6, rows // 8)
    cv2.ellipse(rgb, at, half, 20, 0, 360, (118, 74, 54), -1)
    cv2.ellipse(truth, at, half, 20, 0, 360, 1, -1)
    ds = repainted(lesion_photograph(BROWN), rgb)
    outline = _done(_run(study_from([ds], tmp_path))).evidence.mask
    assert outline is not None and outline.shape == (1, rows, columns)
    assert (outline[0] & (truth > 0)).sum() / (outline[0] | (truth > 0)).sum() > 0.85


def test_the_diameter_is_in_mm_where_the_spacing_is_known(tmp_path: Path) -> None:
    plain = _done(_run(study_from([lesion_photograph(BROWN)], tmp_path / "px")))
    ds = lesion_photograph(BROWN)
    ds.PixelSpacing = [0.1, 0.1]
    spaced = _done(_run(study_from([ds], tmp_path / "mm")))
    (px,) = [f for f in plain.findings if f.name == "lesion_diameter"]
    (mm,) = [f for f in spaced.findings if f.name == "lesion_diameter"]
    assert (px.unit, mm.unit) == ("px", "mm")
    assert px.value is not None and mm.value == pytest.approx(px.value * 0.1, rel=1e-6)


def _ybr_full(rgb: np.ndarray) -> np.ndarray:
    from pydicom.pixels.processing import convert_color_space

    return np.asarray(convert_color_space(rgb, "RGB", "YBR_FULL"))


def _in_pairs(rgb: np.ndarray, partial: bool) -> bytes:
    """Y Y CB CR by the equations of PS3.3 C.7.6.3.1.2."""
    if partial:
        matrix = np.array([[0.2568, 0.5041, 0.0979], [-0.1482, -0.2910, 0.4392], [0.4392, -0.3678, -0.0714]])
        ybr = rgb @ matrix.T + (16, 128, 128)
    else:
        ybr = _ybr_full(rgb).astype(float)
    pairs = np.stack(
        [ybr[:, 0::2, 0], ybr[:, 1::2, 0], *(ybr[..., c].reshape(len(rgb), -1, 2).mean(axis=2) for c in (1, 2))]
    )
    return np.ascontiguousarray(np.moveaxis(np.round(pairs), 0, -1).astype(np.uint8)).tobytes()


def _palette(ds: Dataset, rgb: np.ndarray) -> None:
    """256 colours, 16 bits an entry."""
    indexed = Image.fromarray(rgb).quantize(256, dither=Image.Dither.NONE)
    shades = np.asarray(indexed.getpalette(), np.uint16).reshape(-1, 3)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "PALETTE COLOR"
    del ds.PlanarConfiguration
    for name, values in zip(("Red", "Green", "Blue"), shades.T, strict=True):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [len(shades), 0, 16])
        setattr(ds, f"{name}PaletteColorLookupTableData", (values * 257).astype("<u2").tobytes())
    ds.PixelData = np.asarray(indexed, np.uint8).tobytes()


KINDS = (
    *("planar", "ybr", "ybr_planar", "ybr_422", "ybr_partial_422", "ybr_422_misnamed", "ybr_rct", "ybr_ict"),
    *("palette", "jpeg", "jpeg_partial", "capture", "16_bit"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_colour_is_the_same_however_it_is_stored(kind: str, tmp_path: Path) -> None:
    rgb, _ = lesion_image(DARK)
    reference = _values(_done(_run(study_from([lesion_photograph(DARK)], tmp_path / "rgb"))))
    ds = lesion_photograph(DARK, planar=kind == "planar")
    if kind in ("ybr_422", "ybr_partial_422"):
        ds.PhotometricInterpretation = kind.upper().replace("YBR_422", "YBR_FULL_422")
        ds.PixelData = _in_pairs(rgb, "partial" in kind)
    elif kind == "ybr_422_misnamed":
        ds.PhotometricInterpretation = "YBR_FULL_422"
        ds.PixelData = _ybr_full(rgb).tobytes()
    elif kind in ("ybr_rct", "ybr_ict"):
        lossy: dict[str, Any] = {} if kind == "ybr_rct" else {"j2k_cr": [5]}
        ds.PhotometricInterpretation = kind.upper()
        ds.compress(JPEG2000Lossless if kind == "ybr_rct" else JPEG2000, generate_instance_uid=False, **lossy)
    elif kind == "palette":
        _palette(ds, rgb)
    elif kind.startswith("ybr"):
        ds.PhotometricInterpretation = "YBR_FULL"
        ybr = _ybr_full(rgb)
        ds.PlanarConfiguration = int(kind == "ybr_planar")
        ds.PixelData = np.ascontiguousarray(np.moveaxis(ybr, -1, 0) if kind == "ybr_planar" else ybr).tobytes()
    elif kind.startswith("jpeg"):
        done, content = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        assert done
        ds.PhotometricInterpretation = "YBR_FULL_422" if kind == "jpeg" else "YBR_PARTIAL_422"
        ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        ds.PixelData = encapsulate([content.tobytes()])
        ds["PixelData"].VR = "OB"
    elif kind == "capture":
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    elif kind == "16_bit":
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.PixelData = (rgb.astype(np.uint16) << 4).tobytes()
        ds["PixelData"].VR = "OW"
    outcome = _done(_run(study_from([ds], tmp_path / kind)))
    values = _values(outcome)
    for name in ("melanoma", "nevus", "lesion_area"):
        assert values[name] == pytest.approx(reference[name], abs=0.02), name
    assert ("secondary_capture" in outcome.warnings) == (kind == "capture")


def _grey_in_colour(ds: Dataset) -> None:
    rgb, _ = lesion_image(BROWN)
    repainted(ds, np.repeat(rgb.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8))


def _grey(ds: Dataset) -> None:
    rgb, _ = lesion_image(BROWN)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PixelData = rgb[..., 0].tobytes()


def _tiny(ds: Dataset) -> None:
    repainted(ds, lesion_image(LesionSpec(height=48, width=64, hairs=0))[0])


def _flat(ds: Dataset) -> None:
    repainted(ds, np.full((150, 200, 3), (222, 176, 152), np.uint8))


def _cut_short(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[:1000]


def _microscope(ds: Dataset) -> None:
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.77.1.2")


def _bluish(ds: Dataset) -> None:
    """As under the light of a few pictures of HAM10000: red lies below blue nearly everywhere."""
    rgb, _ = lesion_image(BROWN)
    repainted(ds, (rgb * (0.62, 0.8, 1.0) + (0, 0, 30)).clip(0, 255).astype(np.uint8))


REFUSED = {
    "grey_image": (_grey, _grey_in_colour),
    "picture_too_small": (_tiny,),
    "no_lesion_found": (_flat,),
    "unreadable_pixel_data": (_cut_short,),
}


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize(("reason", "change"), [(r, c) for r, changes in REFUSED.items() for c in changes])
def test_what_cannot_be_scored_is_refused_by_name(reason: str, change: Any, forced: bool, tmp_path: Path) -> None:
    ds = lesion_photograph(BROWN)
    change(ds)
    result = _run(study_from([ds], tmp_path, forced=forced))
    assert result.rejected and result.reasons == (reason,)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("name", NO_SKIN)
def test_a_picture_without_skin_is_refused_though_a_person_asked(name: str, forced: bool, tmp_path: Path) -> None:
    ds = repainted(lesion_photograph(BROWN), NO_SKIN[name]())
    result = _run(study_from([ds], tmp_path, forced=forced))
    assert result.rejected and result.reasons == ("not_a_skin_photograph",)


def test_a_class_of_other_organs_is_refused_unless_a_person_asked_for_it(tmp_path: Path) -> None:
    ds = lesion_photograph(BROWN)
    _microscope(ds)
    result = _run(study_from([ds], tmp_path / "sent"))
    assert result.rejected and result.reasons == ("not_a_skin_photograph",)
    assert not _run(study_from([ds], tmp_path / "asked", forced=True)).rejected


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.840.10008.5.1.4.1.1.77.1.7"])
def test_colours_unlike_skin_are_a_warning_where_the_class_says_that_it_is_skin(uid: str, tmp_path: Path) -> None:
    ds = lesion_photograph(BROWN)
    _bluish(ds)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(uid)
    assert "not_a_skin_photograph" in _done(_run(study_from([ds], tmp_path / "photograph"))).warnings
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    result = _run(study_from([ds], tmp_path / "capture"))
    assert result.rejected and result.reasons == ("not_a_skin_photograph",)


@pytest.mark.skipif(not os.environ.get("FIRSTREAD_TEST_DATA"), reason="FIRSTREAD_TEST_DATA names no folder of images")
def test_the_gate_refuses_hardly_any_lesion_of_ham10000() -> None:
    reader = Lesions(Path(os.environ["FIRSTREAD_TEST_DATA"]) / "dermoscopy" / "ham10000_200x150")
    refused, unlike, n = Counter[str](), 0, 0
    for item in [item for item in reader.items() if item.split in ("val", "test")][::4]:
        rgb = reader.pixels(item).astype(np.uint8)
        refused[str(doubt(rgb))] += 1
        unlike += unlike_skin(judged(rgb))
        n += 1
    assert n > 350 and set(refused) == {"None"}
    assert unlike <= 2  # of which the pipeline warns


class _BlindEngine(DarknessEngine):
    def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
        out = super().run(package, x)
        out["mask"] = np.zeros_like(out["mask"])
        return out


def test_a_picture_without_an_outline_is_refused_or_carries_a_warning(tmp_path: Path) -> None:
    refused = _run(study_from([lesion_photograph(BROWN)], tmp_path / "sent"), _BlindEngine())
    assert refused.rejected and refused.reasons == ("no_lesion_found",)
    asked = _done(_run(study_from([lesion_photograph(BROWN)], tmp_path / "asked", forced=True), _BlindEngine()))
    assert "no_lesion_found" in asked.warnings
    assert "lesion_area" not in _values(asked)


def test_drawn_skin_without_a_lesion_has_no_result(tmp_path: Path) -> None:
    result = _run(study_from([lesion_photograph(SKIN)], tmp_path))
    assert result.rejected and result.reasons == ("no_lesion_found",)


def _pictures(folder: Path) -> StudyImages:
    brown, dark = lesion_photograph(BROWN, seed=1), lesion_photograph(DARK, seed=2)
    dark.StudyInstanceUID = brown.StudyInstanceUID
    dark.SeriesInstanceUID = UID(stable_uid("another", "series"))
    dark.InstanceNumber = 2
    return study_from([brown, dark], folder)


def test_the_most_suspicious_picture_gives_the_result_of_the_study(tmp_path: Path) -> None:
    study = _pictures(tmp_path)
    result = _run(study)
    outcome = _done(result)
    (key,) = [i for i in study.instances if int(i.ds.InstanceNumber) == 2]
    assert outcome.evidence.key_instance == key.key
    assert outcome.SeriesInstanceUID == key.SeriesInstanceUID
    rows = {(s.instance_key, s.finding): s.probability for s in outcome.slice_scores}
    assert len(rows) == len(outcome.slice_scores) == 2 * (len(CLASSES) + len(DX))
    assert _values(outcome)["melanoma"] == max(p for (_, name), p in rows.items() if name == "melanoma")
    assert len(result.notes) == 2


class _PartlyBlindEngine(DarknessEngine):
    """Outlines nothing in the pictures of these rows, and gives each picture the probability that it was made with."""

    def __init__(self, blind: tuple[int, ...], melanoma: tuple[float, ...]) -> None:
        super().__init__()
        self.blind, self.melanoma = blind, melanoma

    def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
        out = super().run(package, x)
        out["mask"][list(self.blind)] = 0.0
        out["p"][:] = 0.0
        out["p"][:, 0] = self.melanoma
        out["p"][:, 1] = 1 - out["p"][:, 0]
        return out


@pytest.mark.parametrize(
    ("blind", "melanoma", "leading", "flagged", "warnings"),
    [
        ((1,), (0.2, 0.4), 1, False, {"pictures_left_out"}),
        ((1,), (0.6, 0.9), 1, True, {"pictures_left_out"}),
        ((1,), (0.2, 0.9), 2, True, {"no_lesion_found"}),
        ((0, 1), (0.2, 0.9), 2, True, {"no_lesion_found"}),
        ((0,), (0.2, 0.4), 2, False, set()),
    ],
    ids=["outlined-below", "outlined-flagged", "suspicion-kept", "none-outlined-but-flagged", "less-suspicious-blind"],
)
def test_one_picture_without_an_outline_loses_neither_the_study_nor_a_flag(
    blind: tuple[int, ...],
    melanoma: tuple[float, ...],
    leading: int,
    flagged: bool,
    warnings: set[str],
    tmp_path: Path,
) -> None:
    study = _pictures(tmp_path)
    outcome = _done(_run(study, _PartlyBlindEngine(blind, melanoma)))
    (key,) = [i for i in study.instances if i.key == outcome.evidence.key_instance]
    assert int(key.ds.InstanceNumber) == leading
    assert any(f.flagged for f in outcome.findings) == flagged
    assert set(outcome.warnings) - {"patient_mismatch"} == warnings
    assert _values(outcome)["melanoma"] == pytest.approx(melanoma[leading - 1])
    assert ("lesion_area" in _values(outcome)) == ("no_lesion_found" not in warnings)
    assert len({row.instance_key for row in outcome.slice_scores}) == 2


def test_without_any_outline_a_study_below_the_flag_is_refused(tmp_path: Path) -> None:
    result = _run(_pictures(tmp_path), _PartlyBlindEngine((0, 1), (0.2, 0.4)))
    assert result.rejected and result.reasons == ("no_lesion_found",)


def test_an_unreadable_picture_beside_a_good_one_is_a_warning(tmp_path: Path) -> None:
    brown, broken = lesion_photograph(BROWN, seed=1), lesion_photograph(DARK, seed=2)
    broken.StudyInstanceUID, broken.SeriesInstanceUID = brown.StudyInstanceUID, brown.SeriesInstanceUID
    broken.PixelData = broken.PixelData[:99]
    study = study_from([brown, broken], tmp_path)
    result = _run(study)
    outcome = _done(result)
    assert "pictures_left_out" in outcome.warnings
    assert not any(f.flagged for f in outcome.findings)
    assert result.detail.startswith("1 of 2 pictures could not be read (1: ")
    lost = Lost(study.instances[1].SeriesInstanceUID, study.instances[1].SOPClassUID, 2, GONE)
    without = _run(replace(study, instances=study.instances[:1], lost=(lost,)))
    assert "pictures_left_out" in _done(without).warnings
    assert without.detail == sentence(2, "pictures", [GONE])


def test_other_malignancy_is_warned_of_at_its_own_operating_point(tmp_path: Path) -> None:
    study = study_from([lesion_photograph(BROWN)], tmp_path)
    warned = _done(_run(study, DarknessEngine(bcc=0.35)))
    assert "other_malignancy" in warned.warnings
    assert warned.next_step == next_steps()["other_malignancy"]
    assert "other_malignancy" not in _done(_run(study, DarknessEngine(bcc=0.25))).warnings


def test_views_are_undone_and_averaged(tmp_path: Path) -> None:
    study = study_from([lesion_photograph(BROWN)], tmp_path)
    engine = DarknessEngine()
    plain = _done(_run(study))
    every = _done(_run(study, engine, parameters={"views": ["plain", "mirrored", "upside_down", "turned"]}))
    assert len(engine.batches) == 4
    assert plain.evidence.mask is not None and every.evidence.mask is not None
    assert (plain.evidence.mask == every.evidence.mask).mean() > 0.999
    assert _values(every)["melanoma"] == pytest.approx(_values(plain)["melanoma"], abs=1e-6)


def test_a_large_picture_is_first_reduced_to_the_size_that_was_learnt_from(tmp_path: Path) -> None:
    """Alternating columns are grey at that size, and stripes in one step to the network's input."""
    rgb, _ = lesion_image(LesionSpec(height=450, width=600, hairs=0))
    rgb[:, ::6, :], rgb[:, 3::6, :] = 255, 60
    study = study_from([repainted(lesion_photograph(BROWN), rgb)], tmp_path)
    (series,) = select(study).series
    photographs = gate(study, series).pixels
    assert photographs is not None
    cards = [
        lesion_card("plain"),
        lesion_card("soft", parameters={"picture_width_px": 200}),
        lesion_card("large", parameters={"picture_width_px": 600}),
    ]
    x = preprocess(photographs, served(*cards)).x
    spec = cards[0].input
    two_steps = cv2.resize(rgb.astype(np.float32), (200, 150), interpolation=cv2.INTER_AREA)[None]
    np.testing.assert_allclose(x["soft/1"], compose(two_steps, spec), atol=1e-5)
    np.testing.assert_array_equal(x["plain/1"], x["large/1"])
    assert np.abs(x["soft/1"] - x["plain/1"]).max() > 0.02


@pytest.mark.timeout(300)
@pytest.mark.skipif(not os.environ.get("FIRSTREAD_TEST_DATA"), reason="FIRSTREAD_TEST_DATA names no folder of images")
def test_the_shipped_package_says_the_same_of_enlarged_pictures(tmp_path: Path) -> None:
    package = load(sorted((Path(__file__).resolve().parents[5] / "models").glob("lesion_*/*"))[-1])
    reader = Lesions(Path(os.environ["FIRSTREAD_TEST_DATA"]) / "dermoscopy" / "ham10000_200x150")
    items = [item for item in reader.items() if item.split == "test"][::120]

    class Shipped:
        def run(self, key: str, x: np.ndarray) -> dict[str, np.ndarray]:
            return package.predict(x)

        def gradients(self, key: str, x: np.ndarray, finding: str) -> np.ndarray:
            return np.zeros((len(x), 3, 4), np.float32)

    p: dict[str, list[float]] = {"given": [], "enlarged": []}
    overlap = []
    for number, item in enumerate(items):
        rgb, masks = reader.pixels(item).astype(np.uint8), {}
        for name, pixels in {
            "given": rgb,
            "enlarged": cv2.resize(rgb, (600, 450), interpolation=cv2.INTER_CUBIC),
        }.items():
            study = study_from(
                [repainted(lesion_photograph(BROWN), pixels)], tmp_path / f"{number}_{name}", forced=True
            )
            outcome = _done(run(row("dermoscopy"), study, {"lesion": [Served(package.card)]}, cast(Any, Shipped())))
            p[name].append(_values(outcome)["melanoma"])
            assert outcome.evidence.mask is not None
            masks[name] = cv2.resize(
                outcome.evidence.mask[0].astype(np.uint8), (600, 450), interpolation=cv2.INTER_NEAREST
            )
        overlap.append((masks["given"] & masks["enlarged"]).sum() / (masks["given"] | masks["enlarged"]).sum())
    assert np.abs(np.subtract(p["given"], p["enlarged"])).mean() < 0.03
    assert np.mean(overlap) > 0.9


def test_an_ensemble_averages_a_shadow_never_flags_and_an_outliner_serves_the_mask(tmp_path: Path) -> None:
    study = study_from([lesion_photograph(DARK)], tmp_path)
    cards = served(
        lesion_card("a"),
        lesion_card("b"),
        lesion_card("s", operating_points={}),
        lesion_card("m", task="lesion_mask", labels=[]),
        roles=("active", "active", "shadow", "active"),
    )

    class Engine(DarknessEngine):
        def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
            out = super().run(package, x)
            if package == "b/1":
                out["p"] = np.roll(out["p"], 1, axis=1)
            if package == "m/1":
                out["p"] = out["p"][:, :0]
            return out

    outcome = _done(run(row("dermoscopy"), study, cards, Engine()))
    by_role: dict[str, dict[str, float]] = {}
    for finding in outcome.findings:
        if finding.name == "melanoma" and finding.probability is not None:
            by_role.setdefault(finding.role, {})[finding.model_name] = finding.probability
    assert by_role["active"]["a+b"] == pytest.approx(np.mean(list(by_role["member"].values())))
    assert set(by_role["shadow"]) == {"s"}
    assert not any(f.flagged for f in outcome.findings if f.role != "active")
    assert {f.model_name for f in outcome.findings if f.name == "lesion_area"} == {"m"}


def test_a_classifier_of_three_classes_alone_serves_too(tmp_path: Path) -> None:
    study = study_from([lesion_photograph(DARK)], tmp_path)

    class Engine(DarknessEngine):
        def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
            return {"p": np.repeat([[0.7, 0.2, 0.1]], len(x), axis=0).astype(np.float32)}

    cards = served(lesion_card(task="lesion_class", labels=list(CLASSES)))
    outcome = _done(run(row("dermoscopy"), study, cards, Engine()))
    assert set(_values(outcome)) == set(CLASSES)
    assert [f.name for f in outcome.findings if f.flagged] == ["melanoma"]
    assert outcome.evidence.mask is None and "lesion" in outcome.evidence.pictures


def test_nan_is_a_failure_and_no_package_makes_the_job_wait(tmp_path: Path) -> None:
    study = study_from([lesion_photograph(DARK)], tmp_path)
    with pytest.raises(NonFiniteScore):
        _run(study, DarknessEngine(poison=True))
    with pytest.raises(NoServingPackage):
        run(row("dermoscopy"), study, served(lesion_card(task="lesion_mask", labels=[])), DarknessEngine())


def test_which_studies_are_its_business(tmp_path: Path) -> None:
    entry = row("dermoscopy")
    ds = lesion_photograph(BROWN)
    for modality, wanted in {"XC": True, "DMS": True, "OT": True, "CT": False, "CR": False}.items():
        ds.Modality = modality
        assert entry.wants(study_from([ds], tmp_path / modality), Orders()) is wanted, modality
    head, capture = lesion_photograph(BROWN, seed=3), lesion_photograph(BROWN, seed=4)
    head.Modality, capture.Modality = "CT", "OT"
    assert not entry.wants(study_from([head, capture], tmp_path / "mixed"), Orders())
    assert entry.wants(study_from([head], tmp_path / "asked"), Orders("dermoscopy"))


def test_seven_diagnoses_fold_into_three() -> None:
    p = dict(zip(DX, (0.3, 0.2, 0.1, 0.15, 0.05, 0.12, 0.08), strict=True))
    assert folded(p) == pytest.approx({"melanoma": 0.3, "nevus": 0.2, "other": 0.5})
