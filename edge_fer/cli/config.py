"""``edge-fer config``: a file that explains itself, its mistakes, where each value comes from, one value changed."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_fer import address
from edge_fer.cli.verbs import Parser, Verbs, add_verb
from edge_fer.config import (
    CameraSettings,
    Field,
    Settings,
    all_settings,
    default_file,
    default_files,
    told_apart,
    value_of,
)
from edge_fer.config_file import as_toml, new_file, reference_page, update_file, variable
from edge_fer.errors import ConfigError, OutputError, UsageError, printable
from edge_fer.files import make_folder, write_atomically
from edge_fer.layers import load_settings, mistakes, origins, parsed
from edge_fer.strict import read_toml

EXAMPLES = """examples:
  edge-fer config init                            write a file with every setting and its comment
  edge-fer config check                           look for mistakes, all of them at once
  edge-fer config show --origin                   the values in force, and where each comes from
  edge-fer config edit camera.source picamera:0   change one value; comments stay
  edge-fer config edit outputs terminal jsonl:events.jsonl
  edge-fer config edit --config /etc/edge-fer/config.toml model.threads 2
"""


def add_config(verbs: Verbs) -> None:
    """Add the verb."""
    config = add_verb(verbs, "config", "write, check, show or edit the configuration", EXAMPLES)
    actions = config.add_subparsers(metavar="init|check|show|edit|reference", required=True)
    init = _add(actions, "init", "write a file with every setting, its comment and its default", _init)
    init.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    _add(actions, "check", "look for mistakes in the file and in EDGE_FER_... variables", _check)
    show = _add(actions, "show", "the values in force, without passwords", _show)
    show.add_argument("--origin", action="store_true", help="say where each value comes from")
    show.add_argument("--json", action="store_true", help="print JSON, with the origins")
    edit = _add(actions, "edit", "change one value of the file, and leave its comments and order", _edit)
    edit.add_argument("key", metavar="KEY", help="as in camera.width")
    edit.add_argument("value", metavar="VALUE", nargs="+", help="of a list, such as outputs, several")
    _add(actions, "reference", "print the page docs/configuration.md", _reference)


def _add(actions: Verbs, name: str, text: str, act: Any) -> Parser:
    action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    if name != "reference":
        action.add_argument(
            "--config",
            type=Path,
            metavar="TOML",
            help=f"the file (default: {' or '.join(map(str, default_files()))}, the first that exists)",
        )
    action.set_defaults(act=act, tries_libraries=False)
    return action


def _init(args: argparse.Namespace) -> None:
    path = args.config or default_files()[-1]
    if str(path) == "-":
        print(new_file(), end="")
        return
    if os.path.lexists(path) and not args.overwrite:
        raise UsageError(f"{path} is there already. --overwrite replaces it; `edge-fer config edit` changes one value.")
    with _or_sudo():
        make_folder(path.parent)
        write_atomically(path, new_file().encode())
    option = f" --config {path}" if args.config else ""
    print(f"{path} has every setting with its comment. Edit it, then run `edge-fer config check{option}`.")


def _check(args: argparse.Namespace) -> None:
    wrong = mistakes(args.config, os.environ)
    for one in wrong[:-1]:
        print(f"edge-fer: {address.printable(printable(one))}", file=sys.stderr)
    if wrong:
        raise ConfigError(wrong[-1])
    settings = load_settings(args.config, os.environ, {})

    from edge_fer.cli.run import check_outputs
    from edge_fer.detection import open_detector
    from edge_fer.model.bundle import DEFAULT_MODEL, Bundle
    from edge_fer.sinks import check_network
    from edge_fer.sources import open_source

    path = args.config or default_file()
    for spec in settings.outputs:
        check_network(spec, settings, path.parent if path else None)
    check_outputs(settings, path)
    for camera in told_apart(settings.all_cameras):
        scheme, _ = address.split_address(camera.source) or ("file", "")
        is_address = scheme != "file" or camera.source.startswith(("picamera:", "rpicam:"))
        if is_address or not camera.source:
            open_source(camera, later=True).close()  # nothing is opened, as a file would be
    Bundle.load(settings.model.path or DEFAULT_MODEL)
    open_detector(settings.detector)
    values = ((one, value_of(settings, one.key)) for one in all_settings())
    changed = [f"{one.key} = {_shown(value)}" for one, value in values if value != one.default]
    print(f"{path} is good." if path else "There is no file; `edge-fer config init` writes one.")
    print(f"Not at their defaults: {', '.join(changed) or 'none'}.")
    source = address.printable(settings.all_cameras[0].source)
    print(f"The camera was not opened; `edge-fer cameras --snapshot {source}` shows what it sees.")


def _show(args: argparse.Namespace) -> None:
    settings = load_settings(args.config, os.environ, {})
    known = origins(args.config, os.environ)
    values = {one.key: value_of(settings, one.key) for one in all_settings()}
    if args.json:
        table = {key: {"value": _without_secrets(value), "origin": known[key]} for key, value in values.items()}
        print(json.dumps(table, indent=2, default=dataclasses.asdict))
        return
    lines = {key: f"{key.rpartition('.')[2]} = {_shown(value)}" for key, value in values.items()}
    width = max(map(len, lines.values()))
    section = ""
    for key, line in lines.items():
        inside = key.rpartition(".")[0]
        if inside != section:
            section = inside
            print(f"\n[{section}]")
        print(f"{line:{width}}  # {printable(known[key])}" if args.origin else line)


def _edit(args: argparse.Namespace) -> None:
    keys = {one.key: one for one in all_settings()}
    if args.key not in keys:
        close = difflib.get_close_matches(args.key, keys, n=1)
        known = f"Did you mean {close[0]}?" if close else f"There are {', '.join(keys)}."
        raise UsageError(f"There is no setting {printable(args.key[:100])}. {known}")
    value = _value(keys[args.key], args.value)
    path = args.config or default_file() or default_files()[-1]
    before = _value_in(path, args.key)
    with _or_sudo():
        update_file(path, {args.key: value}, new=new_file())
    print(f"{args.key}: {_shown(before)} -> {_shown(value)} in {path}.")
    if variable(args.key) in os.environ:
        print(f"It has no effect here: the variable {variable(args.key)} beats the file.")
    if keys[args.key].setting.live:
        print("A service takes it over on SIGHUP, if it reads its configuration again; else restart it.")
    else:
        print("It counts from the next start: `sudo systemctl restart edge-fer`, if the service runs.")


@contextmanager
def _or_sudo() -> Iterator[None]:
    """The system's own file is root's: whoever may not write it is told so."""
    try:
        yield
    except OutputError as error:
        raise OutputError(
            f"{error} Or run it with sudo." if "Permission denied" in str(error) else str(error)
        ) from None


def _value(one: Field, texts: Sequence[str]) -> Any:
    if typing.get_origin(one.hint) is list:
        return list(texts)
    if len(texts) > 1:
        raise UsageError(f"{one.key} takes one value, not {len(texts)}. Put a text with blanks in quotes.")
    return parsed(one.key.split("."), texts[0])


def _value_in(path: Path, key: str) -> Any:
    """What the file says, right or wrong; the default where it says nothing.

    Raises:
        ConfigError: it is no TOML.
    """
    try:
        value: Any = read_toml(path)
        for part in key.split("."):
            value = value[part]
    except (FileNotFoundError, KeyError, TypeError):
        return value_of(Settings(), key)
    return value


def _reference(args: argparse.Namespace) -> None:
    print(reference_page(), end="")


def _without_secrets(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_secrets(one) for one in value]
    if isinstance(value, CameraSettings):
        return dataclasses.replace(value, source=address.printable(value.source), name=address.printable(value.name))
    return address.printable(value) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    """A value as TOML, fit for any terminal."""
    return printable(as_toml(_without_secrets(value)))
