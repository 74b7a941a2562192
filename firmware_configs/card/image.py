"""An image of an operating system: read as it comes, packed or not, measured, and written with a check."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from card.errors import CANNOT_WRITE, NO_INPUT, FlashError, megabytes, printable
from card.fat import Fat, flush, partitions

CHUNK = 1 << 20
Progress = Callable[[str, int], None]
"""Hears what is being done, and how many bytes are done."""


@dataclass(frozen=True)
class Image:
    """An image, read once from end to end: it is whole.

    Attributes:
        path: its file.
        size: bytes, unpacked.
        sha256: of them.
        head: it up to the end of its boot partition, for looking into that.
    """

    path: Path
    size: int
    sha256: str
    head: IO[bytes]

    def boot(self) -> Fat:
        """Its boot partition, to be read."""
        return find_boot(self.head, str(self.path))


@contextlib.contextmanager
def measured(path: Path, progress: Progress) -> Iterator[Image]:
    """Read an image through; what is kept of it is deleted at the end.

    Args:
        path: .img, or that as .xz, .gz or .zip.
        progress: hears of it.

    Raises:
        FlashError: it cannot be read, or is damaged.
    """
    digest, size, end = hashlib.sha256(), 0, 0
    with tempfile.TemporaryFile() as head:
        for chunk in _chunks(path):
            if size == 0:
                end = max((past for _, past in partitions(io.BytesIO(chunk))), default=0)
            if size < end and chunk.strip(b"\0"):  # the rest stays a hole
                head.seek(size)
                head.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            progress("Reading", size)
        if not size:
            raise FlashError(f"{printable(str(path))} is empty: download it anew.")
        head.truncate(min(size, end))
        yield Image(path, size, digest.hexdigest(), head)


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with contextlib.ExitStack() as stack:
            stream: IO[bytes]
            if path.suffix == ".zip":
                archive = stack.enter_context(zipfile.ZipFile(path))
                inside = [name for name in archive.namelist() if name.endswith(".img")]
                if len(inside) != 1:
                    raise FlashError(f"{path} does not hold one .img: unpack it, and give the one that you want.")
                stream = stack.enter_context(archive.open(inside[0]))
            else:
                opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
                stream = stack.enter_context(opener(path, "rb"))
            while chunk := stream.read(CHUNK):
                yield chunk
    except (lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise FlashError(f"{path} is damaged ({error}): download it anew.") from None
    except OSError as error:
        raise FlashError(f"Cannot read {path}: {error.strerror}.", NO_INPUT) from None


def write(image: Image, file: IO[bytes], where: str, progress: Progress) -> None:
    """Write an image to the beginning of a file or device, read it back and compare.

    Its first megabyte, which has the table of partitions, comes last: what is cut off has none, and no board boots of
    half a system.

    Raises:
        FlashError: it cannot be written, or reads back otherwise.
    """
    chunks = _chunks(image.path)
    first, done = next(chunks), 0
    try:
        file.seek(0)
        file.write(b"\0" * len(first))
        done = len(first)
        for chunk in chunks:
            file.write(chunk)
            done += len(chunk)
            progress("Writing", done)
        file.seek(0)
        file.write(first)
        flush(file)
    except OSError as error:
        raise FlashError(
            f"Cannot write {where} after {megabytes(done)}: {error.strerror}. It holds no system now: take another.",
            CANNOT_WRITE,
        ) from None
    digest, done = hashlib.sha256(), 0
    file.seek(0)
    while done < image.size:
        chunk = file.read(min(CHUNK, image.size - done))
        if not chunk:
            break
        digest.update(chunk)
        done += len(chunk)
        progress("Checking", done)
    if digest.hexdigest() != image.sha256:
        raise FlashError(
            f"{where} does not hold what was written to it: the card or its reader is broken.", CANNOT_WRITE
        )


def find_boot(file: IO[bytes], where: str) -> Fat:
    """The boot partition of an image or device: the first with a FAT that has a config.txt, or the first with a FAT.

    Raises:
        FlashError: there is none.
    """
    found = []
    for start, _ in partitions(file):
        with contextlib.suppress(FlashError):
            fat = Fat(file, start)
            if "config.txt" in fat.names():
                return fat
            found.append(fat)
    if not found:
        raise FlashError(
            f"{printable(where)} has no boot partition (FAT): write Raspberry Pi OS Lite (64-bit), Trixie, "
            "first, or give its image as --image."
        )
    return found[0]
