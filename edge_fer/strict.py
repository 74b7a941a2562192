"""TOML and JSON tables read strictly into dataclasses: settings, recipes, metadata and descriptions of models."""

from __future__ import annotations

import codecs
import dataclasses
import difflib
import enum
import errno
import os
import reprlib
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from edge_fer.address import printable
from edge_fer.errors import ConfigError

T = TypeVar("T")

_IN_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    list: "a list",
    tuple: "a list",
    Mapping: "a table",
}

MOST_BYTES = 16 << 20
"""Of a file of text: a hundred times the largest."""

MOST_BITS = 64
"""Of a whole number, as TOML has it: a float holds no longer ones, and Python prints none of 4301 digits."""


class _Short(reprlib.Repr):
    """A value that is wrong, in a few letters."""

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() < MOST_BITS else f"a number of {x.bit_length()} bits"


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = _LONGEST = 100
"""What is shown of a value that is wrong, in letters."""


def check_range(name: str, value: float, least: float, most: float, origin: str) -> None:
    """See whether a number is in its range.

    Args:
        name: of the key, in words for people: "decision.tau".
        value: of it.
        least: that is allowed.
        most: likewise.
        origin: file name for messages.

    Raises:
        ConfigError: it is not, or is no number.
    """
    if not least <= value <= most:
        raise ConfigError(f"{origin}: {name} must be {least:g} to {most:g}, not {value}.")


def read_text(path: Path) -> str:
    """The text of a file that somebody else wrote: UTF-8, or what Windows' editors and shells make of it (a byte-order
    mark, UTF-16, CRLF).

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not text.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)  # /dev/zero has no end
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig").replace("\r\n", "\n")


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a TOML file.

    Raises:
        FileNotFoundError: it is not there.
        ConfigError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        cure = " Let this user read it, or name another file." if isinstance(error, PermissionError) else ""
        raise ConfigError(f"Cannot read {path}: {error.strerror}.{cure}") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # the parser's own errors, numbers of 4301 digits, a thousand brackets
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None


def from_table(kind: type[T], table: Mapping[str, Any], origin: str, prefix: str = "") -> T:
    """Make a dataclass of a TOML table, strictly: no unknown key, no value of another type, nothing missing.

    Args:
        kind: a dataclass whose fields are bool, int, float, str, Literal, an enum of texts, list or tuple[T, ...] of
            these, a Mapping (taken as it is), such dataclasses, or one of these ``| None``.
        table: the parsed TOML or JSON.
        origin: file name for messages.
        prefix: dotted path of the table in its file, for messages.

    Raises:
        ConfigError: names the key and what is wrong with it.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{origin}: {prefix.rstrip('.') or 'the file'} must be a table, not {_shown(table)}.")
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            key = str(key)[:_LONGEST]
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f" Did you mean '{prefix}{near[0]}'?" if near else f" Known here: {', '.join(hints)}."
            raise ConfigError(f"{origin}: unknown key '{printable(prefix + key)}'.{hint}")
        values[key] = _checked(hints[key], value, origin, prefix + key)
    missing = [f.name for f in dataclasses.fields(kind) if f.name not in values and _is_required(f)]  # type: ignore[arg-type]
    if missing:
        raise ConfigError(f"{origin}: '{prefix}{missing[0]}' is missing.")
    return kind(**values)


def _is_required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _checked(hint: Any, value: Any, origin: str, key: str) -> Any:
    if typing.get_origin(hint) is types.UnionType:  # T | None: who has none leaves it out
        hint = typing.get_args(hint)[0]
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_table(hint, value, origin, key + ".")  # type: ignore[arg-type]
    kind = typing.get_origin(hint)
    if kind in (list, tuple) and isinstance(value, list):
        return kind(_checked(typing.get_args(hint)[0], item, origin, key) for item in value)
    if kind is Mapping and isinstance(value, dict):
        return value
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        known = [str(one) for one in hint]
        if value in known:
            return hint(value)
        near = difflib.get_close_matches(_shown(value)[:_LONGEST].strip("'"), known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
        raise ConfigError(f"{origin}: unknown value {_shown(value)} in '{key}'; {advice}")
    if kind is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise ConfigError(f"{origin}: '{key}' must be one of {', '.join(typing.get_args(hint))}, not {_shown(value)}.")
    if hint in (int, float) and type(value) is int and value.bit_length() >= MOST_BITS:
        raise ConfigError(f"{origin}: '{key}' is out of range: {_shown(value)}.")
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    wanted = "a table" if dataclasses.is_dataclass(hint) else _IN_WORDS[kind or hint]
    raise ConfigError(f"{origin}: '{key}' must be {wanted}, not {_shown(value)}.")


def _shown(value: Any) -> str:
    return printable(_SHORT.repr(value))
