"""What an epoch learns from: further faces, faces without labels where a teacher is sure, and views that were kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from faces_csv import pattern
from hypothesis import given
from hypothesis import strategies as st
from labeled import labeled

import datasets
from datasets import Dataset, Labels
from datasets.fer2013 import FER2013_LABELS
from edge_fer.core import Expression as E
from edge_fer.errors import ConfigError
from training import cached_logits
from training.__main__ import main
from training.cached_logits import CachedLogits, load_logits, sure
from training.recipe import DataRecipe, ModelRecipe, Recipe
from training.samples import Samples, gather_samples

SPLITS: dict[str, Dataset] = {
    "Training": labeled([E.NEUTRAL] * 5, [E.NEUTRAL] * 5),
    "photos": Dataset(
        np.full((3, 48, 48, 1), 7, np.uint8),
        {"rater": Labels.single(tuple(E), np.array([0, 1, -1]))},
        np.zeros(3, np.bool_),
    ),
}
POSED = labeled([E.ANGER, E.SADNESS], [E.ANGER, E.SADNESS])
SPLITS["posed"] = POSED.replace(
    labels={name: Labels.single(one.expressions, one.truth) for name, one in POSED.labels.items()},
    images=np.full((2, 48, 48, 1), 9, np.uint8),
)


def recipe_of(**data: Any) -> Recipe:
    return Recipe("x", ModelRecipe([[4, 2]]), label_smoothing=0.2, data=DataRecipe(**data))


def cached(samples: int, views: int = 1, images: int = 0, certain: list[bool] | None = None) -> CachedLogits:
    """Logits by whose first number one sees which view and sample they are of."""
    logits = np.zeros((views, samples, 15), np.float16)
    logits[:, :, 0] = np.arange(views)[:, None] * 100 + np.arange(samples)
    pixels = None
    if images:
        pixels = np.zeros((views, images, 48, 48, 1), np.uint8)
        pixels += (np.arange(views)[:, None] * 100 + np.arange(images)).astype(np.uint8)[..., None, None, None]
    return CachedLogits(logits, None if certain is None else np.array(certain), pixels, {})


def test_the_soft_targets_of_further_faces_are_their_smoothed_labels() -> None:
    samples = gather_samples(recipe_of(further="posed", further_times=3), SPLITS, cached(5))
    images, targets = samples.of_epoch(0)
    assert (len(samples), samples.views, images.shape) == (11, 1, (11, 48, 48, 1))
    assert {name: values.shape for name, values in targets.items()} == {
        "ferplus": (11, 8),
        "fer2013": (11, 7),
        "teacher": (11, 15),
    }
    assert np.exp(targets["teacher"][-2:, 8:]) == pytest.approx(targets["fer2013"][-2:], abs=2e-3)  # float16
    assert targets["fer2013"][-1] == pytest.approx(np.eye(7)[FER2013_LABELS.index(E.SADNESS)] * 0.8 + 0.2 / 7)


def test_a_last_stage_learns_from_further_faces_alone() -> None:
    images, targets = gather_samples(recipe_of(further="posed", further_times=2, further_alone=True), SPLITS).of_epoch(
        0
    )
    assert images[:, 0, 0, 0].tolist() == [9] * 4
    assert {name: len(values) for name, values in targets.items()} == {"ferplus": 4, "fer2013": 4}
    with pytest.raises(ConfigError, match=r"wants data\.further"):
        recipe_of(further_alone=True)


def test_of_faces_without_labels_those_are_learned_that_the_teacher_is_sure_of() -> None:
    recipe = recipe_of(unlabeled="photos", further="posed")
    images, targets = gather_samples(recipe, SPLITS, cached(8, certain=[False, True, True])).of_epoch(3)
    assert images[:, 0, 0, 0].tolist() == [*SPLITS["Training"].images[:, 0, 0, 0], 7, 7, 9, 9]
    assert targets["teacher"][:7, 0].tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert not targets["ferplus"][5:7].any()
    assert not targets["fer2013"][5:7].any()
    assert targets["fer2013"][7:].sum(axis=1) == pytest.approx([1, 1])


@pytest.mark.parametrize("logits", [None, cached(5)])
def test_faces_without_labels_want_logits_of_their_own(logits: CachedLogits | None) -> None:
    with pytest.raises(ConfigError, match="cached with --unlabeled photos"):
        gather_samples(recipe_of(unlabeled="photos"), SPLITS, logits)


@pytest.mark.parametrize("unlabeled", ["photos", ""])
def test_each_epoch_has_the_next_view_and_what_the_teacher_says_of_it(unlabeled: str) -> None:
    """In the file of views lie 5 Training samples, 3 without labels and 2 posed, whatever a recipe learns from."""
    recipe = recipe_of(unlabeled=unlabeled, further="posed")
    samples = gather_samples(recipe, SPLITS, cached(8, views=2, images=10, certain=[False, True, False]))
    assert samples.views == 2
    rows = [0, 1, 2, 3, 4, *([6] if unlabeled else []), 8, 9]
    for epoch, first in ((0, 0), (1, 100), (2, 0)):
        images, targets = samples.of_epoch(epoch)
        assert images[:, 0, 0, 0].tolist() == [first + row for row in rows]
        assert targets["teacher"][:-2, 0].tolist() == [first + row for row in rows[:-2]]
        assert np.exp(targets["teacher"][-2:, 8:]) == pytest.approx(targets["fer2013"][-2:], abs=2e-3)


def test_plain_samples_are_what_they_were_made_of() -> None:
    images, targets = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1), {"a": np.eye(3, dtype=np.float32)}
    same, wanted = Samples.plain(images, targets).of_epoch(5)
    assert np.array_equal(same, images)
    assert np.array_equal(wanted["a"], targets["a"])


@given(st.lists(st.tuples(st.floats(0.2, 1), st.integers(0, 2), st.integers(-1, 2)), min_size=1, max_size=9))
def test_a_teacher_is_sure_alone_or_with_a_rater(rows: list[tuple[float, int, int]]) -> None:
    probabilities = np.array([np.where(np.arange(3) == place, p, (1 - p) / 2) for p, place, _ in rows])
    found = sure(probabilities, np.array([rater for *_, rater in rows]))
    for row, certain in zip(probabilities, found, strict=True):
        most, rater = row.max(), rows[np.flatnonzero((probabilities == row).all(axis=1))[0]][2]
        if most >= cached_logits.SURE:
            assert certain
        if most < cached_logits.SURE_WITH_RATER or (most < cached_logits.SURE and rater == -1):
            assert not certain or (probabilities == row).all(axis=1).sum() > 1


@pytest.fixture
def with_more(data: Path, tmp_path: Path) -> Path:
    """The small data set, with three photos of one face each, without labels, and one posed face."""
    folder = tmp_path / "set"
    (folder / "photos").mkdir(parents=True)
    for file in data.glob("*.csv"):
        (folder / file.name).symlink_to(file)
    lines = ["photo,x,y,w,h,score,expw_label"]
    for number, label in enumerate(("anger", "", "sadness")):
        face = cv2.resize(pattern(number, np.random.default_rng(number)), (80, 80))
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), cv2.copyMakeBorder(face, 20, 20, 20, 20, 1))
        lines.append(f"{number}.png,20,20,80,80,0.9,{label}")
    (folder / "photos" / "faces.csv").write_text("\n".join(lines) + "\n")
    (folder / "posed" / "angry").mkdir(parents=True)
    cv2.imwrite(str(folder / "posed" / "angry" / "0.png"), pattern(1, np.random.default_rng(1)))
    return folder


PIPELINE = """
name = "self"
epochs = 2
batch_size = 35
[model]
stages = [[8, 2], [16, 2]]
[augment]
rotation_deg = 0
[optimizer]
warmup_epochs = 1
[data]
unlabeled = "photos"
further = "posed"
[[stage]]
name = "teacher"
data = { unlabeled = "", further = "" }
[[stage]]
name = "views"
kind = "cache-logits"
teachers = ["teacher"]
views = 3
each_view = true
augment = { cutout_px = 7 }
[[stage]]
name = "student"
teacher_logits = "views"
distill.weight = 0.9
"""


@pytest.mark.trains
def test_a_pipeline_of_self_training_from_kept_views(
    with_more: Path, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_logits, "SURE", 0.0)  # a teacher of two epochs is sure of nothing
    (tmp_path / "self.toml").write_text(PIPELINE)
    run = ["run", tmp_path / "self.toml", "--data", with_more, "--runs", tmp_path / "runs"]
    done = call(main, *run)
    assert done.code == 0, done.err
    stages = tmp_path / "runs" / "self"
    splits = datasets.load(with_more, further="posed", unlabeled="photos")
    data = DataRecipe(unlabeled="photos", further="posed")
    views = load_logits(stages / "views" / "logits.npz", splits, data)
    assert views.images is not None
    assert views.images.shape == (3, 140 + 3 + 1, 48, 48, 1)
    assert views.logits.shape == (3, 140 + 3, 15)
    assert np.array_equal(
        views.images[0], np.concatenate([splits[one].images for one in ("Training", "photos", "posed")])
    )
    assert "140 Training samples and 4 of photos and posed" in " ".join(done.err.split())
    facts = json.loads((stages / "student" / "run.json").read_text())
    assert facts["samples"] == {"Training": 140, "PublicTest": 42, "posed": 1, "photos": 3}
    lineage = facts["lineage"]
    assert lineage["self/views"]["each_view"] is True
    assert lineage["self/student"]["data_sha256"]["photos"] == splits["photos"].sha256
    # What the teacher is asked about is what the student sees.
    from training import models

    teacher = models.load(stages / "teacher" / "model.keras")
    logits = teacher.predict(views.images[2][:5].astype(np.float32), verbose=0)
    expected = np.exp(logits[:, :8]) / np.exp(logits[:, :8]).sum(axis=1, keepdims=True)
    assert np.exp(views.logits[2, :5, :8].astype(np.float64)) == pytest.approx(expected, abs=0.01)
    (stages / "views" / "views.npy").unlink()
    again = call(
        main, "run", tmp_path / "self.toml", "--data", with_more, "--runs", tmp_path / "runs", "--from", "student"
    )
    assert again.code == 66
    assert "views.npy is not beside it" in " ".join(again.err.split())
