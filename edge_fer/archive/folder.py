"""The folder of an archive: what is done, what is in hand, and files that are there whole or not at all.

    OUT/archive.json            what it is made with: another call must say the same
    OUT/faces/KEY.parquet       a row a face and frame
    OUT/videos/KEY.parquet      the row of the video: written last, so that with it the faces are complete
    OUT/videos/KEY.bad.parquet  the same of a file that cannot be read, or not to its end
    OUT/working/KEY.lock        locked by whoever has the video in hand

Any number of processes may write into one archive, on any number of machines that share the folder. A video is claimed
by ``flock``, which the system lets go when its holder dies, however it does.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edge_fer.errors import ConfigError, DataError
from edge_fer.files import make_folder, mode_of, output_error, read_file

_BAD = ".bad"
_END = ".parquet"


class ArchiveFolder:
    """The files of an archive; a path that can travel to another process.

    Args:
        path: absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faces, self.videos, self.working = (path / name for name in ("faces", "videos", "working"))

    def open(self, made_with: Mapping[str, Any]) -> None:
        """Make the folder, or see that it is an archive that is made in the same way.

        Args:
            made_with: all that decides its rows, for JSON.

        Raises:
            OutputError: it cannot be written.
            ConfigError: it is made with something else, or is not an archive.
        """
        make_folder(self.path)
        marker = self.path / "archive.json"
        if not mode_of(marker):
            try:
                others = [one for one in self.path.iterdir() if not one.name.startswith("archive.")]
            except OSError as error:
                raise output_error(self.path, error) from None
            if others and not mode_of(marker):  # asked again: another call may have begun meanwhile
                raise ConfigError(f"{self.path} is not empty, and no archive: choose another -o.")
            self._write_marker(marker, json.dumps(made_with, indent=2) + "\n")
        try:
            there = json.loads(read_file(marker, 1 << 20, "archive's settings", "Choose another -o."))
        except ValueError:
            raise DataError(f"{marker} is damaged. Choose another -o.") from None
        for key in made_with:
            if not isinstance(there, dict) or there.get(key) != made_with[key]:
                old = there.get(key) if isinstance(there, dict) else None
                raise ConfigError(
                    f"{self.path} was made with {key} = {json.dumps(old)}, this call has {json.dumps(made_with[key])}. "
                    "One archive is made in one way: give the same options, or another -o."
                )
        for folder in (self.faces, self.videos, self.working):
            make_folder(folder)

    def _write_marker(self, marker: Path, text: str) -> None:
        """Of several calls that begin at once, the first one's stays."""
        draft = marker.with_name(f"archive.{uuid.uuid4().hex}.part")
        try:
            draft.write_text(text, encoding="utf-8")
            try:
                os.link(draft, marker)
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                draft.replace(marker)
        except OSError as error:
            raise output_error(marker, error) from None
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)

    def done(self) -> dict[str, bool]:
        """The keys of all videos that have their row, each with whether the file was good."""
        names = (name.removesuffix(_END) for name in os.listdir(self.videos) if name.endswith(_END))  # noqa: PTH208
        return {name.removesuffix(_BAD): not name.endswith(_BAD) for name in names}

    def row_file(self, key: str, *, good: bool) -> Path:
        """Where the row of a video goes."""
        return self.videos / f"{key}{'' if good else _BAD}{_END}"

    def face_file(self, key: str) -> Path:
        """Where its faces go."""
        return self.faces / f"{key}{_END}"

    def draft(self, key: str, what: str) -> Path:
        """Where one of its files is written, by whoever holds the claim."""
        return self.working / f"{key}.{what}.part"

    def put(self, draft: Path, place: Path) -> None:
        """A file that was written takes its place, and survives a power cut.

        Raises:
            OSError: the system refuses.
        """
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(place)

    def remove(self, key: str, *, good: bool) -> None:
        """Remove the results of a file that has changed, or is tried again; first the row, which vouches for it."""
        for file in (self.row_file(key, good=good), self.face_file(key)):
            with suppress(OSError):
                file.unlink(missing_ok=True)

    @contextmanager
    def claim(self, key: str) -> Iterator[int | None]:
        """Hold a video against all others; gives how often somebody has died with it in hand, None where it is held.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self.working / f"{key}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if not _locked(descriptor):
                yield None
                return
            text = os.read(descriptor, 20)
            deaths = int(text) if text.isdigit() else 0  # new, or cut short with the power
            os.pwrite(descriptor, str(deaths + 1).encode(), 0)
            yield deaths
            # Only he who comes to an end, good or bad, gets here or into an exception: the count is of sudden deaths.
            path.unlink(missing_ok=True)
        except Exception:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def forget_deaths(self) -> None:
        """After a stop that was asked for: those who had a video in hand were ended on purpose."""
        for path in self.working.glob("*.lock"):
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    if _locked(descriptor):
                        path.unlink(missing_ok=True)
                finally:
                    os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Whether the lock is ours. Where a file system knows no locks, everybody has it: ``--shard`` keeps them apart."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR)
    return True
