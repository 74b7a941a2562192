"""Which videos an archive is made of."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_fer.errors import InputMissingError, UsageError
from edge_fer.sources.folder import MOVING_SUFFIXES, STILL_SUFFIXES
from edge_fer.sources.header import read_header

_MAGIC = (
    *((4, b"ftyp"), (4, b"moov"), (0, b"\x1a\x45\xdf\xa3"), (8, b"AVI "), (0, b"OggS"), (0, b"FLV\x01")),
    *((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3"), (0, b"GIF8")),
)
"""Where a container's first bytes stand: MP4, QuickTime, Matroska, AVI, Ogg, Flash, ASF, MPEG, GIF."""
_SOUND = {".m4a", ".m4b", ".mka", ".oga", ".ogg", ".opus", ".spx", ".wma"}
"""Files that begin as videos do."""


@dataclass(frozen=True, order=True)
class Video:
    """A file, at one state of its content.

    Attributes:
        path: absolute, so that the same call from another folder means the same file.
        size: bytes.
        modified_ns: when its content changed last, nanoseconds since 1970.
    """

    path: str
    size: int
    modified_ns: int

    @property
    def path_hash(self) -> str:
        """Of its path alone: 16 hex digits."""
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]

    @property
    def key(self) -> str:
        """What its results are called: another one as soon as the file has changed."""
        state = hashlib.sha256(f"{self.size} {self.modified_ns}".encode()).hexdigest()[:8]
        return f"{self.path_hash}-{state}"


@dataclass(frozen=True)
class Shard:
    """A part of an archive for one job of a batch queue: ``number`` of ``count``, from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "2/10".

        Raises:
            UsageError: it is no such text.
        """
        number, _, count = text.partition("/")
        if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise UsageError(f"--shard is a part and their number, as in 2/10 and from 1/10 to 10/10, not {text!r}.")

    def holds(self, video: Video) -> bool:
        """Whether a video is in this part: by its path alone, so that a file more moves no other."""
        return int(video.path_hash, 16) % self.count == self.number - 1


def find_videos(inputs: Iterable[str]) -> tuple[list[Video], int]:
    """The videos of files and folders, each once, largest first: what takes longest does not come last.

    A file that is named is taken as it is. Of a folder and those in it are taken what is called like a video or begins
    like one, whatever it is called, and animated images.

    Args:
        inputs: paths.

    Returns:
        The videos, and how many other files were passed over.

    Raises:
        InputMissingError: there is no such path, or no video in all of them.
    """
    found: dict[str, Video] = {}
    others = 0
    for name in inputs:
        top = os.path.abspath(os.path.expanduser(name))  # noqa: PTH100, PTH111 - not resolved: links are names too
        try:
            mode = os.stat(top).st_mode  # noqa: PTH116
        except (OSError, ValueError) as error:
            raise InputMissingError(
                f"Cannot read {name}: {getattr(error, 'strerror', error)}. Check the path."
            ) from None
        files: Sequence[str] = [top]
        if stat.S_ISDIR(mode):
            files = [os.path.join(above, one) for above, _, names in os.walk(top) for one in names]  # noqa: PTH118
        for file in files:
            video = None if stat.S_ISDIR(mode) and not _is_moving(Path(file)) else _video(file)
            if video:
                found[file] = video
            else:
                others += 1
    if not found:
        raise InputMissingError(
            f"No video in {', '.join(inputs)}, only {others} other files. Videos are told by suffix or first bytes."
        )
    return sorted(found.values(), key=lambda video: (-video.size, video.path)), others


def _video(path: str) -> Video | None:
    """None where it is no file, or is gone."""
    try:
        facts = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return Video(path, facts.st_size, facts.st_mtime_ns) if stat.S_ISREG(facts.st_mode) else None


def _is_moving(file: Path) -> bool:
    suffix = file.suffix.lower()
    if suffix in MOVING_SUFFIXES:
        return True
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would wait for its writer
            return False
        if suffix in STILL_SUFFIXES:
            return read_header(file).moving
        with file.open("rb") as content:
            head = content.read(12)
        return suffix not in _SOUND and any(head[at:].startswith(magic) for at, magic in _MAGIC)
    except OSError:
        return False
