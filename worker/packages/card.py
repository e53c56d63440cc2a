"""The card of a model package: what the weights expect, what they give, and what is known about them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from firstread.errors import FirstreadError

PREPROCESSING_VERSION = 1


class PackageError(FirstreadError):
    """A package cannot serve: files missing, card invalid, weights or network that do not fit."""


class ChecksumError(PackageError):
    """The weights file is not the one that the card was written for."""


class SelfTestError(PackageError):
    """The golden pixels do not give the golden probabilities."""


class InputSpec(BaseModel):
    """How pixels become the network's input. :func:`worker.packages.preprocessing.compose.compose` is its only reader.

    ``windows`` are (low, high) in HU for ``hu`` input, or the clip range in stored units for others; one channel a
    window, or, with ``neighbours`` = k, 2k+1 channels of neighbouring slices through the first window.
    ``levels`` are (low, high) percentiles of each ``grey`` picture that become its one window, so that exposure,
    bit depth and display window of a film do not matter. The crop ``film`` first cuts off a film's border of one dark
    or white value; the percentiles are then those of what is left. ``equalise`` takes a device's tone away from the
    cropped and resized ``grey`` picture: its histogram over the whole picture, or contrast-limited in 4 x 4 tiles.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["hu", "grey", "rgb"]
    height: int
    width: int
    windows: tuple[tuple[float, float], ...] = ()
    levels: tuple[float, float] | None = None
    equalise: Literal["none", "global", "local"] = "none"
    neighbours: int = 0
    crop: Literal["none", "film", "head", "lungs", "square"] = "none"
    scale: Literal["zero_one", "minus_one_one", "imagenet_lite"] = "zero_one"
    preprocessing_version: int = PREPROCESSING_VERSION

    @model_serializer(mode="wrap")
    def _lean(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out ``equalise`` where it is not used, so that specs from before there was one stay the same."""
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if (name, value) != ("equalise", "none")}

    @property
    def channels(self) -> int:
        """Number of the network's input channels."""
        if self.kind == "rgb":
            return 3
        return 2 * self.neighbours + 1 if self.neighbours else max(1, len(self.windows))


class OperatingPoint(BaseModel):
    """A threshold with the reason why it is where it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    finding: str
    threshold: float
    chosen_for: str
    sensitivity: float | None = None
    specificity: float | None = None
    n: int | None = None


class Calibration(BaseModel):
    """Map from raw to calibrated probability: ``p = sigmoid((logit(p_raw) - bias) / temperature)`` a finding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: dict[str, float] = Field(default_factory=dict)
    bias: dict[str, float] = Field(default_factory=dict)


class Card(BaseModel):
    """``card.json``. Written by training, checked at load, printed as ``card.md``."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str
    pipeline: str
    task: str
    labels: list[str]
    input: InputSpec
    architecture: dict[str, Any]
    calibration: Calibration = Field(default_factory=Calibration)
    operating_points: dict[str, OperatingPoint] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Numbers of the interpretation that were chosen on validation data: aggregation, mask threshold ..."""
    sha256: str = ""
    """Of ``weights.npz``."""
    decisions_sha256: str = ""
    """:meth:`decisions` as training wrote them; empty on cards from before they had one."""
    training_data: dict[str, Any] = Field(default_factory=dict)
    population: dict[str, Any] = Field(default_factory=dict)
    """``age_min``, ``age_max``, thickness, devices."""
    baseline: dict[str, Any] = Field(default_factory=dict)
    """Histograms of score, intensity and thickness, for drift."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    intended_use: str = ""
    limits: list[str] = Field(default_factory=list)
    licence: str = ""
    created: str = ""
    code_version: str = ""

    @classmethod
    def read(cls, path: Path) -> Card:
        """The card in a file; ``OSError`` or pydantic's ``ValidationError`` where there is no valid one."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    def write(self, path: Path) -> None:
        """Write ``card.json``."""
        path.write_text(json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=False) + "\n", encoding="utf-8")

    def decisions(self) -> str:
        """Hex digest of everything on the card that decides about a score or a flag, thresholds included."""
        deciding = {"pipeline", "task", "labels", "input", "architecture", "calibration", "parameters"}
        points = {name: [point.finding, point.threshold] for name, point in self.operating_points.items()}
        # without what is at its default, so that a field of a later version does not change the digest of old cards
        fields = self.model_dump(mode="json", include=deciding, exclude_defaults=True)
        text = json.dumps([fields, points], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def threshold(self, finding: str, point: str = "flag") -> float | None:
        """Threshold of a named operating point for a finding, or None where the card has none."""
        for name, row in self.operating_points.items():
            if row.finding == finding and (name == point or name.startswith(f"{point}_")):
                return row.threshold
        return None
