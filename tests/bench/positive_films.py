"""Packages for which every chest film is positive."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path

from firstread.settings import default_models_dir


def every_film_positive(folder: Path, names: Collection[str] | None = None) -> Path:
    """A copy of the shipped packages, or of those named, whose chest flag lies at 0.

    A positive film costs most, and a drawn one rarely is.
    """
    for path in default_models_dir().iterdir():
        if path.is_dir() and (names is None or path.name in names):
            shutil.copytree(path, folder / path.name)
    for path in folder.glob("*/*/card.json"):
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["task"] == "pneumonia":
            card["operating_points"] = {
                "flag": {"finding": "pneumonia", "threshold": 0.0, "chosen_for": "a bench of positive films"}
            }
            if "blend" in card["parameters"]:
                card["parameters"]["blend"]["threshold"] = 0.0
            if card.get("decisions_sha256"):
                card["decisions_sha256"] = ""
            path.write_text(json.dumps(card), encoding="utf-8")
    return folder
