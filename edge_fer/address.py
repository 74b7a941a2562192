"""Addresses of network cameras: which text is one, and how it is shown without its secrets."""

from __future__ import annotations

import re
from urllib.parse import quote

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
