"""An AU-inspired deep network: what is selected, what is pooled, and the command on a small set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.__main__ import main
from training.classical import audn


def test_a_relevant_feature_is_taken_and_a_redundant_one_is_not() -> None:
    relevance = np.array([0.9, 0.89, 0.5, 0.1], np.float32)
    correlations = np.eye(4, dtype=np.float32)
    correlations[0, 1] = correlations[1, 0] = 0.99  # the second says what the first says
    # 0.89 - 0.99 < 0.1 - 0 < 0.5 - 0; then 0.89 - 0.99 / 2 > 0.1 - 0.
    assert audn.selected(relevance, correlations, 2) == [0, 2]
    assert audn.selected(relevance, correlations, 3) == [0, 2, 1]
    assert audn.selected(relevance, correlations, 9) == [0, 2, 1, 3]


def test_fields_hold_what_tells_their_class() -> None:
    """Feature 0 tells class 0, its copy 1 nothing more, feature 2 tells class 1, 3 is noise."""
    rng = np.random.default_rng(0)
    truth = np.arange(3000) % 3
    noise = rng.normal(size=(3000, 4)).astype(np.float32) * np.float32(0.3)
    features = noise.copy()
    features[:, 0] += truth == 0
    features[:, 1] = features[:, 0] + noise[:, 1] * np.float32(0.01)
    features[:, 2] += truth == 1
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    first, second, _ = audn.fields_of(features, truth, 3, 2)
    assert len({0, 1} & set(first)) == 1 and 2 in first  # one of the copies, and what tells the two others apart
    assert second[0] == 2 and len({0, 1} & set(second)) == 1


def test_the_largest_response_of_each_cell() -> None:
    image = np.zeros((1, 48, 48), np.float32)
    image[0, 10, 20] = 5
    delta = np.zeros((1, 7, 7), np.float32)
    delta[0, 3, 3] = 1
    pooled = audn.represented(image, delta)
    assert pooled.shape == (1, 7, 7, 1)
    assert np.argwhere(pooled[0, :, :, 0]).tolist() == [[(10 - 3) // 6, (20 - 3) // 6]]
    assert pooled.max() == 5


def test_patterns_are_what_the_patches_are_made_of() -> None:
    """Of images of upright and of level stripes there are two clusters of phases for each direction, and no slope."""
    stripes = np.sin(np.arange(48) * np.pi / 3).astype(np.float32)
    upright = np.tile(stripes, (48, 1))
    filters = audn.patterns(np.stack([upright, upright.T]), 12, np.random.default_rng(0))
    assert np.linalg.norm(filters.reshape(12, -1), axis=1) == pytest.approx(np.ones(12), abs=0.02)
    along = [min(np.abs(np.diff(one, axis=axis)).max() for axis in (0, 1)) for one in filters]
    assert max(along) < 0.05  # each is constant along one direction
    assert filters.reshape(12, -1).mean(axis=1) == pytest.approx(np.zeros(12), abs=1e-6)


def test_the_command(call: Callable[..., Any], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audn, "PATCHES", 500)
    monkeypatch.setattr(audn, "FILTERS", 6)
    monkeypatch.setattr(audn, "FIELD", 10)
    run = tmp_path / "run"
    done = call(main, "audn", "--data", data, "--run", run, "--hidden", "12", "6", "--epochs", "3")
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in json.loads((run / "rows.json").read_text())}
    assert list(rows) == ["AUDN", "its features without machines", "fields drawn by chance"]
    assert rows["its features without machines"]["accuracy"] > 0.5  # of seven bars
    fields = json.loads((run / "fields.json").read_text())
    assert len(fields) == 7 and all(len(set(field)) == 10 for field in fields.values())
    errors = json.loads((run / "errors.json").read_text())
    assert [len(machine) for machine in errors["anger"]] == [3, 3]
    assert (run / "fields.png").stat().st_size > 1000
    again = call(main, "audn", "--data", data, "--run", run)
    assert (again.code, "not empty" in again.err) == (78, True)
    none = call(main, "audn", "--data", data, "--run", tmp_path / "b", "--epochs", "0")
    assert (none.code, "must be at least 1" in none.err) == (78, True)


def test_the_mean_recall_is_of_the_classes_that_there_are(
    call: Callable[..., Any],
    lacking: Path,
    in_turn: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("PATCHES", 500), ("FILTERS", 6), ("FIELD", 10), ("LinearSVC", in_turn)):
        monkeypatch.setattr(audn, name, value)
    run = tmp_path / "run"
    done = call(main, "audn", "--data", lacking, "--run", run, "--hidden", "12", "--epochs", "3")
    assert done.code == 0, done.err
    rows = json.loads((run / "rows.json").read_text())
    assert {(row["accuracy"], row["mean_recall"]) for row in rows} == {(0.8571, 0.9167)}
