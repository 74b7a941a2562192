"""What tests of the runtime need: networks of others, as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import real_models


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """Gives the path of a model by its name; the test is skipped where nobody fetched it."""

    def act(name: str) -> Path:
        path = real_models.FOLDER / name
        if not path.is_file():
            pytest.skip(f"{name} is not here: run `make real-models`")
        assert real_models.intact(name), f"{path} is damaged: run `make real-models`"
        return path

    return act
