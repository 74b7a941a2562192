"""What can be done to faces before the network, tried row by row: trained and tested alike, clean and in bad light.

    python -m training.ablation --data ~/fer2013 -o runs/before.jsonl
    python -m training.ablation --data ~/fer2013 -o runs/before.jsonl --rows none tan-triggs tan-triggs+equalization
    python -m training.ablation --data ~/fer2013 -o runs/small.jsonl --recipe training/recipes/ablation-small.toml

Each row is one training by one recipe (default: ten epochs of `nano`, distilled from cached teacher logits) on Training
faces to which the same was done as to the test faces, which is what ``preprocess.Preprocessor`` does on a device. A row
is written as soon as it is done; the same command goes on with those that are missing. Rows that come within a point of
`none` are trained with two more seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import datasets
from datasets import Dataset
from datasets.landmarks_file import CropLandmarks
from edge_fer.errors import ConfigError, EdgeFerError, UsageError
from edge_fer.files import write_atomically
from evaluation.metrics import evaluate_logits
from evaluation.treatments import (
    TREATMENTS,
    Faces,
    Prepared,
    Treatment,
    prepare,
    prepare_remembered,
    remember,
)
from training import loop, models
from training.cached_logits import load_logits
from training.callbacks.chance import Batches, ChanceByEpoch
from training.callbacks.ema import WeightEMA
from training.ranges import check_seeds
from training.recipe import Recipe, load_recipe
from training.runs import read_lines
from training.samples import Samples
from training.tasks import class_balance, targets_of

SEEDS = (1, 2, 3)
CLOSE = 0.01
"""Accuracy, FER+ and FER2013 in the mean, within which a row counts as good as ``none`` and gets all seeds."""
Say = Callable[[str], None]


class Trainer:
    """Trains one recipe again and again, from the beginning each time; on JAX by one program, compiled once.

    Args:
        recipe: of all rows; its seed is not used.
        training: labels of the Training faces; its images are not used.
        test: labels of the test faces, likewise.
        teacher: cached logits, float32 (n, classes); None where the recipe does not distill.

    Raises:
        ConfigError: the recipe has a loss for data with subjects.
        DataError: it balances classes of which one has no sample.
    """

    def __init__(
        self,
        recipe: Recipe,
        training: Dataset,
        test: Dataset,
        teacher: NDArray[np.float32] | None = None,
    ) -> None:
        if recipe.tuplets or recipe.identity:
            raise ConfigError(f"{recipe.name} has a loss that asks who a face is, and nobody tells it here.")
        self.recipe, self.test = recipe, test
        self.balance = class_balance(recipe.class_balance, training)
        self.targets = targets_of(training, recipe.label_smoothing)
        if teacher is not None:
            self.targets["teacher"] = teacher
        self.steps = -(-len(training) // recipe.batch_size)
        self.network = self._built(recipe.seed)
        self.core = models.core_of(self.network, recipe.model.kind)
        self.network.optimizer.build(self.network.trainable_variables)
        self._fresh = [keras.ops.convert_to_numpy(one) for one in self.network.optimizer.variables]
        self.averaged = keras.models.clone_model(self.core)
        self.ema = WeightEMA(self.core, self.averaged, recipe.optimizer.ema)
        self._program: Any = None

    def _built(self, seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        return loop.build(self.recipe, self.test.heads, self.steps, self.balance)

    def begin(self, seed: int) -> None:
        """Put all variables where a new training with this seed has them."""
        for mine, new in zip(self.network.variables, self._built(seed).variables, strict=True):
            mine.assign(new)
        for mine, value in zip(self.network.optimizer.variables, self._fresh, strict=True):
            mine.assign(value)
        self.averaged.set_weights(self.core.get_weights())

    def train(self, images: NDArray[np.uint8], seed: int) -> None:
        """A training from the beginning; ``averaged`` then has the EMA of its weights."""
        self.begin(seed)
        if keras.backend.backend() == "jax":
            from training import jax_fit

            self._program = self._program or jax_fit.compiled(self.network, self.recipe.batch_size, self.ema)
            jax_fit.fit(
                self.network,
                Samples.plain(images, self.targets),
                batch_size=self.recipe.batch_size,
                epochs=self.recipe.epochs,
                initial_epoch=0,
                callbacks=[ChanceByEpoch(seed)],
                seed=seed,
                ema=self.ema,
                program=self._program,
            )
        else:
            batches = Batches(images, self.targets, self.recipe.batch_size)
            callbacks = [ChanceByEpoch(seed, batches), self.ema]
            self.network.fit(batches, epochs=self.recipe.epochs, shuffle=False, callbacks=callbacks, verbose=0)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits of the last training, float32 (n, classes)."""
        logits: NDArray[np.float32] = self.averaged.predict(images, batch_size=512, verbose=0)
        return logits

    def measure(self, images: NDArray[np.uint8]) -> dict[str, Any]:
        """Metrics of the last training on test faces, by head; see ``metrics.evaluate_logits``."""
        return evaluate_logits(self.predict(images), self.test, self.test.heads)


@dataclass(frozen=True)
class Result:
    """A row with one seed, as a line of the file has it.

    Attributes:
        row: its name.
        seed: of weights, order and augmentation.
        seconds: that its training took.
        accuracy: by condition and head.
        macro_f1: likewise.
    """

    row: str
    seed: int
    seconds: float
    accuracy: Mapping[str, Mapping[str, float]]
    macro_f1: Mapping[str, Mapping[str, float]]

    @property
    def clean(self) -> float:
        """Accuracy in clean light, the mean over the heads."""
        return float(np.mean(list(self.accuracy["clean"].values())))


def run(
    names: Sequence[str],
    faces: Faces,
    trainer: Trainer,
    out: Path,
    *,
    seeds: Sequence[int] = SEEDS,
    workers: int = 0,
    until: float = float("inf"),
    say: Say = print,
) -> list[Result]:
    """Train and measure what is missing.

    Args:
        names: of the rows.
        faces: of Training and test.
        trainer: of the same samples.
        out: JSON Lines, one for each row and seed; added to.
        seeds: the first is for all rows, the others for those that come within ``CLOSE`` of `none`.
        workers: processes that prepare the faces of the next rows meanwhile; 0 for none.
        until: time (``time.monotonic``) after which no row is begun.
        say: takes a line for each row.

    Returns:
        All that the file has.
    """
    rows = {name: Treatment.parse(name) for name in names}
    done = read(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Without a last line that was cut off, behind which the next would be lost.
    write_atomically(out, "".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in done).encode())

    def missing(seed: int) -> list[tuple[Treatment, int]]:
        had = {(one.row, one.seed) for one in done}
        return [(row, seed) for name, row in rows.items() if (name, seed) not in had]

    def act(jobs: list[tuple[Treatment, int]]) -> None:
        for (row, seed), (training, tests) in _prepared(jobs, faces, workers):
            if time.monotonic() > until:
                return
            started = time.monotonic()
            trainer.train(training, seed)
            seconds = round(time.monotonic() - started, 1)
            metrics = {name: trainer.measure(images) for name, images in tests.items()}
            heads = [head.name for head in trainer.test.heads]
            table = {
                key: {name: {head: round(one[head][key], 5) for head in heads} for name, one in metrics.items()}
                for key in ("accuracy", "macro_f1")
            }
            result = Result(row.name, seed, seconds, table["accuracy"], table["macro_f1"])
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(result)) + "\n")
            done.append(result)
            say(f"{row.name}, seed {seed}: clean {result.clean:.2%}, the mean of the heads, in {seconds:.0f} s")

    act(missing(seeds[0]))
    base = next((one.clean for one in done if (one.row, one.seed) == ("none", seeds[0])), None)
    if base is not None:
        first = {one.row: one.clean for one in done if one.seed == seeds[0]}
        close = {name for name, clean in first.items() if clean >= base - CLOSE}
        for seed in seeds[1:]:
            act([(row, seed) for row, seed in missing(seed) if row.name in close])
    return done


def _prepared(
    jobs: list[tuple[Treatment, int]], faces: Faces, workers: int
) -> Iterator[tuple[tuple[Treatment, int], Prepared]]:
    if not workers:
        for one in jobs:
            yield one, prepare(one[0], faces)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with a GPU's threads hangs
    with ProcessPoolExecutor(workers, context, remember, (faces,)) as pool:
        ahead: list[tuple[tuple[Treatment, int], Future[Prepared]]] = []
        rest = iter(jobs)
        while True:
            while len(ahead) < workers + 2 and (job := next(rest, None)):
                ahead.append((job, pool.submit(prepare_remembered, job[0])))
            if not ahead:
                return
            job, future = ahead.pop(0)
            try:
                yield job, future.result()
            except GeneratorExit:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def read(path: Path) -> list[Result]:
    """The lines of a file of ``run``; see ``runs.read_lines``."""
    return read_lines(path, Result, "`python -m training.ablation` wrote: give another -o")


def table(results: Sequence[Result]) -> Table:
    """The rows by their accuracy in percent, FER+ / FER2013: a column a condition, then the mean of all but "clean".

    With several seeds it is their mean, and half of their range.
    """
    conditions = list(results[0].accuracy) if results else []
    heads = list(results[0].accuracy["clean"]) if results else []
    shown = Table(title=f"accuracy, {' / '.join(heads)}")
    columns = [*([one] for one in conditions), conditions[1:]]
    for title in ("row", "seeds", *conditions, "mean of the lights"):
        shown.add_column(title, no_wrap=title == "row")
    for name in dict.fromkeys(one.row for one in results):
        of_row = [one for one in results if one.row == name]
        cells = []
        for column in columns:
            texts = []
            for head in heads:
                values = [100 * float(np.mean([one.accuracy[name][head] for name in column])) for one in of_row]
                spread = f" ± {(max(values) - min(values)) / 2:.1f}" if len(values) > 1 else ""
                texts.append(f"{np.mean(values):.1f}{spread}")
            cells.append(" / ".join(texts))
        shown.add_row(name, str(len(of_row)), *cells)
    return shown


def teacher_of(path: Path, splits: Mapping[str, Dataset], recipe: Recipe) -> NDArray[np.float32] | None:
    """A teacher's logits for the Training samples, float32 (n, classes of all heads); None where the recipe has none.

    Raises:
        EdgeFerError: see ``cached_logits.load_logits``.
    """
    if not recipe.distill.weight:
        return None
    return load_logits(path, splits, recipe.data).logits[0].astype(np.float32)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = Path(__file__).resolve().parent
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with FER2013 and FER+")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="JSONL", help="what is done, row by row")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help=f"default: {' '.join(TREATMENTS)}")
    parser.add_argument("--recipe", type=Path, default=folder / "recipes" / "ablation.toml", metavar="TOML")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument(
        "--teacher-logits", type=Path, default=folder / "logits" / "t1-t4.npz", metavar="NPZ", help="default: t1-t4"
    )
    parser.add_argument("--landmarks", type=Path, metavar="NPZ", help="of `python -m datasets.landmarks`")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="N", help="one will do, to be quick")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="learn from every N-th sample, to be quick")
    args = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        check_seeds(*args.seeds)
        if args.every < 1:
            raise UsageError(f"--every must be at least 1, not {args.every}.")
        recipe = load_recipe(args.recipe, args.set)
        console.print(f"Reading {args.data} ...")
        splits = datasets.load(args.data, recipe.data.exclude or None)
        training, test = splits["Training"], splits["PublicTest"]
        teacher = teacher_of(args.teacher_logits, splits, recipe)
        training, teacher = training[:: args.every], None if teacher is None else teacher[:: args.every]
        landmarks = None
        if args.landmarks:
            marks = CropLandmarks.read(args.landmarks)
            landmarks = marks.of(training.images, "Training"), marks.of(test.images, "PublicTest")
        faces = Faces(training.images, test.images, landmarks)
        names = args.rows or [name for name in TREATMENTS if landmarks or "points" not in name]
        trainer = Trainer(recipe, training, test, teacher)
        results = run(names, faces, trainer, args.out, seeds=args.seeds, say=lambda line: console.print(line))
    except EdgeFerError as error:
        print(f"ablation: {error}", file=sys.stderr)
        return error.exit_code
    Console(width=None if sys.stdout.isatty() else 160).print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
