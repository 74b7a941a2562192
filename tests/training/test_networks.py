"""Parts of networks from the literature: what each computes, and that a network with it can be saved and read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import cv2
import keras
import numpy as np
import pytest
from keras import ops
from rich.console import Console

import datasets
from edge_fer.errors import ConfigError
from export.convert import to_int8
from export.flatbuffer import in_float, read_operators, run_flatbuffer
from training import models
from training.__main__ import main
from training.networks.attention import cbam
from training.networks.forest import NeuralForest
from training.networks.inputs import Channel
from training.networks.scoring import stage_ends, with_scoring
from training.pretrain import backbone_of
from training.recipe import InputKind, ModelRecipe, Recipe

STAGES = [[8, 1], [8, 2], [16, 2]]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1)).astype(np.float32)


def seen(kind: str, images: np.ndarray = IMAGES) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(Channel(kind)(images)))[..., 0]


def test_local_binary_patterns_bit_by_bit() -> None:
    image = np.full((1, 48, 48, 1), 100.0, np.float32)
    image[0, 10:13, 20:23, 0] = [[101, 99, 100], [0, 100, 255], [99, 99, 101]]
    code = round((seen("lbp", image)[0, 11, 21] + 1) * 127.5)
    assert code == 0b00011101  # upper left, above no, upper right equal, right, lower right; below, lower left, left no


def test_lbp_sees_order_alone() -> None:
    brighter = (IMAGES / 255) ** 0.5 * 200 + 20
    np.testing.assert_array_equal(seen("lbp", brighter.astype(np.float32)), seen("lbp"))


def test_gradient_and_edges_of_a_ramp() -> None:
    ramp = np.tile(np.arange(48, dtype=np.float32) * 2, (48, 1))[None, :, :, None]
    np.testing.assert_allclose(seen("gradient", ramp)[0, 1:-1, 1:-1], 4 / 127.5, rtol=1e-4)
    np.testing.assert_allclose(seen("edges", ramp)[0, 1:-1, 1:-1], 0, atol=1e-6)


def test_equalized_as_opencv_does_where_all_gray_levels_differ() -> None:
    values = np.random.default_rng(1).permutation(2304).reshape(48, 48)
    image = (values / 2303 * 255).astype(np.uint8)
    ours = (seen("equalized", image[None, :, :, None].astype(np.float32))[0] + 1) * 127.5
    assert np.abs(ours - cv2.equalizeHist(image)).mean() < 2
    darker = (image.astype(np.float32) / 4)[None, :, :, None]
    assert np.abs((seen("equalized", darker)[0] + 1) * 127.5 - ours).max() < 1


def test_equal_pixels_are_equalized_alike() -> None:
    """Ranks of equal pixels are the mean of theirs: nothing hangs on where they lie."""
    image = np.random.default_rng(3).integers(0, 6, (2, 48, 48, 1)).astype(np.float32)
    flat = image[0].ravel()
    ordered = np.sort(flat)
    middle = (np.searchsorted(ordered, flat) + np.searchsorted(ordered, flat, "right") - 1) / 2
    np.testing.assert_allclose(seen("equalized", image)[0].ravel(), 2 * middle / (48 * 48 - 1) - 1, atol=1e-6)
    mirrored = seen("equalized", image[:, :, ::-1])
    np.testing.assert_allclose(mirrored, seen("equalized", image)[:, :, ::-1], atol=1e-6)
    np.testing.assert_allclose(seen("equalized", np.full((1, 48, 48, 1), 7, np.float32)), 0, atol=1e-6)


def test_patches_show_a_part_enlarged() -> None:
    face = np.zeros((1, 48, 48, 1), np.float32)
    face[0, 10:24] = 255  # brows and eyes
    assert (seen("eyes", face)[0, 10:40] > 0.9).all()
    assert (seen("mouth", face) < -0.9).all()
    face[0, 30:44, 12:36] = 255  # a mouth that fills most of its part
    assert seen("mouth", face)[0, 10:30, 5:-5].min() > 0.9


@pytest.mark.parametrize("kind", get_args(InputKind))
def test_flat_images_give_numbers(kind: str) -> None:
    for level in (0, 128, 255):
        flat = np.full((1, 48, 48, 1), level, np.float32)
        assert np.isfinite(seen(kind, flat)).all()
        assert np.abs(seen(kind, flat)).max() <= 1.001


def test_attention_scales_between_nothing_and_all() -> None:
    pixels = keras.Input((12, 12, 16))
    network = keras.Model(pixels, cbam(pixels, reduction=8))
    values = np.random.default_rng(2).uniform(0.1, 1, (2, 12, 12, 16)).astype(np.float32)
    scales = network.predict(values, verbose=0) / values
    assert ((scales > 0) & (scales < 1)).all()
    # It is a product of one number a channel and one a place (Woo et al., eq. 1).
    logs = np.log(scales[0]).reshape(-1, 16)
    parts = logs - logs.mean(axis=0) - logs.mean(axis=1, keepdims=True) + logs.mean()
    np.testing.assert_allclose(parts, 0, atol=1e-4)


def test_attention_by_hand() -> None:
    """Average and maximum of each channel, then of each place, and 7x7 places around each (Woo et al., eq. 2 and 3)."""
    pixels = keras.Input((9, 8, 6))
    network = keras.Model(pixels, cbam(pixels, reduction=2))
    rng = np.random.default_rng(3)
    network.set_weights([rng.normal(size=one.shape) for one in network.get_weights()])
    hidden, hidden_bias, out, out_bias, kernel, bias = network.get_weights()
    assert kernel.shape == (7, 7, 2, 1)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-x)))

    def perceptron(pooled: np.ndarray) -> np.ndarray:
        return np.maximum(pooled @ hidden[0, 0] + hidden_bias, 0) @ out[0, 0] + out_bias

    values = rng.normal(size=(2, 9, 8, 6)).astype(np.float32)
    channel = sigmoid(perceptron(values.mean(axis=(1, 2))) + perceptron(values.max(axis=(1, 2))))
    scaled = values * channel[:, None, None]
    places = np.pad(np.stack([scaled.mean(axis=3), scaled.max(axis=3)], axis=3), ((0, 0), (3, 3), (3, 3), (0, 0)))
    around = np.lib.stride_tricks.sliding_window_view(places, (7, 7), axis=(1, 2))  # (n, rows, columns, 2, 7, 7)
    spatial = sigmoid(np.einsum("nrcpij,ijp->nrc", around, kernel[..., 0]) + bias)
    np.testing.assert_allclose(network.predict(values, verbose=0), scaled * spatial[..., None], atol=1e-5)


def test_a_tree_by_hand() -> None:
    forest = NeuralForest(classes=2, trees=1, depth=2)
    forest.build((None, 1))
    forest.kernel.assign([[1.0, 2.0, 3.0]])
    forest.bias.assign([0.0, 0.5, -0.5])
    forest.leaves.assign(np.log([[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.0001, 0.9999]]]))

    def left(value: float) -> float:
        return float(1 / (1 + np.exp(-value)))

    x = 0.7
    first, second, third = left(x), left(2 * x + 0.5), left(3 * x - 0.5)
    paths = [first * second, first * (1 - second), (1 - first) * third, (1 - first) * (1 - third)]
    expected = paths @ np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.0001, 0.9999]])
    np.testing.assert_allclose(
        ops.convert_to_numpy(forest(np.array([[x]], np.float32)))[0], np.log(expected), rtol=1e-4
    )


def test_every_sample_comes_to_some_leaf() -> None:
    forest = NeuralForest(classes=3, trees=4, depth=5)
    reached = ops.convert_to_numpy(forest.reached(_built(forest)))
    np.testing.assert_allclose(reached.sum(axis=2), 1, rtol=1e-5)


def _built(forest: NeuralForest) -> np.ndarray:
    embedding = np.random.default_rng(3).normal(size=(6, 8)).astype(np.float32)
    forest.build(embedding.shape)
    return embedding


OPTIONS: list[dict[str, Any]] = [
    {"attention": "cbam"},
    {"forest": 3},
    {"inputs": ("gray", "lbp", "gradient", "edges", "equalized")},
    {"inputs": ("gray", "lbp"), "fusion": "late"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_what_was_trained_in_bfloat16_becomes_float32(options: dict[str, Any]) -> None:
    coarse = models.build(ModelRecipe(STAGES, kind="residual", **options), 15, "bfloat16")
    exact = models.in_precision(coarse, "float32")
    assert {layer.compute_dtype for layer in exact.layers if isinstance(layer, keras.Layer)} == {"float32"}
    spread = np.std(exact.predict(IMAGES, verbose=0))
    np.testing.assert_allclose(exact.predict(IMAGES, verbose=0), coarse.predict(IMAGES, verbose=0), atol=0.2 * spread)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_network_with_it_is_read_as_it_was_written(options: dict[str, Any], tmp_path: Path) -> None:
    core = models.build(ModelRecipe(STAGES, kind="residual", **options), 15)
    core.save(tmp_path / "model.keras")
    again = models.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(IMAGES, verbose=0), core.predict(IMAGES, verbose=0))
    network = models.with_extras(core, auxiliary_heads=False, center_classes=0, embedded=True)
    outputs = network.predict(IMAGES, verbose=0)
    assert outputs["embedding"].shape == (3, 32 if "fusion" in options else 16)
    assert models.mmac(core) > 0


def test_a_scoring_ensemble_reads_the_scores_of_its_blocks() -> None:
    stages = [[4, 2], [8, 2], [8, 2], [8, 1]]
    positions: Any = ("shallow", "intermediate", "deep")
    core = models.build(ModelRecipe(stages, kind="residual", scoring=positions), 15)
    names = [layer.name for layer in core.layers if layer.name.startswith("score_")]
    assert sorted(names) == ["score_deep", "score_intermediate", "score_shallow"]
    inputs = [core.get_layer(f"score_{name}").input.shape[-1] for name in positions]
    assert inputs == [4, 8, 8]
    network = models.with_extras(core, auxiliary_heads=True, center_classes=0)
    images = np.random.default_rng(0).uniform(0, 255, (3, 48, 48, 1)).astype(np.float32)
    outputs = {name: np.asarray(one) for name, one in network(images, training=False).items()}
    assert set(outputs) == {"logits", "auxiliary_0", "auxiliary_1", "auxiliary_2"}
    # The second level is a dense layer on the scores side by side, shallow first.
    scores = [core.get_layer(f"score_{name}") for name in positions]
    joined = np.concatenate(
        [np.asarray(keras.Model(core.input, layer.output)(images, training=False)) for layer in scores], axis=1
    )
    kernel, bias = core.get_layer("logits").get_weights()
    assert kernel.shape == (45, 15)
    np.testing.assert_allclose(outputs["logits"], joined @ kernel + bias, rtol=1e-4, atol=1e-5)
    assert models.embedding(core).shape == (None, 8)


@pytest.mark.parametrize("inputs", [("gray",), ("gray", "lbp")])
def test_stages_begin_with_the_first_convolution(inputs: tuple[str, ...]) -> None:
    """What is made of the pixels before has a height and width of its own where the stem has a stride."""
    core = models.build(ModelRecipe([[4, 2], [8, 2], [8, 2]], kind="residual", inputs=inputs), 15)
    assert [end.shape[1:] for end in stage_ends(core)] == [(24, 24, 4), (12, 12, 8), (6, 6, 8)]


def test_networks_side_by_side_have_no_stages_to_score() -> None:
    late = ModelRecipe([[4, 2], [8, 2]], kind="residual", inputs=("gray", "lbp"), fusion="late")
    for build in (lambda core: with_scoring(core, ("shallow", "deep")), backbone_of, stage_ends):
        with pytest.raises(ConfigError, match="2 trunks of convolutions, and this wants one"):
            build(models.build(late, 15))


@pytest.mark.parametrize(
    ("stages", "positions", "message"),
    [
        ([[4, 2], [4, 2]], ("shallow", "intermediate"), "wants a deep block"),
        ([[4, 2], [4, 2]], ("shallow", "intermediate", "deep"), "too few heights and widths"),
        ([[4, 2]], ("shallow", "deep"), "too few heights and widths"),
    ],
)
def test_a_scoring_ensemble_wants_places_for_its_blocks(stages: Any, positions: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        models.build(ModelRecipe(stages, scoring=positions), 15)
    with pytest.raises(ConfigError, match="auxiliary_heads, their weight"):
        Recipe("x", ModelRecipe(stages, scoring=positions))
    with pytest.raises(ConfigError, match=r"leave model\.forest out"):
        models.build(ModelRecipe([[4, 2], [4, 2]], kind="residual", forest=3, scoring=("deep",)), 15)


@pytest.mark.trains
def test_a_scoring_ensemble_is_trained_and_converted_whole(
    call: Callable[..., Any], data: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    changes = {"auxiliary_heads": 0.5, "model.scoring": ["shallow", "intermediate", "deep"], "epochs": 2}
    run = tmp_path / "run"
    done = call(main, "train", "--recipe", recipe(changes), "--data", data, "--run", run)
    assert done.code == 0, done.err
    core = models.load(run / "model.keras")
    assert {layer.name for layer in core.layers} >= {"score_shallow", "score_intermediate", "score_deep", "logits"}
    tensors = datasets.load(data)["PublicTest"].images
    flatbuffer = to_int8(core, tensors, Console(stderr=True))
    logits = run_flatbuffer(flatbuffer, tensors, Console(stderr=True), "int8")
    assert in_float(read_operators(flatbuffer)) == []
    exact = core.predict(tensors, verbose=0)
    assert np.corrcoef(logits.ravel(), exact.ravel())[0, 1] > 0.95
