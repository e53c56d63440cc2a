"""Real images through the head-CT pipeline: each ends as a result or a reason. Synthetic ones: ``head_ct/``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firstread.dicom.files import UnusableFile, read_header
from firstread.dicom.frames import frames_of
from firstread.dicom.pixels.hounsfield import padding_of, to_hu
from firstread.dicom.pixels.reading import layout_of, read_frame
from tests.builders.study_images import ThresholdEngine, head_card, served, study_of
from worker.pipelines.registry import row
from worker.pipelines.runner import RunResult, run

ROOT = os.environ.get("FIRSTREAD_TEST_DATA", "")
DATA = Path(ROOT) if ROOT else Path("unset")
pytestmark = pytest.mark.skipif(not ROOT, reason="FIRSTREAD_TEST_DATA is not set: real images are left out")

RSNA = sorted((DATA / "head_ct/rsna_dicom").rglob("*.dcm"))
CAPTURES = sorted((DATA / "head_ct/ct_ich_dicom").rglob("*.dcm"))
ZOO = sorted((DATA / "dicom_zoo").rglob("*.dcm"))


def _run(path: Path, forced: bool) -> RunResult:
    return run(row("head_ct"), study_of([path], forced), served(head_card()), ThresholdEngine())


@pytest.mark.parametrize("path", RSNA, ids=lambda path: path.stem)
def test_rsna_slices(path: Path) -> None:
    header = read_header(path)
    assert header.SOPInstanceUID.startswith("ID_")
    assert {"meta_uid_mismatch", "sop_class_missing"} <= set(header.warnings)
    assert _run(path, forced=False).reasons == ("too_few_slices",)
    outcome = _run(path, forced=True).outcome
    assert outcome is not None and {"too_few_slices", "meta_uid_mismatch"} <= set(outcome.warnings)


@pytest.mark.parametrize("path", [*RSNA, *CAPTURES], ids=lambda path: path.stem)
def test_heads_are_in_hounsfield_units(path: Path) -> None:
    instance = study_of([path]).instances[0]
    layout = layout_of(instance.ds)
    line = frames_of(instance.ds)[0].rescale
    stored = read_frame(path)
    hu = to_hu(stored, line, layout, padding_of(instance.ds, layout)) if line else stored
    tissue = hu[(hu > 0) & (hu < 80)]
    assert hu.min() >= -1024 and hu.max() > 500
    assert 20 < tissue.mean() < 50 and tissue.size > 0.05 * hu.size


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_captures_with_hu_are_scored_where_asked_for(path: Path) -> None:
    outcome = _run(path, forced=True).outcome
    assert outcome is not None
    assert {"secondary_capture", "rescale_missing", "too_few_slices"} <= set(outcome.warnings)
    assert _run(path, forced=False).reasons == ("not_ct",)


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
@pytest.mark.parametrize("forced", [False, True], ids=["sent", "asked"])
def test_the_zoo_ends_in_reasons(path: Path, forced: bool) -> None:
    try:
        read_header(path)
    except UnusableFile as error:
        assert (path.stem, error.reason) == ("JLSL_16_15_1_1F", "missing_uids")
        return
    result = _run(path, forced)
    if path.stem == "693_J2KI" and forced:
        assert result.outcome is not None
    elif path.stem == "CT_small" and forced:
        assert result.outcome is None or "head_uncertain" in result.outcome.warnings
    else:
        assert result.outcome is None and result.reasons


def test_the_plastic_head_is_not_scored_and_its_scouts_are_noted() -> None:
    paths = sorted((DATA / "dicom_zoo/philips_head_phantom").glob("*.dcm"))
    result = run(row("head_ct"), study_of(paths), served(head_card()), ThresholdEngine())
    assert result.outcome is None
    assert "localizer" in {reason for note in result.notes for reason in note.reasons}
    assert {"too_few_slices", "localizer"} <= set(result.reasons)
