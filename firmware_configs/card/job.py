"""One board's card: look at it, show what is to be written, ask, write, read back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from card.board import Board
from card.errors import CANNOT_WRITE, DECLINED, NO_INPUT, USAGE, FlashError, hidden, megabytes, printable
from card.image import Image, Progress, find_boot, write
from card.seed import FOLDER, TEMPLATES, Boot, Release, boot_files, check_boot, quoted
from card.target import Folder, beside, device_size, is_device


class Shown(Exception):
    """All was shown that a dry run asks for."""


@dataclass(frozen=True)
class Job:
    """One board's card.

    Attributes:
        board: whose.
        release: what it gets.
        target: a mounted boot partition, an image file, or a whole disk.
        image: the system that is written there first; None to keep the one that is there.
        mode: "ask" a person, "write" without a question, or "show" alone.
        others: names of the boards that the answer to the question counts for beside this one.
        yes_really: also a disk that is mounted or large.
        progress: hears of the writing.
    """

    board: Board
    release: Release
    target: Path
    image: Image | None
    mode: Literal["ask", "write", "show"]
    others: list[str]
    yes_really: bool
    progress: Progress

    def run(self) -> None:
        """Do it.

        Raises:
            FlashError: it cannot or must not be done; then the target is as it was, unless the message says otherwise.
            Shown: for the mode "show".
        """
        path, image = self.target, self.image
        if path.is_dir():
            if image:
                raise FlashError(f"{self._where} is a folder: an image goes onto a whole disk or into a file.", USAGE)
            self._fill_in(lambda: Folder(path), "boot partition")
        elif is_device(path):
            size = device_size(path, yes_really=self.yes_really)
            if image and image.size > size:
                sizes = f"{megabytes(image.size)} of system, {megabytes(size)} of card"
                raise FlashError(f"{self._where} is too small ({sizes}): take a larger one.", CANNOT_WRITE)
            if image:
                self._agree(image.boot(), f"disk of {megabytes(size)}, EVERYTHING ON IT IS LOST:")
                with _opened(path, "r+b") as file:
                    self._install(image, file)
            else:
                self._edit(f"disk of {megabytes(size)}")
        elif image:
            self._agree(image.boot(), "image, which is REPLACED:" if path.exists() else "new image")
            with beside(path) as part, _opened(part, "w+b") as file:
                self._install(image, file)
        else:
            self._edit("image")
        is_card = path.is_dir() or is_device(path)
        print(f"{self.board.hostname}: written and read back." + " Eject the card and put it into the board." * is_card)

    @property
    def _where(self) -> str:
        return printable(str(self.target))

    def _install(self, image: Image, file: IO[bytes]) -> None:
        write(image, file, self._where, self.progress)
        self._fill_in(lambda: find_boot(file, self._where), "")

    def _edit(self, what: str) -> None:
        with _opened(self.target, "r+b") as file:
            self._fill_in(lambda: find_boot(file, self._where), what)

    def _fill_in(self, look: Callable[[], Boot], what: str) -> None:
        """Write the board's files and read them back.

        Args:
            look: opens the boot partition anew.
            what: the target is, for the question; "" if that was asked already.
        """
        boot = look()
        check_boot(boot, self._where)
        if what:
            self._agree(boot, what)
        files = boot_files(self.board, self.release, boot)
        boot.replace(files)
        written = look()
        for name, content in files.items():
            try:
                same = written.read(name) == content
            except KeyError:
                same = False
            if not same:
                message = f"{self._where} does not hold {name} as it was written: the card or its reader is broken."
                raise FlashError(message, CANNOT_WRITE)

    def _agree(self, boot: Boot, what: str) -> None:
        """Show what is to be written, and ask."""
        board, files = self.board, boot_files(self.board, self.release, boot)
        password = "with" if board.wifi_password else "WITHOUT"
        inside = [content for name, content in files.items() if "/" in name]
        rows = {
            "Onto": f"{what} {self._where}",
            "System": f"{self.image.path.name}, {megabytes(self.image.size)}" if self.image else "stays as it is",
            "Board": board.hostname,
            "Then": f"{len(self.others)} more boards: {', '.join(self.others)}" if self.others else "",
            "Login": f"{board.user}, with the key of {', '.join(_owner(key) for key in board.keys)}; no password",
            "Network": f"Wi-Fi {quoted(board.wifi)} {password} password, in {board.country}; cable"
            if board.wifi
            else "cable",
            "Camera": hidden(board.camera) or "as edge-fer.toml of the release says",
            "MQTT": hidden(board.mqtt),
            "Files": ", ".join(sorted(name for name in files if "/" not in name))
            + f", {FOLDER}/ ({len(inside)} files, {megabytes(sum(map(len, inside)))})",
        }
        for name, value in rows.items():
            if value:
                print(f"{name:9}{printable(value)}")
        if self.mode == "show":
            for name in (*TEMPLATES, "cmdline.txt", "config.txt"):
                text = files[name].decode("utf-8", "replace")
                for secret in filter(None, (board.token, board.mqtt_password, board.wifi_password)):
                    text = text.replace(quoted(secret), '"***"')
                print(f"\n--- {name}\n{text}", end="")
            raise Shown
        if self.mode == "ask":
            if not sys.stdin.isatty():
                raise FlashError("Nobody is there to be asked: say --yes.", USAGE)
            more = f" and the {len(self.others)} others" if self.others else ""
            if input(f"Write this{more}? [y/N] ").strip().lower() not in ("y", "yes"):
                raise FlashError("Nothing more is written.", DECLINED)


def _owner(key: str) -> str:
    kind, blob, *comment = key.split(" ", 2)
    return comment[0] if comment else f"{kind} ...{blob[-12:]}"


def _opened(path: Path, mode: Literal["r+b", "w+b"]) -> IO[bytes]:
    where = printable(str(path))
    try:
        if mode == "w+b":
            path.parent.mkdir(parents=True, exist_ok=True)
        return path.open(mode)
    except PermissionError:
        hint = "a disk wants root (sudo)" if is_device(path) else "it is not yours to write"
        raise FlashError(f"Cannot write {where}: {hint}.", CANNOT_WRITE) from None
    except FileNotFoundError:
        hint = "give a mounted boot partition, an image or a disk, or --image to make an image"
        raise FlashError(f"{where} is not there: {hint}.", NO_INPUT) from None
    except OSError as error:
        raise FlashError(f"Cannot open {where}: {error.strerror}.", CANNOT_WRITE) from None
