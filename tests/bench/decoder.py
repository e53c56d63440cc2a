"""What the decoders' own processes cost: each compressed syntax, read in this process and in theirs.

The same is read by turns in both places, so that a busy machine troubles both alike: a 512x512 slice alone, a head of
40 such slices as its pipeline reads it (a little ahead), and a film of 2500x2500.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from firstread.dicom.datasets import read_dataset
from firstread.dicom.pixels.codecs import decode_here, decode_with
from firstread.dicom.pixels.reading import read_frame
from firstread.phantoms.head import HeadSpec, head_study
from tests.bench.figures import Collected, Figure
from tests.bench.sizes import Sizes
from worker.decoder.pool import DecoderPool
from worker.pipelines.base import StoredInstance, StudyImages
from worker.pipelines.head_ct.hounsfield import decode
from worker.pipelines.head_ct.selection import select

SLICE, SLICES, FILM = 512, 40, 2500
HERE, THERE = "ms in the asking process", "ms in a decoder's process"
_DCMCJPEG = {"1.2.840.10008.1.2.4.70": ["+e1"], "1.2.840.10008.1.2.4.57": ["+el"], "1.2.840.10008.1.2.4.51": ["+ee"]}


def plain(size: int) -> Dataset:
    """A head slice with the noise of a scanner, magnified to the size that is asked for."""
    ds = head_study(HeadSpec(slices=1, size=SLICE)).objects[0]
    stored = np.frombuffer(ds.PixelData, np.uint16).reshape(SLICE, SLICE)
    large = cv2.resize(stored, (size, size), interpolation=cv2.INTER_LINEAR)
    noisy = np.clip(large + np.random.default_rng(0).normal(0, 8, large.shape), 0, 4095).astype(np.uint16)
    ds.Rows = ds.Columns = size
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation, ds.PixelData = 12, 11, 0, noisy.tobytes()
    return ds


def files(folder: Path, size: int) -> dict[str, Path]:
    """The same picture in every syntax that can be written here."""
    paths: dict[str, Path] = {}
    source = folder / f"plain{size}.dcm"
    plain(size).save_as(source, enforce_file_format=True)
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEG2000):
        ds = dcmread(source)
        ds.compress(syntax, generate_instance_uid=False, j2k_cr=[10] if syntax == JPEG2000 else None)
        paths[UID(syntax).name] = folder / f"{syntax}-{size}.dcm"
        ds.save_as(paths[UID(syntax).name])
    ds = dcmread(source)
    stream = cv2.imencode(".jpg", (ds.pixel_array >> 4).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    ds["PixelData"].is_undefined_length = True
    paths[JPEGBaseline8Bit.name] = folder / f"jpeg-{size}.dcm"
    ds.save_as(paths[JPEGBaseline8Bit.name])
    program = shutil.which("dcmcjpeg")
    for uid, options in _DCMCJPEG.items() if program else ():
        target = folder / f"{uid}-{size}.dcm"
        subprocess.run([str(program), *options, str(source), str(target)], check=True)
        paths[UID(uid).name] = target
    return paths


def head(path: Path, folder: Path, slices: int) -> Callable[[], object]:
    """What reads a head of copies of this slice, one above the other."""
    instances = []
    folder.mkdir()
    for number in range(slices):
        ds = dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"{ds.SOPInstanceUID}.{number}")
        ds.ImagePositionPatient = [0, 0, 5.0 * number]
        ds.InstanceNumber = number + 1
        ds.save_as(folder / f"{number}.dcm")
        header = read_dataset(folder / f"{number}.dcm")
        uids = (str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPClassUID))
        instances.append(StoredInstance(number, folder / f"{number}.dcm", header, *uids))
    study = StudyImages(StudyInstanceUID=str(ds.StudyInstanceUID), revision=1, instances=tuple(instances))
    stack = select(study).series[0].images
    return lambda: decode(stack, forced=False)


def compare(read: Callable[[], object], pool: DecoderPool, rounds: int) -> dict[str, list[float]]:
    """Milliseconds to read something, in this process and in another, by turns."""
    times: dict[str, list[float]] = {HERE: [], THERE: []}
    for turn in range(rounds + 1):
        for place, decoder in ((HERE, decode_here), (THERE, pool.decode)):
            decode_with(decoder)
            start = time.perf_counter()
            read()
            if turn:  # the first turn warms the codec up
                times[place].append(1000 * (time.perf_counter() - start))
    return times


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Each syntax and size in both places."""
    found = Collected()
    folder.mkdir(parents=True)
    pool = DecoderPool()
    pool.start()
    try:
        for size, times in sizes.pick(((SLICE, 20 * sizes.rounds), (FILM, sizes.rounds)), ((128, 1),)):
            for name, path in files(folder, size).items():
                _both(found, f"{name}, {size} x {size}", partial(read_frame, path), pool, times)
                if size != FILM:
                    slices = sizes.pick(SLICES, 4)
                    read = head(path, folder / f"head of {path.stem}", slices)
                    _both(found, f"{name}, head of {slices}", read, pool, max(1, times // 15))
        if not shutil.which("dcmcjpeg"):
            found.lacks("JPEG lossless and extended", HERE, "ms", "dcmcjpeg is not installed (Debian: dcmtk)")
    finally:
        decode_with(decode_here)
        pool.close()
    return found.figures()


def _both(found: Collected, subject: str, read: Callable[[], object], pool: DecoderPool, times: int) -> None:
    for place, milliseconds in compare(read, pool, times).items():
        found.add(subject, place, "ms", *milliseconds)
