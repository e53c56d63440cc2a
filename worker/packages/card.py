"""The card of a model package: what the weights expect, what they give, and what is known about them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from firstread.errors import FirstreadError
from firstread.pipelines import flags_by_age, leading_finding
from worker.packages.converted import Converted, Precision
from worker.packages.operating_points import AgeGroup, OperatingPoint, OperatingPointByAge

PREPROCESSING_VERSION = 1


JOINT_FLAG: Final = "joint_flag"
"""Operating point of a score that several packages make together (``parameters.blend``)."""


class PackageError(FirstreadError):
    """A package cannot serve: files missing, card invalid, weights or network that do not fit."""


class ChecksumError(PackageError):
    """The weights file is not the one that the card was written for."""


class SelfTestError(PackageError):
    """The golden pixels do not give the golden probabilities."""


class FilmLook(BaseModel):
    """What is levelled of the look that a film has from its maker (:mod:`worker.packages.preprocessing.look`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rim: float = Field(default=0.0, ge=0.0, lt=0.3)
    """Share of height and width that is cut off each side inside the border: names, dates and arrows stand there."""
    side_px: int = Field(default=0, ge=0)
    """Short side to which every film is brought before it is resized for the network; 0 for its own."""
    marks: bool = False
    """Whether narrow white and black marks are painted over."""
    jpeg: int = Field(default=0, ge=0, le=100)
    """Quality of the JPEG compression that every film goes through; 0 for none."""


class ColourConstancy(BaseModel):
    """Light to which every picture is brought (:mod:`worker.packages.preprocessing.colours`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    norm: float = Field(ge=1.0)
    """Of the Minkowski mean that estimates the light: 1 is grey world, 6 shades of grey."""
    reference: tuple[float, float, float]
    """Estimate, red, green and blue in [0, 1], to which that of every picture is brought."""
    exposure: bool = False
    """Whether the brightness is brought to the reference's too, and not the colour alone."""

    @model_validator(mode="after")
    def _reference_is_a_colour(self) -> ColourConstancy:
        if not all(0.0 < value <= 1.0 for value in self.reference):
            raise ValueError("the reference's red, green and blue are above 0, and 1 at most")
        return self


class InputSpec(BaseModel):
    """How pixels become the network's input. :func:`worker.packages.preprocessing.compose.compose` is its only reader.

    ``windows`` are (low, high) in HU for ``hu`` input, or the clip range in stored units for others; one channel a
    window, or, with ``neighbours`` = k, 2k+1 channels of neighbouring slices through the first window.
    ``wide_windows`` of ``hu`` input are further channels of the slice itself, behind those: bone and air, as far as
    the series has any (:func:`worker.packages.preprocessing.windows.wide_layers`).
    ``levels`` are (low, high) percentiles of each ``grey`` picture that become its one window, so that exposure,
    bit depth and display window of a film do not matter. The crop ``film`` first cuts off a film's border of one dark
    or white value; the percentiles are then those of what is left. ``equalise`` takes a device's tone away from the
    cropped and resized ``grey`` picture: its histogram over the whole picture, or contrast-limited in 4 x 4 tiles.
    ``look``, with the crop ``film`` alone, levels what else tells makers of films apart. ``colours`` brings ``rgb``
    pictures to one light before all else.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["hu", "grey", "rgb"]
    height: int
    width: int
    windows: tuple[tuple[float, float], ...] = ()
    wide_windows: tuple[tuple[float, float], ...] = ()
    levels: tuple[float, float] | None = None
    equalise: Literal["none", "global", "local"] = "none"
    neighbours: int = 0
    crop: Literal["none", "film", "head", "lungs", "square"] = "none"
    scale: Literal["zero_one", "minus_one_one", "imagenet_lite"] = "zero_one"
    look: FilmLook | None = None
    colours: ColourConstancy | None = None
    preprocessing_version: int = PREPROCESSING_VERSION

    @model_serializer(mode="wrap")
    def _lean(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out what later versions added where it is not used: specs from before there was any stay."""
        fields: dict[str, Any] = handler(self)
        unused: dict[str, Any] = {"equalise": "none", "look": None, "colours": None, "wide_windows": ()}
        return {n: value for n, value in fields.items() if n not in unused or value not in (unused[n], [])}

    @model_validator(mode="after")
    def _look_is_of_films(self) -> InputSpec:
        if self.look is not None and (self.kind, self.crop) != ("grey", "film"):
            raise ValueError("a look goes with grey input and the crop film")
        return self

    @model_validator(mode="after")
    def _wide_windows_are_of_hounsfield_units(self) -> InputSpec:
        if self.wide_windows and (self.kind != "hu" or not self.windows):
            raise ValueError("wide windows go with hu input and at least one window")
        return self

    @model_validator(mode="after")
    def _colours_are_of_pictures(self) -> InputSpec:
        if self.colours is not None and self.kind != "rgb":
            raise ValueError("colour constancy goes with rgb input")
        return self

    @property
    def channels(self) -> int:
        """Number of the network's input channels."""
        if self.kind == "rgb":
            return 3
        narrow = 2 * self.neighbours + 1 if self.neighbours else max(1, len(self.windows))
        return narrow + len(self.wide_windows)

    @property
    def alone(self) -> bool:
        """Whether a slice is composed without the others of its scan."""
        return self.neighbours == 0 and self.crop != "head"


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
    operating_points: dict[str, OperatingPoint | OperatingPointByAge] = Field(default_factory=dict)
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
    converted: dict[Precision, Converted] = Field(default_factory=dict)
    """Files of the network for OpenVINO, by precision (:mod:`worker.packages.openvino_file`)."""

    @classmethod
    def read(cls, path: Path) -> Card:
        """The card in a file; ``OSError`` or pydantic's ``ValidationError`` where there is no valid one."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    def write(self, path: Path) -> None:
        """Write ``card.json``."""
        path.write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        """What stands in ``card.json``."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=False) + "\n"

    def decisions(self) -> str:
        """Hex digest of everything on the card that decides about a score or a flag, thresholds included."""
        deciding = {"pipeline", "task", "labels", "input", "architecture", "calibration", "parameters"}
        points = {name: point.deciding() for name, point in self.operating_points.items()}
        # without what is at its default, so that a field of a later version does not change the digest of old cards
        fields = self.model_dump(mode="json", include=deciding, exclude_defaults=True)
        text = json.dumps([fields, points], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def point(self, finding: str, name: str = "flag") -> OperatingPoint | OperatingPointByAge | None:
        """The operating point of a finding: ``name``, or one whose name goes on after an underscore."""
        for key, row in self.operating_points.items():
            if row.finding == finding and (key == name or key.startswith(f"{name}_")):
                return row
        return None

    def threshold(self, finding: str, name: str = "flag", age_group: AgeGroup = "unknown") -> float | None:
        """Threshold of a named operating point for a finding; None where the card, or the age group, has none."""
        found = self.point(finding, name)
        return None if found is None else found.threshold_for(age_group)

    @model_validator(mode="after")
    def _points_fit_the_pipeline(self) -> Card:
        for name, point in self.operating_points.items():
            if isinstance(point, OperatingPointByAge) and not flags_by_age(self.pipeline, point.finding):
                raise ValueError(f"operating point {name}: {point.finding} of {self.pipeline} has none by age")
        blend = self.parameters.get("blend")
        if blend:
            joint = self.point(leading_finding(self.pipeline), JOINT_FLAG)
            if ("threshold" in blend) == isinstance(joint, OperatingPointByAge):
                raise ValueError(f"blend has either a threshold or an operating point {JOINT_FLAG} by age")
        return self
