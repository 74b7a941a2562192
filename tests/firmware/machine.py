"""An emulated board: QEMU's machine `virt` with a Pi 3's processor and 512 MB, and a disk laid out as a Pi's card."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

BOOT_OFFSET = "1M"
"""Where the boot partition begins on the disk."""


class Hangs(Exception):
    """The machine did not say what was waited for."""


def copy_to_boot(disk: Path, *sources: Path, to: str = "") -> None:
    """Put files and folders onto the boot partition, in place of what is there."""
    command = ["mcopy", "-o", "-s", "-n", "-i", f"{disk}@@{BOOT_OFFSET}", *sources, f"::{to}"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def read_from_boot(disk: Path, name: str) -> str:
    """A file of the boot partition, as any computer reads it."""
    command = ["mtype", "-i", f"{disk}@@{BOOT_OFFSET}", f"::{name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Machine:
    """A machine that runs; leaving its context is a power cut.

    Args:
        disk: its card.
        kernel: folder of ``vmlinuz`` and ``initrd.img``, which Raspberry Pi's firmware would load.
        log: all that it prints.
        clock: the time at its start; a board without a clock of its own may have any.
    """

    def __init__(self, disk: Path, kernel: Path, log: Path, clock: str = "1970-01-02T00:00:00") -> None:
        # The last two put a shell of root on the console, in place of its login; the disk knows nothing of that.
        cmdline = (
            "root=LABEL=rootfs rw console=ttyAMA0 quiet systemd.show_status=0 "
            "systemd.debug_shell=ttyAMA0 systemd.mask=serial-getty@ttyAMA0.service"
        )
        command = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-smp", "1", "-m", "512", "-nographic"]
        # Its clock counts instructions and leaps over idle time: how busy this machine is changes no timeout.
        command += ["-icount", "shift=0,sleep=off", "-rtc", f"base={clock},clock=vm"]
        command += ["-no-reboot", "-nic", "none"]
        command += ["-kernel", str(kernel / "vmlinuz"), "-initrd", str(kernel / "initrd.img"), "-append", cmdline]
        command += ["-drive", f"file={disk},format=raw,if=none,id=card", "-device", "virtio-blk-device,drive=card"]
        self._log = log.open("ab")
        self._said = b""
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)
        assert self._process.stdin and self._process.stdout
        self._input, self._output = self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cut()

    def cut(self) -> None:
        """Take away the power."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def power_off(self, within_s: float = 300) -> None:
        """Shut down as a person does."""
        self._input.write(b"systemctl poweroff\n")
        self._input.flush()
        end_s = time.monotonic() + within_s
        while self._hear(end_s):
            self._said = b""

    def log_in(self, within_s: float = 900) -> None:
        """Wait for the console's shell, which comes early, and then until all that starts at boot has started."""
        self._wait_for(rb"# ", within_s)
        self._input.write(b"stty -echo cols 1000; PS1=; PS2=; bind 'set enable-bracketed-paste off'; dmesg -n 1\n")
        self.run("true", within_s)
        self.run("systemctl is-system-running --wait", within_s)

    def run(self, command: str, within_s: float = 300) -> tuple[int, str]:
        """Run a command at the console; exit code, and what it says."""
        self._input.write(f"{{ {command}\n}}; code=$?; echo; echo @@$code@@\n".encode())
        self._input.flush()
        text = self._wait_for(rb"@@\d+@@\r?\n", within_s).replace("\r", "")
        text = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text)  # what a shell tells a terminal
        said, code = text.rstrip("\n").removesuffix("@@").rsplit("@@", 1)
        return int(code), said.strip("\n")

    def until(self, command: str, within_s: float, every_s: float = 5) -> None:
        """Wait until a command succeeds."""
        end_s = time.monotonic() + within_s
        said = ""
        while time.monotonic() < end_s:
            code, said = self.run(command)
            if code == 0:
                return
            time.sleep(every_s)
        raise Hangs(f"{command!r} did not succeed within {within_s} s; it said {said!r}")

    def _wait_for(self, pattern: bytes, within_s: float) -> str:
        """All that is said up to a pattern."""
        end_s = time.monotonic() + within_s
        while (found := re.search(pattern, self._said)) is None:
            if not self._hear(end_s):
                raise Hangs(f"the machine ended: {self._said[-300:]!r}")
        said, self._said = self._said[: found.end()], self._said[found.end() :]
        return said.decode(errors="replace")

    def _hear(self, end_s: float) -> bool:
        """Take what is said next; False where the machine has ended."""
        if not select.select([self._output], [], [], max(0.0, end_s - time.monotonic()))[0]:
            raise Hangs(f"nothing was heard in time: {self._said[-300:]!r}")
        more = os.read(self._output.fileno(), 1 << 16)
        self._said += more
        self._log.write(more)
        self._log.flush()
        return bool(more)
