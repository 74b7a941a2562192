"""Where a board's files go: a mounted boot partition, an image file, or a card in a reader."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from card.errors import CANNOT_WRITE, NO_INPUT, USAGE, FlashError, megabytes, printable

LARGEST = 512 * 10**9
"""Bytes. What is larger is hardly a card for a board, but somebody's disk."""


class Folder:
    """A boot partition that the system has mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> set[str]:
        """What lies at the top, in small letters."""
        return {entry.name.lower() for entry in self.path.iterdir()}

    def free(self) -> int:
        """Bytes that are free."""
        return shutil.disk_usage(self.path).free

    def read(self, path: str) -> bytes:
        """The content of a file.

        Raises:
            KeyError: there is none.
        """
        try:
            return (self.path / path).read_bytes()
        except FileNotFoundError:
            raise KeyError(path) from None

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Write files. Each top-level file or folder that is named among them is replaced whole; all else stays.

        Everything is written beside what it replaces before anything is replaced.

        Raises:
            FlashError: it cannot be written; then nothing is replaced.
        """
        size = sum(len(content) for content in files.values())
        if size > self.free():
            raise FlashError(
                f"{self.path} is full: {megabytes(size)} are needed, {megabytes(self.free())} free. Delete what "
                "does not belong there, or write the system anew.",
                CANNOT_WRITE,
            )
        new = self.path / f"new-{secrets.token_hex(4)}"
        try:
            for name, content in files.items():
                target = new / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for top in new.iterdir():
                old = self.path / top.name
                if old.is_dir():
                    old.rename(new.with_name(f"{new.name}-old"))
                top.replace(old)
                shutil.rmtree(new.with_name(f"{new.name}-old"), ignore_errors=True)
        except OSError as error:
            message = (
                f"Cannot write to {self.path}: {error.strerror}. Is the card locked, or mounted for reading alone?"
            )
            raise FlashError(message, CANNOT_WRITE) from None
        finally:
            shutil.rmtree(new, ignore_errors=True)


def is_device(path: Path) -> bool:
    """Whether a path names a disk. On macOS and Windows, where this program knows too little of them, that is refused.

    Raises:
        FlashError: it is a disk of a system other than Linux.
    """
    text = str(path)
    if sys.platform != "linux" and (text.startswith("/dev/") or text.startswith("\\\\.\\")):
        raise FlashError(
            "On this system, write the card with Raspberry Pi Imager, without its customization; put it in again and "
            "give its boot partition here: /Volumes/bootfs, or a drive as D:\\.",
            USAGE,
        )
    try:
        return stat.S_ISBLK(path.stat().st_mode)
    except OSError:
        return False


def device_size(
    path: Path, *, yes_really: bool, sys_block: Path = Path("/sys/class/block"), proc: Path = Path("/proc")
) -> int:
    """Check that a disk may be written over.

    Args:
        path: of a whole disk, as /dev/sdb.
        yes_really: also if it is mounted, or larger than ``LARGEST``; never if the running system lies on it.
        sys_block: where the kernel describes its disks.
        proc: where the kernel says what is mounted.

    Returns:
        Its size in bytes.

    Raises:
        FlashError: it may not.
    """
    name = path.resolve().name
    device = sys_block / name
    if not device.is_dir():
        raise FlashError(f"{path} is no disk that the kernel knows: see lsblk.", NO_INPUT)
    if (device / "partition").exists():
        raise FlashError(f"{path} is a partition: give the whole disk, as lsblk names it.", USAGE)
    parts = [device, *(part for part in device.resolve().iterdir() if (part / "partition").exists())]
    numbers = {(part / "dev").read_text().strip() for part in parts}
    size = int((device / "size").read_text()) * 512
    if not size:
        raise FlashError(f"{path} holds no card: put one in.", NO_INPUT)
    mounted = [
        line.split()[4] for line in (proc / "self/mountinfo").read_text().splitlines() if line.split()[2] in numbers
    ]
    swaps = (proc / "swaps").read_text().split() if (proc / "swaps").exists() else []
    names = {part.name for part in parts}
    held = any(any((part / "holders").iterdir()) for part in parts if (part / "holders").is_dir())
    if (
        held
        or {Path(word).name for word in swaps} & names
        or {"/", "/boot", "/boot/efi", "/home", "/usr", "/var"} & set(mounted)
    ):
        raise FlashError(f"{path} is a disk of this computer's own system: give the card's.", USAGE)
    if mounted and not yes_really:
        shown = printable(", ".join(sorted(mounted)))
        raise FlashError(
            f"{path} is mounted ({shown}): unmount it (umount {sorted(mounted)[0]}), or say --yes-really.", USAGE
        )
    if size > LARGEST and not yes_really:
        raise FlashError(
            f"{path} has {megabytes(size)}, which is no card's size: say --yes-really if it is the right disk.", USAGE
        )
    return size


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A path for a file to be made, that takes the place of ``path`` once it is whole, and goes if it fails."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise FlashError(f"Cannot write {path}: {error.strerror}.", CANNOT_WRITE) from None
    finally:
        part.unlink(missing_ok=True)
