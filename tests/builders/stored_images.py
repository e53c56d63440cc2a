"""Images of one study that carry a patient's name, and what stores them in the spool."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
)

from firstread.dicom.uids import stable_uid
from firstread.settings import Settings
from firstread.storage.spool import Spool

SECRET_NAME = "Nachtigall^Florentine"
SECRET_ID = "MRN-7771234"


def image_header(kind: str, number: int, study_uid: str) -> Dataset:
    """Header of one 64x64 image of a head CT (``ct``), chest film (``dx``), photograph (``xc``) or picture (``sc``)."""
    ds = Dataset()
    ds.SOPClassUID = {
        "ct": CTImageStorage,
        "dx": DigitalXRayImageStorageForPresentation,
        "xc": VLPhotographicImageStorage,
        "sc": SecondaryCaptureImageStorage,
    }[kind]
    ds.SOPInstanceUID = stable_uid(study_uid, "image", number)
    ds.StudyInstanceUID = study_uid
    ds.SeriesInstanceUID = stable_uid(study_uid, "series")
    ds.Modality = {"ct": "CT", "dx": "DX", "xc": "XC", "sc": "OT"}[kind]
    ds.PatientName = SECRET_NAME
    ds.PatientID = SECRET_ID
    ds.PatientBirthDate = "19500102"
    ds.PatientSex = "F"
    ds.PatientAge = "076Y"
    ds.StudyDate = "20261120"
    ds.StudyTime = "081500"
    ds.StudyID = "S1"
    ds.AccessionNumber = "A-100"
    ds.ReferringPhysicianName = "Storch^Adele"
    ds.InstitutionName = "Klinik am See"
    ds.Manufacturer = "ACME"
    ds.StationName = "CT1"
    ds.InstanceNumber = number
    ds.Rows = ds.Columns = 64
    ds.SamplesPerPixel = 3 if kind == "xc" else 1
    ds.PhotometricInterpretation = "RGB" if kind == "xc" else "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 if kind == "xc" else 16
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = 0
    if kind == "xc":
        ds.PlanarConfiguration = 0
    if kind == "ct":
        ds.FrameOfReferenceUID = stable_uid(study_uid, "frame")
        ds.PositionReferenceIndicator = ""
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-32.0, -32.0, 5.0 * number]
        ds.PixelSpacing = [1.0, 1.0]
        ds.SliceThickness = 5.0
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    if kind == "dx":
        ds.PatientOrientation = ["L", "F"]
        ds.ViewPosition = "PA"
    return ds


def spool_image(settings: Settings, ds: Dataset, number: int) -> tuple[str, str, int]:
    """Give an image random pixels and spool it; returns key, digest and size in bytes."""
    samples = int(ds.SamplesPerPixel)
    rng = np.random.default_rng(number)
    dtype = np.uint8 if ds.BitsAllocated == 8 else np.uint16
    shape = (int(ds.get("NumberOfFrames", 1) or 1), ds.Rows, ds.Columns, samples)
    ds.PixelData = rng.integers(0, 200, shape).astype(dtype).tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=False, implicit_vr=False, little_endian=True)
    data = bytes(128) + b"DICM" + buffer.getvalue().removeprefix(bytes(128) + b"DICM")
    return spool_bytes(settings, data)


def spool_bytes(settings: Settings, data: bytes) -> tuple[str, str, int]:
    """Write a file into the spool; returns its key, digest and size in bytes."""
    with Spool(settings.spool_dir).create() as (key, file):
        file.write(data)
    return key, hashlib.sha256(data).hexdigest(), len(data)
