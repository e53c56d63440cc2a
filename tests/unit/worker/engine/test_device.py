"""The engine: urgent first, batches over studies, the guilty alone pay, no wait without an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tests.builders.timing import until
from worker.engine.device import EngineThread
from worker.errors import EngineError, EngineTimeout, LeaseLost, NonFiniteScore
from worker.metrics import ENGINE_REQUESTS
from worker.scoring.leases import Lease


class Recorder:
    """A model that notes its batches; waits for ``gate`` before each, so that a test can queue up requests."""

    batch_sizes = (1, 8)

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
        self.entered.set()
        assert self.gate.wait(10)
        self.batches.append([float(v) for v in x[:, 0, 0, 0]])
        if (x == 13.0).any():
            raise RuntimeError("out of memory")
        p = x[:, :1, 0, 0].copy()
        p[x[:, 0, 0, 0] == 99.0] = np.nan
        return {"p": p}

    def gradients(self, x: np.ndarray, finding: str) -> np.ndarray:
        return x[..., 0]

    def class_maps(self, x: np.ndarray, finding: str) -> np.ndarray:
        return np.stack([x[..., 0], 2 * x[..., 0]])


@pytest.fixture
def model() -> Recorder:
    return Recorder()


@pytest.fixture
def engine(model: Recorder) -> Iterator[EngineThread]:
    thread = EngineThread(batch_wait_s=0.02, limit_s=2.0, max_batch=lambda key: 4)
    thread.serve({"m/1": model})
    thread.start()
    yield thread
    model.gate.set()
    thread.close()


def rows(value: float, n: int) -> np.ndarray:
    return np.full((n, 2, 2, 1), value, dtype=np.float32)


def start_asking(
    engine: EngineThread, priority: int, x: np.ndarray, answers: dict[int, object], key: int
) -> threading.Thread:
    def run() -> None:
        try:
            with engine.handle(priority, Lease(key)) as handle:
                answers[key] = handle.run("m/1", x)["p"]
        except Exception as error:  # noqa: BLE001  # looked at by the test
            answers[key] = error

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def requests(n: int) -> None:
    """Wait until so many requests are with the engine, those in the batch in hand among them."""
    until(lambda: ENGINE_REQUESTS._value.get() == n, what=f"{n} requests")


def join_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_urgent_request_overtakes_a_long_one_and_batches_are_shared(engine: EngineThread, model: Recorder) -> None:
    model.gate.clear()
    answers: dict[int, object] = {}
    threads = [start_asking(engine, 7, rows(1, 10), answers, 1)]
    assert model.entered.wait(10)
    threads.append(start_asking(engine, 0, rows(2, 3), answers, 2))
    requests(2)
    model.gate.set()
    join_all(threads)
    assert model.batches[0] == [1, 1, 1, 1]
    assert model.batches[1] == [2, 2, 2, 1]
    assert all(len(batch) <= 4 for batch in model.batches)
    assert np.asarray(answers[1]).shape == (10, 1)
    assert (np.asarray(answers[2]) == 2).all()


def test_failing_batch_hurts_only_the_study_that_made_it_fail(engine: EngineThread, model: Recorder) -> None:
    model.gate.clear()
    answers: dict[int, object] = {}
    threads = [start_asking(engine, 5, rows(4, 1), answers, 0)]
    assert model.entered.wait(10)
    threads += [start_asking(engine, 5, rows(13, 1), answers, 1), start_asking(engine, 5, rows(5, 2), answers, 2)]
    requests(3)
    model.gate.set()
    join_all(threads)
    assert isinstance(answers[1], RuntimeError)
    assert (np.asarray(answers[2]) == 5).all()
    assert (np.asarray(answers[0]) == 4).all()


def test_nan_is_a_failure_of_its_own_study_only(engine: EngineThread, model: Recorder) -> None:
    model.gate.clear()
    answers: dict[int, object] = {}
    threads = [start_asking(engine, 5, rows(99, 1), answers, 1), start_asking(engine, 5, rows(6, 1), answers, 2)]
    requests(2)
    model.gate.set()
    join_all(threads)
    assert isinstance(answers[1], NonFiniteScore)
    assert (np.asarray(answers[2]) == 6).all()


def test_silent_device_ends_the_wait(engine: EngineThread, model: Recorder) -> None:
    model.gate.clear()
    with engine.handle(5, Lease(1)) as handle, pytest.raises(EngineTimeout):
        handle.run("m/1", rows(1, 1))


def test_lost_lease_ends_the_wait(engine: EngineThread, model: Recorder) -> None:
    model.gate.clear()
    lease = Lease(1)
    threading.Timer(0.1, lease.lose).start()
    with engine.handle(5, lease) as handle, pytest.raises(LeaseLost):
        handle.run("m/1", rows(1, 1))


def test_waiting_behind_others_counts_as_progress(engine: EngineThread) -> None:
    permits = threading.Semaphore(0)

    class Stepped(Recorder):
        def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
            assert permits.acquire(timeout=10)
            return super().predict(x)

    engine.serve({"m/1": Stepped()})
    answers: dict[int, object] = {}
    lease = Lease(9)
    before = lease.progress
    threads = [start_asking(engine, 0, rows(1, 8), answers, 1)]
    requests(1)

    def last() -> None:
        with engine.handle(9, lease) as handle:
            answers[9] = handle.run("m/1", rows(2, 1))["p"]

    threads.append(threading.Thread(target=last))
    threads[-1].start()
    requests(2)
    permits.release()
    until(lambda: lease.progress > before, what="progress after a batch of another job")
    assert 9 not in answers
    permits.release(2)
    join_all(threads)
    assert 9 in answers


@pytest.mark.parametrize("x", [np.zeros((0, 2, 2, 1)), np.zeros((2, 2)), np.full((1, 2, 2, 1), np.inf)])
def test_impossible_input_is_refused(engine: EngineThread, x: np.ndarray) -> None:
    with engine.handle(5, Lease(1)) as handle, pytest.raises((EngineError, NonFiniteScore)):
        handle.run("m/1", x)


def test_unknown_package_and_closed_engine_answer_at_once(engine: EngineThread) -> None:
    with engine.handle(5, Lease(1)) as handle:
        with pytest.raises(EngineError, match="not served"):
            handle.run("m/2", rows(1, 1))
        assert handle.gradients("m/1", rows(3, 1), "any").shape == (1, 2, 2)
        assert handle.class_maps("m/1", rows(3, 1), "any")[:, 0, 0, 0].tolist() == [3.0, 6.0]
        engine.close()
        with pytest.raises(EngineError, match="ended"):
            handle.run("m/1", rows(1, 1))


class Panic(BaseException):
    """What a library written in Rust raises: no ``Exception``."""


def test_what_is_no_exception_reaches_who_asked_and_the_engine_goes_on(engine: EngineThread, model: Recorder) -> None:
    def panics() -> None:
        raise Panic("broken")

    with pytest.raises(Panic):
        engine.call(panics, 5.0)
    with engine.handle(5, Lease(1)) as handle:
        assert handle.run("m/1", rows(1.0, 2))["p"].shape == (2, 1)
