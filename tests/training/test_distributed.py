"""Who takes part in a training by several processes. What they make together: test_distributed_jax.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_fer.errors import ConfigError
from training import distributed
from training.__main__ import main
from training.distributed import ADDRESS, COUNT, NUMBER

SLURM = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 1),
        ({ADDRESS: "a:1", COUNT: "3", NUMBER: "2"}, 3),
        ({ADDRESS: "a:1", COUNT: "1", NUMBER: "0"}, 1),
        (SLURM, 4),
        ({"SLURM_STEP_NUM_TASKS": "4"}, 1),  # a batch script, outside of any step
        ({**SLURM, ADDRESS: "a:1", COUNT: "3", NUMBER: "2"}, 3),
    ],
)
def test_how_many_were_started(environ: Mapping[str, str], count: int) -> None:
    assert distributed.started(environ) == count


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({ADDRESS: "a:1"}, f"{COUNT} is not"),
        ({COUNT: "2", NUMBER: "0"}, f"{ADDRESS} is not"),
        ({ADDRESS: "a:1", COUNT: "2", NUMBER: "2"}, "must be from 0"),
        ({ADDRESS: "a:1", COUNT: "two", NUMBER: "0"}, "'two'"),
    ],
)
def test_variables_that_do_not_fit(environ: Mapping[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        distributed.started(environ)


def test_several_processes_want_a_recipe_for_them() -> None:
    with pytest.raises(ConfigError, match="--set distribution=data, or start one"):
        distributed.join("none", {ADDRESS: "a:1", COUNT: "2", NUMBER: "0"})


def test_a_recipe_for_several_wants_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    with pytest.raises(ConfigError, match="KERAS_BACKEND=jax"):
        distributed.join("data", {})


def test_stages_are_walked_by_one(
    data: Path, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ((ADDRESS, "a:1"), (COUNT, "2"), (NUMBER, "0")):
        monkeypatch.setenv(name, value)
    called = call(main, "run", "quick", "--data", data, "--runs", tmp_path)
    assert (called.code, "start `train` by all" in called.err) == (78, True)
