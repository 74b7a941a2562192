"""The threads of edge-fer: all of them but those that send results, which ``sinks/delivery.py`` has."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from edge_fer.core import Frame, FrameSource
from edge_fer.errors import UsageError

T = TypeVar("T")

JOIN_S = 1.0
"""How long ``close`` waits for a thread that is inside a driver."""
WAKE_S = 0.2
"""How long a thread waits before it looks around."""
MOST_HANGING = 8
"""So many threads may hang in a driver before no other is sent after them."""

log = logging.getLogger("edge_fer")


class _Aside(Generic[T]):
    """A call in a thread of its own, which begins at once."""

    def __init__(self, act: Callable[[], T]) -> None:
        self._act = act
        self._value: list[T] = []
        self._error: BaseException | None = None
        # A daemon, as in LatestFrame.
        self._thread = threading.Thread(target=self._run, name="aside", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._act())
        except BaseException as error:  # whatever it is, it belongs to the caller
            self._error = error

    def result(self) -> T:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value[0]


def call_aside(act: Callable[[], T]) -> T:
    """What ``act`` returns or raises. It runs in another thread, so that the one that waits here hears signals.

    Python hears them between its own steps alone, and a driver or a network can hold a thread for long. When a signal
    handler raises, the wait ends, and the other thread is left to itself.
    """
    return begin_aside(act)()


def begin_aside(act: Callable[[], T]) -> Callable[[], T]:
    """As ``call_aside``, in two steps: the call begins, and what is returned waits for its end."""
    return _Aside(act).result


def start_aside(act: Callable[[], None], name: str) -> Callable[[float], None]:
    """Begin a call in a thread of its own; returns what waits for its end, for so many seconds at most."""
    # A daemon: what waits for the network must not keep the process alive.
    thread = threading.Thread(target=act, name=name, daemon=True)
    thread.start()
    return thread.join


def left_running() -> bool:
    """Whether a thread is left that nobody waits for, as one inside a driver."""
    return any(thread.daemon for thread in threading.enumerate() if thread is not threading.current_thread())


class PipeToFile:
    """Copies a pipe into a file at once and to its end, for a writer that says nothing of failed writes.

    After a failed write the rest of the pipe is read and dropped: the writer would wait for ever.

    Args:
        pipe: descriptor to read from; closed at the end.
        file: to write to, unbuffered; stays open.

    Attributes:
        error: why a write failed; None as long as none did.
    """

    def __init__(self, pipe: int, file: Any) -> None:
        self.error: OSError | None = None
        self._pipe = pipe
        self._file = file
        self._thread = threading.Thread(target=self._copy, name="pipe to file", daemon=True)
        self._thread.start()

    def _copy(self) -> None:
        try:
            while data := os.read(self._pipe, 1 << 16):
                rest = memoryview(data)
                try:
                    while rest and self.error is None:
                        rest = rest[self._file.write(rest) :]
                except OSError as error:
                    self.error = error
        finally:
            os.close(self._pipe)

    def join(self) -> None:
        """Wait until the writer has closed the pipe and all is written. A signal may end that, but not at once."""
        try:
            self._thread.join()
        except BaseException:
            self._thread.join(JOIN_S)
            raise


class LatestFrame:
    """Reads a live source in a thread and keeps only the newest frame; implements ``core.FrameSource``.

    A camera delivers at its own pace. Without this, a reader slower than the camera would see ever older images.

    Args:
        source: the live source. It is read in the thread, and closed with this object.
        drops: False for a source that waits, as a pipe does: it is read in the thread alone, and no frame is lost.
        name: of the camera, for messages.
        counts: where frames that a newer one replaced before they were read are counted, as ``late``.
        give_up_if_stalled: whether the source hangs. If it says so, the thread is left to itself, and another one
            iterates the source anew.
        switch: closes the camera (False), or has it opened again. A source without that, as a pipe or the demo, stays
            open, and what it gives meanwhile is not looked at.
        is_open: whether the camera is open: it is closed a little later than asked for.

    Attributes:
        name: of the camera, for messages.
        counts: see above.
        is_open: see above.
    """

    def __init__(
        self,
        source: FrameSource,
        drops: bool = True,
        *,
        name: str = "camera",
        counts: Counter[str] | None = None,
        give_up_if_stalled: Callable[[], bool] = lambda: False,
        switch: Callable[[bool], None] = lambda on: None,
        is_open: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name = name
        self.is_open = is_open
        self.fps = source.fps
        self.live = drops
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._source = source
        self._give_up_if_stalled = give_up_if_stalled
        self._switch = switch
        self._off = False
        # Its lock is reentrant: a signal handler may call close() while the same thread holds it in __iter__.
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._error: Exception | None = None
        self._ended = False
        self._closed = False
        self._threads: list[threading.Thread] = []  # that are alive; the last one counts
        self._waited = False

    def __iter__(self) -> Iterator[Frame]:
        """Each frame that is the newest when asked for, once, until the source ends or ``close``.

        Raises:
            Exception: what the source raised in the thread, after its last frame was read.
        """
        for _, frame in _taken_in_turn([self], self._changed):
            yield frame
            del frame  # its images, before the camera makes the next

    def switch(self, on: bool) -> None:
        """Close the camera, or have it opened again. What was read before and not yet looked at is dropped.

        Of a source that waits nothing is dropped: the frame in hand is the first one afterwards.
        """
        with self._changed:
            self._off = not on
            if self._off and self.live:
                self._newest = None
            self._changed.notify_all()
        self._switch(on)

    # The rest is for _taken_in_turn, which holds the condition meanwhile.

    def wake_by(self, changed: threading.Condition) -> None:
        """Share a condition with other sources, before any has started."""
        self._changed = changed

    def start(self) -> None:
        """Begin to read, unless that has begun already."""
        if not self._threads and not self._closed:
            self._start_thread()

    def take(self) -> Frame | None:
        """The newest frame, once; None where there is no newer one.

        Raises:
            Exception: what the source raised in the thread, once.
        """
        if self._closed or self._off:
            return None
        frame, self._newest = self._newest, None
        if frame is not None:
            self._changed.notify_all()
        elif self._error is not None:
            error, self._error = self._error, None
            raise error
        return frame

    def is_over(self) -> bool:
        """Whether nothing comes any more: it ended and the last frame is taken, or it was closed."""
        return self._closed or (self._ended and self._newest is None and self._error is None)

    def watch(self) -> None:
        """Leave a thread that hangs to itself and start another."""
        self._threads = [*filter(threading.Thread.is_alive, self._threads[:-1]), *self._threads[-1:]]
        if not self._ended and len(self._threads) <= MOST_HANGING and self._give_up_if_stalled():
            self._start_thread()

    def _start_thread(self) -> None:
        # A daemon: a driver that never comes back from a read must not keep the process alive.
        thread = threading.Thread(target=self._capture, name="capture", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _is_latest(self) -> bool:
        return self._threads[-1] is threading.current_thread()

    def _capture(self) -> None:
        error: Exception | None = None
        try:
            for frame in self._source:
                with self._changed:
                    while (self._off or self._newest is not None) and not self.live and not self._closed:
                        self._changed.wait(WAKE_S)
                    if self._closed or not self._is_latest():
                        break
                    if self._off:
                        continue
                    if self._newest is not None:
                        self.counts["late"] += 1
                    self._newest = frame
                    self._changed.notify_all()
        except Exception as raised:  # whatever it is, it belongs to the reader
            error = raised
        finally:
            with self._changed:
                if self._is_latest():
                    self._ended, self._error = True, error
                self._changed.notify_all()

    def close(self) -> None:
        """Stop the thread and close the source. Waits ``JOIN_S`` for a driver, but not again when called again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._source.close()
        # A signal may have come while the thread is started: that one ends by itself, and cannot be waited for yet.
        if self._threads and self._threads[-1].is_alive() and not self._waited:
            self._waited = True
            self._threads[-1].join(JOIN_S)


class SeveralSources:
    """Several sources at once, each read in a thread of its own.

    The frames come as they are there, and the sources take turns, so that a quick one keeps none from being heard. One
    that ends or breaks leaves the others running.

    Args:
        sources: those that do not drop frames wait until their turn comes.
        idle: called now and then while none has a frame.
    """

    def __init__(self, sources: Sequence[FrameSource], idle: Callable[[], None] = lambda: None) -> None:
        self._idle = idle
        self._sources = [one if isinstance(one, LatestFrame) else LatestFrame(one, drops=False) for one in sources]
        self._changed = threading.Condition()
        for source in self._sources:
            source.wake_by(self._changed)

    def __iter__(self) -> Iterator[tuple[int, Frame]]:
        """Frames, each with the place of its source. What a source raises is raised when all others have ended."""
        return _taken_in_turn(self._sources, self._changed, self._idle)

    def close(self) -> None:
        """Close all."""
        for source in self._sources:
            source.close()


def _taken_in_turn(
    sources: Sequence[LatestFrame], changed: threading.Condition, idle: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, Frame]]:
    """The newest frames of sources that share a condition, each with the place of its source, until all are over."""
    with changed:
        for source in sources:
            source.start()
    waiting = list(enumerate(sources))
    error: Exception | None = None
    while waiting:
        frame: Frame | None = None
        with changed:
            for turn, one in enumerate(waiting):
                try:
                    frame = one[1].take()
                except Exception as raised:  # it belongs to the reader, but not before the others are over
                    if len(sources) > 1:
                        log.warning("%s", raised)
                    error = error or raised
                if frame is not None:
                    waiting.append(waiting.pop(turn))  # it comes last the next time
                    break
            else:
                waiting = [one for one in waiting if not one[1].is_over()]
                if waiting:
                    # A signal handler may call close() between that test and the wait, which then misses its notice.
                    changed.wait(WAKE_S)
            for _, source in waiting:
                source.watch()
        if frame is None:
            idle()
        else:
            yield waiting[-1][0], frame
    if error is not None:
        raise error


class OneThread:
    """Holds an object to the thread that used it first.

    Args:
        name: what the object is called in the message.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._owner: threading.Thread | None = None

    def check(self) -> None:
        """Called by every use.

        Raises:
            UsageError: by another thread than the first.
        """
        current = threading.current_thread()
        if self._owner is None:
            self._owner = current
        elif self._owner is not current:
            raise UsageError(
                f"{self._name} belongs to the thread that used it first ({self._owner.name!r}), and {current.name!r} "
                "calls it now. Make one for each thread."
            )


class PerThread(threading.local, Generic[T]):
    """A value of each thread's own: what one has set, no other sees.

    Attributes:
        value: None before it is set.
    """

    value: T | None = None
