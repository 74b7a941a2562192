"""After each epoch: accuracy on PublicTest, history, curves, a checkpoint; in a terminal, progress and live curves."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from datasets import Dataset
from evaluation import metrics
from training.callbacks.ema import WeightEMA
from training.curves import LiveCurves, figure_of, write_history
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


def in_words(seconds: float) -> str:
    """A length of time for people: "41 s", "12 min", "2 h 03 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class LiveView(Progress):
    """The bar of the whole training, with the time that is left, under the curves so far; for a terminal alone."""

    def __init__(self, curves: LiveCurves, console: Console) -> None:
        self.curves = curves
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("left  loss {task.fields[loss]:.3f}"),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=1,  # the curves change once an epoch, and drawing them takes time from training
            speed_estimate_period=600,  # so long that it knows what lies between epochs
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """What rich shows."""
        yield self.curves
        yield self.make_tasks_table(self.tasks)


class EpochLog(keras.callbacks.Callback):
    """Live view, accuracy on PublicTest, history, curves and checkpoint.

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
        self.names = [head.name for head in validation.heads]
        self.progress = LiveView(LiveCurves(history, self.names), console)

    def on_train_begin(self, logs: Any = None) -> None:
        self.epochs_unseen = 0
        done = int(self.history[-1]["epoch"]) * self.steps if self.history else 0
        self.task = self.progress.add_task("", total=self.epochs * self.steps, completed=done, loss=0.0)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not self.epochs_unseen:
            self.began = time.monotonic()
        self.first_step = epoch * self.steps
        self.progress.update(self.task, description=f"{self.place.stage}epoch {epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        self.progress.update(self.task, completed=self.first_step + batch + 1, loss=loss)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.monotonic() - self.began
        self.epochs_unseen += 1
        self.progress.update(self.task, completed=(epoch + 1) * self.steps, loss=float((logs or {})["loss"]))
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
        line |= {name: results[name]["accuracy"] for name in self.names if name in results}
        self.history.append(line)
        replace(self.run / "history.csv", lambda path: write_history(path, self.history, self.validation.heads))
        # Two files, of one epoch whenever the process may be cut off: loop._load_ema picks up what this leaves.
        if self.ema:
            replace(self.run / f"ema.{epoch + 1}.keras", self.measured.save)
        replace(self.run / "checkpoint.keras", self.model.save)
        if self.ema:
            (self.run / f"ema.{epoch + 1}.keras").replace(self.run / "ema.keras")
        scores = "  ".join(f"{name} {line[name]:.2%}" for name in self.names if name in line)
        self.console.print(
            f"epoch {epoch + 1:3d}  loss {line['loss']:.3f}  PublicTest {scores}  {line['seconds']:.1f} s"
            f"  ({self.place.left((self.epochs - epoch - 1) * line['seconds'])})",
            highlight=False,
        )
        figure_of({self.run.name: self.history}, self.names).savefig(self.run / "curves.png", dpi=120)
