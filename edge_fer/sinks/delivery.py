"""The queue between the loop and a receiver that may be slow, dead or away: what every sink of the network shares."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from edge_fer.errors import EdgeFerError

T = TypeVar("T")

MOST = 1000
"""So many messages wait at most."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Before each further try; the last one again and again."""
CLOSE_S = 1.5
"""How long ``close`` waits for what still waits: three sinks in a row end within the five seconds of a stop."""

log = logging.getLogger("edge_fer")


class RefusedError(EdgeFerError):
    """The receiver will not take this message, now or later: it is dropped, and the next one is sent."""


class Delivery(Generic[T]):
    """Sends messages in a thread of its own, so that no receiver slows the loop.

    The queue is bounded, and the oldest message gives way to the newest. A message that does not arrive goes back to
    the front of the queue and is tried again after pauses that grow; the log says once that the receiver is away and
    once that it is back.

    Args:
        name: of the receiver, for the log, without its secrets.
        send: sends a batch, in the thread of the delivery, and returns when it has arrived. Raises OSError or
            EdgeFerError where it has not, and it is tried again; RefusedError where that is of no use. It should give
            up by itself after a few seconds.
        most: messages that wait; what is more is dropped, the oldest first.
        batch: messages that ``send`` is given at once, at most.
        oldest_s: a message that has waited for longer is dropped.
        close_s: how long ``close`` waits.
        pauses_s: seconds before each further try; the last one again and again.
        clock: seconds that only grow.

    Attributes:
        counts: messages by what became of them: ``sent``, ``dropped`` (from a full queue, too old, or left at the end)
            and ``refused``.
        reached: the last try succeeded, or there was none.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[Sequence[T]], None],
        *,
        most: int = MOST,
        batch: int = 1,
        oldest_s: float = math.inf,
        close_s: float = CLOSE_S,
        pauses_s: Sequence[float] = PAUSES_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[str] = Counter(sent=0, dropped=0, refused=0)
        self.reached = True
        self._name = name
        self._send = send
        self._most = most
        self._batch = batch
        self._oldest_s = oldest_s
        self._close_s = close_s
        self._pauses_s = pauses_s
        self._clock = clock
        self._waiting: deque[tuple[float, T]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._failures = 0
        self._last_try = False
        self._dropped_before = 0
        self._refusal = ""
        # A daemon: a receiver that never answers must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=f"delivery to {name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Messages that wait."""
        return len(self._waiting)

    def put(self, message: T) -> None:
        """Hand over a message; returns at once. After ``close`` it is dropped."""
        with self._changed:
            if self._closed:
                self.counts["dropped"] += 1
                return
            self._waiting.append((self._clock(), message))
            self._trim()
            self._changed.notify()

    def close(self) -> None:
        """Send what waits, and end. Waits for ``close_s`` at most; what is left then is dropped. Never raises."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(self._close_s)
        with self._changed:
            self.counts["dropped"] += len(self._waiting)
            self._waiting.clear()

    def _work(self) -> None:
        while batch := self._next():
            try:
                self._send([message for _, message in batch])
            except RefusedError as error:
                self._refused(len(batch), str(error))
                self._arrived(0)
            except (OSError, EdgeFerError) as error:
                if not self._failed(batch, error):
                    return
            except Exception as error:  # a fault of ours in one message must not stop all that follow
                self._refused(len(batch), f"internal error: {error!r}.")
            else:
                self._arrived(len(batch))

    def _next(self) -> list[tuple[float, T]]:
        """The oldest messages, as soon as there are some; none when all are sent and it is closed."""
        with self._changed:
            while True:
                while self._waiting and self._clock() - self._waiting[0][0] > self._oldest_s:
                    self._waiting.popleft()
                    self.counts["dropped"] += 1
                if self._waiting or self._closed:
                    self._last_try = self._closed
                    return [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
                self._changed.wait()

    def _failed(self, batch: Sequence[tuple[float, T]], error: Exception) -> bool:
        """Put a batch back and wait; returns whether to go on."""
        with self._changed:
            self._waiting.extendleft(reversed(batch))
            self._trim()
            if self._last_try:
                return False
            if self.reached:
                self.reached = False
                self._dropped_before = self.counts["dropped"]
                said = (getattr(error, "strerror", None) or str(error) or repr(error)).rstrip(".")
                log.warning("%s: %s. It is tried again; %d messages are kept meanwhile.", self._name, said, self._most)
            pause_s = self._pauses_s[min(self._failures, len(self._pauses_s) - 1)]
            self._failures += 1
            self._changed.wait_for(lambda: self._closed, pause_s)
        return True

    def _arrived(self, count: int) -> None:
        with self._changed:
            self.counts["sent"] += count
            self._failures = 0
            if not self.reached:
                self.reached = True
                dropped = self.counts["dropped"] - self._dropped_before
                log.warning("%s is reached again; %d messages were dropped meanwhile.", self._name, dropped)

    def _refused(self, count: int, why: str) -> None:
        with self._changed:
            self.counts["refused"] += count
        if why != self._refusal:
            self._refusal = why
            log.warning("%s: %s", self._name, why)

    def _trim(self) -> None:
        while len(self._waiting) > self._most:
            self._waiting.popleft()
            self.counts["dropped"] += 1
