"""Train a model by a recipe, into a run folder that says all about it.

RUN/recipe.toml      the recipe as it was used
RUN/run.json         seed, hashes of the data, versions, samples, time
RUN/history.csv      a line an epoch; curves.png shows it
RUN/checkpoint.keras network, optimizer and epoch, after every epoch: what --resume continues from
RUN/ema.keras        the EMA of the weights, where the recipe has one
RUN/model.keras      the network to export, without augmentation
RUN/multibranch.keras with its RepVGG blocks not yet re-parameterized, where it has any: what --init-from takes
RUN/model.toml       its name, heads and framing, for the exporter
RUN/evaluation/      metrics on PublicTest
"""

from __future__ import annotations

import csv
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
from evaluation import datasets, metrics
from evaluation.datasets import Dataset
from training import augmentation, models, optimizers
from training.augmentation import Mixup, MixupUntil
from training.ema import WeightEMA
from training.ensemble import TeacherEnsemble, gather, load_logits
from training.losses import TwoHeadLoss, class_balance, targets, with_teacher
from training.recipe import Recipe, load_recipe, read_table, to_toml


def train(
    recipe_path: Path,
    data_folder: Path,
    run: Path,
    *,
    resume: bool = False,
    teacher_logits: Path | None = None,
    teachers: Sequence[Path] = (),
    init_from: Path | None = None,
    changes: Sequence[str] = (),
) -> None:
    """Train, or go on with a training that was cut off.

    Args:
        recipe_path: see ``load_recipe``.
        data_folder: see ``datasets.load``.
        run: new folder to write, or one to go on with.
        resume: go on from the last checkpoint.
        teacher_logits: cached logits of a teacher ensemble for the Training images; these or ``teachers`` where the
            recipe distills.
        teachers: run folders of a teacher ensemble for online distillation: it predicts each image as the network sees
            it.
        init_from: a .keras file with the same layers, whose weights to start from.
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
    if bool(teacher_logits) + bool(teachers) != bool(recipe.distill.weight):
        raise ConfigError(
            f"{recipe_path} has a distill.weight: give --teacher-logits or --teacher, one of the two."
            if recipe.distill.weight
            else f"{recipe_path} has no distill.weight: leave --teacher-logits and --teacher out."
        )
    console.print(f"Reading {data_folder} ...")
    splits = datasets.load(data_folder, recipe.data.exclude or None, alignment=recipe.data.alignment)
    training, validation = splits["Training"], splits["PublicTest"]
    labels, facts = targets(training, recipe.label_smoothing), {}
    if teacher_logits:
        logits, facts["teacher"] = load_logits(teacher_logits, training)
        labels = with_teacher(labels, logits)
    ensemble = None
    if teachers:
        ensemble, facts["teacher"] = gather(list(teachers), recipe, validation)

    keras.utils.set_random_seed(recipe.seed)
    steps = -(-len(training) // recipe.batch_size)
    network = build(recipe, steps, class_balance(recipe.class_balance, training), ensemble)
    core = models.core_of(network, recipe.model.kind)
    if resume:
        models.restore(network, checkpoint)
        epochs_done = int(network.optimizer.iterations.numpy()) // steps
        # A cut after the checkpoint but before the line in history.csv, or the reverse, must not double an epoch.
        history = [line for line in _read_history(run / "history.csv") if line["epoch"] <= epochs_done]
    else:
        epochs_done, history = 0, []
        if init_from:
            _init_from(core, init_from)
            facts["init_from"] = hashlib.sha256(init_from.read_bytes()).hexdigest()
    run.mkdir(parents=True, exist_ok=True)
    if not resume:
        text = to_toml(read_table(recipe_path, changes)) if changes else recipe_path.read_text(encoding="utf-8")
        (run / "recipe.toml").write_text(text, encoding="utf-8")
    console.print(
        f"{recipe.name}: {core.count_params():,} parameters, {len(training):,} Training samples, "
        f"{len(validation):,} PublicTest samples, Keras on {keras.backend.backend()}"
    )
    started = time.monotonic()
    ema, callbacks = None, []
    if recipe.optimizer.ema:
        averaged = models.load(run / "ema.keras") if resume else keras.models.clone_model(core)
        ema = WeightEMA(core, averaged, recipe.optimizer.ema)
    if recipe.mixup:
        callbacks.append(MixupUntil(recipe.epochs - math.ceil(recipe.epochs / 10)))
    measured = ema.averaged if ema else core
    log = EpochLog(recipe.epochs, run, measured, ema, validation, history, steps, console)
    callbacks.append(log)
    options = {"batch_size": recipe.batch_size, "epochs": recipe.epochs, "initial_epoch": epochs_done}
    if accelerated():
        from training import jax_fit

        log.least_seconds = 10.0
        options["seed"] = recipe.seed
        jax_fit.fit(network, training.images, labels, **options, callbacks=callbacks, ema=ema)
    else:
        callbacks += [ema] if ema else []
        network.fit(training.images, labels, **options, callbacks=callbacks, verbose=0)
    facts |= {"seconds": round(time.monotonic() - started), "resumed": resume}
    facts["images_per_second"] = round(len(training) / max(np.mean([line["seconds"] for line in history]), 1e-3))
    if recipe.model.repvgg:
        _replace(run / "multibranch.keras", measured.save)
        measured = models.reparameterize(measured)
    if recipe.precision != "float32":
        measured = models.in_precision(measured, "float32")
    write_run(run, recipe, measured, splits, facts)


def accelerated() -> bool:
    """Whether Keras runs on JAX and JAX on a GPU or TPU, where ``jax_fit.fit`` is the faster way."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return bool(jax.default_backend() != "cpu")


def _init_from(core: keras.Model, path: Path) -> None:
    weights = models.load(path).get_weights()
    if [one.shape for one in weights] != [one.shape for one in core.get_weights()]:
        raise ConfigError(f"{path} has other layers than the recipe's [model]: --init-from wants the same.")
    core.set_weights(weights)


def write_run(
    run: Path, recipe: Recipe, trained: keras.Model, splits: dict[str, Dataset], more_facts: dict[str, Any]
) -> None:
    """Measure a trained model on PublicTest and write it into its run folder with all that is known of it."""
    console = Console(stderr=True)
    validation = splits["PublicTest"]
    _replace(run / "model.keras", trained.save)
    (run / "model.toml").write_text(models.description(recipe.name, recipe.data.alignment), encoding="utf-8")
    logits = trained.predict(validation.images, batch_size=512, verbose=0)
    results = metrics.evaluate_logits(logits, validation, models.HEADS)
    metrics.write_metrics(results, models.HEADS, run / "evaluation")
    facts = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "samples": {name: len(split) for name, split in splits.items()},
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
    console.print(metrics.report({"float": results}))
    console.print(f"Wrote {run / 'model.keras'}")


def build(
    recipe: Recipe,
    steps_per_epoch: int,
    balance: dict[str, list[float]] | None = None,
    ensemble: TeacherEnsemble | None = None,
) -> keras.Model:
    """The network with augmentation in front, its loss and its optimizer, ready to fit.

    Args:
        recipe: all of it.
        steps_per_epoch: batches.
        balance: what ``losses.class_balance`` made of the data.
        ensemble: for online distillation, where no teacher logits come with the labels. It sees what the network sees,
            but not the blur and noise of ``augmentation.Camera``, which would spoil its soft targets too.
    """
    core = models.build(recipe.model, recipe.precision)
    core = models.with_extras(core, auxiliary_heads=recipe.auxiliary_heads > 0, centers=recipe.center > 0)
    pixels = keras.Input(core.input_shape[1:], name="pixels")
    augment, camera = augmentation.make(recipe.augment, recipe.seed)
    seen, columns = augment(pixels), []
    if recipe.mixup:
        seen, lam = Mixup(recipe.mixup, seed=recipe.seed)(seen)
        columns = [lam]
    if ensemble:
        columns.insert(0, ensemble(seen))
    columns.insert(0, core(camera(seen)))
    network = keras.Model(pixels, keras.layers.Concatenate()(columns) if len(columns) > 1 else columns[0])
    optimizer = optimizers.make(recipe.optimizer, recipe.epochs, steps_per_epoch)
    loss = TwoHeadLoss(
        recipe.ferplus_weight,
        recipe.distill.weight,
        recipe.distill.temperature,
        auxiliary_heads=recipe.auxiliary_heads,
        center=recipe.center,
        island=recipe.island,
        online=ensemble is not None,
        mixup=recipe.mixup > 0,
        **(balance or {}),
    )
    network.compile(optimizer, loss=loss, jit_compile=False)
    return network


class EpochLog(keras.callbacks.Callback):
    """Progress bar, accuracy on PublicTest, history, curves and checkpoint.

    Epochs of less than ``least_seconds`` share a line: with a GPU, a look at the network takes longer than they do.

    Args:
        epochs: of the whole run.
        run: its folder.
        measured: the network whose accuracy counts.
        ema: what makes it, if it is an EMA.
        validation: PublicTest.
        history: lines of the epochs done before.
        steps: in an epoch.
        console: where to show it.
    """

    least_seconds = 0.0

    def __init__(
        self,
        epochs: int,
        run: Path,
        measured: keras.Model,
        ema: WeightEMA | None,
        validation: Dataset,
        history: list[dict[str, float]],
        steps: int,
        console: Console,
    ) -> None:
        super().__init__()
        self.epochs, self.run, self.measured, self.ema = epochs, run, measured, ema
        self.validation, self.history, self.steps, self.console = validation, history, steps, console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            console=console,
        )

    def on_train_begin(self, logs: Any = None) -> None:
        self.epochs_unseen = 0
        self.progress.start()
        self.task = self.progress.add_task("", total=self.steps, loss=0.0)

    def on_train_end(self, logs: Any = None) -> None:
        self.progress.stop()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not self.epochs_unseen:
            self.began = time.monotonic()
        self.progress.reset(self.task, description=f"epoch {epoch + 1}/{self.epochs}", loss=0.0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.progress.update(self.task, completed=batch + 1, loss=(logs or {}).get("loss", 0.0))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.monotonic() - self.began
        self.epochs_unseen += 1
        self.progress.update(self.task, completed=self.steps, loss=float((logs or {})["loss"]))
        if seconds < self.least_seconds and epoch + 1 < self.epochs:
            return
        logits = self.measured.predict(self.validation.images, batch_size=512, verbose=0)
        line = {
            "epoch": epoch + 1,
            "loss": float((logs or {})["loss"]),
            "seconds": round(seconds / self.epochs_unseen, 2),
        }
        self.epochs_unseen = 0
        results = metrics.evaluate_logits(logits, self.validation, models.HEADS)
        line |= {head.name: results[head.name]["accuracy"] for head in models.HEADS if head.name in results}
        self.history.append(line)
        _write_history(self.run / "history.csv", self.history)
        if self.ema:
            _replace(self.run / "ema.keras", self.measured.save)
        _replace(self.run / "checkpoint.keras", self.model.save)
        scores = "  ".join(f"{head.name} {line[head.name]:.2%}" for head in models.HEADS if head.name in line)
        self.console.print(
            f"epoch {epoch + 1:3d}  loss {line['loss']:.3f}  PublicTest {scores}  {line['seconds']:.1f} s"
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
