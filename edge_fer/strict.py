"""TOML and JSON tables read strictly into dataclasses: settings, recipes, metadata and descriptions of models."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import reprlib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

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

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _LONGEST = 100
"""What is shown of a value that is wrong, in letters."""


def from_table(kind: type[T], table: Mapping[str, Any], origin: str, prefix: str = "") -> T:
    """Make a dataclass of a TOML table, strictly: no unknown key, no value of another type, nothing missing.

    Args:
        kind: a dataclass whose fields are bool, int, float, str, Literal, an enum of texts, list or tuple[T, ...] of
            these, a Mapping (taken as it is), or such dataclasses.
        table: the parsed TOML or JSON.
        origin: file name for messages.
        prefix: dotted path of the table in its file, for messages.

    Raises:
        ConfigError: names the key and what is wrong with it.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{origin}: {prefix.rstrip('.') or 'the file'} must be a table, not {_SHORT.repr(table)}.")
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            key = str(key)[:_LONGEST]
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f" Did you mean '{prefix}{near[0]}'?" if near else f" Known here: {', '.join(hints)}."
            raise ConfigError(f"{origin}: unknown key '{prefix}{key}'.{hint}")
        values[key] = _checked(hints[key], value, origin, prefix + key)
    missing = [f.name for f in dataclasses.fields(kind) if f.name not in values and _is_required(f)]  # type: ignore[arg-type]
    if missing:
        raise ConfigError(f"{origin}: '{prefix}{missing[0]}' is missing.")
    return kind(**values)


def _is_required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _checked(hint: Any, value: Any, origin: str, key: str) -> Any:
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
        near = difflib.get_close_matches(str(value)[:_LONGEST], known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
        raise ConfigError(f"{origin}: unknown value {_SHORT.repr(value)} in '{key}'; {advice}")
    if kind is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise ConfigError(
            f"{origin}: '{key}' must be one of {', '.join(typing.get_args(hint))}, not {_SHORT.repr(value)}."
        )
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    wanted = "a table" if dataclasses.is_dataclass(hint) else _IN_WORDS[kind or hint]
    raise ConfigError(f"{origin}: '{key}' must be {wanted}, not {_SHORT.repr(value)}.")
