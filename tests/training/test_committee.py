"""A committee fuses its members as its rules say, and a student learns from what it kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.errors import DataError, EdgeFerError, InputMissingError
from evaluation import datasets
from training import committee, models
from training import train as training_loop
from training.__main__ import main
from training.losses import TwoHeadLoss, with_teacher
from training.recipe import load_recipe

RECIPE = """
name = "tiny"
seed = {seed}
epochs = 4
batch_size = 20
label_smoothing = 0.0
[model]
stages = [[8, 2], [16, 2], [16, 2]]
dropout = 0.0
[augment]
rotation_deg = 0
scale = 0
shift = 0.02
[optimizer]
learning_rate = 0.01
warmup_epochs = 1
"""
MEMBERS = np.array([[[0.6, 0.3, 0.1]], [[0.6, 0.1, 0.3]], [[0.0, 1.0, 0.0]]])  # three members, one picture


def test_majority_counts_votes() -> None:
    assert committee.majority(MEMBERS)[0] == pytest.approx([2 / 3, 1 / 3, 0])


def test_averages_count_probabilities() -> None:
    assert committee.weighted_average(MEMBERS, np.full(3, 1 / 3))[0] == pytest.approx([0.4, 1.4 / 3, 0.4 / 3])
    assert committee.weighted_average(MEMBERS, np.array([0.5, 0.5, 0.0]))[0] == pytest.approx([0.6, 0.2, 0.2])


@pytest.mark.parametrize(
    ("q", "weights"),
    [(0, [1 / 3, 1 / 3, 1 / 3]), (1, [0.8 / 2, 0.6 / 2, 0.6 / 2]), (2, [0.64 / 1.36, 0.36 / 1.36, 0.36 / 1.36])],
)
def test_weights_are_powers_of_the_accuracies(q: float, weights: list[float]) -> None:
    assert committee.va_expo_weights(np.array([0.8, 0.6, 0.6]), q) == pytest.approx(weights)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(-50, 150))
def test_weights_always_sum_to_one(accuracies: list[float], q: float) -> None:
    weights = committee.va_expo_weights(np.array(accuracies), q)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()


def test_the_best_exponent_trusts_the_better_member_when_that_pays() -> None:
    right, wrong = [0.51, 0.49], [0.1, 0.9]
    labels = np.array([0, 0, 0, -1])
    members = np.array([[right, right, right, wrong], [right, wrong, wrong, wrong]])
    q = committee.best_exponent(members, labels)
    # 0.41 / 0.01 to 1 is what the first needs against the second, and its accuracy is three times as high.
    assert 3**q > 39 > 3 ** (q - 0.2)
    same = np.array([[right, right], [right, right]])
    assert committee.best_exponent(same, np.array([0, 0])) == 0


def test_the_loss_with_a_teacher_is_hintons() -> None:
    logits = np.zeros((1, 15), np.float32)
    labels = np.array([[1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]], np.float32)
    teacher = np.array([[3.0, *[0] * 7, *[0] * 7]], np.float32)
    loss = float(TwoHeadLoss(1.0, distill_weight=0.25, distill_temperature=2.0)(with_teacher(labels, teacher), logits))
    # A student that says nothing has the cross entropy log(classes) with any teacher.
    assert loss == pytest.approx((np.log(8) + np.log(7)) * (0.75 + 0.25 * 4), rel=1e-4)


def test_a_student_who_copies_the_teacher_has_no_gradient() -> None:
    teacher = np.random.default_rng(0).normal(0, 2, (4, 15)).astype(np.float32)
    labels = np.zeros((4, 17), np.float32)
    loss = TwoHeadLoss(1.0, distill_weight=1.0, distill_temperature=3.0)
    at = float(loss(with_teacher(labels, teacher), teacher))
    for change in np.random.default_rng(1).normal(0, 0.1, (5, 4, 15)).astype(np.float32):
        assert float(loss(with_teacher(labels, teacher), teacher + change)) > at


@pytest.fixture(scope="module")
def teachers(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        recipe = folder / f"tiny{seed}.toml"
        recipe.write_text(RECIPE.format(seed=seed))
        arguments = ["train", "--recipe", str(recipe), "--data", str(data), "--run", str(folder / f"tiny{seed}")]
        assert main(arguments) == 0
    return [folder / "tiny1", folder / "tiny2"]


@pytest.fixture(scope="module")
def cache(data: Path, teachers: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache") / "committee.npz"
    members = [argument for run in teachers for argument in ("--teacher", str(run))]
    assert main(["teach", *members, "--data", str(data), "--views", "3", "-o", str(path)]) == 0
    return path


def test_weights_are_averaged_by_their_share(
    data: Path, teachers: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["average", "--of", str(teachers[0]), "--and", str(teachers[1]), "--data", str(data)]
    run = tmp_path / "between"
    assert main([*arguments, "--share", "0.25", "--run", str(run)]) == 0
    first, second, between = (
        keras.models.load_model(folder / "model.keras").get_weights() for folder in (*teachers, run)
    )
    for a, b, c in zip(first, second, between, strict=True):
        assert c == pytest.approx(0.75 * a + 0.25 * b, abs=1e-6)
    assert json.loads((run / "run.json").read_text())["share"] == 0.25
    capsys.readouterr()
    assert main([*arguments, "--share", "0.25", "--run", str(run)]) == 78
    assert "not empty" in capsys.readouterr().err
    assert main([*arguments, "--share", "2", "--run", str(tmp_path / "other")]) == 78
    assert "--share must be 0 to 1" in capsys.readouterr().err


def test_the_cache_holds_the_committees_probabilities(cache: Path, data: Path, teachers: list[Path]) -> None:
    training = datasets.load(data)["Training"]
    logits, facts = committee.load_cache(cache, training)
    assert (facts["teachers"], facts["views"]) == (["tiny1", "tiny2"], 3)
    assert logits.shape == (140, 15)
    assert np.exp(logits[:, :8]).sum(axis=1) == pytest.approx(1, abs=0.01)
    # The mean over views cannot be far from what the members say of the picture itself.
    said = [keras.models.load_model(run / "model.keras").predict(training.images, verbose=0) for run in teachers]
    agree = logits[:, 8:].argmax(axis=1) == np.mean(said, axis=0)[:, 8:].argmax(axis=1)
    assert agree.mean() > 0.8


def test_a_student_learns_from_the_cache_and_begins_with_a_teacher(
    cache: Path, data: Path, teachers: list[Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "student.toml"
    text = RECIPE.format(seed=3).replace("[optimizer]", "[distill]\nweight = 0.5\n[optimizer]\naverage = 0.9")
    recipe.write_text(text)
    start = teachers[0] / "model.keras"
    arguments = ["train", "--recipe", str(recipe), "--data", str(data), "--run", str(tmp_path / "run")]
    assert main([*arguments, "--cache", str(cache), "--begin-with", str(start)]) == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["committee"]["teachers"] == ["tiny1", "tiny2"]
    assert len(facts["began_with"]) == 64
    before = json.loads((teachers[0] / "run.json").read_text())["public_test"]["ferplus"]["accuracy"]
    assert facts["public_test"]["ferplus"]["accuracy"] >= before
    # The exported network is the averaged one.
    exported, averaged = (
        keras.models.load_model(tmp_path / "run" / name).get_weights() for name in ("model.keras", "averaged.keras")
    )
    assert all(np.array_equal(a, b) for a, b in zip(exported, averaged, strict=True))


def test_a_committee_in_the_network_says_the_weighted_mean_and_does_not_learn(
    teachers: list[Path], data: Path, tmp_path: Path
) -> None:
    validation = datasets.load(data)["PublicTest"]
    members, facts = committee.gather(teachers, load_recipe(teachers[0] / "recipe.toml"), validation)
    said = [models.load(run / "model.keras").predict(validation.images, verbose=0) for run in teachers]
    chances = [np.exp(one[:, 8:]) / np.exp(one[:, 8:]).sum(axis=1, keepdims=True) for one in said]
    expected = np.tensordot(facts["weights"]["fer2013"], chances, axes=1)
    logits = keras.ops.convert_to_numpy(members(validation.images.astype(np.float32), training=True))
    assert np.exp(logits[:, 8:]) == pytest.approx(expected, abs=1e-3)

    pixels = keras.Input((48, 48, 1))
    assert not keras.Model(pixels, members(pixels)).trainable_variables


def test_a_student_asks_its_teachers_about_what_it_sees_and_goes_on(
    teachers: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "student.toml"
    text = RECIPE.format(seed=3).replace("[optimizer]", "[distill]\nweight = 0.5\n[optimizer]\naverage = 0.9")
    recipe.write_text(text.replace("[model]", "mixup = 0.2\n[model]"))
    arguments = ["train", "--recipe", str(recipe), "--data", str(data), "--run", str(tmp_path / "run")]
    arguments += [argument for run in teachers for argument in ("--teacher", str(run))]

    class CutOff(training_loop.EpochLog):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            super().on_epoch_end(epoch, logs)
            if epoch == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "EpochLog", CutOff)
        assert main(arguments) == 130
    assert main([*arguments, "--resume"]) == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert list(facts["committee"]["teachers"]) == ["tiny1", "tiny2"]
    assert models.load(tmp_path / "run" / "model.keras").output_shape == (None, 15)


def test_teachers_see_the_face_without_the_noise_of_the_camera(teachers: list[Path], data: Path) -> None:
    recipe = load_recipe(teachers[0] / "recipe.toml", ["distill.weight=0.5", "augment.noise=30.0", "augment.blur=0.5"])
    members, _ = committee.gather(teachers, recipe, datasets.load(data)["PublicTest"])
    still = ["rotation_deg", "scale", "shift", "brightness", "contrast"]
    augment = dataclasses.replace(recipe.augment, **dict.fromkeys(still, 0.0))  # type: ignore[arg-type]
    network = training_loop.build(dataclasses.replace(recipe, augment=augment), 1, committee=members)
    flat = np.full((4, 48, 48, 1), 100, np.float32)  # the same when it is mirrored
    said = keras.ops.convert_to_numpy(network(flat, training=True))
    assert said[:, 15:] == pytest.approx(keras.ops.convert_to_numpy(members(flat)), abs=1e-4)
    assert len(np.unique(said[:, :15].round(4), axis=0)) == 4


def test_an_answer_about_mixed_pictures_is_not_mixed_again() -> None:
    random = np.random.default_rng(0)
    labels, share = np.zeros((2, 17), np.float32), np.array([[0.3], [0.8]], np.float32)
    labels[[0, 1], [2, 3]] = labels[:, [8, 9, 16]] = 1
    logits, answers = random.normal(size=(2, 2, 15)).astype(np.float32)
    settings = {"distill_weight": 0.5, "distill_temperature": 2.0}
    asked = TwoHeadLoss(1.0, **settings, asked=True, mixed=True)(labels, np.column_stack([logits, answers, share]))
    plain = TwoHeadLoss(1.0, mixed=True)(labels, np.column_stack([logits, share]))
    only = TwoHeadLoss(1.0, distill_weight=1.0, distill_temperature=2.0)(with_teacher(labels, answers), logits)
    assert float(asked) == pytest.approx(0.5 * float(plain) + 0.5 * float(only), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "extra", "code", "message"),
    [
        ("", ["--cache", "{cache}"], 78, "leave --cache and --teacher out"),
        ("", ["--teacher", "{run}"], 78, "leave --cache and --teacher out"),
        ("[distill]\nweight = 0.5\n", [], 78, "give its teacher with --cache or with --teacher"),
        ("[distill]\nweight = 0.5\n", ["--cache", "{cache}", "--teacher", "{run}"], 78, "not with both"),
        ("[distill]\nweight = 0.5\n", ["--teacher", "{none}"], 66, "No "),
        ('[distill]\nweight = 0.5\n[data]\nalign = "eyes"\n', ["--teacher", "{run}"], 78, "other rows than tiny"),
        ("[distill]\nweight = 1.5\n", ["--cache", "{cache}"], 78, "must be 0 to 1"),
        ("[distill]\nweight = 0.5\n", ["--cache", "{none}"], 66, "training teach"),
        ("", ["--begin-with", "{none}"], 66, "No "),
        ("", ["--begin-with", "{cache}"], 65, "not a Keras model"),
        ("[model]\nstages = [[9, 2]]\n", ["--begin-with", "{teacher}"], 78, "other layers"),
    ],
)
def test_what_does_not_go_together_is_refused(
    change: str,
    extra: list[str],
    code: int,
    message: str,
    cache: Path,
    data: Path,
    teachers: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = RECIPE.format(seed=3)
    if "[model]" in change:
        text = text.replace("[model]\nstages = [[8, 2], [16, 2], [16, 2]]\n", change)
    else:
        text += change
    recipe = tmp_path / "student.toml"
    recipe.write_text(text)
    names = {"cache": cache, "none": tmp_path / "none", "teacher": teachers[0] / "model.keras", "run": teachers[0]}
    arguments = ["train", "--recipe", str(recipe), "--data", str(data), "--run", str(tmp_path / "run")]
    assert main([*arguments, *(one.format(**names) for one in extra)]) == code
    error = capsys.readouterr().err
    assert message in error.replace("\n", " ")
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_cache_of_other_rows_or_no_cache_is_refused(cache: Path, data: Path, tmp_path: Path) -> None:
    training = datasets.load(data)["Training"]
    with pytest.raises(DataError, match="other Training rows"):
        committee.load_cache(cache, training[1:])
    (tmp_path / "x.npz").write_bytes(cache.read_bytes()[:300])
    with pytest.raises(DataError, match="is not what"):
        committee.load_cache(tmp_path / "x.npz", training)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"views": 0}, EdgeFerError),
        ({"teachers": [Path("nowhere")]}, InputMissingError),
    ],
)
def test_a_committee_that_cannot_be(
    arguments: dict[str, object], error: type[EdgeFerError], data: Path, teachers: list[Path], tmp_path: Path
) -> None:
    settings = {"teachers": teachers, "data_folder": data, "views": 1, "seed": 1, "out": tmp_path / "x.npz"}
    with pytest.raises(error):
        committee.teach(**{**settings, **arguments})  # type: ignore[arg-type]
