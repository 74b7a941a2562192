"""Files: read within limits, written whole or not at all or line by line, with errors that name the cure."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from edge_fer.errors import DataError, InputMissingError, OutputError

_CURES = {
    errno.ENOSPC: "Make room on the disk, or choose another place.",
    errno.EDQUOT: "Make room in your quota, or choose another place.",
    errno.EFBIG: "Choose a place that takes larger files.",
    errno.EROFS: "Choose a place that can be written.",
}


def native_name(path: Path) -> Any:
    """The name of a file for OpenCV and FFmpeg: a text where its bytes are UTF-8, whatever Python takes them for.

    Other bytes would crash OpenCV in a text. As bytes it takes them, since 4.13. FFmpeg takes a relative name with a
    colon for an address, unless a slash comes first.

    Raises:
        DataError: an older OpenCV takes no such name.
    """
    name = os.fsencode(path) if path.is_absolute() else b"./" + os.fsencode(path)
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        import cv2  # already there, if somebody is about to give it a name

        if tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 13):
            raise DataError(f"{path} cannot be read: OpenCV {cv2.__version__} takes only UTF-8. Rename it.") from None
        return name


def output_error(path: Path | str, error: OSError) -> OutputError:
    """The error for people when the system refuses to write ``path``."""
    cure = _CURES.get(error.errno or 0, "Choose another place, or mend this one.")
    return OutputError(f"Cannot write {path}: {error.strerror or error}. {cure}")


def resolved(name: Path | str) -> Path:
    """The absolute path behind links and ``~``; as it is where there is none: the working directory may be gone."""
    try:
        # Not pathlib's: one fails where there is no such user, the other at links in a circle.
        return Path(os.path.realpath(os.path.expanduser(name)))  # noqa: PTH111
    except OSError:
        return Path(name)


def mode_of(path: Path | str) -> int:
    """The kind and permissions of a file as ``stat`` has them; 0 where nothing can be seen."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116
    except (OSError, ValueError):
        return 0


def shown(name: str) -> str:
    """A path or name as text that any program can read: UTF-8 whatever the locale, other bytes as ``\\xe9``."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # no path: text with letters that this locale's paths cannot have
        return name


def next_free(path: Path) -> Path:
    """``path``, or where something is there already ``name-2.mp4``, ``name-3.mp4``, ..."""
    free, count = path, 1
    while os.path.lexists(free):
        count += 1
        free = path.with_stem(f"{path.stem}-{count}")
    return free


def read_file(path: Path, most_bytes: int, what: str, cure: str) -> bytes:
    """The content of a file: a real one, of a size that fits.

    Args:
        path: from whomever.
        most_bytes: it may have.
        what: to call it in messages: "model".
        cure: what to do when it is not there, a sentence.

    Raises:
        InputMissingError: no such file.
        DataError: it is a pipe, a device or a folder, too large, or not readable.
    """
    try:
        found = path.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise DataError(f"Cannot read the {what} {path}: it is a pipe or a device. Give the path of a file.")
        if found.st_size > most_bytes:
            size, most = found.st_size / 1e6, most_bytes / 1e6
            raise DataError(f"Cannot read the {what} {path}: it has {size:,.0f} MB, more than {most:.0f}. {cure}")
        with path.open("rb") as file:
            return file.read(most_bytes)
    except (FileNotFoundError, ValueError):  # the latter for a zero byte in the name
        raise InputMissingError(f"No {what} {path}. {cure}") from None
    except OSError as error:
        raise DataError(f"Cannot read the {what} {path}: {error.strerror}. {cure}") from None


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it, unless it is there.

    Raises:
        OutputError: it cannot be made or not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise output_error(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: what was there before stays until all is written, and keeps its permissions.

    Raises:
        OutputError: the folder is not there, not writable or full.
    """
    # File systems take names of 255 bytes.
    draft = path.with_name(os.fsdecode(os.fsencode(path.name)[:250] + b".part"))
    try:
        draft.write_bytes(content)
        if path.exists():
            shutil.copymode(path, draft)
        draft.replace(path)
    except OSError as error:
        raise output_error(path, error) from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


class LineFile:
    """A text file that takes whole lines and hands them on at once, for pipes and ``tail -f``.

    There is no buffer: what could not be written is not written later, at exit, with a traceback.

    Args:
        path: "-" for stdout.
        append: go on after the lines that are there already, instead of replacing them.

    Attributes:
        is_new: there was nothing in it.
        failed: the last ``write`` failed.

    Raises:
        OutputError: the file cannot be opened.
    """

    def __init__(self, path: str, append: bool = False) -> None:
        self.path = path
        self.is_new = True
        self.failed = False
        if path == "-":
            sys.stdout.flush()
            self._file = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
            self._encoding = sys.stdout.encoding
            return
        make_folder(Path(path).parent)
        self._encoding = "utf-8"
        try:
            self._file = FileIO(path, "ab" if append else "wb")
        except OSError as error:
            raise output_error(path, error) from None
        self.is_new = not (self._file.seekable() and self._file.tell())

    def write(self, text: str) -> None:
        """Write lines, all of them or none.

        Raises:
            OutputError: they could not be written.
            BrokenPipeError: nobody reads the pipe any more.
        """
        data = memoryview(text.encode(self._encoding, "backslashreplace"))
        done = 0
        self.failed = True
        try:
            while done < len(data):
                done += self._file.write(data[done:]) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            with suppress(OSError):  # a disk that fills up takes half a line, a pipe cannot give it back
                self._file.truncate(self._file.seek(-done, os.SEEK_CUR))
            raise output_error("to stdout" if self.path == "-" else self.path, error) from None
        self.failed = False

    def close(self) -> None:
        """Close the file; stdout stays open."""
        if self.path != "-":
            self._file.close()
