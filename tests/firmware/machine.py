"""An emulated board: QEMU's machine `virt` with a Pi 3's processor and 512 MB, and a disk laid out as a Pi's card.

When its power is cut, the card loses what a real one loses: of that what it has taken and was not told to flush, some.
"""

from __future__ import annotations

import os
import random
import re
import select
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

BOOT_OFFSET = "1M"
"""Where the boot partition begins on the disk."""

_SECTOR = 512
_DISCARD, _HAS_NO_DATA = 1 << 2, 1 << 2 | 1 << 0 | 1 << 3
"""Of QEMU's blklogwrites, which writes as Linux' dm-log-writes does: discard; and flush, discard, mark."""


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


def lose_power(disk: Path, log: Path, chance: random.Random) -> tuple[int, int]:
    """Leave a card as a power cut leaves it: all that was flushed is there, and of the rest each write or not.

    Args:
        disk: the card as it was when the machine was switched on; is changed.
        log: all that the machine has written since, by QEMU's blklogwrites.
        chance: draws which writes are lost.

    Returns:
        How many writes came after the last flush, and how many of them are lost.
    """
    late = lost = 0
    if not log.stat().st_size:  # nothing was written yet
        return 0, 0
    with log.open("rb") as writes, disk.open("r+b") as card:
        # The superblock is brought up to date with each flush.
        _, _, flushed, _ = struct.unpack("<QQQI", writes.read(28))
        writes.seek(_SECTOR)
        number = 0
        while len(entry := writes.read(_SECTOR)) == _SECTOR:
            sector, count, flags, _ = struct.unpack_from("<QQQQ", entry)
            if number >= flushed and not (count or flags):
                break
            size = count * _SECTOR
            data = b"" if flags & _DISCARD or not count else writes.read(size)
            if number >= flushed and data:
                late += 1
                if len(data) < size or chance.random() < 0.5:
                    lost += 1
                    data = b""
            card.seek(sector * _SECTOR)
            card.write(data)
            number += 1
    return late, lost


class Machine:
    """A machine that runs; leaving its context is a power cut.

    As Raspberry Pi's firmware does, it loads kernel, initrd and command line from the boot partition.

    Args:
        disk: its card.
        log: all that it prints is added there.
        clock: the time at its start; a board without a clock of its own may have any.
        chance: draws what a power cut leaves.
        ssh_port: of this computer, leads to its port 22. It is then in a network, and its clock goes as ours does.
    """

    def __init__(
        self,
        disk: Path,
        log: Path,
        clock: str = "1970-01-02T00:00:00",
        *,
        chance: random.Random | None = None,
        ssh_port: int | None = None,
    ) -> None:
        self._disk, self._chance = disk, chance or random.Random(0)
        self._before, self._writes = disk.with_suffix(".before"), disk.with_suffix(".writes")
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", disk, self._before], check=True)
        self._writes.write_bytes(b"")
        command = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-smp", "1", "-m", "512", "-nographic"]
        command += ["-no-reboot", "-device", "i6300esb", "-action", "watchdog=poweroff"]
        # A clock that counts instructions and leaps over idle time: how busy this computer is changes no timeout.
        command += ["-rtc", f"base={clock},clock=vm", *([] if ssh_port else ["-icount", "shift=0,sleep=off"])]
        command += ["-nic", "none"]
        if ssh_port:
            command += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{ssh_port}-:22"]
            command += ["-device", "virtio-net-device,netdev=net"]
        command += ["-blockdev", f"driver=file,node-name=card,filename={disk}"]
        command += ["-blockdev", f"driver=file,node-name=writes,filename={self._writes}"]
        command += ["-blockdev", "driver=blklogwrites,node-name=logged,file=card,log=writes"]
        command += ["-device", "virtio-blk-device,drive=logged"]
        self._folder = Path(tempfile.mkdtemp(dir=disk.parent))
        for name in ("vmlinuz", "initrd.img"):
            subprocess.run(["mcopy", "-n", "-i", f"{disk}@@{BOOT_OFFSET}", f"::{name}", self._folder], check=True)
        # The last two put a shell of root on the console, in place of its login; the disk knows nothing of that.
        words = [*read_from_boot(disk, "cmdline.txt").split(), "net.ifnames=0", "systemd.show_status=0"]
        words += ["systemd.debug_shell=ttyAMA0", "systemd.mask=serial-getty@ttyAMA0.service"]
        command += ["-kernel", str(self._folder / "vmlinuz"), "-initrd", str(self._folder / "initrd.img")]
        command += ["-append", " ".join(words)]
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

    def cut(self) -> tuple[int, int]:
        """Take away the power; how many writes were not flushed, and how many of them are lost."""
        self._process.kill()
        self._process.wait()
        if not self._before.exists():
            return 0, 0
        lost = lose_power(self._before, self._writes, self._chance)
        self._before.replace(self._disk)
        self._clean_up()
        return lost

    def power_off(self, within_s: float = 300) -> None:
        """Shut down as a person does."""
        self.type("systemctl poweroff")
        self.ends(within_s)

    def ends(self, within_s: float) -> None:
        """Wait until it is off, by itself."""
        end_s = time.monotonic() + within_s
        while self._hear(end_s):
            self._said = b""
        self._process.wait()
        self._clean_up()

    def _clean_up(self) -> None:
        self._log.close()
        self._before.unlink(missing_ok=True)
        self._writes.unlink(missing_ok=True)
        shutil.rmtree(self._folder)

    def log_in(self, within_s: float = 900) -> None:
        """Wait for the console's shell, which comes early, and then until all that starts at boot has started."""
        self._wait_for(rb"# ", within_s)
        self._input.write(b"stty -echo cols 1000; PS1=; PS2=; bind 'set enable-bracketed-paste off'; dmesg -n 1\n")
        self.run("true", within_s)
        self.run("systemctl is-system-running --wait", within_s)

    def type(self, command: str) -> None:
        """Say something at the console, and wait for nothing."""
        self._input.write(f"{command}\n".encode())
        self._input.flush()

    def run(self, command: str, within_s: float = 300) -> tuple[int, str]:
        """Run a command at the console; exit code, and what it says."""
        self.type(f"{{ {command}\n}}; code=$?; echo; echo @@$code@@")
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
