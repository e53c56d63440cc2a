"""A worker process that knows the probe pipeline alone: ``python -m tests.builders.probe_worker``.

Everything but the registry and the packages is the product's own.
"""

from __future__ import annotations

from firstread.pipelines import Pipeline
from firstread.settings import Settings
from tests.builders.probe_pipeline import ProbeModel
from worker.engine import loading
from worker.engine.serving import Serving
from worker.packages.card import Card, InputSpec
from worker.pipelines import registry
from worker.pipelines.base import Served
from worker.process import service

PROBE = Pipeline(
    name="probe",
    priority=3,
    modalities=frozenset({"CT"}),
    alone=frozenset(),
    findings=(),
    leading="",
    tasks=frozenset({"probe"}),
    headline="",
    subject="probe",
    procedure="Probe",
)
ROW = registry.PipelineRow(PROBE, "tests.builders.probe_pipeline")


def probe_card() -> Card:
    """Card of the probe's only package."""
    return Card(
        name="probe",
        version="1",
        pipeline="probe",
        task="probe",
        labels=["any"],
        input=InputSpec(kind="grey", height=8, width=8),
        architecture={},
    )


def probe_serving(settings: Settings | None = None) -> Serving:
    """Serves the probe unless a file ``no_package`` lies in the models folder."""
    serving = Serving()
    if settings is None or not (settings.models_dir / "no_package").exists():
        serving.add(Served(probe_card()), ProbeModel())
    return serving


def main() -> None:
    registry.REGISTRY = (ROW,)
    loading.load_serving = probe_serving
    service.main()


if __name__ == "__main__":
    main()
