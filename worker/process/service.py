"""The worker process: loads and warms the models, then answers doorbells until SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from types import FrameType

from firstread.errors import FirstreadError
from firstread.logs import setup_logging
from firstread.processes.spawning import process_id
from firstread.records import Database
from firstread.records.migrate import require_head
from firstread.settings import Settings
from firstread.storage.store import spool_of

WARM_UP_LIMIT_S = 900.0
ENGINE_STOP_S = 10.0

log = logging.getLogger(__name__)


def run_worker(settings: Settings) -> int:
    """Run the worker process itself, in the main thread, until SIGTERM.

    SIGTERM and SIGINT finish the studies in hand. ``firstread work`` runs this as its child and restarts it when it
    dies or makes no progress.

    Returns
    -------
    int
        Exit status, 0 after an orderly end.
    """
    setup_logging(settings, "worker")
    from firstread.cores import cores
    from firstread.dicom.ahead import WIDTH
    from firstread.dicom.pixels.codecs import decode_with
    from firstread.metrics.gpu import read_gpu
    from worker import metrics
    from worker.decoder.pool import DecoderPool
    from worker.engine.device import DEFAULT_BATCH, EngineThread
    from worker.engine.loading import load_serving
    from worker.engine.serving import mark_waiting
    from worker.packages.runtimes.device import DEVICE
    from worker.pipelines import registry
    from worker.process.app import consume, make_worker_app
    from worker.process.heartbeat import OWNER_VARIABLE, Heartbeat, HeartbeatSender
    from worker.process.memory import Tidier, settle, share_arenas
    from worker.process.process_row import ProcessRow
    from worker.scoring.claims import Claimer
    from worker.scoring.leases import LeaseKeeper
    from worker.scoring.scorer import Scorer

    owner = os.environ.get(OWNER_VARIABLE) or process_id("worker")
    state = {"state": "starting"}
    share_arenas()
    db = Database(settings.database_url)
    require_head(db)
    keeper = LeaseKeeper(db, owner, settings.lease_s)
    tidier = Tidier(keeper)
    doorbell_at = [time.monotonic()]
    beater = HeartbeatSender(
        lambda: Heartbeat(time.monotonic(), state=state["state"], jobs=keeper.progress(), doorbell_at=doorbell_at[0])
    )
    beater.start()
    # Until Celery takes the signals over, a stop is a stop: nothing is in hand.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    # one that may write nothing must take no doorbells from those that may
    row = ProcessRow(db, owner, "worker", on_other_schema=lambda: os.kill(os.getpid(), signal.SIGTERM))
    row.start(state="starting")
    decoders = DecoderPool(min(cores(), WIDTH * settings.worker_threads))  # no more can be asked for at once
    gpu = read_gpu()
    DEVICE.free_bytes = None if gpu is None else gpu.free_bytes
    DEVICE.mixed_precision = settings.mixed_precision
    largest: dict[str, int] = {}
    engine = EngineThread(
        batch_wait_s=settings.batch_wait_ms / 1000,
        limit_s=settings.stall_s,
        max_batch=lambda key: largest.get(key, DEFAULT_BATCH),
    )
    scorer: Scorer | None = None
    engine_limit_s = 0.0  # models that are being loaded are left to the end of the process
    try:
        decoders.start()  # before TensorFlow is loaded
        decode_with(decoders.decode)
        engine.start()
        serving = engine.call(lambda: load_serving(settings), WARM_UP_LIMIT_S)
        engine_limit_s = ENGINE_STOP_S
        largest.update({key: model.batch_sizes[-1] for key, model in serving.models.items()})
        engine.serve(serving.models)
        able = serving.pipelines(registry.REGISTRY)
        mark_waiting(db, able)
        metrics.begin((row.name for row in registry.REGISTRY), serving.keys())
        claimer = Claimer(db, settings, spool_of(settings), owner, lambda: able)
        scorer = Scorer(
            db=db, settings=settings, owner=owner, claimer=claimer, keeper=keeper, engine=engine, serving=serving
        )
        keeper.start()
        scorer.urgent.start()
        settle()
        tidier.start()

        def touch() -> None:
            doorbell_at[0] = time.monotonic()

        def answer() -> int:
            touch()
            taken = scorer.answer()
            touch()
            return taken

        claimer.router.on_progress = touch

        def ready() -> None:
            state["state"] = "ready"
            row.update(state="ready", models=sorted(serving.models), pipelines=sorted(able))
            log.info("ready: %s", ", ".join(sorted(serving.models)) or "no package serves")

        def stopping() -> None:
            state["state"] = "stopping"
            row.set_details(state="stopping")
            scorer.stopping.set()

        return consume(make_worker_app(settings, answer), settings, name=owner, on_ready=ready, on_stop=stopping)
    finally:
        if scorer is not None:
            scorer.urgent.close(ENGINE_STOP_S)
        tidier.close()
        keeper.close()
        engine.close(engine_limit_s)
        decoders.close()
        row.close()
        beater.close()
        db.dispose()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> None:
    """The supervised process. Ends without the interpreter's teardown, which libraries' threads hold up or abort."""
    try:
        code = run_worker(Settings())
    except SystemExit as stop:
        code = int(stop.code or 0)
    except FirstreadError as error:
        print(f"firstread: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    logging.shutdown()
    os._exit(code)


if __name__ == "__main__":
    main()
