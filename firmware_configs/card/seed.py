"""What is written to a boot partition: a board and a release -> files by name."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from card.board import Board
from card.errors import NO_INPUT, USAGE, FlashError, printable

FOLDER = "edge-fer"
"""Of the boot partition: what the board installs, and its configuration. It is replaced whole."""

TEMPLATES = ("user-data", "network-config", "meta-data")
_FILLED_IN = (*TEMPLATES, "edge-fer.toml")
_SIGNATURE = ("SHA256SUMS", "SHA256SUMS.sig")


class Boot(Protocol):
    """A boot partition, mounted or in an image."""

    def names(self) -> set[str]:
        """What lies at the top, in small letters."""

    def free(self) -> int:
        """Bytes that are free."""

    def read(self, path: str) -> bytes:
        """The content of a file; KeyError if there is none."""

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Write files; each top-level file or folder that is named is replaced whole."""


class Release:
    """The folder of a release, ``edge-fer``: it goes to the board, and has the templates of cloud-init's files."""

    def __init__(self, folder: Path) -> None:
        """Read it, and hold it against its checksums and their signature.

        Raises:
            FlashError: it is no release, not whole, or for a system without cloud-init.
        """
        self._folder, self._where = folder, printable(str(folder))
        self.files = {name: self._read(name) for name in (*_FILLED_IN, *_SIGNATURE)}
        self._check_signature()
        # Nothing on a card may differ from what was signed: the board installs it as root, and refuses what does.
        for line in self.text("SHA256SUMS").splitlines():
            digest, name = line.split("  ", 1)
            self.files[name] = self._read(name)
            if hashlib.sha256(self.files[name]).hexdigest() != digest:
                raise FlashError(
                    f"{printable(name)} in {self._where} is not what was signed: download and unpack the release anew."
                )
        if "CODENAME=trixie" not in self.text("release").splitlines():
            raise FlashError(f"{self._where} is for a system without cloud-init: take the release for trixie.", USAGE)

    def text(self, name: str) -> str:
        """A file as a text."""
        return self.files[name].decode("utf-8", "surrogateescape").replace("\r\n", "\n")

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise FlashError(
                f"{self._where} is no whole release of edge-fer (no {printable(name)}): unpack "
                "edge-fer-*-trixie-arm64.zip and start flash.py there, or give its folder edge-fer as --release.",
                NO_INPUT,
            ) from None
        except OSError as error:
            raise FlashError(f"Cannot read {self._where}: {error.strerror}.", NO_INPUT) from None

    def _check_signature(self) -> None:
        command = ["ssh-keygen", "-q", "-Y", "verify", "-f", str(self._folder / "allowed_signers"), "-I", "edge-fer"]
        command += ["-n", "edge-fer-release", "-s", str(self._folder / "SHA256SUMS.sig")]  # as release.py signs
        try:
            done = subprocess.run(command, input=self.files["SHA256SUMS"], capture_output=True, check=False)
        except OSError:
            raise FlashError(
                "ssh-keygen, which checks the release's signature, is missing: install OpenSSH.", NO_INPUT
            ) from None
        if done.returncode:
            raise FlashError(f"The signature of the release in {self._where} is wrong: download and unpack it anew.")


def check_boot(boot: Boot, where: str) -> None:
    """Refuse what is not the boot partition of a 64-bit Raspberry Pi OS with cloud-init.

    Raises:
        FlashError: what it is instead, as far as its files tell.
    """
    names = boot.names()
    advice = "write Raspberry Pi OS Lite (64-bit), Trixie, first"
    if not {"config.txt", "cmdline.txt"} <= names:
        raise FlashError(f"{where} is no boot partition of a Raspberry Pi (no config.txt, no cmdline.txt): {advice}.")
    if "issue.txt" not in names:
        raise FlashError(
            f"{where} is the boot partition of another system than Raspberry Pi OS (no issue.txt): {advice}."
        )
    if "kernel7.img" in names:
        raise FlashError(f"{where} is a 32-bit Raspberry Pi OS, for which LiteRT does not exist: {advice}.")
    if not {"user-data", "meta-data"} <= names:
        raise FlashError(
            f"{where} is a Raspberry Pi OS without cloud-init (Bookworm or older): {advice}, or install by hand as "
            "docs/flash.md says."
        )


def boot_files(board: Board, release: Release, boot: Boot) -> dict[str, bytes]:
    """All files that a board's boot partition gets, by path.

    Args:
        board: whose.
        release: what it installs.
        boot: the partition as it is: the lines of its cmdline.txt and config.txt are kept.

    Raises:
        FlashError: a value cannot be set in this release, or cmdline.txt is not what it should be.
    """
    values: dict[str, str | tuple[str, ...]] = {
        "hostname": board.hostname,
        "user": board.user,
        "keys": board.keys,
        "token": board.token,
        "mqtt_password": board.mqtt_password,
        "wifi": board.wifi,
        "wifi_password": board.wifi_password,
        "country": board.country,
        "instance_id": board.instance_id,
    }
    files = {name: fill(release.text(name), values).encode() for name in TEMPLATES}
    files["cmdline.txt"] = edit_cmdline(boot.read("cmdline.txt").decode("utf-8", "surrogateescape"), board).encode(
        "utf-8", "surrogateescape"
    )
    config = boot.read("config.txt").decode("utf-8", "surrogateescape")
    files["config.txt"] = edit_config(config, release.text("config.txt")).encode("utf-8", "surrogateescape")
    files |= {f"{FOLDER}/{name}": content for name, content in release.files.items()}
    toml = f"{FOLDER}/edge-fer.toml"
    files[toml] = edit_toml(release.text("edge-fer.toml"), board).encode()
    return files


def quoted(text: str) -> str:
    """A text between double quotes, as YAML and TOML alike read it."""
    return '"' + "".join(_escaped(one) for one in text) + '"'


def _escaped(one: str) -> str:
    return f"\\{one}" if one in '"\\' else one if one.isprintable() else f"\\U{ord(one):08X}"


def fill(template: str, values: Mapping[str, str | tuple[str, ...]]) -> str:
    """Fill a template in.

    Args:
        template: YAML in which each value is a text like "@name@". A paragraph (what stands between empty lines) with
            an empty value is left out.
        values: by name; a tuple becomes a list.
    """
    paragraphs = []
    for paragraph in template.split("\n\n"):
        names = re.findall(r'"@(\w+)@"', paragraph)
        if all(values[name] for name in names):
            paragraphs.append(re.sub(r'"@(\w+)@"', lambda found: _yaml(values[found[1]]), paragraph))
    return "\n\n".join(paragraphs).rstrip("\n") + "\n"


def _yaml(value: str | tuple[str, ...]) -> str:
    return quoted(value) if isinstance(value, str) else f"[{', '.join(quoted(one) for one in value)}]"


def edit_cmdline(text: str, board: Board) -> str:
    """The one line of cmdline.txt, with the country of the radio, and the instance-id where Imager has set one.

    NoCloud takes the ``i=`` of ``ds=nocloud`` before meta-data (cloud-init 25.1, DataSourceNoCloud).
    """
    lines = text.strip().splitlines()
    if len(lines) != 1 or "root=" not in text:
        raise FlashError("cmdline.txt on the boot partition is not one line with root=...: write the system anew.")
    words = lines[0].split()
    if board.country:
        words = [word for word in words if not word.startswith("cfg80211.ieee80211_regdom=")]
        words.append(f"cfg80211.ieee80211_regdom={board.country}")
    words = [
        re.sub(r"(?<=;)i=[^;]*", f"i={board.instance_id}", word) if word.startswith("ds=nocloud") else word
        for word in words
    ]
    return " ".join(words) + "\n"


def edit_config(text: str, wanted: str) -> str:
    """config.txt with those lines of ``wanted`` whose key it does not set at all."""
    # dtparam= may stand often: there the key is what follows.
    key = re.compile(r"(?m)^(dtparam=\w+|(?!dtparam)\w+)=.*$")
    present = {found[1] for found in key.finditer(text)}
    missing = [found[0] for found in key.finditer(wanted) if found[1] not in present]
    return text.rstrip("\n") + "\n\n[all]\n# edge-fer\n" + "".join(f"{line}\n" for line in missing) if missing else text


def edit_toml(text: str, board: Board) -> str:
    """edge-fer.toml with the board's camera and broker.

    Raises:
        FlashError: this release knows no such thing.
    """
    if board.camera:
        text = _set(text, "camera", "source", quoted(board.camera))
    if board.mqtt:
        if "mqtt://" not in text:
            raise FlashError("This release of edge-fer does not send to MQTT: leave mqtt out.", USAGE)
        outputs = re.search(r"(?m)^outputs *= *\[(.*)\]$", text)
        if not outputs:
            raise FlashError(
                "edge-fer.toml of the release has no list of outputs in one line: take the file as released."
            )
        text = _set(text, "", "outputs", f"[{', '.join(filter(None, [outputs[1], quoted(board.mqtt)]))}]")
    return text


def _set(text: str, table: str, key: str, value: str) -> str:
    head, mark, rest = text.partition(f"\n[{table}]\n") if table else ("", "", text)
    changed, times = re.subn(rf"(?m)^{key} *=.*$", lambda _: f"{key} = {value}", rest, count=1)
    if not times:
        name = f"{table}.{key}".lstrip(".")
        raise FlashError(f"edge-fer.toml of the release has no {name}: take the file as released.")
    return head + mark + changed
