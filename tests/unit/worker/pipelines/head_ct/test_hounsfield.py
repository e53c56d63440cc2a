"""Real Hounsfield units through DICOM, pipeline and the shipped package say what the windowed pictures say.

The pictures that taught end at -20 and 100 HU; a scanner sends air of -1,000 and bone of 1,500.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from firstread.phantoms.ct import CtGrid, CtLabels, ct_series
from firstread.phantoms.head import HeadSpec, head_volume
from tests.builders.study_images import study_from
from training.head_ct.readers import CtIch
from worker.packages.package import load
from worker.packages.preprocessing.compose import compose_boxed
from worker.packages.preprocessing.crops import restore
from worker.packages.probabilities import slice_probabilities, study_probability
from worker.packages.runtimes.tensorflow import Package
from worker.packages.store import PackageStore
from worker.pipelines.base import Outcome, Served
from worker.pipelines.registry import row
from worker.pipelines.runner import run

MODELS = Path(__file__).resolve().parents[5] / "models"
AIR_HU, BONE_HU = -1000, 1500
STEP_MM = 5.0
BLEEDING = "052"
"""A patient of CT-ICH."""


@dataclass
class Direct:
    """An engine that asks a package itself."""

    package: Package

    def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
        return self.package.predict(x)

    def gradients(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        return self.package.gradients(x, finding)

    def class_maps(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        return self.package.class_maps(x, finding)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    store = PackageStore([MODELS], tmp_path_factory.mktemp("home"))
    (entry,) = [e for e in store.serving() if e.card is not None and e.card.task == "bleed"]
    return load(entry.directory)


def pictured(hu: np.ndarray) -> np.ndarray:
    """What is left of Hounsfield units in a picture of eight bits from -20 to 100."""
    return np.asarray(np.round((np.clip(hu, -20, 100) + 20) * 255 / 120) * (120 / 255) - 20, np.float32)


def put_back(pictures: np.ndarray) -> np.ndarray:
    """Air and bone where the pictures are at their ends, as a scanner sends them; the rest in whole units."""
    hu = np.round(pictures)
    hu[pictures <= -19.9] = AIR_HU
    hu[pictures >= 99.9] = BONE_HU
    return hu


def by_dicom(hu: np.ndarray, package: Package, folder: Path) -> Outcome:
    grid = CtGrid(spacing_mm=230 / hu.shape[-1], step_mm=STEP_MM, thickness_mm=STEP_MM)
    study = study_from(ct_series(hu, grid, CtLabels()), folder)
    result = run(row("head_ct"), study, {"bleed": [Served(package.card)]}, Direct(package))
    assert result.outcome is not None, result.reasons
    return result.outcome


def by_pictures(pictures: np.ndarray, package: Package) -> tuple[np.ndarray, float, np.ndarray]:
    """Probabilities of ``any`` of slices and study, and the mask at the pictures' size."""
    x, boxes = compose_boxed(pictures, package.card.input)
    outputs = package.predict(x)
    card = package.card
    p = slice_probabilities(outputs, card.parameters, card.labels)[:, card.labels.index("any")]
    mask = np.stack([restore(m, b, pictures.shape[1:]) for m, b in zip(outputs["mask"], boxes, strict=True)])
    return p, study_probability(p, card.parameters), mask >= float(card.parameters["mask_threshold"])


def compare(pictures: np.ndarray, package: Package, folder: Path) -> tuple[Outcome, np.ndarray]:
    """Both ways agree on slices, study and mask; gives the outcome and the mask."""
    outcome = by_dicom(put_back(pictures), package, folder)
    # A network that sees bone and air is given them on either way.
    p, p_study, mask = by_pictures(put_back(pictures) if package.card.input.wide_windows else pictures, package)
    (finding,) = [f for f in outcome.findings if f.name == "any"]
    assert finding.probability == pytest.approx(p_study, abs=0.02)
    scores = {s.instance_key: s.probability for s in outcome.slice_scores if s.finding == "any"}
    np.testing.assert_allclose([scores[key] for key in sorted(scores)], p, atol=0.05)
    outline = outcome.evidence.mask
    assert outline is not None and outline.shape == mask.shape
    assert 2 * (outline & mask).sum() >= 0.95 * (outline.sum() + mask.sum())
    return outcome, mask


def test_a_drawn_head_scores_alike(package: Package, tmp_path: Path) -> None:
    spec = HeadSpec(slices=28, size=256, bleed="intraparenchymal", bleed_radius_mm=22.0)
    hu, blood = head_volume(spec)
    outcome, mask = compare(pictured(hu), package, tmp_path)
    assert (mask & blood).sum() > 0.5 * blood.sum(), "the mask is not empty on either way"
    assert any(f.flagged for f in outcome.findings if f.name == "any")


@pytest.mark.skipif("FIRSTREAD_TEST_DATA" not in os.environ, reason="FIRSTREAD_TEST_DATA is not set")
def test_a_real_head_scores_alike(package: Package, tmp_path: Path) -> None:
    dataset = CtIch(Path(os.environ["FIRSTREAD_TEST_DATA"]) / "head_ct" / "ct_ich")
    items = [item for item in dataset.items() if item.patient == BLEEDING]
    assert len(items) > 20 and any(item.labels["any"] for item in items)
    _, mask = compare(np.stack([dataset.pixels(item) for item in items]), package, tmp_path)
    assert mask.any()
