"""Freed memory goes back to the system, and only while nothing is in hand."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import psutil
import pytest

from worker.process import memory

KEPT_BYTES = 96 * 1024
"""Below any threshold of mmap: glibc takes it from the heap."""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone gives back so"
)
def test_what_is_free_below_something_in_use_goes_back() -> None:
    blocks = [bytearray(KEPT_BYTES) for _ in range(1000)]
    last = bytearray(KEPT_BYTES)
    full = psutil.Process().memory_info().rss
    blocks.clear()
    memory.give_back()
    assert psutil.Process().memory_info().rss < full - 900 * KEPT_BYTES
    assert len(last) == KEPT_BYTES


ARENAS = """
import ctypes, threading
from worker.process.memory import share_arenas

if {shared}:
    share_arenas()
gate = threading.Barrier(9)
held = []

def work():
    held.append(bytearray(50_000))
    gate.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
gate.wait()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="glibc alone says how many arenas it has")
def test_threads_share_arenas() -> None:
    plain = {name: value for name, value in os.environ.items() if name not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")}

    def arenas(shared: bool, **more: str) -> int:
        command = [sys.executable, "-c", ARENAS.format(shared=shared)]
        done = subprocess.run(command, env=plain | more, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.count("<heap nr=")

    assert arenas(shared=True) <= memory.ARENAS < arenas(shared=False)
    assert arenas(shared=True, MALLOC_ARENA_MAX="1") == 1


class _Jobs:
    taken = 0
    in_hand = 0

    def progress(self) -> dict[int, float]:
        return dict.fromkeys(range(self.in_hand), 0.0)


def test_it_tidies_once_after_jobs_and_never_beside_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tidied: list[int] = []
    monkeypatch.setattr(memory, "give_back", lambda: tidied.append(1))
    jobs = _Jobs()
    tidier = memory.Tidier(jobs)
    assert not tidier.look()
    jobs.taken, jobs.in_hand = 3, 1
    assert [tidier.look() for _ in range(2)] == [False, False]
    jobs.in_hand = 0
    assert [tidier.look() for _ in range(3)] == [True, False, False]
    jobs.taken = 4  # came and went between two looks
    assert [tidier.look() for _ in range(3)] == [False, True, False]
    assert len(tidied) == 2
