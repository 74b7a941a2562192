"""After each epoch: accuracy on PublicTest, history, curves and a checkpoint; while it runs, a progress bar."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datasets import Dataset
from edge_fer.model.spec import Head
from evaluation import metrics
from training.callbacks.ema import WeightEMA
from training.runs import replace


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
        results = metrics.evaluate_logits(logits, self.validation, self.validation.heads)
        line |= {head.name: results[head.name]["accuracy"] for head in self.validation.heads if head.name in results}
        self.history.append(line)
        write_history(self.run / "history.csv", self.history, self.validation.heads)
        if self.ema:
            replace(self.run / "ema.keras", self.measured.save)
        replace(self.run / "checkpoint.keras", self.model.save)
        scores = "  ".join(f"{head.name} {line[head.name]:.2%}" for head in self.validation.heads if head.name in line)
        self.console.print(
            f"epoch {epoch + 1:3d}  loss {line['loss']:.3f}  PublicTest {scores}  {line['seconds']:.1f} s"
        )
        plot_history(self.history, self.validation.heads, self.run / "curves.png")


def write_history(path: Path, history: list[dict[str, float]], heads: Sequence[Head]) -> None:
    """Write the lines of a training as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        columns = ["epoch", "loss", "seconds", *(head.name for head in heads)]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def read_history(path: Path) -> list[dict[str, float]]:
    """Read what ``write_history`` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def plot_history(history: list[dict[str, float]], heads: Sequence[Head], path: Path) -> None:
    """Draw loss and accuracies over epochs as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in history]
    loss_axes.plot(epochs, [line["loss"] for line in history])
    loss_axes.set(xlabel="epoch", title="training loss")
    for head in heads:
        accuracy_axes.plot(epochs, [line.get(head.name, np.nan) for line in history], label=head.name)
    accuracy_axes.set(xlabel="epoch", title="accuracy on PublicTest")
    accuracy_axes.grid(alpha=0.3)
    accuracy_axes.legend()
    figure.savefig(path, dpi=120)
