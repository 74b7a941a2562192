"""The command that trains the face detector: numbers that cannot be are said before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.detector.__main__ import main

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
    ],
)
def test_numbers_that_cannot_be_are_said(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--data", str(tmp_path), "--output", str(tmp_path / "run")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
