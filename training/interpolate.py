"""Interpolate the weights of two trainings of which one was initialized from the other.

    python -m training interpolate --of runs/a --and runs/b --alpha 0.7 --data ~/fer2013 --run runs/between

What fine-tuning won in one place and lost in another is often won in both halfway: Wortsman et al., "Robust fine-tuning
of zero-shot models" (WiSE-FT), arXiv 2109.01903, eq. 1. The statistics of batch normalization are interpolated too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rich.console import Console

from edge_fer.errors import ConfigError
from evaluation import datasets
from training import models
from training.recipe import load_recipe
from training.train import write_run


def interpolate(first: Path, second: Path, alpha: float, data_folder: Path, run: Path) -> None:
    """Write a run whose weights lie between those of two others.

    Args:
        first: run folder.
        second: run folder that was initialized from the first; its recipe and name are kept.
        alpha: weight of the second, 0-1.
        data_folder: see ``datasets.load``; PublicTest is measured.
        run: new folder.

    Raises:
        EdgeFerError: a run, the data, alpha or the new folder is not as it should be.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"--alpha must be 0 to 1, not {alpha}.")
    if run.exists() and any(run.iterdir()):
        raise ConfigError(f"{run} is not empty: choose another --run.")
    recipe = load_recipe(second / "recipe.toml")
    paths = (first / "model.keras", second / "model.keras")
    one, other = (models.load(path) for path in paths)
    if [each.shape for each in one.get_weights()] != [each.shape for each in other.get_weights()]:
        raise ConfigError(f"{first} and {second} have other layers: only runs of the same network are interpolated.")
    Console(stderr=True).print(f"Reading {data_folder} ...")
    splits = datasets.load(data_folder, recipe.data.exclude or None, alignment=recipe.data.alignment)
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    other.set_weights([(1 - alpha) * a + alpha * b for a, b in pairs])
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.toml").write_text((second / "recipe.toml").read_text(encoding="utf-8"), encoding="utf-8")
    facts = {"interpolated": [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths], "alpha": alpha}
    write_run(run, recipe, other, splits, facts)
