"""Where one compressed frame becomes an array: in this process, or wherever a service installed its own decoder.

A codec that reads files from outside may crash, hang or take all memory, so a long-running service hands frames to
processes of their own; training, commands and tests decode where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit

from firstread.dicom.pixels.complaints import cannot, heard, look_through, tells_of_damage
from firstread.dicom.values import PARSE_ERRORS

_DCT: Final = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit})
"""JPEG of the discrete cosine transform: the plug-in that decodes it best fills what is missing without a word."""

_TALKING: Final = frozenset({"gdcm"})
"""Plug-ins whose libraries warn of damage on standard error, and go on decoding."""


class UnreadablePixels(Exception):
    """The pixel data cannot be read. The message names the cause and no patient data."""


@dataclass(frozen=True)
class CodedFrame:
    """One frame as a code stream, and its decoding options.

    Attributes
    ----------
    syntax : str
        Transfer syntax UID.
    data : bytes
        The whole code stream, fragments joined.
    options : mapping
        pydicom's decoding options: strings and numbers, ``number_of_frames`` being 1.
    plugins : tuple of str
        pydicom's plug-ins in the order in which they are tried; an empty name stands for all that there are.
    frame_bytes : int
        Size of the decoded frame, which its limits follow.
    """

    syntax: str
    data: bytes
    options: Mapping[str, Any]
    plugins: tuple[str, ...]
    frame_bytes: int


Decode = Callable[[CodedFrame], np.ndarray]
"""Stored values (rows, columns), or uint8 (rows, columns, 3) in RGB; raises :class:`UnreadablePixels`."""


def decode_here(frame: CodedFrame) -> np.ndarray:
    """Decode in this process, with the first plug-in that knows this kind of stream.

    One that finds damage decides: another might be more lenient, and fill what is missing with grey. A lack
    of memory is final too, and a panic of a codec written in Rust, whose exception is no ``Exception``: they are the
    ``__cause__`` of what is raised.
    """
    try:
        decoder = get_decoder(UID(frame.syntax))
    except PARSE_ERRORS as error:
        raise UnreadablePixels("a transfer syntax that is not decoded") from error
    if frame.syntax in _DCT and tells_of_damage(look_through(frame.data)):
        raise UnreadablePixels("the code stream is damaged")
    wrapped = encapsulate([frame.data])
    cause: BaseException | None = None
    for plugin in frame.plugins:
        decoded = None
        with heard() if plugin in _TALKING else nullcontext(bytearray()) as said:
            try:
                decoded = decoder.as_array(wrapped, index=0, decoding_plugin=plugin, **frame.options)[0]
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as failure:  # noqa: BLE001  # whatever a codec raises
                cause = failure
        if tells_of_damage(said):
            raise UnreadablePixels("the code stream is damaged") from cause
        if decoded is not None:
            return decoded
        if isinstance(cause, MemoryError) or not isinstance(cause, Exception):
            break
        if not cannot(cause, said):
            raise UnreadablePixels("the code stream is damaged") from cause
    raise UnreadablePixels(f"the decoder of {UID(frame.syntax).name} failed ({type(cause).__name__})") from cause


class _Seam:
    decode: Decode = staticmethod(decode_here)


_SEAM: Final = _Seam()


def decode(frame: CodedFrame) -> np.ndarray:
    """Decode a frame where this process has its codecs."""
    return _SEAM.decode(frame)


def decode_with(decoder: Decode) -> None:
    """Let this process's frames be decoded by ``decoder`` from here on."""
    _SEAM.decode = decoder


def elsewhere() -> bool:
    """Whether frames are decoded by another process, while this one may do something else."""
    return _SEAM.decode is not decode_here
