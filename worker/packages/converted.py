"""What a card says of files of its network for another engine: which file, how it was made, how it fares."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["int8", "bf16", "fp16", "fp32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Difference(BaseModel):
    """Converted less reference on the same patients, with its 95 % interval; ``n`` counts patients."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float | None
    low: float | None
    high: float | None
    n: int


class PairedFigure(BaseModel):
    """One figure by the reference and by the converted file, on the same cases."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: float | None
    converted: float | None
    difference: Difference


class Measurement(BaseModel):
    """How a converted file fares beside the reference, and on what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str
    """Data set and part that both were measured on."""
    cases: int
    patients: int
    resamples: int
    """Of the patients, behind each interval."""
    figures: dict[str, PairedFigure] = Field(default_factory=dict)
    """By the figure's place in the evaluation, its names joined by slashes."""
    largest_p_difference: float | None = None
    """Of any probability of any case."""


class Converted(BaseModel):
    """A file of the package that holds its network for OpenVINO."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    weights_sha256: str
    """Of the ``weights.npz`` that it was made from: another one makes it a stranger to the package."""
    size_bytes: int
    created: str = ""
    made_with: dict[str, str] = Field(default_factory=dict)
    """Program -> version."""
    quantised_on: dict[str, Any] = Field(default_factory=dict)
    """Data, part and number of pictures behind the ranges of int8; empty for the others."""
    tolerance: dict[str, float] = Field(default_factory=dict)
    """What it was allowed to lose."""
    measurement: Measurement | None = None


def file_of(precision: Precision) -> str:
    """Name of the file in the package's folder."""
    return f"openvino_{precision}.zip"


FILES = tuple(file_of(precision) for precision in PRECISIONS)
"""Every name that such a file can have."""
