"""The key image with its heat map as a colour Secondary Capture, in a frame that says what it is."""

from __future__ import annotations

import cv2
import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from firstread.dicom.frames import frames_of
from firstread.dicom.uids import is_standard_uid
from firstread.findings import MAIN_FINDINGS
from worker.outputs.objects.codes import meaning_of
from worker.outputs.objects.finishing import NOT_FOR_DIAGNOSIS, common_arguments, finish
from worker.outputs.objects.source import NotWritten, Source

TEMPLATE_VERSION = 1
"""To be raised with every change of what this object says or how: a test compares the bytes of fixed results."""

MIN_WIDTH = 512
MARGIN = 34
BANNER = 30
FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE, AMBER, BLACK = (255, 255, 255), (255, 191, 0), 0

BODY_PARTS = {"head_ct": "HEAD", "chest_xray": "CHEST"}
"""Unpaired ones (PS3.16 annex L), for which Laterality (PS3.3 C.7.3.1) has no meaning."""

SIDED = ("head_ct", "chest_xray")

_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "H": "F", "F": "H"}


def make_capture(source: Source) -> Dataset:
    """A colour Secondary Capture of the evidence picture with side markers and a banner.

    Raises
    ------
    NotWritten
        Where the job left no picture.
    """
    picture = source.picture()
    if picture is None:
        raise NotWritten("no_picture")
    orientation = display_orientation(source.pipeline, source.header, source.key_frame)
    framed = frame_picture(picture, sides_of(orientation), _lines(source, orientation))
    header = source.header
    made = hd.sc.SCImage(
        pixel_array=framed,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=orientation or ("L", "P"),
        study_instance_uid=source.study.study_instance_uid,
        patient_id=header.PatientID,
        patient_name=header.PatientName,
        patient_birth_date=header.PatientBirthDate or None,
        patient_sex=header.PatientSex or None,
        accession_number=header.AccessionNumber,
        study_id=header.StudyID,
        study_date=header.StudyDate or None,
        study_time=header.StudyTime or None,
        referring_physician_name=header.ReferringPhysicianName,
        **common_arguments(source, "sc", TEMPLATE_VERSION),
    )
    if orientation is None:
        del made.PatientOrientation
        made.add_new("PatientOrientation", "CS", None)
    made.BodyPartExamined = BODY_PARTS.get(source.pipeline, "")
    if not made.BodyPartExamined:
        made.Laterality = ""
    made.ConversionType = "WSD"
    made.BurnedInAnnotation = "NO"
    made.DerivationDescription = NOT_FOR_DIAGNOSIS
    made.ImageComments = NOT_FOR_DIAGNOSIS
    if is_standard_uid(source.key.sop_instance_uid) and is_standard_uid(source.key.sop_class_uid):
        item = Dataset()
        item.ReferencedSOPClassUID = source.key.sop_class_uid
        item.ReferencedSOPInstanceUID = source.key.sop_instance_uid
        made.SourceImageSequence = [item]
    return finish(made, source, "sc", TEMPLATE_VERSION)


def _lines(source: Source, orientation: tuple[str, str] | None) -> list[str]:
    main = MAIN_FINDINGS.get(source.pipeline)
    shown = [f for f in source.findings if f.finding == main] or source.findings[:1]
    finding = shown[0]
    lines = []
    if finding.probability is not None:
        text = f"{meaning_of(finding.finding)}: {finding.probability:.2f}"
        if finding.threshold is not None:
            text += f" (threshold {finding.threshold:.2f}) - {'FLAGGED' if finding.flagged else 'not flagged'}"
        lines.append(text)
    lines.append(f"{finding.model_name} {finding.model_version}")
    if orientation is None and source.pipeline in SIDED:
        lines.append("The header does not say which side is which.")
    return lines


def display_orientation(pipeline: str, header: Dataset, frame: int) -> tuple[str, str] | None:
    """Where rows and columns of the evidence picture point to (PatientOrientation, PS3.3 C.7.6.1.1.1).

    Pipelines turn what they show into the usual display, the patient's right at the left, by what the header says of
    the stored image. None where the header says nothing, and for photographs: no side is marked then.
    """
    if pipeline == "head_ct":
        frames = frames_of(header)
        known = frames[min(max(0, frame - 1), len(frames) - 1)].ImageOrientationPatient
        return ("L", "P") if known is not None else None
    value = header.get("PatientOrientation")
    if pipeline != "chest_xray" or value is None or isinstance(value, str) or len(value) != 2:
        return None
    axes = {str(part)[:1].upper() for part in value}
    return ("L", "F") if axes & {"L", "R"} and axes & {"H", "F"} else None


def sides_of(orientation: tuple[str, str] | None) -> tuple[str, str, str, str] | None:
    """Letters for the left, right, upper and lower edge of the picture; None where they are not known."""
    if orientation is None:
        return None
    row, column = orientation
    return _OPPOSITE[row], row, _OPPOSITE[column], column


def frame_picture(picture: np.ndarray, sides: tuple[str, str, str, str] | None, lines: list[str]) -> np.ndarray:
    """Put a picture into a black frame: banner above, side letters at the edges, lines of text below.

    Parameters
    ----------
    picture : ndarray
        (H, W, 3) uint8.
    sides : tuple of str or None
        Letters of the left, right, upper and lower edge.

    Returns
    -------
    ndarray
        (H', W', 3) uint8, at least ``MIN_WIDTH`` wide so that the words can be read.
    """
    if picture.shape[1] < MIN_WIDTH:
        factor = MIN_WIDTH / picture.shape[1]
        size = (MIN_WIDTH, max(1, round(picture.shape[0] * factor)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
    height, width = picture.shape[:2]
    foot = BANNER * (len(lines) + 1)
    out = np.full((BANNER + MARGIN + height + MARGIN + foot, width + 2 * MARGIN, 3), BLACK, np.uint8)
    top = BANNER + MARGIN
    out[top : top + height, MARGIN : MARGIN + width] = picture
    _write(out, NOT_FOR_DIAGNOSIS, (6, BANNER - 9), AMBER)
    for row, line in enumerate([*lines, NOT_FOR_DIAGNOSIS]):
        _write(out, line, (6, top + height + MARGIN + BANNER * (row + 1) - 10), AMBER if row == len(lines) else WHITE)
    if sides is not None:
        left, right, upper, lower = sides
        middle = (top + height // 2, MARGIN + width // 2)
        for letter, (y, x) in (
            (left, (middle[0], 6)),
            (right, (middle[0], MARGIN + width + 6)),
            (upper, (BANNER + MARGIN - 8, middle[1])),
            (lower, (top + height + MARGIN - 8, middle[1])),
        ):
            cv2.putText(out, letter, (x, y), FONT, 0.9, WHITE, 2, cv2.LINE_AA)
    return out


def _write(out: np.ndarray, line: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """One line of text, made smaller until it fits."""
    scale = 0.6
    while scale > 0.3 and cv2.getTextSize(line, FONT, scale, 1)[0][0] > out.shape[1] - 12:
        scale -= 0.05
    cv2.putText(out, line, at, FONT, scale, colour, 1, cv2.LINE_AA)
