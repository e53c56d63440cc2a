"""CT objects around a volume of Hounsfield units: single-frame series, Enhanced multi-frame, localizer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from firstread.dicom.uids import stable_uid

IMPLEMENTATION_CLASS_UID = UID(stable_uid("firstread", "implementation"))


@dataclass(frozen=True)
class CtLabels:
    """Who and what a phantom claims to be. Equal labels give equal UIDs."""

    seed: int = 0
    kind: str = "HEAD"
    study: str = "1"
    series: str = "1"
    description: str = "PHANTOM HEAD 5MM"
    patient: str = ""
    body_part: str = "HEAD"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    contrast: str = ""
    kernel: str = "H30s"
    age: str = "060Y"
    accession: str = ""

    @property
    def patient_id(self) -> str:
        """Patient ID, made of kind and seed unless one is given."""
        return self.patient or f"PHANTOM-{self.kind}-{self.seed:05d}"

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID, the same for the same labels."""
        return stable_uid("study", self.kind, self.seed, self.study)

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID, the same for the same labels."""
        return stable_uid(self.study_uid, "series", self.series)


@dataclass(frozen=True)
class CtGrid:
    """Positions of the voxels. ``tilt_deg`` tilts the gantry about the patient's left-right axis."""

    spacing_mm: float
    step_mm: float
    thickness_mm: float
    first_mm: float = 0.0
    tilt_deg: float = 0.0

    def orientation(self) -> list[float]:
        """ImageOrientationPatient: direction cosines of rows and columns (PS3.3 C.7.6.2.1.1)."""
        angle = np.radians(self.tilt_deg)
        return [1.0, 0.0, 0.0, 0.0, round(float(np.cos(angle)), 6), round(float(-np.sin(angle)), 6)]

    def position(self, index: int, rows: int, columns: int) -> list[float]:
        """ImagePositionPatient of slice ``index`` in mm: centre of the first voxel (PS3.3 C.7.6.2.1.1)."""
        corner = -self.spacing_mm * (columns - 1) / 2, -self.spacing_mm * (rows - 1) / 2
        return [round(corner[0], 4), round(corner[1], 4), round(self.first_mm + index * self.step_mm, 4)]


def ct_series(hu: np.ndarray, grid: CtGrid, labels: CtLabels, signed: bool = False) -> list[Dataset]:
    """CT Image Storage objects of a volume (PS3.3 A.3), foot to head.

    Parameters
    ----------
    hu : ndarray, shape (n, H, W)
        Hounsfield units, -1024 to 3071.
    signed : bool
        Store HU as signed 16 bits with intercept 0 (and -2000 outside the field as padding, as GE does) instead of
        unsigned 12 bits with intercept -1024.

    Returns
    -------
    list of Dataset
        Complete, with file meta, ready for ``save_as``.
    """
    objects = []
    for index, plane in enumerate(hu):
        ds = _common(labels, CTImageStorage, f"{labels.series}-{index}")
        _describe_pixels(ds, plane.shape, signed)
        ds.ImageType = list(labels.image_type)
        ds.InstanceNumber = index + 1
        ds.ImagePositionPatient = grid.position(index, *plane.shape)
        ds.ImageOrientationPatient = grid.orientation()
        ds.PixelSpacing = [grid.spacing_mm, grid.spacing_mm]
        ds.SliceThickness = grid.thickness_mm
        ds.SliceLocation = ds.ImagePositionPatient[2]
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = (0 if signed else -1024), 1, "HU"
        ds.ConvolutionKernel = labels.kernel
        ds.GantryDetectorTilt = grid.tilt_deg
        if signed:
            ds.PixelPaddingValue = -2000
        ds.PixelData = _stored(plane, signed).tobytes()
        objects.append(ds)
    return objects


def enhanced_ct(hu: np.ndarray, grid: CtGrid, labels: CtLabels, order: list[int] | None = None) -> Dataset:
    """One Enhanced CT object (PS3.3 A.38) with a frame a slice, in ``order`` of frames (by default foot to head)."""
    ds = _common(labels, EnhancedCTImageStorage, f"{labels.series}-enhanced")
    _describe_pixels(ds, hu.shape[1:], signed=False)
    indices = list(range(len(hu))) if order is None else order
    ds.NumberOfFrames = len(indices)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.InstanceNumber = 1
    shared, measures, plane, transform, kind = (Dataset() for _ in range(5))
    measures.PixelSpacing, measures.SliceThickness = [grid.spacing_mm, grid.spacing_mm], grid.thickness_mm
    plane.ImageOrientationPatient = grid.orientation()
    transform.RescaleIntercept, transform.RescaleSlope, transform.RescaleType = -1024, 1, "HU"
    kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([plane])
    shared.PixelValueTransformationSequence = Sequence([transform])
    shared.CTImageFrameTypeSequence = Sequence([kind])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for index in indices:
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = grid.position(index, *hu.shape[1:])
        group.PlanePositionSequence = Sequence([place])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    ds.PixelData = b"".join(_stored(hu[index], False).tobytes() for index in indices)
    return ds


def localizer(hu: np.ndarray, grid: CtGrid, labels: CtLabels) -> Dataset:
    """A lateral scout view: the volume's mean from the side, as the object that scanners send first."""
    view = hu.mean(axis=2)[::-1]
    own = replace(labels, series=f"{labels.series}-scout", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    (ds,) = ct_series(view[None], grid, own)
    ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    ds.SeriesDescription = "SCOUT"
    return ds


def secondary_capture(labels: CtLabels, size: int = 64) -> Dataset:
    """A screenshot, of the kind that dose sheets and protocol pages are."""
    ds = _common(replace(labels, series=f"{labels.series}-sc"), SecondaryCaptureImageStorage, "sc")
    _describe_pixels(ds, (size, size), signed=False)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType = "WSD"
    ds.InstanceNumber = 1
    ds.SeriesDescription = "DOSE REPORT"
    ds.PixelData = np.tile(np.arange(size, dtype=np.uint8), (size, 1)).tobytes()
    return ds


def write_series(objects: list[Dataset], folder: Path) -> list[Path]:
    """Save objects as ``0001.dcm``, ``0002.dcm`` ... below ``folder``; the paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.dcm" for number in range(1, len(objects) + 1)]
    for ds, path in zip(objects, paths, strict=True):
        ds.save_as(path, enforce_file_format=True)
    return paths


def file_meta(sop_class: str, sop_uid: str, syntax: str = ExplicitVRLittleEndian) -> FileMetaDataset:
    """File meta group of our own objects (PS3.10 section 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(sop_uid)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    return meta


def _common(labels: CtLabels, sop_class: str, instance: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = UID(sop_class), UID(stable_uid(labels.study_uid, "instance", instance))
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID(labels.study_uid), UID(labels.series_uid)
    ds.FrameOfReferenceUID = UID(stable_uid(labels.study_uid, "frame of reference"))
    ds.file_meta = file_meta(sop_class, ds.SOPInstanceUID)
    ds.StudyDate = ds.StudyTime = ds.ContentDate = ds.ContentTime = (
        ""  # equal arguments, equal bytes; never an old study
    )
    ds.AccessionNumber = labels.accession or f"P{labels.seed:07d}"
    ds.Modality, ds.Manufacturer, ds.StationName = "CT", "Firstread phantom", "PHANTOM"
    ds.ManufacturerModelName, ds.ReferringPhysicianName = "formula", ""
    ds.SeriesDescription, ds.StudyDescription = labels.description, f"PHANTOM {labels.kind}"
    ds.PatientName, ds.PatientID = f"PHANTOM^{labels.kind}^{labels.seed}", labels.patient_id
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "", "O", labels.age
    ds.BodyPartExamined, ds.PatientPosition = labels.body_part, "HFS"
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber = str(labels.seed), 1, 1
    ds.PositionReferenceIndicator, ds.KVP = "", 120
    if labels.contrast:
        ds.ContrastBolusAgent = labels.contrast
    return ds


def _describe_pixels(ds: Dataset, shape: tuple[int, ...], signed: bool) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = int(shape[0]), int(shape[1])
    ds.BitsAllocated, ds.PixelRepresentation = 16, int(signed)
    ds.BitsStored, ds.HighBit = (16, 15) if signed else (12, 11)


def _stored(plane: np.ndarray, signed: bool) -> np.ndarray:
    hu = np.rint(np.clip(plane, -1024, 3071))
    if not signed:
        return np.asarray((hu + 1024).astype("<u2"))
    rows, columns = plane.shape
    y, x = np.ogrid[:rows, :columns]
    outside = np.hypot(y - (rows - 1) / 2, x - (columns - 1) / 2) > max(rows, columns) / 2
    return np.asarray(np.where(outside, -2000, hu).astype("<i2"))
