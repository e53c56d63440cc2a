"""Which packages serve: loaded and tested at start, in the engine's thread."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select, update

from firstread import effects
from firstread.records import Database, Job, Revision
from firstread.states import JobState
from worker.engine.requests import ServedModel
from worker.errors import NoServingPackage
from worker.metrics import MODEL_ENGINE_INFO, MODEL_INFO
from worker.pipelines.base import Served
from worker.pipelines.registry import PipelineRow

REFERENCE = "tensorflow"
"""The engine that packages are measured with."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused:
    """A package of the models folder that does not serve, and why."""

    key: str
    pipeline: str
    task: str
    reason: str


@dataclass
class Serving:
    """The packages that passed, by pipeline and task, the active first; and those that did not."""

    by_pipeline: dict[str, dict[str, list[Served]]] = field(default_factory=dict)
    models: dict[str, ServedModel] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    """Of each package that serves, what runs it."""
    refused: list[Refused] = field(default_factory=list)

    def add(self, served: Served, model: ServedModel, engine: str = REFERENCE, reason: str = "") -> None:
        """A package that passed its self-test, the engine that runs it, and why that is not the one that is set."""
        tasks = self.by_pipeline.setdefault(served.card.pipeline, {})
        group = tasks.setdefault(served.card.task, [])
        group.append(served)
        group.sort(key=lambda s: s.role != "active")
        self.models[served.key] = model
        self.engines[served.key] = engine
        outcome = "shadow" if served.role == "shadow" else "serving"
        MODEL_INFO.labels(served.card.pipeline, served.key, outcome, "").set(1)
        MODEL_ENGINE_INFO.labels(served.card.pipeline, served.key, engine, reason).set(1)

    def keys(self) -> list[tuple[str, str]]:
        """Pipeline and ``name/version`` of every package that serves."""
        groups = [group for tasks in self.by_pipeline.values() for group in tasks.values()]
        return [(served.card.pipeline, served.key) for group in groups for served in group]

    def refuse(self, refused: Refused) -> None:
        """A package that must not serve."""
        self.refused.append(refused)
        MODEL_INFO.labels(refused.pipeline, refused.key, "refused", refused.reason).set(1)
        log.error("package %s does not serve", refused.key, extra={"reason": refused.reason, "model": refused.key})

    def of(self, pipeline: str) -> Mapping[str, Sequence[Served]]:
        """Packages by task, as the pipeline's functions take them."""
        return self.by_pipeline.get(pipeline, {})

    def pipelines(self, rows: Collection[PipelineRow]) -> frozenset[str]:
        """Names of the pipelines that can be served: at least one active package, and none of its tasks orphaned.

        A task is orphaned where a package of it was refused and no active one is left.
        """
        names = set()
        for row in rows:
            tasks = self.by_pipeline.get(row.name, {})
            alive = {task for task, group in tasks.items() if any(s.role != "shadow" for s in group)}
            orphaned = {r.task for r in self.refused if r.pipeline == row.name and r.task} - alive
            if alive and not orphaned:
                names.add(row.name)
        return frozenset(names)


def mark_waiting(db: Database, serving: Collection[str]) -> tuple[int, int]:
    """Say on the rows which waiting jobs lack a package, and which no longer do.

    Returns
    -------
    (int, int)
        Jobs that wait for a package from here on, and jobs whose doorbell will be rung again.
    """
    missing = NoServingPackage.reason
    waiting = Job.state == JobState.WAITING.value
    with db.read() as session:
        lacking = session.scalars(
            select(Job.id).where(waiting, Job.pipeline.not_in(serving), Job.reason.is_distinct_from(missing))
        ).all()
        ready = session.execute(
            select(Job.id, Job.revision_id).where(waiting, Job.pipeline.in_(serving), Job.reason == missing)
        ).all()
    if not lacking and not ready:
        return 0, 0
    with db.write(effects.SERVING_COMMIT) as session:
        # Revisions before jobs, as everywhere.
        session.execute(update(Revision).where(Revision.id.in_([row[1] for row in ready])).values(published_at=None))
        session.execute(update(Job).where(Job.id.in_(lacking), waiting).values(reason=missing))
        session.execute(update(Job).where(Job.id.in_([row[0] for row in ready]), waiting).values(reason=None))
    return len(lacking), len(ready)
