"""The detector from photos to a bundle: trained for two steps, exported, run; what is wrong is said in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest

from datasets.boxes import is_held_out
from edge_fer.core import Frame
from edge_fer.detection.ssd import SsdDetector
from edge_fer.model.bundle import Bundle
from export import detector as export_detector
from export.flatbuffer import slim
from training.detector import __main__ as training_detector
from training.detector import weights
from training.detector.network import build

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, demo_frames: list[Frame]) -> Path:
    """Frames of the demo as a YOLO folder; at least two of them are held out."""
    folder = tmp_path_factory.mktemp("photos")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for number, frame in enumerate(demo_frames[:40]):
        small = cv2.resize(frame.gray, (160, 120), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), small)
        lines = [
            f"0 {(box.x + box.w / 2) / 640} {(box.y + box.h / 2) / 480} {box.w / 640} {box.h / 480}"
            for box in (true.box for true in frame.truth)
        ]
        (folder / "labels" / f"{number}.txt").write_text("\n".join(lines))
    assert sum(is_held_out(f"images/{number}.png") for number in range(40)) >= 2
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, photos: Path, call: Call) -> Path:
    output = tmp_path_factory.mktemp("detector")
    arguments = ["--data", photos, "--output", output, "--epochs", 1, "--batch", 18, "--side", 64]
    assert call(training_detector.main, *arguments).code == 0
    return output


def test_a_training_writes_weights_a_log_and_a_model_for_each_size(trained: Path) -> None:
    (row,) = (json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines())
    assert row["step"] >= 1 and row["done"] == 1
    assert all(np.isfinite(row[name]) for name in ("scores", "boxes", "points"))
    network = build()
    before = network.get_weights()
    weights.load(network, trained / "weights.npz")
    assert any(not np.array_equal(one, other) for one, other in zip(before, network.get_weights(), strict=True))
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 128, 160, 1)).astype(np.float32)
    sized = keras.models.load_model(trained / "face-160x120.keras")
    assert sized.input_shape == (1, 120, 160, 1)
    # The same as the network of any size sees it, with mid-gray below.
    padded = np.full((1, 128, 160, 1), 127.5, np.float32)
    padded[:, :120] = pixels[:, :120]
    for one, other in zip(network.predict(padded, verbose=0), sized.predict(pixels[:, :120], verbose=0), strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_without_a_share_of_what_is_learned_all_stays(tmp_path: Path, trained: Path, photos: Path, call: Call) -> None:
    arguments = ["--data", photos, "--from", trained / "weights.npz", "--epochs", 1, "--batch", 18, "--side", 64]
    assert call(training_detector.main, *arguments, "--share", 0, "--output", tmp_path).code == 0
    with np.load(trained / "weights.npz") as began, np.load(tmp_path / "weights.npz") as kept:
        assert all(np.array_equal(began[name], kept[name]) for name in began.files)


@pytest.fixture(scope="module")
def exported(trained: Path, photos: Path, call: Call) -> Path:
    path = trained / "face-160x120.tflite"
    done = call(
        export_detector.main, trained / "face-160x120.keras", "--data", photos, "-o", path, "--min-agreement", 0
    )
    assert done.code == 0 and "Wrote" in done.out
    return path


def test_a_trained_model_becomes_a_bundle_that_the_device_takes(exported: Path) -> None:
    path = exported
    assert path.stat().st_size <= 150_000
    bundle = Bundle.load(path, "detector")
    assert bundle.metadata.kind == "detector" and bundle.labels == ("face",)
    assert bundle.selftest.outputs.shape == (1, (15 * 20 + 8 * 10 + 4 * 5 + 20) * 15)
    SsdDetector([path]).detect(np.zeros((120, 160), np.uint8), 20)


def test_int8_that_is_not_as_good_is_refused(
    trained: Path, exported: Path, photos: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.tflite"
    for conversion in ("to_int8", "to_float"):  # each takes TensorFlow half a minute
        monkeypatch.setattr(export_detector, conversion, lambda *_: Bundle.load(exported, "detector").model)
    model = trained / "face-160x120.keras"
    done = call(export_detector.main, model, "--data", photos, "-o", path, "--min-agreement", 101)
    assert done.code == 1 and "out.tflite is not written" in done.err and not path.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.keras"], 66, "There is no file none.keras. `make detector` writes the models."),
        ([__file__], 65, "is not a Keras model of this detector, for one size of input."),
    ],
)
def test_what_is_no_model_is_refused(
    photos: Path, tmp_path: Path, call: Call, arguments: list[str], code: int, message: str
) -> None:
    done = call(export_detector.main, *arguments, "--data", photos, "-o", tmp_path / "out.tflite")
    assert done.code == code and message in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--min-agreement", "nan", "--min-agreement must be a number"),
        ("--calibration", "0", "--calibration must be at least 1, not 0"),
    ],
)
def test_numbers_of_the_export_that_cannot_be(
    photos: Path, tmp_path: Path, call: Call, option: str, value: str, message: str
) -> None:
    done = call(export_detector.main, "x.keras", "--data", photos, "-o", tmp_path / "out.tflite", option, value)
    assert (done.code, done.err.count("\n")) == (65, 1) and message in done.err


def test_bad_input_of_the_training(tmp_path: Path, photos: Path, call: Call) -> None:
    train = training_detector.main
    done = call(train, "--data", tmp_path / "none", "--output", tmp_path / "out")
    assert done.code == 66 and done.err.count("\n") == 1
    (tmp_path / "w.npz").write_bytes(b"no weights")
    done = call(train, "--data", photos, "--from", tmp_path / "w.npz", "--output", tmp_path / "out")
    assert done.code == 65 and "does not hold weights of this detector" in done.err
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    done = call(train, "--data", photos, "--from", tmp_path / "w.npz", "--output", tmp_path / "out")
    assert done.code == 65 and "does not hold weights of this detector" in done.err


def test_a_slim_graph_computes_the_same_to_the_bit() -> None:
    from edge_fer.model.litert import Network

    bundle = Bundle.load("nano")
    small = slim(bundle.model)
    assert len(small) < len(bundle.model)
    inputs = bundle.selftest.inputs
    for kernels in ("optimized", "reference"):
        ours, theirs = (Network(one, kernels=kernels).run_each(inputs) for one in (small, bundle.model))
        assert np.array_equal(ours, theirs)
