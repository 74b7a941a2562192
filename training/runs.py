"""The run folder: what every training, fine-tuning or combination of models leaves behind.

RUN/recipe.toml   the recipe as it was used, every value in it
RUN/run.json      seed, hashes of the data, versions, samples, time, metrics
RUN/model.keras   the network to export, without augmentation
RUN/model.toml    its name, heads and framing, for the exporter
RUN/evaluation/   metrics on PublicTest, and the logits and labels that they are of
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
from rich.console import Console

import datasets
from datasets import Dataset, truth_for
from edge_fer.errors import ConfigError, DataError
from edge_fer.files import write_atomically
from evaluation import metrics
from training import models
from training.recipe import DataRecipe, Recipe, to_toml

T = TypeVar("T")


def refuse_used(run: Path) -> None:
    """A run folder is written once.

    Raises:
        ConfigError: it is there, and not empty.
    """
    if run.exists() and any(run.iterdir()):
        raise ConfigError(f"{run} is not empty: choose another --run.")


def read_data(folder: Path, recipe: Recipe) -> dict[str, Dataset]:
    """The splits that a recipe is trained and measured on.

    Raises:
        EdgeFerError: see ``datasets.load``.
    """
    Console(stderr=True).print(f"Reading {folder} ...")
    return load_data(folder, recipe.data)


def load_data(folder: Path, recipe: DataRecipe) -> dict[str, Dataset]:
    """What the ``[data]`` of a recipe says, by split.

    Raises:
        DataError: nothing is left to learn from.
        EdgeFerError: see ``datasets.load``.
    """
    splits = datasets.load(
        folder,
        recipe.exclude or None,
        alignment=recipe.alignment,
        further=recipe.further,
        unlabeled=recipe.unlabeled,
        illumination=recipe.illumination,
    )
    if not len(splits["Training"]):
        raise DataError(f"{folder}: every training image stands in a test split too, and none is left to learn from.")
    return splits


def load_for(path: Path, data: Dataset) -> keras.Model:
    """Read a ``.keras`` file, whose model must have the heads of a data set.

    Raises:
        InputMissingError: no such file.
        DataError: it cannot be read, or has other heads.
    """
    model = models.load(path)
    described = models.read_description(path)
    classes = sum(len(head.labels) for head in data.heads)
    names = [(head.name, head.labels) for head in (described.heads if described else data.heads)]
    if model.output_shape != (None, classes) or names != [(head.name, head.labels) for head in data.heads]:
        wanted = ", ".join(head.name for head in data.heads)
        raise DataError(f"{path} has other heads than the data set, which has {wanted}.")
    return model


def write_run(
    run: Path, recipe: Recipe, trained: keras.Model, splits: Mapping[str, Dataset], more_facts: Mapping[str, Any]
) -> None:
    """Measure a trained model on PublicTest and write it into its run folder with all that is known of it."""
    console = Console(stderr=True)
    validation = splits["PublicTest"]
    heads = validation.heads
    run.mkdir(parents=True, exist_ok=True)
    write_recipe(run, recipe)
    replace(run / "model.keras", trained.save)
    description = models.description(recipe.name, heads, recipe.data.alignment, recipe.data.illumination)
    (run / "model.toml").write_text(description, encoding="utf-8")
    logits = trained.predict(validation.images, batch_size=512, verbose=0)
    results = metrics.evaluate_logits(logits, validation, heads)
    metrics.write_metrics(results, heads, run / "evaluation")
    np.save(run / "evaluation" / "logits.npy", logits.astype(np.float16))
    truth = np.stack([truth_for(validation, head) for head in heads], axis=1)
    np.save(run / "evaluation" / "truth.npy", truth.astype(np.int8))
    facts = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "samples": {name: len(split) for name, split in splits.items()},
        "data_sha256": {name: split.sha256 for name, split in splits.items()},
        **subjects_of(splits),
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
    # Last: a folder with run.json is a run that is whole.
    write_atomically(run / "run.json", (json.dumps(facts, indent=2) + "\n").encode())
    console.print(metrics.report({"float": results}))
    console.print(f"Wrote {run / 'model.keras'}")


def subjects_of(splits: Mapping[str, Dataset]) -> dict[str, dict[str, list[str]]]:
    """Who is in the splits, as far as they tell: ``subjects``, by split; nothing where none does."""
    named = {name: sorted(set(split.subjects.tolist())) for name, split in splits.items() if split.subjects is not None}
    return {"subjects": named} if named else {}


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Write ``recipe.toml`` with every value, those that nobody set too: defaults change."""
    write_atomically(run / "recipe.toml", to_toml(dataclasses.asdict(recipe)).encode())


def replace(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file whole or not at all: the old one stays until the new one is complete."""
    temporary = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_lines(path: Path, of: type[T], expected: str) -> list[T]:
    """The lines of a file of results; none where it is not there. A last line that was cut off is none.

    Args:
        path: of the file, a JSON object a line.
        of: what an object has the fields of.
        expected: what wrote it, and what to do where that did not.

    Raises:
        DataError: it is no such file.
    """
    if not path.exists():
        return []
    results = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        try:
            results.append(of(**json.loads(line)))
        except (ValueError, TypeError):
            raise DataError(f"{path} is not what {expected}.") from None
    return results


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
