"""The evidence picture as a colour Secondary Capture, with the finding written below.

The picture has its side letters and the notice that it is not for diagnosis already.
"""

from __future__ import annotations

import cv2
import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from firstread.dicom.frames import frames_of
from firstread.dicom.uids import is_standard_uid
from firstread.pipelines import described, leading_finding, meaning_of
from firstread.report.words import HINT, is_hint, percent, series_title
from worker.outputs.objects.finishing import common_arguments, finish_object
from worker.outputs.objects.source import NotWritten, ObjectSource

TEMPLATE_VERSION = 2
"""To be raised with every change of what this object says or how: a test compares the bytes of fixed results."""

MIN_WIDTH = 512
LINE = 28
FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE, AMBER = (255, 255, 255), (255, 191, 0)


def make_capture(source: ObjectSource) -> Dataset:
    """A colour Secondary Capture of the evidence picture with lines of text below.

    Raises
    ------
    NotWritten
        Where the job left no picture.
    """
    picture = source.picture()
    if picture is None:
        raise NotWritten("no_picture")
    orientation = display_orientation(source.pipeline, source.header, source.key_frame)
    framed = frame_picture(picture, _lines(source, orientation))
    header = source.header
    capture = hd.sc.SCImage(
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
        del capture.PatientOrientation
        capture.add_new("PatientOrientation", "CS", None)
    pipeline = described(source.pipeline)
    capture.BodyPartExamined = "" if pipeline is None else pipeline.body_part
    if not capture.BodyPartExamined:
        capture.Laterality = ""
    capture.ConversionType = "WSD"
    capture.BurnedInAnnotation = "NO"
    capture.DerivationDescription = "Key image with what the model looked at"
    capture.ImageComments = series_title(source.pipeline, "sc")
    if is_standard_uid(source.key.sop_instance_uid) and is_standard_uid(source.key.sop_class_uid):
        item = Dataset()
        item.ReferencedSOPClassUID = source.key.sop_class_uid
        item.ReferencedSOPInstanceUID = source.key.sop_instance_uid
        capture.SourceImageSequence = [item]
    return finish_object(capture, source, "sc", TEMPLATE_VERSION)


def _lines(source: ObjectSource, orientation: tuple[str, str] | None) -> list[str]:
    main = leading_finding(source.pipeline)
    finding = next((f for f in source.findings if f.finding == main), source.findings[0])
    lines = []
    if finding.probability is not None:
        text = f"{meaning_of(finding.finding)}: {percent(finding.probability)} %"
        if finding.threshold is not None:
            text += f" (threshold {percent(finding.threshold)} %) - {'FLAGGED' if finding.flagged else 'not flagged'}"
        elif is_hint(source.pipeline, finding):
            text += f" - {HINT}"
        lines.append(text)
    lines.append(f"Firstread, {finding.model_name} {finding.model_version}")
    pipeline = described(source.pipeline)
    if orientation is None and pipeline is not None and pipeline.sides_from is not None:
        lines.append("The header does not say which side is which.")
    return lines


def display_orientation(pipeline: str, header: Dataset, frame: int) -> tuple[str, str] | None:
    """Where rows and columns of the evidence picture point to (PatientOrientation, PS3.3 C.7.6.1.1.1).

    Pipelines turn what they show into the usual display, the patient's right at the left, by what the header says of
    the stored image. None where the header says nothing, and for photographs: no side is marked then.
    """
    known = described(pipeline)
    sides_from = None if known is None else known.sides_from
    if sides_from == "ImageOrientationPatient":
        frames = frames_of(header)
        orientation = frames[min(max(0, frame - 1), len(frames) - 1)].ImageOrientationPatient
        return ("L", "P") if orientation is not None else None
    value = header.get("PatientOrientation")
    if sides_from != "PatientOrientation" or value is None or isinstance(value, str) or len(value) != 2:
        return None
    axes = {str(part)[:1].upper() for part in value}
    return ("L", "F") if axes & {"L", "R"} and axes & {"H", "F"} else None


def frame_picture(picture: np.ndarray, lines: list[str]) -> np.ndarray:
    """A picture with lines of text below.

    Parameters
    ----------
    picture : ndarray
        (H, W, 3) uint8.

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
    out = np.zeros((height + LINE * len(lines) + 6, width, 3), np.uint8)
    out[:height] = picture
    for row, line in enumerate(lines):
        _write(out, line, (8, height + LINE * (row + 1) - 8), AMBER if row == 0 else WHITE)
    return out


def _write(out: np.ndarray, line: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """One line of text, made smaller until it fits."""
    scale = 0.6
    while scale > 0.3 and cv2.getTextSize(line, FONT, scale, 1)[0][0] > out.shape[1] - 12:
        scale -= 0.05
    cv2.putText(out, line, at, FONT, scale, colour, 1, cv2.LINE_AA)
