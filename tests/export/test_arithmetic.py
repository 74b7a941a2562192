"""The exporter's numbers against closed forms: small enough to be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers
from labeled import labeled
from rich.console import Console

from edge_fer.core import Expression as E
from edge_fer.errors import DataError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.litert import Network
from edge_fer.model.spec import Head
from export.convert import to_int8
from export.equalize import equalize, find_pairs, input_range, output_range
from export.flatbuffer import as_input, read_operators, run_flatbuffer, try_out
from export.fold import correct_bias, fold_batch_norm
from export.load import calibration_faces
from export.result import Comparison
from export.verify import agreement, compare, comparison_table, refusals, shortfalls

PAIR = Head("pair", (E.ANGER, E.FEAR))


def logits_at(confidences: list[float]) -> np.ndarray:
    """Logits of two classes, the first of which has this confidence."""
    return np.log(np.stack([np.array(confidences), 1 - np.array(confidences)], axis=1)).astype(np.float32)


# --- load ------------------------------------------------------------------------------------------------------------


def test_calibration_faces_are_dealt_in_turn_and_the_same_in_every_run() -> None:
    data = labeled([E.ANGER] * 40 + [E.FEAR] * 3 + [None] * 20 + [E.SADNESS] * 10)
    chosen = calibration_faces(data, PAIR, 10)
    assert np.bincount(chosen.labels["fer2013"].truth).tolist() == [7, 0, 3]  # anger, disgust, fear
    again = calibration_faces(data, PAIR, 10)
    numbers = chosen.images[:, 0, 0, 0].tolist()
    assert numbers == again.images[:, 0, 0, 0].tolist()
    assert len(set(numbers)) == 10
    assert max(numbers[0::2][:3]) > 9  # not merely the first of the file
    assert len(calibration_faces(data, PAIR, 500)) == 43


def test_calibration_wants_faces_of_several_labels_where_a_head_has_several() -> None:
    one_label, single = labeled([E.ANGER] * 5), Head("single", (E.ANGER,))
    with pytest.raises(DataError, match="one label of the head 'pair'"):
        calibration_faces(one_label, PAIR, 3)
    assert len(calibration_faces(one_label, single, 3)) == 3
    with pytest.raises(DataError, match="nothing to calibrate on"):
        calibration_faces(labeled([None, E.FEAR]), single, 3)


# --- flatbuffer ------------------------------------------------------------------------------------------------------


def test_pixels_in_the_type_that_a_model_takes() -> None:
    pixels = np.array([0, 1, 127, 128, 255], np.uint8)
    shifted = as_input(pixels, np.int8)
    assert (shifted.dtype, shifted.tolist()) == (np.int8, [-128, -127, -1, 0, 127])
    for dtype in (np.uint8, np.float32):
        same = as_input(pixels, dtype)
        assert (same.dtype, same.tolist()) == (dtype, pixels.tolist())


def test_the_exporter_reads_logits_as_the_device_does() -> None:
    bundle = Bundle.load()
    classifier, faces = TfliteClassifier(bundle), bundle.selftest.inputs
    logits = run_flatbuffer(bundle.model, faces, Console(quiet=True), "")
    expected = np.stack([classifier.logits(face) for face in faces])
    (target,) = Network(bundle.model).outputs
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() <= 8.5 * target.scale  # threads may share the work otherwise
    assert np.abs(logits - expected).mean() <= 2 * target.scale


def test_a_model_that_runs_passes_its_trial() -> None:
    try_out(Bundle.load().model, "int8")


# --- convert ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_tensor", [True, False])
def test_weights_have_a_scale_for_each_output_channel_or_one_for_all(per_tensor: bool) -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(3, 3),
            layers.DepthwiseConv2D(3),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    faces = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
    operators = read_operators(to_int8(model, faces, Console(quiet=True), per_tensor=per_tensor))
    expected = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 5}
    scales = {operator.name: len(operator.inputs[1].scales) for operator in operators if operator.name in expected}
    assert scales == (dict.fromkeys(expected, 1) if per_tensor else expected)


# --- verify ----------------------------------------------------------------------------------------------------------


def test_a_comparison_in_full() -> None:
    # Two heads side by side, the second with a temperature; a face whose label a head lacks counts for agreement alone.
    heads = [Head("other", (E.SADNESS, E.NEUTRAL, E.HAPPINESS)), Head("pair", PAIR.labels, 2.0)]
    data = labeled([E.ANGER, E.ANGER, E.FEAR, E.SADNESS])
    reference = np.zeros((4, 5), np.float32)
    reference[:, 3:] = 2 * logits_at([0.9, 0.9, 0.1, 0.9])
    ours = np.zeros((4, 5), np.float32)
    ours[:, 3:] = 2 * logits_at([0.8, 0.2, 0.2, 0.2])
    raw = 0.8**2 / (0.8**2 + 0.2**2)
    other, pair = compare("int8", ours, reference, data, heads)
    assert (other.head, other.n, other.drop, other.agreement, other.largest_difference) == ("other", 1, 0.0, 1.0, 0.0)
    assert pair == Comparison(
        "int8",
        "pair",
        n=3,
        drop=33.3333,
        agreement=0.5,
        largest_difference=pytest.approx(2 * float(np.log(0.8 / 0.1)), abs=6e-4),
        # Three answers of one confidence, of which two are right.
        ece_raw=pytest.approx(raw - 2 / 3, abs=6e-5),
        ece=pytest.approx(0.8 - 2 / 3, abs=6e-5),
        accuracy=66.6667,
        commonest=66.6667,
        labels_given=2,
    )


def test_one_face_that_is_lost_is_all() -> None:
    (comparison,) = compare("int8", logits_at([0.2]), logits_at([0.8]), labeled([E.ANGER]), [PAIR])
    assert (comparison.n, comparison.drop, comparison.agreement) == (1, 100.0, 0.0)


def row(variant: str = "int8", drop: float = 0.0, agreement: float = 1.0) -> Comparison:
    return Comparison(variant, "pair", 1234, drop, agreement, 0.5, 0.2, 0.1, 70.0, 50.0, 2)


@pytest.mark.parametrize(
    ("accuracy", "commonest", "labels_given", "ece", "good"),
    [
        (55.0, 50.0, 2, 0.1, True),
        (54.99, 50.0, 2, 0.1, False),
        (55.0, 50.0, 2, 0.1001, False),
        (99.0, 50.0, 1, 0.0, False),  # one label for all
        (100.0, 100.0, 1, 0.0, True),  # there is no other
        (98.0, 96.0, 2, 0.0, True),  # half of what is left to win
        (97.9, 96.0, 2, 0.0, False),
    ],
)
def test_the_floor(accuracy: float, commonest: float, labels_given: int, ece: float, good: bool) -> None:
    one = replace(row(), accuracy=accuracy, commonest=commonest, labels_given=labels_given, ece=ece)
    assert (shortfalls([one, replace(one, variant="float32")], 5, 10) == []) == good


def test_labels_that_are_as_likely_are_the_same_answer() -> None:
    theirs = np.array([[1e-9, 0, -1], [1e-9, 0, -1], [0.1, 0, -1], [0, 0, 0]], np.float32)
    ours = np.array([[0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]], np.float32)
    assert agreement(ours, theirs) == 0.5


@pytest.mark.parametrize(
    ("comparison", "reasons"),
    [
        (row(drop=0.5, agreement=0.97), []),
        (row(drop=-3.0), []),
        (row(drop=0.51), ["head pair loses 0.51 points of accuracy, 0.5 are allowed"]),
        (row(agreement=0.9699), ["head pair agrees with float on 96.99%, 97 % are demanded"]),
        (row("float16", drop=9.0, agreement=0.1), []),
    ],
)
def test_the_gate_lets_through_what_is_just_good_enough(comparison: Comparison, reasons: list[str]) -> None:
    assert refusals([row("float32", 9.0, 0.1), comparison], 0.5, 97) == reasons


def test_the_table_of_a_comparison() -> None:
    console = Console(record=True, width=120)
    other = Comparison("int8", "first", 7, -1.0, 0.5, 0.25, 0.3, 0.4, 70.0, 50.0, 2)
    heads = [Head("first", PAIR.labels), Head("pair", PAIR.labels, 1.25)]
    console.print(comparison_table([row(drop=0.25, agreement=0.98), other], heads))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    first = lines.index("first int8 7 -1.00 50.00% 0.250 30.00% 40.00% 1")
    assert first < lines.index("pair int8 1,234 +0.25 98.00% 0.500 20.00% 10.00% 1.25")


# --- fold ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_batch_norm_is_folded_by_its_formula(use_bias: bool) -> None:
    model = keras.Sequential(
        [keras.Input((1,)), layers.Dense(2, use_bias=use_bias, name="dense"), layers.BatchNormalization(epsilon=0.25)]
    )
    model.layers[0].set_weights([np.array([[2.0, -1.0]]), *([np.array([5.0, 1.0])] if use_bias else [])])
    # gamma, beta, mean, variance; with epsilon the deviations are 1 and 2.
    model.layers[1].set_weights([np.array(x) for x in ([3.0, 4.0], [0.5, -1.0], [1.0, 2.0], [0.75, 3.75])])
    kernel, bias = fold_batch_norm(model).get_layer("dense").get_weights()
    np.testing.assert_allclose(kernel, [[6.0, -2.0]], rtol=1e-6)
    np.testing.assert_allclose(bias, [12.5, -3.0] if use_bias else [-2.5, -5.0], rtol=1e-6)


def test_the_mean_error_is_taken_from_the_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(2, 1, activation="relu", name="conv"), layers.Flatten(), layers.Dense(1)]
    )
    model.get_layer("conv").set_weights([np.ones((1, 1, 1, 2)), np.array([1.0, 2.0])])
    faces = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 1)).astype(np.uint8)
    parts: list[keras.Model] = []

    def run(flatbuffer: bytes, tensors: np.ndarray, *_: object) -> np.ndarray:
        """An int8 that gives 0.5 too much on channel 0 in every other image, and 3 too little on channel 1."""
        exact = parts[-1].predict(tensors.astype(np.float32), verbose=0)
        if exact.ndim == 4:
            exact[::2, ..., 0] += 0.5
            exact[..., 1] -= 3
        return exact

    monkeypatch.setattr("export.fold.run_flatbuffer", run)
    corrected = correct_bias(model, faces, lambda part: parts.append(part) or b"")
    np.testing.assert_allclose(corrected.get_layer("conv").get_weights()[1], [0.75, 5.0], rtol=1e-4)
    assert [len(part.outputs[0].shape) for part in parts] == [4, 2]
    assert parts[0].get_layer("conv").activation is keras.activations.linear


# --- equalize --------------------------------------------------------------------------------------------------------


def test_ranges_are_the_largest_absolute_weights_of_a_channel() -> None:
    dense = np.array([[1, -5, 2], [-3, 4, 0]], np.float32)  # two channels in, three out
    assert input_range(dense).tolist() == [5, 4]
    assert output_range(dense).tolist() == [3, 5, 2]
    conv = np.zeros((3, 3, 2, 3), np.float32)
    conv[0, 2], conv[1, 1] = dense, -2 * dense
    assert input_range(conv).tolist() == [10, 8]
    assert output_range(conv).tolist() == [6, 10, 4]
    depthwise = np.zeros((3, 3, 2, 1), np.float32)
    depthwise[2, 0, :, 0] = [-7, 6]
    assert input_range(depthwise).tolist() == output_range(depthwise, depthwise=True).tolist() == [7, 6]


def test_two_layers_get_the_geometric_mean_of_their_ranges() -> None:
    # Ranges 8 and 2 give 4 on both sides, 1 and 9 give 3; a channel that is dead on one side stays as it is.
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(4, activation="relu", name="first"),
            layers.Dropout(0.5),
            layers.Dense(2, name="second"),
        ]
    )
    first = np.array([[8.0, -1.0, 0.0, 5.0], [-2.0, 0.5, 0.0, 1.0]])
    second = np.array([[2.0, 1.0], [-9.0, 3.0], [4.0, 4.0], [0.0, 0.0]])
    model.get_layer("first").set_weights([first, np.array([2.0, 3.0, 1.0, 7.0])])
    model.get_layer("second").set_weights([second, np.array([3.0, 3.0])])
    assert find_pairs(model) == ([("first", "second")], [])
    equalized = equalize(model)
    kernel, bias = equalized.get_layer("first").get_weights()
    np.testing.assert_allclose(kernel, [[4, -3, 0, 5], [-1, 1.5, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(bias, [1, 9, 1, 7], rtol=1e-6)
    kernel, bias = equalized.get_layer("second").get_weights()
    np.testing.assert_allclose(kernel, [[4, 2], [-3, 1], [4, 4], [0, 0]], rtol=1e-6)
    assert bias.tolist() == [3, 3]
