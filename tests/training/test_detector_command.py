"""The command that trains the face detector: numbers that cannot be are said before anything is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.boxes import Photo
from edge_fer.errors import DataError
from training.detector.__main__ import main
from training.detector.photos import MOST_FACES, pack

pytestmark = pytest.mark.trains


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "-1"], "--epochs is a whole number from 0 on"),
        (["--batch", "0"], "--batch is a whole number from 1 on"),
        (["--side", "250"], "--side is a whole number from 32 on, a multiple of 32"),
        (["--side", "0"], "--side is a whole number from 32 on"),
        (["--minutes", "0"], "--minutes is more than 0"),
        (["--minutes", "nan"], "--minutes is more than 0"),
        (["--learning-rate", "-1"], "--learning-rate is more than 0"),
        (["--share", "1.5"], "--share is 0 to 1, not 1.5"),
        (["--learning-rate", "inf"], "--learning-rate is a finite number"),
    ],
)
def test_numbers_that_cannot_be_are_said(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--data", str(tmp_path), "--output", str(tmp_path / "run")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [[], ["--epochs", "0", "--from", "yunet.onnx"]])
def test_photos_are_wanted_where_something_learns_from_them(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--output", str(tmp_path / "run")])
    assert "--data DIR is wanted: photos with boxes of faces" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_seed_that_nothing_draws_by_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--seed", "-1", "--data", str(tmp_path), "--output", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "training.detector: A seed must be 0 to 2147483647, not -1.\n"
    assert not (tmp_path / "run").exists()


def test_no_photo_is_another_thing_than_crowds_alone() -> None:
    with pytest.raises(DataError, match="There is no photo to train on"):
        pack([])
    crowd = Photo(
        "crowd.jpg",
        lambda: np.zeros((48, 48), np.uint8),
        np.ones(MOST_FACES + 1, np.int32),
        np.ones((MOST_FACES + 1, 4), np.float32),
        np.zeros((MOST_FACES + 1, 5, 2), np.float32),
    )
    with pytest.raises(DataError, match="All photos have more than 48 boxes"):
        pack([crowd])
