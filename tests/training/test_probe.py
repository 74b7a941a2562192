"""The linear probe: what it learns from, what its features are, and that it tells apart what can be told apart."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from edge_fer.errors import ConfigError
from training import models, probe
from training.__main__ import main
from training.recipe import ModelRecipe


def test_of_each_class_the_same_fraction() -> None:
    truth = np.array([0] * 40 + [1] * 20 + [2] * 1 + [-1] * 9)
    rows = probe.labeled_rows(truth, 0.1, seed=1)
    assert np.bincount(truth[rows]).tolist() == [4, 2, 1]
    assert len(set(rows.tolist())) == 7
    assert rows.tolist() == probe.labeled_rows(truth, 0.1, seed=1).tolist()
    assert rows.tolist() != probe.labeled_rows(truth, 0.1, seed=2).tolist()
    assert probe.labeled_rows(truth, 1.0, seed=1).tolist() == list(range(61))


def test_one_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="one class"):
        probe.labeled_rows(np.array([3, 3, -1]), 0.5, seed=1)


def test_features_are_the_last_maps_of_each_size_on_a_grid() -> None:
    pixels = keras.Input((8, 8, 1))
    first = layers.Conv2D(2, 1, use_bias=False)(layers.Rescaling(1.0)(pixels))
    second = layers.MaxPooling2D(4)(first)
    model = keras.Model(pixels, layers.GlobalAveragePooling2D()(second))
    model.layers[2].set_weights([np.array([[[[1.0, -1.0]]]], np.float32)])
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    features = np.asarray(probe.pooled_maps(model)(image))[0]
    assert len(features) == 4 * 4 * 2 + 2 * 2 * 2
    assert features[:4].tolist() == [9.0, 0.0, 11.0, -2.0]  # the largest of each 2x2 pixels, and of their negatives
    assert features[-2:].tolist() == [63.0, -36.0]


def test_networks_of_all_kinds_have_features() -> None:
    for kind in ("plain", "residual", "separable"):
        model = models.build(ModelRecipe([[4, 2], [6, 2], [6, 2]], kind=kind), 15)  # type: ignore[arg-type]
        assert probe.pooled_maps(model).output_shape == (None, 16 * 4 + 16 * 6 + 9 * 6)


def test_a_probe_from_the_command_line(call: Callable[..., Any], data: Path, runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "probe.csv"
    options = ("--fraction", "0.5", "--seeds", "2", "-o", out)
    done = call(main, "probe", "--run", runs[0], "--run", runs[1], "--data", data, *options)
    assert done.code == 0, done.err
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["network"] for row in rows if row["head"] == "fer2013" and row["seed"] == "1"] == [
        "untrained",
        "tiny1",
        "tiny2",
    ]
    assert {row["labels"] for row in rows} == {"70"}
    # The bars of the test images lie where their class is: maps with places tell them apart.
    assert min(float(row["accuracy"]) for row in rows) > 0.9
    assert out.with_suffix(".png").stat().st_size > 1000
    assert "tiny2" in done.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fraction", "0"], "--fraction must be above 0"),
        (["--fraction", "1.5"], "--fraction must be above 0"),
        (["--seeds", "0"], "--seeds at least 1"),
    ],
)
def test_what_is_refused(
    options: list[str], message: str, data: Path, runs: list[Path], tmp_path: Path, call: Callable[..., Any]
) -> None:
    done = call(main, "probe", "--run", runs[0], "--data", data, "-o", tmp_path / "x.csv", *options)
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.code == ConfigError.exit_code


def test_labels_that_nothing_is_measured_by(
    unrated: Path, runs: list[Path], tmp_path: Path, call: Callable[..., Any]
) -> None:
    refused = call(main, "probe", "--run", runs[0], "--data", unrated, "-o", tmp_path / "x.csv")
    assert (refused.code, refused.err.count("\n")) == (65, 1)
    assert "No PublicTest sample has a label of ferplus" in refused.err
    assert not (tmp_path / "x.csv").exists()


def test_the_mean_recall_is_of_the_classes_that_there_are(
    lacking: Path,
    runs: list[Path],
    in_turn: Callable[..., Any],
    tmp_path: Path,
    call: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "RidgeClassifierCV", in_turn)
    done = call(main, "probe", "--run", runs[0], "--data", lacking, "-o", tmp_path / "x.csv")
    assert done.code == 0, done.err
    with (tmp_path / "x.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["head"] == "fer2013"]
    assert {(row["accuracy"], row["mean_recall"]) for row in rows} == {("0.8571", "0.9167")}


RECIPE = """
name = "small"
epochs = 2
[model]
stages = [[8, 2], [16, 2], [16, 2]]
[pretrain]
epochs = 2
[optimizer]
warmup_epochs = 1
[[stage]]
name = "denoising"
kind = "pretrain"
pretrain = { kind = "denoising", mask = 0.25, patch_px = 1 }
[[stage]]
name = "then"
init_from = "denoising"
[[stage]]
name = "probe"
kind = "probe"
runs = ["denoising", "then"]
seeds = 1
"""


@pytest.mark.trains
def test_a_probe_is_a_stage(call: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    command = (main, "run", tmp_path / "small.toml", "--data", data, "--runs", tmp_path / "runs")
    done = call(*command)
    assert done.code == 0, done.err
    lines = (tmp_path / "runs" / "small" / "probe" / "probe.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1::2]] == ["untrained", "denoising", "then"]
    record = json.loads((tmp_path / "runs" / "small" / "probe.json").read_text())
    assert list(record["lineage"]) == ["small/denoising", "small/then", "small/probe"]
    assert call(*command).err.count("done in") == 3


def test_folders_that_are_no_runs(data: Path, runs: list[Path], tmp_path: Path, call: Callable[..., Any]) -> None:
    command = (main, "probe", "--data", data, "-o", tmp_path / "x.csv", "--run")
    assert call(*command, tmp_path).code == 66
    twice = call(*command, runs[0], "--run", runs[0])
    assert "folders of one name" in twice.err
    assert not (tmp_path / "x.csv").exists()
