"""FAT16 and FAT32 in an image file or on a device, without mounting it.

After Microsoft's "FAT32 File System Specification" (version 1.03, 2000). What is new goes into free clusters first;
then the allocation table is written, then the root directory, with which it counts, and only then the old is freed. Cut
off before the root directory is written, the partition holds what it held.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import IO

from card.directory import Entry, dot_entry, is_label, new_entry, read_entries, slots
from card.errors import CANNOT_WRITE, FlashError, megabytes

SECTOR = 512
_LARGEST_TABLE = 64 << 20
"""Bytes: of 16 million clusters. What claims more is no card's boot partition."""
_FAT_TYPES = (0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E)


def partitions(file: IO[bytes]) -> list[tuple[int, int]]:
    """Where a FAT may lie, as first byte and one past the last: of a GPT or an MBR, or the whole file."""
    file.seek(0)
    head = file.read(2 * SECTOR)
    if head[510:512] != b"\x55\xaa":
        return []
    table = [struct.unpack_from("<4xB3xII", head, 446 + 16 * number) for number in range(4)]
    if any(kind == 0xEE for kind, _, _ in table) and head[SECTOR : SECTOR + 8] == b"EFI PART":
        first, number, size = struct.unpack_from("<QII", head, SECTOR + 72)
        file.seek(first * SECTOR)
        entries = file.read(min(number, 128) * size)
        spans = [struct.unpack_from("<QQ", entries, at + 32) for at in range(0, len(entries) - 47, size)]
        return [(begin * SECTOR, (last + 1) * SECTOR) for begin, last in spans if begin]
    found = [(begin * SECTOR, (begin + count) * SECTOR) for kind, begin, count in table if kind in _FAT_TYPES]
    return found or [(0, file.seek(0, os.SEEK_END))]


def flush(file: IO[bytes]) -> None:
    """Have everything on the medium, and read it from there hereafter, not from memory."""
    file.flush()
    os.fsync(file.fileno())
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Fat:
    """One FAT file system."""

    def __init__(self, file: IO[bytes], start: int = 0) -> None:
        """Read the allocation table.

        Args:
            file: opened for reading, for ``replace`` also for writing.
            start: first byte of the partition.

        Raises:
            FlashError: there is none, or a FAT12.
        """
        self._file, self._start = file, start
        boot = self._read(0, SECTOR)
        if len(boot) < SECTOR or boot[510:512] != b"\x55\xaa" or boot[:1] not in (b"\xeb", b"\xe9"):
            raise FlashError("no FAT file system")
        sector, per_cluster, reserved, self._copies, root_entries, total16, _, size16 = struct.unpack_from(
            "<HBHBHHBH", boot, 11
        )
        total32, size32, _, _, self._root_cluster, self._info = struct.unpack_from("<IIHHIH", boot, 32)
        total, fat_size = total16 or total32, size16 or size32
        if sector not in (512, 1024, 2048, 4096) or not per_cluster or not self._copies or not fat_size:
            raise FlashError("no FAT file system")
        self._is_32 = size16 == 0
        self._cluster_size: int = sector * per_cluster
        self._fat_at, self._fat_size = reserved * sector, fat_size * sector
        self._root_at: int
        self._root_at, root_size = (reserved + self._copies * fat_size) * sector, root_entries * 32
        self._data_at: int = self._root_at + -(-root_size // sector) * sector
        self._root_size, self._info = root_size, self._info * sector if self._is_32 else 0
        clusters = (total * sector - self._data_at) // self._cluster_size
        if not self._is_32 and clusters < 4085:
            raise FlashError("a FAT12 file system")
        kind, width = ("I", 4) if self._is_32 else ("H", 2)
        if not 0 < (clusters + 2) * width <= min(self._fat_size, _LARGEST_TABLE):
            raise FlashError("no FAT file system of a card")
        self._format = f"<{clusters + 2}{kind}"
        table = self._read(self._fat_at, (clusters + 2) * width)
        if len(table) < (clusters + 2) * width:
            raise FlashError("a FAT file system that is cut off")
        self._table = list(struct.unpack(self._format, table))
        self._mask, self._end = (0x0FFFFFFF, 0x0FFFFFF8) if self._is_32 else (0xFFFF, 0xFFF8)

    def names(self) -> set[str]:
        """What lies at the top, in small letters."""
        return {entry.name.lower() for entry in self._entries(self._root())}

    def free(self) -> int:
        """Bytes that are free."""
        return self._cluster_size * sum(not entry & self._mask for entry in self._table[2:])

    def read(self, path: str) -> bytes:
        """The content of a file.

        Args:
            path: with slashes.

        Raises:
            KeyError: there is none.
        """
        directory = self._root()
        *folders, name = path.lower().split("/")
        for folder in folders:
            directory = self._content(self._find(directory, folder).cluster)
        entry = self._find(directory, name)
        return self._content(entry.cluster)[: entry.size] if entry.cluster else b""

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Write files. Each top-level file or folder that is named among them is replaced whole; all else stays.

        Args:
            files: content by path, with slashes.

        Raises:
            FlashError: there is no room; nothing is changed then.
        """
        needed = sum(-(-len(content) // self._cluster_size) for content in files.values())
        entries_size = 32 * sum(3 + len(path.rpartition("/")[2]) // 13 for path in files)
        needed += entries_size // self._cluster_size + 3 * len({path.rpartition("/")[0] for path in files})
        if needed * self._cluster_size > self.free():
            raise FlashError(
                f"The boot partition is full: {megabytes(needed * self._cluster_size)} are needed, "
                f"{megabytes(self.free())} free. Delete what does not belong there, or write the system anew.",
                CANNOT_WRITE,
            )
        self._unused = iter(
            [number for number, entry in enumerate(self._table) if number > 1 and not entry & self._mask]
        )
        tops = {path.split("/")[0].lower() for path in files}
        entries = self._entries(self._root())
        kept = [entry for entry in entries if entry.name.lower() not in tops]
        volume = [raw for raw in slots(self._root()) if is_label(raw)]
        root = self._folder(
            _tree(files), {entry.short for entry in kept}, 0, b"".join([*volume, *(one.raw for one in kept)])
        )
        self._extend_root(len(root))
        flush(self._file)
        self._write_table()
        self._write_root(root)
        for entry in entries:
            if entry.name.lower() in tops:
                self._release(entry)
        self._write_table()

    # Reading

    def _read(self, at: int, size: int) -> bytes:
        self._file.seek(self._start + at)
        return self._file.read(size)

    def _chain(self, cluster: int) -> list[int]:
        found: list[int] = []
        while 2 <= cluster < self._end:
            if cluster >= len(self._table) or len(found) > len(self._table):
                raise FlashError("The boot partition is damaged: write the system anew, or run fsck on it.")
            found.append(cluster)
            cluster = self._table[cluster] & self._mask
        return found

    def _at(self, cluster: int) -> int:
        return self._data_at + (cluster - 2) * self._cluster_size

    def _content(self, cluster: int) -> bytes:
        return b"".join(self._read(self._at(one), self._cluster_size) for one in self._chain(cluster))

    def _root(self) -> bytes:
        return self._content(self._root_cluster) if self._is_32 else self._read(self._root_at, self._root_size)

    def _entries(self, directory: bytes) -> list[Entry]:
        return read_entries(directory, is_32=self._is_32)

    def _find(self, directory: bytes, name: str) -> Entry:
        for entry in self._entries(directory):
            if entry.name.lower() == name:
                return entry
        raise KeyError(name)

    # Writing

    def _folder(self, tree: Mapping[str, object], taken: set[bytes], parent: int, directory: bytes) -> bytes:
        """Write what is in a folder to free clusters; returns its directory."""
        for name, content in tree.items():
            if isinstance(content, bytes):
                cluster = self._store(content)
                directory += new_entry(name, taken, cluster, len(content), is_folder=False)
            elif isinstance(content, dict):
                own = next(self._unused)
                dots = dot_entry(b".", own) + dot_entry(b"..", parent)
                self._store(self._folder(content, set(), own, dots) + b"\0" * 32, own)
                directory += new_entry(name, taken, own, 0, is_folder=True)
        return directory

    def _store(self, content: bytes, first: int = 0) -> int:
        """Write bytes to free clusters and chain these; returns the first, 0 if there is nothing to write."""
        number = -(-len(content) // self._cluster_size)
        clusters = [first] * bool(first)
        clusters += [next(self._unused) for _ in range(number - len(clusters))]
        for index, cluster in enumerate(clusters):
            part = content[index * self._cluster_size : (index + 1) * self._cluster_size]
            self._file.seek(self._start + self._at(cluster))
            self._file.write(part.ljust(self._cluster_size, b"\0"))
            following = clusters[index + 1] if index + 1 < number else self._mask
            self._table[cluster] = self._table[cluster] & ~self._mask | following
        return clusters[0] if clusters else 0

    def _extend_root(self, size: int) -> None:
        if not self._is_32:
            if size > self._root_size:
                raise FlashError("The top of the boot partition has no room for more names: delete some.", CANNOT_WRITE)
            return
        chain = self._chain(self._root_cluster)
        while size > len(chain) * self._cluster_size:
            added = self._store(b"\0" * self._cluster_size)
            self._table[chain[-1]] = self._table[chain[-1]] & ~self._mask | added
            chain.append(added)

    def _write_root(self, root: bytes) -> None:
        if self._is_32:
            for index, cluster in enumerate(self._chain(self._root_cluster)):
                part = root[index * self._cluster_size : (index + 1) * self._cluster_size]
                self._file.seek(self._start + self._at(cluster))
                self._file.write(part.ljust(self._cluster_size, b"\0"))
        else:
            self._file.seek(self._start + self._root_at)
            self._file.write(root.ljust(self._root_size, b"\0"))
        flush(self._file)

    def _release(self, entry: Entry) -> None:
        if entry.is_folder:
            for inner in self._entries(self._content(entry.cluster)):
                self._release(inner)
        for cluster in self._chain(entry.cluster):
            self._table[cluster] &= ~self._mask

    def _write_table(self) -> None:
        packed = struct.pack(self._format, *self._table)
        for copy in range(self._copies):
            self._file.seek(self._start + self._fat_at + copy * self._fat_size)
            self._file.write(packed)
        if self._info and self._read(self._info, 4) == b"RRaA":
            # Number of free clusters and where to look for one: "unknown" makes every system count by itself.
            self._file.seek(self._start + self._info + 488)
            self._file.write(b"\xff" * 8)
        flush(self._file)


def _tree(files: Mapping[str, bytes]) -> dict[str, object]:
    top: dict[str, object] = {}
    for path, content in files.items():
        *folders, name = path.split("/")
        inside = top
        for folder in folders:
            deeper = inside.setdefault(folder, {})
            assert isinstance(deeper, dict)
            inside = deeper
        inside[name] = content
    return top
