"""The threads of edge-fer: all of them, and the only place that knows about threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from edge_fer.core import Frame, FrameSource
from edge_fer.errors import UsageError

T = TypeVar("T")

JOIN_S = 1.0
"""How long ``close`` waits for a thread that is inside a driver."""


class _Aside(Generic[T]):
    """A call in a thread of its own."""

    def __init__(self, act: Callable[[], T]) -> None:
        self._act = act
        self._value: list[T] = []
        self._error: BaseException | None = None
        # A daemon, as in LatestFrame.
        self._thread = threading.Thread(target=self._run, name="aside", daemon=True)

    def _run(self) -> None:
        try:
            self._value.append(self._act())
        except BaseException as error:  # whatever it is, it belongs to the caller
            self._error = error

    def result(self) -> T:
        self._thread.start()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value[0]


def call_aside(act: Callable[[], T]) -> T:
    """What ``act`` returns or raises. It runs in another thread, so that the one that waits here hears signals.

    Python hears them between its own steps alone, and a driver or a network can hold a thread for long. When a signal
    handler raises, the wait ends, and the other thread is left to itself.
    """
    return _Aside(act).result()


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

    Attributes:
        dropped: frames that a newer one replaced before they were read.
    """

    def __init__(self, source: FrameSource, drops: bool = True) -> None:
        self.fps = source.fps
        self.live = drops
        self.dropped = 0
        self._source = source
        # Its lock is reentrant: a signal handler may call close() while the same thread holds it in __iter__.
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._error: Exception | None = None
        self._ended = False
        self._closed = False
        # A daemon: a driver that never comes back from a read must not keep the process alive.
        self._thread = threading.Thread(target=self._capture, name="capture", daemon=True)
        self._waited = False

    def __iter__(self) -> Iterator[Frame]:
        """Each frame that is the newest when asked for, once, until the source ends or ``close``.

        Raises:
            Exception: what the source raised in the thread, after its last frame was read.
        """
        if self._thread.ident is None:
            self._thread.start()
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        with self._changed:
            while self._newest is None and not self._ended and not self._closed:
                # A signal handler may call close() between the test above and the wait, which then misses its notice.
                self._changed.wait(0.2)
            if self._closed:
                return None
            frame, self._newest = self._newest, None
            self._changed.notify_all()
            if frame is None and self._error is not None:
                raise self._error
            return frame

    def _capture(self) -> None:
        try:
            for frame in self._source:
                with self._changed:
                    while self._newest is not None and not self.live and not self._closed:
                        self._changed.wait(0.2)
                    if self._closed:
                        break
                    if self._newest is not None:
                        self.dropped += 1
                    self._newest = frame
                    self._changed.notify_all()
        except Exception as error:  # whatever it is, it belongs to the reader
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def close(self) -> None:
        """Stop the thread and close the source. Waits ``JOIN_S`` for a driver, but not again when called again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._source.close()
        if self._thread.is_alive() and not self._waited:
            self._waited = True
            self._thread.join(JOIN_S)


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
