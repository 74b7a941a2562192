"""What is particular to one board, checked; and a fleet of boards out of a CSV file."""

from __future__ import annotations

import base64
import binascii
import codecs
import csv
import dataclasses
import difflib
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from card.errors import NO_INPUT, USAGE, FlashError, hidden, printable

COUNTRIES = frozenset(
    "AD AE AF AI AL AM AN AR AS AT AU AW AZ BA BB BD BE BF BG BH BL BM BN BO BR BS BT BY BZ CA CF CH CI CL CN CO CR CU"
    " CX CY CZ DE DK DM DO DZ EC EE EG ES ET FI FM FR GB GD GE GF GH GL GP GR GT GU GY HK HN HR HT HU ID IE IL IN IR IS"
    " IT JM JO JP KE KH KN KP KR KW KY KZ LB LC LI LK LS LT LU LV MA MC MD ME MF MH MK MN MO MP MQ MR MT MU MV MW MX MY"
    " NA NG NI NL NO NP NZ OM PA PE PF PG PH PK PL PM PR PT PW PY QA RE RO RS RU RW SA SE SG SI SK SN SR SV SY TC TD TG"
    " TH TN TR TT TW TZ UA UG US UY UZ VC VE VI VN VU WF WS YE YT ZA ZW".split()
)
"""The countries of the kernel's regulatory database (wireless-regdb): any other leaves the radio blocked."""

_KEY_TYPES = re.compile(
    r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
)
# What edge-fer takes, and no more: a board that refuses its configuration cannot ask anybody.
_CAMERA = re.compile(r"[0-9]{1,3}|/dev/(?!stdin$)\S+|(?:picamera|rpicam):[0-9]|demo|(rtsps?|https?)://[^\s/]\S*")
_BROKER = re.compile(r"mqtts?://(?:(.*)@)?(\[[^\]]*\]|[^\[\]:/@]+)(?::([0-9]{1,5}))?(?:/([^@]*))?")
_TOKEN = re.compile(r"[!-~]{16,1000}")
_SECRETS = ("wifi_password", "mqtt_password", "token")


@dataclass(frozen=True)
class Board:
    """One board.

    Attributes:
        hostname: its name in the network, unique among its neighbors.
        keys: public SSH keys of who may log in, as lines of authorized_keys.
        user: who logs in.
        wifi: name of the wireless network (SSID), at most 32 bytes in UTF-8; "" for a cable.
        wifi_password: its passphrase, 8 to 63 letters of ASCII, or the key itself, 64 hexadecimal digits; "" for an
            open network.
        country: where the board is, two letters (ISO 3166-1); "" only without ``wifi``.
        camera: what edge-fer takes as a camera; "" for what the release's edge-fer.toml says.
        mqtt: address of a broker, mqtt://user@host:port/topic; "" for none.
        mqtt_password: of ``mqtt``'s user.
        token: what a client of the service has to know, 16 letters of ASCII or more.
        instance_id: cloud-init goes through first boot once for each.
    """

    hostname: str
    keys: tuple[str, ...]
    user: str = "pi"
    wifi: str = ""
    wifi_password: str = ""
    country: str = ""
    camera: str = ""
    mqtt: str = ""
    mqtt_password: str = ""
    token: str = ""
    instance_id: str = ""


FIELDS = [f.name for f in dataclasses.fields(Board) if f.name not in ("keys", "instance_id")] + ["key"]
"""Names of a fleet's columns, and of the command line's options."""


def make_board(values: Mapping[str, str], origin: str) -> Board:
    """A checked board, with a token and an instance-id of its own.

    Args:
        values: by the names of ``FIELDS``; ``key`` is a public key, or the file that holds one or more.
        origin: where the values come from, for messages.

    Raises:
        FlashError: what is wrong with which value.
    """
    given = {name: value for name, value in values.items() if value}
    for name, value in given.items():
        if not all(one.isprintable() or one in "\u00a0\u200d" for one in value):
            which = "" if name in _SECRETS else f": {hidden(value)}"
            raise FlashError(f"{origin}: {name} must not hold control characters{which}.", USAGE)
    if "hostname" not in given:
        raise FlashError(f"{origin}: a board needs a hostname, a name of its own in the network.", USAGE)
    key = given.pop("key", "")
    board = Board(
        **given,
        keys=read_keys(key, origin),
        instance_id=f"edge-fer-{given['hostname']}-{secrets.token_hex(4)}",
    )
    _check(board, origin)
    return dataclasses.replace(board, token=board.token or secrets.token_urlsafe(24))


def _check(board: Board, origin: str) -> None:
    problem = _about_names(board) or _about_wifi(board) or _about_camera(board.camera) or _about_mqtt(board)
    problem = problem or _about_token(board.token)
    if problem:
        raise FlashError(f"{origin}: {problem}".rstrip("?") + ("?" if problem.endswith("?") else "."), USAGE)


def _about_camera(camera: str) -> str:
    if not camera or _CAMERA.fullmatch(camera):
        return ""
    kinds = "picamera:0 (ribbon cable), 0 (USB), /dev/v4l/by-id/..., rtsp://... or demo"
    return f"camera {hidden(camera)} is none of {kinds}"


def _about_names(board: Board) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", board.hostname) or board.hostname == "localhost":
        return f"hostname {hidden(board.hostname)} must be of a-z, 0-9 and hyphens within, at most 63 (RFC 1123)"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", board.user) or board.user == "root":
        return f"user {hidden(board.user)} must be of a-z, 0-9 and hyphens, begin with a letter, and not be root"
    return ""


def _about_wifi(board: Board) -> str:
    if not board.wifi:
        if board.wifi_password:
            return "there is a password, and no name, of a wireless network: give wifi too"
        return _about_country(board.country) if board.country else ""
    if len(board.wifi.encode("utf-8", "surrogatepass")) > 32:
        return f"wifi {hidden(board.wifi)} is longer than 32 bytes, and so is no network's name"
    if not board.country:
        return "Wi-Fi needs the country, two letters as in GB: the radio stays blocked without it"
    is_key = re.fullmatch(r"[0-9a-fA-F]{64}", board.wifi_password)
    is_phrase = re.fullmatch(r"[ -~]{8,63}", board.wifi_password)
    if board.wifi_password and not (is_key or is_phrase):
        return f"wifi_password must have 8 to 63 letters of ASCII, as WPA wants it, not {len(board.wifi_password)}"
    return _about_country(board.country)


def _about_country(country: str) -> str:
    if country in COUNTRIES:
        return ""
    meant = {"UK": "GB", "EN": "GB"}.get(country.upper(), country.upper())
    hint = f"did you mean {meant}?" if meant in COUNTRIES else "two letters, as in GB, DE or US"
    return f"country {hidden(country)} is unknown: {hint}"


def _about_mqtt(board: Board) -> str:
    if not board.mqtt:
        return "there is a password, and no address, of an MQTT broker: give mqtt too" if board.mqtt_password else ""
    if not (parts := _BROKER.fullmatch(board.mqtt)):
        return f"mqtt {hidden(board.mqtt)} is no address of a broker: mqtt://USER@HOST:1883"
    user, host, port, topic = (part or "" for part in parts.groups())
    if ":" in user:
        return "the password of a broker does not belong in its address: give it as mqtt_password"
    if re.search("[/?]", user) or not unquote(user).isprintable() or not _is_host(host) or not _is_port(port):
        return f"mqtt {hidden(board.mqtt)} is no address of a broker: mqtt://USER@HOST:1883"
    if board.mqtt_password and not unquote(user):
        return "there is a password, and no user, of an MQTT broker: name one in mqtt, as in mqtt://USER@HOST"
    return _about_topic(unquote(topic))


def _is_host(name: str) -> bool:
    try:
        if name.startswith("["):
            return bool(ipaddress.IPv6Address(name[1:-1]))
        return bool(re.fullmatch(r"[\w.-]+", name) and name.encode("idna"))
    except ValueError:
        return False


def _is_port(number: str) -> bool:
    return not number or 0 < int(number) < 65536


def _about_topic(topic: str) -> str:
    name = "the topic of mqtt, what stands behind its host,"
    if re.search("[{}]", topic.replace("{device}", "")):
        return f"{name} has a placeholder that is not known: there is {{device}} alone"
    if re.search("[+#?]", topic) or not topic.isprintable():
        return f"{name} may hold neither +, # nor ?, nor what cannot be printed"
    if topic and (topic.startswith("$") or "" in topic.split("/") or len(topic.encode(errors="replace")) > 1024):
        return f"{name} must be levels with a / between them, as in edge-fer/{{device}}, and not begin with $"
    return ""


def _about_token(token: str) -> str:
    if not token or _TOKEN.fullmatch(token):
        return ""
    return "the token is too easy to guess: it must have 16 to 1000 letters and digits of ASCII, and no blanks"


def read_keys(key: str, origin: str) -> tuple[str, ...]:
    """The public keys of a text or a file.

    Raises:
        FlashError: there is none, one is a private key, or damaged.
    """
    if not key:
        raise FlashError(f"{origin}: give the public SSH key of who may log in (key): without it nobody can.", USAGE)
    text, source = key, "key"
    if not re.match(r"(ssh|ecdsa|sk)-\S+ ", key):
        source = printable(key)
        try:
            text = Path(key).expanduser().read_text(encoding="utf-8-sig")
        except OSError as error:
            raise FlashError(f"{origin}: cannot read the key {source}: {error.strerror}.", NO_INPUT) from None
        except UnicodeDecodeError:
            raise FlashError(f"{origin}: {source} is no public SSH key: give the file that ends in .pub.") from None
    if "PRIVATE KEY" in text:
        raise FlashError(f"{origin}: {source} is a private key, which stays with you: give the file that ends in .pub.")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        kind, _, rest = line.partition(" ")
        try:
            blob = base64.b64decode(rest.split(" ")[0], validate=True)
        except binascii.Error:
            blob = b""
        # RFC 4253, 6.6: a key begins with the length of its type's name, and the name.
        named = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
        if not _KEY_TYPES.fullmatch(kind) or named != kind.encode() or len(blob) < 50 or not line.isprintable():
            raise FlashError(f"{origin}: {source} holds no whole public SSH key: {printable(line[:40])}...")
    if not lines:
        raise FlashError(f"{origin}: {source} holds no public SSH key: give the file that ends in .pub.")
    return tuple(lines)


def read_fleet(path: Path, defaults: Mapping[str, str]) -> list[Board]:
    """The boards of a CSV file: a row a board, in a header the names of ``FIELDS``, hostname among them.

    Args:
        path: UTF-8 or what spreadsheets write: UTF-16, a byte-order mark, semicolons.
        defaults: what counts where a cell is empty or a column not there.

    Raises:
        FlashError: a file, column, row or value is wrong; two boards have one hostname or one token.
    """
    try:
        content = path.read_bytes()
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except OSError as error:
        raise FlashError(f"Cannot read {printable(str(path))}: {error.strerror}.", NO_INPUT) from None
    except UnicodeDecodeError:
        raise FlashError(f"{path} is no text in UTF-8: save it as CSV UTF-8.") from None
    lines = text.splitlines()
    separator = ";" if lines and ";" in lines[0] and "," not in lines[0] else ","
    try:
        rows = list(csv.reader(lines, delimiter=separator, strict=True))
    except csv.Error as error:
        raise FlashError(f"{path} is no CSV file: {error}.") from None
    header = [name.strip().lower() for name in rows[0]] if rows else []
    for name in header:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(FIELDS))}."
            raise FlashError(f"{path}: unknown column {hidden(name) or '(without a name)'}; {hint}")
    if "hostname" not in header or len(set(header)) < len(header):
        raise FlashError(f"{path}: the first line must name the columns, hostname among them, each once.")
    boards: list[Board] = []
    taken: dict[str, int] = {}
    for number, row in enumerate(rows[1:], 2):
        if not any(row):
            continue
        if len(row) != len(header):
            raise FlashError(f"{path}, row {number}: {len(row)} cells under {len(header)} names of columns.")
        cells = {name: cell for name, cell in zip(header, row) if cell}
        board = make_board({**defaults, **cells}, f"{path}, row {number}")
        for name, value in (("hostname", board.hostname), ("token", board.token)):
            if value in taken:
                which = f"{name} {value}" if name == "hostname" else f"this {name}"
                raise FlashError(
                    f"{path}, row {number}: {which} is already in row {taken[value]}; each board needs its own."
                )
            taken[value] = number
        boards.append(board)
    if not boards:
        raise FlashError(f"{path} names no board: a row for each, under the names of the columns.")
    return boards
