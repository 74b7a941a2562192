"""A teacher ensemble is fused as its rules say, and a student is distilled from its logits, cached or online."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labeled import HEADS

import datasets
from edge_fer.errors import DataError, EdgeFerError, InputMissingError
from training import cached_logits, ensemble, models
from training import loop as training_loop
from training.__main__ import main
from training.recipe import AugmentRecipe, DataRecipe, load_recipe

MEMBERS = np.array([[[0.6, 0.3, 0.1]], [[0.6, 0.1, 0.3]], [[0.0, 1.0, 0.0]]])  # three members, one image


def test_majority_counts_votes() -> None:
    assert ensemble.majority(MEMBERS)[0] == pytest.approx([2 / 3, 1 / 3, 0])


def test_averages_count_probabilities() -> None:
    assert ensemble.weighted_average(MEMBERS, np.full(3, 1 / 3))[0] == pytest.approx([0.4, 1.4 / 3, 0.4 / 3])
    assert ensemble.weighted_average(MEMBERS, np.array([0.5, 0.5, 0.0]))[0] == pytest.approx([0.6, 0.2, 0.2])


@pytest.mark.parametrize(
    ("q", "weights"),
    [(0, [1 / 3, 1 / 3, 1 / 3]), (1, [0.8 / 2, 0.6 / 2, 0.6 / 2]), (2, [0.64 / 1.36, 0.36 / 1.36, 0.36 / 1.36])],
)
def test_weights_are_powers_of_the_accuracies(q: float, weights: list[float]) -> None:
    assert ensemble.va_expo_weights(np.array([0.8, 0.6, 0.6]), q) == pytest.approx(weights)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(-50, 150))
def test_weights_always_sum_to_one(accuracies: list[float], q: float) -> None:
    weights = ensemble.va_expo_weights(np.array(accuracies), q)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()


def test_the_best_exponent_trusts_the_better_member_when_that_pays() -> None:
    right, wrong = [0.51, 0.49], [0.1, 0.9]
    labels = np.array([0, 0, 0, -1])
    members = np.array([[right, right, right, wrong], [right, wrong, wrong, wrong]])
    q = ensemble.best_exponent(members, labels)
    # 0.41 / 0.01 to 1 is what the first needs against the second, and its accuracy is three times as high.
    assert 3**q > 39 > 3 ** (q - 0.2)
    same = np.array([[right, right], [right, right]])
    assert ensemble.best_exponent(same, np.array([0, 0])) == 0


@pytest.fixture(scope="module")
def teacher_logits(
    data: Path, runs: list[Path], call: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("logits") / "teachers.npz"
    members = [argument for run in runs for argument in ("--teacher", run)]
    assert call(main, "cache-logits", *members, "--data", data, "--views", "2", "-o", path).code == 0
    return path


@pytest.mark.trains
def test_weights_are_interpolated_by_alpha(
    data: Path, runs: list[Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    arguments = ["interpolate", "--of", runs[0], "--and", runs[1], "--data", data]
    run = tmp_path / "between"
    assert call(main, *arguments, "--alpha", "0.25", "--run", run).code == 0
    first, second, between = (keras.models.load_model(folder / "model.keras").get_weights() for folder in (*runs, run))
    for a, b, c in zip(first, second, between, strict=True):
        assert c == pytest.approx(0.75 * a + 0.25 * b, rel=1e-5, abs=1e-6)
    assert json.loads((run / "run.json").read_text())["alpha"] == 0.25
    again = call(main, *arguments, "--alpha", "0.25", "--run", run)
    wrong = call(main, *arguments, "--alpha", "2", "--run", tmp_path / "other")
    assert (again.code, wrong.code) == (78, 78)
    assert "not empty" in again.err
    assert "--alpha must be 0 to 1" in wrong.err


@pytest.mark.trains
def test_teachers_are_not_weighed_by_labels_that_are_not_there(
    unrated: Path, runs: list[Path], recipe: Callable[..., Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    teacher, out, run = ("--teacher", runs[0], "--data", unrated), tmp_path / "teachers.npz", tmp_path / "run"
    cached = call(main, "cache-logits", *teacher, "--views", "1", "-o", out)
    online = call(main, "train", *teacher, "--recipe", recipe({"distill.weight": 0.5}), "--run", run)
    for refused in (cached, online):
        assert (refused.code, "Traceback" in refused.err) == (65, False)
        assert "No PublicTest sample has a label of ferplus" in refused.err.replace("\n", " ")
    assert not out.exists() and not run.exists()


def chances(logits: np.ndarray) -> np.ndarray:
    """Probabilities of both heads, side by side."""
    heads = [np.exp(part) / np.exp(part).sum(axis=1, keepdims=True) for part in (logits[:, :8], logits[:, 8:])]
    return np.column_stack(heads)


@pytest.mark.trains
def test_the_cached_logits_are_the_ensembles(teacher_logits: Path, data: Path, runs: list[Path]) -> None:
    splits = datasets.load(data)
    training, cached = splits["Training"], cached_logits.load_logits(teacher_logits, splits, DataRecipe())
    (logits,), facts = cached.logits, cached.facts
    assert (facts["teachers"], facts["views"]) == (["tiny1", "tiny2"], 2)
    # The mean over both views, the image and its mirror image, weighed by teacher and head.
    heads = ("ferplus", "fer2013")
    weights = [np.repeat([facts["weights"][head][place] for head in heads], [8, 7]) for place in (0, 1)]
    expected = np.zeros((140, 15))
    for run, weight in zip(runs, weights, strict=True):
        for view in (training.images, training.images[:, :, ::-1]):
            expected += weight * chances(models.load(run / "model.keras").predict(view, verbose=0)) / 2
    assert np.exp(logits) == pytest.approx(expected, abs=0.01)  # float16


def test_further_views_are_changed_each_in_its_own_way(data: Path) -> None:
    images = datasets.load(data)["Training"].images
    same, mirrored, *changed = cached_logits._views(images, 4, 1, AugmentRecipe())
    assert np.array_equal(same, images)
    assert np.array_equal(mirrored, images[:, :, ::-1])
    assert len(changed) == 2
    assert all(view.shape == images.shape and np.abs(view - images).mean() > 1 for view in changed)
    assert np.abs(changed[0] - changed[1]).mean() > 1


@pytest.mark.trains
def test_a_student_says_what_the_soft_targets_say_and_not_the_labels(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    """The soft targets know one class alone in each head: contempt, which no label has, and fear."""
    training = datasets.load(data)["Training"]
    logits = np.full((len(training), 15), -10, np.float16)
    logits[:, [7, 8 + 2]] = 0
    facts = {"teachers": ["one"], "data_sha256": training.sha256}
    np.savez(tmp_path / "teachers.npz", logits=logits, facts=json.dumps(facts))
    path = recipe({"epochs": 6, "distill.weight": 1.0, "optimizer.learning_rate": 0.05})
    arguments = ["train", "--recipe", path, "--data", data, "--run", tmp_path / "run"]
    assert call(main, *arguments, "--teacher-logits", tmp_path / "teachers.npz").code == 0
    student = models.load(tmp_path / "run" / "model.keras")
    said = chances(student.predict(datasets.load(data)["PublicTest"].images, verbose=0))
    assert said[:, [7, 8 + 2]].mean() > 0.5  # an ensemble that knows nothing would have made it 0.13
    assert json.loads((tmp_path / "run" / "run.json").read_text())["teacher"] == facts


@pytest.mark.trains
def test_a_student_is_initialized_from_a_teacher(
    teacher_logits: Path,
    data: Path,
    runs: list[Path],
    recipe: Callable[..., Path],
    call: Callable[..., Any],
    tmp_path: Path,
) -> None:
    still = {"epochs": 1, "optimizer.learning_rate": 1e-9, "optimizer.warmup_epochs": 0}
    path = recipe({"distill.weight": 0.5, **still})
    arguments = ["train", "--recipe", path, "--data", data, "--teacher-logits", teacher_logits]
    start, run = runs[0] / "model.keras", tmp_path / "run"
    assert call(main, *arguments, "--init-from", start, "--run", run).code == 0
    facts = json.loads((run / "run.json").read_text())
    assert facts["teacher"]["teachers"] == ["tiny1", "tiny2"]
    assert len(facts["init_from"]) == 64
    teacher, student = models.load(start), models.load(run / "model.keras")
    for a, b in zip(teacher.trainable_variables, student.trainable_variables, strict=True):
        assert np.array(b) == pytest.approx(np.array(a), abs=1e-6)


@pytest.mark.trains
def test_an_ensemble_in_the_network_says_the_weighted_mean_and_does_not_learn(
    runs: list[Path], data: Path, tmp_path: Path
) -> None:
    validation = datasets.load(data)["PublicTest"]
    members, facts = ensemble.gather(runs, load_recipe(runs[0] / "recipe.toml"), validation)
    said = [models.load(run / "model.keras").predict(validation.images, verbose=0) for run in runs]
    chances = [np.exp(one[:, 8:]) / np.exp(one[:, 8:]).sum(axis=1, keepdims=True) for one in said]
    expected = np.tensordot(facts["weights"]["fer2013"], chances, axes=1)
    logits = keras.ops.convert_to_numpy(members(validation.images.astype(np.float32), training=True))
    assert np.exp(logits[:, 8:]) == pytest.approx(expected, abs=1e-3)

    pixels = keras.Input((48, 48, 1))
    assert not keras.Model(pixels, members(pixels)).trainable_variables


@pytest.mark.trains
def test_online_distillation_is_of_what_the_student_sees_and_goes_on(
    runs: list[Path],
    data: Path,
    recipe: Callable[..., Path],
    call: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = recipe({"epochs": 2, "mixup": 0.2, "distill.weight": 0.5, "optimizer.ema": 0.9})
    arguments = ["train", "--recipe", path, "--data", data, "--run", tmp_path / "run"]
    arguments += [argument for run in runs for argument in ("--teacher", run)]

    class CutOff(training_loop.EpochLog):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            super().on_epoch_end(epoch, logs)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "EpochLog", CutOff)
        assert call(main, *arguments).code == 130
    assert call(main, *arguments, "--resume").code == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert list(facts["teacher"]["teachers"]) == ["tiny1", "tiny2"]
    # The exported network is the EMA.
    exported, ema = (models.load(tmp_path / "run" / name).get_weights() for name in ("model.keras", "ema.keras"))
    assert all(np.array_equal(a, b) for a, b in zip(exported, ema, strict=True))


@pytest.mark.trains
def test_teachers_see_the_face_without_the_noise_of_the_camera(runs: list[Path], data: Path) -> None:
    recipe = load_recipe(runs[0] / "recipe.toml", ["distill.weight=0.5", "augment.noise=30.0", "augment.blur=0.5"])
    members, _ = ensemble.gather(runs, recipe, datasets.load(data)["PublicTest"])
    still = ["rotation_deg", "scale", "shift", "brightness", "contrast"]
    augment = dataclasses.replace(recipe.augment, **dict.fromkeys(still, 0.0))  # type: ignore[arg-type]
    network = training_loop.build(dataclasses.replace(recipe, augment=augment), HEADS, 1, ensemble=members)
    flat = np.full((4, 48, 48, 1), 100, np.float32)  # the same when it is mirrored
    said = {name: keras.ops.convert_to_numpy(each) for name, each in network(flat, training=True).items()}
    assert said["teacher"] == pytest.approx(keras.ops.convert_to_numpy(members(flat)), abs=1e-4)
    assert len(np.unique(said["logits"].round(4), axis=0)) == 4


@pytest.mark.parametrize(
    ("changes", "extra", "code", "message"),
    [
        ({}, ["--teacher-logits", "{logits}"], 78, "leave --teacher-logits and --teacher out"),
        ({}, ["--teacher", "{run}"], 78, "leave --teacher-logits and --teacher out"),
        ({"distill.weight": 0.5}, [], 78, "give --teacher-logits or --teacher"),
        ({"distill.weight": 0.5}, ["--teacher-logits", "{logits}", "--teacher", "{run}"], 78, "one of the two"),
        ({"distill.weight": 0.5}, ["--teacher", "{none}"], 66, "No "),
        ({"distill.weight": 0.5, "data.alignment": "eyes"}, ["--teacher", "{run}"], 78, "other samples than tiny"),
        ({"distill.weight": 1.5}, ["--teacher-logits", "{logits}"], 78, "must be 0 to 1"),
        ({"distill.weight": 0.5}, ["--teacher-logits", "{none}"], 66, "training cache-logits"),
        ({}, ["--init-from", "{none}"], 66, "No "),
        ({}, ["--init-from", "{logits}"], 65, "not a Keras model"),
        ({"model.stages": [[9, 2]]}, ["--init-from", "{run}/model.keras"], 78, "other layers"),
    ],
)
def test_what_does_not_go_together_is_refused(
    changes: dict[str, object],
    extra: list[str],
    code: int,
    message: str,
    teacher_logits: Path,
    data: Path,
    runs: list[Path],
    recipe: Callable[..., Path],
    call: Callable[..., Any],
    tmp_path: Path,
) -> None:
    names = {"logits": teacher_logits, "none": tmp_path / "none", "run": runs[0]}
    arguments = ["train", "--recipe", recipe(changes), "--data", data, "--run", tmp_path / "run"]
    refused = call(main, *arguments, *(one.format(**names) for one in extra))
    assert refused.code == code
    assert message in refused.err.replace("\n", " ")
    assert "Traceback" not in refused.err
    assert not (tmp_path / "run").exists()


def test_logits_of_other_samples_or_broken_ones_are_refused(teacher_logits: Path, data: Path, tmp_path: Path) -> None:
    splits = datasets.load(data)
    with pytest.raises(DataError, match="made from other samples"):
        cached_logits.load_logits(teacher_logits, {"Training": splits["Training"][1:]}, DataRecipe())
    (tmp_path / "x.npz").write_bytes(teacher_logits.read_bytes()[:300])
    np.savez(tmp_path / "y.npz", logits=np.zeros(3), facts="{}")
    for name in ("x", "y"):
        with pytest.raises(DataError, match="is not what"):
            cached_logits.load_logits(tmp_path / f"{name}.npz", splits, DataRecipe())


def test_what_a_teacher_says_of_a_face_holds_for_the_face_in_other_light(
    teacher_logits: Path, data: Path, tmp_path: Path
) -> None:
    lit, other = (datasets.load(data, illumination=(one,)) for one in ("log", "gamma"))
    cached = cached_logits.load_logits(teacher_logits, lit, DataRecipe())
    assert np.array_equal(cached.logits, cached_logits.load_logits(teacher_logits, other, DataRecipe()).logits)
    # Images that were cached with the logits are in the light that the teacher saw.
    with np.load(teacher_logits) as file:
        np.savez(tmp_path / "logits.npz", logits=file["logits"][None], facts=file["facts"])
    np.save(tmp_path / "views.npy", datasets.load(data)["Training"].images[None])
    cached_logits.load_logits(tmp_path / "logits.npz", datasets.load(data), DataRecipe())
    with pytest.raises(DataError, match="made from other samples"):
        cached_logits.load_logits(tmp_path / "logits.npz", lit, DataRecipe())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"views": 0}, EdgeFerError),
        ({"teachers": [Path("nowhere")]}, InputMissingError),
    ],
)
def test_an_ensemble_that_cannot_be(
    arguments: dict[str, object], error: type[EdgeFerError], data: Path, runs: list[Path], tmp_path: Path
) -> None:
    settings = {"teachers": runs, "data_folder": data, "views": 1, "seed": 1, "out": tmp_path / "x.npz"}
    with pytest.raises(error):
        cached_logits.cache_logits(**{**settings, **arguments})  # type: ignore[arg-type]
