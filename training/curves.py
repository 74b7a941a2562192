"""A training epoch by epoch: history.csv, its curves as a figure, and in the terminal while it goes on."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from edge_fer.errors import DataError
from edge_fer.model.spec import Head

History = list[dict[str, float]]
"""A line an epoch: epoch, loss, seconds, and the accuracy on PublicTest of each head by its name."""

COLORS = ("cyan", "yellow", "magenta", "green")
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille character: rows of left and right


def write_history(path: Path, history: History, heads: Sequence[Head]) -> None:
    """Write the lines of a training as CSV."""
    write_lines(path, history, ["epoch", "loss", "seconds", *(head.name for head in heads)])


def write_lines(path: Path, lines: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> None:
    """Write lines as CSV; ``columns`` are those of the first one where they are not given."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def read_history(path: Path) -> History:
    """Read what ``write_history`` wrote.

    Raises:
        DataError: it is something else.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            history = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    except (ValueError, TypeError, csv.Error):
        history = [{}]
    if not all({"epoch", "loss", "seconds"} <= line.keys() for line in history):
        raise DataError(f"{path} is not as a training writes it: epoch, loss and seconds in each line.")
    return history


def figure_of(histories: Mapping[str, History], heads: Sequence[str]) -> Figure:
    """Loss and the accuracy of each head over the epochs.

    Args:
        histories: of one or several runs, by name.
        heads: names of the heads to show.
    """
    return panels_of(
        histories, {"loss": "training loss", **{head: f"{head}: accuracy on PublicTest" for head in heads}}
    )


def panels_of(histories: Mapping[str, History], panels: Mapping[str, str]) -> Figure:
    """Columns over the epochs, a panel each.

    Args:
        histories: of one or several runs, by name.
        panels: titles by column.
    """
    figure = Figure(figsize=(4.2 * len(panels), 3.5), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True):
        for name, history in histories.items():
            values = [line.get(column, np.nan) for line in history]
            axes.plot([line["epoch"] for line in history], values, marker="." if len(history) < 30 else "", label=name)
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if len(histories) > 1:
            axes.legend()
    return figure


class LiveCurves:
    """Loss and accuracy so far, side by side as small line plots: for a terminal, drawn as rich asks for it.

    Nothing is drawn before the second epoch, in a terminal that is too low, or in one without Unicode.

    Args:
        history: may grow.
        heads: names of the heads to show.
    """

    def __init__(self, history: History, heads: Sequence[str]) -> None:
        self.history, self.heads = history, heads

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = min(8, (options.size.height - 6) // 2)
        columns = min(60, options.max_width // 2 - 10)
        if len(self.history) < 2 or rows < 3 or columns < 10 or options.ascii_only:
            return
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(
            self._plot("loss", ["loss"], "{:.2f}", columns, rows),
            self._plot("PublicTest", list(self.heads), "{:.0%}", columns, rows),
        )
        yield grid

    def _plot(self, title: str, names: list[str], number: str, columns: int, rows: int) -> Table:
        series = [[line.get(name, math.nan) for line in self.history] for name in names]
        known = [value for values in series for value in values if math.isfinite(value)] or [0.0]
        low, high = min(known), max(known)
        plot = Table.grid(padding=(0, 1, 0, 0))
        plot.add_column(justify="right", style="dim", min_width=5)
        legend = Text(f"{title}  " if names != [title] else "")
        for name, color in zip(names, _colors(names), strict=True):
            legend.append(f"{name}  ", color)
        plot.add_row("", legend)
        for place, line in enumerate(braille(series, low, high, columns, rows)):
            plot.add_row(number.format({0: high, rows - 1: low}[place]) if place in (0, rows - 1) else "", line)
        first, last = (f"{self.history[place]['epoch']:.0f}" for place in (0, -1))
        plot.add_row("", Text(f"{first}{f'epoch {last}':>{columns - len(first)}}", "dim"))
        return plot


def _colors(names: Sequence[str]) -> list[str]:
    return [COLORS[place % len(COLORS)] for place in range(len(names))]


def braille(series: Sequence[Sequence[float]], low: float, high: float, columns: int, rows: int) -> list[Text]:
    """Lines through values at equal distances, as braille characters: 2x4 dots each.

    Args:
        series: the values of each line, at least two, as many in each; what is not finite is left out.
        low: value at the lower edge.
        high: value at the upper edge.
        columns: characters.
        rows: characters.
    """
    dots = np.zeros((len(series), 4 * rows, 2 * columns), np.bool_)
    places = np.arange(2 * columns)
    for one, values in zip(dots, series, strict=True):
        known = np.isfinite(values)
        if not known.any():
            continue
        at = np.linspace(0, 2 * columns - 1, len(values))
        height = (np.interp(places, at[known], np.array(values)[known]) - low) / ((high - low) or 1)
        row = np.rint((1 - height) * (4 * rows - 1)).astype(int).tolist()
        for place, (before, now) in enumerate(zip([row[0], *row[:-1]], row, strict=True)):
            # A steep line has dots all the way, or it falls apart.
            step = (before < now) - (before > now)
            one[min(before + step, now) : max(before + step, now) + 1, place] = True
    cells = dots.reshape(len(series), rows, 4, columns, 2)
    codes = 0x2800 + np.tensordot(cells.any(axis=0), _DOTS, axes=([1, 3], [0, 1]))
    owners = cells.sum(axis=(2, 4)).argmax(axis=0)
    lines = []
    for row in range(rows):
        line = Text()
        for owner, places_of_one in groupby(range(columns), key=owners[row].__getitem__):
            line.append("".join(chr(codes[row, column]) for column in places_of_one), COLORS[owner % len(COLORS)])
        lines.append(line)
    return lines
