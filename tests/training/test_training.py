"""Training by recipe: run folders, going on, evaluation, and all options together."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from faces_csv import pattern, write_csvs
from labeled import HEADS

import datasets
from datasets.landmarks_file import write_landmarks
from edge_fer.core import Expression as E
from edge_fer.core import Image
from edge_fer.model.bundle import load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.preprocess import Preprocessor, PreprocessSpec
from edge_fer.preprocess.alignment import Alignment
from edge_fer.recognizer import Recognizer
from evaluation import __main__ as evaluation
from export import edgetpu_rules, quantize
from export.flatbuffer import in_float, read_operators
from export.fold import fold_batch_norm
from export.load import load
from export.result import Export, Options
from training import loop, models
from training.__main__ import main
from training.augmentation import Augment
from training.callbacks.ema import WeightEMA
from training.recipe import OptimizerRecipe, load_recipe, read_table

# A network that was hardly trained, or not at all, has near ties that any rounding turns.
UNGATED = ["--max-drop", "100", "--min-agreement", "0"]


def test_a_run_says_all_about_itself(runs: list[Path], data: Path, seed: int) -> None:
    run = runs[0]
    names = {path.name for path in run.iterdir()}
    assert names == {
        *("recipe.toml", "run.json", "history.csv", "curves.png", "checkpoint.keras", "model.keras", "model.toml"),
        "evaluation",
    }
    facts = json.loads((run / "run.json").read_text())
    splits = datasets.load(data)
    assert facts["data_sha256"] == {name: split.sha256 for name, split in splits.items()}
    assert facts["samples"] == {"Training": 140, "PublicTest": 42}
    assert facts["seed"] == seed
    assert facts["public_test"]["fer2013"]["n"] == 42
    assert 0 <= facts["public_test"]["ferplus"]["accuracy"] <= 1
    assert [line["epoch"] for line in history(run)] == [1, 2, 3, 4]


def test_the_recipe_of_a_run_has_every_value(runs: list[Path], recipe: Callable[..., Path], seed: int) -> None:
    """Also those that nobody set: a run is what it is when defaults change."""
    written = read_table(runs[0] / "recipe.toml")
    everything = dataclasses.asdict(load_recipe(recipe({"name": "tiny1", "seed": seed})))
    assert written == json.loads(json.dumps(everything))  # TOML has no tuples either
    assert written["optimizer"]["weight_decay"] == OptimizerRecipe().weight_decay


def history(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open() as file:
        return [{key: float(value) for key, value in line.items()} for line in csv.DictReader(file)]


@pytest.mark.trains
def test_training_lowers_the_loss(data: Path, recipe: Callable[..., Path], call: Callable[..., Any]) -> None:
    path = recipe({"epochs": 6, "optimizer.learning_rate": 0.05})
    assert call(main, "train", "--recipe", path, "--data", data, "--run", path.parent / "run").code == 0
    losses = [line["loss"] for line in history(path.parent / "run")]
    # Who knows nothing has log 8 + log 7 = 4.0, and who knows how often each class comes 2 log 7 = 3.9.
    assert losses[-1] < 0.65 * losses[0]


@pytest.mark.trains
def test_the_ema_of_a_few_steps_is_what_was_trained_and_not_what_it_began_with(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    path = recipe({"epochs": 3, "batch_size": 70, "optimizer.ema": 0.9})  # six steps, fewer than from look to look
    assert call(main, "train", "--recipe", path, "--data", data, "--run", tmp_path / "run").code == 0
    trained, exported = (
        keras.models.load_model(tmp_path / "run" / name).get_weights() for name in ("checkpoint.keras", "ema.keras")
    )
    assert exported
    assert all(any(np.array_equal(one, other) for other in trained if other.shape == one.shape) for one in exported)


def follow(steps: int, of_epoch: int) -> tuple[keras.Model, keras.Model]:
    """A network after some steps, and the EMA of its weights."""
    keras.utils.set_random_seed(1)
    core = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    averaged = keras.models.clone_model(core)
    averaged.set_weights([np.zeros_like(one) for one in core.get_weights()])
    core.compile("sgd", "mse")
    samples = np.random.default_rng(0).normal(size=(of_epoch, 5)).astype(np.float32)
    ema = WeightEMA(core, averaged, decay=0.5)
    fit = {"batch_size": 1, "epochs": steps // of_epoch, "verbose": 0, "callbacks": [ema], "shuffle": False}
    core.fit(samples[:, :3], samples[:, 3:], **fit)
    return core, averaged


@pytest.mark.parametrize(("steps", "of_epoch", "share"), [(1, 1, 1.0), (6, 2, 1.0), (7, 7, 1.0), (8, 4, 1 - 0.5**8)])
def test_only_an_ema_that_saw_nothing_takes_the_last_weights(steps: int, of_epoch: int, share: float) -> None:
    core, averaged = follow(steps, of_epoch)
    for one, other in zip(core.get_weights(), averaged.get_weights(), strict=True):
        assert other == pytest.approx(share * one)


def test_the_model_has_no_augmentation(runs: list[Path]) -> None:
    model = keras.models.load_model(runs[0] / "model.keras")
    assert not any(isinstance(layer, Augment) for layer in model.layers)


def test_a_run_that_was_cut_off_goes_on(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutOff(loop.EpochLog):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            super().on_epoch_end(epoch, logs)
            if epoch == 1:
                raise KeyboardInterrupt

    arguments = ["train", "--recipe", recipe({"epochs": 3}), "--data", data, "--run", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "EpochLog", CutOff)
        assert call(main, *arguments).code == 130
    assert not (tmp_path / "run" / "model.keras").exists()
    assert call(main, *arguments, "--resume").code == 0
    assert [line["epoch"] for line in history(tmp_path / "run")] == [1, 2, 3]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["resumed"] is True


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--recipe", recipe({"epochs": 3}), "--data", data, "--run", run]
    save, saved = keras.Model.save, []

    def save_until_full(self: keras.Model, path: Path, **settings: object) -> None:
        saved.append(path)
        if len(saved) == 3:
            Path(path).write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(self, path, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", save_until_full)
        full = call(main, *arguments)
    assert full.code == 74
    assert "No space left on device. Make room, and go on with --resume." in full.err
    assert "Traceback" not in full.err
    assert [path.name for path in run.glob("*.keras")] == ["checkpoint.keras"]
    assert keras.models.load_model(run / "checkpoint.keras").optimizer.iterations.numpy() == 2 * 4
    assert call(main, *arguments, "--resume").code == 0


def test_a_run_is_resumed_with_its_own_recipe(
    runs: list[Path], recipe: Callable[..., Path], data: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(runs[0], copy)
    other = call(main, "train", "--recipe", recipe({"epochs": 7}), "--data", data, "--run", copy, "--resume")
    assert other.code == 78
    assert "resumed with its own recipe" in other.err


def test_a_run_folder_is_not_overwritten(
    runs: list[Path], recipe: Callable[..., Path], data: Path, call: Callable[..., Any]
) -> None:
    arguments = ["train", "--recipe", recipe(), "--data", data, "--run"]
    again, none = call(main, *arguments, runs[0]), call(main, *arguments, runs[0] / "x", "--resume")
    assert (again.code, none.code) == (78, 66)
    assert "not empty" in again.err
    assert "no checkpoint.keras" in none.err


def test_evaluate_prints_and_writes_the_metrics(
    runs: list[Path], data: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    done = call(main, "evaluate", "--model", runs[0] / "model.keras", "--data", data, "--out", tmp_path)
    assert done.code == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == json.loads((runs[0] / "run.json").read_text())["public_test"]
    assert (tmp_path / "confusion_ferplus.png").stat().st_size > 5000
    assert "42" in done.out


def test_evaluate_refuses_what_is_no_model(data: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "x.keras").write_text("hello")
    for name, code in (("x", 65), ("y", 66)):
        refused = call(main, "evaluate", "--model", tmp_path / f"{name}.keras", "--data", data)
        assert refused.code == code
        assert "Traceback" not in refused.err


@pytest.mark.parametrize("verb", ["qat", "fold", "interpolate", "cache-logits"])
def test_data_without_a_task_of_the_model_are_refused(
    verb: str, runs: list[Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    """Its logits of FER+ would be taken for those of FER2013."""
    write_csvs(tmp_path / "data", training=21, public=7, votes=False)
    arguments = {
        "qat": ["--model", runs[0] / "model.keras", "--recipe", runs[0] / "recipe.toml", "--run"],
        "fold": ["--of", runs[0], "--run"],
        "interpolate": ["--of", runs[0], "--and", runs[1], "--run"],
        "cache-logits": ["--teacher", runs[0], "-o"],
    }
    refused = call(main, verb, "--data", tmp_path / "data", *arguments[verb], tmp_path / "out")
    assert refused.code == 65
    assert "has other heads than the data set, which has fer2013" in refused.err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


# Other data


@pytest.mark.trains
def test_four_classes_in_folders_are_trained_exported_and_recognized(
    recipe: Callable[..., Path], call: Callable[..., Any], scene: Image, tmp_path: Path, chance: np.random.Generator
) -> None:
    """A data set of one's own, with other labels and no FER+, and no line of code for it."""
    classes = {"neutral": E.NEUTRAL, "happy": E.HAPPINESS, "sad": E.SADNESS, "surprised": E.SURPRISE}
    for split, count in (("train", 20), ("validation", 5)):
        for label, name in enumerate(classes):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                cv2.imwrite(str(tmp_path / "data" / split / name / f"{number}.png"), pattern(label, chance))
    path = recipe(
        {
            **{"epochs": 2, "label_smoothing": 0.1, "mixup": 0.2, "center": 0.01, "auxiliary_heads": 0.3},
            **{"class_balance.kind": "effective_number", "task_weights.expression": 2.0, "consistency": 1.0},
        }
    )
    run, out, arguments = tmp_path / "run", tmp_path / "four.tflite", ["--data", tmp_path / "data"]
    assert call(main, "train", "--recipe", path, *arguments, "--run", run).code == 0
    facts = json.loads((run / "run.json").read_text())
    assert (facts["samples"], facts["public_test"]["expression"]["n"]) == ({"Training": 80, "PublicTest": 20}, 20)
    assert len(history(run)) == 2
    assert call(quantize.main, run / "model.keras", *arguments, "-o", out, *UNGATED).code == 0
    (head,) = load_bundle(out).metadata.heads
    assert (head.name, set(head.labels)) == ("expression", set(classes.values()))
    logits = np.load(run / "evaluation" / "logits.npy")
    images = datasets.load(tmp_path / "data")["PublicTest"].images
    on_device = TfliteClassifier(load_bundle(out))
    said = np.stack([on_device.logits(image) for image in images])
    assert np.abs(said - logits).max() < 0.2 * np.ptp(logits)
    faces = Recognizer.load(out).recognize(scene).faces
    assert len(faces) == 2
    assert {face.expression for face in faces} <= set(classes.values())
    # As its authors' labels say, not by those of another data set.
    assert call(evaluation.main, "--model", out, *arguments, "--faces", "1", "--json", tmp_path / "x.json").code == 0
    measured = json.loads((tmp_path / "x.json").read_text())["clean"]["expression"]
    assert (measured["n"], set(measured["recall"])) == (20, {str(one) for one in classes.values()})


def test_further_faces_are_learned_with_cached_logits_of_others(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], runs: list[Path], tmp_path: Path
) -> None:
    for file in data.glob("*.csv"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "posed" / "angry").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "posed" / "angry" / "0.png"), pattern(1, np.random.default_rng(1)))
    logits, run = tmp_path / "logits.npz", tmp_path / "run"
    assert call(main, "cache-logits", "--teacher", runs[0], "--data", data, "--views", "1", "-o", logits).code == 0
    more = {"data.further": "posed", "data.further_times": 35, "distill.weight": 0.5, "epochs": 2}
    arguments = ["--recipe", recipe(more), "--data", tmp_path, "--teacher-logits", logits, "--run", run]
    done = call(main, "train", *arguments)
    assert done.code == 0
    assert "140 Training samples and 35 of posed" in " ".join(done.err.split())
    facts = json.loads((run / "run.json").read_text())
    assert facts["samples"] == {"Training": 140, "PublicTest": 42, "posed": 1}
    assert facts["data_sha256"]["posed"] == datasets.load(tmp_path, further="posed")["posed"].sha256
    gone = call(
        main, "train", "--recipe", recipe(more), "--data", data, "--teacher-logits", logits, "--run", tmp_path / "x"
    )
    assert (gone.code, "posed" in gone.err, "Traceback" in gone.err) == (66, True, False)


# All options together


@pytest.mark.trains
def test_all_options_together_train_resume_and_export(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], child: Callable[..., Any], tmp_path: Path
) -> None:
    """Trains in processes of their own: TensorFlow 2.21 with oneDNN died in branches on processors with AVX-512."""
    path = recipe(
        {
            **{"epochs": 2, "mixup": 0.2, "center": 0.01, "island": 1.0, "auxiliary_heads": 0.3, "model.repvgg": True},
            **{"optimizer.kind": "muon", "optimizer.ema": 0.9, "pretrain.epochs": 2, "consistency": 1.0},
        }
    )
    faces_run, run = tmp_path / "faces", tmp_path / "run"
    assert child("training", "pretrain", "--recipe", path, "--data", data, "--run", faces_run).code == 0
    assert len(json.loads((faces_run / "run.json").read_text())["error"]) == 2
    arguments = ["train", "--recipe", path, "--data", data, "--run", run, "--set"]
    assert child("training", *arguments, "seed=7", "--init-from", faces_run / "model.keras").code == 0
    facts = json.loads((run / "run.json").read_text())
    assert facts["seed"] == load_recipe(run / "recipe.toml").seed == 7
    assert facts["images_per_second"] > 0
    exported = models.load(run / "model.keras")
    assert exported.output_shape == (None, 15)
    assert facts["mmac"] == pytest.approx(models.mmac(exported), abs=1e-3)
    images = datasets.load(data)["PublicTest"].images
    expected = models.load(run / "multibranch.keras").predict(images, verbose=0)
    largest = float(np.abs(expected).max())
    assert exported.predict(images, verbose=0) == pytest.approx(expected, abs=1e-3 * largest)
    # As if it had been cut off behind the last epoch.
    (run / "model.keras").unlink()
    assert call(main, *arguments, "seed=7", "--resume").code == 0
    assert len(history(run)) == 2
    assert call(main, *arguments, "seed=8", "--resume").code == 78


def test_a_network_with_squeeze_excitation_becomes_int8_as_a_whole(
    data: Path, recipe: Callable[..., Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    run, folded, out = tmp_path / "run", tmp_path / "folded", tmp_path / "model.tflite"
    shutil.copytree(recipe({"model.squeeze_excitation": 4}).parent, run)
    (run / "tiny.toml").rename(run / "recipe.toml")
    models.build(load_recipe(run / "recipe.toml").model, 15).save(
        run / "model.keras"
    )  # untrained: operators count here
    (run / "model.toml").write_text(models.description("tiny", HEADS))
    assert call(quantize.main, run / "model.keras", "--data", data, "-o", out, *UNGATED).code == 0
    operators = read_operators(load_bundle(out).model)
    assert in_float(operators) == []
    assert call(main, "fold", "--of", run, "--data", data, "--run", folded).code == 0
    assert load_recipe(folded / "recipe.toml").model.squeeze_excitation == 0
    # What squeeze-and-excitation is made of: all that the Edge TPU maps.
    assert {"MEAN", "MUL"} <= {operator.name for operator in operators}
    assert [verdict for verdict in edgetpu_rules.check(operators) if verdict.obstacle] == []


def test_a_training_in_bfloat16_leaves_a_float32_model(
    data: Path, recipe: Callable[..., Path], child: Callable[..., Any], tmp_path: Path
) -> None:
    path, run = recipe({"epochs": 2, "precision": "bfloat16", "center": 0.01}), tmp_path / "run"
    core = models.core_of(loop.build(load_recipe(path), HEADS, 4), "plain")
    computes = {layer.compute_dtype for layer in core.layers}
    assert "bfloat16" in computes
    arguments = ["training", "train", "--recipe", path, "--data", data, "--run", run]
    assert child(*arguments).code == 0
    assert {layer.compute_dtype for layer in models.load(run / "model.keras").layers} == {"float32"}
    assert np.isfinite([line["loss"] for line in history(run)]).all()
    assert child(*arguments, "--resume").code == 0


@pytest.mark.parametrize("alignment", ["eyes", "five-points"])
def test_alignment_and_illumination_go_from_the_recipe_to_the_metadata(
    alignment: Alignment,
    data: Path,
    recipe: Callable[..., Path],
    call: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = shutil.copytree(data, tmp_path / "data")
    images = np.concatenate([split.images for split in datasets.load(data).values()])
    tilted = np.array([14, 20, 31, 16, 24, 28, 19, 37, 31, 34], np.float32)
    write_landmarks(data / "landmarks.npz", images, np.tile(tilted, (len(images), 1)))
    seen: list[PreprocessSpec] = []

    class Watched(Preprocessor):
        def __init__(self, spec: PreprocessSpec, size_hw: tuple[int, int]) -> None:
            super().__init__(spec, size_hw)
            seen.append(spec)

    loaded: list[Export] = []
    monkeypatch.setattr(datasets, "Preprocessor", Watched)

    def loading(options: Options) -> Export:
        loaded.append(load(options))
        return loaded[-1]

    monkeypatch.setattr(quantize, "load", loading)
    path = recipe({"epochs": 2, "data.alignment": alignment, "data.illumination": ["retinex", "equalization"]})
    run, out = tmp_path / "run", tmp_path / "model.tflite"
    assert call(main, "train", "--recipe", path, "--data", data, "--run", run).code == 0
    assert call(main, "evaluate", "--model", run / "model.keras", "--data", data).code == 0
    assert call(quantize.main, run / "model.keras", "--data", data, "-o", out, *UNGATED).code == 0
    spec = PreprocessSpec(alignment=alignment, illumination=("retinex", "equalization"))
    assert load_bundle(out).metadata.preprocess == spec
    assert set(seen) == {spec}
    # The exporter measures on what training measured on.
    tested = datasets.load(data, alignment=alignment, illumination=spec.illumination)["PublicTest"].images
    (exported,) = loaded
    assert np.array_equal(exported.tensors, tested)


@pytest.mark.trains
def test_a_separable_network_trains_and_is_fine_tuned(
    data: Path, recipe: Callable[..., Path], child: Callable[..., Any], tmp_path: Path
) -> None:
    """In processes of their own: TensorFlow 2.21 with oneDNN died of a double free in this on Intel Sapphire Rapids."""
    path, run = recipe({"epochs": 2, "model.kind": "separable"}), tmp_path / "run"
    assert child("training", "train", "--recipe", path, "--data", data, "--run", run).code == 0
    fold_batch_norm(keras.models.load_model(run / "model.keras")).save(run / "folded.keras")
    arguments = ["--model", run / "folded.keras", "--recipe", path, "--data", data, "--run", tmp_path / "qat"]
    assert child("training", "qat", *arguments, "--epochs", "1").code == 0
    kinds = {type(layer).__name__ for layer in keras.models.load_model(tmp_path / "qat" / "model.keras").layers}
    assert {"Conv2D", "DepthwiseConv2D"} <= kinds


def test_a_set_that_stands_in_its_test_split_is_refused(
    tmp_path: Path, recipe: Callable[..., Path], call: Callable[..., Any]
) -> None:
    for split in ("train", "validation"):
        for number, name in enumerate(("happy", "sad")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / "1.png"), pattern(number, np.random.default_rng(number)))
    done = call(main, "train", "--recipe", recipe(), "--data", tmp_path / "data", "--run", tmp_path / "run")
    assert (done.code, done.err.count("every training image stands in a test split too")) == (65, 1)
