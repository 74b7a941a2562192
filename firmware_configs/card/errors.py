"""What can go wrong, as people see it; the numbers are those of sysexits.h, as in ``edge_fer.errors``."""

import re

DECLINED, USAGE, BAD_DATA, NO_INPUT, CANNOT_WRITE, INTERRUPTED = 1, 2, 65, 66, 73, 130

# As in ``edge_fer.address``, which is not there where a card is written. A password may hold any letter, @ too.
_ADDRESS = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^\n]*@\S*|\S*)", re.IGNORECASE)
_NO_SCHEME = re.compile(r"[^\s:]*:(?!//)\S[^\n]*@\S+")  # user:password@host
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(:\d+)?", re.IGNORECASE)


class FlashError(Exception):
    """One sentence that says what is wrong and what to do, and the exit code."""

    def __init__(self, message: str, exit_code: int = BAD_DATA) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def printable(text: str) -> str:
    """A text for a terminal: control codes, line breaks and bytes that are no text are shown as in Python."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def hidden(text: str) -> str:
    """A text for a terminal, without what may be secret in it: of an address, scheme and host alone are left.

    Names, passwords and tokens stand before the host, in paths and in queries.
    """
    return _NO_SCHEME.sub("...", _ADDRESS.sub(lambda found: f"{found[1]}://{_host(found[2])}", printable(text)))


def _host(rest: str) -> str:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    host = authority.rpartition("@")[2]
    if "@" in path or not _HOST.fullmatch(host):
        return "..."
    return f"{host}/..." if path.strip("/") else host


def megabytes(size: int) -> str:
    """A number of bytes for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
