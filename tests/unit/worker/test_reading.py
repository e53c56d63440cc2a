"""A file is parsed once in the worker: scoring reads frames from what routing has parsed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from firstread.dicom import datasets
from firstread.dicom.datasets import read_content
from firstread.dicom.pixels.reading import iter_frames
from firstread.phantoms.ct import CtLabels, enhanced_ct
from firstread.phantoms.head import HeadSpec, head_grid, head_study
from firstread.records import Database
from firstread.settings import Settings
from firstread.storage.spool import Spool
from tests.builders.closed_revisions import put_revision
from tests.builders.routed_study import encoded
from tests.builders.study_images import ThresholdEngine, head_card, served
from worker.pipelines.base import StudyImages
from worker.pipelines.registry import row
from worker.pipelines.runner import run
from worker.reading import read_study


def _objects(kind: str) -> list[Dataset]:
    spec = HeadSpec(slices=40, size=128, bleed="intraparenchymal")
    phantom = head_study(spec)
    if kind.startswith("enhanced"):
        objects = [enhanced_ct(phantom.hu, head_grid(spec), CtLabels())]
    else:
        objects = list(phantom.objects)
    syntax = {"RLE": RLELossless, "JPEG-LS": JPEGLSLossless}.get(kind.rpartition(" ")[2])
    return encoded(objects, syntax) if syntax else objects


def _without_content(study: StudyImages) -> StudyImages:
    return replace(study, instances=tuple(replace(i, content=None) for i in study.instances))


@pytest.mark.parametrize("kind", ["native", "RLE", "JPEG-LS", "enhanced native", "enhanced RLE"])
def test_each_file_is_parsed_once_and_gives_the_same(
    kind: str, sqlite_db: Database, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    revision_id = put_revision(sqlite_db, settings, _objects(kind))
    parsed: Counter[str] = Counter()
    read_body = datasets._read_body

    def counted(fp: Any, *args: Any) -> datasets.Content:
        parsed[fp.name] += 1
        return read_body(fp, *args)

    monkeypatch.setattr(datasets, "_read_body", counted)
    study = read_study(sqlite_db, Spool(settings.spool_dir), revision_id)
    outcome = run(row("head_ct"), study, served(head_card()), ThresholdEngine()).outcome
    assert set(parsed.values()) == {1} and len(parsed) == len(study.instances)
    again = run(row("head_ct"), _without_content(study), served(head_card()), ThresholdEngine()).outcome
    assert set(parsed.values()) != {1}
    assert outcome is not None and again is not None
    assert outcome.findings == again.findings and outcome.slice_scores == again.slice_scores
    masks = outcome.evidence.mask, again.evidence.mask
    assert masks[0] is not None and masks[1] is not None and np.array_equal(masks[0], masks[1])


def test_what_is_in_hand_is_not_believed_of_a_file_that_changed(
    sqlite_db: Database, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings()
    plain = _objects("native")[:2]
    spool = Spool(settings.spool_dir)
    study = read_study(sqlite_db, spool, put_revision(sqlite_db, settings, plain))
    first, second = study.instances
    assert first.content is not None
    expected = next(iter_frames(second.path))
    first.path.write_bytes(second.path.read_bytes() + b"\0" * 8)
    assert np.array_equal(next(iter_frames(first.path, content=first.content)), expected)


def test_a_deflated_file_is_inflated_anew(sqlite_db: Database, make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    (ds,) = _objects("native")[:1]
    expected = ds.pixel_array
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    study = read_study(sqlite_db, Spool(settings.spool_dir), put_revision(sqlite_db, settings, [ds]))
    (instance,) = study.instances
    content = read_content(instance.path)
    assert content.is_deflated
    assert np.array_equal(next(iter_frames(instance.path, content=content)), expected)
