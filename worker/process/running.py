"""A running worker: its parts in the order in which they start, and how each ends."""

from __future__ import annotations

import logging
import os
import signal
import time
from types import FrameType

from firstread.cores import cores
from firstread.dicom.ahead import WIDTH
from firstread.dicom.pixels.codecs import decode_with
from firstread.metrics.gpu import read_gpu
from firstread.records import Database
from firstread.records.migrate import require_head
from firstread.settings import Settings
from firstread.storage.store import spool_of
from worker import metrics
from worker.decoder.pool import DecoderPool
from worker.engine import loading
from worker.engine.device import DEFAULT_BATCH, EngineThread
from worker.engine.serving import Serving, mark_waiting
from worker.packages.runtimes.device import DEVICE
from worker.pipelines import registry
from worker.process.app import consume, make_worker_app
from worker.process.heartbeat import Heartbeat, HeartbeatSender
from worker.process.memory import Tidier, settle
from worker.process.process_row import ProcessRow
from worker.scoring.claims import Claimer
from worker.scoring.leases import LeaseKeeper
from worker.scoring.scorer import Scorer

WARM_UP_LIMIT_S = 900.0
ENGINE_STOP_S = 10.0

log = logging.getLogger(__name__)


class RunningWorker:
    """The parts of one worker process.

    What tells others that it lives starts with it; :meth:`serve` starts the rest, and :meth:`close` ends all of it.

    Parameters
    ----------
    owner : str
        Key of the process's row, and of its leases.
    """

    def __init__(self, settings: Settings, owner: str) -> None:
        self._settings, self._owner = settings, owner
        self._state = "starting"
        self._doorbell_at = time.monotonic()
        self._db = Database(settings.database_url)
        require_head(self._db)
        self._keeper = LeaseKeeper(self._db, owner, settings.lease_s)
        self._tidier = Tidier(self._keeper)
        self._beater = HeartbeatSender(self._beat)
        self._beater.start()
        # Until Celery takes the signals over, a stop is a stop: nothing is in hand.
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGINT, _leave)
        # one that may write nothing must take no doorbells from those that may
        self._row = ProcessRow(self._db, owner, "worker", on_other_schema=lambda: os.kill(os.getpid(), signal.SIGTERM))
        self._row.start(state=self._state)
        # no more can be asked for at once
        self._decoders = DecoderPool(min(cores(), WIDTH * settings.worker_threads))
        self._largest: dict[str, int] = {}
        self._engine = EngineThread(
            batch_wait_s=settings.batch_wait_ms / 1000,
            limit_s=settings.stall_s,
            max_batch=lambda key: self._largest.get(key, DEFAULT_BATCH),
        )
        self._engine_limit_s = 0.0  # models that are being loaded are left to the end of the process
        self._scorer: Scorer | None = None

    def serve(self) -> int:
        """Load and warm the models, then answer doorbells until SIGTERM; the exit status."""
        serving = self._load()
        able = serving.pipelines(registry.REGISTRY)
        mark_waiting(self._db, able)
        metrics.begin((row.name for row in registry.REGISTRY), serving.keys())
        claimer = Claimer(self._db, self._settings, spool_of(self._settings), self._owner, lambda: able)
        claimer.router.on_progress = self._touch
        scorer = Scorer(
            db=self._db,
            settings=self._settings,
            owner=self._owner,
            claimer=claimer,
            keeper=self._keeper,
            engine=self._engine,
            serving=serving,
        )
        self._scorer = scorer
        self._keeper.start()
        scorer.urgent.start()
        settle()
        self._tidier.start()

        def answer() -> int:
            self._touch()
            taken = scorer.answer()
            self._touch()
            return taken

        def ready() -> None:
            self._state = "ready"
            self._row.update(state="ready", models=sorted(serving.models), pipelines=sorted(able))
            log.info("ready: %s", ", ".join(sorted(serving.models)) or "no package serves")

        def stopping() -> None:
            self._state = "stopping"
            self._row.set_details(state="stopping")
            scorer.stopping.set()

        app = make_worker_app(self._settings, answer)
        return consume(app, self._settings, name=self._owner, on_ready=ready, on_stop=stopping)

    def close(self) -> None:
        """End what was started, with limits: a study in hand has been finished by now."""
        if self._scorer is not None:
            self._scorer.urgent.close(ENGINE_STOP_S)
        self._tidier.close()
        self._keeper.close()
        self._engine.close(self._engine_limit_s)
        self._decoders.close()
        self._row.close()
        self._beater.close()
        self._db.dispose()

    def _load(self) -> Serving:
        """Start decoders and engine, and load the packages that serve."""
        gpu = read_gpu()
        DEVICE.free_bytes = None if gpu is None else gpu.free_bytes
        DEVICE.mixed_precision = self._settings.mixed_precision
        self._decoders.start()  # before TensorFlow is loaded
        decode_with(self._decoders.decode)
        self._engine.start()
        serving: Serving = self._engine.call(lambda: loading.load_serving(self._settings), WARM_UP_LIMIT_S)
        self._engine_limit_s = ENGINE_STOP_S
        self._largest.update({key: model.batch_sizes[-1] for key, model in serving.models.items()})
        self._engine.serve(serving.models)
        return serving

    def _touch(self) -> None:
        self._doorbell_at = time.monotonic()

    def _beat(self) -> Heartbeat:
        return Heartbeat(
            time.monotonic(), state=self._state, jobs=self._keeper.progress(), doorbell_at=self._doorbell_at
        )


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
