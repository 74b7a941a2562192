"""The ablation: each training begins anew, rows are written as they are done, and the command goes on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import datasets
from edge_fer.errors import ConfigError, DataError
from evaluation.corruptions import LIGHTS
from evaluation.treatments import Faces
from training.ablation import Result, Trainer, main, read, run, table
from training.recipe import load_recipe

pytestmark = pytest.mark.trains

NUMBERS = {"clean": {"ferplus": 0.8, "fer2013": 0.6}, "low light": {"ferplus": 0.7, "fer2013": 0.5}}


class Fake:
    """A trainer whose accuracy is that of a row: the mean gray says which it is."""

    def __init__(self, accuracies: list[float]) -> None:
        self.accuracies, self.trained = accuracies, 0
        heads = [type("Head", (), {"name": "a"})]
        self.test = type("Test", (), {"heads": heads})

    def train(self, images: NDArray[np.uint8], seed: int) -> None:
        self.trained += 1

    def measure(self, images: NDArray[np.uint8]) -> dict[str, Any]:
        return {"a": {"accuracy": self.accuracies[self.trained - 1], "macro_f1": 0.5}}


FACES = Faces(np.zeros((3, 48, 48, 1), np.uint8), np.zeros((2, 48, 48, 1), np.uint8))


def fake_run(trainer: Fake, out: Path, **options: Any) -> list[Result]:
    return run(["none", "log", "gamma"], FACES, trainer, out, say=lambda line: None, **options)  # type: ignore[arg-type]


def test_rows_within_a_point_get_all_seeds(tmp_path: Path) -> None:
    trainer = Fake([0.8, 0.795, 0.7, 0.8, 0.8, 0.8, 0.8])
    results = fake_run(trainer, tmp_path / "rows.jsonl")
    assert [(one.row, one.seed) for one in results] == [
        ("none", 1), ("log", 1), ("gamma", 1), ("none", 2), ("log", 2), ("none", 3), ("log", 3),
    ]  # fmt: skip
    assert read(tmp_path / "rows.jsonl") == results


def test_it_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    whole = fake_run(Fake([0.8, 0.7, 0.7, 0.8, 0.8]), out)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:2]) + lines[2][:20])
    trainer = Fake([0.7, 0.8, 0.8])
    assert [(one.row, one.seed) for one in fake_run(trainer, out)] == [(one.row, one.seed) for one in whole]
    assert trainer.trained == 3
    assert [one.row for one in read(out)] == [one.row for one in whole]
    assert fake_run(Fake([]), out) == read(out)  # nothing is left to do


def test_no_row_is_begun_after_the_time(tmp_path: Path) -> None:
    assert fake_run(Fake([]), tmp_path / "rows.jsonl", until=0.0) == []


@pytest.mark.parametrize("content", ["nonsense\n", "{}\n", "[1]\n", '{"row": "none"}\n'])
def test_a_file_of_something_else_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="give another -o"):
        read(path)


def test_the_table_has_means_and_spreads() -> None:
    higher = {name: {head: value + 0.02 for head, value in row.items()} for name, row in NUMBERS.items()}
    shown = table([Result("none", 1, 1.0, NUMBERS, NUMBERS), Result("none", 2, 1.0, higher, higher)])
    cells = [list(column.cells) for column in shown.columns]
    assert cells == [["none"], ["2"], ["81.0 ± 1.0 / 61.0 ± 1.0"], *[["71.0 ± 1.0 / 51.0 ± 1.0"]] * 2]
    assert table([]).row_count == 0


def test_each_training_begins_anew(data: Path, recipe: Callable[..., Path]) -> None:
    small = load_recipe(recipe({"epochs": 2, "optimizer.ema": 0.5}))
    splits = datasets.load(data)
    training, test = splits["Training"], splits["PublicTest"]
    trainer = Trainer(small, training, test)
    trainer.train(training.images, 1)
    first = trainer.averaged.get_weights()
    trainer.train(255 - training.images, 2)
    other = trainer.averaged.get_weights()
    trainer.train(training.images, 1)
    again = trainer.averaged.get_weights()
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(first, again, strict=True))
    assert not all(np.allclose(a, b, atol=1e-3) for a, b in zip(first, other, strict=True))
    metrics = trainer.measure(test.images)
    assert metrics.keys() >= {head.name for head in test.heads}


def test_rare_classes_are_balanced_and_people_asked_for_refused(data: Path, recipe: Callable[..., Path]) -> None:
    splits = datasets.load(data)
    training, test = splits["Training"], splits["PublicTest"]
    balanced = load_recipe(recipe({"epochs": 3}), ["class_balance.kind=logit_adjustment"])
    with pytest.raises(DataError, match="class_balance wants some of each class"):  # there is no face of contempt
        Trainer(balanced, training, test)
    one = [dataclasses.replace(part, labels={"fer2013": part.labels["fer2013"]}) for part in (training, test)]
    tasks = Trainer(balanced, *one).network.tasks
    assert [task.logit_offsets is not None for task in tasks] == [True]
    for changes in ({"tuplets": 0.5}, {"identity": 0.5}):
        with pytest.raises(ConfigError, match="asks who a face is"):
            Trainer(load_recipe(recipe({"epochs": 3, **changes})), training, test)


def test_the_command_writes_rows_and_a_table(
    call: Callable[..., Any], data: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "rows.jsonl"
    path = recipe({"epochs": 2})
    answer = call(main, "--data", data, "-o", out, "--recipe", path, "--rows", "none", "tan-triggs+equalization")
    assert answer.code == 0, answer.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["row"] for row in rows} == {"none", "tan-triggs+equalization"}
    assert rows[0]["accuracy"].keys() == {"clean", *LIGHTS}
    assert "tan-triggs+equalization" in answer.out


def test_wrong_rows_are_one_sentence(call: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    answer = call(main, "--data", data, "-o", tmp_path / "x", "--rows", "candle", "--set", "distill.weight=0")
    assert answer.code == 2
    assert "Known are" in answer.err
    assert "Traceback" not in answer.err
    assert call(main, "--data", tmp_path / "none", "-o", tmp_path / "x").code == 66


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seeds", "1", "-1"], "A seed must be 0 to 2147483647, not -1."),
        (["--every", "0"], "--every must be at least 1, not 0."),
        (["--every", "-1"], "--every must be at least 1, not -1."),
    ],
)
def test_numbers_that_cannot_be_are_said_before_the_data_are_read(
    call: Callable[..., Any], tmp_path: Path, change: list[str], message: str
) -> None:
    refused = call(main, "--data", tmp_path / "none", "-o", tmp_path / "x", *change)
    assert (refused.code, refused.err) == (2, f"ablation: {message}\n")
