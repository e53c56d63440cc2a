"""Decoders in processes of their own: what they give, and what their ends cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from firstread.dicom.pixels import codecs
from firstread.dicom.pixels.codecs import CodedFrame, UnreadablePixels, decode_here
from firstread.dicom.pixels.reading import read_frame
from firstread.phantoms.head import HeadSpec, head_study
from tests.builders.bad_inputs import tiny_slice
from tests.builders.streams import coded, endless_rle, jpeg, of_size, with_streams
from tests.builders.timing import until
from worker.decoder import handles, limits
from worker.decoder import pool as pool_module
from worker.decoder.memory import SLOT_BYTES, SLOTS
from worker.decoder.pool import DecoderPool

PLAIN = coded(jpeg(), JPEGBaseline8Bit, ("pylibjpeg",))


@pytest.fixture(scope="module")
def shared_pool() -> Iterator[DecoderPool]:
    pool = DecoderPool(2)
    pool.start()
    yield pool
    pool.close()


@pytest.fixture
def pool(shared_pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> DecoderPool:
    """Two decoders, which this process's pixels come from too."""
    monkeypatch.setattr(codecs._SEAM, "decode", shared_pool.decode)
    return shared_pool


def ends(reason: str) -> float:
    return REGISTRY.get_sample_value("firstread_decoder_ends_total", {"reason": reason}) or 0.0


def runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def compressed(path: Path, syntax: UID, size: int) -> np.ndarray:
    """Write a slice of that size; its stored values."""
    ds = head_study(HeadSpec(slices=1, size=64)).objects[0]
    stored = np.frombuffer(ds.PixelData, np.uint16).reshape(64, 64)
    large = np.tile(stored, (size // 64 + 1, size // 64 + 1))[:size, :size]
    ds.Rows = ds.Columns = size
    ds.PixelData = large.tobytes()
    ds.compress(syntax, generate_instance_uid=False)
    ds.save_as(path)
    return large


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_frames_are_the_same_as_decoded_here(syntax: UID, pool: DecoderPool, tmp_path: Path) -> None:
    stored = compressed(tmp_path / "object.dcm", syntax, 64)
    there = read_frame(tmp_path / "object.dcm")
    np.testing.assert_array_equal(there.view(np.uint16), stored)
    there[0, 0] = 1  # the caller's own memory


def test_a_frame_larger_than_what_stays_mapped(pool: DecoderPool, tmp_path: Path) -> None:
    size = 5100
    assert 2 * size**2 > SLOT_BYTES
    stored = compressed(tmp_path / "object.dcm", RLELossless, size)
    np.testing.assert_array_equal(read_frame(tmp_path / "object.dcm").view(np.uint16), stored)


def test_frames_that_are_held_are_never_written_over(pool: DecoderPool) -> None:
    frames = [coded(jpeg(seed=seed), JPEGBaseline8Bit, ("pylibjpeg",)) for seed in range(4 * SLOTS)]
    held = [pool.decode(frame) for frame in frames]
    for frame, array in zip(frames, held, strict=True):
        np.testing.assert_array_equal(array, decode_here(frame))
    renew(pool)  # nor do they go with their decoder
    assert pool.decode(PLAIN).shape == (64, 64)
    np.testing.assert_array_equal(held[0], decode_here(frames[0]))


def test_a_refusal_has_the_same_words(pool: DecoderPool) -> None:
    broken = coded(jpeg()[:200], JPEGBaseline8Bit, ("gdcm",))
    with pytest.raises(UnreadablePixels) as here:
        decode_here(broken)
    with pytest.raises(UnreadablePixels) as there:
        pool.decode(broken)
    assert str(there.value) == str(here.value)


def test_a_panic_ends_one_decoder_and_no_thread(pool: DecoderPool) -> None:
    before, pids = ends("panic"), pool.pids()
    with pytest.raises(UnreadablePixels, match="panicked"):
        pool.decode(coded(endless_rle(), RLELossless, ("pylibjpeg", "pydicom"), 32, 16))
    assert ends("panic") == before + 1
    assert len(pool.pids()) == 2 and pool.pids() != pids
    assert pool.decode(PLAIN).shape == (64, 64)


def test_a_panic_here_is_a_refusal_too() -> None:
    with pytest.raises(UnreadablePixels, match="PanicException"):
        decode_here(coded(endless_rle(), RLELossless, ("pylibjpeg", "pydicom"), 32, 16))


def test_a_frame_that_lies_past_every_check_is_held_by_its_memory(pool: DecoderPool) -> None:
    peaks: list[int] = []
    watched = threading.Event()

    def watch() -> None:
        while not watched.wait(0.002):
            for pid in pool.pids():
                try:
                    status = Path(f"/proc/{pid}/statm").read_text().split()
                except OSError:
                    continue
                peaks.append(int(status[1]) * os.sysconf("SC_PAGE_SIZE"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with pytest.raises(UnreadablePixels):
            pool.decode(coded(of_size(jpeg()), JPEGBaseline8Bit, ("pylibjpeg", "gdcm")))
    finally:
        watched.set()
        thread.join()
    assert peaks and max(peaks) < limits.memory_bytes(64 * 64) + 64 * 2**20
    assert pool.decode(PLAIN).shape == (64, 64)


def test_more_memory_than_a_frame_may_have_is_not_to_be_had(pool: DecoderPool) -> None:
    before = ends("memory")
    large = replace(PLAIN, options={**PLAIN.options, "rows": 60_000, "columns": 60_000})
    with pytest.raises(UnreadablePixels, match="memory"):
        pool.decode(large)
    assert ends("memory") > before
    assert pool.decode(PLAIN).shape == (64, 64)


class Halted:
    """A frame that one thread has handed to a decoder which stands still; further decoders do not."""

    def __init__(self, pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pid = 0
        self._armed = False
        self._pool, self._take = pool, pool._take
        monkeypatch.setattr(pool, "_take", self.take)
        self._threads = ThreadPoolExecutor(1)

    def take(self, fresh: bool = False) -> handles.Decoder:
        decoder = self._take(fresh)
        if self._armed and not self.pid:
            os.kill(decoder.pid, signal.SIGSTOP)
            self.pid = decoder.pid
        return decoder

    def start(self) -> Future[np.ndarray]:
        self._armed = True
        future = self._threads.submit(self._pool.decode, PLAIN)
        until(lambda: self.pid)
        time.sleep(0.02)  # by then the frame is handed over; nothing says so of a process that stands still
        return future

    def end(self, number: int) -> None:
        os.kill(self.pid, number)
        os.kill(self.pid, signal.SIGCONT)


@pytest.fixture
def halted(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Halted]:
    yield Halted(pool, monkeypatch)
    monkeypatch.undo()
    assert pool.decode(PLAIN).shape == (64, 64)


def renew(pool: DecoderPool) -> None:
    """Let the next decoders be fresh ones."""
    for pid in pool.pids():
        with suppress(ProcessLookupError):  # gone since an earlier test
            os.kill(pid, signal.SIGKILL)
        until(lambda: not runs(pid))  # noqa: B023


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV], ids=lambda number: number.name)
def test_a_fresh_decoder_that_dies_makes_the_frame_unreadable(
    number: signal.Signals, pool: DecoderPool, halted: Halted
) -> None:
    before = ends("died")
    renew(pool)
    frame = halted.start()
    started = time.monotonic()
    halted.end(number)
    with pytest.raises(UnreadablePixels, match="died"):
        frame.result(timeout=10)
    assert time.monotonic() - started < 1.0
    assert ends("died") == before + 1


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_frame_whose_decoder_may_have_died_of_something_else_is_tried_once_more(
    number: signal.Signals, pool: DecoderPool, halted: Halted
) -> None:
    for _ in range(4):
        pool.decode(PLAIN)  # whatever dies now has had other frames
    frame = halted.start()
    halted.end(number)
    np.testing.assert_array_equal(frame.result(timeout=10), decode_here(PLAIN))


def test_a_decoder_that_hangs_is_ended_and_holds_up_no_other(
    pool: DecoderPool, halted: Halted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FRAME_S", 1.0)
    before = ends("hung")
    frame = halted.start()
    started = time.monotonic()
    for _ in range(20):
        assert pool.decode(PLAIN).shape == (64, 64)
    assert time.monotonic() - started < 0.9
    with pytest.raises(UnreadablePixels, match="within its time"):
        frame.result(timeout=10)
    assert ends("hung") == before + 1
    until(lambda: not runs(halted.pid))


def test_decoders_that_are_slow_keep_no_other_from_starting(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "SLOW_S", 0.2)
    first, second = Halted(pool, monkeypatch), Halted(pool, monkeypatch)
    frames = [first.start(), second.start()]
    started = time.monotonic()
    assert pool.decode(PLAIN).shape == (64, 64)
    assert 0.1 < time.monotonic() - started < 5.0
    for one in (first, second):
        os.kill(one.pid, signal.SIGCONT)
    for frame in frames:
        frame.result(timeout=10)
    until(lambda: len(pool.pids()) == 2)


def test_a_study_wastes_so_much_and_no_more() -> None:
    steps: list[int] = []
    with limits.one_study(lambda: steps.append(1)):
        study = limits.current()
        assert study.limit_s(PLAIN) == pytest.approx(limits.FRAME_S, abs=0.01)
        study.wasted(15.0)
        assert study.limit_s(PLAIN) == pytest.approx(5.0, abs=0.01)
        study.wasted(15.0)
        assert 0.4 < study.limit_s(PLAIN) < 1.0
        study.step()
    assert steps == [1]
    assert limits.current().limit_s(PLAIN) == pytest.approx(limits.FRAME_S, abs=0.01)
    large = CodedFrame(PLAIN.syntax, b"", {"rows": 10_000, "columns": 5_000}, (), 0)
    assert limits.limit_s(large) == pytest.approx(15.0)
    assert limits.memory_bytes(2**20) == 516 * 2**20


def test_a_stop_of_the_whole_group_leaves_a_frame_in_hand_alone(pool: DecoderPool, halted: Halted) -> None:
    frame = halted.start()
    pids = [pool.fork_server_pid, *pool.pids()]
    before = ends("died") + ends("killed")
    assert len({os.getsid(pid) for pid in pids} | {os.getsid(0)}) == 2
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        for pid in pids:
            os.kill(pid, number)
    os.kill(halted.pid, signal.SIGCONT)
    assert frame.result(timeout=10).shape == (64, 64)
    assert runs(pool.fork_server_pid) and pool.fork_server_pid == pids[0] and runs(halted.pid)
    assert ends("died") + ends("killed") == before


def test_a_fork_server_that_is_gone_is_replaced(pool: DecoderPool) -> None:
    gone = [pool.fork_server_pid, *pool.pids()]
    os.kill(pool.fork_server_pid, signal.SIGKILL)
    until(lambda: not any(runs(pid) for pid in gone[1:]))  # they go with it, whatever they are at
    assert pool.decode(PLAIN).shape == (64, 64)
    assert pool.fork_server_pid not in gone and len(pool.pids()) == 2


def test_a_late_answer_of_the_fork_server_is_never_taken_for_another(
    pool: DecoderPool,
) -> None:
    pool.decode(PLAIN)
    server, halted = pool._fork_server, pool.fork_server_pid
    assert server._control is not None
    server._control.settimeout(0.2)
    os.kill(halted, signal.SIGSTOP)
    with pytest.raises(handles.DecoderUnavailable):
        server._exchange({"do": "end", "pid": 0, "kill": False}, ())
    os.kill(halted, signal.SIGCONT)
    decoder = server.fork()
    try:
        assert runs(decoder.pid) and server.pid != halted
    finally:
        server.end(decoder, kill=True)


def test_frames_in_hand_of_a_fork_server_that_is_gone_are_tried_once_more(pool: DecoderPool, halted: Halted) -> None:
    pool.decode(PLAIN)  # what is halted has begun its work
    frame = halted.start()
    gone = pool.fork_server_pid
    os.kill(gone, signal.SIGKILL)
    pool._fork_server.start()  # as another thread would, that needs a decoder at this moment
    np.testing.assert_array_equal(frame.result(timeout=10), decode_here(PLAIN))
    assert pool.fork_server_pid != gone


def test_decoders_hold_no_secrets_and_write_no_memory_down(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL", "postgresql://x:secret@host/db")
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    assert not any("secret" in value for value in handles._environ().values())
    limits_now = Path(f"/proc/{next(pid for pid in pool.pids() if runs(pid))}/limits").read_text()
    core = next(line for line in limits_now.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


def test_decoders_end_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "object.dcm"
    with_streams(tiny_slice(), [jpeg()]).save_as(path)
    program = (
        "import sys, time; from worker.decoder.pool import DecoderPool\n"
        "pool = DecoderPool(2); pool.start(); print(pool.fork_server_pid, *pool.pids(), flush=True); time.sleep(60)"
    )
    worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pids = [int(pid) for pid in worker.stdout.readline().split()]
    assert len(pids) == 3 and all(runs(pid) for pid in pids)
    os.kill(pids[1], signal.SIGSTOP)  # as one that hangs in a codec
    worker.kill()
    worker.wait(timeout=10)
    until(lambda: not any(runs(pid) for pid in pids))
