"""Which series of a study is the plain axial head CT, and in which order its slices lie.

Policy, the first that tells two candidates apart: without contrast agent, by its elements and then by its description;
not labelled as another body part; original before derived; soft before sharp kernel; enough slices; a thickness that
the models know (3 to 6 mm; then thinner, which is averaged; then thicker); more slices; the lower UID.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from pydicom.dataset import Dataset

from firstread.dicom.contrast import has_contrast, says_none
from firstread.dicom.datasets import number, text
from firstread.dicom.frames import Frame, frames_of
from firstread.dicom.geometry import Stack, plane_of, stack_of, turn_of
from firstread.dicom.modality import CT_CLASSES
from firstread.dicom.numbers import integer
from worker.pipelines.base import Instance, Selection, Series, SeriesNote, Study
from worker.pipelines.head_ct_stack import HeadStack, Slice
from worker.pipelines.reasons import Caution, Reason

MIN_SLICES: Final = 8
_DOSE_SR: Final = ("1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.74")
_SC_ROOT: Final = "1.2.840.10008.5.1.4.1.1.7"
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
_CONTRAST_WORDS: Final = frozenset({"CTA", "ANGIO", "POST", "CE", "C+", "+C", "CONTRAST", "VENOUS", "ARTERIAL"})
_SHARP_WORDS: Final = ("BONE", "EDGE", "LUNG", "SHARP", "DETAIL")


def select(study: Study) -> Selection:
    """Candidate series, the best first, and a note on every series of the study."""
    by_series: dict[str, list[Instance]] = defaultdict(list)
    for instance in study.instances:
        by_series[instance.SeriesInstanceUID].append(instance)
    candidates: list[tuple[tuple[Any, ...], Series]] = []
    notes: list[SeriesNote] = []
    for uid, instances in sorted(by_series.items()):
        found, reasons = _candidates(uid, instances, study.forced)
        candidates.extend(found)
        notes.append(SeriesNote(uid, bool(found), tuple(reasons), len(instances)))
    candidates.sort(key=lambda entry: entry[0])
    return Selection(tuple(series for _, series in candidates), tuple(notes))


def _candidates(
    uid: str, instances: list[Instance], forced: bool
) -> tuple[list[tuple[tuple[Any, ...], Series]], list[str]]:
    reasons: list[str] = []
    groups: dict[tuple[Any, ...], list[Slice]] = defaultdict(list)
    cautions: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for instance in instances:
        reason, found = _left_aside(instance, forced)
        if reason is not None:
            reasons.append(reason)
            continue
        agent = has_contrast(instance.ds)
        for frame in frames_of(instance.ds):
            why = _frame_left_aside(frame)
            plane = plane_of(frame.ImageOrientationPatient)
            caution = set(found)
            if why is None and plane not in (None, "axial"):
                why = Reason.NOT_AXIAL
            if why is not None and not (forced and why in (Reason.NOT_AXIAL, Reason.DERIVED)):
                reasons.append(why)
                continue
            if why is not None:
                caution.add(str(why))
            contrast = agent if frame.contrast is None else frame.contrast
            key = _group_key(instance.ds, frame, contrast)
            groups[key].append(Slice(instance, frame, contrast))
            cautions[key] |= caution
    out = []
    for key, slices in groups.items():
        made = _series(uid, slices, cautions[key], forced)
        if isinstance(made, Series):
            out.append((_rank(made), made))
        else:
            reasons.append(made)
    return out, list(dict.fromkeys(str(reason) for reason in reasons))


def _left_aside(instance: Instance, forced: bool) -> tuple[Reason | None, set[str]]:
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


def _group_key(ds: Dataset, frame: Frame, contrast: bool) -> tuple[Any, ...]:
    orientation = frame.ImageOrientationPatient
    spacing = frame.PixelSpacing
    return (
        None if orientation is None else tuple(round(c, 2) for c in orientation),
        None if spacing is None else tuple(round(mm, 3) for mm in spacing),
        number(ds, "Rows"),
        number(ds, "Columns"),
        text(ds, "ConvolutionKernel", 64),
        contrast,
        frame.FrameType[:1],
    )


def _series(uid: str, slices: list[Slice], cautions: Iterable[str], forced: bool) -> Series | Reason:
    stack = _stacked(slices)
    notes = set(cautions)
    if len(stack.duplicates) > 0.2 * len(slices):
        # Two acquisitions under one series: the larger is taken. A series of phases stays ambiguous.
        slices = _largest_acquisition(slices)
        stack = _stacked(slices)
        notes.add(Caution.DUPLICATE_POSITIONS)
        if len(stack.duplicates) > 0.2 * len(slices) and not forced:
            return Reason.DUPLICATE_POSITIONS
    if stack.duplicates:
        notes.add(Caution.DUPLICATE_POSITIONS)
    if stack.position_mm is None:
        notes.add(Caution.GEOMETRY_MISSING)
    first = slices[0]
    ordered = tuple(slices[i] for i in stack.order)
    head = HeadStack(
        slices=ordered,
        stack=stack,
        turn=turn_of(first.frame.ImageOrientationPatient),
        PixelSpacing=first.frame.PixelSpacing,
        contrast=first.contrast,
        cautions=sorted(notes),
    )
    instances = list({entry.instance.key: entry.instance for entry in ordered}.values())
    return Series(uid, instances, pixels=head, details=_details(head))


def _stacked(slices: list[Slice]) -> Stack:
    located = [number(s.instance.ds, "SliceLocation") for s in slices]
    has_positions = all(s.frame.ImagePositionPatient is not None for s in slices)
    keys = [(integer(s.instance.ds, "InstanceNumber") or 0, s.frame.number) for s in slices]
    rank = {key: float(i) for i, key in enumerate(sorted(set(keys)))}
    fallback = [rank[key] for key in keys]
    if not has_positions and len(slices) > 1 and all(place is not None for place in located):
        fallback = [float(place) for place in located if place is not None]
    return stack_of(
        [s.frame.ImagePositionPatient for s in slices],
        [s.frame.ImageOrientationPatient for s in slices],
        fallback,
        [s.frame.SliceThickness for s in slices],
    )


def _largest_acquisition(slices: list[Slice]) -> list[Slice]:
    groups: dict[str, list[Slice]] = defaultdict(list)
    for entry in slices:
        groups[text(entry.instance.ds, "AcquisitionNumber", 16)].append(entry)
    return max(groups.items(), key=lambda group: (len(group[1]), group[0]))[1]


def _details(head: HeadStack) -> dict[str, Any]:
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


def _rank(series: Series) -> tuple[Any, ...]:
    head: HeadStack = series.pixels
    ds = head.slices[0].instance.ds
    part = text(ds, "BodyPartExamined", 64).upper()
    thickness = max(head.thickness_mm or 0.0, head.stack.spacing_mm or 0.0)
    class_of_thickness = 0 if 3.0 <= thickness <= 6.0 else 1 if thickness < 3.0 else 2
    return (
        head.contrast,
        _described_as_contrast(text(ds, "SeriesDescription", 64)),
        any(word in part for word in _OTHER_PARTS),
        head.slices[0].frame.FrameType[:1] == ("DERIVED",),
        _sharp(text(ds, "ConvolutionKernel", 64)),
        len(head.slices) < MIN_SLICES,
        class_of_thickness,
        -len(head.slices),
        series.SeriesInstanceUID,
    )


def _described_as_contrast(description: str) -> bool:
    """Descriptions lie too often to refuse a series for one, but of two series the plainer is taken."""
    words = "".join(c if c.isalnum() or c in "+/" else " " for c in description.upper()).split()
    marked = {i for i, word in enumerate(words) if word in _CONTRAST_WORDS}
    denied = {i for i in marked for k in (1, 2) if i >= k and says_none(" ".join(words[i - k : i + 1]))}
    return bool(marked - denied)


def _sharp(kernel: str) -> bool:
    """Whether a kernel's name means edges: words, or Siemens' letter and number of 50 and more (``H60s``)."""
    name = kernel.upper()
    digits = "".join(c for c in name.split("\\")[0] if c.isdigit())[:2]
    siemens = name[:1] in "HBJU" and len(digits) == 2 and int(digits) >= 50
    return siemens or any(word in name for word in _SHARP_WORDS)
