"""Train a model by a recipe, into a run folder that says all about it.

RUN/recipe.toml      the recipe as it was used
RUN/run.json         seed, hashes of the data, versions, rows, time
RUN/history.csv      a line an epoch; curves.png shows it
RUN/checkpoint.keras network, optimizer and epoch, after every epoch: what --resume continues from
RUN/averaged.keras   the averaged weights, where the recipe asks for them
RUN/model.keras      the network to export, without augmentation
RUN/branched.keras   the same before its branches were merged, where it has any: what --begin-with takes
RUN/model.toml       its name, heads and framing, for the exporter
RUN/evaluation/      figures on PublicTest
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_fer.errors import ConfigError, InputMissingError
from evaluation import datasets, figures
from evaluation.datasets import Dataset
from training import models, optimizers
from training.augmentation import Augment, Mixup, MixupUntil
from training.committee import load_cache
from training.losses import TwoHeadLoss, class_balance, targets, with_teacher
from training.recipe import Recipe, load_recipe, read_table, to_toml


def train(
    recipe_path: Path,
    data_folder: Path,
    run: Path,
    *,
    resume: bool = False,
    cache: Path | None = None,
    begin_with: Path | None = None,
    changes: Sequence[str] = (),
) -> None:
    """Train, or go on with a training that was cut off.

    Args:
        recipe_path: see ``load_recipe``.
        data_folder: see ``datasets.load``.
        run: new folder to write, or one to go on with.
        resume: go on from the last checkpoint.
        cache: a committee's answers for the Training pictures; wanted where the recipe has a teacher.
        begin_with: a .keras file with the same layers, whose weights to start from.
        changes: of the recipe, see ``read_table``.

    Raises:
        EdgeFerError: recipe, data or run folder are not as they should be.
    """
    recipe = load_recipe(recipe_path, changes)
    console = Console(stderr=True)
    checkpoint = run / "checkpoint.keras"
    if resume:
        if not checkpoint.is_file():
            raise InputMissingError(f"{run} has no checkpoint.keras to resume from; start without --resume.")
        if load_recipe(run / "recipe.toml") != recipe:
            raise ConfigError(
                f"{recipe_path} differs from {run}/recipe.toml: a run is resumed with its own recipe and --set."
            )
    elif run.exists() and any(run.iterdir()):
        raise ConfigError(f"{run} is not empty: choose another --run, or go on with it by --resume.")
    if bool(recipe.distill.weight) != bool(cache):
        raise ConfigError(
            f"{recipe_path} has {'a' if recipe.distill.weight else 'no'} distill.weight: "
            f"{'give the teacher with --cache' if recipe.distill.weight else 'leave --cache out'}."
        )
    console.print(f"Reading {data_folder} ...")
    splits = datasets.load(data_folder, recipe.data.exclude or None, align=recipe.data.align)
    training, validation = splits["Training"], splits["PublicTest"]
    labels, facts = targets(training, recipe.label_smoothing), {}
    if cache:
        logits, facts["committee"] = load_cache(cache, training)
        labels = with_teacher(labels, logits)

    keras.utils.set_random_seed(recipe.seed)
    steps = -(-len(training) // recipe.batch_size)
    network = build(recipe, steps, class_balance(recipe.class_balance, training))
    core = models.core_of(network, recipe.model.kind)
    if resume:
        models.restore(network, checkpoint)
        epochs_done = int(network.optimizer.iterations.numpy()) // steps
        # A cut after the checkpoint but before the line in history.csv, or the reverse, must not double an epoch.
        history = _read_history(run / "history.csv")[:epochs_done]
    else:
        epochs_done, history = 0, []
        if begin_with:
            _begin_with(core, begin_with)
            facts["began_with"] = hashlib.sha256(begin_with.read_bytes()).hexdigest()
    run.mkdir(parents=True, exist_ok=True)
    if not resume:
        text = to_toml(read_table(recipe_path, changes)) if changes else recipe_path.read_text(encoding="utf-8")
        (run / "recipe.toml").write_text(text, encoding="utf-8")
    console.print(
        f"{recipe.name}: {core.count_params():,} parameters, {len(training):,} Training rows, "
        f"{len(validation):,} PublicTest rows, Keras on {keras.backend.backend()}"
    )
    started = time.monotonic()
    measured, callbacks = core, []
    if recipe.optimizer.average:
        averaged = run / "averaged.keras"
        measured = models.load(averaged) if resume else keras.models.clone_model(core)
        callbacks.append(WeightAverage(core, measured, recipe.optimizer.average, averaged))
    if recipe.mixup:
        callbacks.append(MixupUntil(recipe.epochs - math.ceil(recipe.epochs / 10)))
    callbacks.append(EpochLog(recipe.epochs, run, measured, validation, history, steps, console))
    network.fit(
        training.images,
        labels,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        initial_epoch=epochs_done,
        callbacks=callbacks,
        verbose=0,
    )
    seconds = sum(line["seconds"] for line in history)
    facts |= {"seconds": round(time.monotonic() - started), "resumed": resume}
    facts["pictures_per_second"] = round(len(training) * len(history) / max(seconds, 0.1))
    if recipe.model.branches:
        _replace(run / "branched.keras", measured.save)
        measured = models.merge_branches(measured)
    if recipe.precision != "float32":
        measured = models.as_float32(measured)
    write_run(run, recipe, measured, splits, facts)


def _begin_with(core: keras.Model, path: Path) -> None:
    weights = models.load(path).get_weights()
    if [one.shape for one in weights] != [one.shape for one in core.get_weights()]:
        raise ConfigError(f"{path} has other layers than the recipe's [model]: --begin-with wants the same.")
    core.set_weights(weights)


class WeightAverage(keras.callbacks.Callback):
    """Keeps a moving average of a network's weights, statistics of batch normalisation included.

    It starts from the weights after the first steps, not from chance: the decay grows with the steps (as in
    Tan & Le, arXiv 1905.11946, and TensorFlow's ExponentialMovingAverage).

    Args:
        core: the network that trains.
        averaged: its copy, which gets the average.
        decay: of one step.
        path: where the copy is kept for ``--resume``.
    """

    every = 8  # steps from one look at the weights to the next: looking costs as much as a hundredth of a step

    def __init__(self, core: keras.Model, averaged: keras.Model, decay: float, path: Path) -> None:
        super().__init__()
        self.core, self.averaged, self.decay, self.path = core, averaged, decay, path

    def on_train_begin(self, logs: Any = None) -> None:
        self.steps = int(self.model.optimizer.iterations.numpy())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            assert self.model  # with JAX, asking for it is what brings the weights up to date
            decay = min(self.decay**self.every, self.steps / (self.steps + 10 * self.every))
            pairs = zip(self.averaged.get_weights(), self.core.get_weights(), strict=True)
            self.averaged.set_weights([decay * old + (1 - decay) * new for old, new in pairs])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        _replace(self.path, self.averaged.save)


def write_run(
    run: Path, recipe: Recipe, trained: keras.Model, splits: dict[str, Dataset], more_facts: dict[str, Any]
) -> None:
    """Measure a trained model on PublicTest and write it into its run folder with all that is known of it."""
    console = Console(stderr=True)
    validation = splits["PublicTest"]
    _replace(run / "model.keras", trained.save)
    (run / "model.toml").write_text(models.description(recipe.name, recipe.data.align), encoding="utf-8")
    logits = trained.predict(validation.images, batch_size=512, verbose=0)
    results = figures.evaluate_logits(logits, validation, models.HEADS)
    figures.write_figures(results, models.HEADS, run / "evaluation")
    facts = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "rows": {name: len(split) for name, split in splits.items()},
        "data_sha256": {name: split.sha256 for name, split in splits.items()},
        "parameters": trained.count_params(),
        "mmac": round(models.mmac(trained), 3),
        **more_facts,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "numpy": np.__version__,
        },
        "public_test": results,
    }
    (run / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    console.print(figures.report({"float": results}))
    console.print(f"Wrote {run / 'model.keras'}")


def build(recipe: Recipe, steps_per_epoch: int, balance: dict[str, list[float]] | None = None) -> keras.Model:
    """The network with augmentation in front, its loss and its optimizer, ready to fit.

    Args:
        recipe: all of it.
        steps_per_epoch: batches.
        balance: what ``losses.class_balance`` made of the data.
    """
    core = models.build(recipe.model, recipe.precision)
    core = models.with_extras(core, supervised=recipe.supervised > 0, centres=recipe.center > 0)
    pixels = keras.Input(core.input_shape[1:], name="pixels")
    augment = Augment(**dataclasses.asdict(recipe.augment), seed=recipe.seed)
    if recipe.mixup:
        mixed, shares = Mixup(recipe.mixup, seed=recipe.seed)(augment(pixels))
        outputs = keras.layers.Concatenate()([core(mixed), shares])
    else:
        outputs = core(augment(pixels))
    network = keras.Model(pixels, outputs)
    optimizer = optimizers.make(recipe.optimizer, recipe.epochs, steps_per_epoch)
    loss = TwoHeadLoss(
        recipe.ferplus_weight,
        recipe.distill.weight,
        recipe.distill.temperature,
        supervised=recipe.supervised,
        center=recipe.center,
        island=recipe.island,
        mixed=recipe.mixup > 0,
        **(balance or {}),
    )
    network.compile(optimizer, loss=loss, jit_compile=False)
    return network


class EpochLog(keras.callbacks.Callback):
    """Progress bar, accuracy on PublicTest, history, curves and checkpoint.

    Args:
        epochs: of the whole run.
        run: its folder.
        measured: the network whose accuracy counts.
        validation: PublicTest.
        history: lines of the epochs done before.
        steps: in an epoch.
        console: where to show it.
    """

    def __init__(
        self,
        epochs: int,
        run: Path,
        measured: keras.Model,
        validation: Dataset,
        history: list[dict[str, float]],
        steps: int,
        console: Console,
    ) -> None:
        super().__init__()
        self.epochs, self.run, self.measured, self.validation = epochs, run, measured, validation
        self.history, self.steps, self.console = history, steps, console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            console=console,
        )

    def on_train_begin(self, logs: Any = None) -> None:
        self.progress.start()
        self.task = self.progress.add_task("", total=self.steps, loss=0.0)

    def on_train_end(self, logs: Any = None) -> None:
        self.progress.stop()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = time.monotonic()
        self.progress.reset(self.task, description=f"epoch {epoch + 1}/{self.epochs}", loss=0.0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.progress.update(self.task, completed=batch + 1, loss=(logs or {}).get("loss", 0.0))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.monotonic() - self.began
        logits = self.measured.predict(self.validation.images, batch_size=512, verbose=0)
        line = {"epoch": epoch + 1, "loss": float((logs or {})["loss"]), "seconds": round(seconds, 1)}
        results = figures.evaluate_logits(logits, self.validation, models.HEADS)
        line |= {head.name: results[head.name]["accuracy"] for head in models.HEADS if head.name in results}
        self.history.append(line)
        _write_history(self.run / "history.csv", self.history)
        _replace(self.run / "checkpoint.keras", self.model.save)
        scores = "  ".join(f"{head.name} {line[head.name]:.2%}" for head in models.HEADS if head.name in line)
        self.console.print(
            f"epoch {epoch + 1:3d}  loss {line['loss']:.3f}  PublicTest {scores}  {line['seconds']:.0f} s"
        )
        plot_history(self.history, self.run / "curves.png")


def _replace(path: Path, save: Any) -> None:
    """Write a file whole or not at all: the old one stays until the new one is complete."""
    temporary = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        columns = ["epoch", "loss", "seconds", *(head.name for head in models.HEADS)]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def _read_history(path: Path) -> list[dict[str, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def plot_history(history: list[dict[str, float]], path: Path) -> None:
    """Draw loss and accuracies over epochs as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in history]
    loss_axes.plot(epochs, [line["loss"] for line in history])
    loss_axes.set(xlabel="epoch", title="training loss")
    for head in models.HEADS:
        accuracy_axes.plot(epochs, [line.get(head.name, np.nan) for line in history], label=head.name)
    accuracy_axes.set(xlabel="epoch", title="accuracy on PublicTest")
    accuracy_axes.grid(alpha=0.3)
    accuracy_axes.legend()
    figure.savefig(path, dpi=120)
