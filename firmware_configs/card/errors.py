"""What can go wrong, as people see it; the numbers are those of sysexits.h, as in ``edge_fer.errors``."""

DECLINED, USAGE, BAD_DATA, NO_INPUT, CANNOT_WRITE, INTERRUPTED = 1, 2, 65, 66, 73, 130


class FlashError(Exception):
    """One sentence that says what is wrong and what to do, and the exit code."""

    def __init__(self, message: str, exit_code: int = BAD_DATA) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def printable(text: str) -> str:
    """A text for a terminal: control codes, line breaks and bytes that are no text are shown as in Python."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def megabytes(size: int) -> str:
    """A number of bytes for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
