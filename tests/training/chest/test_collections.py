"""Labels as people write them, class folders, validation parts, age groups, and patients apart in one collection."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from firstread.phantoms.chest import FilmSpec
from tests.builders.chest import kermany_folder, write_film
from training.chest.figures import binary_figures, four_class_figures
from training.chest.labels import CLASSES, SINGLE, labels_of
from training.chest.readers import class_of, with_validation
from training.datasets.base import DataSetError, Item, gathered
from training.datasets.registry import open_dataset

OPEN = {"normal": 0.0, "bacterial": 1.0, "viral": 1.0, "covid19": 0.0, "pneumonia": 1.0}
NOT_COVID = {"normal": 1.0, "bacterial": 1.0, "viral": 1.0, "covid19": 0.0}


def _single(name: str) -> dict[str, float]:
    return {**SINGLE[name], "pneumonia": float(name != "normal")}


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        ("COVID-19", _single("covid19")),
        ("SARS-CoV-2", _single("covid19")),
        ("sarscov2", _single("covid19")),
        ("Coronavirus", _single("covid19")),
        ("2019-nCoV", _single("covid19")),
        ("nCoV", _single("covid19")),
        ("Covid_Positive", _single("covid19")),
        ("novel coronavirus pneumonia", _single("covid19")),
        ("Non-COVID", NOT_COVID),
        ("NonCOVID19", NOT_COVID),
        ("No COVID", NOT_COVID),
        ("COVID-19 negative", NOT_COVID),
        ("COVID-19 negative pneumonia", OPEN),
        ("Normal (COVID negative)", _single("normal")),
        ("MERS-CoV", _single("viral")),
        ("SARS", _single("viral")),
        ("Virus", _single("viral")),
        ("viral_pneumonia", _single("viral")),
        ("BacterialPneumonia", _single("bacterial")),
        ("Bacteria", _single("bacterial")),
        ("E.Coli", _single("bacterial")),
        ("Tuberculosis", _single("bacterial")),
        ("non-viral pneumonia", OPEN | {"viral": 0.0}),
        ("Aspergillosis", OPEN),
        ("Pneumonia", OPEN),
        ("NORMAL", _single("normal")),
        ("No Findings", _single("normal")),
        ("No pneumonia", _single("normal")),
        ("Abnormal", {}),
        ("Not normal", {}),
        ("Lung_Opacity", {}),
        ("Invirus", {}),
        ("Unknown", {}),
        ("", {}),
    ],
)
def test_a_finding_is_read_by_its_words_and_their_denial(finding: str, expected: dict[str, float]) -> None:
    assert labels_of(finding) == expected


def _folders(root: Path, *names: str, spec: FilmSpec | None = None) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_film(root / name, spec or FilmSpec(size=64), number)


def test_masks_are_no_films_and_the_innermost_class_counts(tmp_path: Path) -> None:
    root = tmp_path / "COVID-19_Radiography_Dataset"
    _folders(
        root,
        "COVID/images/COVID-1.png",
        "COVID/masks/COVID-1.png",
        "Normal/images/Normal-1.png",
        "Normal/Lung Masks/Normal-1.png",
        "Viral Pneumonia/images/a.png",
    )
    for folder in (root, tmp_path):
        items = open_dataset("chest_folders", folder).items()
        assert sorted(str(class_of(item)) for item in items) == ["covid19", "normal", "viral"]
        assert not any("mask" in item.key.lower() for item in items)
    assert len(open_dataset("chest_films", tmp_path).items()) == 3


def test_a_folder_that_names_no_class_is_counted_and_never_teaches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _folders(tmp_path, "Normal/1.png", "Bacteria/1.png", "Lung_Opacity/1.png", "Lung_Opacity/2.png")
    with caplog.at_level(logging.WARNING):
        items = open_dataset("chest_folders", tmp_path).items()
    assert [item.usable for item in items if "Opacity" in item.key] == [False, False]
    assert sum(item.usable for item in items) == 2
    assert "'Lung_Opacity' names no class: its 2 films" in caplog.text
    assert len({item.patient for item in items}) == 4, "1.png of two folders is no one patient"
    _folders(tmp_path / "other", "a/1.png", "b/2.png")
    with pytest.raises(DataSetError):
        open_dataset("chest_folders", tmp_path / "other").items()


def test_kermanys_file_names_tell_the_kind_in_any_folder(tmp_path: Path) -> None:
    _folders(
        tmp_path,
        "PNEUMONIA/person23_bacteria_78.jpeg",
        "PNEUMONIA/person9_virus_1.jpeg",
        "COVID19/a.jpeg",
        "PNEUMONIA/x.jpeg",
    )
    items = {item.path.name: class_of(item) for item in open_dataset("chest_folders", tmp_path).items()}
    assert items == {
        "person23_bacteria_78.jpeg": "bacterial",
        "person9_virus_1.jpeg": "viral",
        "a.jpeg": "covid19",
        "x.jpeg": None,
    }


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        ("train/melanoma/a.jpg", "train/melanoma/a.jpg lies in neither NORMAL nor PNEUMONIA"),
        ("kermany224/images/a.jpg", "lies in neither"),
        ("a.jpg", "lies in neither"),
        ("mine/NORMAL/a.jpg", "mine/NORMAL/a.jpg lies in none of train, val, test"),
    ],
)
def test_what_is_no_folder_of_kermanys_is_refused(picture: str, told: str, tmp_path: Path) -> None:
    _folders(tmp_path, "train/NORMAL/IM-0115-0001.jpeg", picture)
    with pytest.raises(DataSetError, match=told):
        open_dataset("kermany", tmp_path).items()


def test_kermanys_folders_lie_in_parts_or_alone_in_any_case(tmp_path: Path) -> None:
    names = ("Normal/IM-0115-0001.jpeg", "pneumonia/person23_virus_5.jpeg")
    _folders(tmp_path / "alone", *names)
    alone = open_dataset("kermany", tmp_path / "alone").items()
    assert sorted((class_of(item), item.patient) for item in alone) == [("normal", "IM-0115"), ("viral", "person23")]
    assert {item.split for item in alone} <= {"train", "val", "test"}
    _folders(tmp_path / "parts", *(f"chest_xray/TEST/{name}" for name in names))
    assert {item.patient for item in open_dataset("kermany", tmp_path / "parts").items()} == {
        "IM-0115",
        "test-person23",
    }
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "labels.csv").write_text("file,label3,patient,split\na.png,FUNGUS,p,train\n")
    with pytest.raises(DataSetError, match="label3 is 'FUNGUS', none of NORMAL"):
        open_dataset("kermany", tmp_path / "table").items()


def test_a_tiny_validation_part_is_drawn_anew_by_patient() -> None:
    items = [Item("k", f"{n}/{k}", Path("x"), f"p{n}", f"s{n}", split="train") for n in range(200) for k in range(2)]
    items += [Item("k", "v", Path("x"), "v", "v", split="val"), Item("k", "t", Path("x"), "t", "t", split="test")]
    divided = with_validation(items)
    parts: dict[str, set[str]] = {}
    for item in divided:
        parts.setdefault(item.patient, set()).add(item.split)
    assert all(len(split) == 1 for split in parts.values())
    assert 0.12 < sum(item.split == "val" for item in divided) / len(divided) < 0.28
    assert [item.split for item in divided if item.patient == "t"] == ["test"]
    enough = [*items, *(Item("k", f"w{n}", Path("x"), f"w{n}", "w", split="val") for n in range(20))]
    assert with_validation(enough) == enough


def test_one_collection_alone_keeps_its_patients_apart(tmp_path: Path) -> None:
    kermany_folder(tmp_path / "kermany", each=2)
    folder = tmp_path / "kermany" / "images"
    known = cv2.imread(str(folder / "test_NORMAL_0.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(folder / "train_NORMAL_1.png"), np.asarray(known))
    for items in (
        gathered([open_dataset("kermany", tmp_path / "kermany")]),
        open_dataset("chest_films", tmp_path / "kermany").items(),
    ):
        split = {item.path.name: item.split for item in items}
        assert split["train_NORMAL_1.png"] == split["test_NORMAL_0.png"] == "test"
        assert split["train_NORMAL_0.png"] == "train"


def test_films_of_people_of_unknown_age_are_neither_adults_nor_children(tmp_path: Path) -> None:
    rows = ["file,finding,patient,age", "a.png,Normal,a,44", "b.png,Normal,b,3", "c.png,Normal,c,", "d.png,Viral,d,x"]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    items = open_dataset("chest_csv", tmp_path).items()
    assert [item.attributes.get("age_group") for item in items] == ["adult", "child", None, None]
    figures = binary_figures(items, np.array([0.9, 0.1, 0.9, 0.9]), 0.5, repeats=5)
    assert {name: figures[name]["n"] for name in ("children", "adults", "age_unknown")} == {
        "children": 1,
        "adults": 1,
        "age_unknown": 2,
    }
    p = np.zeros((4, 4))
    p[:, CLASSES.index("covid19")] = 1.0
    assert four_class_figures(items, p, repeats=5)["children_called_covid"]["n"] == 1


def test_a_table_in_another_encoding_is_named_before_its_layout_is_known(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,finding,patient\na.png,normal,Müller\n", encoding="latin-1")
    with pytest.raises(DataSetError, match=r"labels\.csv is not UTF-8"):
        open_dataset("chest_films", tmp_path)
