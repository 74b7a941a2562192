"""Two processes train as one does. Needs JAX: ``make test-jax``."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("`make test-jax` runs this", allow_module_level=True)

from training.distributed import ADDRESS, COUNT, NUMBER

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.trains


def together(count: int, *arguments: object) -> list[subprocess.CompletedProcess[str]]:
    """Run ``python -m training`` in so many processes that know of each other."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    children = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": "jax", ADDRESS: address, COUNT: str(count), NUMBER: str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    ended = [child.communicate() for child in children]
    return [
        subprocess.CompletedProcess(command, child.returncode, out, err)
        for child, (out, err) in zip(children, ended, strict=True)
    ]


def losses(run: Path) -> list[float]:
    with (run / "history.csv").open() as file:
        return [float(line["loss"]) for line in csv.DictReader(file)]


def test_two_processes_train_go_on_and_evaluate_as_one(data: Path, recipe: Callable[..., Path], tmp_path: Path) -> None:
    changes = {"distribution": "data", "batch_size": 34, "mixup": 0.2, "model.dropout": 0.2, "optimizer.ema": 0.9}
    path = recipe(changes)
    runs = [tmp_path / "one", tmp_path / "two"]
    for count, run in enumerate(runs, 1):
        for child in together(count, "train", "--recipe", path, "--data", data, "--run", run):
            assert child.returncode == 0, child.stderr
    one, two = runs
    # The losses of one epoch are a mean over all of it, augmentation, dropout and the EMA's network included.
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)
    logits = [np.load(run / "evaluation" / "logits.npy").astype(np.float32) for run in runs]
    assert logits[0] == pytest.approx(logits[1], abs=0.05)
    assert [json.loads((run / "run.json").read_text())["processes"] for run in runs] == [1, 2]
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}

    children = together(2, "train", "--recipe", path, "--data", data, "--run", two, "--resume")
    assert [child.returncode for child in children] == [0, 0], children[0].stderr
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)

    for count, name in ((1, "alone"), (2, "shared")):
        options = ("--model", two / "model.keras", "--data", data, "--out", tmp_path / name)
        children = together(count, "evaluate", *options)
        assert [child.returncode for child in children] == [0] * count, children[0].stderr
        assert ["accuracy" in child.stdout for child in children] == [True] + [False] * (count - 1)
    metrics = [(tmp_path / name / "metrics.json").read_text() for name in ("alone", "shared")]
    assert metrics[0] == metrics[1]


def test_a_batch_that_cannot_be_cut_is_refused_by_all(data: Path, recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe({"distribution": "data", "batch_size": 35})
    for child in together(2, "train", "--recipe", path, "--data", data, "--run", tmp_path / "run"):
        assert child.returncode == 78
        assert "training: batch_size must be a multiple of the 2 devices, not 35." in child.stderr.splitlines()
