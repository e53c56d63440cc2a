"""Which pipeline a study goes to: by what the headers say, and by what people asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydicom.dataset import Dataset
from pydicom.uid import UID

from firstread.dicom.modality import modality_of
from firstread.phantoms.chest import chest_film
from firstread.phantoms.ct import CtLabels, secondary_capture
from firstread.phantoms.head import HeadSpec, head_study
from firstread.phantoms.lesion import lesion_photograph
from firstread.pipelines import DERMOSCOPY, HEAD_CT
from firstread.priority import priority_of
from firstread.settings import Settings
from tests.builders.skin import BROWN
from tests.builders.study_images import study_from
from worker.pipelines.registry import REGISTRY, Orders, row
from worker.routing.jobs import wanted_by

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
VL_PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4"
DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"
VL_ENDOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.1"
SKIN1 = Orders(sender=frozenset({"dermoscopy"}))


def picture(modality: str | None, sop_class: str = SECONDARY_CAPTURE) -> Dataset:
    ds = lesion_photograph(BROWN)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    ds.Modality = modality
    if modality is None:
        del ds.Modality
    return ds


def grey_film(modality: str | None, sop_class: str = SECONDARY_CAPTURE) -> Dataset:
    ds = chest_film()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    ds.Modality = modality
    if modality is None:
        del ds.Modality
    return ds


def ct_slice(modality: str | None) -> Dataset:
    ds = head_study(HeadSpec(slices=1)).objects[0]
    ds.Modality = modality
    if modality is None:
        del ds.Modality
    return ds


@pytest.mark.parametrize("modality", [None, "", "OT", "CT"])
def test_a_ct_class_goes_to_the_head_whatever_modality_leaves_open(modality: str | None, tmp_path: Path) -> None:
    assert wanted_by(study_from([ct_slice(modality)], tmp_path), Orders()) == (["head_ct"], None)


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"])
@pytest.mark.parametrize("modality", [None, "", "OT"])
def test_a_radiograph_by_its_class_is_a_candidate_film(modality: str | None, sop_class: str, tmp_path: Path) -> None:
    study = study_from([grey_film(modality, sop_class)], tmp_path)
    assert wanted_by(study, Orders()) == (["chest_xray"], None)
    assert row("chest_xray").load().select(study).series


def test_a_class_decides_only_where_modality_says_nothing() -> None:
    assert modality_of("MR", "1.2.840.10008.5.1.4.1.1.2") == "MR"
    assert modality_of(" dx\0", "1.2.840.10008.5.1.4.1.1.2") == "DX"
    assert modality_of(None, VL_PHOTOGRAPHIC) == "XC" and modality_of("OT", VL_PHOTOGRAPHIC) == "OT"
    assert modality_of("OT", DERMOSCOPIC) == "DMS"
    assert modality_of("", "1.2.3") == modality_of(None, "") == ""


def test_every_modality_that_a_pipeline_wants_has_its_priority() -> None:
    wanted = [(modality, entry) for entry in REGISTRY for modality in entry.described.modalities]
    assert {"CT", "CR", "DX", "DR", "RG", "XC", "DMS"} == {modality for modality, _ in wanted}
    assert len(wanted) == 7  # none is wanted twice
    for modality, entry in wanted:
        assert priority_of([modality]) == entry.described.priority
    assert priority_of(["DR"]) == priority_of(["RG"]) == 5


def test_what_a_sender_orders_lends_its_priority() -> None:
    assert priority_of(["OT"], ordered=["head_ct"]) == HEAD_CT.priority
    assert priority_of(["OT"], forced_pipeline="dermoscopy", ordered=["head_ct"]) == DERMOSCOPY.priority


@pytest.mark.parametrize(
    ("modality", "sop_class"),
    [
        ("OT", SECONDARY_CAPTURE),
        ("SC", SECONDARY_CAPTURE),
        ("ES", VL_ENDOSCOPIC),
        (None, SECONDARY_CAPTURE),
        (None, VL_ENDOSCOPIC),
        ("ES", VL_PHOTOGRAPHIC),
        ("OT", VL_PHOTOGRAPHIC),
        ("XC", VL_ENDOSCOPIC),
    ],
)
def test_a_picture_of_no_kind_is_skin_only_where_somebody_asked(
    modality: str | None, sop_class: str, tmp_path: Path
) -> None:
    study = study_from([picture(modality, sop_class)], tmp_path)
    names, _ = wanted_by(study, Orders())
    assert "dermoscopy" in names
    selection = row("dermoscopy").load().select(study)
    assert not selection.series and selection.notes[0].reasons == ("not_a_skin_photograph",)
    asked = study_from([picture(modality, sop_class)], tmp_path / "asked", forced=True)
    assert row("dermoscopy").load().select(asked).series


def test_a_colour_capture_that_chest_looks_at_gets_the_same_reason(tmp_path: Path) -> None:
    study = study_from([picture("OT")], tmp_path)
    chest = row("chest_xray").load()
    assert "chest_xray" in wanted_by(study, Orders())[0]
    gate = chest.gate(study, chest.select(study).series[0])
    assert gate.reasons == ("not_a_skin_photograph",)


@pytest.mark.parametrize(
    ("modality", "sop_class"),
    [
        ("XC", VL_PHOTOGRAPHIC),
        ("XC", SECONDARY_CAPTURE),
        ("DMS", DERMOSCOPIC),
        ("OT", DERMOSCOPIC),
        (None, DERMOSCOPIC),
        (None, VL_PHOTOGRAPHIC),
    ],
)
def test_photographs_by_modality_or_class_need_no_order(modality: str | None, sop_class: str, tmp_path: Path) -> None:
    study = study_from([picture(modality, sop_class)], tmp_path)
    assert wanted_by(study, Orders()) == (["dermoscopy"], None)
    assert row("dermoscopy").load().select(study).series


@pytest.mark.parametrize("modality", ["OT", "SC"])
def test_a_grey_capture_still_reaches_the_chest(modality: str, tmp_path: Path) -> None:
    study = study_from([grey_film(modality)], tmp_path)
    for orders in (Orders(), Orders(everywhere=frozenset({"dermoscopy"}))):
        assert "chest_xray" in wanted_by(study, orders)[0]
    assert row("chest_xray").load().select(study).series


ORGANS = {
    "BodyPartExamined": ("EYE", "STOMACH", "ESOPHAGUS", "COLON", "RETINA"),
    "SeriesDescription": ("Gastroscopy", "Fundus OD", "OEsophagus 30 cm", "Histology HE 40x", "Endoskopie Darm"),
    "StudyDescription": ("ENDOSCOPIE DIGESTIVE", "Colonoscopy", "Ophthalmology, retina both eyes"),
}


@pytest.mark.parametrize(("keyword", "words"), [(k, w) for k, values in ORGANS.items() for w in values])
def test_a_header_that_names_another_organ_is_believed(keyword: str, words: str, tmp_path: Path) -> None:
    ds = picture("XC", VL_PHOTOGRAPHIC)
    ds.SeriesDescription = ""
    setattr(ds, keyword, words)
    selection = row("dermoscopy").load().select(study_from([ds], tmp_path))
    assert not selection.series and selection.notes[0].reasons == ("not_a_skin_photograph",)
    asked = row("dermoscopy").load().select(study_from([ds], tmp_path / "asked", forced=True))
    assert bool(asked.series) == (keyword != "BodyPartExamined")


@pytest.mark.parametrize(
    "words",
    [
        "",
        "Dermatoscopy left cheek",
        "Skin of eyelid",
        "Epiluminescence microscopy, skin",
        "Chest, mole 3",
        "Ear",
        "Trichoscopy",
        "Auflichtmikroskopie Haut",
        "breast, upper outer",
        "lip",
        "Back",
    ],
)
def test_words_of_skin_and_of_parts_with_skin_are_no_other_organ(words: str, tmp_path: Path) -> None:
    for keyword in ("BodyPartExamined", "SeriesDescription"):
        ds = picture("XC", VL_PHOTOGRAPHIC)
        setattr(ds, keyword, words[:16] if keyword == "BodyPartExamined" else words)
        assert row("dermoscopy").load().select(study_from([ds], tmp_path / keyword)).series, keyword


def test_the_anatomic_region_counts_too(tmp_path: Path) -> None:
    ds, region = picture("XC", VL_PHOTOGRAPHIC), Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "T-56000", "SRT", "Esophagus"
    ds.AnatomicRegionSequence = [region]
    assert not row("dermoscopy").load().select(study_from([ds], tmp_path)).series


def test_an_order_for_a_sender_takes_what_no_other_pipeline_claims(tmp_path: Path) -> None:
    heads = Orders(sender=frozenset({"head_ct"}))
    assert wanted_by(study_from([picture("OT")], tmp_path / "a"), SKIN1) == (["dermoscopy"], None)
    assert wanted_by(study_from([ct_slice("CT")], tmp_path / "b"), SKIN1) == (["head_ct"], None)
    assert wanted_by(study_from([ct_slice("CT")], tmp_path / "c"), heads) == (["head_ct"], None)
    capture = secondary_capture(CtLabels(), 64)
    capture.Modality = "OT"
    assert "head_ct" in wanted_by(study_from([capture], tmp_path / "d"), heads)[0]
    assert wanted_by(study_from([grey_film("DX")], tmp_path / "e"), SKIN1) == (["chest_xray"], None)
    assert SKIN1.name("dermoscopy") and not SKIN1.name("head_ct")


def test_orders_by_sender_are_a_setting_that_knows_the_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTREAD_FORCE_PIPELINES_BY_CALLING_AE", '{"SKIN1": ["dermoscopy"], "CT2": ["head_ct"]}')
    settings = Settings()
    assert settings.forced_for(["SKIN1", "ELSE"]) == {"dermoscopy"}
    assert settings.forced_for(["CT2", "SKIN1"]) == {"dermoscopy", "head_ct"} and settings.forced_for([]) == set()
    monkeypatch.setenv("FIRSTREAD_FORCE_PIPELINES_BY_CALLING_AE", '{"SKIN1": ["skin"]}')
    with pytest.raises(ValidationError, match="no such pipeline; there are head_ct, chest_xray, dermoscopy"):
        Settings()
    monkeypatch.delenv("FIRSTREAD_FORCE_PIPELINES_BY_CALLING_AE")
    monkeypatch.setenv("FIRSTREAD_FORCE_PIPELINES", '["headct"]')
    with pytest.raises(ValidationError, match="no such pipeline"):
        Settings()
