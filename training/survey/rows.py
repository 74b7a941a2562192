"""Trains the rows of the survey's table and measures them alike, one after the other, from where it was cut off."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
from rich.console import Console

import datasets
from datasets import Dataset, labeled_like
from edge_fer.errors import DataError, UnavailableError
from training import models, pipeline
from training.finished import read_finished
from training.plan import Pipeline, Step
from training.recipe import DataRecipe
from training.runs import load_data
from training.stages import Stage, collect, find
from training.survey import measure
from training.survey.results import Result, read_results, write_results
from training.survey.systems import System

CLOSE = 0.01
"""Accuracy, the mean over the heads, within which of the row it is held against a row gets further seeds."""


def close_rows(names: Sequence[str], systems: Mapping[str, System], results: Iterable[Result]) -> list[str]:
    """The rows that get further seeds, and those that they are held against, in the order given.

    Args:
        names: of the rows, "pipeline/stage".
        systems: the system of each row.
        results: what was measured; the first seed tells which rows are close, by the mean over the heads of both.
    """
    first = {one.row: one.heads for one in results if one.seed == 1}
    kept = set()
    for row in names:
        own, other = first.get(row, {}), systems[row].other(row)
        base = first.get(other, {})
        gaps = [own[head]["accuracy"] - base[head]["accuracy"] for head in own if head in base]
        if gaps and abs(sum(gaps) / len(gaps)) <= CLOSE:
            kept |= {row, other}
    return [row for row in names if row in kept]


class BudgetSpent(BaseException):
    """The time is over. As KeyboardInterrupt it may come anywhere, and nothing is lost: training goes on later."""


@contextmanager
def within(minutes: float | None) -> Iterator[None]:
    """Raise ``BudgetSpent`` in the main thread after so many minutes; None for no end."""

    def stop(*_: object) -> None:
        raise BudgetSpent

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0 if minutes is None else 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Survey:
    """Rows of the table over one data set.

    Args:
        rows: of ``systems.rows_of``.
        data: see ``datasets.load``.
        runs: folder of all run folders; those of further seeds lie in seed2 and so on in it.
        out: JSON Lines of the results, added to.
        cross: folder of another data set that each row is tested on too; None for none.

    Raises:
        EdgeFerError: data are not as they should be: one class, nothing in ``cross`` that the heads have a class for.
    """

    def __init__(self, rows: Mapping[str, System], data: Path, runs: Path, out: Path, cross: Path | None) -> None:
        self.rows, self.data, self.runs, self.out = rows, data, runs, out
        self.results = read_results(out)
        self._loaded: dict[DataRecipe, Mapping[str, Dataset]] = {}
        self.stages: dict[str, Stage] = {}
        for name in dict.fromkeys(row.partition("/")[0] for row in rows):
            self.stages |= collect(find(name))
        training = self._splits(next(self.stages[row].recipe.data for row in rows))["Training"]
        for name, labels in training.labels.items():
            if len(np.unique(labels.truth[labels.truth >= 0])) < 2:
                raise DataError(f"The Training samples of {name} in {data} are of one class: nothing can be compared.")
        self.cross = None if cross is None else labeled_like(datasets.load_test(cross), training.heads)
        if self.cross is not None and not len(self.cross):
            raise DataError(
                f"No face in {cross} has an expression that the heads of {data} know: give another --cross."
            )
        self.cross_name = "" if cross is None else cross.resolve().name

    def lacking(self, row: str) -> str:
        """What the data lack for a row, in a sentence; "" for nothing."""
        known = self._splits(self.stages[row].recipe.data)["Training"]
        has = {"subjects": known.subjects is not None, "sequences": known.sequences is not None, "landmarks": False}
        without = [need for need in self.rows[row].needs if not has[need]]
        return f"{row} wants data with {' and '.join(without)}, and {self.data} tells none." if without else ""

    def run(self, seeds: int, console: Console, named: bool = False) -> None:
        """Train and measure what is missing: all rows with seed 1, then those close to the baseline with more seeds.

        Args:
            seeds: how many at most.
            console: is told what happens.
            named: the rows were asked for by name, so that one for which a package is missing ends it.

        Raises:
            EdgeFerError: see ``pipeline.run``.
        """
        # Without a last line that was cut off, behind which the next would be lost.
        write_results(self.out, self.results)
        wanted = [row for row in self.stages if row in self.rows and not self.lacking(row)]
        for seed in range(1, seeds + 1):
            had = {(one.row, one.seed) for one in self.results}
            missing = [row for row in wanted if (row, seed) not in had]
            for number, row in enumerate(missing, 1):
                console.rule(f"row {number} of {len(missing)}, {row}, seed {seed}")
                try:
                    self._walk(row, seed, console)
                except UnavailableError as error:
                    if named:
                        raise
                    console.print(f"Left out: {row}. {error}")
            wanted = close_rows(wanted, self.rows, self.results)

    def _walk(self, row: str, seed: int, console: Console) -> None:
        def then(plan: Pipeline, step: Step) -> None:
            if step.stage.key == row:
                console.print(f"Measuring {row}: int8 too ...", highlight=False)
                self.results.append(self._measured(plan, step, seed, place))
                write_results(self.out, self.results)

        place = self.runs if seed == 1 else self.runs / f"seed{seed}"
        changes = [] if seed == 1 else [f"seed={seed}"]
        recipe = find(row.partition("/")[0])
        pipeline.run(recipe, self.data, place, changes=changes, only=[row], then=then)

    def _splits(self, recipe: DataRecipe) -> Mapping[str, Dataset]:
        if recipe not in self._loaded:
            self._loaded[recipe] = load_data(self.data, recipe)
        return self._loaded[recipe]

    def _other(self, row: str, place: Path) -> Step | None:
        """The finished step that a row is held against, which may be of another pipeline; None where there is none."""
        other = self.rows[row].other(row)
        stage = collect(find(other.partition("/")[0])).get(other)
        step = None if stage is None or other == row else Step(stage, place)
        return step if step is not None and step.is_done else None

    def _measured(self, plan: Pipeline, step: Step, seed: int, place: Path) -> Result:
        run, splits = read_finished(step.folder), self._splits(step.stage.recipe.data)
        model, other = models.load(step.made), self._other(step.stage.key, place)
        int8, edge_tpu = None, None
        if keras.backend.backend() == "tensorflow":  # which conversion wants
            int8, edge_tpu = measure.quantized(model, splits["Training"], splits["PublicTest"], run.heads)
        against = None
        if other is not None:
            against = {"row": other.stage.key, "heads": measure.paired(run, read_finished(other.folder))}
        cross = None
        if self.cross is not None:
            cross = {"data": self.cross_name, **measure.across(model, run.heads, self.cross)}
        return Result(
            row=step.stage.key,
            seed=seed,
            test_sha256=run.data_sha256,
            epochs=step.stage.recipe.epochs,
            parameters=run.facts["parameters"],
            mmac=run.facts["mmac"],
            minutes=round(measure.minutes(plan, step), 1),
            heads=measure.on_test(run),
            cross=cross,
            int8=int8,
            edge_tpu=edge_tpu,
            against=against,
        )
