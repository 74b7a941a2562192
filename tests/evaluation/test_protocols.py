"""The cross-database table says what a device reports, and what a data set cannot tell of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from labeled import labeled
from test_corruptions import FACES

from datasets import Dataset, Labels, labeled_like, load_test
from edge_fer.core import Expression as E
from edge_fer.core import Image, Prediction
from edge_fer.errors import DataError
from edge_fer.model.bundle import DEFAULT_MODEL, Bundle, load_bundle
from edge_fer.model.classifier import TfliteClassifier
from evaluation.__main__ import main
from evaluation.device import Reports, WholeImage, reports_of
from evaluation.protocols import difference_of, row_of, seen_of

THREE = (E.NEUTRAL, E.HAPPINESS, E.ANGER)


def reports(*reported: E, uncertain: int = 0, labels: tuple[E, ...] = THREE, confidence: float = 1.0) -> Reports:
    """Answers of a device, the first of them uncertain."""
    places = np.array([labels.index(one) for one in reported], np.int64)
    probabilities = np.full((len(places), len(labels)), (1 - confidence) / (len(labels) - 1), np.float32)
    probabilities[np.arange(len(places)), places] = confidence
    return Reports(labels, probabilities, places, np.arange(len(places)) < uncertain)


def only(*labels: E | None, subjects: list[str] | None = None, expressions: tuple[E, ...] = tuple(E)) -> Dataset:
    """Samples of one labeling."""
    truth = np.array([-1 if one is None else expressions.index(one) for one in labels], np.int64)
    images = np.zeros((len(truth), 48, 48, 1), np.uint8)
    who = None if subjects is None else np.array(subjects)
    return Dataset(images, {"t": Labels.single(expressions, truth)}, np.zeros(len(truth), np.bool_), who)


def notes(data: Dataset, *reported: E) -> str:
    return "\n".join(row_of(data, "t", reports(*reported))["notes"])


def test_a_row_is_what_its_definitions_say() -> None:
    data = only(E.NEUTRAL, E.NEUTRAL, E.NEUTRAL, E.NEUTRAL, E.ANGER, E.HAPPINESS, E.HAPPINESS, None, E.FEAR)
    told = (E.ANGER, E.NEUTRAL, E.NEUTRAL, E.NEUTRAL, E.ANGER, E.ANGER, E.HAPPINESS, E.ANGER, E.ANGER)
    row = row_of(data, "t", reports(*told, uncertain=1, confidence=0.8))
    assert (row["n"], row["accuracy"]) == (7, round(5 / 7, 4))
    assert row["mean_recall"] == 0.75  # of 3/4, 1 and 1/2
    assert row["confusion"] == [[3, 0, 1], [0, 1, 1], [0, 0, 1]]
    assert (row["uncertain"], row["accuracy_certain"]) == (round(1 / 7, 4), round(5 / 6, 4))
    assert row["ece"] == pytest.approx(0.8 - 5 / 7, abs=1e-4)
    assert row["subjects"] is None
    for name, (low, high) in row["intervals"].items():
        assert 0 <= low <= row[name] <= high <= 1
    assert json.loads(json.dumps(row)) == {**row, "intervals": {k: list(v) for k, v in row["intervals"].items()}}


def test_a_device_that_is_sure_of_nothing_has_no_accuracy_without_doubt() -> None:
    row = row_of(only(E.ANGER), "t", reports(E.ANGER, uncertain=1))
    assert (row["uncertain"], row["accuracy_certain"]) == (1.0, None)


@pytest.mark.parametrize(
    ("labels", "said", "not_said"),
    [
        ([E.NEUTRAL, E.HAPPINESS, E.ANGER], "Fewer than 30 images", "No images of"),
        ([E.HAPPINESS, E.ANGER], "Without neutral faces", "one class alone"),
        ([E.HAPPINESS, E.ANGER], "No images of neutral: recall is not measured", "Left out"),
        ([E.NEUTRAL, E.NEUTRAL], "With one class alone", "Without neutral faces"),
        ([E.NEUTRAL, E.FEAR], "Left out, as the model does not report it: fear (1).", "no label"),
        ([E.NEUTRAL, None], "Left out, as they have no label: 1 images.", "does not report"),
    ],
)
def test_what_cannot_be_measured_is_said(labels: list[E | None], said: str, not_said: str) -> None:
    text = notes(only(*labels), *[E.ANGER] * len(labels))
    assert said in text
    assert not_said not in text


def test_few_people_are_said_and_many_are_not() -> None:
    labels, subjects = [E.ANGER] * 40, [f"S{number:03d}" for number in range(40)]
    assert "too narrow" not in notes(only(*labels, subjects=subjects), *labels)
    assert "rest on 29 people alone" in notes(only(*labels, subjects=["S028"] * 11 + subjects[:29]), *labels)
    assert "too narrow" not in notes(only(*labels), *labels)
    assert "rest on 2 images alone" in notes(only(*labels[:2]), *labels[:2])


def test_no_label_in_common_is_refused() -> None:
    with pytest.raises(DataError, match=r"No image has a label of t \(fear, contempt\) that the model reports"):
        row_of(only(E.FEAR, E.CONTEMPT, expressions=(E.FEAR, E.CONTEMPT)), "t", reports(E.ANGER, E.ANGER))
    with pytest.raises(DataError, match="nothing can be measured"):
        row_of(only(None), "t", reports(E.ANGER))


def test_each_labeling_is_measured_by_its_own_labels() -> None:
    data = labeled([E.ANGER, E.FEAR], [E.HAPPINESS, E.ANGER])
    told = reports(E.ANGER, E.ANGER, labels=tuple(E))
    rows = {task: row_of(data, task, told)["accuracy"] for task in data.labels}
    assert rows == {"ferplus": 0.5, "fer2013": 0.5}
    assert row_of(data, "ferplus", told)["recall"][E.HAPPINESS] == 0.0
    assert row_of(data, "fer2013", told)["recall"][E.HAPPINESS] is None


def test_two_models_are_compared_on_what_both_report() -> None:
    data = only(E.NEUTRAL, E.HAPPINESS, E.HAPPINESS, E.ANGER, E.FEAR, None)
    first = reports(E.NEUTRAL, E.ANGER, E.HAPPINESS, E.ANGER, E.ANGER, E.ANGER)
    told = (E.FEAR, E.HAPPINESS, E.HAPPINESS, E.ANGER, E.FEAR, E.FEAR)
    second = reports(*told, labels=(E.ANGER, E.FEAR, E.HAPPINESS, E.NEUTRAL))
    difference = difference_of(data, "t", first, second)
    assert (difference["n"], difference["accuracy"]) == (4, 0.0)
    assert difference["mean_recall"] == round(2 / 3 - 2.5 / 3, 4)
    for low, high in difference["intervals"].values():
        assert low < 0 < high
    assert difference_of(data, "t", first, first)["intervals"]["accuracy"] == (0.0, 0.0)


class Spy(TfliteClassifier):
    """A classifier that remembers what it was shown, and always says the same."""

    def __init__(self, probabilities: Mapping[E, float]) -> None:
        super().__init__(load_bundle(DEFAULT_MODEL))
        self.shown: list[Image] = []
        self._says = Prediction(dict(probabilities))

    def classify(self, tensors: Sequence[Image]) -> list[Prediction]:
        self.shown += tensors
        return [self._says] * len(tensors)


def test_the_device_is_shown_each_image_whole_and_by_itself() -> None:
    spy = Spy({E.ANGER: 0.2, E.NEUTRAL: 0.5, E.FEAR: 0.3})
    told = reports_of(spy, FACES)
    assert np.array_equal(np.stack(spy.shown), FACES)
    assert told.labels == (E.ANGER, E.NEUTRAL, E.FEAR)
    assert told.reported.tolist() == [1] * 7
    assert told.probabilities[3] == pytest.approx([0.2, 0.5, 0.3])


def test_a_model_with_a_margin_sees_the_whole_image_too() -> None:
    (found,) = WholeImage(0.25).detect(FACES[0, ..., 0], 1)
    assert (found.box.x, found.box.y, found.box.w, found.box.h) == pytest.approx((8, 8, 32, 32))


def test_the_table_is_what_the_classifier_says() -> None:
    classifier = TfliteClassifier(load_bundle(DEFAULT_MODEL))
    told = reports_of(classifier, FACES)
    for image, reported, probabilities in zip(FACES, told.reported, told.probabilities, strict=True):
        (prediction,) = classifier.classify([image])
        assert told.labels[reported] == prediction.expression
        assert probabilities == pytest.approx(list(prediction.probabilities.values()))


def class_folders(folder: Path, names: Mapping[str, list[str]]) -> Path:
    """The demo's faces as class folders, under the given file names."""
    for number, (name, files) in enumerate(names.items()):
        (folder / name).mkdir(parents=True)
        for file in files:
            cv2.imwrite(str(folder / name / file), FACES[number, ..., 0])
    return folder


def test_the_command_on_several_data_sets(data: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    posed = {"anger": ["S005_001_00000009.png", "S005_001_00000010.png"], "happy": ["S010_002_00000014.png"]}
    folder = class_folders(tmp_path / "posed", posed)
    done = call(main, "protocols", "--data", data, folder, "--model", "accurate", "nano", "--json", tmp_path / "t.json")
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "t.json").read_text())
    about = [(row["data"], row["task"], row["model"], row["n"], row["subjects"]) for row in results["rows"]]
    assert about == [
        (data.name, "ferplus", "accurate", 42, None),
        (data.name, "ferplus", "nano", 42, None),
        (data.name, "fer2013", "accurate", 42, None),
        (data.name, "fer2013", "nano", 42, None),
        ("posed", "expression", "accurate", 3, 2),
        ("posed", "expression", "nano", 3, 2),
    ]
    assert [(one["task"], one["model"], one["against"]) for one in results["differences"]] == [
        ("ferplus", "nano", "accurate"),
        ("fer2013", "nano", "accurate"),
        ("expression", "nano", "accurate"),
    ]
    assert f"{data.name}, ferplus: nano against accurate, N = 42: accuracy" in " ".join(done.out.split())
    assert list(results["people"]) == [f"{data.name}, ferplus"]
    assert "a fresh panel of 10 people would choose the label" in done.out
    assert "No images of neutral" in done.out
    assert "rest on 2 people alone" in done.out
    assert all(row["seen"] is None for row in results["rows"])


def test_a_bundle_that_was_chosen_on_the_images_says_so(tmp_path: Path, call: Callable[..., Any]) -> None:
    folder = class_folders(tmp_path / "mine", {"anger": ["0.png"], "happy": ["1.png"]})
    bundle = load_bundle(DEFAULT_MODEL)
    facts = {"training": {"data_sha256": {"Training": "0", "PublicTest": load_test(folder).sha256}}}
    own = tmp_path / "own.tflite"
    own.write_bytes(replace(bundle, metadata=replace(bundle.metadata, facts=facts)).to_bytes())
    done = call(main, "protocols", "--data", folder, "--model", own)
    assert done.code == 0, done.err
    assert "The bundle was chosen on these very images." in done.out
    # Two bundles of one name are told apart by how they were asked for.
    done = call(main, "protocols", "--data", folder, "--model", "accurate", own, "--json", tmp_path / "t.json")
    assert [row["model"] for row in json.loads((tmp_path / "t.json").read_text())["rows"]] == ["accurate", str(own)]


def with_training(bundle: Bundle, **training: Any) -> Bundle:
    return replace(bundle, metadata=replace(bundle.metadata, facts={"training": training}))


def test_what_a_bundle_learned_from_is_known_by_its_images_and_its_people(tmp_path: Path) -> None:
    names = {
        "anger": ["S005_001_00000009.png"],
        "contempt": ["S010_002_00000014.png"],
        "happy": ["S011_001_00000001.png"],
    }
    data = load_test(class_folders(tmp_path / "posed", names))
    bundle = load_bundle(DEFAULT_MODEL)
    assert seen_of(with_training(bundle), data) == {"seen": None, "people_seen": None}
    # As training hashes further faces: those of classes that each head has, with a label for each head.
    learned = labeled_like(data, bundle.metadata.heads)
    assert len(learned) == 2
    facts: dict[str, Any] = {"data_sha256": {"Training": "0", "posed": learned.sha256}}
    assert seen_of(with_training(bundle, **facts), data)["seen"] == "posed"
    # An earlier stage counts too; cached logits have one hash, of the samples that they are of.
    lineage = {"t1-t4": {"data_sha256": "1"}, "mine/robust": {**facts, "subjects": {"posed": ["S005", "S011", "S999"]}}}
    seen = seen_of(with_training(bundle, data_sha256={"Training": "0"}, lineage=lineage), data)
    assert seen == {"seen": "posed", "people_seen": 2}
    others = data.replace(subjects=np.array(["S001", "S002", "S003"]), images=255 - data.images)
    assert seen_of(with_training(bundle, lineage=lineage), others) == {"seen": None, "people_seen": 0}


def test_people_it_learned_from_are_said(tmp_path: Path, call: Callable[..., Any]) -> None:
    folder = class_folders(tmp_path / "posed", {"anger": ["S005_001_00000009.png"], "happy": ["S010_002_00000014.png"]})
    own = tmp_path / "own.tflite"
    own.write_bytes(with_training(load_bundle(DEFAULT_MODEL), subjects={"ck48": ["S005"]}).to_bytes())
    done = call(main, "protocols", "--data", folder, "--model", own)
    assert done.code == 0, done.err
    assert "The bundle was trained on images of 1 of these 2 people." in done.out
    assert "*: the bundle learned or was chosen from these images or people" in done.out


@pytest.mark.parametrize("decision", ["balanced", "as-trained"])
def test_the_decision_rule_can_be_chosen(decision: str, tmp_path: Path, call: Callable[..., Any]) -> None:
    folder = class_folders(tmp_path / "mine", {"anger": ["0.png"], "happy": ["1.png"]})
    done = call(main, "protocols", "--data", folder, "--decision", decision, "--json", tmp_path / "t.json")
    assert done.code == 0, done.err
    (row,) = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert row["decision"] == decision
    # Contempt is an answer of the first head alone.
    assert ("contempt" in row["recall"]) == (decision == "as-trained")


@pytest.mark.parametrize(
    ("names", "code", "message"),
    [
        (None, 66, "No folder"),
        ({}, 66, "holds no class folders"),
        ({"dogs": ["0.png"]}, 65, "is no expression that edge-fer knows"),
        ({"anger": []}, 65, "holds no images"),
    ],
)
def test_a_data_set_that_is_none(
    names: dict[str, list[str]] | None, code: int, message: str, tmp_path: Path, call: Callable[..., Any]
) -> None:
    folder = tmp_path / "set"
    if names is not None:
        folder.mkdir()
        class_folders(folder, names)
    done = call(main, "protocols", "--data", folder)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_split_that_is_not_there_and_a_file_that_cannot_be_written(data: Path, call: Callable[..., Any]) -> None:
    done = call(main, "protocols", "--data", data, "--split", "PrivateTest")
    assert (done.code, done.err.splitlines()[-1]) == (66, f"evaluation: {data} has no PrivateTest rows.")
    done = call(main, "protocols", "--data", data, "--json", data)
    assert done.code == 74
