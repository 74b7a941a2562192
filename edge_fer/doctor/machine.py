"""What a check sees of a machine, and what it says of it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import pwd
import shutil
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from edge_fer.cameras import Ioctl
from edge_fer.config import Settings
from edge_fer.libraries import Child, run_python

Level: TypeAlias = Literal["green", "yellow", "red"]

_TIME_ERROR = 5  # of adjtimex(2)


@dataclass(frozen=True)
class Finding:
    """What a check says.

    Attributes:
        level: green: good. yellow: works, but look at it. red: edge-fer does not work so.
        text: a sentence.
        cure: the one command that mends it; "" where there is nothing to mend. A red finding has one.
    """

    level: Level
    text: str
    cure: str = ""


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        return "$USER"


def _is_synchronized() -> bool | None:
    """Whether the kernel's clock follows another, as NTP's daemons tell it; None where it cannot be asked."""
    try:
        # modes = 0 changes nothing. More bytes than any architecture's struct timex has.
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))
    except (OSError, AttributeError):
        return None
    return None if state == -1 else state != _TIME_ERROR


def _why_unreachable(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except (OSError, UnicodeError, OverflowError) as error:  # the last for port 99999
        return str(getattr(error, "strerror", None) or error)
    return ""


def _why_taken(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, UnicodeError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""


@dataclass(frozen=True)
class Machine:
    """All that checks know: files below a root, and what is not in files. Tests give another.

    Attributes:
        settings: in force; the defaults where the configuration is wrong.
        config: the file they come from; None for none.
        mistakes: what is wrong in the configuration.
        root: where /proc, /sys, /dev, /etc, /run, /usr and /boot are.
        bits: of a pointer.
        arch: of the processor.
        python: version of this Python.
        libc: name and version of the C library.
        executable: this Python.
        in_venv: it is one of a virtual environment.
        prefix: where that is.
        user: who runs this.
        groups: numbers of the groups that this process has.
        now_s: seconds since 1970.
        ioctl: asks a driver.
        run_python: runs a script in a process of its own; see ``libraries.run_python``.
        may_write: whether this user may write a file or folder.
        free_bytes: on the disk of a folder.
        is_synchronized: whether the clock follows another; None where that cannot be told.
        why_unreachable: why a host does not answer at a port; "" where it does.
        why_taken: why nobody can listen at an address and port of this machine; "" where one can.
    """

    settings: Settings = field(default_factory=Settings)
    config: Path | None = None
    mistakes: tuple[str, ...] = ()
    root: Path = Path("/")
    bits: int = struct.calcsize("P") * 8
    arch: str = platform.machine()
    python: tuple[int, int] = sys.version_info[:2]
    libc: tuple[str, str] = field(default_factory=platform.libc_ver)
    executable: str = sys.executable
    in_venv: bool = sys.prefix != sys.base_prefix
    prefix: Path = Path(sys.prefix)
    user: str = field(default_factory=_user)
    groups: tuple[int, ...] = field(default_factory=lambda: (*os.getgroups(), os.getegid()))
    now_s: float = field(default_factory=time.time)
    ioctl: Ioctl = fcntl.ioctl
    run_python: Callable[..., Child] = run_python
    may_write: Callable[[Path], bool] = lambda path: os.access(path, os.W_OK)
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    is_synchronized: Callable[[], bool | None] = _is_synchronized
    why_unreachable: Callable[[str, int], str] = _why_unreachable
    why_taken: Callable[[str, int], str] = _why_taken

    def path(self, name: str) -> Path:
        """The file that is called so on this machine: "/proc/meminfo"."""
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str:
        """The text of a file; "" where there is none to be read."""
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):
            return ""

    def meminfo_mb(self) -> Mapping[str, int]:
        """The lines of /proc/meminfo, in MB of 1024 * 1024 bytes."""
        found = {}
        for line in self.read("/proc/meminfo").splitlines():
            name, _, rest = line.partition(":")
            if rest.split() and rest.split()[0].isdecimal():
                found[name] = int(rest.split()[0]) // 1024
        return found

    @property
    def board(self) -> str:
        """ "Raspberry Pi 4 Model B Rev 1.4"; "" for what is no such board."""
        return self.read("/proc/device-tree/model").strip("\0 \n")

    @property
    def is_pi(self) -> bool:
        """Whether it is a Raspberry Pi."""
        return "Raspberry Pi" in self.board

    def pip(self, command: str) -> str:
        """A command of pip's as this environment has it: "pip install X" -> "/opt/x/bin/python -m pip install X"."""
        return " && ".join(
            f"{self.executable} -m {part}" if part.startswith("pip ") else part for part in command.split(" && ")
        )


Check: TypeAlias = Callable[[Machine], Iterator[Finding]]
