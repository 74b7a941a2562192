"""The recurrent head: its equations, time, and the bundle that carries it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_parts import drawn_weights, sequence_bundle, with_second_output
from test_recognizer import Boxes

import edge_fer
from edge_fer.cli import main
from edge_fer.core import Detection, Expression, FaceBox, Frame, Prediction
from edge_fer.errors import BundleError, ConfigError
from edge_fer.events import Run
from edge_fer.model.bundle import Bundle, load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.recognizer import Recognizer
from edge_fer.temporal.affect import IntensitySpec
from edge_fer.temporal.recurrent import (
    GATES,
    Kind,
    Recurrence,
    RecurrentHead,
    RecurrentSpec,
    Weights,
    replay,
)
from edge_fer.temporal.smoothing import ExpressionFilter, Smoothing

KINDS: tuple[Kind, ...] = get_args(Kind)
SCHEMA = json.loads((Path(edge_fer.__file__).parent / "model" / "metadata.schema.json").read_text(encoding="utf-8"))


def still_gates(kind: Kind, candidate: float = 1.0, gates: float = 0.0) -> RecurrentHead:
    """A head of one unit that hears nothing: all gates are sigmoid(gates), and the candidate is tanh(candidate)."""
    columns = GATES[kind]
    bias = np.full((2, columns), 0.0, np.float32)
    bias[0] = gates
    bias[0, 2] = candidate
    none, one = np.zeros((1, columns), np.int8), np.ones(columns, np.float32)
    weights = Weights(none, one, none, one, bias, np.ones((1, 1), np.int8), one[:1], np.zeros(1, np.float32))
    return RecurrentHead(RecurrentSpec(kind, 1, 1, 1.0, 0), weights)


def head_of(kind: Kind, seed: int = 0) -> RecurrentHead:
    weights = drawn_weights(kind, 8, 12, 5, seed)
    spec = RecurrentSpec(kind, 8, 12, 0.02, -128)
    weights.check(spec, 5, "drawn")
    return RecurrentHead(spec, weights)


@pytest.mark.parametrize(("part", "kept"), [(0.25, 0.5**0.25), (0.5, 0.5**0.5), (1.0, 0.5), (2.0, 0.25), (3.0, 0.125)])
def test_a_gru_forgets_by_the_time_that_passes(part: float, kept: float) -> None:
    head = still_gates("gru")
    state = head.advanced(head.started(), np.zeros(1, np.float32), part / 30)
    assert state[0] == pytest.approx((1 - kept) * math.tanh(1), abs=1e-6)
    assert head.logits(state)[0] == pytest.approx(state[0])


@pytest.mark.parametrize(("part", "kept"), [(0.25, 0.5**0.25), (0.5, 0.5**0.5), (1.0, 0.5), (2.0, 0.25), (3.0, 0.125)])
def test_an_lstm_forgets_and_takes_in_by_the_time_that_passes(part: float, kept: float) -> None:
    head = still_gates("lstm")
    output, cell = head.advanced(head.started(), np.zeros(1, np.float32), part / 30)
    assert cell[0] == pytest.approx((1 - kept) * math.tanh(1), abs=1e-6)  # i / (1 - f) is 1
    assert output[0] == pytest.approx(0.5 * math.tanh(cell[0]), abs=1e-6)


def test_an_lstm_that_forgets_nothing_adds_up() -> None:
    head = still_gates("lstm", gates=200.0)
    _, cell = head.advanced(head.started(), np.zeros(1, np.float32), 4 / 30)
    assert cell[0] == pytest.approx(4 * math.tanh(1), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gates_that_are_shut_do_not_overflow(kind: Kind) -> None:
    head = still_gates(kind, gates=-1e4)
    state = head.advanced(head.started(), np.zeros(1, np.float32), 0.05)
    assert np.isfinite(state).all()


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 50),
    rates=st.tuples(st.sampled_from([5, 6, 10, 15, 30]), st.sampled_from([5, 6, 10, 15, 30])),
)
@settings(max_examples=40, deadline=None)
def test_held_faces_give_the_same_state_at_5_15_and_30_hz(kind: Kind, seed: int, rates: tuple[int, int]) -> None:
    faces = np.random.default_rng(seed).random((4, 12)).astype(np.float32)
    ends = [after_a_while(head_of(kind, seed), faces, hz) for hz in rates]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-4)


def after_a_while(head: RecurrentHead, faces: np.ndarray, hz: int) -> np.ndarray:
    """Logits after each face was held for a second, at some rate."""
    track = Recurrence(head)
    logits = track.update(faces[0], 0.0)
    for face, _ in itertools.product(faces, range(hz)):
        logits = track.update(face, 1 / hz)
    return logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hz", [2, 7, 12, 24, 25, 50, 60, 90, 120])
def test_other_rates_up_to_120_hz_answer_nearly_alike(kind: Kind, hz: int) -> None:
    faces = np.random.default_rng(3).random((4, 12)).astype(np.float32)
    for seed in range(5):
        head = head_of(kind, seed)
        at_30, other = (after_a_while(head, faces, rate) for rate in (30, hz))
        assert np.abs(at_30 - other).max() < 0.05 * max(1.0, np.abs(at_30).max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_a_second_is_answered_by_itself(kind: Kind) -> None:
    head, faces = head_of(kind), np.random.default_rng(3).random((4, 12)).astype(np.float32)
    track = Recurrence(head)
    for face in faces:
        assert np.array_equal(track.update(face, 1.0), Recurrence(head).update(face, 0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_time_that_does_not_advance_changes_nothing(kind: Kind) -> None:
    track, faces = Recurrence(head_of(kind)), np.random.default_rng(0).random((2, 12)).astype(np.float32)
    first = track.update(faces[0], 0.0)
    assert np.array_equal(track.update(faces[1], 0.0), first)
    assert not np.array_equal(track.update(faces[1], 0.05), first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gap_longer_than_the_memory_begins_anew(kind: Kind) -> None:
    head, faces = head_of(kind), np.random.default_rng(0).random((2, 12)).astype(np.float32)
    track = Recurrence(head)
    track.update(faces[0], 0.0)
    assert np.array_equal(track.update(faces[1], 1.0), Recurrence(head).update(faces[1], 0.0))
    assert np.array_equal(track.update(faces[0], 1e9), Recurrence(head).update(faces[0], 0.0))
    assert not np.array_equal(track.update(faces[1], 0.9), Recurrence(head).update(faces[1], 0.0))


def test_a_sequence_is_replayed_frame_by_frame() -> None:
    head, faces = head_of("gru"), np.random.default_rng(0).random((3, 12)).astype(np.float32)
    track = Recurrence(head)
    expected = [track.update(face, 0.05) for face in faces]
    np.testing.assert_array_equal(replay(head, faces, 0.05), expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"units": 0}, "units must be 1 to 128"),
        ({"units": 129}, "units"),
        ({"embedding": 0}, "embedding must be"),
        ({"scale": 0.0}, "scale"),
        ({"scale": math.nan}, "scale"),
        ({"zero_point": 256}, "zero_point"),
        ({"step_s": 0.0}, "step_s"),
        ({"step_s": math.inf}, "step_s"),
        ({"memory_s": 0.01}, "memory_s"),
        ({"memory_s": 1000.0}, "memory_s must be 0.0333333 to 10"),
    ],
)
def test_what_a_head_cannot_be(changes: dict[str, Any], words: str) -> None:
    spec = dataclasses.replace(RecurrentSpec("gru", 8, 12, 0.02, -128), **changes)
    with pytest.raises(ConfigError, match=words):
        spec.check("it")


# The bundle


@pytest.fixture(scope="module")
def bundles() -> dict[Kind, Bundle]:
    return {kind: sequence_bundle(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_bundle_is_read_back_and_verified(
    kind: Kind, bundles: dict[Kind, Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "it.tflite"
    bundles[kind].write(path)
    read = load_bundle(path)
    assert read.metadata == bundles[kind].metadata and read.recurrent and bundles[kind].recurrent
    for name, array in bundles[kind].recurrent.arrays().items():
        assert np.array_equal(read.recurrent.arrays()[name], array)
    assert read.to_bytes() == path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        jsonschema.validate(json.loads(archive.read("metadata.json")), SCHEMA)
    assert main(["models", "verify", str(path)]) == 0
    assert "self-test of graph and recurrent head" in capsys.readouterr().out
    assert main(["models", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert f"recurrent head {kind}, 16 units on 44 numbers, steps of 33.3 ms, memory 1 s" in shown
    assert "intensity by a ranking regressor" in shown
    assert main(["models", "extract", str(path), "-o", str(tmp_path / "parts")]) == 0
    assert (tmp_path / "parts" / "arrays.npz").is_file()


def test_the_graph_answers_as_it_did(bundles: dict[Kind, Bundle]) -> None:
    nano = TfliteClassifier(load_bundle("nano"))
    ours = TfliteClassifier(bundles["gru"])
    for face in nano.bundle.selftest.inputs:
        assert np.array_equal(nano.logits(face), ours.logits(face))
        (raw,) = ours.classify([face])
        assert raw == nano.classify([face])[0] and raw.embedding is not None and raw.embedding.shape == (44,)
        assert nano.classify([face])[0].embedding is None


def test_both_sides_of_a_face_are_averaged(bundles: dict[Kind, Bundle]) -> None:
    once, twice = TfliteClassifier(bundles["gru"]), TfliteClassifier(bundles["gru"], tta=True)
    face = once.bundle.selftest.inputs[0]
    sides = [once.classify([one])[0].embedding for one in (face, face[:, ::-1])]
    np.testing.assert_allclose(twice.classify([face])[0].embedding, np.mean(sides, axis=0), rtol=1e-6)


def test_as_trained_sets_the_head_aside(bundles: dict[Kind, Bundle]) -> None:
    assert TfliteClassifier(bundles["gru"], decision="as-trained").new_aggregate() is None
    assert TfliteClassifier(load_bundle("nano")).new_aggregate() is None
    assert TfliteClassifier(bundles["gru"]).new_aggregate() is not None


def test_faces_have_a_state_each(bundles: dict[Kind, Bundle]) -> None:
    classifier = TfliteClassifier(bundles["gru"])
    first, second = (classifier.classify([face])[0] for face in classifier.bundle.selftest.inputs[:2])
    one, other = classifier.new_aggregate(), classifier.new_aggregate()
    assert one and other
    alone = one(first, 0.0)
    other(second, 0.0)
    other(second, 0.3)
    assert one(first, 0.0) == alone
    assert sum(alone.values()) == pytest.approx(1, abs=1e-5) and tuple(alone) == tuple(first.probabilities)


def test_a_face_that_leaves_and_returns_has_forgotten(bundles: dict[Kind, Bundle]) -> None:
    """It is a new track after half a second, and its first answer that of a face that was never seen."""
    gray = np.random.default_rng(0).integers(0, 255, (480, 640)).astype(np.uint8)
    detector = Boxes(FaceBox(100, 100, 100, 100))
    recognizer = Recognizer(detector, TfliteClassifier(bundles["gru"]))
    recognizer._search.find = lambda *_: [(None, Detection(box)) for box in detector.boxes]  # type: ignore[method-assign]

    def seen(seq: int, time_s: float) -> list[tuple[int, dict[Expression, float]]]:
        result = recognizer.recognize(Frame(gray, seq, time_s, "visitor"))
        return [(face.track, dict(face.prediction.probabilities)) for face in result.faces]

    ((track, first),) = seen(0, 0.0)
    gray = np.roll(gray, 7, axis=1)  # another face in the same place
    assert [seen(seq, seq / 10) for seq in range(1, 4)][-1][0][1] != first
    detector.boxes = []
    assert [seen(seq, seq / 10) for seq in range(4, 12)] == [[]] * 8
    detector.boxes, gray = [FaceBox(100, 100, 100, 100)], np.roll(gray, -7, axis=1)
    assert seen(12, 1.2) == [(track + 1, first)]


@pytest.mark.parametrize("times_s", [[5.0], [5.0, 4.9, 4.8], [5.0, 5.0, 5.0], [5.0, 0.0, 5.1]])
def test_one_frame_and_time_that_runs_backwards(bundles: dict[Kind, Bundle], times_s: Sequence[float]) -> None:
    classifier = TfliteClassifier(bundles["lstm"])
    raws = classifier.classify(list(classifier.bundle.selftest.inputs[: len(times_s)]))
    steady = ExpressionFilter(Smoothing(), classifier.new_aggregate())
    answers = []
    for raw, time_s in zip(raws, times_s, strict=True):
        steady.update(raw, time_s)
        assert steady.prediction and sum(steady.prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
        answers.append(steady.prediction)
    advanced = max(times_s) > times_s[0]
    assert (answers[-1] == answers[0]) == (not advanced)


def test_intensity_is_told_by_the_bundle_and_averaged() -> None:
    spec = IntensitySpec((1.0, -1.0), 0.5)
    assert spec.of(np.array([0.0, 0.5], np.float32)) == pytest.approx(0.5)
    assert spec.of(np.array([1.5, 0.0], np.float32)) == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
    assert 0 <= spec.of(np.array([-1e6, 0], np.float32)) < spec.of(np.array([1e6, 0], np.float32)) <= 1
    glad, calm = {Expression.NEUTRAL: 0.1, Expression.HAPPINESS: 0.9}, {Expression.NEUTRAL: 0.9, Expression.FEAR: 0.1}
    steady = ExpressionFilter(Smoothing(time_constant_s=0.2), intensity=spec)
    low, high = np.array([-1, 0], np.float32), np.array([2, 0], np.float32)
    steady.update(Prediction(glad, low), 0.0)
    assert steady.intensity == pytest.approx(spec.of(low))
    steady.update(Prediction(glad, high), 0.2)
    keep = math.exp(-1)
    assert steady.intensity == pytest.approx(keep * spec.of(low) + (1 - keep) * spec.of(high))
    resting = ExpressionFilter(Smoothing(), intensity=spec)
    resting.update(Prediction(calm, high), 0.0)
    assert resting.intensity == 0
    proxy = ExpressionFilter(Smoothing())
    proxy.update(Prediction(glad, high), 0.0)
    assert proxy.intensity is None


def test_events_have_the_intensity_of_the_bundle(bundles: dict[Kind, Bundle], scene: np.ndarray) -> None:
    recognizer = Recognizer(Boxes(FaceBox(100, 100, 100, 100)), TfliteClassifier(bundles["gru"]))
    result = recognizer.recognize(Frame(scene, 0, 0.0, "clip"))
    (face,) = result.faces
    (event,) = Run().to_events(result)
    assert face.intensity is not None
    assert event["intensity"] == round(face.intensity, 4)


# Parts that do not fit


def test_a_bare_graph_that_gives_more_than_is_asked_for(tmp_path: Path) -> None:
    nano = load_bundle("nano")
    path = tmp_path / "it.tflite"
    Bundle.new(with_second_output(nano.model), nano.metadata, nano.selftest).write(path)
    refused(path, "gives 2 outputs and its metadata has a use for 1")


def test_a_graph_without_an_embedding(bundles: dict[Kind, Bundle], tmp_path: Path) -> None:
    ours, nano = bundles["gru"], load_bundle("nano")
    path = tmp_path / "it.tflite"
    Bundle.new(nano.model, ours.metadata, ours.selftest, ours.recurrent).write(path)
    refused(path, "gives 1 outputs and its metadata has a use for 2")


Change = Callable[[Bundle], Bundle]


def _metadata(**changes: Any) -> Change:
    return lambda bundle: bundle.with_metadata(**changes)


def _spec(**changes: Any) -> Change:
    def act(bundle: Bundle) -> Bundle:
        assert bundle.metadata.recurrent
        return bundle.with_metadata(recurrent=dataclasses.replace(bundle.metadata.recurrent, **changes))

    return act


def _weights(**changes: Any) -> Change:
    return lambda bundle: dataclasses.replace(bundle, recurrent=dataclasses.replace(bundle.recurrent, **changes))  # type: ignore[type-var]


def _selftest(**changes: Any) -> Change:
    return lambda bundle: dataclasses.replace(bundle, selftest=dataclasses.replace(bundle.selftest, **changes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_metadata(recurrent=None), "has a part of a recurrent head"),
        (lambda bundle: dataclasses.replace(bundle, recurrent=None), "has a part of a recurrent head"),
        (_metadata(decision=None, doubt=None), "there is none"),
        (_spec(units=8), "does not fit its metadata: inputs is int8 (44, 48), not int8 (44, 24)"),
        (_spec(embedding=40), "inputs is int8 (44, 48), not int8 (40, 48)"),
        (_spec(kind="lstm"), "does not fit its metadata"),
        (_spec(scale=0.5), "a recurrent head for another network"),
        (_spec(zero_point=3), "a recurrent head for another network"),
        (_spec(memory_s=0.5), "a logit of its recurrent head is"),
        (_weights(output_bias=np.zeros(6, np.float32)), "output_bias is float32 (6,), not float32 (7,)"),
        (_weights(bias=np.zeros((2, 48))), "bias is float64"),
        (_weights(bias=np.full((2, 48), np.nan, np.float32)), "not all of it are numbers"),
        (_weights(output_bias=np.full(7, 0.5, np.float32)), "a logit of its recurrent head is"),
        (_selftest(sequence=None), "no self-test of its recurrent head"),
        (_selftest(sequence=np.zeros((4, 3), np.float32)), "no self-test of its recurrent head"),
        (_selftest(sequence=np.full((4, 7), np.nan)), "a logit of its recurrent head is nan off"),
        (_metadata(intensity=IntensitySpec((1.0, 2.0), 0.0)), "tells the intensity from 2 numbers"),
        (_metadata(intensity=IntensitySpec((), 0.0)), "intensity must have a number for each"),
        (_metadata(intensity=IntensitySpec((math.nan,), 0.0)), "intensity must have a number for each"),
    ],
)
def test_parts_that_do_not_fit(bundles: dict[Kind, Bundle], tmp_path: Path, change: Change, words: str) -> None:
    path = tmp_path / "it.tflite"
    change(bundles["gru"]).write(path)
    refused(path, words)


def refused(path: Path, words: str) -> None:
    with pytest.raises(BundleError) as caught:
        TfliteClassifier(load_bundle(path))
    message = str(caught.value)
    assert words in message and "\n" not in message and message.endswith("Export it again.")


def test_the_command_says_it_in_a_sentence(
    bundles: dict[Kind, Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "it.tflite"
    _spec(scale=0.5)(bundles["gru"]).write(path)
    for arguments in (["models", "verify", str(path)], ["run", "--camera", "demo", "--model", str(path)]):
        assert main(arguments) == 65
        out, err = capsys.readouterr()
        assert err.count("\n") == 1 and "for another network" in err and not out
