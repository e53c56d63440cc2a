"""Which series of a study is the plain axial head CT, and in which order its slices lie.

Policy, the first that tells two candidates apart: without contrast agent, by its elements and then by its description;
not labelled as another body part; original before derived; soft before sharp kernel; enough slices; a thickness that
the models know (3 to 6 mm; then thinner, which is averaged; then thicker); more slices; the lower UID.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from firstread.dicom.contrast import described, has_contrast
from firstread.dicom.frames import Frame, frames_of
from firstread.dicom.geometry import plane_of, turn_of
from firstread.dicom.modality import CT_CLASSES
from firstread.dicom.values import number, text
from worker.pipelines.base import Details, Lost, Selection, Series, SeriesNote, StoredInstance, StudyImages
from worker.pipelines.head_ct.slice_order import arrange, fill_holes, group_slices, locate_lost, twins_of, with_places
from worker.pipelines.head_ct.stack import MIN_SLICES, HeadStack, Slice, Unread
from worker.pipelines.reasons import Caution, Reason, merge_codes

_DOSE_SR: Final = ("1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.74")
_SC_ROOT: Final = "1.2.840.10008.5.1.4.1.1.7"
UNSEEN: Final = {
    Reason.NO_IMAGES: "no Rows or Columns",
    Reason.UNSUPPORTED_PHOTOMETRIC: "not a grey-scale image",
}
"""Of a CT image in a hole of its series: what is wrong with it, in words."""

_SCOUT_WORDS: Final = ("LOCALIZER", "SCOUT", "SURVIEW", "TOPOGRAM", "SCANOGRAM")
_DERIVED_WORDS: Final = (
    *("MIP", "MINIP", "MAXIMUM", "MINIMUM", "PROJECTION", "VOLUME RENDERED", "VRT", "3D", "CURVED", "SUBTRACT"),
    *("PERFUSION", "RCBF", "RCBV", "CBF", "CBV", "MTT", "TTP", "TMAX", "RGB", "SCREEN SAVE", "CINE"),
)
_PLAIN_DERIVED: Final = ("AXIAL", "REFORMATTED", "AVERAGE", "MEAN", "MPR", "VOLUME", "RESAMPLED")
_OTHER_PARTS: Final = (
    "CHEST",
    "ABDOMEN",
    "PELVIS",
    "SPINE",
    "THORAX",
    "LUNG",
    "LIVER",
    "PANCREAS",
    "NECK",
    "EXTREMITY",
)
_SHARP_WORDS: Final = ("BONE", "EDGE", "LUNG", "SHARP", "DETAIL")


def select(study: StudyImages) -> Selection[HeadStack]:
    """Candidate series, the best first, and a note on every series of the study."""
    by_series: dict[str, list[StoredInstance]] = defaultdict(list)
    for instance in study.instances:
        by_series[instance.SeriesInstanceUID].append(instance)
    candidates: list[tuple[Rank, Series[HeadStack]]] = []
    notes: list[SeriesNote] = []
    for uid, instances in sorted(by_series.items()):
        lost = [entry for entry in study.lost if entry.SeriesInstanceUID == uid]
        of_series, reasons = _candidates(uid, instances, lost, study.forced)
        candidates.extend(of_series)
        notes.append(SeriesNote(uid, bool(of_series), tuple(reasons), len(instances)))
    candidates.sort(key=lambda entry: entry[0])
    return Selection(tuple(series for _, series in candidates), tuple(notes))


def _candidates(
    uid: str, instances: list[StoredInstance], lost: Sequence[Lost], forced: bool
) -> tuple[list[tuple[Rank, Series[HeadStack]]], list[str]]:
    reasons: list[str] = []
    slices: list[Slice] = []
    unseen: list[tuple[Slice, str]] = []
    cautions: dict[tuple[int, int], set[str]] = {}
    for instance in instances:
        reason, doubts = _left_aside(instance, forced)
        if reason is not None:
            reasons.append(reason)
            if instance.SOPClassUID in CT_CLASSES and reason in UNSEEN:
                unseen += [(Slice(instance, frame), UNSEEN[reason]) for frame in frames_of(instance.ds)]
            continue
        agent = has_contrast(instance.ds)
        for frame in frames_of(instance.ds):
            why = _frame_left_aside(frame)
            caution = set(doubts)
            if why is None and plane_of(frame.ImageOrientationPatient) not in (None, "axial"):
                why = Reason.NOT_AXIAL
            if why is not None and not (forced and why in (Reason.NOT_AXIAL, Reason.DERIVED)):
                reasons.append(why)
                continue
            if why is not None:
                caution.add(str(why))
            entry = Slice(instance, frame, agent if frame.contrast is None else frame.contrast)
            slices.append(entry)
            cautions[instance.key, frame.number] = caution
    out = []
    groups = group_slices(slices)
    for place, group in enumerate(groups):
        others = groups[:place] + groups[place + 1 :]
        head = _head_stack(*fill_holes(group, others, unseen), lost, forced)
        if isinstance(head, Reason):
            reasons.append(head)
            continue
        doubts = {code for entry in head.slices for code in cautions[entry.instance.key, entry.frame.number]}
        head = replace(head, cautions=tuple(sorted(doubts.union(head.cautions))))
        used = tuple({entry.instance.key: entry.instance for entry in head.slices}.values())
        out.append((_rank(uid, head), Series(uid, used, head, _details(head))))
    return out, merge_codes(reasons)


def _left_aside(instance: StoredInstance, forced: bool) -> tuple[Reason | None, set[str]]:
    """Why an object cannot be a slice of a plain head CT, or what is doubtful about it where it was asked for."""
    ds, sop_class = instance.ds, instance.SOPClassUID
    words = text(ds, "ImageType").upper()
    modality = text(ds, "Modality", 16).upper()
    if sop_class in _DOSE_SR:
        return Reason.DOSE_REPORT, set()
    if not number(ds, "Rows") or not number(ds, "Columns"):
        return Reason.NO_IMAGES, set()
    if any(word in words for word in _SCOUT_WORDS):
        return Reason.LOCALIZER, set()
    is_ct = sop_class in CT_CLASSES
    grey = text(ds, "PhotometricInterpretation").upper() in ("MONOCHROME1", "MONOCHROME2", "")
    if not is_ct and (not grey or (number(ds, "BitsStored") or 16) <= 8):
        if forced:
            return Reason.PICTURE_HAS_NO_HU, set()
        dose = "DOSE" in text(ds, "SeriesDescription").upper() or "DOSE" in words
        capture = Reason.SECONDARY_CAPTURE if sop_class.startswith(_SC_ROOT) else Reason.NOT_CT
        return (Reason.DOSE_REPORT if dose else capture), set()
    if modality not in ("CT", "OT", "SC", "") or (modality != "CT" and not is_ct and not forced):
        return Reason.NOT_CT, set()
    if not grey:
        return Reason.UNSUPPORTED_PHOTOMETRIC, set()
    if is_ct:
        return None, set()
    if not forced:
        return (Reason.SECONDARY_CAPTURE if sop_class.startswith(_SC_ROOT) else Reason.NOT_CT), set()
    return None, {Caution.SECONDARY_CAPTURE if sop_class.startswith(_SC_ROOT) else Caution.NOT_CT}


def _frame_left_aside(frame: Frame) -> Reason | None:
    kind = frame.FrameType
    if any(word in part for part in kind for word in _SCOUT_WORDS):
        return Reason.LOCALIZER
    if any(word in part for part in kind for word in _DERIVED_WORDS):
        return Reason.DERIVED
    # Lossy compression makes an axial slice DERIVED\PRIMARY, and scanners call their own thick axial averages
    # DERIVED\SECONDARY\...: both are what a radiologist reads.
    if (
        kind[:1] == ("DERIVED",)
        and kind[1:2] == ("SECONDARY",)
        and not any(word in part for part in kind[2:] for word in _PLAIN_DERIVED)
    ):
        return Reason.DERIVED
    return None


def _head_stack(slices: list[Slice], unread: list[Unread], lost: Sequence[Lost], forced: bool) -> HeadStack | Reason:
    arrangement = arrange(slices, forced)
    if isinstance(arrangement, Reason):
        return arrangement
    unread = [*unread, *locate_lost(lost, arrangement.slices, arrangement.stack)]
    ordered = tuple(arrangement.slices[i] for i in arrangement.stack.order)
    known = [entry.frame for entry in ordered if entry.frame.ImageOrientationPatient is not None]
    spacings = [entry.frame.PixelSpacing for entry in ordered if entry.frame.PixelSpacing is not None]
    return HeadStack(
        slices=ordered,
        stack=with_places(arrangement.stack, unread),
        turn=turn_of(known[len(known) // 2].ImageOrientationPatient if known else None),
        PixelSpacing=tuple(float(mm) for mm in np.median(spacings, axis=0)) if spacings else None,
        contrast=any(entry.contrast for entry in ordered),
        described=described(text(ordered[0].instance.ds, "SeriesDescription", 64)),
        cautions=tuple(sorted(arrangement.cautions)),
        twins=twins_of(arrangement.slices, arrangement.stack),
        unread=tuple(unread),
    )


def _details(head: HeadStack) -> Details:
    return {
        "n_slices": len(head.slices),
        "thickness_mm": head.thickness_mm,
        "spacing_mm": head.stack.spacing_mm,
        "coverage_mm": head.stack.coverage_mm,
        "pixel_mm": head.PixelSpacing[0] if head.PixelSpacing else None,
        "missing_slices": head.stack.missing,
        "duplicates": len(head.stack.duplicates),
        "contrast": head.contrast,
    }


Rank = tuple[bool, bool, bool, bool, bool, bool, int, int, str]


def _rank(SeriesInstanceUID: str, head: HeadStack) -> Rank:
    ds = head.slices[0].instance.ds
    part = text(ds, "BodyPartExamined", 64).upper()
    thickness = max(head.thickness_mm or 0.0, head.stack.spacing_mm or 0.0)
    class_of_thickness = 0 if 3.0 <= thickness <= 6.0 else 1 if thickness < 3.0 else 2
    return (
        head.contrast,
        head.described != "none",
        any(word in part for word in _OTHER_PARTS),
        head.slices[0].frame.FrameType[:1] == ("DERIVED",),
        _sharp(text(ds, "ConvolutionKernel", 64)),
        len(head.slices) < MIN_SLICES,
        class_of_thickness,
        -len(head.slices),
        SeriesInstanceUID,
    )


def _sharp(kernel: str) -> bool:
    """Whether a kernel's name means edges: words, or Siemens' letter and number of 50 and more (``H60s``)."""
    name = kernel.upper()
    digits = "".join(c for c in name.split("\\")[0] if c.isdigit())[:2]
    siemens = name[:1] in "HBJU" and len(digits) == 2 and int(digits) >= 50
    return siemens or any(word in name for word in _SHARP_WORDS)
