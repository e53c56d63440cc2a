"""Why a series was not used, why a study was rejected, and what a reader should know about a score.

Codes are part of the public contract (``study_result.reason`` and ``.warnings``); each has one line for people.
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


TEXTS: dict[str, str] = {
    Reason.NO_IMAGES: "The study holds no images.",
    Reason.NOT_CT: "Not a CT image.",
    Reason.NOT_A_HEAD: "The pixels do not show a head.",
    Reason.LOCALIZER: "A localizer (scout, topogram), not a cross-section.",
    Reason.DERIVED: "A derived image, not a plain cross-section.",
    Reason.DOSE_REPORT: "A dose report.",
    Reason.SECONDARY_CAPTURE: "A Secondary Capture, not a CT object.",
    Reason.NOT_AXIAL: "Not an axial reconstruction.",
    Reason.CONTRAST_AGENT: "Acquired with a contrast agent; the models know plain scans.",
    Reason.TOO_FEW_SLICES: "Fewer slices than a head examination has.",
    Reason.MISSING_SLICES: "Slices are missing between others.",
    Reason.DUPLICATE_POSITIONS: "Several slices lie at one position.",
    Reason.UNREADABLE_PIXEL_DATA: "The pixel data cannot be decoded.",
    Reason.UNSUPPORTED_PHOTOMETRIC: "Not a grey-scale image.",
    Reason.RESCALE_MISSING: "No rescale to Hounsfield units.",
    Reason.PICTURE_HAS_NO_HU: "A picture without Hounsfield units cannot be scored as CT.",
    Reason.NOT_A_RADIOGRAPH: "Not a radiograph.",
    Reason.NOT_A_CHEST: "Not a frontal chest film, by its header or by its pixels.",
    Reason.LATERAL_VIEW: "A lateral view; the models know frontal ones.",
    Reason.TOO_SMALL: "An image with too few pixels.",
    Caution.HEAD_UNCERTAIN: "The pixels may not show a head.",
    Caution.VALUES_WINDOWED: "The values passed a display window: no air and no bone in Hounsfield units.",
    Caution.CONTRAST_SUSPECTED: "Vessels look filled with contrast agent, or the series' description names one, of "
    "which no element tells; the models know plain scans and may take it for blood.",
    Caution.ARTEFACT_SUSPECTED: "Streaks as of metal, or contours doubled as by movement: either may look like blood.",
    Caution.INCOMPLETE_COVERAGE: "The slices do not cover a whole head.",
    Caution.UNREADABLE_SLICES: "Some slices could not be read and were not scored; a finding may lie there.",
    Caution.GEOMETRY_MISSING: "No positions, or none that tell slices apart: they stand in the order of their numbers.",
    Caution.SPACING_UNKNOWN: "No spacing: volumes are not given.",
    Caution.SLICES_AVERAGED: "Thin slices were averaged to the thickness that the models know.",
    Caution.PATIENT_MISMATCH: "One Study Instance UID names two patients.",
    Caution.META_UID_MISMATCH: "File meta group and data set name different instances; the data set counts.",
    Caution.OUTSIDE_TRAINING_POPULATION: "The patient or the scan is outside what the model was trained on.",
    Caution.LOW_EVIDENCE: "The score is high, but the model marks no place for it.",
    Caution.FEW_FLAGS_RIGHT: "Of 20 flags of this model fewer than two are right, by its card and how rare the finding "
    "is, or by what was judged here. The flag asks for an early look and says no more.",
    Caution.CHEST_UNCERTAIN: "Header or pixels leave it in doubt that this is a frontal chest film.",
    Caution.POLARITY_CORRECTED: "The film was stored inverted, bright for air, and was turned round.",
    Caution.FOR_PROCESSING: "A raw detector image, not processed for display.",
    Caution.WINDOW_NOT_USED: "The film's window or look-up table leaves little of it to see and was not used.",
    Caution.BITS_CORRECTED: "The header's bits or sign cannot be right; what the pixels themselves show was taken.",
    Caution.BITS_STORED_EXCEEDED: "Values need more bits or a sign than the header says, and were read with them.",
    Caution.UNUSED_BITS: "Bits above those that hold the values are set; they were not read.",
    Caution.COLOURS_ASSUMED: "The header's colours contradict the pixel data, or are not said; the pixel data counted.",
    Caution.EXTRA_PIXEL_DATA: "There are more pixel data than the header says; the rest was not read.",
    Caution.CONFOUNDED_BY_AGE: (
        "COVID-19 was learnt from other hospitals and ages than most films without it: the model may tell these."
    ),
    Caution.JOINT_SCORE_MISSING: "The four-class model of the joint score is not active: the binary one stands alone.",
    Caution.NO_FLAG_FOR_AGE: "The model has no flag for patients of this age, or of unknown age: its score is compared "
    "with no threshold.",
    Caution.HINT_FOR_AGE: "Too few flags would be right in patients of this age, or of unknown age: the score is a "
    "hint and is compared with no threshold.",
    Caution.HINT_ONLY: "Too few flags would be right where the finding is as rare as the card says: the score is a "
    "hint and is compared with no threshold.",
    Reason.GREY_IMAGE: "A grey image: lesions are judged by their colours.",
    Reason.PICTURE_TOO_SMALL: "A picture with fewer pixels than the models need.",
    Reason.NOT_A_SKIN_PHOTOGRAPH: "Not a photograph of skin.",
    Reason.NO_LESION_FOUND: "No lesion can be outlined in the picture.",
    Caution.LOW_RESOLUTION: "A picture has fewer pixels than those that the model learnt from.",
    Caution.PICTURES_LEFT_OUT: "Some pictures of the study were not scored, or could not be read.",
    Caution.OTHER_MALIGNANCY: 'A basal-cell carcinoma or an actinic keratosis may lie behind "other".',
    Caution.SOP_CLASS_MISSING: "The data set names no SOP class; that of the file meta group counts.",
    Caution.SOP_UID_MISSING: "The data set names no instance; the file meta group does.",
    Caution.NO_TRANSFER_SYNTAX: "A file without a transfer syntax: its encoding was found by looking.",
    Caution.TRUNCATED: "A file ends before its pixel data do.",
    Caution.LARGE_ELEMENT_SKIPPED: "A very long element of the header was left unread.",
    Caution.INSTANCE_CHANGED: "An instance came again with other bytes; the newest is scored.",
    Caution.IMAGES_EXPIRED: "Earlier images of the study were removed by retention and are not scored again.",
    Caution.FILE_MISSING: "A received file is gone and was not scored.",
    Caution.IDENTITY_IN_DOUBT: "The department took images back for an incorrect worklist entry: they may be another "
    "patient's.",
    Caution.IMAGES_REJECTED: "The department took images of the study back.",
    Caution.IDENTITY_CORRECTED: "Patient or order were corrected after the images had been scored; scores and other "
    "warnings are those of the earlier identity.",
    Caution.UNREADABLE_HEADER: "A received file cannot be parsed any more and was not scored.",
    Caution.OLD_STUDY: "Made longer ago than FIRSTREAD_FRESH_H when it came: listed in summaries, not escalated.",
    Caution.DATE_IN_FUTURE: "The images have a date in the future: the scanner's clock or the time zone is wrong.",
}
"""One line of text for each code; a code that is both has one."""


def merge_codes(*groups: Iterable[str] | None) -> list[str]:
    """Codes of several groups as plain strings, each once, in the order in which they first occur."""
    return list(dict.fromkeys(str(code) for group in groups for code in group or ()))


class Unsuitable(Exception):
    """Raised by ``interpret``: only the models could see that a series cannot be scored. The next one is tried."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = str(reason)
