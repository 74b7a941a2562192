"""Where settings come from: a flag beats ``EDGE_FER_SECTION__KEY`` beats the file beats the default, all strict."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_fer.config import ENV_PREFIX, Settings, all_settings, default_file
from edge_fer.errors import ConfigError
from edge_fer.strict import from_table, read_toml


def load_settings(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Merge the settings: a flag beats ``EDGE_FER_SECTION__KEY`` beats the file beats the default.

    Args:
        path: a TOML file; None for the first of ``default_files`` that exists, or none at all.
        environ: the environment.
        flags: values of the command line by dotted key, ``{"camera.source": "demo"}``; None where not given.

    Raises:
        ConfigError: a key, value or file is wrong.
    """
    table: dict[str, Any] = {}
    for origin, layer in _layers(path or default_file(), environ):
        from_table(Settings, layer, origin)
        table = merged(table, layer)
    for dotted, value in flags.items():
        if value is not None:
            table = merged(table, nested(dotted.split("."), value))
    return from_table(Settings, table, "settings")


def origins(path: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Where the value of each setting comes from: "default", the file's path, or the name of a variable.

    Args:
        path: see ``load_settings``, which has found nothing wrong.
        environ: likewise.
    """
    found = {one.key: "default" for one in all_settings()}
    for origin, layer in _layers(path or default_file(), environ):
        found |= {key: origin for key in found if _has(layer, key)}
    return found


def mistakes(path: Path | None, environ: Mapping[str, str]) -> list[str]:
    """All that is wrong, a sentence for each key; ``load_settings`` stops at the first.

    Args:
        path: see ``load_settings``.
        environ: likewise.
    """
    found: list[str] = []
    try:
        layers = _layers(path or default_file(), environ)
    except ConfigError as error:
        return [str(error)]
    for origin, layer in layers:
        for one in _leaves(layer):
            try:
                from_table(Settings, one, origin)
            except ConfigError as error:
                said = str(error)
                found.append(said if said.startswith(f"{origin}: ") else f"{origin}: {said}")
    return found


def _layers(path: Path | None, environ: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """The file and the variables as tables, the strongest last, each with its name for messages. Nothing is checked."""
    found: list[tuple[str, dict[str, Any]]] = []
    if path is not None:
        try:
            table = read_toml(path)
        except FileNotFoundError as error:
            raise ConfigError(f"Cannot read {path}: {error.strerror}.") from None
        _encode_paths(table)
        found.append((str(path), table))
    for name, text in environ.items():
        if name.startswith(ENV_PREFIX):
            keys = name.removeprefix(ENV_PREFIX).lower().split("__")
            found.append((name, nested(keys, parsed(keys, text))))
    return found


def _leaves(table: Mapping[str, Any], way: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """A table for each value of a table, that value alone in it."""
    for key, value in table.items():
        if isinstance(value, dict) and value and not way:
            yield from _leaves(value, (*way, key))
        else:
            yield nested([*way, key], value)


def _has(table: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(table, Mapping) or part not in table:
            return False
        table = table[part]
    return True


def _encode_paths(table: dict[str, Any]) -> None:
    """Write the texts of a file, UTF-8 whatever the locale, as this Python writes those of the command line.

    They are names of files and devices; what is no text is left for ``from_table`` to refuse.
    """
    for key, value in table.items():
        if isinstance(value, dict):
            _encode_paths(value)
        elif isinstance(value, list):
            for one in value:
                if isinstance(one, dict):
                    _encode_paths(one)
            table[key] = [os.fsdecode(one.encode()) if isinstance(one, str) else one for one in value]
        elif isinstance(value, str) and key != "name":
            table[key] = os.fsdecode(value.encode())


def parsed(keys: Sequence[str], text: str) -> Any:
    """A text in the type of the setting that it is for: a list is split at blanks; what does not parse stays text."""
    hint = next((one.hint for one in all_settings() if one.key == ".".join(keys)), None)
    if typing.get_origin(hint) is list:
        return text.split()
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return hint(text) if hint in (int, float) else text
    except ValueError:
        return text


def nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Tables within tables, down to a value: ``["camera", "fps"]``, 30 -> ``{"camera": {"fps": 30}}``."""
    return {keys[0]: nested(keys[1:], value) if len(keys) > 1 else value}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables in one; a value of ``above`` takes the place of one of ``below``."""
    both = dict(below)
    for key, value in above.items():
        inner = both.get(key)
        both[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both
