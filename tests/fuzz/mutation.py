"""Changes to bytes at random: flips, cuts, copies, numbers that matter, pieces of another input."""

from __future__ import annotations

import random
import struct
from typing import Final

_NUMBERS: Final = (0, 1, 2, 3, 4, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)


def mutated(rng: random.Random, data: bytes, others: list[bytes], longest: int) -> bytes:
    """A changed copy of an input."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        _change(rng, out, others)
    return bytes(out[:longest])


def _change(rng: random.Random, out: bytearray, others: list[bytes]) -> None:
    at = rng.randrange(len(out) + 1)
    length = rng.choice((1, 2, 4, 8, 64, 1024))
    kind = rng.randrange(7)
    if kind == 0 and at < len(out):
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(out):
        out[at] = rng.randrange(256)
    elif kind == 2:
        del out[at : at + length]
    elif kind == 3:
        out[at:at] = out[at : at + length]
    elif kind == 4:
        number = rng.choice(_NUMBERS)
        out[at : at + 4] = struct.pack(rng.choice("<>") + "I", number)
    elif kind == 5:
        out[at : at + 2] = struct.pack(rng.choice("<>") + "H", rng.choice(_NUMBERS) & 0xFFFF)
    else:
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        out[at : at + length] = other[start : start + length]
