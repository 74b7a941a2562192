"""A bundle's int8 network becomes a float one that says the same, and can be trained on; what is none is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_fer.errors import DataError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.sources.demo import average_faces
from export.flatbuffer import Tensor
from training import from_bundle, models
from training.__main__ import main
from training.recipe import ModelRecipe
from training.stages import find, load_stages

NANO = load_stages(find("nano"))[-4].recipe.model


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """Average faces with noise, uint8 (64, 48, 48, 1)."""
    chance = np.random.default_rng(0)
    sharp = np.stack([face[:: face.shape[0] // 48][:48, :: face.shape[1] // 48][:, :48] for face in average_faces()])
    drawn = sharp[chance.integers(0, len(sharp), 64)].astype(np.float32)
    drawn = drawn * chance.uniform(0.5, 1.2, (64, 1, 1)) + chance.normal(0, 8, drawn.shape)
    return np.clip(drawn, 0, 255).astype(np.uint8)[..., np.newaxis]


@pytest.fixture(scope="module")
def network(faces: np.ndarray) -> Any:
    return from_bundle.float_network(Bundle.load("nano").model, NANO, 15, faces)


def test_it_says_what_the_bundle_says(network: Any, faces: np.ndarray) -> None:
    classifier = TfliteClassifier(Bundle.load("nano"))
    int8 = np.stack([classifier.logits(face) for face in faces])
    logits = network.predict(faces, verbose=0)
    assert np.corrcoef(logits.ravel(), int8.ravel())[0, 1] > 0.99
    assert np.abs(logits - int8).mean() < 0.15 * int8.std()


def test_batch_normalization_is_at_home_in_training_too(network: Any, faces: np.ndarray) -> None:
    """With the statistics of a batch, as training has them, the network says about what it says without."""
    pixels = faces.astype(np.float32)
    trains, predicts = (np.asarray(network(pixels, training=one)) for one in (True, False))
    assert np.corrcoef(trains.ravel(), predicts.ravel())[0, 1] > 0.97  # dropout is on


def test_kernels_are_as_large_as_those_a_training_begins_with(network: Any) -> None:
    """Otherwise an optimizer's steps are ten times what the recipe means, or a tenth of it."""
    kernels = [layer.get_weights()[0] for layer in network.layers if "conv2d" in layer.name]
    assert len(kernels) == len(NANO.stages)
    for kernel in kernels:
        fan_in = kernel.size // kernel.shape[-1]
        sizes = np.sqrt((kernel**2).mean(axis=(0, 1, 2)))
        assert sizes[sizes > 0] == pytest.approx(np.sqrt(2 / fan_in), rel=1e-3)  # a channel may be constant: all zeros


def test_a_quantized_constant_in_real_units() -> None:
    def tensor(dtype: str, values: np.ndarray, scales: tuple[float, ...], points: tuple[int, ...]) -> Tensor:
        return Tensor("x", values.shape, True, dtype, scales, points, values.view(np.uint8).ravel())

    kernel = np.arange(-6, 6, dtype=np.int8).reshape(3, 2, 1, 2)
    by_out = from_bundle.dequantized(tensor("INT8", kernel, (1.0, 0.5, 2.0), (0, 0, 0)))
    assert by_out.ravel().tolist() == [-6, -5, -4, -3, -1, -0.5, 0, 0.5, 4, 6, 8, 10]
    by_channel = from_bundle.dequantized(tensor("INT8", kernel[:1], (1.0, 10.0), (0, 0)))
    assert by_channel.ravel().tolist() == [-6, -50, -4, -30]
    one = from_bundle.dequantized(tensor("INT32", np.array([300, -2], np.int32), (0.5,), (2,)))
    assert one.tolist() == [149, -2]
    with pytest.raises(DataError, match="only full-integer models"):
        from_bundle.dequantized(Tensor("x", (2,), True, "FLOAT32", (), (), np.zeros(8, np.uint8)))


def test_a_graph_of_other_layers_is_refused(faces: np.ndarray) -> None:
    for stages in (NANO.stages[:-1], [[16, 1], *NANO.stages[1:-1], [48, 1]]):
        with pytest.raises(DataError, match="other layers than the recipe's"):
            from_bundle.float_network(Bundle.load("nano").model, ModelRecipe(stages, kind="residual"), 15, faces)


@pytest.fixture
def of_nano(recipe: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a recipe of the network of `nano`, with changes."""

    def write(**changes: object) -> Path:
        return recipe({"name": "taken", "model.kind": "residual", "model.stages": NANO.stages, **changes})

    return write


def test_the_verb_leaves_a_run_that_says_what_it_was(
    of_nano: Callable[..., Path], data: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = call(main, "from-bundle", "--bundle", "nano", "--recipe", of_nano(), "--data", data, "--run", run)
    assert done.code == 0, done.err
    facts, nano = json.loads((run / "run.json").read_text()), Bundle.load("nano").metadata
    assert facts["bundle"] == {
        "name": "nano",
        "model_sha256": nano.model_sha256,
        "training": nano.facts["training"],
    }
    assert models.load(run / "model.keras").count_params() == facts["parameters"]
    again = call(main, "from-bundle", "--bundle", "nano", "--recipe", of_nano(), "--data", data, "--run", run)
    assert (again.code, "is not empty" in again.err) == (78, True)


@pytest.mark.parametrize(
    ("bundle", "changes", "code", "message"),
    [
        ("nine", {}, 66, "no model nine"),
        ("accurate", {}, 65, "other layers than the recipe's"),
        ("nano", {"model.squeeze_excitation": 4}, 78, "give a [model] without them"),
        ("nano", {"model.repvgg": True}, 78, "give a [model] without them"),
        ("nano", {"data.alignment": "eyes"}, 78, "set data.alignment to 'none'"),
        ("nano", {"data.illumination": ["log"]}, 78, "set data.illumination to []"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    of_nano: Callable[..., Path],
    data: Path,
    call: Callable[..., Any],
    tmp_path: Path,
    bundle: str,
    changes: dict[str, object],
    code: int,
    message: str,
) -> None:
    arguments = ["--bundle", bundle, "--recipe", of_nano(**changes), "--data", data, "--run", tmp_path / "run"]
    refused = call(main, "from-bundle", *arguments)
    assert refused.code == code
    assert message in refused.err.lower() or message in refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "run").exists()


def test_other_heads_are_refused(
    of_nano: Callable[..., Path], data: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "fer2013.csv").write_bytes((data / "fer2013.csv").read_bytes())  # without FER+
    arguments = ["--bundle", "nano", "--recipe", of_nano(), "--data", tmp_path, "--run", tmp_path / "run"]
    refused = call(main, "from-bundle", *arguments)
    assert (refused.code, "other heads than the data set, which has fer2013" in refused.err) == (65, True)


def test_as_a_stage_it_is_in_the_lineage(data: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "on.toml"
    text = f'name = "on"\n[model]\nkind = "residual"\nstages = {json.dumps(NANO.stages)}\n'
    path.write_text(f'{text}[[stage]]\nname = "start"\nkind = "from-bundle"\nbundle = "nano"\n')
    arguments = ["run", path, "--data", data, "--runs", tmp_path / "runs"]
    shown = call(main, *arguments, "--dry-run")
    assert "from-bundle" in shown.err
    assert call(main, *arguments).code == 0
    start = json.loads((tmp_path / "runs" / "on" / "start" / "run.json").read_text())["lineage"]["on/start"]
    nano = Bundle.load("nano").metadata
    assert start["kind"] == "from-bundle"
    assert start["inputs"] == {"nano": nano.model_sha256}
    assert start["bundle"]["training"] == nano.facts["training"]
    assert call(main, *arguments).code == 0  # it is done
    path.write_text(path.read_text().replace('bundle = "nano"', 'bundle = "none"'))
    refused = call(main, *arguments, "--from", "start")
    assert (refused.code, "Traceback" in refused.err) == (66, False)
