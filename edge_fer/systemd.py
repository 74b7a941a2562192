"""What systemd is told of this process, as sd_notify(3) has it: datagrams to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from edge_fer.address import printable
from edge_fer.errors import UnavailableError

PAUSES_S = (1, 2, 5, 10)
"""Between tries to open a camera: the last one again and again."""

_FEEDS = 4
"""How often the watchdog is fed in the time that it allows."""

log = logging.getLogger("edge_fer")


class Service:
    """This process as a service of systemd: that it is ready, what it does, and that it lives.

    Nothing here raises: a service does not end because nobody hears what it says.

    Args:
        address: what NOTIFY_SOCKET holds: a path, or after ``@`` a name without a file.
        watchdog_s: systemd ends the process after so long without a sign of life; None where it does not.
        clock: seconds that only grow.
        sleep: waits for so many seconds; may raise what a signal handler raises.
    """

    def __init__(
        self,
        address: str,
        watchdog_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._feed_s = watchdog_s / _FEEDS if watchdog_s else None
        self._clock = clock
        self._sleep = sleep
        self._fed_s = float("-inf")
        self._status = ""
        self._waits = 0

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Service | None:
        """The service that this process is; None where it is none, as at a terminal."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        watchdog = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(address, int(watchdog) / 1e6 if watchdog.isdecimal() and ours else None)

    def ready(self, status: str) -> None:
        """It has started. What it does, one line for ``systemctl status``, may be said again and again."""
        if status != self._status:
            self._status = status
            self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """A frame is done, or the wait for a camera goes on: feeds the watchdog where it is time to."""
        now_s = self._clock()
        if self._feed_s is not None and now_s - self._fed_s >= self._feed_s:
            self._fed_s = now_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """It ends because it was asked to."""
        self._send("STOPPING=1")

    def wait(self, error: UnavailableError) -> None:
        """A camera cannot be opened: say so once, and wait before the next try, longer each time.

        Args:
            error: why.
        """
        pause_s = PAUSES_S[min(self._waits, len(PAUSES_S) - 1)]
        why = printable(str(error))
        status = f"no camera: {why}"
        if status != self._status:
            log.warning("%s Waiting for it.", why)
        self._waits += 1
        self.ready(status)
        until_s = self._clock() + pause_s
        while (left_s := until_s - self._clock()) > 0:
            self.alive()
            self._sleep(min(left_s, self._feed_s or left_s))
        self.alive()

    def opened(self, camera: str) -> None:
        """The camera is there: recognition starts.

        Args:
            camera: what ``--camera`` names.
        """
        camera = printable(camera)
        if self._waits:
            log.warning("%s is there.", camera)
        self._waits = 0
        self.ready(f"recognizing expressions from {camera}")

    def _send(self, text: str) -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A socket that nobody reads must not hold the loop for ever.
            sender.settimeout(1)
            sender.sendto(text.encode(errors="replace"), self._address)
