"""Corruptions and scenes are what they say, and the command measures a bundle on them."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from faces_csv import write_csvs

import datasets
import edge_fer
from edge_fer.config import DetectorSettings
from edge_fer.core import Detection, Expression, FaceBox
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.model.bundle import DEFAULT_MODEL, load_bundle
from edge_fer.model.spec import Head
from edge_fer.preprocess import Preprocessor, PreprocessSpec
from edge_fer.preprocess.alignment import EyeFinder
from edge_fer.preprocess.face_tensor import face_tensor
from evaluation import corruptions
from evaluation.__main__ import main
from evaluation.model_card import model_card, wilson

STRIP = cv2.imread(str(Path(edge_fer.__file__).parent / "data" / "average_faces.png"), cv2.IMREAD_GRAYSCALE)
FACES = np.stack(np.hsplit(STRIP, 7))[..., np.newaxis]
AS_IT_IS = Preprocessor(PreprocessSpec(), (48, 48))
UPRIGHT = Preprocessor(PreprocessSpec(alignment="eyes"), (48, 48))


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_every_corruption_gives_other_images_of_the_same_kind_and_the_same_again(name: str) -> None:
    corrupt = corruptions.CORRUPTIONS[name]
    before = FACES.copy()
    corrupted = corrupt(FACES)
    assert (corrupted.shape, corrupted.dtype) == (FACES.shape, np.uint8)
    assert not np.array_equal(corrupted, FACES)
    assert np.array_equal(corrupt(FACES), corrupted)
    assert np.array_equal(FACES, before)


def test_known_corruptions() -> None:
    dot = np.zeros((1, 48, 48, 1), np.uint8)
    dot[0, 10, 24] = 255
    turned = corruptions.CORRUPTIONS["tilted by 30 degrees"](dot)[0, ..., 0]
    row, column = np.unravel_index(turned.argmax(), turned.shape)
    # 13.5 px above the centre, turned counter-clockwise: to the left by sin 30, up by cos 30.
    assert (row, column) == pytest.approx((23.5 - 13.5 * np.cos(np.pi / 6), 24 - 13.5 / 2), abs=1)
    steps = np.tile(np.arange(48, dtype=np.uint8) * 5, (1, 48, 1))[..., np.newaxis]
    assert corruptions.CORRUPTIONS["gamma 2"](steps)[0, 0, :3, 0].tolist() == [0, 0, 0]
    assert corruptions.CORRUPTIONS["gamma 0.5"](steps)[0, 0, 47, 0] == round(255 * (235 / 255) ** 0.5)


@pytest.mark.parametrize("name", [*corruptions.FRAMINGS, "tilted by 15 degrees"])
def test_landmarks_go_where_the_face_goes(name: str) -> None:
    """The middle of a blob around each landmark comes to lie where it is said to be."""
    points = np.array([[16.5, 18, 31, 18.5, 24, 28, 18, 35, 30.5, 35]], np.float32)
    framed = {key: one[0] for key, one in corruptions.FRAMINGS.items()}
    corrupt = {**corruptions.CORRUPTIONS, **framed}[name]
    after = corruptions.landmarks_after(corrupt, points)
    assert after is not None
    rows, columns = np.mgrid[:48, :48] + 0.5
    for before, there in zip(points.reshape(-1, 2), after.reshape(-1, 2), strict=True):
        blob = 255 * np.exp(-((columns - before[0]) ** 2 + (rows - before[1]) ** 2) / 8)
        seen = corrupt(np.rint(blob).astype(np.uint8)[np.newaxis, ..., np.newaxis])[0, ..., 0].astype(float)
        middle = [(seen * axis).sum() / seen.sum() for axis in (columns, rows)]
        assert there == pytest.approx(middle, abs=0.1)


def test_scenes_hold_the_face_where_they_say() -> None:
    for scene, face in zip(corruptions.scenes(FACES, 96, 0.0, seed=4), FACES[..., 0], strict=True):
        assert scene.gray.shape == corruptions.SCENE_HW
        x, y = int(scene.box.x), int(scene.box.y)
        middle = scene.gray[y + 24 : y + 72 : 2, x + 24 : x + 72 : 2].astype(int)
        assert np.abs(middle - face[12:36, 12:36]).mean() < 8
        assert np.abs(middle - face[12:36, 12:36][:, ::-1].T).mean() > 12


@pytest.mark.parametrize(("side_px", "tilt_deg"), [(64, 0.0), (96, 10.0), (160, -10.0)])
def test_the_whole_crop_is_in_the_scene_up_to_its_corners(side_px: int, tilt_deg: float) -> None:
    for scene, face in zip(corruptions.scenes(FACES, side_px, tilt_deg, seed=4), FACES[..., 0], strict=True):
        middle = (scene.box.x + side_px / 2 - 0.5, scene.box.y + side_px / 2 - 0.5)
        back = cv2.getRotationMatrix2D(middle, -tilt_deg, 48 / side_px)
        back[:, 2] += 23.5 - np.array(middle)
        seen = cv2.warpAffine(scene.gray, back, (48, 48), flags=cv2.INTER_AREA).astype(int)
        assert np.abs(seen - face)[[0, 0, -1, -1], [0, -1, 0, -1]].mean() < 12
        assert np.abs(seen - face).mean() < 6


def test_faces_in_scenes_are_found_and_a_blind_detector_finds_none() -> None:
    found = corruptions.found_tensors(CascadeDetector(), corruptions.scenes(FACES, 96, 0.0, seed=1), AS_IT_IS)
    assert sum(tensor is not None for tensor in found) >= len(FACES) - 1
    assert all(tensor is None or tensor.shape == (48, 48, 1) for tensor in found)

    class Elsewhere(CascadeDetector):
        def detect(self, *_: object, **__: object) -> list[Detection]:
            return [Detection(FaceBox(0, 0, 5, 5))]

    assert corruptions.found_tensors(Elsewhere(), corruptions.scenes(FACES, 96, 0.0, seed=1), AS_IT_IS) == [None] * len(
        FACES
    )


def test_evaluation_turns_what_the_detector_found() -> None:
    scenes = list(corruptions.scenes(FACES, 160, 10.0, seed=4))
    turned = corruptions.found_tensors(CascadeDetector(), iter(scenes), UPRIGHT)
    plain = corruptions.found_tensors(CascadeDetector(), iter(scenes), AS_IT_IS)
    pairs = [(a, b) for a, b in zip(plain, turned, strict=True) if a is not None and b is not None]
    assert pairs
    assert any(not np.array_equal(a, b) for a, b in pairs)


def test_training_sees_what_the_device_sees(tmp_path: Path) -> None:
    write_csvs(tmp_path, 20)
    plain, turned = datasets.load(tmp_path)["PublicTest"], datasets.load(tmp_path, alignment="eyes")["PublicTest"]
    whole = FaceBox(0, 0, 48, 48)
    for before, after in zip(plain.images[..., 0], turned.images, strict=True):
        assert np.array_equal(face_tensor(before, whole, (48, 48), 0.0, EyeFinder().tilt_deg(before, whole)), after)
    assert np.array_equal(AS_IT_IS.crops(FACES), FACES)
    assert not np.array_equal(UPRIGHT.crops(FACES), FACES)


@pytest.mark.parametrize(
    ("fraction", "n", "low", "high"), [(0.5, 100, 0.4038, 0.5962), (0.0, 20, 0.0, 0.1611), (1.0, 20, 0.8389, 1.0)]
)
def test_wilsons_interval(fraction: float, n: int, low: float, high: float) -> None:
    assert wilson(fraction, n) == pytest.approx((low, high), abs=1e-4)


def test_the_command_prints_and_writes_metrics(tmp_path: Path, call: Callable[..., Any]) -> None:
    write_csvs(tmp_path, public=21)
    out = tmp_path / "metrics.json"
    card = tmp_path / "card.md"
    done = call(main, "--data", tmp_path, "--faces", "3", "--json", out, "--model-card", card)
    assert done.code == 0
    results = json.loads(out.read_text())
    assert set(results["corruptions"]) == {"none", *corruptions.CORRUPTIONS}
    assert results["clean"]["fer2013"]["n"] == 21
    assert results["corruptions"]["none"]["fer2013"] == results["clean"]["fer2013"]["accuracy"]
    assert "neutral faces are called sad" in done.out
    text = card.read_text()
    assert f"{results['clean']['fer2013']['accuracy']:.2%}" in text
    assert load_bundle(DEFAULT_MODEL).metadata.model_sha256 in text
    assert "| recipe | accurate-robust, seed 3; weights 25% of the way from where it began" in text


NOTHING: dict[str, Any] = {
    "split": "PublicTest",
    "clean": {},
    "confused": {},
    "corruptions": {},
    "through_detector": {},
    "decision": {},
    "consistency": {"n": 0, "same": {}},
}
"""What ``python -m evaluation`` measured, if that was nothing."""


@pytest.mark.parametrize(("name", "page"), [("accurate", "model-card.md"), ("nano", "model-card-nano.md")])
def test_what_the_shipped_cards_say_is_what_the_command_says(name: str, page: str) -> None:
    """All but the figures, which only the data gives."""
    bundle = load_bundle(name)
    shipped = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8").splitlines()
    card = model_card(bundle, len(bundle.to_bytes()), NOTHING).splitlines()
    measured = ("not measured", "same answer", "| corruption |", "| face |", "|---|")
    assert [line for line in card if line not in shipped and not any(word in line for word in measured)] == []
    end = card.index("## License of the data")
    assert shipped[shipped.index("## License of the data") :] == card[end:]


def test_the_card_of_a_model_of_other_data_says_nothing_of_fer2013() -> None:
    bundle = load_bundle(DEFAULT_MODEL)
    heads = (Head("expression", (Expression.HAPPINESS, Expression.SADNESS)),)
    own = types.SimpleNamespace(
        metadata=dataclasses.replace(bundle.metadata, name="mine", heads=heads, decision=None, facts={}),
        selftest=bundle.selftest,
    )
    told = {"accuracy": 0.5, "mean_recall": 0.5, "mean_recall_95": 0.1, "balanced_ece": 0.1, "n": 4, "recall": {}}
    card = model_card(own, 1000, NOTHING | {"decision": {"as-trained": told}})  # type: ignore[arg-type]
    assert "as it was trained." in card and "balanced" not in card
    assert "FER2013" not in card and "FER+" not in card and "contempt" not in card and "training/recipes" not in card
    assert "are their owners'" in card and "| recipe |" not in card
    facts = {"training": {"recipe": "mine", "seed": 5}}
    own.metadata = dataclasses.replace(own.metadata, facts=facts)
    assert "| recipe | mine, seed 5 |" in model_card(own, 1000, NOTHING)  # type: ignore[arg-type]


def test_the_card_says_that_contempt_is_not_reported_only_where_it_is_not() -> None:
    bundle = load_bundle(DEFAULT_MODEL)
    assert "how often it is found, and it is not reported." in model_card(bundle, 1000, NOTHING)
    whole = types.SimpleNamespace(
        metadata=dataclasses.replace(bundle.metadata, decision=None), selftest=bundle.selftest
    )
    assert "how often it is found. FER2013" in model_card(whole, 1000, NOTHING)  # type: ignore[arg-type]


def test_the_help_says_which_detector_the_card_is_of(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "of the default detector" in told and "which is of Haar" not in told


def test_the_card_says_what_else_a_model_has_learned_from() -> None:
    samples = {"Training": 27869, "PublicTest": 3589}
    bundles = (
        load_bundle(DEFAULT_MODEL).with_metadata(facts={"training": {"samples": samples | more}})
        for more in ({}, {"ck48": 468})
    )
    without, with_more = (model_card(bundle, 1000, NOTHING) for bundle in bundles)
    assert "other data" not in without
    assert "has learned from other data too" in with_more
    assert "ck48 (468 faces)" in with_more


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--faces", "0"], 2, "--faces must be at least 1"),
        (["--split", "PrivateTest"], 66, "has no PrivateTest rows"),
        (["--model", "{here}/none.tflite"], 66, "none.tflite"),
        (["--data", "{here}/none"], 66, "No folder"),
        (["--detector", "haar", "--model-card", "{here}/card.md"], 2, "The model card is of the default detector"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], code: int, message: str, tmp_path: Path, call: Callable[..., Any]
) -> None:
    write_csvs(tmp_path, training=7, public=7)
    done = call(main, "--data", tmp_path, *(one.format(here=tmp_path) for one in arguments))
    assert done.code == code
    error = done.err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("kind", ["haar", "ssd"])
def test_the_detector_is_chosen(
    kind: str, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csvs(tmp_path, public=2)
    opened = []

    def noted(settings: DetectorSettings) -> CascadeDetector:
        opened.append(settings.kind)
        return CascadeDetector()

    monkeypatch.setattr("evaluation.__main__.open_detector", noted)
    assert call(main, "--data", tmp_path, "--faces", "1", "--detector", kind).code == 0
    assert opened == [kind]


def test_a_head_without_labels_in_the_data_is_left_out_and_says_so(tmp_path: Path, call: Callable[..., Any]) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "contempt").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / split / "contempt" / "0.png"), FACES[len(split)])
    card = tmp_path / "card.md"
    assert call(main, "--data", tmp_path, "--faces", "1", "--model-card", card).code == 0
    assert "fer2013: not measured" in card.read_text()
    assert "ferplus: not measured" not in card.read_text()


def test_data_that_no_head_knows_is_refused(
    tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csvs(tmp_path, training=7, public=7)
    monkeypatch.setattr("evaluation.metrics.truth_for", lambda data, head: np.full(len(data), -1))
    done = call(main, "--data", tmp_path, "--faces", "1")
    assert done.code == 65
    assert "there is nothing to measure" in done.err
