"""The mask of a bleed or a lesion as a DICOM Segmentation on its own source images."""

from __future__ import annotations

from copy import deepcopy

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from firstread.dicom.geometry import normal_of
from firstread.dicom.values import decimal_string
from firstread.pipelines import described
from firstread.records import Instance, Result
from firstread.report.words import series_title
from worker.outputs.objects.codes import code_of
from worker.outputs.objects.finishing import algorithm, common_arguments, finish_object
from worker.outputs.objects.source import NotWritten, ObjectSource

TEMPLATE_VERSION = 2
"""To be raised with every change of what this object says or how: a test compares the bytes of fixed results."""

UNKNOWN_THICKNESS_MM = 1.0
"""Where neither thickness nor spacing is known."""


def make_segmentation(source: ObjectSource) -> Dataset:
    """A binary Segmentation of the frames on which the mask is not empty.

    Raises
    ------
    NotWritten
        Where there is no mask, nothing in it, or the source has no geometry.
    """
    pipeline = described(source.pipeline)
    outlined = None if pipeline is None else pipeline.outline
    mask_and_keys = source.mask() if outlined is not None else None
    if outlined is None or mask_and_keys is None:
        raise NotWritten("no_mask")
    source.check_references()
    images, planes = _planes(source, *mask_and_keys)
    if len(images) > 1 and "FrameOfReferenceUID" not in images[0]:
        raise NotWritten("no_frame_of_reference")
    thicknesses = _complete(source, images) if outlined.in_space else []
    model = _model(source)
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=outlined.label,
        segmented_property_category=hd.sr.CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure"),
        segmented_property_type=code_of(outlined.type_concept),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm(model.model_name, model.model_version),
        anatomic_regions=[code_of(outlined.region)],
        tracking_uid=source.uid("seg", "tracking"),
        tracking_id=f"{outlined.label} 1",
    )
    segmentation = hd.seg.Segmentation(
        source_images=images,
        pixel_array=planes,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        content_label="OUTLINE",
        content_description=series_title(source.pipeline, "seg"),
        content_creator_name=None,
        **common_arguments(source, "seg", TEMPLATE_VERSION),
    )
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = source.uid("seg", "dimensions")
    if len(set(thicknesses)) > 1:
        _set_thickness(
            segmentation, dict(zip((str(image.SOPInstanceUID) for image in images), thicknesses, strict=True))
        )
    if "FrameOfReferenceUID" not in images[0]:
        segmentation.PatientOrientation = images[0].get("PatientOrientation")
    return finish_object(segmentation, source, "seg", TEMPLATE_VERSION)


def _complete(source: ObjectSource, images: list[Dataset]) -> list[float]:
    """Thickness of each single-frame slice, put where the header has none: that of the series, else its spacing.

    Raises
    ------
    NotWritten
        Where a slice does not say where it lies.
    """
    if "PerFrameFunctionalGroupsSequence" in images[0]:
        return []
    known = source.job.statistics
    usual = known.get("thickness_mm") or known.get("spacing_mm") or UNKNOWN_THICKNESS_MM
    for image in images:
        if any(keyword not in image for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")):
            raise NotWritten("no_geometry")
        if normal_of(image.ImageOrientationPatient) is None:
            raise NotWritten("no_geometry")
        if "SliceThickness" not in image:
            image.SliceThickness = decimal_string(float(usual))
    return [float(image.SliceThickness) for image in images]


def _set_thickness(segmentation: Dataset, thickness_mm: dict[str, float]) -> None:
    """Pixel Measures of each frame's own source (PS3.3 C.7.6.16.2.1) in place of the first source's for all."""
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    del segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        own = deepcopy(measures)
        uid = str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        own[0].SliceThickness = decimal_string(thickness_mm[uid])
        group.PixelMeasuresSequence = own


def _model(source: ObjectSource) -> Result:
    """The result whose model made the mask."""
    pipeline = described(source.pipeline)
    on_mask = {term.name for term in pipeline.measures if term.from_outline} if pipeline is not None else set()
    by_mask = [f for f in source.findings if f.finding in on_mask]
    return (by_mask or source.findings)[0]


def _planes(source: ObjectSource, mask: np.ndarray, keys: list[tuple[int, int]]) -> tuple[list[Dataset], np.ndarray]:
    """Headers of the sources, and the planes of the mask that belong to them, shape (n, H, W) of uint8."""
    rows = {image.id: image for image in source.images}
    filled = [
        (rows[key], frame, plane) for (key, frame), plane in zip(keys, mask, strict=True) if key in rows and plane.any()
    ]
    if not filled:
        raise NotWritten("empty_mask")
    n_frames = int(source.header_of(filled[0][0]).get("NumberOfFrames") or 1)
    if n_frames > 1:
        return [source.header_of(filled[0][0])], _all_frames(filled, n_frames)
    headers = [deepcopy(source.header_of(image)) for image, _, _ in filled]  # a thickness may be added to them
    for header in headers:
        _check_size(header, filled[0][2])
    return headers, np.stack([plane for _, _, plane in filled]).astype(np.uint8)


def _all_frames(filled: list[tuple[Instance, int, np.ndarray]], n_frames: int) -> np.ndarray:
    if len({image.id for image, _, _ in filled}) > 1:
        raise NotWritten("several_multiframe_sources")
    out = np.zeros((n_frames, *filled[0][2].shape), np.uint8)
    for _, frame, plane in filled:
        if not 1 <= frame <= n_frames:
            raise NotWritten("mask_mismatch")
        out[frame - 1] = plane
    return out


def _check_size(header: Dataset, plane: np.ndarray) -> None:
    if (header.get("Rows"), header.get("Columns")) != plane.shape:
        raise NotWritten("mask_mismatch")
