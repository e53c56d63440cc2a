"""Is a candidate series a head in Hounsfield units? Its headers first, then its pixels, which are decoded here."""

from __future__ import annotations

from typing import Final

import numpy as np

from worker.pipelines.base import Details, Gate, Series, StudyImages
from worker.pipelines.head_ct.checks import cautions_of
from worker.pipelines.head_ct.hounsfield import Decoded, HounsfieldVolume, decode
from worker.pipelines.head_ct.likeness import display_window_of, likeness_of
from worker.pipelines.head_ct.stack import MIN_SLICES, HeadStack
from worker.pipelines.reasons import Caution, Reason, merge_codes
from worker.pipelines.unread import sentence

MAX_MISSING_SHARE: Final = 0.15
MIN_COVERAGE_MM: Final = 80.0
_ASSUMED_FIELD_MM: Final = 240.0
_ASSUMED_STEP_MM: Final = 5.0


def gate(study: StudyImages, series: Series[HeadStack]) -> Gate[HounsfieldVolume]:
    """Reasons against scoring this series, or its Hounsfield units.

    Where a person asked for the pipeline, few slices, gaps, contrast and a missing rescale become warnings, as long as
    the values look like Hounsfield units. Slices that cannot be read are left out; where they are too many for a
    negative, ``interpret`` refuses what does not flag.
    """
    head = series.images
    reasons, warnings = _by_header(head)
    if study.forced:
        warnings += reasons
        reasons = []
    if reasons:
        return Gate(tuple(reasons), tuple(merge_codes(head.cautions, warnings)))
    decoded = decode(head, study.forced)
    reason = decoded.reason
    details: Details = {}
    more: list[str] = []
    if decoded.volume is not None:
        reason, more, details = _by_pixels(decoded.volume, study.forced)
    codes = merge_codes(head.cautions, decoded.cautions, warnings, decoded.warnings, more)
    if reason is not None:
        return Gate((str(reason),), tuple(codes), _unread(decoded))
    return Gate((), tuple(codes), _unread(decoded), decoded.volume, details)


def _by_pixels(volume: HounsfieldVolume, forced: bool) -> tuple[Reason | None, list[str], Details]:
    likeness = likeness_of(volume.hu, _pixel_mm(volume))
    details: Details = {"head_slices": likeness.rings}
    warnings: list[str] = []
    if display_window_of(volume.hu) is not None:
        warnings.append(Caution.VALUES_WINDOWED)
    cautions = cautions_of(volume.hu, _pixel_mm(volume), volume.step_mm or _ASSUMED_STEP_MM)
    warnings += [code for code in cautions if code != Caution.CONTRAST_SUSPECTED or not volume.head.contrast]
    if likeness.certain:
        return None, warnings, details
    if likeness.possible(forced):
        return None, [*warnings, Caution.HEAD_UNCERTAIN], details
    reason = Reason.UNREADABLE_PIXEL_DATA if volume.too_much_unread else Reason.NOT_A_HEAD
    return reason, warnings, details


def _unread(decoded: Decoded) -> str:
    if not decoded.unread:
        return ""
    return sentence(decoded.n_read + len(decoded.unread), "slices", [entry.cause for entry in decoded.unread])


def _by_header(head: HeadStack) -> tuple[list[str], list[str]]:
    reasons: list[str] = []
    warnings: list[str] = []
    n, stack = len(head.slices) + len(head.unread), head.stack
    if head.contrast:
        reasons.append(Reason.CONTRAST_AGENT)
    elif head.described == "given":
        warnings.append(Caution.CONTRAST_SUSPECTED)
    if n < MIN_SLICES:
        reasons.append(Reason.TOO_FEW_SLICES)
    elif stack.coverage_mm is not None and stack.coverage_mm < MIN_COVERAGE_MM:
        warnings.append(Caution.INCOMPLETE_COVERAGE)
    if stack.missing:
        too_many = stack.missing > MAX_MISSING_SHARE * (n + stack.missing)
        (reasons if too_many else warnings).append(Reason.MISSING_SLICES)
    return [str(code) for code in reasons], [str(code) for code in warnings]


def _pixel_mm(volume: HounsfieldVolume) -> float:
    pixel_mm = volume.grid.pixel_mm
    if pixel_mm is not None:
        return float(np.sqrt(pixel_mm[0] * pixel_mm[1]))
    return _ASSUMED_FIELD_MM / float(max(volume.hu.shape[1:]))
