"""``python -m training survey``: trains rows of the survey's table as far as the time goes, and writes the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from edge_fer.errors import ConfigError, DataError
from edge_fer.files import make_folder, write_atomically
from training.survey.page import page
from training.survey.results import PROJECT, read_results, with_project
from training.survey.rows import BudgetSpent, Survey, within
from training.survey.systems import load_systems, rows_of


def survey(
    data: Path | None,
    output: Path,
    *,
    only: Sequence[str] = (),
    seeds: int = 1,
    budget: float | None = None,
    runs: Path = Path("runs"),
    cross: Path | None = None,
) -> None:
    """Train the rows that are missing in ``runs``, and write the page; whatever ends it, the page has what is done.

    Args:
        data: see ``datasets.load``; None writes the page alone.
        output: the Markdown file.
        only: names of systems or rows; none for all.
        seeds: at most; further ones are for rows close to the baseline.
        budget: minutes; None for no end.
        runs: folder of all run folders, with survey.jsonl for the results.
        cross: folder of a data set that rows are tested on too; None for none.

    Raises:
        ConfigError: a name, a number or a combination is wrong.
        EdgeFerError: see ``rows.Survey``.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, not {seeds}.")
    if budget is not None and not 0 < budget < float("inf"):
        raise ConfigError(f"--budget must be minutes, more than 0, not {budget:g}.")
    console, sections = Console(stderr=True, highlight=False), load_systems()
    rows = rows_of(sections, tuple(only))
    own = runs / "survey.jsonl"
    if data is None:
        if only or budget is not None or cross is not None:
            raise ConfigError("Nothing is trained without --data: give the folder with the data set.")
    else:
        table = Survey(rows, data, runs, own, cross)
        without = [sentence for row in rows if (sentence := table.lacking(row))]
        if without and only:
            raise DataError(without[0])
        for sentence in without:
            console.print(f"Left out: {sentence}")
        try:
            with within(budget):
                table.run(seeds, console, named=bool(only))
        except BudgetSpent:
            console.print(f"\nThe {budget:g} minutes are over: the same command goes on from here.")
        finally:
            had = {one.row for one in table.results}
            if left := [row for row in rows if row not in had]:
                console.print(f"{len(rows) - len(left)} of {len(rows)} rows are done; not yet: {', '.join(left)}.")
            _write(output, own, console)
        return
    _write(output, own, console)


def _write(output: Path, own: Path, console: Console) -> None:
    make_folder(output.parent)
    text = page(load_systems(), with_project(read_results(own), read_results(PROJECT)))
    write_atomically(output, text.encode())
    console.print(f"Wrote {output}.")
