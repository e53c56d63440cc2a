"""The cases of the demonstration: public pictures as DICOM objects, and what is known of each.

The pictures and their tables stand in ``demo/``; its README says where they come from and what is assumed. What the
models say of them is shown as it is: nobody trains on them, and no threshold is chosen on them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ComputedRadiographyImageStorage, JPEGBaseline8Bit

from firstread.dicom.uids import stable_uid
from firstread.phantoms.ct import CtGrid, CtLabels, ct_series, file_meta
from firstread.phantoms.head import Bleed, HeadSpec, head_study
from firstread.phantoms.lesion import lesion_photograph
from firstread.settings import shipped_dir
from firstread_cli.demo.system import DemoFailed

PIXEL_MM = 0.72
SLICE_MM = 5.0
NOMINAL_GEOMETRY = (
    f"Geometry is nominal ({PIXEL_MM} mm a pixel, {SLICE_MM:g} mm a slice), not measured: volumes are no measurements."
)
CHILD_AGE = "004Y"
"""Patient's Age of a child whose age is not given: Kermany's are one to five years old."""

DRAWN_BLEEDS: tuple[Bleed | None, ...] = ("intraparenchymal", None, "subdural", "epidural", None)
BLEED_KINDS: tuple[Bleed, ...] = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")


@dataclass(frozen=True)
class DemoCase:
    """A study of the demonstration.

    Attributes
    ----------
    truth : str
        What is known of it, in the words of its table.
    positives : mapping of str to bool
        Whether a finding is there, of those of which that is known.
    files, licence : str
        The pictures it is made of, and their licence; both empty for a drawn one.
    nominal : bool
        Whether lengths and volumes of it are assumed.
    by_inbox : bool
        Whether it goes in by the inbox, else by C-STORE.
    """

    name: str
    truth: str
    positives: Mapping[str, bool]
    objects: Sequence[Dataset]
    files: str = ""
    licence: str = ""
    nominal: bool = False
    by_inbox: bool = False

    @property
    def StudyInstanceUID(self) -> str:
        """That of the objects."""
        return str(self.objects[0].StudyInstanceUID)

    @property
    def age(self) -> str:
        """Patient's Age of the objects; empty where it is not known."""
        return str(self.objects[0].get("PatientAge") or "")


def demo_cases(drawn_heads: int = 0) -> list[DemoCase]:
    """All cases: real heads, real films, a drawn lesion, and as many drawn heads as asked for.

    Raises
    ------
    DemoFailed
        If this installation does not carry the pictures.
    """
    folder = shipped_dir("demo")
    heads = sorted((folder / "head_ct").glob("*/labels.csv"))
    if not heads:
        raise DemoFailed("the pictures of the demonstration are not part of this installation")
    return [
        *(head_case(path.parent) for path in heads),
        *film_cases(folder / "chest_xray"),
        drawn_lesion(),
        *(drawn_head(number) for number in range(1, drawn_heads + 1)),
    ]


def table_rows(folder: Path) -> list[dict[str, str]]:
    """Rows of the folder's ``labels.csv``."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def hounsfield(brain: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """Hounsfield units of a slice from its two windows.

    Parameters
    ----------
    brain : ndarray of uint8, shape (H, W)
        Level 40, width 120.
    bone : ndarray of uint8, any shape
        Level 700, width 3200, of the same field of view; it serves where the brain picture is saturated.

    Returns
    -------
    ndarray of float32, shape (H, W)
        -900 to 2300; to about 15 HU where the bone picture serves.
    """
    rows, columns = brain.shape
    wide = cv2.resize(bone.astype(np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR) * 12.55 - 900.0
    narrow = brain.astype(np.float32) / 2.125 - 20.0
    return np.asarray(np.where((brain > 2) & (brain < 253), narrow, wide), np.float32)


def head_case(folder: Path) -> DemoCase:
    """A head CT of the pictures in a folder, foot to head as its table numbers them."""
    rows = sorted(table_rows(folder), key=lambda row: int(row["slice"]))
    patient, licence = rows[0]["patient"], rows[0]["licence"]
    hu = np.stack([hounsfield(_grey(folder / row["brain"]), _grey(folder / row["bone"])) for row in rows])
    labels = CtLabels(
        study=f"demo {patient}",
        patient=f"DEMO-HEAD-{patient}",
        description="DEMO HEAD, NOMINAL GEOMETRY",
        image_type=("DERIVED", "PRIMARY", "AXIAL"),
        kernel="",
        age="",
        accession=f"DEMO-HEAD-{patient}",
    )
    objects = ct_series(hu, CtGrid(PIXEL_MM, SLICE_MM, SLICE_MM), labels)
    for ds, row in zip(objects, rows, strict=True):
        _name(ds, f"HEAD^{patient}")
        ds.KVP, ds.GantryDetectorTilt = None, None
        del ds.ConvolutionKernel
        jpeg_bytes = sum((folder / row[window]).stat().st_size for window in ("brain", "bone"))
        _declare_jpeg(ds, len(ds.PixelData) / jpeg_bytes)
        ds.DerivationDescription = f"Hounsfield units from two 8 bit windows, to about 15 HU. {NOMINAL_GEOMETRY}"
        ds.ImageComments = f"{licence}. {NOMINAL_GEOMETRY}"
    counts = {kind: sum(row[kind] == "1" for row in rows) for kind in BLEED_KINDS}
    kinds = sorted((kind for kind in BLEED_KINDS if counts[kind]), key=lambda kind: -counts[kind])
    return DemoCase(
        name=f"head {patient}",
        truth=f"bleed: {', '.join(kinds)}" if kinds else "no bleed",
        positives={"any": any(row["any"] == "1" for row in rows)},
        objects=objects,
        files=f"head_ct/{patient}/",
        licence=licence,
        nominal=True,
    )


def film_cases(folder: Path) -> list[DemoCase]:
    """The chest films of a folder's table, each a study."""
    return [
        DemoCase(
            name=f"film {number}",
            truth=row["truth"],
            positives=film_positives(row["truth"]),
            objects=[film_object(folder / row["file"], row, number)],
            files=f"chest_xray/{row['file']}",
            licence=row["licence"],
            by_inbox=True,
        )
        for number, row in enumerate(table_rows(folder), start=1)
    ]


def film_positives(truth: str) -> dict[str, bool]:
    """Which findings of a film are there by the words of its table; COVID-19 with opacities is a pneumonia."""
    covid19 = "COVID-19" in truth
    return {"pneumonia": covid19 or "pneumonia" in truth, "covid19": covid19}


def film_age(row: Mapping[str, str]) -> str:
    """Patient's Age (PS3.5 6.2) of a row: its age, else :data:`CHILD_AGE` where the table says child, else none."""
    if row["age"]:
        return f"{int(row['age']):03d}Y"
    return CHILD_AGE if "(child)" in row["truth"] else ""


def film_object(path: Path, row: Mapping[str, str], number: int) -> Dataset:
    """Computed Radiography object (PS3.3 A.2) around the bytes of a grey JPEG picture, which stay as they are."""
    jpeg = path.read_bytes()
    study = stable_uid("study", "demo", "film", path.name)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = UID(stable_uid(study, "film"))
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID(study), UID(stable_uid(study, "series"))
    ds.file_meta = file_meta(ds.SOPClassUID, ds.SOPInstanceUID, JPEGBaseline8Bit)
    ds.StudyDate = ds.StudyTime = ds.ContentDate = ds.ContentTime = ""
    ds.Modality, ds.ReferringPhysicianName = "CR", ""
    ds.PatientID = ds.AccessionNumber = f"DEMO-FILM-{number}"
    _name(ds, f"FILM^{number}")
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "", "", film_age(row)
    ds.BodyPartExamined, ds.ViewPosition, ds.PatientOrientation = "CHEST", row["view"].upper(), ["L", "F"]
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = str(number), 1, 1
    ds.SeriesDescription = "DEMO CHEST FILM"
    ds.Rows, ds.Columns = (int(n) for n in _grey(path).shape)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    _declare_jpeg(ds, ds.Rows * ds.Columns / len(jpeg))
    ds.ImageComments = row["licence"]
    ds.PixelData = encapsulate([jpeg + b"\0" * (len(jpeg) % 2)])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    return ds


def drawn_lesion() -> DemoCase:
    """A drawn skin lesion: nothing is known of it, for it is none."""
    ds = lesion_photograph()
    ds.PatientID = ds.AccessionNumber = "DEMO-SKIN-1"
    _name(ds, "SKIN^DRAWN")
    return DemoCase("lesion (drawn)", "drawn, no truth", {}, [ds], by_inbox=True)


def drawn_head(number: int) -> DemoCase:
    """A drawn head, with and without a bleed, by C-STORE and by the inbox in turn."""
    bleed = DRAWN_BLEEDS[(number - 1) % len(DRAWN_BLEEDS)]
    identity = f"DEMO-DRAWN-{number}"
    head = head_study(HeadSpec(bleed=bleed), CtLabels(seed=number, patient=identity, accession=identity))
    for ds in head.objects:
        _name(ds, f"HEAD^DRAWN {number}")
    truth = f"drawn: {bleed or 'no bleed'}"
    return DemoCase(f"head {number} (drawn)", truth, {"any": bleed is not None}, head.objects, by_inbox=number % 2 == 0)


def attributions(cases: Iterable[DemoCase]) -> list[str]:
    """A line for each case with pictures: which, and whose."""
    return [f"{case.name} ({case.files}): {case.licence}" for case in cases if case.licence]


def _grey(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DemoFailed(f"{path} cannot be read")
    return np.asarray(image)


def _name(ds: Dataset, name: str) -> None:
    ds.PatientName = f"DEMO^{name}"
    ds.Manufacturer, ds.StationName, ds.ManufacturerModelName = "Firstread demo", "DEMO", ""
    ds.StudyDescription = "FIRSTREAD DEMO"


def _declare_jpeg(ds: Dataset, ratio: float) -> None:
    """Say that the pixels were compressed with loss (PS3.3 C.7.6.1.1.5)."""
    ds.LossyImageCompression, ds.LossyImageCompressionMethod = "01", "ISO_10918_1"
    ds.LossyImageCompressionRatio = f"{ratio:.2f}"
