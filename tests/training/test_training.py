"""Training by recipe, on data that a tiny network learns in seconds."""

from __future__ import annotations

import csv
import errno
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from edge_fer.core import Expression
from edge_fer.errors import ConfigError, InputMissingError
from evaluation import datasets
from training import models
from training.__main__ import main
from training.augmentation import Augment, Camera
from training.losses import TwoHeadLoss, targets
from training.recipe import Recipe, load_recipe
from training.train import build

RECIPES = Path(__file__).parents[2] / "training" / "recipes"
RECIPE = """
name = "tiny"
epochs = 6
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


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def run(data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "--recipe", str(recipe), "--data", str(data), "--run", str(folder)]) == 0
    return folder


def augment(**settings: float) -> Augment:
    nothing = {"rotation_deg": 0, "scale": 0, "shift": 0, "brightness": 0, "contrast": 0, "cutout_px": 0}
    return Augment(**{**nothing, "seed": 1, **settings})  # type: ignore[arg-type]


PICTURES = np.random.default_rng(0).integers(0, 256, (64, 48, 48, 1)).astype(np.float32)


def test_augmentation_is_for_training_alone() -> None:
    for layer in (augment(rotation_deg=20, cutout_px=10), Camera(noise=12, blur=1, seed=1)):
        assert np.array_equal(layer(PICTURES, training=False), PICTURES)


def test_without_any_change_pictures_are_mirrored_or_left() -> None:
    changed = np.asarray(augment()(PICTURES, training=True))
    same = [np.allclose(new, old, atol=0.6) for new, old in zip(changed, PICTURES, strict=True)]
    mirrored = [np.allclose(new, old[:, ::-1], atol=0.6) for new, old in zip(changed, PICTURES, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert 15 < sum(same) < 49


@pytest.mark.parametrize("change", [{"rotation_deg": 15}, {"scale": 0.2}, {"shift": 0.1}, {"contrast": 0.4}])
def test_every_change_keeps_the_range_and_differs_by_picture(change: dict[str, float]) -> None:
    ramp = np.tile(np.linspace(0, 255, 48, dtype=np.float32)[:, np.newaxis, np.newaxis], (64, 1, 48, 1))
    changed = np.asarray(augment(**change)(ramp, training=True))
    assert changed.shape == ramp.shape
    assert changed.min() >= 0
    assert changed.max() <= 255.01
    assert len({picture.tobytes() for picture in changed}) > 50


def test_the_scale_is_about_the_centre() -> None:
    dot = np.zeros((64, 49, 49, 1), np.float32)
    dot[:, 24, 24] = 255
    changed = np.asarray(augment(rotation_deg=30, scale=0.2)(dot, training=True))
    assert (changed[:, 24, 24, 0] > 250).all()


def test_cutout_covers_a_square_in_half_of_the_pictures() -> None:
    changed = np.asarray(augment(cutout_px=12)(PICTURES, training=True))
    means = PICTURES.mean(axis=(1, 2, 3), keepdims=True)
    covered = (np.abs(changed - means) < 0.01).sum(axis=(1, 2, 3))
    assert 15 < (covered > 20).sum() < 49
    assert covered.max() <= 13 * 13 + 20


def test_noise_has_the_deviation_it_says_and_each_picture_its_own() -> None:
    flat = np.full((64, 48, 48, 1), 128, np.float32)
    deviations = np.asarray(Camera(noise=12, blur=0, seed=1)(flat, training=True)).std(axis=(1, 2, 3))
    assert 10 < deviations.max() < 12.5
    assert deviations.min() < 2
    assert 4.5 < deviations.mean() < 7.5


def test_blur_takes_detail_and_keeps_the_mean() -> None:
    changed = np.asarray(Camera(noise=0, blur=1, seed=1)(PICTURES, training=True))
    left = changed[:, 2:-2, 2:-2].std(axis=(1, 2, 3)) / PICTURES[:, 2:-2, 2:-2].std(axis=(1, 2, 3))
    assert 0.3 < left.min() < 0.5  # the mean of nine has a third of the deviation
    assert left.max() > 0.85
    assert changed.mean() == pytest.approx(PICTURES.mean(), rel=0.02)


def test_augmentation_follows_its_seed_and_is_saved() -> None:
    for first in (augment(rotation_deg=10, seed=5), Camera(noise=12, blur=1, seed=5)):
        again = type(first).from_config(first.get_config())
        assert np.array_equal(first(PICTURES, training=True), again(PICTURES, training=True))


def test_the_loss_is_the_cross_entropy_of_both_heads() -> None:
    logits = np.log(np.array([[*[1 / 8] * 8, *[1 / 7] * 7]], np.float32))
    votes = [0.5, 0.5, 0, 0, 0, 0, 0, 0]
    one_hot = [1, 0, 0, 0, 0, 0, 0]
    both = TwoHeadLoss(ferplus_weight=2.0)(np.array([[*votes, 1, *one_hot, 1]], np.float32), logits)
    assert float(both) == pytest.approx(2 * np.log(8) + np.log(7), rel=1e-4)
    one = TwoHeadLoss(ferplus_weight=2.0)(np.array([[*votes, 0, *one_hot, 1]], np.float32), logits)
    assert float(one) == pytest.approx(np.log(7), rel=1e-4)


def test_targets(data: Path) -> None:
    rows = targets(datasets.load(data)["Training"], label_smoothing=0.7)
    assert rows.shape == (140, 17)
    anger = list(models.HEADS[0].labels).index(Expression.ANGER)
    assert rows[0, :8].tolist() == [1.0 if place == anger else 0.0 for place in range(8)]
    assert rows[0, 9:16] == pytest.approx([0.4, *[0.1] * 6])
    assert rows[:, [8, 16]].min() == 1


def test_the_network_takes_pixels_and_starts_with_rescaling() -> None:
    model = models.build_plain([[4, 2]], dropout=0.0)
    assert isinstance(model.layers[1], keras.layers.Rescaling)
    assert (model.input_shape, model.output_shape) == ((None, 48, 48, 1), (None, 15))


def test_a_run_says_all_about_itself(run: Path, data: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {
        *("recipe.toml", "run.json", "history.csv", "curves.png", "checkpoint.keras", "model.keras", "model.toml"),
        "evaluation",
    }
    facts = json.loads((run / "run.json").read_text())
    splits = datasets.load(data)
    assert facts["data_sha256"] == {name: split.sha256 for name, split in splits.items()}
    assert facts["seed"] == 1
    assert facts["public_test"]["fer2013"]["n"] == 42
    assert facts["public_test"]["ferplus"]["accuracy"] > 0.5  # chance is a seventh
    with (run / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5", "6"]


def test_the_model_has_no_augmentation(run: Path) -> None:
    model = keras.models.load_model(run / "model.keras")
    assert not any(isinstance(layer, Augment) for layer in model.layers)


def test_a_run_that_was_cut_off_goes_on(
    data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import train as module

    class CutOff(module.EpochLog):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            super().on_epoch_end(epoch, logs)
            if epoch == 2:
                raise KeyboardInterrupt

    arguments = ["train", "--recipe", str(recipe), "--data", str(data), "--run", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(module, "EpochLog", CutOff)
        assert main(arguments) == 130
    assert not (tmp_path / "run" / "model.keras").exists()
    assert main([*arguments, "--resume"]) == 0
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"].removesuffix(".0") for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["resumed"] is True


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--recipe", str(recipe), "--data", str(data), "--run", str(run)]
    save, saved = keras.Model.save, []

    def save_until_full(self: keras.Model, path: Path, **settings: object) -> None:
        saved.append(path)
        if len(saved) == 3:
            Path(path).write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(self, path, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", save_until_full)
        assert main(arguments) == 74
    error = capsys.readouterr().err
    assert "No space left on device. Make room, and go on with --resume." in error
    assert "Traceback" not in error
    assert [path.name for path in run.glob("*.keras")] == ["checkpoint.keras"]
    assert keras.models.load_model(run / "checkpoint.keras").optimizer.iterations.numpy() == 2 * 7
    assert main([*arguments, "--resume"]) == 0


def test_a_run_is_resumed_with_its_own_recipe(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(RECIPE.replace("epochs = 6", "epochs = 7"))
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert main(["train", "--recipe", str(other), "--data", str(data), "--run", str(copy), "--resume"]) == 78
    assert "resumed with its own recipe" in capsys.readouterr().err


def test_a_run_folder_is_not_overwritten(
    run: Path, data: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--recipe", str(recipe), "--data", str(data), "--run", str(run)]) == 78
    assert "not empty" in capsys.readouterr().err
    assert main(["train", "--recipe", str(recipe), "--data", str(data), "--run", str(run / "x"), "--resume"]) == 66
    assert "no checkpoint.keras" in capsys.readouterr().err


def test_evaluate_prints_and_writes_the_figures(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--model", str(run / "model.keras"), "--data", str(data), "--out", str(tmp_path)]
    assert main(arguments) == 0
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures == json.loads((run / "run.json").read_text())["public_test"]
    assert (tmp_path / "confusion_ferplus.png").stat().st_size > 5000
    assert "42" in capsys.readouterr().out


def test_evaluate_refuses_what_is_no_model(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.keras").write_text("hello")
    assert main(["evaluate", "--model", str(tmp_path / "x.keras"), "--data", str(data)]) == 65
    assert main(["evaluate", "--model", str(tmp_path / "y.keras"), "--data", str(data)]) == 66
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_project_build(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    most = 3_000_000 if recipe.name in {"large", "t1", "t2", "t3", "t4"} else 500_000  # a teacher goes on no device
    assert build(recipe, steps_per_epoch=10).count_params() < most


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae = 'x'", "Did you mean 'name'"),
        ("name = 'x'", "'model' is missing"),
        ("name = 'x'\nepochs = 2\n[model]\nstages = [[8, 2]]\n", "more than warmup_epochs"),
        ("name = 'x'\n[model]\nstages = [[8, 'a']]\n", "'model.stages' must be a whole number"),
        ("= 3", "not valid TOML"),
    ],
)
def test_wrong_recipes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="training/recipes"):
        load_recipe(tmp_path / "none.toml")


def test_a_recipe_is_read_whole(recipe: Path) -> None:
    read = load_recipe(recipe)
    assert isinstance(read, Recipe)
    assert read.model.stages == [[8, 2], [16, 2], [16, 2]]
    assert read.augment.rotation_deg == 0.0
