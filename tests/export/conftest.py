"""A network that was never trained, for all that does not ask how good it is."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
from labeled import HEADS

from training import models


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """A folder with model.keras and its description, model.toml. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("run")
    keras.utils.set_random_seed(seed)
    models.build_plain([[8, 2], [16, 2], [16, 2]], dropout=0.0, classes=15).save(folder / "model.keras")
    (folder / "model.toml").write_text(models.description("tiny", HEADS))
    return folder
