"""A head-CT package that serves and knows nothing: random weights, and a threshold under every score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LABELS = ["any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"]


def write_toy_package(models_dir: Path, builder: str = "tiny_unet", size: int = 64) -> str:
    """Write it; returns ``name/version``. ``tiny_classifier`` draws no mask. ``size`` is that of its input."""
    import keras

    from training.package.writing import write_package
    from worker.packages.card import Card, InputSpec
    from worker.packages.networks import build
    from worker.packages.operating_points import OperatingPoint

    spec = InputSpec(
        kind="hu", height=size, width=size, windows=((0, 80),), neighbours=1, crop="head", scale="imagenet_lite"
    )
    architecture: dict[str, Any] = {"builder": builder, "classes": len(LABELS), "width": 4}
    card = Card(
        name="toy",
        version="1.0.0",
        pipeline="head_ct",
        task="bleed",
        labels=LABELS,
        input=spec,
        architecture=architecture,
        operating_points={"flag": OperatingPoint(finding="any", threshold=0.0, chosen_for="a test of the path")},
        limits=["knows nothing"],
    )
    keras.utils.set_random_seed(3)
    write_package(models_dir / card.name / card.version, build.build(architecture, spec), card, "Apache-2.0")
    return f"{card.name}/{card.version}"
