"""Tasks that run a little ahead of the use of their results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from firstread.dicom.ahead import WIDTH, in_order

STUDY: ContextVar[str] = ContextVar("study", default="")


def test_results_come_in_order_and_no_more_tasks_run_than_allowed() -> None:
    running: list[int] = []
    most: list[int] = []

    def task(number: int) -> Callable[[], int]:
        def run() -> int:
            running.append(number)
            most.append(len(running))
            time.sleep(0.01 if number % 2 else 0.03)
            running.remove(number)
            return number

        return run

    assert list(in_order(task(n) for n in range(8))) == list(range(8))
    assert max(most) == WIDTH


def test_tasks_belong_to_the_study_of_who_asks() -> None:
    token = STUDY.set("this one")
    try:
        assert list(in_order([STUDY.get, STUDY.get])) == ["this one"] * 2
    finally:
        STUDY.reset(token)


def test_an_error_comes_out_in_its_turn_and_ends_the_rest() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def task(number: int) -> Callable[[], int]:
        def run() -> int:
            begun.append(number)
            if number == 1:
                raise ValueError
            gate.wait(0.2)
            return number

        return run

    results = in_order(task(n) for n in range(100))
    assert next(results) == 0
    with pytest.raises(ValueError):
        list(results)
    assert len(begun) < 8
