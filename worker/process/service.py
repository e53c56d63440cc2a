"""The worker process: loads and warms the models, then answers doorbells until SIGTERM."""

from __future__ import annotations

import logging
import os
import sys

from firstread.errors import FirstreadError
from firstread.logs import setup_logging
from firstread.processes.spawning import process_id
from firstread.settings import Settings
from worker.process.heartbeat import OWNER_VARIABLE
from worker.process.memory import share_arenas


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
    share_arenas()
    from worker.process.running import RunningWorker

    worker = RunningWorker(settings, os.environ.get(OWNER_VARIABLE) or process_id("worker"))
    try:
        return worker.serve()
    finally:
        worker.close()


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
