"""One picture, stored in every way that is accepted, gives the same pixels; what contradicts itself gives none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from firstread.codes import IMAGE_CODES
from firstread.dicom.pixels.reading import PixelNote, UnreadablePixels, iter_frames, layout_of, read_frame
from firstread.phantoms.chest import FilmSpec, chest_image
from firstread.phantoms.lesion import LesionSpec, lesion_image, lesion_photograph
from tests.builders import encodings
from tests.builders.bad_inputs import encoded, tiny_slice
from tests.builders.chest import film_ds
from tests.builders.encodings import LOSSLESS, LOSSY, bare, cells, coded_picture, with_cells, with_stream
from worker.pipelines.reasons import Caution

SIZE = 64
J2K = {"irreversible": False, "no_jp2": True}


def _saved(ds: Dataset, folder: Path) -> Path:
    path = folder / "object.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def _film() -> Dataset:
    return film_ds(FilmSpec(size=SIZE))


def _bytes_film(rows: int = 63, columns: int = 47) -> Dataset:
    grey = np.round(chest_image(FilmSpec(size=SIZE))[0] * 255).astype(np.uint8)[:rows, :columns]
    ds = film_ds(BitsAllocated=8, BitsStored=8, HighBit=7, Rows=rows, Columns=columns)
    return with_cells(ds, grey)


@pytest.mark.parametrize("name", sorted(LOSSLESS))
def test_without_loss_the_values_are_the_same(name: str, tmp_path: Path) -> None:
    ds = _film()
    expected = cells(ds)
    np.testing.assert_array_equal(read_frame(_saved(LOSSLESS[name](ds, tmp_path), tmp_path)), expected)


@pytest.mark.parametrize("name", sorted(LOSSY))
def test_with_loss_they_are_nearly_the_same(name: str, tmp_path: Path) -> None:
    ds = _film()
    expected = cells(ds)
    frame = read_frame(_saved(LOSSY[name](ds, tmp_path), tmp_path))  # encoders may scale values to the full depth
    assert np.corrcoef(frame.ravel(), expected.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("name", ["explicit", "rle", "jpeg_ls", "jpeg_2000", "jpeg_lossless_sv1", "dcmtk_jpeg_ls"])
def test_signed_values_keep_their_sign(name: str, extended: bool, tmp_path: Path) -> None:
    ds = _film()
    expected = cells(ds).astype(np.int16) - 2048
    ds = with_cells(ds, expected if extended else expected & 0xFFF, PixelRepresentation=1)
    if name == "jpeg_2000" and not extended:
        ds = with_cells(ds, expected, PixelRepresentation=1)
    np.testing.assert_array_equal(read_frame(_saved(LOSSLESS[name](ds, tmp_path), tmp_path)), expected)


@pytest.mark.parametrize("name", ["jpeg_2000_of_more_bits", "jpeg_lossless_of_more_bits"])
def test_rubbish_above_is_not_read_from_a_code_stream_either(name: str, tmp_path: Path) -> None:
    ds = _film()
    expected = cells(ds)
    ds = encodings.overlay_left(13)(ds, tmp_path)
    notes: list[str] = []
    np.testing.assert_array_equal(read_frame(_saved(LOSSLESS[name](ds, tmp_path), tmp_path), notes=notes), expected)
    assert notes == [PixelNote.UNUSED_BITS]


def test_a_jpeg_2000_knows_its_sign(tmp_path: Path) -> None:
    ds = _film()
    expected = cells(ds).astype(np.int16) - 2048
    ds = encodings.compressed(JPEG2000Lossless)(with_cells(ds, expected, PixelRepresentation=1), tmp_path)
    ds.PixelRepresentation = 0
    notes: list[str] = []
    np.testing.assert_array_equal(read_frame(_saved(ds, tmp_path), notes=notes), expected)
    assert notes == [PixelNote.BITS_CORRECTED]


def test_words_of_32_bits(tmp_path: Path) -> None:
    ds = _film()
    expected = cells(ds).astype(np.uint32) * 1000
    for syntax, order in ((ExplicitVRLittleEndian, "<u4"), (ExplicitVRBigEndian, ">u4")):
        ds = with_cells(_film(), expected.astype(order), BitsAllocated=32, BitsStored=32, HighBit=31)
        ds.file_meta.TransferSyntaxUID = syntax
        np.testing.assert_array_equal(read_frame(_saved(ds, tmp_path)), expected)


def test_a_frame_without_a_code_stream_is_refused(tmp_path: Path) -> None:
    ds = encodings.compressed(RLELossless)(_film(), tmp_path)
    ds.NumberOfFrames = 2
    with pytest.raises(UnreadablePixels, match="fewer code streams"):
        read_frame(_saved(ds, tmp_path), 1)


@pytest.mark.parametrize("vr", ["OW", "OB"])
def test_bytes_in_big_endian_are_words_only_where_the_vr_says_so(vr: str, tmp_path: Path) -> None:
    ds = _bytes_film()
    expected = cells(ds)
    if vr == "OW":
        ds = encodings.big_endian(ds, tmp_path)
    else:
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        ds["PixelData"].VR = "OB"
    np.testing.assert_array_equal(read_frame(_saved(ds, tmp_path)), expected)


def test_words_hold_the_bytes_of_two_frames_where_they_meet(tmp_path: Path) -> None:
    ds = _bytes_film()
    expected = cells(ds)
    first, second = iter_frames(_saved(encodings.odd_multiframe_of_bytes(ds, tmp_path), tmp_path))
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(second, expected[::-1])


@pytest.mark.parametrize(
    ("kind", "planar"),
    [("words", False), ("words", True), (RLELossless, False), (JPEGLSLossless, False), (JPEG2000Lossless, False)],
)
def test_colours_keep_their_values(kind: str, planar: bool, tmp_path: Path) -> None:
    spec = LesionSpec(height=61, width=79)
    rgb, _ = lesion_image(spec, 1)
    ds = lesion_photograph(spec, 1, planar)
    if kind == "words":
        data = ds.PixelData + b"\0" * (len(ds.PixelData) % 2)
        ds.PixelData = np.frombuffer(data, "<u2").astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID, ds["PixelData"].VR = ExplicitVRBigEndian, "OW"
    elif kind == JPEG2000Lossless:
        ds.compress(kind, use_mct=False, generate_instance_uid=False)
    else:
        plugin = "pylibjpeg" if kind == RLELossless else "pyjpegls"
        ds.compress(kind, encoding_plugin=plugin, generate_instance_uid=False)
        ds.PlanarConfiguration = 1  # the label is worth nothing here: the streams know
    np.testing.assert_array_equal(read_frame(_saved(ds, tmp_path)), rgb)


JPEGS: dict[str, dict[str, Any]] = {
    "jfif": {"subsampling": 0},
    "subsampled": {"subsampling": 2},
    "subsampled_bare": {"subsampling": 2},
    "rgb_by_ids": {"keep_rgb": True},
    "progressive": {"subsampling": 1, "progressive": True},
}


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_RCT"])
@pytest.mark.parametrize("name", sorted(JPEGS))
def test_the_colours_of_a_jpeg_are_its_own(name: str, label: str, tmp_path: Path) -> None:
    spec = LesionSpec(height=96, width=128)
    rgb, _ = lesion_image(spec, 1)
    stream = coded_picture(rgb, "JPEG", quality=95, **JPEGS[name])
    ds = with_stream(
        lesion_photograph(spec, 1), bare(stream) if "bare" in name else stream, "1.2.840.10008.1.2.4.50", label
    )
    ds.PlanarConfiguration = 1  # the label is worth nothing in a code stream
    notes: list[str] = []
    assert np.abs(read_frame(_saved(ds, tmp_path), notes=notes).astype(int) - rgb).mean() < 3
    agrees = (label == "RGB") == (name == "rgb_by_ids") and label != "YBR_RCT"
    assert (PixelNote.COLOURS_ASSUMED in notes) is not agrees


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"])
def test_jpeg_2000_that_has_transformed_its_colours_gives_rgb(label: str, tmp_path: Path) -> None:
    spec = LesionSpec(height=60, width=80)
    rgb, _ = lesion_image(spec, 1)
    ds = with_stream(lesion_photograph(spec, 1), coded_picture(rgb, "JPEG2000", mct=1, **J2K), JPEG2000Lossless, label)
    notes: list[str] = []
    np.testing.assert_array_equal(read_frame(_saved(ds, tmp_path), notes=notes), rgb)
    assert (PixelNote.COLOURS_ASSUMED in notes) is label.startswith("YBR_FULL")


def test_luminance_in_jpeg_2000_without_a_transform_becomes_rgb(tmp_path: Path) -> None:
    from pydicom.pixels.processing import convert_color_space

    spec = LesionSpec(height=60, width=80)
    rgb, _ = lesion_image(spec, 1)
    ybr = convert_color_space(rgb, "RGB", "YBR_FULL")
    stream = coded_picture(ybr, "JPEG2000", mct=0, **J2K)
    ds = with_stream(lesion_photograph(spec, 1), stream, JPEG2000Lossless, "YBR_FULL")
    assert np.abs(read_frame(_saved(ds, tmp_path)).astype(int) - rgb).max() <= 2


def _padded_with_ones(ds: Dataset) -> None:
    values = cells(ds)
    values[:, :4] = 63536
    with_cells(ds, values)


def _signed_label(ds: Dataset) -> None:
    ds.PixelRepresentation = 1


def _needs_more_bits(ds: Dataset) -> None:
    ds.BitsStored, ds.HighBit = 10, 9


def _high_bit(ds: Dataset) -> None:
    ds.HighBit = 15


CONTRADICTIONS = {
    "ones_above_are_a_sign": (_padded_with_ones, PixelNote.BITS_STORED_EXCEEDED, -2000),
    "signed_but_never_negative": (_signed_label, PixelNote.BITS_STORED_EXCEEDED, None),
    "more_bits_than_stored": (_needs_more_bits, PixelNote.BITS_STORED_EXCEEDED, None),
    "high_bit_beside_the_values": (_high_bit, PixelNote.BITS_CORRECTED, None),
}


@pytest.mark.parametrize("name", sorted(CONTRADICTIONS))
def test_bits_that_contradict_the_header_are_read_with_a_note(name: str, tmp_path: Path) -> None:
    change, note, corner = CONTRADICTIONS[name]
    ds = _film()
    expected = cells(ds).astype(int)
    change(ds)
    notes: list[str] = []
    frame = read_frame(_saved(ds, tmp_path), notes=notes)
    np.testing.assert_array_equal(frame[:, 4:], expected[:, 4:])
    assert corner is None or (frame[:, :4] == corner).all()
    assert notes == [note]


def test_an_overlay_in_all_of_the_bits_is_no_sign(tmp_path: Path) -> None:
    ds = _film()
    expected = cells(ds)
    values = expected.copy()
    values[4:30, 10:40] |= 0xF000
    notes: list[str] = []
    np.testing.assert_array_equal(read_frame(_saved(with_cells(ds, values), tmp_path), notes=notes), expected)
    assert notes == [PixelNote.UNUSED_BITS]


@pytest.mark.parametrize("name", ["overlay_left_in_bit_12", "rubbish_above"])
def test_bits_that_are_not_read_give_a_note(name: str, tmp_path: Path) -> None:
    notes: list[str] = []
    read_frame(_saved(LOSSLESS[name](_film(), tmp_path), tmp_path), notes=notes)
    assert notes == [PixelNote.UNUSED_BITS]


def test_more_pixel_data_than_there_should_be_give_a_note(tmp_path: Path) -> None:
    for extra in (100, 2 * SIZE * SIZE):
        ds = _film()
        ds.PixelData += bytes(extra)
        notes: list[str] = []
        read_frame(_saved(ds, tmp_path), notes=notes)
        assert notes == [PixelNote.EXTRA_PIXEL_DATA]
    ds = film_ds(FilmSpec(size=256))
    ds.Columns = 250
    with pytest.raises(UnreadablePixels, match="longer"):
        read_frame(_saved(ds, tmp_path))


def _float_pixels(ds: Dataset, keyword: str, dtype: str, vr: str, bits: int) -> Dataset:
    values = cells(ds).astype(dtype)
    del ds.PixelData
    ds.BitsAllocated = bits
    ds.add_new(keyword, vr, values.tobytes())
    return ds


def _colour_jpeg_in_grey(ds: Dataset) -> Dataset:
    rgb = np.repeat(cells(_bytes_film(SIZE, SIZE))[..., None], 3, axis=-1)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.Rows, ds.Columns = 8, 8, 7, SIZE, SIZE
    return with_stream(ds, coded_picture(rgb, "JPEG"), "1.2.840.10008.1.2.4.50")


def _labelled(**elements: object) -> Callable[[Dataset], Dataset]:
    def change(ds: Dataset) -> Dataset:
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
        return ds

    return change


def _coded(ds: Dataset) -> Dataset:
    ds.compress(RLELossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    return ds


def _relabelled(data: bytes, old: str, new: str) -> bytes:
    """A file whose meta group names another transfer syntax, of a UID as long."""
    assert data.count(old.encode()) == 1 and len(old) == len(new)
    return data.replace(old.encode(), new.encode())


REFUSED = {
    "float pixels": lambda ds: _float_pixels(ds, "FloatPixelData", "<f4", "OF", 32),
    "float  pixels": lambda ds: _float_pixels(ds, "DoubleFloatPixelData", "<f8", "OD", 64),
    "a code stream of 3 components, and 1 samples": _colour_jpeg_in_grey,
    "Samples per Pixel contradicts": _labelled(PhotometricInterpretation="RGB"),
    "Samples per Pixel contradicts ": _labelled(SamplesPerPixel=3, PlanarConfiguration=0),
}


@pytest.mark.parametrize("reason", sorted(REFUSED))
def test_pixels_that_contradict_the_header_are_refused_with_a_reason(reason: str, tmp_path: Path) -> None:
    path = tmp_path / "object.dcm"
    path.write_bytes(encoded(REFUSED[reason](_film())))
    with pytest.raises(UnreadablePixels, match=" ".join(reason.split())):
        read_frame(path)


def test_code_streams_and_their_absence_agree_with_the_transfer_syntax(tmp_path: Path) -> None:
    path = tmp_path / "object.dcm"
    path.write_bytes(_relabelled(encoded(_film()), ExplicitVRLittleEndian, RLELossless))
    with pytest.raises(UnreadablePixels, match="without code streams"):
        read_frame(path)
    path.write_bytes(_relabelled(encoded(_coded(_film())), RLELossless, ExplicitVRLittleEndian))
    with pytest.raises(UnreadablePixels, match="code streams under"):
        read_frame(path)


def test_every_note_is_a_warning_with_a_text() -> None:
    assert all(Caution(note.value) in IMAGE_CODES for note in PixelNote)
    ds = tiny_slice()
    ds.BitsStored = 99
    assert layout_of(ds).notes == (PixelNote.BITS_CORRECTED,)
