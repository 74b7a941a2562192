"""After each epoch: accuracy on PublicTest, history, curves and a checkpoint; while it runs, a progress bar."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Place:
    """Where a training stands in a plan of several stages.

    Attributes:
        stage: "stage 2 of 4, " or nothing.
        seconds_after: what the stages behind it will take, as far as it is known.
    """

    stage: str = ""
    seconds_after: float = 0.0

    def left(self, seconds: float) -> str:
        """What is left of the plan where ``seconds`` are left of this stage."""
        return f"{self.stage}{in_words(seconds + self.seconds_after)} left"


ALONE = Place()


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
        place: where this training stands in a plan of several stages.
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
        place: Place = ALONE,
    ) -> None:
        super().__init__()
        self.epochs, self.run, self.measured, self.ema = epochs, run, measured, ema
        self.validation, self.history, self.steps, self.console = validation, history, steps, console
        self.place = place
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
        self.progress.reset(self.task, description=f"{self.place.stage}epoch {epoch + 1}/{self.epochs}", loss=0.0)

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
        replace(self.run / "history.csv", lambda path: write_history(path, self.history, self.validation.heads))
        # Two files, of one epoch whenever the process may be cut off: loop._load_ema picks up what this leaves.
        if self.ema:
            replace(self.run / f"ema.{epoch + 1}.keras", self.measured.save)
        replace(self.run / "checkpoint.keras", self.model.save)
        if self.ema:
            (self.run / f"ema.{epoch + 1}.keras").replace(self.run / "ema.keras")
        scores = "  ".join(f"{head.name} {line[head.name]:.2%}" for head in self.validation.heads if head.name in line)
        self.console.print(
            f"epoch {epoch + 1:3d}  loss {line['loss']:.3f}  PublicTest {scores}  {line['seconds']:.1f} s"
            f"  ({self.place.left((self.epochs - epoch - 1) * line['seconds'])})",
            highlight=False,
        )
        plot_history(self.history, self.validation.heads, self.run / "curves.png")


def in_words(seconds: float) -> str:
    """A length of time for people: "41 s", "12 min", "2 h 03 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


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
