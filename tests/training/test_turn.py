"""What sees a turned face in its crop: its teacher, its views, and a command that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_fer.preprocess import pose
from edge_fer.sources.demo import average_faces
from training.turn import main, signed_turn, views_of


def test_the_teacher_has_a_sign_and_knows_where_nothing_was_found() -> None:
    ahead = np.array([15, 18, 33, 18, 24, 28, 17, 36, 31, 36], np.float32)
    right, none = ahead.copy(), np.full(10, np.nan, np.float32)
    right[4] += 4.5
    left = ahead.copy()
    left[4] -= 4.5
    turns = signed_turn(np.stack([ahead, right, left, none]))
    assert turns[:3] == pytest.approx([0, 0.25, -0.25])
    assert np.isnan(turns[3])


def test_views_are_what_the_layer_sees_and_the_same_again() -> None:
    images = np.stack(average_faces())[..., np.newaxis].astype(np.uint8)
    views = views_of(images, 3)
    assert views.shape == (len(images), pose.SIDE**2)
    assert np.allclose(views.mean(axis=1), 0, atol=1e-5)
    assert np.array_equal(views, views_of(images, 3))
    assert not np.array_equal(views, views_of(images, 4))


def test_wrong_landmarks_are_one_sentence(call: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    answer = call(main, "--data", data, "--landmarks", tmp_path / "none.npz", "-o", tmp_path / "turn.npz")
    assert answer.code == 66
    assert "turn: No " in answer.err
    assert "Traceback" not in answer.err
    wrong = call(main, "--data", data, "--landmarks", tmp_path / "x.npz", "-o", tmp_path / "turn.npz", "--seed", "-1")
    assert (wrong.code, wrong.err) == (2, "turn: A seed must be 0 to 2147483647, not -1.\n")
