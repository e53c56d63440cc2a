"""Why a series was not used, why a study was rejected, and what a reader should know about a score.

Codes are part of the public contract (``study_result.reason`` and ``.warnings``); each has one line for people in
:data:`firstread.codes.IMAGE_CODES`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Reason(StrEnum):
    """Why a series cannot be scored. Some are warnings instead where a person asked for the pipeline."""

    NO_IMAGES = "no_images"
    NOT_CT = "not_ct"
    NOT_A_HEAD = "not_a_head"
    LOCALIZER = "localizer"
    DERIVED = "derived"
    DOSE_REPORT = "dose_report"
    SECONDARY_CAPTURE = "secondary_capture"
    NOT_AXIAL = "not_axial"
    CONTRAST_AGENT = "contrast_agent"
    TOO_FEW_SLICES = "too_few_slices"
    MISSING_SLICES = "missing_slices"
    DUPLICATE_POSITIONS = "duplicate_positions"
    UNREADABLE_PIXEL_DATA = "unreadable_pixel_data"
    UNSUPPORTED_PHOTOMETRIC = "unsupported_photometric"
    RESCALE_MISSING = "rescale_missing"
    PICTURE_HAS_NO_HU = "picture_has_no_hu"
    NOT_A_RADIOGRAPH = "not_a_radiograph"
    NOT_A_CHEST = "not_a_chest"
    LATERAL_VIEW = "lateral_view"
    TOO_SMALL = "too_small"
    GREY_IMAGE = "grey_image"
    PICTURE_TOO_SMALL = "picture_too_small"
    NOT_A_SKIN_PHOTOGRAPH = "not_a_skin_photograph"
    NO_LESION_FOUND = "no_lesion_found"


class Caution(StrEnum):
    """What a reader should know about a score. A warning never hides the score."""

    DERIVED = "derived"
    SECONDARY_CAPTURE = "secondary_capture"
    NOT_AXIAL = "not_axial"
    CONTRAST_AGENT = "contrast_agent"
    TOO_FEW_SLICES = "too_few_slices"
    MISSING_SLICES = "missing_slices"
    DUPLICATE_POSITIONS = "duplicate_positions"
    RESCALE_MISSING = "rescale_missing"
    NOT_CT = "not_ct"
    HEAD_UNCERTAIN = "head_uncertain"
    VALUES_WINDOWED = "values_windowed"
    CONTRAST_SUSPECTED = "contrast_suspected"
    ARTEFACT_SUSPECTED = "artefact_suspected"
    INCOMPLETE_COVERAGE = "incomplete_coverage"
    UNREADABLE_SLICES = "unreadable_slices"
    GEOMETRY_MISSING = "geometry_missing"
    SPACING_UNKNOWN = "spacing_unknown"
    SLICES_AVERAGED = "slices_averaged"
    PATIENT_MISMATCH = "patient_mismatch"
    META_UID_MISMATCH = "meta_uid_mismatch"
    OUTSIDE_TRAINING_POPULATION = "outside_training_population"
    LOW_EVIDENCE = "low_evidence"
    FEW_FLAGS_RIGHT = "few_flags_right"
    CHEST_UNCERTAIN = "chest_uncertain"
    POLARITY_CORRECTED = "polarity_corrected"
    FOR_PROCESSING = "for_processing"
    WINDOW_NOT_USED = "window_not_used"
    BITS_CORRECTED = "bits_corrected"
    BITS_STORED_EXCEEDED = "bits_stored_exceeded"
    UNUSED_BITS = "unused_bits"
    COLOURS_ASSUMED = "colours_assumed"
    EXTRA_PIXEL_DATA = "extra_pixel_data"
    CONFOUNDED_BY_AGE = "confounded_by_age"
    JOINT_SCORE_MISSING = "joint_score_missing"
    NO_FLAG_FOR_AGE = "no_flag_for_age"
    HINT_FOR_AGE = "hint_for_age"
    HINT_ONLY = "hint_only"
    LOW_RESOLUTION = "low_resolution"
    PICTURES_LEFT_OUT = "pictures_left_out"
    NO_LESION_FOUND = "no_lesion_found"
    NOT_A_SKIN_PHOTOGRAPH = "not_a_skin_photograph"
    OTHER_MALIGNANCY = "other_malignancy"

    # Codes that intake or the worker's reading left with an instance or a study.
    SOP_CLASS_MISSING = "sop_class_missing"
    SOP_UID_MISSING = "sop_uid_missing"
    NO_TRANSFER_SYNTAX = "no_transfer_syntax"
    TRUNCATED = "truncated"
    LARGE_ELEMENT_SKIPPED = "large_element_skipped"
    INSTANCE_CHANGED = "instance_changed"
    IMAGES_EXPIRED = "images_expired"
    FILE_MISSING = "file_missing"
    UNREADABLE_HEADER = "unreadable_header"
    IDENTITY_CORRECTED = "identity_corrected"
    IDENTITY_IN_DOUBT = "identity_in_doubt"
    IMAGES_REJECTED = "images_rejected"
    OLD_STUDY = "old_study"
    DATE_IN_FUTURE = "date_in_future"


def merge_codes(*groups: Iterable[str] | None) -> list[str]:
    """Codes of several groups as plain strings, each once, in the order in which they first occur."""
    return list(dict.fromkeys(str(code) for group in groups for code in group or ()))


class Unsuitable(Exception):
    """Raised by ``interpret``: only the models could see that a series cannot be scored. The next one is tried."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = str(reason)
