"""What says that a contrast agent was used, and the many ways to write that there was none."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from firstread.dicom.contrast import described, has_contrast, says_none
from firstread.dicom.frames import frames_of
from firstread.phantoms.ct import CtLabels, enhanced_ct
from firstread.phantoms.head import HeadSpec, head_grid, head_study
from tests.builders.heads import altered
from tests.builders.study_images import ThresholdEngine, head_card, served, study_from
from worker.pipelines.registry import row
from worker.pipelines.runner import RunResult, run

NONE = (
    "W/O CONTRAST|w/o|w/out contrast|non-contrast|Without contrast|without IV contrast|UNENHANCED|n/a|N.A.|NA|-|--|?|"
    "NATIVE|nativ|[none]|(none)|None given|NOT APPLICABLE|not administered|NO I.V. CONTRAST|no|N|NIL|0|0.0|0 ml|"
    "pre-contrast|NCCT|plain CT|NOCONTRAST|C-|unknown|ohne|Ohne KM|o. KM|kein Kontrastmittel|nein|zonder contrast|geen|"
    "uten kontrast|utan kontrast|ingen|sans|sans injection|S/C|sans produit de contraste|aucun|non injecté|senza mdc|"
    "nessuno|sin contraste|ninguno|sem contraste|não|bez kontrastu|brak|žádný|без контраста|нет|yok|nélkül|なし|"
    "non contrast/plain|nativ ohne KM|造影なし|造影剤なし|未使用造影剂|조영제 없음|brez|単純|平扫|无|없음|NONE\\NONE"
)
AGENTS = (
    "Iohexol|OMNIPAQUE 350|NON-IONIC|non ionic contrast|ISOVUE, NO REACTION|Ultravist ohne Reaktion|CONTRAST|KM|"
    "YES|Y|IV|with and without contrast|W/WO CONTRAST|w/ & w/o|with|mit KM|avec|con contraste|C+|CE|1|80 ml|0.5|"
    "applied|"
    "nativ + KM|Nativ + KM i.v.|単純+造影|UNENHANCED/ENHANCED|PRE/ENHANCED|SIN / IV|NC/CE|native/contrast|CE NATIVE|"
    "POST CONTRAST|pre and post|Gadolinium|造影剤|NIOPAM"
)


@pytest.mark.parametrize("words", NONE.split("|"))
def test_words_for_none(words: str) -> None:
    assert says_none(words)


@pytest.mark.parametrize("words", AGENTS.split("|"))
def test_words_for_an_agent(words: str) -> None:
    assert not says_none(words)


GIVEN = (
    "CT HEAD WITH CONTRAST|HEAD W CONTRAST|Head w/ contrast|BRAIN+C|AXIAL C+|HEAD C +|CTA HEAD|CT ANGIO HEAD|HEAD POST|"
    "HEAD POST CONTRAST|POST-CONTRAST|POSTCONTRAST 5MM|HEAD VENOUS|ARTERIAL PHASE|HEAD WITH IV CONTRAST NO TILT|CE AX|"
    "Schädel mit KM|Schädel nach Kontrastmittel|crâne avec contraste|cranio con contrasto|с контрастом|头颅增强|造影"
)
PLAIN = (
    "CT HEAD WITHOUT CONTRAST|HEAD W/O CONTRAST|HEAD WO CONTRAST|HEAD W/OUT CONTRAST|NON-CONTRAST HEAD|NON CONTRAST|"
    "NONCONTRAST HEAD|NO CONTRAST|WITHOUT ANY IV CONTRAST|CONTRAST: NONE|HEAD PRE CONTRAST|UNENHANCED HEAD|NATIVE|"
    "Schädel nativ|Schädel ohne KM|ohne Kontrastmittel|crâne sans contraste|senza contrasto|без контраста|头颅平扫|"
    "無造影|造影なし|HEAD C-|C-SPINE|HEAD W/WO CONTRAST|HEAD W & W/O CONTRAST|HEAD WITH AND WITHOUT CONTRAST|POST OP|"
    "POST FOSSA|HEAD POSTERIOR|POST TRAUMA|HIGH CONTRAST|LOW CONTRAST 5MM|HEAD 5 CM|HEAD 5.0|AXIAL|EDGE ENHANCED||"
    "KM NATIV"
)
BOTH = "CTA HEAD W/O|PRE AND POST CONTRAST|NATIV + MIT KM|HEAD PRE/POST"


@pytest.mark.parametrize(("said", "words"), [("given", GIVEN), ("none", PLAIN), ("both", BOTH)])
def test_what_the_description_of_a_series_says(said: str, words: str) -> None:
    strange = {text: found for text in words.split("|") if (found := described(text)) != said}
    assert not strange


def _item(**values: object) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


IOHEXOL = _item(CodeValue="C-B0317", CodingSchemeDesignator="SRT", CodeMeaning="Iohexol")
NOTHING = _item(CodeValue="0", CodingSchemeDesignator="L", CodeMeaning="No contrast")
USED: dict[str, tuple[dict[str, object], bool]] = {
    "nothing": ({}, False),
    "agent": ({"ContrastBolusAgent": "Iohexol"}, True),
    "volume": ({"ContrastBolusAgent": "NONE", "ContrastBolusVolume": "80"}, True),
    "no volume": ({"ContrastBolusVolume": "0"}, False),
    "dose": ({"ContrastBolusTotalDose": "24"}, True),
    "flow": ({"ContrastFlowRate": "4"}, True),
    "ingredient": ({"ContrastBolusIngredient": "IODINE"}, True),
    "sequence": ({"ContrastBolusAgentSequence": Sequence([IOHEXOL])}, True),
    "sequence without a name": ({"ContrastBolusAgentSequence": Sequence([_item(CodeValue="C-B0317")])}, True),
    "sequence for none": ({"ContrastBolusAgentSequence": Sequence([NOTHING])}, False),
    "empty item": ({"ContrastBolusAgentSequence": Sequence([Dataset()])}, False),
    "empty sequence": ({"ContrastBolusAgentSequence": Sequence([])}, False),
    "route": ({"ContrastBolusAdministrationRouteSequence": Sequence([_item(CodeValue="G-D101")])}, True),
}


@pytest.mark.parametrize("name", sorted(USED))
def test_what_says_that_an_agent_was_used(name: str) -> None:
    values, expected = USED[name]
    assert has_contrast(_item(**values)) is expected


def test_an_amount_that_is_no_number_counts_too() -> None:
    for raw, expected in ((b"80,5", True), (b"80 ml ", True), (b"none", False), (b"0,0 ", False)):
        ds = Dataset()
        tag = Tag("ContrastBolusVolume")
        ds._dict[tag] = RawDataElement(tag, "DS", len(raw), raw, 0, False, True)
        assert has_contrast(ds) is expected, raw


def _used(given: str = "", phase: str = "") -> Dataset:
    item = Dataset()
    if given:
        item.ContrastBolusAgentAdministered = given
    if phase:
        item.ContrastBolusAgentPhase = phase
    return _item(ContrastBolusUsageSequence=Sequence([item]))


def _enhanced(spec: HeadSpec) -> Dataset:
    return enhanced_ct(head_study(spec).hu, head_grid(spec), CtLabels())


def test_each_frame_of_an_enhanced_object_says_for_itself() -> None:
    ds = _enhanced(HeadSpec(slices=4, size=16))
    assert [frame.contrast for frame in frames_of(ds)] == [None] * 4
    groups = ds.PerFrameFunctionalGroupsSequence
    for group, functional_groups in zip(
        groups, (_used("NO"), _used("YES"), _used(phase="PRE_CONTRAST"), _used()), strict=True
    ):
        group.update(functional_groups)
    assert [frame.contrast for frame in frames_of(ds)] == [False, True, False, False]
    ds.SharedFunctionalGroupsSequence[0].update(_used(phase="ARTERIAL"))
    assert [frame.contrast for frame in frames_of(ds)] == [False, True, False, False]


SPEC = HeadSpec(slices=28, size=128)


def _run(objects: list[Dataset], folder: Path) -> RunResult:
    return run(row("head_ct"), study_from(objects, folder), served(head_card()), ThresholdEngine())


@pytest.mark.parametrize("where", ["shared", "each"])
def test_an_enhanced_head_with_contrast_in_its_macros_is_refused(where: str, tmp_path: Path) -> None:
    ds = _enhanced(SPEC)
    ds.ContrastBolusAgentSequence = Sequence([IOHEXOL])
    plain, given = deepcopy(ds), deepcopy(ds)
    for enhanced, functional_groups in ((plain, _used("NO")), (given, _used("YES"))):
        shared, per_frame = enhanced.SharedFunctionalGroupsSequence, enhanced.PerFrameFunctionalGroupsSequence
        groups = shared if where == "shared" else per_frame
        for group in groups:
            group.update(functional_groups)
    assert _run([given], tmp_path / "given").reasons == ("contrast_agent",)
    assert _run([plain], tmp_path / "plain").outcome is not None
    assert _run([ds], tmp_path / "agent alone").reasons == ("contrast_agent",)


def test_a_series_described_as_plain_goes_before_one_described_as_contrast(tmp_path: Path) -> None:
    objects = head_study(SPEC, CtLabels(series="9", description="HEAD W/O CONTRAST")).objects
    other = head_study(SPEC, CtLabels(series="1", description="HEAD POST")).objects
    result = _run([*other, *objects], tmp_path)
    assert result.outcome is not None and result.outcome.SeriesInstanceUID == objects[0].SeriesInstanceUID


@pytest.mark.parametrize(
    ("description", "warned"),
    [("HEAD WITH CONTRAST", True), ("HEAD W/O CONTRAST", False), ("W/WO CONTRAST", False)],
)
def test_a_series_described_as_contrast_is_scored_with_a_warning(
    description: str, warned: bool, tmp_path: Path
) -> None:
    result = _run(head_study(SPEC, CtLabels(description=description)).objects, tmp_path)
    assert result.outcome is not None and ("contrast_suspected" in result.outcome.warnings) is warned


def test_a_plain_head_is_scored_whatever_its_word_for_none(tmp_path: Path) -> None:
    objects = [altered(ds, ContrastBolusAgent="Ohne Kontrastmittel") for ds in head_study(SPEC).objects]
    assert _run(objects, tmp_path).outcome is not None
