"""Which pictures of a study are photographs of skin, by their headers."""

from __future__ import annotations

from typing import Final

from firstread.dicom.frames import Frame, frames_of
from firstread.dicom.modality import COLOUR, DERMOSCOPIC, VL_PHOTOGRAPHIC, modality_of
from firstread.dicom.values import number, text
from worker.pipelines.base import Selection, Series, SeriesNote, StoredInstance, StudyImages
from worker.pipelines.dermoscopy.header import other_organ, other_organ_described
from worker.pipelines.dermoscopy.photographs import PhotographCandidate
from worker.pipelines.reasons import Reason

PHOTOGRAPHS: Final = frozenset({VL_PHOTOGRAPHIC, DERMOSCOPIC, "1.2.840.10008.5.1.4.1.1.77.1"})
"""VL Photographic Image Storage, Dermoscopic Photography Image Storage, VL Image Storage - Trial."""

COLOUR_CAPTURES: Final = frozenset({"1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.4"})
"""Secondary Capture Image Storage, Multi-frame True Color Secondary Capture Image Storage."""

MODALITIES: Final = frozenset({"XC", "DMS"})
"""Photographs from outside of the body; OT, SC and ES are only taken where somebody asked for it."""


def select(study: StudyImages) -> Selection[tuple[PhotographCandidate, ...]]:
    """All colour photographs of a study as one candidate: a lesion's pictures often lie in series of their own.

    The notes say of each series what kept it out. What a person asked for is only kept out where it is not a picture.
    """
    by_series: dict[str, list[StoredInstance]] = {}
    for instance in study.instances:
        by_series.setdefault(instance.SeriesInstanceUID, []).append(instance)
    pictures: list[PhotographCandidate] = []
    notes = []
    for uid, instances in by_series.items():
        reasons: list[str] = []
        count = len(pictures)
        for instance in sorted(instances, key=_order):
            reason = unsuitable(instance, study.forced)
            if reason is None:
                pictures.extend(_frames(instance))
            else:
                reasons.append(str(reason))
        taken = len(pictures) > count
        notes.append(SeriesNote(uid, taken, tuple(dict.fromkeys(reasons)), len(instances)))
    if not pictures:
        return Selection((), tuple(notes))
    used = {picture.instance.key for picture in pictures}
    series = Series(
        pictures[0].instance.SeriesInstanceUID,
        tuple(instance for instance in study.instances if instance.key in used),
        tuple(pictures),
        {"n_pictures": len(pictures)},
    )
    return Selection((series,), tuple(notes))


def unsuitable(instance: StoredInstance, forced: bool) -> Reason | None:
    """Why an object is no photograph of skin, as far as its header says.

    What a person asked for is only refused for sure signs, such as an organ that the header names.
    """
    ds = instance.ds
    if number(ds, "Rows") is None or number(ds, "Columns") is None:
        return Reason.NO_IMAGES
    if text(ds, "PhotometricInterpretation", 32).upper() not in COLOUR:
        return Reason.GREY_IMAGE
    if other_organ(ds):
        return Reason.NOT_A_SKIN_PHOTOGRAPH
    if forced:
        return None
    is_photograph = instance.SOPClassUID in PHOTOGRAPHS | COLOUR_CAPTURES
    from_outside = modality_of(text(ds, "Modality", 16), instance.SOPClassUID) in MODALITIES
    is_dermoscopic = instance.SOPClassUID == DERMOSCOPIC
    if not is_photograph or not (from_outside or is_dermoscopic) or other_organ_described(ds):
        return Reason.NOT_A_SKIN_PHOTOGRAPH
    return None


def _order(instance: StoredInstance) -> tuple[float, str]:
    order = number(instance.ds, "InstanceNumber")
    return (float("inf") if order is None else order, instance.SOPInstanceUID)


def _frames(instance: StoredInstance) -> list[PhotographCandidate]:
    shape = (int(number(instance.ds, "Rows") or 0), int(number(instance.ds, "Columns") or 0))
    return [PhotographCandidate(instance, frame, shape, _spacing(frame)) for frame in frames_of(instance.ds)]


def _spacing(frame: Frame) -> tuple[float, float] | None:
    return None if frame.PixelSpacing is None else (frame.PixelSpacing[0], frame.PixelSpacing[1])
