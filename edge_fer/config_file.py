"""The configuration as a file that explains itself: a new one, an edit that keeps its comments, the reference page."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
import tomllib
import typing
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from edge_fer.config import ENV_PREFIX, Field, Settings, all_settings
from edge_fer.errors import ConfigError
from edge_fer.files import make_folder, write_atomically
from edge_fer.layers import merged, nested
from edge_fer.strict import from_table, read_text

_HEAD = """\
# Configuration of edge-fer: every setting with its default.
# An option of `edge-fer run` beats a variable EDGE_FER_SECTION__KEY beats this file.
# `edge-fer config check` looks for mistakes, `edge-fer config edit KEY VALUE` changes a value and nothing else.
# Live: can change without a restart, where a service reads this file again on SIGHUP.
"""

_PAGE = """\
# Configuration

<!-- Made of edge_fer/config.py by `edge-fer config reference > docs/configuration.md`; a test compares them. -->

Each setting has a default, so that no file is needed. `edge-fer config init` writes one with all of them and their
comments; `check` looks for mistakes, `show --origin` tells where each value comes from, `edit KEY VALUE` changes one
and leaves comments and order as they are.

The first of these files that exists is read: `/etc/edge-fer/config.toml`, `$XDG_CONFIG_HOME/edge-fer/config.toml`
(`~/.config/...`); `--config FILE` names another. An option of `edge-fer run` beats an environment variable
`EDGE_FER_SECTION__KEY`, which beats the file. In a variable a list is split at blanks.

**Live** settings can change while a stream runs: a service that reads its configuration again on SIGHUP takes them over
without a restart (`systemctl reload edge-fer`). `edge-fer run` at a terminal reads it once, when it starts.
"""


def new_file() -> str:
    """The TOML of a file with every setting at its default, each below its comment; lists of tables as an example."""
    lines, examples = [_HEAD], []
    for table, settings in _sections():
        lines += [f"[{table}]"] if table else []
        for one in settings:
            if _is_tables(one):  # [[cameras]]: one that stands here would be a camera
                examples += [*_comment(one), f"# [[{one.key}]]", '# source = "0"', '# name = "door"\n']
            else:
                lines += [*_comment(one), f"{one.key.rpartition('.')[2]} = {as_toml(one.default)}\n"]
    return "\n".join([*lines, *examples])


def _comment(one: Field) -> list[str]:
    lines = textwrap.wrap(one.setting.text, 110, break_on_hyphens=False)
    notes = (
        f"Values: {limits(one)}." if limits(one) else "",
        f"Option: {one.setting.flag}." if one.setting.flag else "",
        "Live." if one.setting.live else "",
    )
    return [f"# {line}" for line in [*lines, " ".join(note for note in notes if note)] if line]


def _is_tables(one: Field) -> bool:
    return typing.get_origin(one.hint) is list and dataclasses.is_dataclass(typing.get_args(one.hint)[0])


def _sections() -> Iterator[tuple[str, Iterator[Field]]]:
    """The settings by table; those at the top of the file, which have none, come first."""
    return itertools.groupby(all_settings(), key=lambda one: one.key.rpartition(".")[0])


def limits(one: Field) -> str:
    """Which values a setting takes, with the unit: "1 to 1000 px"; its choices; "" for any text."""
    if typing.get_origin(one.hint) is typing.Literal:
        return " | ".join(as_toml(value) for value in typing.get_args(one.hint))
    if one.hint is bool:
        return "true | false"
    setting = one.setting
    if typing.get_origin(one.hint) is list:
        return "a list of tables" if _is_tables(one) else "a list of texts"
    if setting.choices:
        return f"{' | '.join(map(str, setting.choices))} {setting.unit}".rstrip()
    if setting.least is None or setting.most is None:
        return setting.unit
    return f"{setting.least:g} to {setting.most:g} {setting.unit}".rstrip()


def reference_page() -> str:
    """docs/configuration.md: a table for each section."""
    lines = [_PAGE]
    for table, settings in _sections():
        lines += [
            f"## {f'[{table}]' if table else 'At the top of the file'}\n",
            "| key | default | values | option, variable | live | what it is for |",
            "|---|---|---|---|---|---|",
        ]
        for one in settings:
            cells = (
                f"`{one.key.rpartition('.')[2]}`",
                f"`{as_toml(one.default)}`",
                limits(one).replace(" | ", " or ") or "any text",
                ", ".join(
                    f"`{name}`" for name in (one.setting.flag, variable(one.key)) if name and not _is_tables(one)
                ),
                "yes" if one.setting.live else "no",
                one.setting.text,
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def variable(key: str) -> str:
    """The environment variable of a dotted key."""
    return ENV_PREFIX + key.replace(".", "__").upper()


def as_toml(value: Any) -> str:
    """A value as it stands in a file.

    Raises:
        ConfigError: it holds bytes that are no text, which no TOML file can.
    """
    import tomlkit  # only who edits pays for it

    if isinstance(value, list) and any(map(dataclasses.is_dataclass, value)):
        return f"[{', '.join(map(_inline_table, value))}]"
    text: str = tomlkit.item(value).as_string()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{value!r} is not UTF-8, and a TOML file holds nothing else. Rename it.") from None
    return text


def _inline_table(value: Any) -> str:
    """A dataclass as TOML's {key = value}, with what is not at its default."""
    changed = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    kept = [f"{name} = {as_toml(one)}" for name, one in changed.items() if one != getattr(type(value)(), name)]
    return f"{{{', '.join(kept)}}}"


def update_file(path: Path, values: Mapping[str, Any], new: str = "") -> None:
    """Set keys of a TOML file, and leave all else as it is: comments, order, other keys.

    Args:
        path: made if it is not there, with its folder. It is replaced whole or not at all.
        values: by dotted key, ``{"model.threads": 2, "name": "kitchen"}``.
        new: what a file that is not there begins with.

    Raises:
        ConfigError: a value is wrong, or the file is not valid TOML.
        OutputError: it cannot be written.
    """
    import tomlkit

    for dotted, value in values.items():
        from_table(Settings, nested(dotted.split("."), value), "the new value")
        as_toml(value)
    path = path.resolve()  # a link stays a link
    try:
        before = read_text(path) if path.exists() else new
        document = tomlkit.parse(before)
        for dotted, value in values.items():
            table, _, key = dotted.rpartition(".")
            inner = document.setdefault(table, tomlkit.table()) if table else document
            if not isinstance(inner, MutableMapping):
                raise ConfigError(f"{path}: '{table}' must be a table. Mend it by hand.")
            inner[key] = value
        after = tomlkit.dumps(document)
        _check_edit(tomllib.loads(before), tomllib.loads(after), values)
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from None
    except (ValueError, tomlkit.exceptions.TOMLKitError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    make_folder(path.parent)
    write_atomically(path, after.encode())


def _check_edit(before: dict[str, Any], after: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Whether an edit has changed what it should and nothing else: people's files are laid out in many ways."""
    for dotted, value in values.items():
        before = merged(before, nested(dotted.split("."), value))
    if before != after:
        raise ConfigError(f"The file is laid out in a way that cannot be edited: set {', '.join(values)} by hand.")
