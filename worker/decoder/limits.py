"""How much time and memory one frame may take, and how much of either one study may waste."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from firstread.dicom.pixels.codecs import CodedFrame

FRAME_S: Final = 10.0
PIXELS_A_SECOND: Final = 10_000_000
"""A second more for so many pixels."""

MEMORY_BYTES: Final = 512 * 2**20
FRAMES_OF_MEMORY: Final = 4

WASTE_S: Final = 2 * FRAME_S
"""Time that frames of one study may lose with their decoders before its other frames get a short limit each."""

SHORT_SHARE: Final = 0.05


def limit_s(frame: CodedFrame) -> float:
    """Seconds that a frame may take."""
    pixels = int(frame.options.get("rows", 0)) * int(frame.options.get("columns", 0))
    return FRAME_S + pixels / PIXELS_A_SECOND


def memory_bytes(frame_bytes: int) -> int:
    """Memory that a decoder may have while it decodes a frame of that size."""
    return MEMORY_BYTES + FRAMES_OF_MEMORY * frame_bytes


class Allowance:
    """What one study may waste, so that forty frames that hang do not cost minutes.

    Parameters
    ----------
    progress : callable
        Called after each frame; may raise to end the work on the study.
    """

    def __init__(self, progress: Callable[[], None] = lambda: None) -> None:
        self._progress = progress
        self._left_s = WASTE_S

    def limit_s(self, frame: CodedFrame) -> float:
        """Seconds for this frame."""
        whole = limit_s(frame)
        return max(SHORT_SHARE * whole, min(whole, self._left_s))

    def wasted(self, seconds: float) -> None:
        """A frame ended with its decoder."""
        self._left_s -= seconds

    def step(self) -> None:
        """A frame is done with, in whatever way."""
        self._progress()


_CURRENT: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


def current() -> Allowance:
    """The allowance of the study that this thread reads; a fresh one where it reads for none."""
    return _CURRENT.get() or Allowance()


@contextmanager
def one_study(progress: Callable[[], None]) -> Iterator[None]:
    """Frames that are decoded in this thread during the block belong to one study."""
    token = _CURRENT.set(Allowance(progress))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def since(start: float) -> float:
    """Seconds since a ``time.monotonic()``."""
    return time.monotonic() - start
