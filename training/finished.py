"""A finished run, read back from its folder. Without Keras, which takes longer to import than a look at a run does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import DataError, InputMissingError
from edge_fer.model.spec import Head, Metadata
from training.curves import History, read_history
from training.recipe import read_table

FACTS = {"recipe", "seed", "samples", "data_sha256", "parameters", "mmac", "versions", "public_test"}
"""What run.json says of every run; some say more."""
_ARRAYS = ("logits", "truth")


@dataclass(frozen=True)
class FinishedRun:
    """What ``runs.write_run`` left behind.

    Attributes:
        folder: where.
        facts: of run.json.
        recipe: the table of recipe.toml.
        heads: of the model.
        history: a line an epoch; empty for a run that had none, as of interpolated weights.
        logits: on PublicTest, float32 (n, labels of all heads).
        truth: of PublicTest, int64 (n, heads): indices into the labels of each head, -1 where a sample has none.
    """

    folder: Path
    facts: dict[str, Any]
    recipe: dict[str, Any]
    heads: tuple[Head, ...]
    history: History
    logits: NDArray[np.float32]
    truth: NDArray[np.int64]

    @property
    def data_sha256(self) -> str:
        """Hash of PublicTest."""
        return str(self.facts["data_sha256"]["PublicTest"])

    @property
    def minutes(self) -> float | None:
        """Time of the steps of all epochs, those before a resume too; None where there were none."""
        ends = [line["epoch"] for line in self.history]
        epochs = np.diff([0, *ends])  # short epochs share a line
        seconds = float(sum(count * line["seconds"] for count, line in zip(epochs, self.history, strict=True)))
        return round(seconds / 60, 1) if self.history else None


def read_finished(run: Path) -> FinishedRun:
    """Read a run.

    Raises:
        InputMissingError: there is none, or it is not finished.
        DataError: a file in it is not as a training wrote it.
    """
    if not run.is_dir():
        raise InputMissingError(f"No folder {run}: give the folder of a run, as `train --run` wrote it.")
    if not (run / "run.json").is_file():
        if (run / "recipe.toml").is_file():
            raise InputMissingError(f"{run} is not finished, it has no run.json yet: go on with `train --resume`.")
        raise InputMissingError(f"{run} is no run, it has no run.json: give a folder that `train --run` wrote.")
    try:
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
        lacking = sorted(FACTS - facts.keys())
    except (ValueError, AttributeError):
        lacking = ["all that is JSON"]
    if lacking:
        raise DataError(
            f"{run}/run.json is not that of a trained model of this version: it lacks {', '.join(lacking)}."
        )
    files = [run / "model.toml", run / "recipe.toml", *(run / "evaluation" / f"{name}.npy" for name in _ARRAYS)]
    missing = [str(file.relative_to(run)) for file in files if not file.is_file()]
    if missing:
        raise InputMissingError(f"{run} has no {' and no '.join(missing)}: train it again, with this version.")
    heads = Metadata.from_table(read_table(run / "model.toml"), str(run / "model.toml")).heads
    logits, truth = (_array(run / "evaluation" / f"{name}.npy") for name in _ARRAYS)
    outputs = sum(len(head.labels) for head in heads)
    if logits.ndim != 2 or logits.shape[1] != outputs or truth.shape != (len(logits), len(heads)):
        raise DataError(f"{run}/evaluation has arrays of {logits.shape} and {truth.shape}: not those of its heads.")
    return FinishedRun(
        run,
        facts,
        read_table(run / "recipe.toml"),
        heads,
        read_history(run / "history.csv") if (run / "history.csv").is_file() else [],
        logits.astype(np.float32),
        truth.astype(np.int64),
    )


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is no array of NumPy: {error}.") from None
    return array
