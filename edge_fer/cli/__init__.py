"""The command line: verbs -> settings -> objects -> the loop. One file a verb."""

from __future__ import annotations

import argparse
import difflib
import errno
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper

from edge_fer.address import printable
from edge_fer.cli.archive import add_archive
from edge_fer.cli.bench import add_bench
from edge_fer.cli.cameras import add_cameras
from edge_fer.cli.config import add_config
from edge_fer.cli.doctor import add_doctor
from edge_fer.cli.models import add_models
from edge_fer.cli.replay import add_replay
from edge_fer.cli.run import add_run
from edge_fer.cli.service import add_service
from edge_fer.cli.verbs import Parser
from edge_fer.errors import INTERNAL, INTERRUPTED, EdgeFerError, OutputError, UsageError
from edge_fer.libraries import about_import, try_libraries
from edge_fer.systemd import JournalFormatter, in_journal
from edge_fer.version import __version__

# Heavy imports (OpenCV, LiteRT, rich) wait until a verb needs them: --help and errors answer at once.


def build_parser() -> Parser:
    """The parser of all verbs; ``firmware_configs`` is tested against it."""
    parser = Parser(
        prog="edge-fer",
        description="Facial-expression recognition for small boards.",
        epilog="`edge-fer VERB --help` shows the options of a verb, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"edge-fer {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    adders = (add_run, add_models, add_cameras, add_config, add_doctor, add_service, add_bench, add_replay, add_archive)
    for add in adders:
        add(verbs)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    _open_streams()
    code = _act(arguments)
    threads = sys.modules.get("edge_fer.threads")  # not imported for this: it is there if there are any
    if arguments is None and threads and threads.left_running():
        # One is inside a driver that does not come back. Python would take down the library under it, and crash.
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)
    return code


def _act(arguments: list[str] | None) -> int:
    verbose = "-v" in (arguments or sys.argv) or "--verbose" in (arguments or sys.argv)
    handler = logging.StreamHandler()
    handler.setFormatter(JournalFormatter() if in_journal(os.environ) else logging.Formatter("edge-fer: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO if verbose else logging.WARNING)
    try:
        parser = build_parser()
        args, unknown = parser.parse_known_args(arguments)
        if unknown:
            raise UsageError(_about_unknown(parser, args.verb, unknown[0]))
        act: Callable[[argparse.Namespace], None] = args.act
        if getattr(args, "tries_libraries", True):
            try_libraries()
        act(args)
        sys.stdout.flush()
    except EdgeFerError as error:
        _complain(printable(str(error)))
        return error.exit_code
    except BrokenPipeError:
        # The reader of our stdout has left, as `head` does. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return INTERRUPTED
    except ImportError as error:
        if verbose:
            raise
        unavailable = about_import(error)
        _complain(str(unavailable))
        return unavailable.exit_code
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            # Sinks say so themselves; this is what a table or a list on stdout has met.
            _complain(f"Cannot write to stdout: {error.strerror}. Make room on the disk.")
            return OutputError.exit_code
        if verbose:
            raise
        said = printable(repr(error))
        _complain(f"internal error: {said}. --verbose shows where; please report it.")
        return INTERNAL
    return 0


def _complain(text: str) -> None:
    """Say why it ends, on stderr, with the priority of an error where that is the journal."""
    print(f"{'<3>' if in_journal(os.environ) else 'edge-fer: '}{text}", file=sys.stderr)


def _open_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed, else the next file that is opened would take its number.

    A stream whose encoding lacks a letter, as ASCII does, shows its number instead of failing.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            if not os.path.exists(f"/proc/self/fd/{number}"):  # noqa: PTH110
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
        stream = getattr(sys, name)
        if number and isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _about_unknown(parser: argparse.ArgumentParser, verb: str, argument: str) -> str:
    argument = printable(argument)
    if not argument.startswith("-"):
        hint = f" Did you mean --camera {argument}?" if verb == "run" else ""
        return f"Unexpected argument {argument}.{hint} See `edge-fer {verb} --help`."
    (verbs,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    near = difflib.get_close_matches(argument.split("=")[0], verbs[verb]._option_string_actions, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"Unknown option {argument}.{hint} See `edge-fer {verb} --help`."
