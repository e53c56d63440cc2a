"""Look-up tables, windows and palettes of films: applied as the header says, refused with a reason, or noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from firstread.dicom.frames import frames_of
from firstread.dicom.pixels.display import linear, linear_exact, sigmoid
from firstread.dicom.pixels.lookup import palette_rgb, table_of
from firstread.dicom.pixels.reading import UnreadablePixels
from firstread.export.deidentify import Pseudonyms, deidentified_frames
from firstread.phantoms.chest import FilmSpec, chest_image
from tests.builders.chest import film_ds, received, study_of
from tests.builders.encodings import table_item, with_cells
from worker.pipelines.chest_xray.film import ColourImage, read_film
from worker.pipelines.chest_xray.gate import gate
from worker.pipelines.chest_xray.selection import select

SPEC = FilmSpec(size=128)
GAMMA = 3.0
STEPS = np.arange(4096) / 4095.0
BACK = STEPS**GAMMA
"""What the tables do: the film is stored with the inverse."""


def _density() -> np.ndarray:
    return np.asarray(chest_image(SPEC)[0])


def _stored(**elements: Any) -> Dataset:
    """A film that only its table makes right."""
    values = np.rint(_density() ** (1 / GAMMA) * 4095).astype("<u2")
    return with_cells(film_ds(SPEC, WindowCenter=None, WindowWidth=None), values, **elements)


def _seen(folder: Path, ds: Dataset, cautions: list[str] | None = None) -> np.ndarray:
    instance = received(folder, ds)
    film = read_film(instance.path, instance.ds, 0, cautions)[0]
    low, high = np.percentile(film, (1, 99))
    return np.asarray(np.clip((film - low) / (high - low), 0, 1))


def _straight(folder: Path) -> np.ndarray:
    values = np.rint(_density() * 4095).astype("<u2")
    return _seen(folder, with_cells(film_ds(SPEC, WindowCenter=None, WindowWidth=None), values))


TABLES: dict[str, dict[str, object]] = {
    "16_bits": {"VOILUTSequence": table_item(BACK * 65535, 16)},
    "8_bits": {"VOILUTSequence": table_item(BACK * 255, 8)},
    "8_bits_packed": {"VOILUTSequence": table_item(BACK * 255, 8, packed=True)},
    "descriptor_signed": {
        "VOILUTSequence": table_item(BACK * 65535, 16, -1024, "SS"),
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
    },
    "descriptor_unsigned": {
        "VOILUTSequence": table_item(BACK * 65535, 16, -1024, "US"),
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
    },
    "modality_12_bits": {"ModalityLUTSequence": table_item(BACK * 4095, 12, ModalityLUTType="US")},
    "modality_8_bits_packed": {"ModalityLUTSequence": table_item(BACK * 255, 8, packed=True, ModalityLUTType="US")},
    "modality_and_window": {
        "ModalityLUTSequence": table_item(BACK * 4095, 12, ModalityLUTType="US"),
        "WindowCenter": 2048,
        "WindowWidth": 4096,
    },
    "65536_entries": {"VOILUTSequence": table_item((np.arange(65536) / 4095.0).clip(0, 1) ** GAMMA * 65535, 16)},
    "second_of_two": {"VOILUTSequence": Sequence([*table_item([0, 1], 8, 60000), *table_item(BACK * 65535, 16)])},
}


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big_endian"])
@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_is_applied_however_it_is_written(name: str, syntax: str, tmp_path: Path) -> None:
    ds = _stored(**TABLES[name])
    if syntax == "implicit":
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    if syntax == "big_endian":
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
            for item in ds.get(keyword, []):
                if item["LUTData"].VR == "OW":
                    item.LUTData = np.frombuffer(item.LUTData, "<u2").astype(">u2").tobytes()
    cautions: list[str] = []
    assert np.abs(_seen(tmp_path, ds, cautions) - _straight(tmp_path)).mean() < 0.003
    assert not cautions


BROKEN: dict[str, tuple[dict[str, object], str]] = {
    "length": ({"VOILUTSequence": table_item(BACK[:4000] * 255, 8)}, "another length"),
    "depth": ({"VOILUTSequence": table_item(BACK * 65535, 12)}, "deeper"),
    "no_data": ({"VOILUTSequence": Sequence([Dataset()])}, "without descriptor or data"),
    "two_modality_tables": (
        {"ModalityLUTSequence": Sequence([*table_item(BACK * 4095, 12), *table_item(BACK * 4095, 12)])},
        "more than one Modality LUT",
    ),
    "table_and_slope": ({"ModalityLUTSequence": table_item(BACK * 4095, 12), "RescaleSlope": 2}, "more than one"),
    "slope_of_0": ({"RescaleSlope": 0, "RescaleIntercept": 0}, "Rescale Slope is 0"),
    "function": ({"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "not known"),
    "one_centre_two_widths": ({"WindowCenter": 5, "WindowWidth": [9, 8]}, "different numbers"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_table_is_refused_in_words(name: str, tmp_path: Path) -> None:
    elements, message = BROKEN[name]
    ds = _stored(**elements)
    if name == "length":
        ds.VOILUTSequence[0].LUTDescriptor = [4096, 0, 8]
    instance = received(tmp_path, ds)
    with pytest.raises(UnreadablePixels, match=message):
        read_film(instance.path, instance.ds)
    study = study_of(instance)
    (series,) = select(study).series
    refusal = gate(study, series)
    assert refusal.reasons == ("unreadable_pixel_data",) and message in refusal.unread


COMMAS = ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"]


@pytest.mark.parametrize("keyword", COMMAS)
def test_a_decimal_comma_is_no_default(keyword: str, tmp_path: Path) -> None:
    ds = film_ds(SPEC, RescaleSlope="1.00", RescaleIntercept="0.00", WindowCenter="2048.0", WindowWidth="4096.0")
    instance = received(tmp_path, ds)
    old = str(ds[keyword].value.original_string).encode()
    instance.path.write_bytes(instance.path.read_bytes().replace(old, old.replace(b".", b","), 1))
    from firstread.dicom.datasets import read_dataset

    broken = read_dataset(instance.path)
    with pytest.raises(UnreadablePixels, match=f"{keyword} is not a number"):
        read_film(instance.path, broken)
    if keyword.startswith("Rescale"):
        line = frames_of(broken)[0].rescale
        assert line is not None and line.fault


def test_a_window_that_shows_nothing_gives_a_note(tmp_path: Path) -> None:
    for centre, width in ((60000, 10), (2048, 0)):
        cautions: list[str] = []
        _seen(tmp_path, film_ds(SPEC, WindowCenter=centre, WindowWidth=width), cautions)
        assert cautions == ["window_not_used"]


def test_functions_are_those_of_the_standard() -> None:
    values = np.array([0, 1000, 2048, 3000, 4095], np.float32)
    assert linear(values, 2048, 4096) == pytest.approx([0.0, 0.244, 0.5001, 0.7326, 1.0], abs=1e-3)
    assert linear_exact(values, 2048, 4096) == pytest.approx((values - 2048) / 4096 + 0.5, abs=1e-6)
    assert sigmoid(values, 2048, 4096) == pytest.approx(1 / (1 + np.exp(-4 * (values - 2048) / 4096)), abs=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_voi_lut_function_is_applied(function: str, tmp_path: Path) -> None:
    ds = with_cells(
        film_ds(SPEC, WindowCenter=2000, WindowWidth=2500, VOILUTFunction=function),
        np.rint(_density() * 4095).astype("<u2"),
    )
    shape = {"LINEAR": linear, "LINEAR_EXACT": linear_exact, "SIGMOID": sigmoid}[function]
    instance = received(tmp_path, ds)
    film = read_film(instance.path, instance.ds)[0] / 4095.0
    assert film == pytest.approx(shape(np.rint(_density() * 4095).astype(np.float32), 2000, 2500), abs=1e-5)


def _palette(ds: Dataset, red: np.ndarray, green: np.ndarray, blue: np.ndarray, bits: int, first: int = 0) -> Dataset:
    ds.PhotometricInterpretation = "PALETTE COLOR"
    for name, entries in (("Red", red), ("Green", green), ("Blue", blue)):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [len(entries), first, bits])
        data = entries.astype(np.uint8 if bits == 8 else "<u2").tobytes()
        setattr(ds, f"{name}PaletteColorLookupTableData", data + b"\0" * (len(data) % 2))
    return ds


@pytest.mark.parametrize("bits", [8, 16])
def test_a_grey_palette_is_the_film_that_it_shows(bits: int, tmp_path: Path) -> None:
    grey = np.rint(_density() * 255).astype(np.uint8)
    order = np.random.default_rng(0).permutation(256)
    stored = np.argsort(order).astype(np.uint8)[grey]
    shades = order * (257 if bits == 16 else 1)
    ds = with_cells(
        film_ds(SPEC, BitsAllocated=8, BitsStored=8, HighBit=7, WindowCenter=None, WindowWidth=None), stored
    )
    plain = with_cells(
        film_ds(SPEC, BitsAllocated=8, BitsStored=8, HighBit=7, WindowCenter=None, WindowWidth=None), grey
    )
    assert np.abs(_seen(tmp_path, _palette(ds, shades, shades, shades, bits)) - _seen(tmp_path, plain)).max() < 1e-6


def test_a_palette_with_colours_is_no_radiograph(tmp_path: Path) -> None:
    grey = np.rint(_density() * 255).astype(np.uint8)
    ramp = np.arange(256)
    ds = with_cells(film_ds(SPEC, BitsAllocated=8, BitsStored=8, HighBit=7), grey)
    with pytest.raises(ColourImage):
        _seen(tmp_path, _palette(ds, ramp, ramp // 3, ramp, 8))


def test_segmented_palettes_are_expanded() -> None:
    ds = Dataset()
    words = [0, 2, 10, 20, 1, 4, 60, 2, 1, 0, 0]  # two values, four to 60, and the first segment once more
    for name in ("Red", "Green", "Blue"):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [8, 0, 16])
        setattr(ds, f"Segmented{name}PaletteColorLookupTableData", np.array(words, "<u2").tobytes())
    rgb = palette_rgb(ds, np.arange(8, dtype=np.uint8).reshape(1, 8))
    assert rgb[0, :, 0].tolist() == [10, 20, 30, 40, 50, 60, 10, 20]
    for name in ("Red", "Green", "Blue"):
        setattr(ds, f"Segmented{name}PaletteColorLookupTableData", np.array(words[:6], "<u2").tobytes())
    with pytest.raises(UnreadablePixels):
        palette_rgb(ds, np.arange(8, dtype=np.uint8).reshape(1, 8))


def test_values_beyond_a_table_get_its_ends() -> None:
    (item,) = table_item([5, 6, 7], 8, 10)
    table = table_of(item, np.array([9, 13]))
    assert table.apply(np.array([[0, 10], [12, 99]])).tolist() == [[5, 5], [7, 7]]


@pytest.mark.parametrize("place", ["shared", "each"])
def test_functional_groups_hold_them_too(place: str, tmp_path: Path) -> None:
    ds = _stored()
    group, item = Dataset(), Dataset()
    item.VOILUTSequence = table_item(BACK * 65535, 16)
    group.FrameVOILUTSequence = Sequence([item])
    keyword = "SharedFunctionalGroupsSequence" if place == "shared" else "PerFrameFunctionalGroupsSequence"
    setattr(ds, keyword, Sequence([group]))
    assert np.abs(_seen(tmp_path, ds) - _straight(tmp_path)).mean() < 0.003


@pytest.mark.parametrize("name", ["8_bits_packed", "descriptor_unsigned", "modality_12_bits", "palette"])
def test_a_training_export_shows_the_same_film(name: str, tmp_path: Path) -> None:
    grey = np.rint(_density() * 255).astype(np.uint8)
    if name == "palette":
        ramp = np.arange(256)
        of_bytes = film_ds(SPEC, BitsAllocated=8, BitsStored=8, HighBit=7, WindowCenter=None, WindowWidth=None)
        ds = _palette(with_cells(of_bytes, 255 - grey), ramp[::-1], ramp[::-1], ramp[::-1], 8)
    else:
        ds = _stored(**TABLES[name])
    for item in [*ds.get("VOILUTSequence", []), *ds.get("ModalityLUTSequence", [])]:
        item.LUTExplanation = "DOE^JANE"
    path = received(tmp_path, ds).path
    ((_, exported),) = deidentified_frames(path, Pseudonyms(bytes(32)), "p-1")
    assert "DOE" not in str(exported)
    (tmp_path / "exported").mkdir()
    exported.file_meta = ds.file_meta
    assert np.abs(_seen(tmp_path / "exported", exported) - _seen(tmp_path, ds)).mean() < 0.003


@pytest.mark.parametrize("coloured", [False, True])
def test_colours_of_more_than_eight_bits_are_seen(coloured: bool, tmp_path: Path) -> None:
    values = np.rint(_density() * 4095).astype("<u2")
    rgb = np.stack([values, values // (2 if coloured else 1), values], axis=-1)
    ds = with_cells(film_ds(SPEC, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0), rgb)
    if coloured:
        with pytest.raises(ColourImage):
            _seen(tmp_path, ds)
    else:
        assert np.abs(_seen(tmp_path, ds) - _straight(tmp_path)).max() < 1e-4
