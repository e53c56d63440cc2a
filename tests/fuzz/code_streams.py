"""Code streams of each codec, through the decoder processes: as the pixels of an object, and past its checks."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final
from unittest import mock

import cv2
import numpy as np
from hypothesis import strategies as st
from pydicom.encaps import generate_frames
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from firstread.dicom.pixels.codecs import CodedFrame, UnreadablePixels, decode_here, decode_with
from firstread.dicom.pixels.reading import read_frame
from tests.builders.bad_inputs import encoded, tiny_slice
from tests.builders.streams import coded, with_streams
from tests.fuzz.bounds import Bounds, forget_peak, memory_mb
from tests.fuzz.door import CORPUS, Broken, Door, Feed
from tests.fuzz.mutation import mutated
from worker.decoder import limits
from worker.decoder.limits import memory_bytes
from worker.decoder.pool import DecoderPool

SIZE: Final = 32
SLACK_MB: Final = 64
"""Of the interpreter and the libraries, which a decoder shares with its siblings."""
FRAME_S: Final = 2.0
"""Time of a frame here, less than a worker gives it: some broken streams keep a codec busy for ever."""
LATE_S: Final = 10.0
"""Beyond its time a frame is late, however busy the machine is."""

_CODECS: Final[dict[str, tuple[UID, tuple[str, ...], int]]] = {
    "jpeg": (JPEGBaseline8Bit, ("pylibjpeg", "gdcm"), 8),
    "jpeg_ls": (JPEGLSLossless, ("pyjpegls", "gdcm"), 16),
    "jpeg_2000": (JPEG2000Lossless, ("gdcm", "pylibjpeg"), 16),
    "rle": (RLELossless, ("pylibjpeg", "pydicom"), 16),
}
"""Transfer syntax, plug-ins and depth."""


class Decoders:
    """Gives one codec's streams to decoder processes.

    Parameters
    ----------
    codec : str
        Name of the door.
    """

    def __init__(self, codec: str, folder: Path) -> None:
        self._syntax, self._plugins, self._bits = _CODECS[codec]
        self._path = folder / "object.dcm"
        self._pool = DecoderPool(1)
        self._bounds = Bounds()
        self._frame: CodedFrame | None = None
        self._short = mock.patch.object(limits, "FRAME_S", FRAME_S)

    def start(self) -> None:
        """Let this process's frames be decoded there."""
        self._pool.start()
        self._short.start()
        decode_with(self._pool.decode)

    def close(self) -> None:
        """End the processes."""
        decode_with(decode_here)
        self._short.stop()
        self._pool.close()

    def feed(self, stream: bytes) -> str:
        """One code stream, both ways."""
        if not stream:
            return "nothing"
        size, bits = (SIZE, self._bits) if len(stream) % 4 else (2 * SIZE, 8)
        with_streams(ds := tiny_slice(), [stream], self._syntax, size, bits)
        self._path.write_bytes(encoded(ds))
        with self._bounds.kept():
            through = self._outcome(partial(read_frame, self._path), size, bits)
            past = self._outcome(
                partial(self._pool.decode, coded(stream, self._syntax, self._plugins, size, bits)), size, bits
            )
        return f"{through}; past the checks {past}"

    def _outcome(self, decode: Callable[[], np.ndarray], size: int, bits: int) -> str:
        for pid in self._pool.pids():
            forget_peak(pid)
        pids, started = self._pool.pids(), time.monotonic()
        try:
            array = decode()
        except UnreadablePixels as error:
            outcome = str(error).split("(")[0].strip()
        else:
            if array.shape[:2] != (size, size):
                raise Broken(f"a frame of another size came out: {array.shape}")
            outcome = "frame"
        if time.monotonic() - started > FRAME_S + LATE_S:
            raise Broken("a frame took longer than its time")
        most_mb = memory_bytes(size * size * bits // 8) / 2**20 + SLACK_MB
        if max((memory_mb("VmHWM", pid) for pid in pids), default=0.0) > most_mb:
            raise Broken(f"a decoder took more than {most_mb:.0f} MiB")
        return outcome


@contextlib.contextmanager
def opened(folder: Path, codec: str) -> Iterator[Feed]:
    """Decoders for one codec."""
    decoders = Decoders(codec, folder)
    decoders.start()
    try:
        yield decoders.feed
    finally:
        decoders.close()


def sound(codec: str, seed: int = 0, colours: bool = False) -> bytes:
    """A code stream of a small picture as it should be."""
    syntax, _, bits = _CODECS[codec]
    rng = np.random.default_rng(seed)
    if codec == "jpeg":
        picture = rng.integers(0, 256, (SIZE, SIZE, 3) if colours else (SIZE, SIZE), dtype=np.uint8)
        return bytes(cv2.imencode(".jpg", cv2.blur(picture, (5, 5)))[1])
    ds = tiny_slice(seed)
    ds.Rows = ds.Columns = SIZE
    ds.BitsAllocated = bits
    ds.PixelData = cv2.blur(rng.integers(0, 4000, (SIZE, SIZE)).astype(np.uint16), (5, 5)).tobytes()
    ds.compress(syntax, encoding_plugin={"jpeg_ls": "pyjpegls"}.get(codec, "pylibjpeg"), generate_instance_uid=False)
    return next(generate_frames(ds.PixelData, number_of_frames=1))


def streams(codec: str) -> st.SearchStrategy[bytes]:
    """Streams with changes at random: their structure is small, and what is read of it stands at its start."""
    kept = [path.read_bytes() for path in sorted((CORPUS / codec).iterdir())]

    def change(seed: int, which: int, early: bool) -> bytes:
        rng, data = random.Random(seed), kept[which % len(kept)]
        if not early:
            return mutated(rng, data, kept, len(data) + 1024)
        head = mutated(rng, data[:200], kept, 1024)
        return head + data[200:]

    return st.builds(change, st.integers(0, 2**32), st.integers(0, 99), st.booleans())


DOORS: Final = {
    codec: Door(codec, partial(opened, codec=codec), partial(streams, codec), longest=8 * 2**10) for codec in _CODECS
}
