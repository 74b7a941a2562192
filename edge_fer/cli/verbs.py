"""What all verbs share: a parser that complains in one line, and help texts with examples."""

from __future__ import annotations

import argparse
from typing import NoReturn, TypeAlias

from edge_fer.address import printable
from edge_fer.errors import UsageError

Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """argparse, with one line for an error instead of the usage text."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{printable(message)}. See `{self.prog} --help`.")


def add_verb(verbs: Verbs, name: str, text: str, examples: str) -> Parser:
    """Add a verb: its line in the list of verbs, and its own help, which ends in examples."""
    verb = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("-v", "--verbose", action="store_true", help="log more, and show tracebacks")
    return verb
