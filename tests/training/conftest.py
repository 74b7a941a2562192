"""A recipe that trains in a second, and two runs that it made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faces_csv import write_csvs
from sklearn.base import BaseEstimator, ClassifierMixin

from training.__main__ import main

BASE = {
    "name": "tiny",
    "epochs": 4,
    "batch_size": 35,  # four steps in each pass over `data`
    "label_smoothing": 0.0,
    "model.stages": [[8, 2], [16, 2], [16, 2]],
    "model.dropout": 0.0,
    "augment.rotation_deg": 0,
    "augment.scale": 0,
    "augment.shift": 0.02,
    "optimizer.learning_rate": 0.01,
    "optimizer.warmup_epochs": 1,
}


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Callable[..., Path]:
    """Writes the file of a small recipe with some values changed: ``recipe({"model.squeeze_excitation": 4})``."""

    def write(changes: Mapping[str, object] | None = None) -> Path:
        tables: dict[str, dict[str, Any]] = {"": {}}
        for key, value in {**BASE, "seed": seed, **(changes or {})}.items():
            table, _, name = key.rpartition(".")
            tables.setdefault(table, {})[name] = value
        lines = []
        for table, values in tables.items():
            lines += [f"[{table}]"] if table else []
            lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]  # looks the same in TOML
        path = tmp_path_factory.mktemp("recipe") / f"{tables['']['name']}.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture(scope="session")
def unrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``data``, but no rater of FER+ knows an expression in PublicTest. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("unrated")
    write_csvs(folder)
    path = folder / "fer2013new.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines = [[*line[:2], *"0" * 8, "10", "0"] if line[0] == "PublicTest" else line for line in lines]
    path.write_text("\n".join(map(",".join, lines)) + "\n")
    return folder


@pytest.fixture(scope="session")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``data``, but PublicTest has no anger: its faces are labeled as disgust. Read it, do not change it.

    Labels go round, so that ``in_turn`` is right on all other faces of the head fer2013: an accuracy of 36 / 42, and a
    mean recall of 5.5 / 6 over the classes that there are.
    """
    folder = tmp_path_factory.mktemp("lacking")
    write_csvs(folder)
    faces, votes = folder / "fer2013.csv", folder / "fer2013new.csv"
    rows = [line.split(",") for line in faces.read_text().splitlines()]
    rows = [["1", *row[1:]] if row[0] == "0" and row[2] == "PublicTest" else row for row in rows]
    faces.write_text("\n".join(map(",".join, rows)) + "\n")
    rows = [line.split(",") for line in votes.read_text().splitlines()]
    rows = [[*row[:6], "0", "8", *row[8:]] if row[0] == "PublicTest" and row[6] == "8" else row for row in rows]
    votes.write_text("\n".join(map(",".join, rows)) + "\n")
    return folder


class InTurn(ClassifierMixin, BaseEstimator):
    """Answers each class that it has learned in turn, whatever it is asked."""

    def fit(self, features: np.ndarray, truth: np.ndarray) -> InTurn:
        self.classes_ = np.unique(truth)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        return np.resize(self.classes_, len(features))


@pytest.fixture
def in_turn() -> Callable[..., InTurn]:
    """Makes one, in place of a classifier with any options."""
    return lambda *_, **__: InTurn()


@pytest.fixture(scope="session")
def runs(
    call: Callable[..., Any],
    data: Path,
    recipe: Callable[..., Path],
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Path]:
    """Two runs of the small recipe, tiny1 and tiny2. Read them, do not change them."""
    folder = tmp_path_factory.mktemp("runs")
    for name, own in (("tiny1", seed), ("tiny2", seed + 100)):
        path = recipe({"name": name, "seed": own})
        assert call(main, "train", "--recipe", path, "--data", data, "--run", folder / name).code == 0
    return [folder / "tiny1", folder / "tiny2"]
