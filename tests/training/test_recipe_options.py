"""What a recipe can add to plain training, each against a closed form or a toy case."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.errors import ConfigError, DataError
from edge_fer.model.bundle import load_bundle
from edge_fer.preprocess.alignment import Alignment
from evaluation import datasets
from export import edgetpu, quantize
from export.flatbuffer import in_float, read_operators
from training import models, pretrain
from training.__main__ import main
from training.augmentation import Augment, Mixup, MixupUntil
from training.fold import fold_gates
from training.losses import TwoHeadLoss, class_balance, with_teacher
from training.recipe import (
    AugmentRecipe,
    ClassBalanceRecipe,
    ModelRecipe,
    OptimizerRecipe,
    PretrainRecipe,
    Recipe,
    load_recipe,
    read_table,
    to_toml,
)
from training.train import build

STAGES = [[8, 2], [8, 1], [16, 2], [16, 1], [16, 2], [16, 1]]
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 15)).astype(np.float32)
LABELS = np.zeros((4, 17), np.float32)  # classes 0-3 of each head, all known
LABELS[np.arange(4), np.arange(4)] = LABELS[np.arange(4), 9 + np.arange(4)] = 1
LABELS[:, [8, 16]] = 1

TOML = """
name = "tiny"
epochs = 4
batch_size = 35
label_smoothing = 0.0
{top}
[model]
stages = [[8, 2], [8, 1], [16, 2], [16, 2]]
dropout = 0.0
{model}
[augment]
rotation_deg = 0
scale = 0
shift = 0.02
[optimizer]
learning_rate = 0.01
warmup_epochs = 1
{more}
"""


def cross_entropy(logits: NDArray[np.float32], one_hot: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.log(np.exp(logits).sum(axis=1)) - (logits * one_hot).sum(axis=1)


HEADS = cross_entropy(LOGITS[:, :8], LABELS[:, :8]), cross_entropy(LOGITS[:, 8:], LABELS[:, 9:16])


# Mixup and edges


def test_mixup_mixes_each_picture_with_its_partner_by_its_share() -> None:
    pictures = RNG.uniform(0, 255, (32, 6, 6, 1)).astype(np.float32)
    layer = Mixup(alpha=0.4, seed=1)
    mixed, share = (keras.ops.convert_to_numpy(one) for one in layer(pictures, training=True))
    wide = share[:, :, None, None]
    assert mixed == pytest.approx(wide * pictures + (1 - wide) * pictures[::-1], rel=1e-4)
    assert len(set(share.ravel().tolist())) > 25
    # Beta(0.4, 0.4) has mean 0.5 and variance 1 / (4 * 1.8).
    shares = keras.ops.convert_to_numpy(layer(np.zeros((4000, 1, 1, 1), np.float32), training=True)[1])
    assert (shares.mean(), shares.var()) == (pytest.approx(0.5, abs=0.03), pytest.approx(1 / 7.2, abs=0.01))
    still, ones = (keras.ops.convert_to_numpy(one) for one in layer(pictures, training=False))
    assert np.array_equal(still, pictures)
    assert (ones == 1).all()


def test_the_loss_of_mixed_pictures_is_that_of_mixed_labels_and_teachers() -> None:
    share = np.array([[0.9], [0.3], [0.6], [0.2]], np.float32)
    mixed = share * LABELS + (1 - share) * LABELS[::-1]
    expected = (cross_entropy(LOGITS[:, :8], mixed[:, :8]) + cross_entropy(LOGITS[:, 8:], mixed[:, 9:16])).mean()
    loss = TwoHeadLoss(1.0, mixed=True)(LABELS, np.column_stack([LOGITS, share]))
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    teacher = RNG.normal(size=(4, 15)).astype(np.float32)
    chance = np.exp(teacher[:, :8]) / np.exp(teacher[:, :8]).sum(axis=1, keepdims=True)
    other = np.exp(teacher[:, 8:]) / np.exp(teacher[:, 8:]).sum(axis=1, keepdims=True)
    chance, other = (share * one + (1 - share) * one[::-1] for one in (chance, other))
    expected = (cross_entropy(LOGITS[:, :8], chance) + cross_entropy(LOGITS[:, 8:], other)).mean()
    loss = TwoHeadLoss(1.0, 1.0, 1.0, mixed=True)(with_teacher(LABELS, teacher), np.column_stack([LOGITS, share]))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_mixup_ends_before_training_does() -> None:
    pixels = keras.Input((6, 6, 1))
    network = keras.Model(pixels, Mixup(0.4, seed=1, name="mixup")(pixels)[0])
    end = MixupUntil(9)
    end.set_model(network)
    for epoch, on in ((0, 1.0), (8, 1.0), (9, 0.0)):
        end.on_epoch_begin(epoch)
        assert float(network.get_layer("mixup").on) == on
    pictures = RNG.uniform(0, 255, (8, 6, 6, 1)).astype(np.float32)
    assert keras.ops.convert_to_numpy(network(pictures, training=True)) == pytest.approx(pictures)


def test_edges_are_flat_borders_in_half_of_the_pictures() -> None:
    nothing = AugmentRecipe(rotation_deg=0, scale=0, shift=0, brightness=0, contrast=0)
    augment = Augment(nothing.rotation_deg, 0, 0, 0, 0, 0, seed=3, edges=0.25)
    pictures = RNG.uniform(0, 255, (64, 48, 48, 1)).astype(np.float32)
    changed = keras.ops.convert_to_numpy(augment(pictures, training=True))[..., 0]
    # The middle of the uppermost row is flat where there is a border.
    framed = np.ptp(changed[:, 0, 12:36], axis=1) == 0
    assert 15 < framed.sum() < 49
    widths = [(np.ptp(picture[:24, 12:36], axis=1) == 0).sum() for picture in changed[framed]]
    assert len(set(widths)) > 5
    assert max(widths) <= 12
    assert len({picture[0, 20] for picture in changed[framed]}) > 10
    assert (np.ptp(changed[:, 20, 12:36], axis=1) > 50).all()


# Rare classes


def faces(fer2013: list[int], votes: list[int]) -> datasets.Dataset:
    """Rows of those classes; ten raters agree on each."""
    counts = np.zeros((len(votes), 10), np.float32)
    counts[np.arange(len(votes)), votes] = 10
    no = np.zeros(len(votes), np.bool_)
    return datasets.Dataset(np.zeros((len(votes), 48, 48, 1), np.uint8), np.array(fer2013), counts, no)


ROWS = faces([*range(7), 3], [*range(8)])  # class 3 of FER2013 stands twice, all of FER+ once


def test_logit_adjustment_adds_the_logarithm_of_the_shares() -> None:
    settings = class_balance(ClassBalanceRecipe("logit_adjustment", tau=2.0), ROWS)
    shares = np.array([1 / 8] * 8 + [1 / 8] * 3 + [2 / 8] + [1 / 8] * 3)
    assert settings == {"logit_offsets": pytest.approx(2 * np.log(shares))}
    changed = LOGITS + 2 * np.log(shares)
    expected = (cross_entropy(changed[:, :8], LABELS[:, :8]) + cross_entropy(changed[:, 8:], LABELS[:, 9:16])).mean()
    assert float(TwoHeadLoss(1.0, **settings)(LABELS, LOGITS)) == pytest.approx(expected, rel=1e-4)


def test_the_effective_number_weighs_rows() -> None:
    settings = class_balance(ClassBalanceRecipe("effective_number", beta=0.5), ROWS)
    raw = np.array([1, 1, 1, 0.5 / 0.75, 1, 1, 1])
    weights = raw / raw.mean()
    assert settings == {"class_weights": pytest.approx([*[1.0] * 8, *weights])}
    expected = (HEADS[0] + HEADS[1] * weights[:4]).mean()
    assert float(TwoHeadLoss(1.0, **settings)(LABELS, LOGITS)) == pytest.approx(expected, rel=1e-4)


def test_an_empty_class_cannot_be_balanced(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert class_balance(ClassBalanceRecipe(), ROWS[:3]) == {}
    with pytest.raises(DataError, match="No Training row is surprise"):
        class_balance(ClassBalanceRecipe("logit_adjustment"), ROWS[np.array([0, 1, 3, 4, 5, 6, 7])])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(TOML.format(top="", model="", more='[class_balance]\nkind = "effective_number"'))
    run = tmp_path / "run"
    assert main(["train", "--recipe", str(recipe), "--data", str(data), "--run", str(run)]) == 65
    assert "No Training row is contempt (ferplus)" in capsys.readouterr().err.replace("\n", " ")
    assert not run.exists()


# Center and island loss


def test_centres_give_distances_and_cosines() -> None:
    layer = models.ClassCentres(3)
    layer.build((None, 2))
    layer.set_weights([np.array([[1, 0], [0, 2], [-3, 0]], np.float32)])
    columns = keras.ops.convert_to_numpy(layer(np.array([[1, 1], [0, 0]], np.float32)))
    # Cosines 0, -1 and 0, each plus 1, over ordered pairs.
    assert columns == pytest.approx(np.array([[1, 2, 17, 4], [1, 4, 9, 4]]), abs=1e-4)


def test_the_center_loss_is_half_the_distance_to_the_own_centre() -> None:
    distances = np.arange(28, dtype=np.float32).reshape(4, 7)
    outputs = np.column_stack([LOGITS, distances, np.full(4, 6.0, np.float32)])
    plain, known = (HEADS[0] + HEADS[1]).mean(), LABELS.copy()
    own = np.array([0, 8, 16, 24])
    loss = float(TwoHeadLoss(1.0, center=0.1, island=10.0)(LABELS, outputs))
    assert loss == pytest.approx(plain + 0.1 * (own.mean() / 2 + 10 * 6), rel=1e-4)
    known[3, 16] = 0  # has no FER2013 label
    loss = float(TwoHeadLoss(1.0, center=0.1)(known, outputs))
    expected = (HEADS[0].sum() + HEADS[1][:3].sum() + 0.1 * own[:3].sum() / 2) / 4
    assert loss == pytest.approx(expected, rel=1e-4)


def test_centres_and_heads_stay_behind(tmp_path: Path) -> None:
    recipe = Recipe("x", ModelRecipe(STAGES, kind="residual"), center=0.1, island=1.0, supervised=0.3, mixup=0.2)
    network = build(recipe, 10)
    assert network.output_shape == (None, 15 * 3 + 8 + 1)
    core, plain = models.core_of(network, "residual"), models.build(recipe.model)
    assert [one.shape for one in core.get_weights()] == [one.shape for one in plain.get_weights()]
    pictures = RNG.uniform(0, 255, (4, 48, 48, 1)).astype(np.float32)
    said = network.predict(pictures, verbose=0)
    assert core.predict(pictures, verbose=0) == pytest.approx(said[:, :15], abs=1e-4)
    layer = next(one for one in network.get_layer("residual").layers if isinstance(one, models.ClassCentres))
    centres = layer.get_weights()[0]
    embeddings = keras.Model(core.input, models.embedding(core)).predict(pictures, verbose=0)
    distances = ((embeddings[:, None] - centres) ** 2).sum(axis=2)
    assert said[:, 45:52] == pytest.approx(distances, rel=1e-3, abs=1e-4)


# Supervised blocks


def test_every_head_has_its_loss() -> None:
    outputs = np.column_stack([LOGITS, np.zeros((4, 30), np.float32)])
    expected = (HEADS[0] + HEADS[1]).mean() + 0.3 * 2 * (np.log(8) + np.log(7))
    assert float(TwoHeadLoss(1.0, supervised=0.3)(LABELS, outputs)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["plain", "residual", "separable"])
def test_heads_stand_at_the_ends_of_the_earlier_stages(kind: str) -> None:
    core = models.BUILDERS[kind](STAGES, 0.0)  # type: ignore[operator]
    network = models.with_extras(core, supervised=True, centres=False)
    assert network.output_shape == (None, 15 * 3)
    pools = [layer for layer in network.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)]
    assert {pool.input.shape[1:] for pool in pools} == {(24, 24, 8), (12, 12, 16), (6, 6, 16)}
    assert all("re_lu" in pool.input._keras_history.operation.name or kind == "residual" for pool in pools)


# Branches


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_merged_branches_say_the_same(kind: str) -> None:
    # 48 is halved to 3, an odd side, on which "same" padding is another one.
    stages = [[6, 2], [6, 1], [8, 2], [8, 2], [8, 2], [8, 2], [8, 1]]
    branched = models.build(ModelRecipe(stages, kind=kind, branches=True))  # type: ignore[arg-type]
    for layer in branched.layers:
        for norm in getattr(layer, "norms", []):
            norm.set_weights([RNG.uniform(0.5, 1.5, one.shape) for one in norm.get_weights()])
    merged = models.merge_branches(branched)
    pictures = RNG.uniform(0, 255, (4, 48, 48, 1)).astype(np.float32)
    said = branched.predict(pictures, verbose=0)
    assert merged.predict(pictures, verbose=0) == pytest.approx(said, abs=1e-4 * float(np.abs(said).max()))
    kinds = {type(layer).__name__ for layer in merged.layers}
    assert not kinds & {"Branches", "BatchNormalization"}
    assert models.merge_branches(merged) is merged


# Squeeze


def test_squeeze_weighs_channels_by_their_means() -> None:
    inputs = keras.Input((5, 4, 8))
    network = keras.Model(inputs, models.squeezed(inputs, 2))
    pictures = RNG.uniform(0, 2, (3, 5, 4, 8)).astype(np.float32)
    assert network(pictures).numpy() == pytest.approx(pictures / 2)  # as it begins
    down, up = RNG.normal(0, 1, (8, 4)), RNG.normal(0, 3, (4, 8))
    narrow, gate = (layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    narrow.kernel.assign(down[None, None])
    gate.kernel.assign(up[None, None])
    hidden = np.maximum(pictures.mean(axis=(1, 2)) @ down, 0)
    weights = np.clip(hidden @ up + 3, 0, 6) / 6
    assert network(pictures).numpy() == pytest.approx(pictures * weights[:, None, None, :], abs=1e-5)


def test_squeeze_goes_with_supervised_blocks_and_centres() -> None:
    core = models.build(ModelRecipe(STAGES, kind="residual", squeeze=4))
    assert models.embedding(core).shape == (None, 16)
    extended = models.with_extras(core, supervised=True, centres=True)
    assert extended.output_shape == (None, 15 + 2 * 15 + 8)
    kinds = {type(layer).__module__.split(".")[0] for layer in core.layers}
    assert kinds == {"keras"}  # what the exporter reads without this project's classes


def test_gates_that_do_not_vary_are_folded_without_a_trace() -> None:
    recipe = ModelRecipe(STAGES, kind="residual", squeeze=4)
    network = models.build(recipe)
    for product in (layer for layer in network.layers if isinstance(layer, keras.layers.Multiply)):
        gate = product.input[1]._keras_history.operation
        gate.bias.assign(RNG.uniform(-2, 2, gate.bias.shape))  # its kernel is zero: the same for all faces
    pictures = RNG.integers(0, 256, (4, 48, 48, 1)).astype(np.uint8)
    folded = fold_gates(network, recipe, pictures)
    assert not [layer for layer in folded.layers if isinstance(layer, keras.layers.Multiply)]
    assert folded.predict(pictures, verbose=0) == pytest.approx(network.predict(pictures, verbose=0), abs=1e-4)
    with pytest.raises(ConfigError, match=r"Only networks with model\.squeeze"):
        fold_gates(folded, ModelRecipe(STAGES, kind="residual"), pictures)


# Precision


def test_a_network_in_bfloat16_keeps_weights_and_logits_in_float32_and_goes_back_to_float32() -> None:
    network = models.build(ModelRecipe(STAGES, kind="residual", squeeze=4), "bfloat16")
    convolution = next(layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    assert (convolution.compute_dtype, convolution.kernel.dtype) == ("bfloat16", "float32")
    assert network.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"  # of what is built next
    exact = models.in_precision(network, "float32")
    assert {layer.compute_dtype for layer in exact.layers} == {"float32"}
    assert [layer.name for layer in exact.layers] == [layer.name for layer in network.layers]
    pictures = RNG.uniform(0, 255, (8, 48, 48, 1)).astype(np.float32)
    said, rounded = (each.predict(pictures, verbose=0) for each in (exact, network))
    # bfloat16 has 8 bits: each layer rounds by up to 0.4 %.
    assert 0 < np.abs(said - rounded).max() < 0.1 * np.abs(said).max()


# Size of the work


def test_multiply_accumulates_by_hand() -> None:
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)  # 16 places * 9 * 1 * 4
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)  # 16 * 9 * 4
    x = keras.layers.Conv2D(8, 1)(x)  # 16 * 4 * 8
    x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))  # 8 * 5
    assert models.mmac(keras.Model(inputs, x)) * 1e6 == pytest.approx(576 + 576 + 512 + 40)


# Training without labels


def test_hidden_squares_are_the_mean_and_the_rest_is_noisy() -> None:
    pictures = RNG.uniform(60, 200, (32, 48, 48, 1)).astype(np.float32)
    layer = pretrain.Corrupt(mask=0.4, patch_px=8, noise=5.0, seed=1)
    corrupted, hidden = (keras.ops.convert_to_numpy(one) for one in layer(pictures))
    squares = hidden.reshape(32, 6, 8, 6, 8).mean(axis=(2, 4))
    assert set(squares.ravel().tolist()) == {0.0, 1.0}
    assert squares.mean() == pytest.approx(0.4, abs=0.05)
    means = np.broadcast_to(pictures.mean(axis=(1, 2, 3), keepdims=True), pictures.shape)
    assert corrupted[hidden > 0] == pytest.approx(means[hidden > 0], rel=1e-4)
    assert (corrupted - pictures)[hidden == 0].std() == pytest.approx(5, abs=0.2)


def test_the_error_is_that_of_the_hidden_pixels() -> None:
    picture = np.array([[0, 0], [20, 20]], np.float32).reshape(1, 2, 2, 1)  # mean 10, deviation 10
    filled = np.array([[1, 0], [9, 9]], np.float32).reshape(1, 2, 2, 1)
    hidden = np.array([[1, 1], [0, 0]], np.float32).reshape(1, 2, 2, 1)
    error = float(keras.ops.squeeze(pretrain.HiddenError()([picture, filled, hidden])))
    assert error == pytest.approx(((1 + 10 / 11) ** 2 + (10 / 11) ** 2) / 2, rel=1e-4)


def test_a_trunk_learns_to_fill_in_and_its_head_is_left_alone() -> None:
    recipe = Recipe(
        "x",
        ModelRecipe(STAGES, dropout=0.0),
        augment=AugmentRecipe(rotation_deg=0, scale=0, shift=0, brightness=0, contrast=0),
        optimizer=OptimizerRecipe(learning_rate=0.01, warmup_epochs=0, weight_decay=0.0),
        pretrain=PretrainRecipe(epochs=60),
    )
    core = models.build(recipe.model)
    before = core.get_layer("logits").get_weights()[0]
    network = pretrain.build(recipe, core, steps_per_epoch=1)
    ramps = np.tile(np.linspace(0, 255, 48, dtype=np.float32)[:, None, None], (16, 1, 48, 1))
    errors = network.fit(ramps, np.zeros((16, 1)), batch_size=16, epochs=60, verbose=0).history["loss"]
    assert np.mean(errors[-5:]) < 0.3 * np.mean(errors[:5])
    assert np.array_equal(core.get_layer("logits").get_weights()[0], before)


# All of it


def test_all_options_together_train_resume_and_export(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    top = "mixup = 0.2\ncenter = 0.01\nisland = 1.0\nsupervised = 0.3"
    more = 'kind = "muon"\naverage = 0.9\n[pretrain]\nepochs = 2'
    recipe.write_text(TOML.format(top=top, model="branches = true", more=more))
    faces_run, run = tmp_path / "faces", tmp_path / "run"
    assert main(["pretrain", "--recipe", str(recipe), "--data", str(data), "--run", str(faces_run)]) == 0
    assert len(json.loads((faces_run / "run.json").read_text())["error"]) == 2
    arguments = ["train", "--recipe", str(recipe), "--data", str(data), "--run", str(run), "--set", "seed=7"]
    assert main([*arguments, "--begin-with", str(faces_run / "model.keras")]) == 0
    facts = json.loads((run / "run.json").read_text())
    assert facts["seed"] == load_recipe(run / "recipe.toml").seed == 7
    assert facts["pictures_per_second"] > 0
    exported = models.load(run / "model.keras")
    assert exported.output_shape == (None, 15)
    assert facts["mmac"] == pytest.approx(models.mmac(exported), abs=1e-3)
    pictures = datasets.load(data)["PublicTest"].images
    expected = models.load(run / "branched.keras").predict(pictures, verbose=0)
    assert exported.predict(pictures, verbose=0) == pytest.approx(expected, abs=1e-3)
    # As if the last epoch had been cut off.
    (run / "model.keras").unlink()
    assert main([*arguments, "--resume"]) == 0
    with (run / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    assert main([*arguments[:-1], "seed=8", "--resume"]) == 78


def test_a_network_with_squeeze_becomes_int8_as_a_whole(data: Path, tmp_path: Path) -> None:
    recipe, run, out = tmp_path / "recipe.toml", tmp_path / "run", tmp_path / "model.tflite"
    recipe.write_text(TOML.format(top="", model="squeeze = 4", more=""))
    assert main(["train", "--recipe", str(recipe), "--data", str(data), "--run", str(run)]) == 0
    arguments = [str(run / "model.keras"), "--data", str(data), "-o", str(out)]
    assert quantize.main([*arguments, "--max-drop", "100", "--min-agreement", "0"]) == 0
    operators = read_operators(load_bundle(out).model)
    assert in_float(operators) == []
    folded = tmp_path / "folded"
    assert main(["fold", "--of", str(run), "--data", str(data), "--run", str(folded)]) == 0
    assert load_recipe(folded / "recipe.toml").model.squeeze == 0
    # What a gate is made of: all that the Edge TPU maps.
    assert {"MEAN", "MUL"} <= {operator.name for operator in operators}
    assert [verdict for verdict in edgetpu.check(operators) if verdict.obstacle] == []


def test_a_training_in_bfloat16_leaves_a_float32_model(data: Path, tmp_path: Path) -> None:
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(TOML.format(top='precision = "bfloat16"\ncenter = 0.01', model="", more=""))
    arguments = ["train", "--recipe", str(recipe), "--data", str(data), "--run", str(run)]
    assert main(arguments) == 0
    assert {layer.compute_dtype for layer in models.load(run / "model.keras").layers} == {"float32"}
    with (run / "history.csv").open() as file:
        losses = [float(line["loss"]) for line in csv.DictReader(file)]
    assert losses[-1] < losses[0]
    assert main([*arguments, "--resume"]) == 0


def test_alignment_goes_from_the_recipe_to_the_card(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    aligned = datasets.aligned

    def watched(images: NDArray[np.uint8], align: Alignment, margin: float) -> NDArray[np.uint8]:
        seen.append(align)
        return aligned(images, align, margin)

    monkeypatch.setattr(datasets, "aligned", watched)
    recipe, run, out = tmp_path / "recipe.toml", tmp_path / "run", tmp_path / "model.tflite"
    recipe.write_text(TOML.format(top="", model="", more='[data]\nalign = "eyes"'))
    assert main(["train", "--recipe", str(recipe), "--data", str(data), "--run", str(run)]) == 0
    assert main(["evaluate", "--model", str(run / "model.keras"), "--data", str(data)]) == 0
    arguments = [str(run / "model.keras"), "--data", str(data), "-o", str(out)]
    assert quantize.main([*arguments, "--max-drop", "100", "--min-agreement", "0"]) == 0
    assert load_bundle(out).card.align == "eyes"
    assert set(seen) == {"eyes"}


@pytest.mark.parametrize(
    ("text", "message"), [("align = ", "not valid TOML"), ('align = "nose"', "must be one of none")]
)
def test_a_wrong_description_beside_a_model(tmp_path: Path, text: str, message: str) -> None:
    assert models.alignment_of(tmp_path / "model.keras") == "none"
    (tmp_path / "model.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        models.alignment_of(tmp_path / "model.keras")


def test_a_recipe_is_changed_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(TOML.format(top="", model="", more=""))
    changes = ["seed=7", "model.dropout=0.5", "optimizer.kind=muon", "distill.weight = 0.25", "model.stages=[[4, 2]]"]
    changed = load_recipe(path, changes)
    assert (changed.seed, changed.model.dropout, changed.optimizer.kind) == (7, 0.5, "muon")
    assert (changed.distill.weight, changed.model.stages) == (0.25, [[4, 2]])
    (tmp_path / "again.toml").write_text(to_toml(read_table(path, changes)))
    assert load_recipe(tmp_path / "again.toml") == changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed", "write KEY=VALUE"),
        ("=2", "write KEY=VALUE"),
        ("a.b.c=2", "write KEY=VALUE"),
        ("name.first=2", "name is no table"),
        ("sed=2", "seed"),
        ("seed=two", "seed"),
        ("model.drop=0.1", "dropout"),
    ],
)
def test_a_change_that_is_none_is_refused(change: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(TOML.format(top="", model="", more=""))
    with pytest.raises(ConfigError, match=message):
        load_recipe(path, [change])


@pytest.mark.parametrize(
    ("top", "model", "more", "message"),
    [
        ("mixup = -0.1", "", "", "mixup must be 0 or more"),
        ("center = inf", "", "", "center must be 0 or more"),
        ("island = 10.0", "", "", "island is a part of the center loss"),
        ("", 'kind = "separable"\nbranches = true', "", "branches is for plain and residual"),
        ("", 'kind = "separable"\nsqueeze = 4', "", "squeeze is for plain and residual"),
        ("", "squeeze = -1", "", "squeeze must be 0 or more"),
        ("", "", "[class_balance]\nbeta = 1.0", "beta must be 0 to less than 1"),
        ("", "", "[pretrain]\nmask = 1.0", "mask must be between 0 and 1"),
        ("", "", "[pretrain]\nepochs = 0", "must be at least 1"),
        ("", "", '[class_balance]\nkind = "focal"', "must be one of none, effective_number, logit_adjustment"),
        ("", "", 'kind = "sgd"', "must be one of adamw, muon"),
    ],
)
def test_what_cannot_be_is_refused(top: str, model: str, more: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(TOML.format(top=top, model=model, more=more))
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_edges_and_heads_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"augment\.edges"):
        Recipe("x", ModelRecipe(STAGES), augment=AugmentRecipe(edges=0.6))
    with pytest.raises(ConfigError, match="one height and width only"):
        build(Recipe("x", ModelRecipe([[4, 2]]), supervised=0.3), 10)
