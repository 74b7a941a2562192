"""The list of the survey's systems, systems.toml: what each is, where it lives here, and how its figures come about."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_fer.errors import ConfigError
from edge_fer.strict import from_table, read_toml

SYSTEMS = Path(__file__).parent / "systems.toml"
BASELINE = "survey/baseline"
"""The row that all others are held against, unless a system says otherwise."""

Need = Literal["subjects", "sequences", "landmarks"]


@dataclass(frozen=True)
class System:
    """One system of the survey.

    Attributes:
        name: for ``--only``, in small letters.
        title: as the literature calls it.
        what: one sentence on what it does.
        place: files or folders of this repository, from its root; none for what is documented only.
        command: what a person types to use it; "" where there is nothing to type.
        rows: stages of recipes, "pipeline/stage", that ``training survey`` trains and measures for it.
        against: by row, the row that it is held against where that is not the baseline.
        needs: what it asks of a data set beyond labels.
        result: for what is measured elsewhere: what came out, in Markdown.
        verdict: whether it pays, in a few words; of trained rows their figures tell.
        reason: for what is documented only: why it is not built.
        takes: likewise: what it would take.
    """

    name: str
    title: str
    what: str
    place: tuple[str, ...] = ()
    command: str = ""
    rows: tuple[str, ...] = ()
    against: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    result: str = ""
    verdict: str = ""
    reason: str = ""
    takes: str = ""

    def other(self, row: str) -> str:
        """The row that one of its rows is held against."""
        return str(self.against.get(row, BASELINE))


@dataclass(frozen=True)
class Section:
    """Systems that the survey treats together.

    Attributes:
        title: of the section, with its number in the survey.
        system: its systems, in the survey's order.
        about: a sentence for those who read the page; "" for none.
    """

    title: str
    system: tuple[System, ...]
    about: str = ""


@dataclass(frozen=True)
class _File:
    section: tuple[Section, ...]


def load_systems(path: Path = SYSTEMS) -> tuple[Section, ...]:
    """Read the list.

    Raises:
        ConfigError: it is not TOML, a key is wrong, two systems have one name, or one tells neither how it is measured
            nor why it is not built.
    """
    try:
        sections = from_table(_File, read_toml(path), str(path)).section
    except FileNotFoundError:
        raise ConfigError(f"No list of systems {path}: it comes with the repository.") from None
    names: set[str] = set()
    for system in (one for section in sections for one in section.system):
        if system.name in names:
            raise ConfigError(f"{path}: two systems are called {system.name!r}.")
        names.add(system.name)
        if sum(map(bool, (system.rows, system.result, system.reason))) != 1:
            raise ConfigError(f"{path}: {system.name} wants one of 'rows', 'result' and 'reason'.")
        if bool(system.reason) != bool(system.takes) or bool(system.reason) == bool(system.place):
            raise ConfigError(f"{path}: {system.name} wants a 'place', or 'reason' and 'takes' where it has none.")
    return sections


def rows_of(sections: tuple[Section, ...], only: tuple[str, ...] = ()) -> dict[str, System]:
    """The rows to train, in the list's order, each with the first system that has it.

    Args:
        sections: of ``load_systems``.
        only: names of systems, or of rows ("cbam" for "survey/cbam"); none for all.

    Raises:
        ConfigError: a name is unknown, or of a system that no row is trained for.
    """
    systems = {system.name: system for section in sections for system in section.system}
    rows: dict[str, System] = {}
    for system in systems.values():
        for row in system.rows:
            rows.setdefault(row, system)
    if not only:
        return rows
    wanted: set[str] = set()
    for name in only:
        named = {row for row in rows if name in (row, row.partition("/")[2])}
        if name in systems:
            if not systems[name].rows:
                raise ConfigError(_no_row(systems[name]))
            named |= set(systems[name].rows)
        if not named:
            raise ConfigError(
                f"--only {name}: no such system or row; docs/survey.md lists them, as {_like(name, systems)}."
            )
        wanted |= named
    return {row: system for row, system in rows.items() if row in wanted}


def _no_row(system: System) -> str:
    if system.reason:
        return f"--only {system.name}: it is documented only. {system.reason}"
    wants = f", which wants data with {' and '.join(system.needs)}" if system.needs else ""
    return f"--only {system.name}: `survey` trains no row for it; its command is `{system.command}`{wants}."


def _like(name: str, systems: dict[str, System]) -> str:
    return ", ".join(difflib.get_close_matches(name, systems, n=3, cutoff=0.3) or list(systems)[:3])
