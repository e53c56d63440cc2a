"""Work on all cores: the same results in the same order, errors as they are, and no thread left behind."""

from __future__ import annotations

import threading

import pytest

from firstread import cores as module
from firstread.cores import cores, each


@pytest.fixture(params=[1, 3])
def on_cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "cores", lambda: request.param)
    return int(request.param)


def test_results_come_in_the_order_of_their_items(on_cores: int) -> None:
    assert each(lambda a, b: (a, b), range(50), range(50, 100)) == list(zip(range(50), range(50, 100), strict=True))
    assert each(str, []) == []


def test_several_threads_work_where_there_are_cores(on_cores: int) -> None:
    both = threading.Barrier(min(2, on_cores), timeout=20)
    each(lambda _: both.wait(), range(4))


def test_an_error_comes_out_and_no_thread_stays(on_cores: int) -> None:
    with pytest.raises(ZeroDivisionError):
        each(lambda number: 1 / number, [1, 2, 0, 3])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("slices")]


def test_without_threads_the_caller_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "cores", lambda: 3)
    monkeypatch.setattr(threading.Thread, "start", no_more)
    assert each(abs, [-1, 2, -3]) == [1, 2, 3]


def test_there_is_a_core() -> None:
    assert cores() >= 1
