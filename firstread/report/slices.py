"""The scored slices of a job as small images with the outline of the mask."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session

from firstread.dicom.datasets import UnusableFile, read_dataset
from firstread.dicom.frames import Frame, frames_of
from firstread.dicom.geometry import turn_of
from firstread.dicom.pixels.hounsfield import padding_of, to_hu
from firstread.dicom.pixels.lookup import palette_rgb
from firstread.dicom.pixels.reading import UnreadablePixels, layout_of, read_frame
from firstread.dicom.values import PARSE_ERRORS
from firstread.records import Instance, Job, SliceScoreRow
from firstread.records.slice_scores import leading_scores
from firstread.report.evidence import mask_of, renumbering
from firstread.settings import Settings
from firstread.storage.store import spool_of

THUMBNAIL_PX = 192
MOST_SLICES = 60
MOST_SUSPICIOUS = 12
"""Of the frames shown; the rest is an even choice."""

BRAIN_WINDOW = (0.0, 80.0)
OUTLINE = (255, 60, 60)


@dataclass(frozen=True)
class Thumbnail:
    """A scored frame: position in the series from 1, probability of the leading finding, and the picture as a URI."""

    number: int
    probability: float
    uri: str
    masked: bool


def data_uri(image: np.ndarray) -> str:
    """An RGB picture (H, W, 3) of uint8 as a JPEG in a data URI."""
    done, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError("picture not encoded")
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode('ascii')}"


def file_uri(path: Path) -> str:
    """A PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def slices_of(session: Session, settings: Settings, job: Job) -> tuple[list[Thumbnail], int]:
    """Thumbnails of the scored frames, in the order of scoring, and how many frames could not be shown.

    Of a long series every n-th frame is shown, and the most suspicious ones.
    """
    scores = session.scalars(leading_scores(job).order_by(SliceScoreRow.id)).all()
    renumbered = renumbering(session, job) if job.carried_from is not None else None
    mask_and_keys = mask_of(settings, job.evidence_path, renumbered)
    masks = dict(zip(mask_and_keys[1], mask_and_keys[0], strict=True)) if mask_and_keys else {}
    headers: dict[int, Dataset | None] = {}
    thumbnails, missing = [], 0
    for position in choose_frames(len(scores), [row.probability for row in scores]):
        row = scores[position]
        path = spool_of(settings).path(session.get_one(Instance, row.instance_id).spool_key)
        if row.instance_id not in headers:
            headers[row.instance_id] = _header(path)
        header = headers[row.instance_id]
        mask = masks.get((row.instance_id, row.frame))
        image = None if header is None else thumbnail(path, header, row.frame, mask)
        if image is None:
            missing += 1
            continue
        masked = mask is not None and bool(mask.any())
        thumbnails.append(Thumbnail(position + 1, row.probability, data_uri(image), masked))
    return thumbnails, missing


def choose_frames(count: int, probabilities: list[float]) -> list[int]:
    """Indices of the frames that are shown: all, or an even choice and the ``MOST_SUSPICIOUS`` most suspicious ones."""
    if count <= MOST_SLICES:
        return list(range(count))
    even = np.linspace(0, count - 1, MOST_SLICES - MOST_SUSPICIOUS).round().astype(int)
    top = np.argsort(probabilities)[-MOST_SUSPICIOUS:]
    return sorted({int(i) for i in even} | {int(i) for i in top})


def _header(path: Path) -> Dataset | None:
    try:
        return read_dataset(path)
    except (UnusableFile, OSError, *PARSE_ERRORS):
        return None


def thumbnail(
    path: Path, ds: Dataset, frame_number: int, mask: np.ndarray | None, *, longest_px: int = THUMBNAIL_PX
) -> np.ndarray | None:
    """A frame as a small RGB picture in display orientation, the mask outlined; None where it cannot be read.

    Parameters
    ----------
    ds : Dataset
        Header of the file.
    frame_number : int
        From 1; 0 for a file of one image.
    mask : ndarray or None
        (H, W) of bool, in the stored orientation.

    Returns
    -------
    ndarray or None
        (h, w, 3) uint8, the longer side ``longest_px``.
    """
    try:
        frames = frames_of(ds)
        frame = frames[min(max(0, frame_number - 1), len(frames) - 1)]
        stored = read_frame(path, frame.index)
        if stored.ndim == 2 and layout_of(ds).photometric == "PALETTE COLOR":
            stored = palette_rgb(ds, stored)
            stored = stored if stored.dtype == np.uint8 else (stored >> 8).astype(np.uint8)
        rgb = stored if stored.ndim == 3 else cv2.cvtColor(_grey(ds, frame, stored), cv2.COLOR_GRAY2RGB)
    except (UnreadablePixels, UnusableFile, OSError, *PARSE_ERRORS):
        return None
    outlines: Sequence[np.ndarray] = []
    if mask is not None and mask.shape == rgb.shape[:2]:
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    factor = longest_px / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    small = cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_AREA)
    for outline in outlines:
        cv2.polylines(small, [np.round(outline * factor).astype(np.int32)], True, OUTLINE, 1, cv2.LINE_AA)
    if str(ds.get("Modality", "")) != "CT":
        return np.asarray(small)
    turn = turn_of(frame.ImageOrientationPatient)
    turned: np.ndarray = np.ascontiguousarray(np.moveaxis(turn.apply(np.moveaxis(small, -1, 0)), 0, -1))
    return turned


def _grey(ds: Dataset, frame: Frame, stored: np.ndarray) -> np.ndarray:
    """Grey levels as (H, W) uint8: the brain window of Hounsfield units, else the middle 99 % of the values."""
    layout = layout_of(ds)
    if frame.rescale is not None and str(ds.get("Modality", "")) == "CT":
        values = to_hu(stored, frame.rescale, layout, padding_of(ds, layout))
        low, high = BRAIN_WINDOW
    else:
        values = stored.astype(np.float32)
        low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    grey = np.clip((values - low) * (255.0 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)
    return 255 - grey if layout.photometric == "MONOCHROME1" else grey
