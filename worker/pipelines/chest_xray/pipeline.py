"""Pneumonia on frontal chest films: whether, of which kind, and what the model looked at."""

from __future__ import annotations

from typing import Final

from worker.pipelines.base import NetworkInputs, PipelineSteps, ServedByTask
from worker.pipelines.chest_xray.film import Film, FilmCandidate
from worker.pipelines.chest_xray.findings import interpret
from worker.pipelines.chest_xray.gate import gate
from worker.pipelines.chest_xray.maps import FilmPart, composed
from worker.pipelines.chest_xray.selection import select
from worker.pipelines.ensemble import infer_each, packages_of, shared_inputs


def preprocess(films: tuple[Film, ...], served: ServedByTask) -> NetworkInputs[FilmPart]:
    """Network input for each package, float32 (films, H, W, C), and the part of each film that it shows."""
    grey = [film.grey for film in films]
    inputs = shared_inputs(packages_of(served), lambda package: composed(grey, package.card.input))
    return NetworkInputs({key: x for key, (x, _) in inputs.items()}, {key: parts for key, (_, parts) in inputs.items()})


STEPS: Final = PipelineSteps[tuple[FilmCandidate, ...], tuple[Film, ...], FilmPart](
    select=select,
    gate=gate,
    preprocess=preprocess,
    infer=infer_each,
    interpret=interpret,
)
