"""The engine: the one thread that owns the device, and the queue in front of it.

Task threads hand in arrays and wait; the engine takes the most urgent request first and fills its batch with slices of
other series and studies that go to the same package. TensorFlow is touched in this thread alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import numpy as np

from firstread.processes.lasting import lasting_thread
from worker.engine.requests import Kind, NoProgress, Outputs, Progress, Request, ServedModel
from worker.errors import EngineError, EngineTimeout
from worker.metrics import BATCH_IMAGES, ENGINE_REQUESTS, IMAGES, INFERENCE_SECONDS
from worker.pipelines.finite import check_finite

LOOK_S = 0.25
DEFAULT_BATCH = 32

log = logging.getLogger(__name__)


class EngineThread:
    """Queue and thread of the device.

    Parameters
    ----------
    batch_wait_s : float
        How long a batch that is not full waits for more, where other studies are in hand.
    limit_s : float
        How long a request waits while the device finishes nothing at all; ten times that is the longest wait.
    max_batch : callable, optional
        Largest batch of a package, by its key; default 32.
    """

    def __init__(
        self, *, batch_wait_s: float, limit_s: float, max_batch: Callable[[str], int] = lambda key: DEFAULT_BATCH
    ) -> None:
        self._batch_wait_s = batch_wait_s
        self._limit_s = limit_s
        self._max_batch = max_batch
        self._models: dict[str, ServedModel] = {}
        self._requests: list[Request] = []
        self._number = 0
        self._users = 0
        self._progress = time.monotonic()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = lasting_thread(self._run, "engine")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, limit_s: float = 10.0) -> None:
        """End the thread after the batch in hand; requests that still wait fail."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=limit_s)

    def serve(self, models: Mapping[str, ServedModel]) -> None:
        """Replace the packages that are served, by ``name/version``."""
        with self._changed:
            self._models = dict(models)

    def call(self, function: Callable[[], Any], limit_s: float) -> Any:
        """Run a function in the engine's thread (loading, self-test, warm-up), before any request."""
        request = self._submit(Request("", np.empty((0,)), "call", (-1, 0), NoProgress(), call=function))
        return self._wait(request, limit_s)

    def handle(self, priority: int, lease: Progress) -> EngineHandle:
        """The engine as one job sees it.

        Parameters
        ----------
        priority : int
            0 is served first.
        lease : Progress
            Touched with each batch that moved the job forward, and while the device serves others before it.
        """
        return EngineHandle(self, priority, lease)

    def _submit(self, request: Request) -> Request:
        with self._changed:
            if self._stopping or not self._thread.is_alive():
                raise EngineError("the engine has ended")
            self._number += 1
            request.urgency = (request.urgency[0], self._number)
            self._requests.append(request)
            ENGINE_REQUESTS.set(len(self._requests))
            self._changed.notify_all()
        return request

    def _wait(self, request: Request, limit_s: float) -> Any:
        started = time.monotonic()
        while True:
            try:
                return request.future.result(timeout=LOOK_S)
            except FutureTimeout:
                if request.future.done():
                    raise
                self._look_after(request, started, limit_s)

    def _look_after(self, request: Request, started: float, limit_s: float) -> None:
        """Give up on a request whose time is over, whose engine is gone or whose job is no longer ours."""
        now = time.monotonic()
        try:
            if now - max(started, self._progress) > limit_s or now - started > 10 * limit_s:
                raise EngineTimeout(f"{request.package}: no answer within the limit")
            if not self._thread.is_alive():
                raise EngineError("the engine has ended")
            request.lease.check()
            if self._progress > request.lease.progress:
                request.lease.touch()
        except BaseException:
            with self._changed:
                if request in self._requests:
                    self._requests.remove(request)
            raise

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._requests and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    break
                head = min(self._requests, key=lambda r: r.urgency)
            if head.kind == "predict":
                self._predict(head)
            else:
                self._single(head)
        with self._changed:
            for request in self._requests:
                request.future.set_exception(EngineError("the engine has ended"))
            self._requests.clear()

    def _single(self, request: Request) -> None:
        try:
            if request.call is not None:
                result: Any = request.call()
            else:
                model = self._model(request.package)
                maps = model.class_maps if request.kind == "class_maps" else model.gradients
                result = maps(request.x, request.finding)
                check_finite(f"{request.package}: class-activation map", result)
                request.lease.touch()
        except BaseException as error:  # noqa: BLE001  # handed to the thread that asked
            self._finish(request, error=error)
        else:
            self._finish(request, result=result)

    def _predict(self, head: Request) -> None:
        limit = max(1, self._max_batch(head.package))
        chosen = self._gather(head, limit)
        slices = []
        left = limit
        for request in chosen:
            n = min(left, request.left)
            slices.append((request, n))
            left -= n
        try:
            outputs = self._batch(head.package, [r.x[r.done : r.done + n] for r, n in slices])
        except BaseException as error:  # noqa: BLE001  # handed to the threads that asked
            if len(slices) == 1:
                self._finish(head, error=error)
            else:
                for request, n in slices:
                    self._alone(request, n)
            return
        start = 0
        for request, n in slices:
            self._take(request, {name: rows[start : start + n] for name, rows in outputs.items()}, n)
            start += n

    def _alone(self, request: Request, n: int) -> None:
        """One request's part of a batch that failed, by itself, so that only the one at fault fails."""
        try:
            outputs = self._batch(request.package, [request.x[request.done : request.done + n]])
        except BaseException as error:  # noqa: BLE001  # handed to the thread that asked
            self._finish(request, error=error)
        else:
            self._take(request, outputs, n)

    def _gather(self, head: Request, limit: int) -> list[Request]:
        """Requests for the head's package, the most urgent first, until a batch is full."""
        deadline = time.monotonic() + self._batch_wait_s
        with self._changed:
            while True:
                same = [r for r in self._requests if r.kind == "predict" and r.package == head.package]
                same = [r for r in same if r.x.shape[1:] == head.x.shape[1:]]
                same.sort(key=lambda r: r.urgency)
                chosen, rows = [], 0
                for request in same:
                    if rows < limit:
                        chosen.append(request)
                        rows += request.left
                remaining_s = deadline - time.monotonic()
                if rows >= limit or self._users <= len(same) or remaining_s <= 0 or self._stopping:
                    return chosen
                self._changed.wait(remaining_s)

    def _batch(self, package: str, arrays: list[np.ndarray]) -> Outputs:
        x = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        started = time.perf_counter()
        outputs = self._model(package).predict(x)
        self._progress = time.monotonic()
        INFERENCE_SECONDS.labels(package).observe(time.perf_counter() - started)
        BATCH_IMAGES.labels(package).observe(len(x))
        IMAGES.labels(package).inc(len(x))
        for name, rows in outputs.items():
            if len(rows) != len(x):
                raise EngineError(f"{package}: output {name} has {len(rows)} rows for {len(x)}")
        return outputs

    def _take(self, request: Request, outputs: Outputs, n: int) -> None:
        """Give a request its rows; the last ones complete it."""
        try:
            for name, rows in outputs.items():
                check_finite(f"{request.package}: {name}", rows)
            request.lease.touch()
            request.parts.append({name: np.asarray(rows) for name, rows in outputs.items()})
            request.done += n
            if request.left == 0:
                parts = request.parts
                self._finish(request, result={name: np.concatenate([p[name] for p in parts]) for name in parts[0]})
        except BaseException as error:  # noqa: BLE001  # handed to the thread that asked
            self._finish(request, error=error)

    def _finish(self, request: Request, *, result: Any = None, error: BaseException | None = None) -> None:
        with self._changed:
            if request in self._requests:
                self._requests.remove(request)
            ENGINE_REQUESTS.set(len(self._requests))
        if request.future.done():
            return
        if error is not None:
            request.future.set_exception(error)
        else:
            request.future.set_result(result)

    def _model(self, package: str) -> ServedModel:
        model = self._models.get(package)
        if model is None:
            raise EngineError(f"{package} is not served")
        return model


class EngineHandle:
    """The engine for one job: its priority, its progress. Fulfils :class:`worker.pipelines.base.Engine`."""

    def __init__(self, engine: EngineThread, priority: int, lease: Progress) -> None:
        self._engine = engine
        self._priority = priority
        self._lease = lease

    def __enter__(self) -> EngineHandle:
        with self._engine._changed:
            self._engine._users += 1
        return self

    def __exit__(self, *exc: object) -> None:
        with self._engine._changed:
            self._engine._users -= 1

    def run(self, package: str, x: np.ndarray) -> Outputs:
        """Score ``x`` (n, H, W, C) float32, n at least 1; n rows in each output.

        Raises
        ------
        EngineError, EngineTimeout, worker.errors.NonFiniteScore, worker.errors.LeaseLost
        """
        return self._ask(package, x, "predict")  # type: ignore[no-any-return]

    def gradients(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        """Class-activation map of ``finding``: float32 (n, h, w) in [0, 1]. Raises as :meth:`run` does."""
        return self._ask(package, x, "gradients", finding)  # type: ignore[no-any-return]

    def class_maps(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        """That map and a second opinion from one pass: float32 (2, n, h, w) in [0, 1]. Raises as :meth:`run` does."""
        return self._ask(package, x, "class_maps", finding)  # type: ignore[no-any-return]

    def _ask(self, package: str, x: np.ndarray, kind: Kind, finding: str = "") -> Any:
        x = np.ascontiguousarray(x, dtype=np.float32)
        if x.ndim != 4 or x.shape[0] == 0:
            raise EngineError(f"{package}: input of shape {x.shape}")
        check_finite(f"{package}: the input", x)
        request = Request(package, x, kind, (self._priority, 0), self._lease, finding)
        return self._engine._wait(self._engine._submit(request), self._engine._limit_s)
