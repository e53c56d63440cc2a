"""ICC profiles of cameras and screens, made by the numbers of their standards, and pictures in their colours."""

from __future__ import annotations

import struct

import numpy as np

SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
"""Columns: XYZ of red, green and blue under D50."""


def profile(primaries: np.ndarray, description: str = "Jack Doe's display") -> bytes:
    """Display profile (ICC.1:2001-04) with these primaries and the tone curve of sRGB."""
    curve = np.round(_linear(np.linspace(0, 1, 1024)) * 65535).astype(">u2").tobytes()
    text = description.encode() + b"\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"wtpt": _xyz((0.9642, 1, 0.8249)),
    }
    for i, letter in enumerate("rgb"):
        tags[f"{letter}XYZ".encode()] = _xyz(primaries[:, i])
        tags[f"{letter}TRC".encode()] = b"curv\0\0\0\0" + struct.pack(">I", 1024) + curve
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1, 0.8249)))
    return head + bytes(128 - len(head)) + table + body


def in_colours_of(primaries: np.ndarray, srgb: np.ndarray) -> np.ndarray:
    """The stored values (H, W, 3) of uint8 of an sRGB picture in another space with sRGB's tone curve."""
    linear = _linear(srgb / 255.0) @ SRGB.T @ np.linalg.inv(primaries).T
    linear = np.clip(linear, 0, 1)
    stored = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(stored * 255), np.uint8)


def _linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _xyz(values: object) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(v) * 65536) for v in np.asarray(values)))
