"""Recipes: read, changed, written again and refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from labeled import HEADS

from edge_fer.errors import ConfigError, InputMissingError
from training.loop import build
from training.recipe import ModelRecipe, Recipe, load_recipe, read_table, to_toml
from training.stages import RECIPES, Stage, load_stages

TRAINED = [stage for path in sorted(RECIPES.glob("*.toml")) if path.stem != "base" for stage in load_stages(path)]


@pytest.mark.parametrize("stage", [one for one in TRAINED if one.kind == "train"], ids=lambda stage: stage.key)
def test_the_recipes_of_the_project_build(stage: Stage) -> None:
    most = 3_000_000 if stage.pipeline == "teachers" else 500_000  # a teacher goes on no device
    assert build(stage.recipe, HEADS, steps_per_epoch=10).count_params() < most


def test_a_recipe_of_stages_is_not_for_one_training() -> None:
    with pytest.raises(ConfigError, match="`python -m training run` walks them"):
        load_recipe(RECIPES / "nano.toml")


def test_a_recipe_is_read_whole(recipe: Callable[..., Path]) -> None:
    read = load_recipe(recipe())
    assert isinstance(read, Recipe)
    assert read.model.stages == [[8, 2], [16, 2], [16, 2]]
    assert read.augment.rotation_deg == 0.0


def test_a_recipe_is_changed_and_written_again(recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe()
    changes = ["seed=7", "model.dropout=0.5", "optimizer.kind=muon", "distill.weight = 0.25", "model.stages=[[4, 2]]"]
    changed = load_recipe(path, changes)
    assert (changed.seed, changed.model.dropout, changed.optimizer.kind) == (7, 0.5, "muon")
    assert (changed.distill.weight, changed.model.stages) == (0.25, [[4, 2]])
    (tmp_path / "again.toml").write_text(to_toml(read_table(path, changes)))
    assert load_recipe(tmp_path / "again.toml") == changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed", "write KEY=VALUE"),
        ("=2", "write KEY=VALUE"),
        ("a.b.c=2", "write KEY=VALUE"),
        ("name.first=2", "name is no table"),
        ("sed=2", "seed"),
        ("seed=two", "seed"),
        ("model.drop=0.1", "dropout"),
    ],
)
def test_a_change_that_is_none_is_refused(change: str, message: str, recipe: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe(), [change])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae = 'x'", "Did you mean 'name'"),
        ("name = 'x'", "'model' is missing"),
        ("name = 'x'\nepochs = 2\n[model]\nstages = [[8, 2]]\n", "more than warmup_epochs"),
        ("name = 'x'\n[model]\nstages = [[8, 'a']]\n", "'model.stages' must be a whole number"),
        ("= 3", "not valid TOML"),
    ],
)
def test_wrong_recipes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="training/recipes"):
        load_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["mixup=-0.1"], "mixup must be 0 or more"),
        (["center=inf"], "center must be 0 or more"),
        (["island=10.0"], "island is a part of the center loss"),
        (["model.kind=separable", "model.repvgg=true"], "repvgg is for plain and residual"),
        (["model.kind=separable", "model.squeeze_excitation=4"], "squeeze_excitation is for plain and residual"),
        (["model.squeeze_excitation=-1"], "squeeze_excitation must be 0 or more"),
        (["consistency=-1"], "consistency must be 0 or more"),
        (["fixed_statistics=true", "model.repvgg=true"], "fixed_statistics is for networks without model.repvgg"),
        (["augment.edges=0.6"], r"augment\.edges"),
        (["class_balance.beta=1.0"], "beta must be 0 to less than 1"),
        (["class_balance.kind=focal"], "must be one of none, effective_number, logit_adjustment"),
        (["pretrain.mask=1.0"], "mask must be between 0 and 1"),
        (["pretrain.epochs=0"], "must be at least 1"),
        (["optimizer.kind=sgd"], "must be one of adamw, muon"),
        (["classification=l2_svm", "model.kind=residual", "model.forest=3"], "l2_svm wants margins"),
        (["classification=l2_svm", "class_balance.kind=logit_adjustment"], "logit_adjustment is for softmax"),
        (["identity=-1"], "identity must be 0 or more"),
        (["model.stages=[]"], r"model\.stages must be \[filters, stride\] of each convolution"),
        (["model.stages=[[8]]"], r"model\.stages must be"),
        (["model.stages=[[0, 1]]"], r"model\.stages must be"),
        (["model.stages=[[8, 0]]"], r"model\.stages must be"),
        (["model.dropout=1.0"], r"model\.dropout must be 0 to less than 1, not 1\.0"),
        (["label_smoothing=2.0"], "label_smoothing must be 0 to less than 1"),
        (["optimizer.learning_rate=0.0"], r"optimizer\.learning_rate must be more than 0"),
        (["distill.temperature=0.0"], r"distill\.temperature must be more than 0"),
        (["batch_size=0"], "batch_size must be at least 1"),
        (["augment.scale=1.0"], r"augment\.scale must be 0 to less than 1"),
        (["seed=4294967296"], "seed must be 0 to 2147483647"),
        (["task_weights.ferplus=nan"], r"task_weights\.ferplus must be a number, 0 or more"),
        (["model.kind=residual", "model.inputs=['grey']"], "must be one of gray, lbp"),
        (["model.kind=residual", "model.inputs=[]"], r"model\.inputs is empty"),
        (["model.attention=cbam"], r"model\.attention is for residual networks, not for plain ones"),
        (["model.kind=separable", "model.forest=3"], r"model\.forest is for residual networks"),
    ],
)
def test_what_cannot_be_is_refused(changes: list[str], message: str, recipe: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe(), changes)


def numbers_of(kind: type[Any], prefix: str = "") -> dict[str, type[Any]]:
    """The keys of a dataclass, and of those in it, that are numbers."""
    found: dict[str, type[Any]] = {}
    for key, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= numbers_of(hint, f"{prefix}{key}.")  # type: ignore[arg-type]
        elif hint in (int, float):
            found[prefix + key] = hint
    return found


@pytest.mark.parametrize("key", sorted(numbers_of(Recipe)))
def test_no_number_of_a_recipe_is_below_zero_or_none_at_all(key: str, recipe: Callable[..., Path]) -> None:
    for value in ("nan", "inf", "-inf", "-1" if numbers_of(Recipe)[key] is int else "-0.5"):
        with pytest.raises(ConfigError, match=re.escape(key)):
            load_recipe(recipe(), [f"{key}={value}"])


STAGE = """
name = "x"
[model]
stages = [[8, 2]]
[[stage]]
name = "first"
[[stage]]
name = "second"
kind = "{kind}"
{wanted}
{key} = {value}
"""


@pytest.mark.parametrize(
    ("kind", "wanted", "key", "value"),
    [
        ("interpolate", 'between = ["first", "first"]', "alpha", "1.5"),
        ("interpolate", 'between = ["first", "first"]', "alpha", "nan"),
        ("probe", 'runs = ["first"]', "fraction", "0.0"),
        ("probe", 'runs = ["first"]', "seeds", "0"),
        ("cache-logits", 'teachers = ["first"]', "views", "-1"),
        ("train", "", "minutes", "{ cores = nan }"),
        ("train", "", "minutes", '{ gpu = "long" }'),
    ],
)
def test_numbers_of_a_stage_that_cannot_be(tmp_path: Path, kind: str, wanted: str, key: str, value: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(STAGE.format(kind=kind, wanted=wanted, key=key, value=value))
    with pytest.raises(ConfigError, match=rf"^{key}[a-z.]* must be "):
        load_stages(path)


def test_auxiliary_heads_of_one_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="one height and width only"):
        build(Recipe("x", ModelRecipe([[4, 2]]), auxiliary_heads=0.3), HEADS, 10)
