"""What the decoders' own processes cost: each compressed syntax, read in this process and in theirs.

Run ``python -m tests.bench.bench_decoder``. The same is read by turns in both places, so that a busy machine troubles
both alike; medians are compared: a 512x512 slice alone, a head of 40 such slices as its pipeline reads it (a little
ahead), and a film of 2500x2500.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from firstread.dicom.datasets import read_dataset
from firstread.dicom.pixels.codecs import decode_here, decode_with
from firstread.dicom.pixels.reading import read_frame
from firstread.phantoms.head import HeadSpec, head_study
from worker.decoder.pool import DecoderPool
from worker.pipelines.base import StoredInstance, StudyImages
from worker.pipelines.head_ct.hounsfield import decode
from worker.pipelines.head_ct.selection import select

SLICE, SLICES, FILM = 512, 40, 2500
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
        ds.compress(syntax, generate_instance_uid=False, **({"j2k_cr": [10]} if syntax == JPEG2000 else {}))
        paths[f"{syntax} {size}"] = folder / f"{syntax}-{size}.dcm"
        ds.save_as(paths[f"{syntax} {size}"])
    ds = dcmread(source)
    stream = cv2.imencode(".jpg", (ds.pixel_array >> 4).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    ds["PixelData"].is_undefined_length = True
    paths[f"{JPEGBaseline8Bit} {size}"] = folder / f"jpeg-{size}.dcm"
    ds.save_as(paths[f"{JPEGBaseline8Bit} {size}"])
    program = shutil.which("dcmcjpeg")
    for uid, options in _DCMCJPEG.items() if program else ():
        target = folder / f"{uid}-{size}.dcm"
        subprocess.run([str(program), *options, str(source), str(target)], check=True)
        paths[f"{uid} {size}"] = target
    return paths


def head(path: Path, folder: Path) -> Callable[[], object]:
    """What reads a head of copies of this slice, one above the other."""
    instances = []
    for number in range(SLICES):
        ds = dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID}.{number}"
        ds.ImagePositionPatient = [0, 0, 5.0 * number]
        ds.InstanceNumber = number + 1
        ds.save_as(folder / f"{number}.dcm")
        header = read_dataset(folder / f"{number}.dcm")
        uids = (str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPClassUID))
        instances.append(StoredInstance(number, folder / f"{number}.dcm", header, *uids))
    study = StudyImages(StudyInstanceUID=str(ds.StudyInstanceUID), revision=1, instances=tuple(instances))
    stack = select(study).series[0].images
    return lambda: decode(stack, forced=False)


def compare(read: Callable[[], object], pool: DecoderPool, rounds: int) -> tuple[float, float]:
    """Median seconds to read something, in this process and in another."""
    times: dict[str, list[float]] = {"here": [], "there": []}
    for turn in range(rounds + 1):
        for place, decoder in (("here", decode_here), ("there", pool.decode)):
            decode_with(decoder)
            start = time.perf_counter()
            read()
            if turn:  # the first turn warms the codec up
                times[place].append(time.perf_counter() - start)
    return statistics.median(times["here"]), statistics.median(times["there"])


def main() -> None:
    pool = DecoderPool()
    pool.start()
    timings: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for size, rounds in ((SLICE, 100), (FILM, 5)):
                for name, path in files(Path(folder), size).items():
                    cases = {name: (partial(read_frame, path), rounds)}
                    if size == SLICE:
                        cases[f"{name} head"] = (head(path, Path(tempfile.mkdtemp(dir=folder))), 7)
                    for case, (read, times) in cases.items():
                        here, there = compare(read, pool, times)
                        timings.append({"case": case, "here_ms": here * 1e3, "there_ms": there * 1e3})
                        cost = there / here - 1.0
                        print(f"{case:32} {here * 1e3:9.2f} ms {there * 1e3:9.2f} ms {cost:+7.1%}", file=sys.stderr)
    finally:
        decode_with(decode_here)
        pool.close()
    print(json.dumps(timings))


if __name__ == "__main__":
    main()
