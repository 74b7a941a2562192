"""Train a model by a recipe, into a run folder that says all about it.

RUN/recipe.toml      the recipe as it was used
RUN/run.json         seed, hashes of the data, versions, rows, time
RUN/history.csv      a line an epoch; curves.png shows it
RUN/checkpoint.keras network, optimizer and epoch, after every epoch: what --resume continues from
RUN/model.keras      the network to export, without augmentation
RUN/model.toml       its name, heads and framing, for the exporter
RUN/evaluation/      figures on PublicTest
"""

from __future__ import annotations

import csv
import dataclasses
import json
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_fer.errors import ConfigError, InputMissingError
from evaluation import datasets, figures
from evaluation.datasets import FER2013_LABELS, Dataset
from training import models
from training.augmentation import Augment
from training.recipe import Recipe, load_recipe


@keras.saving.register_keras_serializable("edge_fer")
class TwoHeadLoss(keras.losses.Loss):
    """Cross entropy of both heads: FER2013 with smoothed labels, FER+ with votes as soft targets.

    Targets are (n, 17): a distribution and a weight (0 where a row has no such label) for each head, in the order
    of ``models.HEADS``. The FER+ loss is that of Barsoum et al., arXiv 1608.01041, eq. 4.
    """

    def __init__(self, ferplus_weight: float, name: str = "two_heads", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.ferplus_weight = ferplus_weight

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ferplus_weight": self.ferplus_weight}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        total = 0.0
        start = 0
        for head, part in figures.head_slices(models.HEADS).items():
            width = part.stop - part.start
            target, known = y_true[:, start : start + width], y_true[:, start + width]
            start += width + 1
            entropy = keras.losses.categorical_crossentropy(target, y_pred[:, part], from_logits=True)
            total += known * entropy * (self.ferplus_weight if head == "ferplus" else 1.0)
        return total


def targets(data: Dataset, label_smoothing: float) -> NDArray[np.float32]:
    """What ``TwoHeadLoss`` takes, float32 (n, 17)."""
    votes, votes_known = data.ferplus_distribution()
    known = (data.fer2013 >= 0).astype(np.float32)
    one_hot = np.eye(len(FER2013_LABELS), dtype=np.float32)[np.maximum(data.fer2013, 0)]
    smooth = one_hot * (1 - label_smoothing) + label_smoothing / len(FER2013_LABELS)
    return np.column_stack([votes, votes_known, smooth, known]).astype(np.float32)


def train(recipe_path: Path, data_folder: Path, run: Path, resume: bool) -> None:
    """Train, or go on with a training that was cut off.

    Raises:
        EdgeFerError: recipe, data or run folder are not as they should be.
    """
    recipe = load_recipe(recipe_path)
    console = Console(stderr=True)
    checkpoint = run / "checkpoint.keras"
    if resume:
        if not checkpoint.is_file():
            raise InputMissingError(f"{run} has no checkpoint.keras to resume from; start without --resume.")
        if load_recipe(run / "recipe.toml") != recipe:
            raise ConfigError(f"{recipe_path} differs from {run}/recipe.toml: a run is resumed with its own recipe.")
    elif run.exists() and any(run.iterdir()):
        raise ConfigError(f"{run} is not empty: choose another --run, or go on with it by --resume.")
    console.print(f"Reading {data_folder} ...")
    splits = datasets.load(data_folder, recipe.data.exclude or None)
    training, validation = splits["Training"], splits["PublicTest"]
    run.mkdir(parents=True, exist_ok=True)
    if not resume:
        shutil.copyfile(recipe_path, run / "recipe.toml")

    keras.utils.set_random_seed(recipe.seed)
    steps = -(-len(training) // recipe.batch_size)
    if resume:
        network = keras.models.load_model(checkpoint)
        epochs_done = int(network.optimizer.iterations.numpy()) // steps
        # A cut after the checkpoint but before the line in history.csv, or the reverse, must not double an epoch.
        history = _read_history(run / "history.csv")[:epochs_done]
    else:
        network = build(recipe, steps)
        epochs_done, history = 0, []
    console.print(
        f"{recipe.name}: {network.count_params():,} parameters, {len(training):,} Training rows, "
        f"{len(validation):,} PublicTest rows, Keras on {keras.backend.backend()}"
    )
    started = time.monotonic()
    epoch_log = EpochLog(recipe, run, validation, history, steps, console)
    network.fit(
        training.images,
        targets(training, recipe.label_smoothing),
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        initial_epoch=epochs_done,
        callbacks=[epoch_log],
        verbose=0,
    )
    trained = network.get_layer(recipe.model.kind)
    write_run(run, recipe, trained, splits, {"seconds": round(time.monotonic() - started), "resumed": resume})


def write_run(
    run: Path, recipe: Recipe, trained: keras.Model, splits: dict[str, Dataset], more_facts: dict[str, Any]
) -> None:
    """Measure a trained model on PublicTest and write it into its run folder with all that is known of it."""
    console = Console(stderr=True)
    validation = splits["PublicTest"]
    _replace(run / "model.keras", trained.save)
    (run / "model.toml").write_text(models.description(recipe.name), encoding="utf-8")
    logits = trained.predict(validation.images, batch_size=512, verbose=0)
    results = figures.evaluate_logits(logits, validation, models.HEADS)
    figures.write_figures(results, models.HEADS, run / "evaluation")
    facts = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "rows": {name: len(split) for name, split in splits.items()},
        "data_sha256": {name: split.sha256 for name, split in splits.items()},
        "parameters": trained.count_params(),
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


def build(recipe: Recipe, steps_per_epoch: int) -> keras.Model:
    """The network with augmentation in front and its optimizer, ready to fit."""
    core = models.BUILDERS[recipe.model.kind](recipe.model.stages, recipe.model.dropout)
    pixels = keras.Input(core.input_shape[1:], name="pixels")
    augment = Augment(**dataclasses.asdict(recipe.augment), seed=recipe.seed)
    network = keras.Model(pixels, core(augment(pixels)))
    warmup = recipe.optimizer.warmup_epochs * steps_per_epoch
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=recipe.epochs * steps_per_epoch - warmup,
        warmup_target=recipe.optimizer.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.optimizer.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    network.compile(optimizer, loss=TwoHeadLoss(recipe.ferplus_weight), jit_compile=False)
    return network


class EpochLog(keras.callbacks.Callback):
    """Progress bar, accuracy on PublicTest, history, curves and checkpoint."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        validation: Dataset,
        history: list[dict[str, float]],
        steps: int,
        console: Console,
    ) -> None:
        super().__init__()
        self.recipe, self.run, self.validation, self.history, self.steps = recipe, run, validation, history, steps
        self.console = console
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
        self.progress.reset(self.task, description=f"epoch {epoch + 1}/{self.recipe.epochs}", loss=0.0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.progress.update(self.task, completed=batch + 1, loss=(logs or {}).get("loss", 0.0))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.monotonic() - self.began
        core = self.model.get_layer(self.recipe.model.kind)
        logits = core.predict(self.validation.images, batch_size=512, verbose=0)
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
