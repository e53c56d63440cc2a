"""What goes into the engine and comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

Outputs = dict[str, np.ndarray]
Kind = Literal["predict", "gradients", "class_maps", "call"]


class ServedModel(Protocol):
    """What the engine needs of a loaded package."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Rows that it runs at once, rising."""
        ...

    def predict(self, x: np.ndarray) -> Outputs:
        """Outputs for ``x`` (n, H, W, C) float32, n rows each."""
        ...

    def gradients(self, x: np.ndarray, finding: str) -> np.ndarray:
        """Class-activation map (n, h, w) float32."""
        ...

    def class_maps(self, x: np.ndarray, finding: str) -> np.ndarray:
        """That map and a second opinion (2, n, h, w) float32."""
        ...


class Progress(Protocol):
    """The job behind a request; :class:`worker.scoring.leases.Lease` is one. Both methods may raise to end the wait."""

    progress: float

    def touch(self) -> None:
        """Note a step forward."""
        ...

    def check(self) -> None:
        """Raise if the job is no longer ours."""
        ...


class NoProgress:
    """For requests that belong to no job."""

    progress = 0.0

    def touch(self) -> None:
        """Nothing to note."""

    def check(self) -> None:
        """Never lost."""


@dataclass(eq=False)
class Request:
    """One array to be scored; ``done`` rows of it have been."""

    package: str
    x: np.ndarray
    kind: Kind
    urgency: tuple[int, int]
    lease: Progress
    finding: str = ""
    call: Callable[[], Any] | None = None
    future: Future[Any] = field(default_factory=Future)
    parts: list[Outputs] = field(default_factory=list)
    done: int = 0

    @property
    def left(self) -> int:
        """Rows that are still to be scored."""
        return int(self.x.shape[0]) - self.done
