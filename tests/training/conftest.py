"""A recipe that trains in a second, and two runs that it made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from faces_csv import write_csvs

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
