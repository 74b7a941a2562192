"""What systemd is told of this process, as sd_notify(3) has it: datagrams to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from edge_fer.address import printable
from edge_fer.control import Control, State

_FEEDS = 4
"""How often the watchdog is fed in the time that it allows."""

_TEXTS = {
    State.WAITING: "waiting for a camera",
    State.RECOGNIZING: "recognizing expressions from {}",
    State.PAUSING: "pausing: a camera is not closed yet",
    State.PAUSED: "paused: all cameras are closed",
    State.STOPPED: "stopped",
}


_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Of syslog(3), by those of Python."""


def in_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr goes to the journal of systemd, as JOURNAL_STREAM says (systemd.exec(5))."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{status.st_dev}:{status.st_ino}"


class JournalFormatter(logging.Formatter):
    """Lines for the journal: their priority stands before them (sd-daemon(3)); it knows by itself whose they are."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        text = super().format(record).replace("\n", " ")
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{text}"


class Service:
    """This process as a service of systemd: that it is ready, what it does, and that it lives.

    Nothing here raises: a service does not end because nobody hears what it says.

    Args:
        address: what NOTIFY_SOCKET holds: a path, or after ``@`` a name without a file.
        watchdog_s: systemd ends the process after so long without a sign of life; None where it does not.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        address: str,
        watchdog_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._feed_s = watchdog_s / _FEEDS if watchdog_s else None
        self._clock = clock
        self._fed_s = float("-inf")
        self._status = ""
        self._frames = 0

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Service | None:
        """The service that this process is; None where it is none, as at a terminal."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        watchdog = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(address, int(watchdog) / 1e6 if watchdog.isdecimal() and ours else None)

    def tell(self, control: Control, camera: str) -> None:
        """What the loop does, for ``systemctl status``; and that it lives, where it may say so.

        The watchdog is fed by each frame, and by the loop while it waits for a camera or is paused. It is not fed while
        a camera that was switched off does not close: then the end of the process closes it.

        Args:
            control: of the loop, which has started.
            camera: what ``--camera`` names.
        """
        if control.state is State.STARTING:
            return
        status = _TEXTS[control.state].format(printable(camera))
        if control.state is State.WAITING and control.reason:
            status = f"no camera: {control.reason}"
        if status != self._status:
            self._status = status
            self._send(f"READY=1\nSTATUS={status}")
        if control.frames != self._frames or control.state in (State.WAITING, State.PAUSED):
            self._frames = control.frames
            self._alive()

    def _alive(self) -> None:
        now_s = self._clock()
        if self._feed_s is not None and now_s - self._fed_s >= self._feed_s:
            self._fed_s = now_s
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """It reads its configuration again."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """It has done so."""
        self._send("READY=1")

    def stopping(self) -> None:
        """It ends because it was asked to."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A socket that nobody reads must not hold the loop for ever.
            sender.settimeout(1)
            sender.sendto(text.encode(errors="replace"), self._address)
