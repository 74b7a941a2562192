"""What can go wrong, each with the exit code that ``edge-fer`` ends with.

EdgeFerError            1   a failure that fits nothing below
├── UsageError          2   the command line, or a call of the library, is wrong
├── DataError          65   a file is there, but not what it should be
│   └── BundleError    65   ... and it is a model bundle
├── InputMissingError  66   no such file, or an empty folder
├── UnavailableError   69   a camera, a package or an accelerator is not there *now*
├── OutputError        73   a result cannot be written
└── ConfigError        78   the configuration is wrong

The numbers are those of sysexits.h. The systemd unit does not restart after 65, 66 and 78: trying again
cannot mend them. It restarts after 69, which is why a missing camera is 69 and a missing file 66: a USB
camera may come up later than the service.

Every message is one sentence or two that say what is wrong and what to do. It is shown to people as it is.
"""

INTERNAL = 70
OS_ERROR = 74
INTERRUPTED = 130

EXIT_CODES = {
    0: "done, or stopped by Ctrl-C or SIGTERM",
    1: "failed",
    2: "usage",
    65: "bad data",
    66: "no such file",
    69: "camera or package not available",
    INTERNAL: "internal error",
    73: "cannot write",
    OS_ERROR: "the system fails in reading or writing",
    78: "configuration",
    INTERRUPTED: "interrupted",
}
"""All that a command of this project ends with. Help texts and the README say no others."""


def printable(text: str) -> str:
    """A text for a terminal: escape codes, line breaks and bytes that are no text are shown as in Python."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


class EdgeFerError(Exception):
    """Base of all errors that edge-fer raises on purpose.

    Its text can be shown on any terminal: what a file or an address brought into it in control codes is escaped.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(EdgeFerError):
    """The command line is wrong."""

    exit_code = 2


class DataError(EdgeFerError):
    """A file exists but is not what it should be."""

    exit_code = 65


class BundleError(DataError):
    """A model bundle is damaged, foreign, or does not fit this version."""


class InputMissingError(EdgeFerError):
    """A file does not exist, or a folder holds nothing to read."""

    exit_code = 66


class UnavailableError(EdgeFerError):
    """A camera, a package or an accelerator is not there now, but may be later."""

    exit_code = 69


class OutputError(EdgeFerError):
    """A result cannot be written."""

    exit_code = 73


class ConfigError(EdgeFerError):
    """The configuration file or an ``EDGE_FER_...`` variable is wrong."""

    exit_code = 78
