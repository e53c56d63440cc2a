"""What stands on the written page of a training or an evaluation."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np


def sizes_below(page: str, *headings: str) -> set[tuple[int, ...]]:
    """Shapes of the pictures below headings, each up to the next heading; fails where one is missing."""
    found: set[tuple[int, ...]] = set()
    for heading in headings:
        below = page.split(f"<h2>{heading}</h2>")[1].split("<h2>")[0]
        for text in re.findall(r"data:image/png;base64,([^\"]+)", below):
            picture = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)
            assert picture is not None, "no picture"
            found.add(picture.shape)
    return found
