"""Addresses in the network: which text is one, how it is shown without its secrets, and where the page listens."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from edge_fer.errors import UsageError

NETWORK = ("mqtt", "mqtts", "web", "webhook")
"""Outputs that are addresses, and no files."""

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*):(?://|(?<=file:)(?=/))(.*)", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(:\d+)?", re.IGNORECASE)
# Up to the last @ of the line, since a password may hold anything, else up to the next blank.
_IN_TEXT = re.compile(r"\b[a-z][a-z0-9+.-]*://(?:[^\n]*@\S*|\S*)", re.IGNORECASE)
_NO_SCHEME = re.compile(r"(?<!\S)(?!pipe:)[^\s:]*:\S*@\S+")  # user:password@host
_QUERY = re.compile(r"\?\S*=\S*")
_AFTER = ".,;:!?'\")]}"
_SHOWN = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)?(:\d+)?/?\.\.\.[.,;:!?'\")\]}]*", re.IGNORECASE)


def split_address(text: str) -> tuple[str, str] | None:
    """Scheme, in small letters, and all after the ``://`` of an address; None for a text that is none.

    A ``file:`` may have one slash.
    """
    found = _ADDRESS.fullmatch(text.strip())
    return (found[1].lower(), found[2]) if found else None


def printable(text: str) -> str:
    """A text for people, without what may be secret in the addresses in it: of those, scheme and host alone are left.

    Passwords hold any character and tokens stand in paths as well, so what cannot be told apart is left out. Used for
    every address that is shown or written, and for every message before it leaves the process.

    Args:
        text: an address, or a sentence with some.
    """
    text = _IN_TEXT.sub(lambda found: _shown(found[0]), text)
    return _QUERY.sub("?...", _NO_SCHEME.sub("...", text))


def _shown(address: str) -> str:
    found = _ADDRESS.fullmatch(address)
    assert found
    scheme, rest = found[1].lower(), found[2]
    if _SHOWN.fullmatch(rest) or (scheme == "file" and "@" not in rest):
        return address
    bare = rest.rstrip(_AFTER)
    after = rest[len(bare) :]
    authority = re.split(r"[/?#]", bare, maxsplit=1)[0]
    path = bare[len(authority) :]
    host = authority.rpartition("@")[2]
    if "@" in path or not _HOST.fullmatch(host):
        return f"{scheme}://...{after}"
    return f"{scheme}://{host}{'/...' if path.strip('/') else ''}{after}"


class HttpUrl(NamedTuple):
    """Where a webhook listens.

    Attributes:
        secure: by TLS.
        host: name or address, an IPv6 one without brackets.
        port: its number.
        target: path and query.
        user: "name:password", with percent signs resolved; "" for none.
    """

    secure: bool
    host: str
    port: int
    target: str
    user: str


def http_url(text: str) -> HttpUrl:
    """The parts of an address that begins with ``http://`` or ``https://``.

    Raises:
        UsageError: it is none.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parts.hostname or ""
        host.encode("idna")
    except ValueError:  # a port of 70000, half an IPv6 address, a label of 64 letters
        parts, port, host = urlsplit(""), None, ""
    if parts.scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise UsageError(f"webhook:{text} is no address to send to. Write webhook:http://HOST:PORT/PATH, or https.")
    secure = parts.scheme == "https"
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="/?&=%:;,+@!$'()*~#[]")
    user = unquote(parts.netloc.rpartition("@")[0])
    return HttpUrl(secure, host, port or (443 if secure else 80), target, user)


def listening_at(where: str) -> tuple[str, int]:
    """Host and port of what stands behind ``web:``: "HOST:PORT", "PORT", or "" for 127.0.0.1:8080.

    Raises:
        UsageError: it is none.
    """
    host, _, port = (where or "8080").rpartition(":")
    host = host or "127.0.0.1"
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 65536
    if not is_port or not host or (":" in host and not bracketed) or not host.isprintable() or " " in host:
        raise UsageError(f"web:{where} is no address to listen at. Write web:127.0.0.1:8080, or web:[::1]:8080.")
    return host, int(port)


def usable(scheme: str, rest: str) -> str:
    """The address as FFmpeg understands it: a password with ``/ ? # @`` is written with percent signs."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, host = rest.rpartition("@")
    if at and "@" not in authority and (":" not in authority or _HOST.fullmatch(authority)):
        user, host = "", rest  # the @ belongs to the path
    if not user:
        return f"{scheme}://{rest}"
    name, colon, password = user.partition(":")
    return f"{scheme}://{quote(name, safe='%')}{colon}{quote(password, safe='%')}@{host}"
