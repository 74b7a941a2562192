"""Networks on sequences: what each method is known for, by closed forms and toys; and the command that trains them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from faces_csv import pattern
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_fer.core import Expression as E
from edge_fer.errors import DataError, UsageError
from training import models
from training.__main__ import main
from training.losses.verification import Verification
from training.sequences import OFFLINE_METHODS, c3d, mscnn, phrnn, ppdn, trajectories, trial
from training.sequences.branch import branch, cut
from training.sequences.clips import Clips, Examples, load_clips, split, views
from training.sequences.fit import mmac

Floats = np.ndarray


def write_sequences(home: Path, people: int, names: tuple[str, ...] = ("anger", "happy", "surprise")) -> Path:
    """Class folders as of CK+48: of each person a sequence of three frames for each name; a bar grows brighter."""
    noise = np.random.default_rng(5)
    for person in range(people):
        for number, name in enumerate(names, 1):
            (home / name).mkdir(exist_ok=True, parents=True)
            for frame in range(3):
                image = (pattern(2 * number, noise) * (0.6 + 0.2 * frame)).astype(np.uint8)
                cv2.imwrite(str(home / name / f"S{person:03}_{number:03}_{frame + 10:08}.png"), image)
    return home


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequences(tmp_path_factory.mktemp("ck48"), 4)


def gradient(act: Callable[..., Any], *values: Floats) -> list[Floats]:
    """Of the sum of what ``act`` gives, with respect to each value; zeros where nothing comes through."""
    import tensorflow as tf

    given = [tf.constant(one, tf.float32) for one in values]
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = keras.ops.sum(act(*given))
    found = tape.gradient(loss, given, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [one.numpy() for one in found]


# Clips


def test_clips_end_at_the_peak_and_nobody_is_in_two_folds(sequences: Path) -> None:
    clips = load_clips(sequences, k=2)
    assert clips.images.shape == (12, 3, 48, 48, 1)
    means = clips.images.mean(axis=(2, 3, 4))
    assert (np.diff(means, axis=1) > 0).all()
    assert set(clips.labels) == {E.ANGER, E.HAPPINESS, E.SURPRISE}
    assert all(len(np.unique(clips.folds[clips.subjects == who])) == 1 for who in np.unique(clips.subjects))
    training, test = split(clips, views(clips.images), 0)
    assert not set(training.subjects) & set(test.subjects)
    assert training.inputs.shape[1:] == (2, 3, 48, 48, 1)
    np.testing.assert_array_equal(training.inputs[:, 1, :, :, 0], training.inputs[:, 0, :, :, -1])


@pytest.mark.parametrize(("frames", "wanted"), [(2, [0, 2]), (3, [0, 1, 2]), (5, [0, 0, 1, 2, 2])])
def test_any_length_is_brought_to_one(sequences: Path, frames: int, wanted: list[int]) -> None:
    three, other = load_clips(sequences, k=2).images, load_clips(sequences, k=2, frames=frames).images
    np.testing.assert_array_equal(other, three[:, wanted])


def test_synthetic_clips_grow_from_a_person_to_the_peak() -> None:
    # Of one person three expressions, of another two: the second is left out.
    peaks = np.array([100, 10, 30, 50, 60], np.uint8)
    images = np.repeat(peaks, 3 * 2 * 2).reshape(5, 3, 2, 2, 1)
    who, what = np.array(["a", "a", "a", "b", "b"]), np.array([0, 1, 2, 0, 1])
    clips = Clips(images, what, who, np.zeros(5, np.int64), tuple(E)[:3]).weakened()
    assert clips.subjects.tolist() == ["a", "a", "a"]
    assert clips.images[0, :, 0, 0, 0].tolist() == [52, 76, 100]  # 0.4 and 0.7 of 100, the rest of (10 + 30) / 2
    with pytest.raises(DataError, match="three expressions"):
        Clips(images[3:], what[3:], who[3:], np.zeros(2, np.int64), tuple(E)[:3]).weakened()


def test_a_sequence_of_one_frame_is_refused(tmp_path: Path) -> None:
    home = write_sequences(tmp_path / "set", 3)
    for name in ("S001_002_00000010.png", "S001_002_00000011.png"):
        (home / "happy" / name).unlink()
    with pytest.raises(DataError, match=r"Sequence S001_002 has one frame alone"):
        load_clips(home, k=2)


def test_one_expression_is_refused(tmp_path: Path) -> None:
    home = write_sequences(tmp_path / "set", 3, ("happy",))
    with pytest.raises(DataError, match=r"All sequences show happiness: there is nothing"):
        load_clips(home, k=2)


# The branch of a frame


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that goes through three sizes, as it might be trained."""
    path = tmp_path_factory.mktemp("network") / "model.keras"
    keras.utils.set_random_seed(1)
    models.build_residual([[4, 1], [6, 2], [6, 1], [8, 2], [8, 1]], 0.1, 15).save(path)
    return path


def test_a_branch_says_what_the_network_saw(network: Path, chance: np.random.Generator) -> None:
    trunk, whole = cut(network), models.load(network)
    images = chance.integers(0, 256, (2, 3, 48, 48, 1)).astype(np.uint8)
    inputs = trunk.inputs(images)
    assert inputs.shape == (2, 2, 3, 48, 48, 4)
    embedding = keras.Model(whole.input, models.embedding(whole)).predict(images[:, 0].astype(np.float32), verbose=0)
    for deeper in (0, 2):  # what is added behind begins as the identity
        said = branch(trunk, 3, deeper).predict(inputs[:, 0, 0], verbose=0)
        np.testing.assert_allclose(said["embedding"], embedding, rtol=1e-4, atol=1e-5)
        assert said["logits"].shape == (2, 3)


def test_a_cascade_learns_from_the_top(network: Path) -> None:
    core = branch(cut(network), 3, deeper=2)
    counts = []
    for fraction in (0.0, 0.5, 1.0):
        ppdn.unfreeze(core, fraction)
        learning = [layer.trainable for layer in core.layers if layer.weights]
        counts.append(sum(learning))
        assert learning == sorted(learning)  # below still, above learning
    assert counts == [5, 9, 13]  # two blocks of two, and the logits; then half of the eight that were taken over


def test_several_trunks_are_refused(tmp_path: Path) -> None:
    models.build_residual([[4, 2], [4, 2]], 0.1, 3, inputs=("gray", "lbp"), fusion="late").save(tmp_path / "m.keras")
    with pytest.raises(DataError, match="2 trunks"):
        cut(tmp_path / "m.keras")


# PPDN


def features(peak: Any, weak: Any) -> dict[str, Any]:
    return {f"{name}_{layer}": one for name, one in (("peak", peak), ("weak", weak)) for layer in ppdn.LAYERS}


def test_piloting_is_a_squared_distance_whose_gradient_spares_the_peak() -> None:
    peak, weak = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 4.0], [3.0, 0.0]])
    loss = ppdn.PeakPiloting(weight=0.5)({}, features(keras.ops.array(peak), keras.ops.array(weak)))
    np.testing.assert_allclose(loss, 0.5 * np.array([5.0, 9.0]))
    for suppress, of_peak in ((True, 0.0), (False, 2 * (peak - weak))):
        task = ppdn.PeakPiloting(suppress=suppress)
        own, other = gradient(lambda a, b, task=task: task({}, features(a, b)), peak, weak)
        np.testing.assert_allclose(own, np.zeros((2, 2)) + of_peak)
        np.testing.assert_allclose(other, 2 * (weak - peak))


def toy() -> keras.Model:
    """A branch whose embedding is its input times 2, and whose logits are that."""
    inputs = keras.Input((2,))
    double = keras.layers.Dense(2, use_bias=False, kernel_initializer=keras.initializers.Identity(2.0))
    embedding = double(inputs)
    one = keras.layers.Dense(2, use_bias=False, kernel_initializer=keras.initializers.Identity(1.0))
    return keras.Model(inputs, {"embedding": embedding, "logits": one(embedding)})


def test_the_loss_of_a_pair_by_hand() -> None:
    network = ppdn.pair_network(toy(), ppdn.PeakPiloting())
    inputs = {"peak": np.array([[1.0, 0.0]], np.float32), "weak": np.array([[0.5, 0.0]], np.float32)}
    targets = {"expression": np.array([[1.0, 0.0]], np.float32)}
    loss = network.compute_loss(y=targets, y_pred=network(inputs))
    # Logits (2, 0) and (1, 0); embeddings are 1 apart.
    expected = np.log(1 + np.exp(-2)) + np.log(1 + np.exp(-1)) + 1.0
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_nothing_but_its_own_label_moves_the_peak() -> None:
    """With the piloting heavy, the gradient at the peak's input is that of its cross entropy alone, to the bit."""
    target = {"expression": np.array([[1.0, 0.0]], np.float32)}
    peak, weak = np.array([[0.2, 0.1]]), np.array([[-3.0, 2.0]])
    found = []
    for piloting in (None, ppdn.PeakPiloting(weight=100.0)):
        network = ppdn.pair_network(toy(), piloting)
        found.append(
            gradient(lambda a, b, n=network: n.compute_loss(y=target, y_pred=n({"peak": a, "weak": b})), peak, weak)
        )
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert np.abs(found[1][1]).max() > 100 * np.abs(found[0][1]).max()


def test_pairs_are_of_one_clip() -> None:
    inputs = np.arange(2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3, 1)  # clip, view and frame can be told
    drawn, targets = ppdn.pairs(Examples(inputs, np.array([0, 1]), np.array(["a", "b"]), 2), np.random.default_rng(0))
    peak, weak = drawn["peak"][:, 0].astype(int), drawn["weak"][:, 0].astype(int)
    assert len(peak) == 4
    assert (peak % 3 == 2).all()
    assert sorted(weak % 3) == [0, 0, 1, 1]
    np.testing.assert_array_equal(peak // 3, weak // 3)  # of one clip and one view
    np.testing.assert_array_equal(targets["expression"].argmax(axis=1), peak // 6)


def test_the_gap_by_hand() -> None:
    embedding = np.array([[[1.0], [0.0]], [[4.0], [4.0]]])  # weak and peak of two clips
    assert ppdn.gap(embedding) == pytest.approx(0.5 / 16)
    assert ppdn.gap(10 * embedding) == pytest.approx(0.5 / 16)


# MSCNN


def verified(alike: list[int], first: Any, second: Any, **how: float) -> Floats:
    outputs = {"first_embedding": keras.ops.array(first), "second_embedding": keras.ops.array(second)}
    loss = Verification(**how)({"alike": keras.ops.array(np.array(alike, np.float32)[:, np.newaxis])}, outputs)
    found: Floats = keras.ops.convert_to_numpy(loss)
    return found


def test_verification_of_two_pairs_by_hand() -> None:
    first, second = [[2.0, 0.0], [0.0, 3.0]], [[0.0, 1.0], [0.0, 5.0]]  # at right angles; the same direction
    squared = np.array([2.0, 0.0])
    np.testing.assert_allclose(verified([1, 1], first, second), squared / 2, atol=1e-5)
    pushed = np.maximum(0, 1.5 - np.sqrt(squared)) ** 2 / 2
    np.testing.assert_allclose(verified([0, 0], first, second, margin=1.5, weight=3.0), 3 * pushed, atol=1e-4)


def test_what_is_alike_comes_together_and_what_is_not_goes_apart() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    second[3:] = first[3:] + 0.1 * second[3:]
    alike = np.array([[1.0]] * 3 + [[0.0]] * 3, np.float32)

    def far() -> Floats:
        units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (first, second)]
        return np.linalg.norm(units[0] - units[1], axis=1)

    before = far()
    for _ in range(300):
        own, other = gradient(
            lambda a, b: Verification()({"alike": alike}, {"first_embedding": a, "second_embedding": b}), first, second
        )
        first, second = first - 0.1 * own, second - 0.1 * other
    assert (far()[:3] < 0.2 * before[:3]).all()
    assert (far()[3:] > 0.9).all()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), min_size=2, max_size=12).filter(
        lambda rows: len({what for what, _ in rows}) > 1
    )
)
def test_partners_are_people_alike_or_one_person_otherwise(rows: list[tuple[int, str]]) -> None:
    truth, who = np.array([what for what, _ in rows]), np.array([name for _, name in rows])
    first, second = mscnn.partners(truth, who, np.random.default_rng(0))
    count = len(rows)
    np.testing.assert_array_equal(truth[first[:count]], truth[second[:count]])
    assert (truth[first[count:]] != truth[second[count:]]).all()
    for at in range(count):
        others = truth[(who != who[at])]
        assert (who[second[at]] != who[at]) == (truth[at] in others)
        several = len(np.unique(truth[who == who[at]])) > 1
        assert (who[second[count + at]] == who[at]) == several


def test_what_is_asked_decides_what_is_alike() -> None:
    truth, who = np.array([0, 1, 0, 1]), np.array(["a", "a", "b", "b"])
    examples = Examples(np.zeros((4, 2, 3, 5), np.float32), truth, who, 2)
    for asked, wanted in (("expression", [1] * 4 + [0] * 4), ("identity", [0] * 4 + [1] * 4)):
        inputs, targets = mscnn.pairs(examples, asked, np.random.default_rng(0))  # type: ignore[arg-type]
        assert targets["alike"][:, 0].tolist() == wanted
        assert inputs["first"].shape == inputs["second"].shape == (8, 5)
        assert targets["first"].shape == targets["second"].shape == (8, 2)


def test_distances_by_hand() -> None:
    embedding = np.array([[[9.0, 9.0], [2.0, 0.0]], [[9.0, 9.0], [0.0, 1.0]], [[9.0, 9.0], [-3.0, 0.0]]])
    found = mscnn.distances(embedding, np.array([0, 0, 1]), np.array(["a", "b", "a"]))
    expected = [np.sqrt(2), 2.0, np.sqrt(2)]  # the last frame alone, of length 1
    assert list(found.values()) == pytest.approx(expected)
    alone = mscnn.distances(embedding[:2], np.array([0, 0]), np.array(["a", "a"]))
    assert np.isnan(list(alone.values())).all()


# C3D


def test_weights_are_shared_along_time(chance: np.random.Generator) -> None:
    keras.utils.set_random_seed(1)
    short, long = c3d.build((3, 16, 16, 1), 4), c3d.build((9, 16, 16, 1), 4)
    assert short.count_params() == long.count_params()
    assert mmac(long) == pytest.approx(3 * mmac(short), rel=1e-3)
    long.set_weights(short.get_weights())
    first = next(layer for layer in long.layers if isinstance(layer, keras.layers.Conv3D))
    seen = keras.Model(long.input, first.output)
    clip = np.full((1, 9, 16, 16, 1), 127.5, np.float32)  # what padding looks like behind the rescaling
    clip[:, 2:5] = chance.uniform(0, 255, (1, 3, 16, 16, 1))
    later = np.roll(clip, 3, axis=1)
    np.testing.assert_allclose(
        np.roll(seen.predict(clip, verbose=0), 3, axis=1), seen.predict(later, verbose=0), atol=1e-4
    )


def test_time_counts() -> None:
    keras.utils.set_random_seed(1)
    network = c3d.build((3, 16, 16, 1), 4)
    clip = np.zeros((1, 3, 16, 16, 1), np.float32)
    clip[:, 2, :, :8] = 255
    # The dense layer reads a mean over time: with kernels of one frame both would be the same.
    turned, straight = network.predict(clip[:, ::-1], verbose=0), network.predict(clip, verbose=0)
    assert np.abs(turned - straight).max() > 1e-4


def test_clips_are_shifted_with_their_edges_repeated() -> None:
    clips = np.arange(2 * 1 * 2 * 3, dtype=np.float32).reshape(2, 1, 2, 3, 1)
    moved = c3d.shifted(clips, np.array([[1, 0], [0, -1]]))[..., 0]
    assert moved[0, 0].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert moved[1, 0].tolist() == [[7, 8, 8], [10, 11, 11]]


# PHRNN


def test_parts_and_their_points() -> None:
    assert [at for where in trajectories.PARTS.values() for at in where] == list(range(51))
    assert {name: len(where) for name, where in trajectories.PARTS.items()} == {
        "brows": 10,
        "nose": 9,
        "eyes": 12,
        "mouth": 20,
    }
    assert len(set(trajectories.MESH)) == 51
    mirror = np.array(trajectories.MIRROR)
    np.testing.assert_array_equal(mirror[mirror], np.arange(51))
    for where in trajectories.PARTS.values():
        assert set(mirror[list(where)]) == set(where)
    assert {name for half in phrnn.HALVES.values() for name in half} == set(trajectories.PARTS)


pointed = arrays(np.float64, (51, 2), elements=st.floats(-50, 50, width=32)).filter(lambda p: np.ptp(p) > 1)


@given(pointed, st.floats(0.2, 5), st.floats(-100, 100), st.floats(-100, 100))
def test_place_and_size_do_not_count(points: Floats, scale: float, x: float, y: float) -> None:
    found = trajectories.normalized(points)
    np.testing.assert_allclose(trajectories.normalized(points * scale + (x, y)), found, atol=1e-6)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    assert (found**2).sum(axis=1).mean() == pytest.approx(1)


def test_points_of_schemes() -> None:
    many = np.arange(2 * 468.0).reshape(468, 2)
    assert trajectories.fifty_one(many)[0].tolist() == [140, 141]
    assert trajectories.fifty_one(many[:68])[0].tolist() == [34, 35]
    with pytest.raises(DataError, match=r"not \(5, 2\)"):
        trajectories.fifty_one(many[:5])


def face(shift: float = 0.0) -> Floats:
    return np.random.default_rng(0).normal(120, 20, (468, 2)) + np.array([shift, 0])


def test_frames_without_points_take_those_of_the_nearest_and_are_counted() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1).repeat(8, axis=2).repeat(8, axis=3)
    known = {1: face(), 2: np.random.default_rng(1).normal(size=(468, 2))}  # of the first clip, but its first frame
    found = trajectories.find(images, lambda image, box: known.get(int(image[0, 0])))
    assert (found.missed, found.lost.tolist()) == (4, [False, True])
    np.testing.assert_array_equal(found.points[0, 0], found.points[0, 1])
    assert not np.array_equal(found.points[0, 1], found.points[0, 2])
    assert not found.points[1].any()


def test_mirrored_trajectories() -> None:
    points = np.random.default_rng(0).normal(size=(2, 3, 51, 2))
    both = trajectories.views(points)
    assert both[0, 1, 0, 0].tolist() == pytest.approx([-points[0, 0, 9, 0], points[0, 0, 9, 1]])
    np.testing.assert_allclose(trajectories.views(both[:, 1])[:, 1], both[:, 0])


def test_the_hierarchy() -> None:
    points = np.random.default_rng(0).normal(size=(20, 3, 51, 2)).astype(np.float32)
    network = phrnn.build(points, 7)
    shapes = {name: network.get_layer(name).output.shape[1:] for name in (*trajectories.PARTS, *phrnn.HALVES, "face")}
    assert shapes == {
        **dict.fromkeys(trajectories.PARTS, (3, 2 * phrnn.PART_UNITS)),
        **dict.fromkeys(phrnn.HALVES, (3, 2 * phrnn.HALF_UNITS)),
        "face": (2 * phrnn.FACE_UNITS,),
    }
    upper = keras.Model(network.input, network.get_layer("upper").output)
    changed = points.copy()
    changed[:, :, [*trajectories.PARTS["nose"], *trajectories.PARTS["mouth"]]] += 1
    np.testing.assert_array_equal(upper.predict(points, verbose=0), upper.predict(changed, verbose=0))
    changed[:, 2, 0] += 1  # a brow in the last frame: what goes backward brings it to the first
    assert np.abs(upper.predict(points, verbose=0) - upper.predict(changed, verbose=0))[:, 0].max() > 1e-4
    matrices = 2 * 3 * sum(16 * (16 + 2 * len(where)) for where in trajectories.PARTS.values())
    matrices += 2 * 3 * (2 * 24 * (24 + 64) + 4 * 32 * (32 + 96))
    assert mmac(network) == pytest.approx((matrices + 64 * 7) / 1e6)


def test_the_ensemble_is_the_mean_of_the_last_frames() -> None:
    one, other = np.array([[[0.0, 1.0], [0.5, 0.5]]]), np.array([[[1.0, 0.0]]])
    assert phrnn.fused([one, other]).tolist() == [[[0.75, 0.25]]]


@pytest.mark.parametrize("text", ["yunet:x.onnx", "mtcnn", "haar", ""])
def test_what_finds_too_few_points(text: str) -> None:
    with pytest.raises(UsageError, match="mesh:FILE or dlib:FILE"):
        trajectories.open_aligner(text)


def test_no_face_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectories, "open_aligner", lambda text: lambda image, box: None)
    with pytest.raises(DataError, match=r"face_landmark.tflite finds no face in any of the clips"):
        trajectories.of_clips(np.zeros((2, 3, 8, 8, 1), np.uint8), "mesh:models/face_landmark.tflite")


# The command


def test_every_method_has_a_plan() -> None:
    assert (*trial.PLANS, trial.FUSED) == OFFLINE_METHODS


@pytest.mark.trains
def test_all_methods_on_a_small_data_set(
    sequences: Path, network: Path, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectories, "open_aligner", lambda text: lambda image, box: face(float(image.mean())))
    methods = [name for name in OFFLINE_METHODS if name not in ("ppdn", "ppdn-unsuppressed", "mscnn-identity")]
    options = ("--data", sequences, "--model", network, "--landmarks", "mesh:x", "--k", 2, "--epochs", 1)
    called = call(main, "sequences", "--method", *methods, *options, "--run", tmp_path / "run")
    assert called.code == 0, called.err
    assert "12 clips of 3 frames, 4 people, 2 folds by people, 1 seeds" in called.out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["method"] for row in results["rows"]] == methods
    assert results["frames without landmarks"] == 0
    for row in results["rows"]:
        assert 0 <= row["accuracy"] <= 1
        assert ("monotone" in row) == (row["method"] in trial.ON_FRAMES)
        assert ("above_cross_entropy_interval" in row) == (row["method"] != trial.BASELINE)
    with np.load(tmp_path / "run" / "answers.npz") as answers:
        assert answers["dcpn"].shape == (1, 12, 3, 3)
        assert answers["c3d"].shape == (1, 12, 1, 3)
        np.testing.assert_allclose(answers["phrnn+mscnn"].sum(axis=-1), 1)
    lines = (tmp_path / "run" / "curves.csv").read_text().splitlines()
    assert lines[0] == "method,seed,fold,measure,epoch,value"
    assert any(line.startswith("dcpn,1,0,gap of held-out weak frames,1,") for line in lines)
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000
    again = call(main, "sequences", "--method", "c3d", *options, "--run", tmp_path / "run")
    assert (again.code, "is not empty" in again.err) == (78, True)


@pytest.mark.trains
def test_synthetic_clips_by_the_command(
    sequences: Path, network: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    options = ("--data", sequences, "--model", network, "--k", 2, "--epochs", 1, "--run", tmp_path / "run")
    called = call(main, "sequences", "--method", "mscnn-identity", "--synthetic", *options)
    assert called.code == 0, called.err
    assert "12 synthetic clips of 3 frames" in called.out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--method", "ppdn", "--run", "RUN"), 2, "ppdn starts from a trained network: give --model KERAS."),
        (("--method", "phrnn", "--run", "RUN"), 2, "give --landmarks mesh:FILE or dlib:FILE."),
        (("--method", "phrnn+mscnn", "--run", "RUN"), 2, "name phrnn and mscnn before it."),
        (("--method", "c3d"), 2, "give --run DIR."),
        (("--method", "c3d", "--run", "RUN", "--frames", "1"), 2, "--frames 2 or more"),
        (("--method", "c3d", "--run", "RUN", "--seeds", "0"), 2, "--seeds wants 1 or more"),
        (("--method", "c3d", "--run", "RUN", "--k", "9"), 2, "--k 9 cannot be"),
        (("--method", "phrnn", "--run", "RUN", "--landmarks", "haar", "--k", "2"), 2, "PHRNN wants many points"),
        (("--method", "phrnn", "--run", "RUN", "--landmarks", "mesh:none.tflite", "--k", "2"), 66, "none.tflite"),
        (("--method", "ppdn", "--run", "RUN", "--model", "none.keras"), 66, "No model none.keras."),
        ((), 2, "give --model KERAS."),
    ],
)
def test_options_that_do_not_fit(
    sequences: Path, tmp_path: Path, call: Callable[..., Any], options: tuple[str, ...], code: int, message: str
) -> None:
    given = [str(tmp_path / "run") if one == "RUN" else one for one in options]
    called = call(main, "sequences", "--data", sequences, *given)
    assert (called.code, message in called.err, called.err.count("\n")) == (code, True, 1), called.err
    assert not (tmp_path / "run").exists()


def test_data_without_people_are_refused(data: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    called = call(main, "sequences", "--method", "c3d", "--data", data, "--run", tmp_path / "run")
    assert (called.code, called.err.count("does not tell its people and sequences")) == (65, 1)
