"""What a fuzzer found: inputs that broke a promise, one of each kind, cut down and written to a folder."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Final

from tests.fuzz.door import Broken, Feed

CUT_DOWN_S: Final = 20.0
WRITE_S: Final = 1.0


class Findings:
    """Gives inputs to a door and keeps count.

    Parameters
    ----------
    folder : Path
        Inputs that broke something go there, and ``NAME.json`` with the counts, once a second.
    """

    def __init__(self, feed: Feed, folder: Path, name: str) -> None:
        self._feed = feed
        self._folder = folder
        self._path = folder / f"{name}.json"
        self._written = self._started = time.monotonic()
        self.outcomes: Counter[str] = Counter()
        self.faults: dict[str, str] = {}
        """File by signature."""

    def give(self, data: bytes) -> None:
        """One input; never raises."""
        try:
            self.outcomes[self._feed(data)] += 1
        except Exception as error:  # noqa: BLE001  # whatever an input makes of the code
            self.outcomes["BROKEN"] += 1
            self._keep(data, error)
        if time.monotonic() - self._written > WRITE_S:
            self.write()

    def _keep(self, data: bytes, error: Exception) -> None:
        signature = signature_of(error)
        if signature in self.faults:
            return
        input_bytes = (error.data if isinstance(error, Broken) else None) or data
        least = cut_down(self._feed, input_bytes, signature)
        path = self._folder / hashlib.sha256(least).hexdigest()[:16]
        path.write_bytes(least)
        self.faults[signature] = path.name
        words = "".join(traceback.format_exception(error)[-24:])
        path.with_suffix(".txt").write_text(f"{signature}\n\n{words}", encoding="utf-8", errors="replace")
        print(f"FOUND {signature}: {path}", flush=True)

    def write(self) -> None:
        """The counts as they stand."""
        self._written = time.monotonic()
        row = {
            "inputs": sum(self.outcomes.values()),
            "seconds": round(self._written - self._started, 1),
            "outcomes": dict(self.outcomes.most_common()),
            "faults": self.faults,
        }
        self._path.write_text(json.dumps(row), encoding="utf-8")


def signature_of(error: Exception) -> str:
    """What tells one fault from another: its kind, and its words or its place in the code."""
    if isinstance(error, Broken):
        return f"broken: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/site-packages/" not in f.filename and "/tests/" not in f.filename]
    place = (ours or list(frames))[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}:{place.name}"


def cut_down(feed: Feed, data: bytes, signature: str, limit_s: float = CUT_DOWN_S) -> bytes:
    """A shorter input with the same fault, by leaving out pieces, as far as the time allows."""
    end, size = time.monotonic() + limit_s, max(1, len(data) // 2)
    while size and time.monotonic() < end:
        at = 0
        while at < len(data) and time.monotonic() < end:
            shorter = data[:at] + data[at + size :]
            if len(shorter) < len(data) and _breaks(feed, shorter, signature):
                data = shorter
            else:
                at += size
        size //= 2
    return data


def _breaks(feed: Feed, data: bytes, signature: str) -> bool:
    try:
        feed(data)
    except Exception as error:  # noqa: BLE001
        return signature_of(error) == signature
    return False
