"""Shared and alone."""

from __future__ import annotations

import threading
import time

import pytest

from worker.scoring.shared_lock import SharedLock


def test_alone_waits_for_the_others_and_keeps_new_ones_out() -> None:
    lock = SharedLock()
    order: list[str] = []
    inside = threading.Event()
    leave = threading.Event()

    def first() -> None:
        with lock.shared():
            inside.set()
            leave.wait(5)
            order.append("first out")

    def alone() -> None:
        with lock.alone() as got:
            assert got
            order.append("alone")
            time.sleep(0.1)

    def late() -> None:
        with lock.shared():
            order.append("late")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert inside.wait(5)
    threads.append(threading.Thread(target=alone))
    threads[-1].start()
    time.sleep(0.1)
    threads.append(threading.Thread(target=late))
    threads[-1].start()
    time.sleep(0.1)
    assert order == []
    leave.set()
    for thread in threads:
        thread.join(5)
    assert order == ["first out", "alone", "late"]


def test_alone_gives_up_after_its_limit_and_tells() -> None:
    lock = SharedLock()
    with lock.shared(), lock.alone(limit_s=0.1) as got:
        assert not got
    with lock.alone() as got:
        assert got


def test_waiting_can_be_broken_off() -> None:
    lock = SharedLock()

    def stop() -> None:
        raise RuntimeError("no longer")

    with lock.shared(), pytest.raises(RuntimeError), lock.alone(still=stop):
        pass
    with lock.shared():
        pass
