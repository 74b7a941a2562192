"""Directories of a FAT: slots of 32 bytes; several make one entry, where a name is longer than 8.3."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

_LONG, _FOLDER, _LABEL = 0x0F, 0x10, 0x08
_SHORT_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~")


@dataclass(frozen=True)
class Entry:
    """A file or folder as its directory has it.

    Attributes:
        name: in full.
        short: the 11 bytes of its 8.3 name.
        is_folder: whether it is one.
        cluster: its first; 0 for an empty file.
        size: bytes of a file.
        raw: its slots in the directory, 32 bytes each.
    """

    name: str
    short: bytes
    is_folder: bool
    cluster: int
    size: int
    raw: bytes


def slots(directory: bytes) -> Iterator[bytes]:
    """The slots that are in use."""
    for at in range(0, len(directory), 32):
        if directory[at : at + 1] in (b"", b"\0"):
            return
        if directory[at] != 0xE5:
            yield directory[at : at + 32]


def is_label(slot: bytes) -> bool:
    """Whether a slot is the volume's label."""
    return bool(slot[11] & _LABEL) and slot[11] != _LONG


def read_entries(directory: bytes, *, is_32: bool) -> list[Entry]:
    """The files and folders of a directory, without those named by dots.

    Args:
        directory: its bytes.
        is_32: whether of a FAT32, where a slot has the upper half of a cluster's number too.
    """
    found, long = [], b""
    for raw in slots(directory):
        if raw[11] == _LONG:
            long += raw
            continue
        high, low, size = struct.unpack_from("<H4xHI", raw, 20)
        name = _long_name(long, raw[:11]) or _short_name(raw)
        if not is_label(raw) and name not in (".", ".."):
            cluster = (high << 16 if is_32 else 0) | low
            found.append(Entry(name, raw[:11], bool(raw[11] & _FOLDER), cluster, size, long + raw))
        long = b""
    return found


def _checksum(short: bytes) -> int:
    total = 0
    for byte in short:
        total = ((total >> 1 | total << 7) + byte) & 0xFF
    return total


def _long_name(slots: bytes, short: bytes) -> str:
    """The name in long slots, the last part first; "" if they belong to another entry."""
    parts = [slots[at : at + 32] for at in range(0, len(slots), 32)]
    if not parts or any(part[13] != _checksum(short) for part in parts):
        return ""
    text = b"".join(part[1:11] + part[14:26] + part[28:32] for part in reversed(parts)).decode("utf-16-le", "replace")
    return text.partition("\0")[0]


def _short_name(raw: bytes) -> str:
    base, extension = (part.rstrip(b" ").decode("cp437") for part in (raw[:8], raw[8:11]))
    # Two flags of Windows NT, which Linux sets too: a part in small letters.
    base = base.lower() if raw[12] & 0x08 else base
    extension = extension.lower() if raw[12] & 0x10 else extension
    return f"{base}.{extension}" if extension else base


def new_entry(name: str, taken: set[bytes], cluster: int, size: int, *, is_folder: bool) -> bytes:
    """The slots of a new file or folder. Its 8.3 name is its own where it has one: the Pi's firmware reads no other."""
    base, _, extension = name.partition(".")
    upper = (base.upper(), extension.upper())
    is_short = (
        0 < len(base) <= 8
        and len(extension) <= 3
        and set("".join(upper)) <= _SHORT_LETTERS
        and all(part in (part.lower(), part.upper()) for part in (base, extension))
        and not (name.endswith("."))
    )
    if is_short:
        short = f"{upper[0]:8}{upper[1]:3}".encode()
        taken.add(short)
        flags = 0x08 * (base != upper[0]) | 0x10 * (extension != upper[1])
        return _short_slot(short, flags, cluster, size, is_folder=is_folder)
    stem = "".join(one for one in name.rpartition(".")[0].upper() or name.upper() if one in _SHORT_LETTERS) or "FILE"
    tail = "".join(one for one in name.rpartition(".")[2].upper() if one in _SHORT_LETTERS)[:3] if "." in name else ""
    number = 1
    while (short := f"{stem[: 7 - len(str(number))]}~{number}".ljust(8).encode() + tail.ljust(3).encode()) in taken:
        number += 1
    taken.add(short)
    letters = name.encode("utf-16-le")
    letters += b"\0\0" if len(letters) % 26 else b""
    letters = letters.ljust(-(-len(letters) // 26) * 26, b"\xff")
    parts = [letters[at : at + 26] for at in range(0, len(letters), 26)]
    long = b""
    for order in range(len(parts), 0, -1):
        part = parts[order - 1]
        last = 0x40 if order == len(parts) else 0
        long += (
            bytes([order | last]) + part[:10] + bytes([_LONG, 0, _checksum(short)]) + part[10:22] + b"\0\0" + part[22:]
        )
    return long + _short_slot(short, 0, cluster, size, is_folder=is_folder)


def _short_slot(short: bytes, flags: int, cluster: int, size: int, *, is_folder: bool) -> bytes:
    now = time.localtime()
    day = (max(now.tm_year, 1980) - 1980) << 9 | now.tm_mon << 5 | now.tm_mday
    clock = now.tm_hour << 11 | now.tm_min << 5 | now.tm_sec // 2
    attributes = _FOLDER if is_folder else 0x20
    return struct.pack(
        "<11sBBBHHHHHHHI",
        short,
        attributes,
        flags,
        0,
        clock,
        day,
        day,
        cluster >> 16,
        clock,
        day,
        cluster & 0xFFFF,
        size,
    )


def dot_entry(name: bytes, cluster: int) -> bytes:
    """The slot by which a folder names itself (``.``) or the one above (``..``)."""
    return _short_slot(name.ljust(11), 0, cluster, 0, is_folder=True)
