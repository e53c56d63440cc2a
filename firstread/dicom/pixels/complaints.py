"""Whether a codec means that a code stream is damaged, or only that it is not made for it.

libjpeg goes on behind damaged data and says so on standard error alone, so that output is read.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Final

import cv2
import numpy as np

_DAMAGE: Final = re.compile(rb"Corrupt JPEG data|[Pp]remature end")
_TWELVE_BITS: Final = re.compile(rb"\xff[\xc0-\xc2]\x00[\x0b\x0e\x11\x14]\x0c")
"""Frame header of one to four components, up to the precision (ISO/IEC 10918-1, B.2.2)."""

_CANNOT: Final = re.compile(
    r"not support|unsupported|not implemented|not available|missing dependencies", re.IGNORECASE
)
_SILENT: Final = "'NoneType' object has no attribute 'encode'"
"""How GDCM's failure looks from Python: it gives no buffer."""

_MOST_SAID: Final = 2**16
_LOCK: Final = threading.Lock()


@contextmanager
def heard() -> Iterator[bytearray]:
    """What is written to this process's standard error within the block, by libraries too; filled at its end.

    Only one thread listens at a time. What others wrote meanwhile is passed on.
    """
    said = bytearray()
    with _LOCK, _somewhere() as capture:
        try:
            own = os.dup(2)
        except OSError:  # closed, as in some daemons
            yield said
            return
        os.dup2(capture.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(own, 2)
            capture.seek(0)
            said += capture.read(_MOST_SAID)
            if said and not _DAMAGE.search(said):
                os.write(own, said)
            os.close(own)


def _somewhere() -> IO[bytes]:
    """A file in memory, where there is such a thing: a full disk must not make an image unreadable."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("said", os.MFD_CLOEXEC), "w+b")
    return tempfile.TemporaryFile()


def look_through(data: bytes) -> bytearray:
    """What libjpeg says while it reads a DCT JPEG to its end, at an eighth of its size: a fraction of a decoding.

    One of 12 bits is read as if it had eight: its entropy coding is the same, and the picture is thrown away. Nothing
    is said where this is no stream for it.
    """
    stream = np.frombuffer(data, np.uint8)
    if deep := _TWELVE_BITS.search(data):
        stream = stream.copy()
        stream[deep.end() - 1] = 8
    with heard() as said, suppress(cv2.error):
        cv2.imdecode(stream, cv2.IMREAD_REDUCED_GRAYSCALE_8)
    return said


def tells_of_damage(said: bytes | bytearray) -> bool:
    """Whether words on standard error are a codec's that found damage."""
    return _DAMAGE.search(said) is not None


def cannot(failure: BaseException, said: bytes | bytearray) -> bool:
    """Whether a failure says that a plug-in does not know this kind of stream; anything else is damage."""
    words = str(failure)
    return _CANNOT.search(words) is not None or (_SILENT in words and not said)
