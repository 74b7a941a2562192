"""Labels by task, and which of them a head is measured by."""

from __future__ import annotations

import numpy as np
import pytest
from labeled import HEADS, labeled

from datasets import Dataset, Labels, truth_for
from datasets.fer2013 import FER2013_LABELS, FERPLUS_LABELS
from edge_fer.core import Expression as E
from edge_fer.model.spec import Head

DISAGREE = labeled([E.ANGER, E.FEAR, None, E.NEUTRAL], [E.SADNESS, E.FEAR, E.HAPPINESS, None])
BY_VOTES = [E.SADNESS, E.FEAR, E.HAPPINESS, None]
BY_CODE = [E.ANGER, E.FEAR, None, E.NEUTRAL]


def test_one_label_a_sample_is_a_one_hot_target() -> None:
    labels = Labels.single((E.FEAR, E.ANGER, E.SADNESS), np.array([2, -1, 0]))
    assert labels.targets.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert labels.targets.dtype == np.float32
    assert (labels.is_soft, labels.votes) == (False, None)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        # By its name first.
        (Head("ferplus", (E.ANGER, E.SADNESS)), [E.SADNESS, None, None, None]),
        (Head("fer2013", (E.CONTEMPT, E.ANGER)), [E.ANGER, None, None, None]),
        # Then by the likest classes: FER2013 has no contempt, so who knows it is one of FER+.
        (Head("mine", FER2013_LABELS), BY_CODE),
        (Head("mine", tuple(reversed(FER2013_LABELS))), BY_CODE),
        (Head("mine", FERPLUS_LABELS), BY_VOTES),
        (Head("mine", (E.CONTEMPT, E.SADNESS)), [E.SADNESS, None, None, None]),
        # All three are known to both: to FER2013 fewer beside.
        (Head("mine", (E.NEUTRAL, E.FEAR, E.ANGER)), BY_CODE),
        # Its last label is not taken for the -1 of a sample without one.
        (Head("mine", (E.FEAR, E.ANGER)), [E.ANGER, E.FEAR, None, None]),
    ],
)
def test_which_labels_a_head_is_measured_by(head: Head, expected: list[E | None]) -> None:
    truth = truth_for(DISAGREE, head)
    assert [None if place < 0 else head.labels[place] for place in truth] == expected


def test_of_tasks_that_are_as_like_the_first_counts() -> None:
    first, second = (Labels.single((E.ANGER, E.FEAR), np.array([place])) for place in (0, 1))
    data = Dataset(np.zeros((1, 8, 8, 1), np.uint8), {"a": first, "b": second}, np.zeros(1, np.bool_))
    assert truth_for(data, Head("mine", (E.FEAR, E.ANGER))).tolist() == [1]
    assert truth_for(data, Head("b", (E.FEAR, E.ANGER))).tolist() == [0]


def test_samples_are_chosen_with_all_that_is_known_of_them() -> None:
    people = np.array(["ann", "bob", "cid", "dan"])
    data = DISAGREE.replace(subjects=people, sequences=people[::-1], also_in_training=np.array([True, False] * 2))
    rows = np.array([3, 0])
    chosen = data[rows]
    assert len(chosen) == 2
    assert np.array_equal(chosen.images, data.images[rows])
    assert (chosen.subjects is not None and chosen.subjects.tolist()) == ["dan", "ann"]
    assert (chosen.sequences is not None and chosen.sequences.tolist()) == ["ann", "dan"]
    assert chosen.also_in_training.tolist() == [False, True]
    assert chosen.heads == data.heads == HEADS
    for name, labels in chosen.labels.items():
        whole = data.labels[name]
        assert np.array_equal(labels.truth, whole.truth[rows])
        assert np.array_equal(labels.targets, whole.targets[rows])
    assert np.array_equal(np.asarray(chosen.labels["ferplus"].votes), np.asarray(data.labels["ferplus"].votes)[rows])


def test_the_hash_tells_pixels_and_labels_apart() -> None:
    other_image = DISAGREE.images.copy()
    other_image[0, 0, 0] ^= 1
    others = [
        DISAGREE,
        DISAGREE[::-1],
        DISAGREE.replace(images=other_image),
        labeled([E.FEAR, E.FEAR, None, E.NEUTRAL], [E.SADNESS, E.FEAR, E.HAPPINESS, None]),
        labeled([E.ANGER, E.FEAR, None, E.NEUTRAL], [E.ANGER, E.FEAR, E.HAPPINESS, None]),
        labeled([E.ANGER, E.FEAR, None, E.NEUTRAL]),
    ]
    assert len({one.sha256 for one in others}) == len(others)
    assert DISAGREE[:].sha256 == DISAGREE.sha256
