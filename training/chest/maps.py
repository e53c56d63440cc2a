"""Maps of one film for every package, class and method, as pictures and as numbers.

What ``firstread maps`` does for packages of chest films. Grad-CAM (plain CAM where the head allows it), Grad-CAM++ and
occlusion of each class of each package; where a binary and a four-class package are given, those of the score that
flags too, as :mod:`worker.pipelines.chest_xray.evidence` makes it in service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from firstread.dicom.datasets import UnusableFile, read_dataset
from firstread.dicom.pixels.reading import UnreadablePixels
from training.datasets.base import PICTURES, DataSetError, read_grey
from worker.packages.preprocessing.lungs import lung_field
from worker.packages.runtimes.tensorflow import Package
from worker.pipelines.base import Served
from worker.pipelines.chest_xray.evidence import film_maps, overlay
from worker.pipelines.chest_xray.film import read_film
from worker.pipelines.chest_xray.maps import (
    FINE_GRID,
    FilmPart,
    Map,
    agreement,
    composed,
    enlarged,
    log_odds,
    occlusion_map,
    on_film,
    place_of,
)
from worker.pipelines.chest_xray.scores import BINARY, FOUR, combined_scores, joint_occlusion, voices_of

GRAD_CAM: Final = "grad_cam"
NUMBERS: Final = "maps.json"


class DirectEngine:
    """Packages without a queue. Fulfils :class:`worker.pipelines.base.Engine`."""

    def __init__(self, packages: Sequence[Package]) -> None:
        self._packages = {package.key: package for package in packages}

    def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
        """As :meth:`worker.packages.runtimes.tensorflow.Package.predict`."""
        return self._packages[package].predict(x)

    def gradients(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        """As the package's method."""
        return self._packages[package].gradients(x, finding)

    def class_maps(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        """As the package's method."""
        return self._packages[package].class_maps(x, finding)


def read_any(path: Path) -> tuple[np.ndarray, bool]:
    """Film (H, W) of a picture or a DICOM file, and whether its header tells the sides.

    Raises
    ------
    DataSetError
        If it cannot be read.
    """
    if path.suffix.lower() in PICTURES:
        return read_grey(path), False
    try:
        film, turn = read_film(path, read_dataset(path))
    except (UnusableFile, UnreadablePixels) as error:
        raise DataSetError(f"{path.name}: {error}") from error
    return film, turn.known


def write_maps(packages: Sequence[Package], film: np.ndarray, out: Path, sides_known: bool) -> list[dict[str, Any]]:
    """Write an overlay for every map of a film (H, W), and their numbers as :data:`NUMBERS`; give back its rows."""
    out.mkdir(parents=True, exist_ok=True)
    field = lung_field(film)
    rows = []
    for name, version, label, p, by_method in (*_single(packages, film), *_joint(packages, film)):
        for method, heat in by_method.items():
            place = place_of(heat, field)
            picture = f"{name}-{version}_{label}_{method}.png"
            shown = overlay(film, heat, (f"{name} {version}", f"{label} {p:.2f}", method), sides_known)
            cv2.imwrite(str(out / picture), cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
            rows.append(
                {
                    "package": f"{name}/{version}",
                    "class": label,
                    "p": round(p, 5),
                    "method": method,
                    "picture": picture,
                    "lung_share": None if np.isnan(place.lung_share) else round(place.lung_share, 4),
                    "side": place.side,
                    "zone": place.zone,
                    "agreement_with_grad_cam": round(agreement(heat, by_method[GRAD_CAM]), 4),
                }
            )
    document = {"sides_known": sides_known, "lungs_measured": field.measured, "maps": rows}
    (out / NUMBERS).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return rows


Made = tuple[str, str, str, float, dict[str, Map]]
"""Name, version, class, probability, and maps by method."""


def _single(packages: Sequence[Package], film: np.ndarray) -> list[Made]:
    """Maps of every class of each package alone."""
    class_maps: list[Made] = []
    for package in packages:
        x, (part,) = composed([film], package.card.input)
        p = package.predict(x)["p"][0]
        for column, label in enumerate(package.card.labels):
            class_maps.append(
                (
                    package.card.name,
                    package.card.version,
                    label,
                    float(p[column]),
                    class_maps_of(package, label, x, part, float(p[column])),
                )
            )
    return class_maps


def class_maps_of(package: Package, label: str, x: np.ndarray, part: FilmPart, p: float) -> dict[str, Map]:
    """Grad-CAM, Grad-CAM++ and occlusion of one class for one input (1, H, W, C), laid on the whole film."""
    column = package.card.labels.index(label)

    def score(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return log_odds(package.predict(inputs[package.key])["p"][:, column])

    first, second = package.class_maps(x, label)
    blocked = occlusion_map({package.key: x[0]}, score, float(log_odds(np.asarray(p))), {package.key: part}, FINE_GRID)
    return {
        GRAD_CAM: on_film(first[0], part),
        "grad_cam_plus": on_film(second[0], part),
        "occlusion": enlarged(blocked),
    }


def _joint(packages: Sequence[Package], film: np.ndarray) -> list[Made]:
    """Maps of the score that flags, where the packages make one: as the pipeline joins them."""
    groups = {package.card.task: [Served(package.card)] for package in packages}
    if BINARY not in groups or FOUR not in groups:
        return []
    engine = DirectEngine(packages)
    network_inputs = {package.key: composed([film], package.card.input) for package in packages}
    inputs, parts = (
        {key: x for key, (x, _) in network_inputs.items()},
        {key: part[0] for key, (_, part) in network_inputs.items()},
    )
    combined, alone = combined_scores(groups, {key: engine.run(key, x) for key, x in inputs.items()})
    if combined[BINARY] is alone:
        return []
    scores, p = combined[BINARY], float(combined[BINARY].of(BINARY)[0])
    heat = film_maps(engine, voices_of(groups, combined, alone, 0), inputs, 0, parts)
    blocked = joint_occlusion(engine, groups, inputs, 0, parts, p, FINE_GRID)
    by_method = {GRAD_CAM: heat.joined, "grad_cam_plus": heat.plus, "occlusion": enlarged(blocked)}
    return [(scores.name, scores.version, BINARY, p, by_method)]
