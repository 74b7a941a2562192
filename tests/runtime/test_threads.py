"""The threads: the newest frame wins, signals are heard, pipes are drained, and nothing hangs the reader."""

from __future__ import annotations

import errno
import os
import queue
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_fer import threads
from edge_fer.core import Frame
from edge_fer.threads import LatestFrame, PipeToFile, call_aside, left_running

LONG_S = 20.0  # only reached when the code under test hangs


class PacedSource:
    """Yields what the test sends, when the test sends it."""

    fps = 12.5
    live = True

    def __init__(self) -> None:
        self.orders: queue.Queue[Frame | Exception | None] = queue.Queue()
        self.asked = threading.Semaphore(0)  # released each time the reader comes back for more
        self.closed = 0

    def __iter__(self) -> Iterator[Frame]:
        while True:
            self.asked.release()
            order = self.orders.get(timeout=LONG_S)
            if order is None:
                return
            if isinstance(order, Exception):
                raise order
            yield order

    def close(self) -> None:
        self.closed += 1
        self.orders.put(None)

    def send(self, *orders: Frame | Exception | None) -> None:
        """Hand over, and wait until the thread has taken each."""
        for order in orders:
            assert self.asked.acquire(timeout=LONG_S)
            self.orders.put(order)


def frame(seq: int) -> Frame:
    return Frame(np.zeros((2, 2), np.uint8), seq=seq, time_s=float(seq), stream="paced")


def started() -> tuple[PacedSource, LatestFrame, Iterator[Frame]]:
    """A LatestFrame whose thread runs: it has read frame 0 and waits for more."""
    source = PacedSource()
    latest = LatestFrame(source)
    frames = iter(latest)
    source.orders.put(frame(0))
    assert next(frames).seq == 0
    assert source.asked.acquire(timeout=LONG_S)
    return source, latest, frames


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    source, latest, frames = started()
    source.send(frame(1), frame(2), frame(3))
    assert source.asked.acquire(timeout=LONG_S)  # the thread is back: frame 3 has been stored
    assert next(frames).seq == 3
    assert latest.counts["late"] == 2
    latest.close()


def test_a_reader_that_keeps_up_gets_every_frame_once() -> None:
    source, latest, frames = started()
    for seq in range(1, 20):
        source.send(frame(seq))
        assert next(frames).seq == seq
    assert latest.counts["late"] == 0
    latest.close()


def test_ends_with_the_source_and_after_its_last_frame() -> None:
    source, latest, frames = started()
    source.send(frame(1), None)
    assert [f.seq for f in frames] == [1]
    assert list(latest) == []
    latest.close()


def test_an_error_reaches_the_reader_after_the_last_frame() -> None:
    source, latest, frames = started()
    source.send(frame(1), ZeroDivisionError("in the thread"))
    assert next(frames).seq == 1
    with pytest.raises(ZeroDivisionError, match="in the thread"):
        next(frames)
    latest.close()


def test_close_ends_the_iteration_and_the_thread() -> None:
    source, latest, frames = started()
    latest.close()
    latest.close()
    assert list(frames) == []
    assert source.closed >= 1
    assert not any(thread.is_alive() for thread in latest._threads)


def test_close_before_the_first_frame() -> None:
    source = PacedSource()
    latest = LatestFrame(source)
    latest.close()
    assert list(latest) == []
    assert source.closed == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_close_from_a_signal_handler_while_the_thread_is_started(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PacedSource()
    frames = LatestFrame(source)
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if moment == "before":  # the thread does not run yet, and cannot be waited for
            frames.close()
        start(thread)
        if moment == "after":
            frames.close()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    assert list(frames) == []
    frames.close()  # as the loop does in the end
    frames._threads[-1].join(LONG_S)
    assert source.closed >= 1 and not frames._threads[-1].is_alive()


def test_close_returns_though_the_source_never_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "JOIN_S", 0.01)
    source, latest, frames = started()
    monkeypatch.setattr(source, "close", lambda: None)  # like a driver that hangs in read()
    latest.close()
    assert list(frames) == []
    source.orders.put(None)


def test_close_from_a_signal_handler_wakes_a_waiting_reader() -> None:
    main = threading.get_ident()

    class SignalsThenBlocks(PacedSource):
        def __iter__(self) -> Iterator[Frame]:
            signal.pthread_kill(main, signal.SIGUSR1)
            return super().__iter__()

    latest = LatestFrame(SignalsThenBlocks())
    before = signal.signal(signal.SIGUSR1, lambda *_: latest.close())
    try:
        assert list(latest) == []
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_close_from_a_signal_handler_just_before_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "JOIN_S", 0.01)
    source, latest, frames = started()
    monkeypatch.setattr(source, "close", lambda: None)  # the end of the thread would wake the reader as well
    wait = latest._changed.wait

    def close_then_wait(timeout: float | None = None) -> bool:
        latest.close()
        assert timeout is not None, "the notice of close() came before the wait: it would never end"
        return wait(timeout)

    monkeypatch.setattr(latest._changed, "wait", close_then_wait)
    assert list(frames) == []
    source.orders.put(None)


def test_tells_what_the_source_tells() -> None:
    latest = LatestFrame(PacedSource())
    assert latest.fps == 12.5
    assert latest.live


def test_a_call_aside_gives_its_value_or_its_error() -> None:
    assert call_aside(lambda: threading.current_thread().name) == "aside"
    with pytest.raises(ZeroDivisionError):
        call_aside(lambda: 1 // 0)


def test_a_signal_handler_ends_the_wait_for_a_call_aside() -> None:
    class Stopped(BaseException):
        pass

    def stop(number: int, frame: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGUSR1, stop)
    go_on = threading.Event()

    def act() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        go_on.wait()

    try:
        with pytest.raises(Stopped):
            call_aside(act)
        assert left_running()
    finally:
        go_on.set()
        signal.signal(signal.SIGUSR1, before)


def test_a_pipe_is_copied_whole(tmp_path: Path) -> None:
    data = np.random.default_rng(1).integers(0, 256, 300_000).astype(np.uint8).tobytes()
    reader, writer = os.pipe()
    with (tmp_path / "x").open("wb", buffering=0) as file:
        copy = PipeToFile(reader, file)
        with open(writer, "wb") as pipe:  # noqa: PTH123
            pipe.write(data)
        copy.join()
    assert copy.error is None
    assert (tmp_path / "x").read_bytes() == data


def test_a_pipe_is_read_to_its_end_when_the_disk_is_full() -> None:
    reader, writer = os.pipe()
    with Path("/dev/full").open("wb", buffering=0) as file:
        copy = PipeToFile(reader, file)
        with open(writer, "wb") as pipe:  # noqa: PTH123
            pipe.write(bytes(300_000))  # more than a pipe holds
        copy.join()
    assert copy.error is not None and copy.error.errno == errno.ENOSPC
