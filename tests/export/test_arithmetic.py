"""The exporter's numbers against closed forms: small enough to be worked out by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from export.equalise import correct_bias, equalise, find_pairs, fold_batch_norm, input_range, output_range
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from rich.console import Console

from edge_fer.core import Expression as E
from edge_fer.errors import DataError
from edge_fer.model.bundle import DEFAULT_MODEL, Head, load_bundle
from edge_fer.model.classifier import TfliteClassifier
from evaluation.datasets import FER2013_LABELS, Dataset
from export.convert import as_tensors, calibration_faces
from export.verify import (
    Comparison,
    as_input,
    compare,
    comparison_table,
    expected_calibration_error,
    fitted,
    refusals,
    reliability,
    run_flatbuffer,
    try_out,
)

PAIR = Head("pair", (E.ANGER, E.FEAR), 1.0)


def rows(labels: list[E | None], shape_hw: tuple[int, int] = (48, 48)) -> Dataset:
    """Faces with these FER2013 labels, None for none; every picture has its number as its grey."""
    n = len(labels)
    images = np.broadcast_to(np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), (n, *shape_hw, 1))
    codes = np.array([-1 if label is None else FER2013_LABELS.index(label) for label in labels])
    return Dataset(images.copy(), codes, np.zeros((n, 10), np.float32), np.zeros(n, bool))


def two_classes(confidence: list[float]) -> np.ndarray:
    """Probabilities of two classes, the first of which has this confidence."""
    return np.stack([np.array(confidence), 1 - np.array(confidence)], axis=1).astype(np.float32)


def logits_at(confidence: list[float]) -> np.ndarray:
    """Logits whose softmax is that."""
    return np.log(two_classes(confidence)).astype(np.float32)


# --- verify ----------------------------------------------------------------------------------------------------------


def test_a_confidence_on_a_border_belongs_to_the_lower_bin() -> None:
    count, _, _ = reliability(two_classes([0.5, 0.5, 0.75, 0.875, 1.0]), np.zeros(5, np.int64), bins=4)
    assert count.tolist() == [0, 2, 1, 2]


def test_there_are_fifteen_bins_as_in_the_paper() -> None:
    count, confidence, accuracy = reliability(two_classes([0.9]), np.array([0]))
    assert len(count) == len(confidence) == len(accuracy) == 15


@given(st.lists(st.tuples(st.floats(0.5, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 12))
def test_the_calibration_error_is_that_of_its_definition(answers: list[tuple[float, bool]], bins: int) -> None:
    probabilities = two_classes([confidence for confidence, _ in answers])
    # What the function sees is float32: a border is met or missed there.
    seen = [float(confidence) for confidence in probabilities.max(axis=1).astype(np.float64)]
    right = [hit if p[0] >= p[1] else not hit for (_, hit), p in zip(answers, probabilities, strict=True)]
    labels = np.array([0 if hit else 1 for _, hit in answers])
    expected = 0.0
    for place in range(bins):
        inside = [i for i, c in enumerate(seen) if min(max(int(np.ceil(c * bins)), 1), bins) - 1 == place]
        if inside:
            gap = abs(sum(seen[i] for i in inside) - sum(right[i] for i in inside)) / len(inside)
            expected += gap * len(inside) / len(answers)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-6)


def test_the_calibration_error_of_nothing_is_nothing() -> None:
    assert expected_calibration_error(np.zeros((0, 2), np.float32), np.zeros(0, np.int64)) == 0.0


def test_pixels_in_the_type_that_a_model_takes() -> None:
    pixels = np.array([0, 1, 127, 128, 255], np.uint8)
    shifted = as_input(pixels, np.int8)
    assert (shifted.dtype, shifted.tolist()) == (np.int8, [-128, -127, -1, 0, 127])
    for dtype in (np.uint8, np.float32):
        same = as_input(pixels, dtype)
        assert (same.dtype, same.tolist()) == (dtype, pixels.tolist())


def test_the_exporter_reads_logits_as_the_device_does() -> None:
    classifier = TfliteClassifier(load_bundle(DEFAULT_MODEL))
    faces = classifier.bundle.selftest.inputs
    logits = run_flatbuffer(classifier.bundle.model, faces, Console(quiet=True), "")
    expected = np.stack([classifier.logits(face) for face in faces])
    step = float(classifier._output["quantization"][0])
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() <= 8.5 * step  # threads may share the work otherwise
    assert np.abs(logits - expected).mean() <= 2 * step


def test_a_model_that_runs_passes_its_trial() -> None:
    try_out(load_bundle(DEFAULT_MODEL).model, "int8")


def test_the_temperature_lies_between_a_quarter_and_four() -> None:
    # Ten times too sure, and ten times too unsure: the end of the range, no further.
    data = rows([E.ANGER, E.FEAR] * 10)
    truth = np.array([[1, -1], [-1, 1]] * 10, np.float32)
    assert fitted(PAIR, 0.1 * truth, data).temperature == 0.25
    assert fitted(PAIR, -9 * truth, data).temperature == 4.0


@pytest.mark.parametrize("temperature", [0.3, 0.5, 1.0, 1.7, 3.5])
def test_the_temperature_makes_confidence_frequency(temperature: float) -> None:
    # Of ten answers eight are right: at the best temperature the confidence is 0.8.
    data = rows([E.ANGER] * 8 + [E.FEAR] * 2 + [None] * 30)
    logits = np.concatenate([temperature * logits_at([0.8] * 10), 9 * logits_at([0.1] * 30)])
    head = fitted(PAIR, logits, data)
    assert head.temperature == pytest.approx(temperature, rel=0.006)
    assert head.temperature == round(head.temperature, 3)
    assert (head.name, head.labels) == (PAIR.name, PAIR.labels)


def test_without_labels_the_temperature_stays() -> None:
    head = Head("pair", PAIR.labels, 1.3)
    assert fitted(head, np.ones((2, 2), np.float32), rows([None, None])) == head


def test_a_comparison_in_full() -> None:
    # Two heads side by side, the second with a temperature; faces without a label count for the agreement alone.
    heads = [Head("other", (E.SADNESS, E.NEUTRAL, E.HAPPINESS), 1.0), Head("pair", (E.ANGER, E.FEAR), 2.0)]
    data = rows([E.ANGER, E.ANGER, E.FEAR, None])
    reference = np.zeros((4, 5), np.float32)
    reference[:, 3:] = 2 * logits_at([0.9, 0.9, 0.1, 0.9])
    ours = np.zeros((4, 5), np.float32)
    ours[:, 3:] = 2 * logits_at([0.8, 0.2, 0.2, 0.2])
    raw = 0.8**2 / (0.8**2 + 0.2**2)
    other, pair = compare("int8", ours, reference, data, heads)
    assert (other.n, other.drop, other.agreement, other.largest_difference) == (0, 0.0, 1.0, 0.0)
    largest = 2 * float(np.log(0.9 / 0.2))
    assert pair == Comparison(
        "int8",
        "pair",
        n=3,
        drop=33.3333,
        agreement=0.5,
        largest_difference=pytest.approx(max(largest, 2 * float(np.log(0.8 / 0.1))), abs=6e-4),
        # Three answers of one confidence, of which two are right.
        ece_raw=pytest.approx(raw - 2 / 3, abs=6e-5),
        ece=pytest.approx(0.8 - 2 / 3, abs=6e-5),
    )


def test_one_face_that_is_lost_is_all() -> None:
    (comparison,) = compare("int8", logits_at([0.2]), logits_at([0.8]), rows([E.ANGER]), [PAIR])
    assert (comparison.n, comparison.drop, comparison.agreement) == (1, 100.0, 0.0)


def row(variant: str = "int8", drop: float = 0.0, agreement: float = 1.0) -> Comparison:
    return Comparison(variant, "pair", 1234, drop, agreement, 0.5, 0.2, 0.1)


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
    other = Comparison("int8", "first", 7, -1.0, 0.5, 0.25, 0.3, 0.4)
    heads = [Head("first", PAIR.labels, 1.0), Head("pair", PAIR.labels, 1.25)]
    console.print(comparison_table([row(drop=0.25, agreement=0.98), other], heads))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    first = lines.index("first int8 7 -1.00 50.00% 0.250 30.00% 40.00% 1")
    assert first < lines.index("pair int8 1,234 +0.25 98.00% 0.500 20.00% 10.00% 1.25")


# --- convert ---------------------------------------------------------------------------------------------------------


def test_calibration_faces_are_dealt_in_turn_and_the_same_in_every_run() -> None:
    labels = [E.ANGER] * 40 + [E.FEAR] * 3 + [None] * 20 + [E.SADNESS] * 10
    data = rows(labels)
    chosen = calibration_faces(data, PAIR, 10)
    assert np.bincount(chosen.fer2013).tolist() == [7, 0, 3]  # angers, disgusts, fears
    again = calibration_faces(data, PAIR, 10)
    numbers = chosen.images[:, 0, 0, 0].tolist()
    assert numbers == again.images[:, 0, 0, 0].tolist()
    assert len(set(numbers)) == 10
    assert max(numbers[0::2][:3]) > 9  # not merely the first of the file
    assert len(calibration_faces(data, PAIR, 500)) == 43


def test_calibration_wants_faces_of_several_labels_where_a_head_has_several() -> None:
    one_label = rows([E.ANGER] * 5)
    with pytest.raises(DataError, match="one label of the head 'pair'"):
        calibration_faces(one_label, PAIR, 3)
    assert len(calibration_faces(one_label, Head("single", (E.ANGER,), 1.0), 3)) == 3
    with pytest.raises(DataError, match="nothing to calibrate on"):
        calibration_faces(rows([None, E.FEAR]), Head("single", (E.ANGER,), 1.0), 3)


@pytest.mark.parametrize("shape_hw", [(48, 48), (40, 60), (61, 35)])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
def test_a_picture_that_is_framed_already_goes_in_whole(shape_hw: tuple[int, int], margin: float) -> None:
    data = rows([E.ANGER, E.FEAR], shape_hw)
    data.images[:] = np.random.default_rng(0).integers(0, 256, data.images.shape)
    assert np.array_equal(as_tensors(data, shape_hw, margin), data.images)


# --- equalise --------------------------------------------------------------------------------------------------------


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


def dense_pair(first: np.ndarray, bias: np.ndarray, second: np.ndarray) -> keras.Model:
    """Two dense layers with ReLU between."""
    model = keras.Sequential(
        [
            keras.Input((first.shape[0],)),
            layers.Dense(first.shape[1], activation="relu", name="first"),
            layers.Dropout(0.5),
            layers.Dense(second.shape[1], name="second"),
        ]
    )
    model.get_layer("first").set_weights([first, bias])
    model.get_layer("second").set_weights([second, np.array([3.0] * second.shape[1])])
    return model


def test_two_layers_share_the_geometric_mean_of_their_ranges() -> None:
    # Ranges 8 and 2 give 4 on both sides, 1 and 9 give 3; a channel that is dead on one side stays as it is.
    model = dense_pair(
        np.array([[8.0, -1.0, 0.0, 5.0], [-2.0, 0.5, 0.0, 1.0]]),
        np.array([2.0, 3.0, 1.0, 7.0]),
        np.array([[2.0, 1.0], [-9.0, 3.0], [4.0, 4.0], [0.0, 0.0]]),
    )
    assert find_pairs(model) == ([("first", "second")], [])
    equalised = equalise(model)
    kernel, bias = equalised.get_layer("first").get_weights()
    np.testing.assert_allclose(kernel, [[4, -3, 0, 5], [-1, 1.5, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(bias, [1, 9, 1, 7], rtol=1e-6)
    kernel, bias = equalised.get_layer("second").get_weights()
    np.testing.assert_allclose(kernel, [[4, 2], [-3, 1], [4, 4], [0, 0]], rtol=1e-6)
    assert bias.tolist() == [3, 3]


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
        """An int8 that gives 0.5 too much on channel 0 in every other picture, and 3 too little on channel 1."""
        exact = parts[-1].predict(tensors.astype(np.float32), verbose=0)
        if exact.ndim == 4:
            exact[::2, ..., 0] += 0.5
            exact[..., 1] -= 3
        return exact

    monkeypatch.setattr("export.equalise.run_flatbuffer", run)
    corrected = correct_bias(model, faces, lambda part: parts.append(part) or b"")
    np.testing.assert_allclose(corrected.get_layer("conv").get_weights()[1], [0.75, 5.0], rtol=1e-4)
    assert [len(part.outputs[0].shape) for part in parts] == [4, 2]
    assert parts[0].get_layer("conv").activation is keras.activations.linear
