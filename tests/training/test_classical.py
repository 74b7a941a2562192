"""A deep belief network and classifiers on features, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from training import models
from training.__main__ import main
from training.classical import classifiers
from training.classical.classifiers import CLASSIFIERS, fused
from training.classical.dbn import network_of
from training.classical.rbm import RBM, sigmoid


def test_features_are_rooted_with_their_sign_and_of_length_one() -> None:
    first, second = np.array([[4.0, -9.0]], np.float32), np.array([[0.0, 0.0]], np.float32)
    np.testing.assert_allclose(fused([first, second]), [[2 / 13**0.5, -3 / 13**0.5, 0, 0]], rtol=1e-6)


def test_a_stack_as_a_network_gives_what_its_machines_give() -> None:
    rng = np.random.default_rng(0)
    stack = [RBM.begun(9, 5, rng, gaussian=True), RBM.begun(5, 4, rng)]
    for machine in stack:
        machine.hidden_bias += rng.normal(size=machine.hidden_bias.shape).astype(np.float32)
    mean = rng.uniform(0, 255, (3, 3, 1)).astype(np.float32)
    network = network_of(stack, mean, 50.0, classes=3)
    images = rng.uniform(0, 255, (6, 3, 3, 1)).astype(np.float32)
    hidden = stack[1].hidden(stack[0].hidden(((images - mean) / 50).reshape(6, 9)))
    kernel, bias = network.get_layer("logits").get_weights()
    np.testing.assert_allclose(network.predict(images, verbose=0), hidden @ kernel + bias, atol=1e-5)
    read = keras.Model(network.input, models.embedding(network))
    np.testing.assert_allclose(read.predict(images, verbose=0), hidden, atol=1e-5)


def test_sigmoid_does_not_overflow() -> None:
    np.testing.assert_allclose(sigmoid(np.array([-1000.0, 0.0, 1000.0], np.float32)), [0, 0.5, 1])


def test_a_deep_belief_network(
    call: Callable[..., Any], data: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    call(main, "dbn", "--recipe", recipe(), "--data", data, "--run", run, "--hidden", "24", "12", "--epochs", "3")
    facts = json.loads((run / "run.json").read_text())
    assert facts["hidden"] == [24, 12]
    assert set(facts["public_test"]) >= {"fer2013"}
    errors = json.loads((run / "errors.json").read_text())
    assert [len(machine) for machine in errors] == [3, 3]
    assert (run / "filters.png").stat().st_size > 1000 < (run / "reconstruction.png").stat().st_size
    model = keras.models.load_model(run / "model.keras")
    assert [layer.name for layer in model.layers][-3:] == ["machine_0", "machine_1", "logits"]
    # Its last machine is what classifiers read; maps for a probe it has none.
    rows = tmp_path / "rows.json"
    assert call(main, "classifiers", "--run", run, "--data", data, "-o", rows).code == 0
    assert {row["classifier"] for row in json.loads(rows.read_text())} == set(CLASSIFIERS)
    probed = call(main, "probe", "--run", run, "--data", data, "-o", tmp_path / "probe.csv")
    assert (probed.code, probed.err.count("\n")) == (65, 1)
    assert f"{run} has no convolutions" in probed.err


@pytest.mark.parametrize("wrong", [("--hidden", "0"), ("--hidden", "24", "-1"), ("--epochs", "0")])
def test_a_network_without_units_or_epochs(
    call: Callable[..., Any], data: Path, recipe: Callable[..., Path], tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    refused = call(main, "dbn", "--recipe", recipe(), "--data", data, "--run", run, *wrong)
    assert (refused.code, refused.err.count("\n")) == (78, 1)
    assert "must be at least 1" in refused.err
    assert not run.exists()


def test_a_deep_belief_network_learns_from_labels_alone_whatever_else_a_recipe_weighs(
    call: Callable[..., Any], data: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    path = recipe({"contrastive": 0.3, "locality": 0.1, "distill.weight": 0.5})
    done = call(main, "dbn", "--recipe", path, "--data", data, "--run", tmp_path / "run", "--hidden", 8, "--epochs", 1)
    assert done.code == 0, done.err


def test_classifiers_on_one_run_and_on_two_fused(
    call: Callable[..., Any], data: Path, runs: list[Path], tmp_path: Path
) -> None:
    call(main, "classifiers", "--run", runs[0], "--data", data, "-o", tmp_path / "one.json")
    call(main, "classifiers", "--run", runs[0], "--run", runs[1], "--data", data, "-o", tmp_path / "two.json")
    for name in ("one", "two"):
        rows = json.loads((tmp_path / f"{name}.json").read_text())
        heads = json.loads((runs[0] / "run.json").read_text())["public_test"]
        assert {row["classifier"] for row in rows} == set(CLASSIFIERS)
        assert {row["head"] for row in rows} <= set(heads)
        assert all(0 <= row["accuracy"] <= 1 for row in rows)


def test_the_mean_recall_is_of_the_classes_that_there_are(
    lacking: Path,
    runs: list[Path],
    in_turn: Callable[..., Any],
    tmp_path: Path,
    call: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classifiers, "CLASSIFIERS", {"in turn": in_turn})
    done = call(main, "classifiers", "--run", runs[0], "--data", lacking, "-o", tmp_path / "rows.json")
    assert done.code == 0, done.err
    (row,) = (row for row in json.loads((tmp_path / "rows.json").read_text()) if row["head"] == "fer2013")
    assert (row["accuracy"], row["mean_recall"]) == (0.8571, 0.9167)


@pytest.mark.parametrize("wrong", ["-1", "4294967296"])
@pytest.mark.parametrize("verb", ["classifiers", "audn"])
def test_a_seed_that_nothing_draws_by_is_refused(
    data: Path, tmp_path: Path, call: Callable[..., Any], verb: str, wrong: str
) -> None:
    refused = call(main, verb, "--run", tmp_path / "run", "--data", data, "--seed", wrong)
    assert (refused.code, refused.err) == (2, f"training: A seed must be 0 to 2147483647, not {wrong}.\n")


def test_labels_that_nothing_is_measured_by(call: Callable[..., Any], unrated: Path, runs: list[Path]) -> None:
    for command in (("--run", runs[0]), ("--bundle", "nano")):
        refused = call(main, "classifiers", *command, "--data", unrated)
        assert (refused.code, "Traceback" in refused.err) == (65, False)
        assert "No PublicTest sample has a label of ferplus" in refused.err.replace("\n", " ")


def test_a_folder_that_is_no_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classifiers", "--run", str(tmp_path), "--data", str(data)]) == 66
    assert "no finished run" in capsys.readouterr().err
