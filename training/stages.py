"""The stages of a recipe: how a model is made of several trainings, in one TOML file.

A file in training/recipes has the recipe that its stages share, and a ``[[stage]]`` for each. A stage has keys of its
own (``Stage``) and keys of ``Recipe`` in which it differs. A stage refers to another by its name, or by
"pipeline/stage" where it is one of another file: training/recipes/README.md.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from edge_fer.errors import ConfigError, InputMissingError
from edge_fer.strict import from_table
from training.ranges import STAGE, check, check_table
from training.recipe import Recipe, change, merged, read_table

RECIPES = Path(__file__).parent / "recipes"
LOGITS = Path(__file__).parent / "logits"

Kind = Literal["train", "pretrain", "probe", "from-bundle", "cache-logits", "interpolate", "fold", "qat", "quantize"]

TRAINS = ("train", "pretrain", "qat")
"""Kinds that read the recipe; of the others, the data and the seed alone count."""
WANTED: dict[str, tuple[str, ...]] = {
    "probe": ("runs",),
    "from-bundle": ("bundle",),
    "cache-logits": ("teachers",),
    "interpolate": ("between",),
    "fold": ("of",),
    "qat": ("of",),
    "quantize": ("of",),
}
"""What a stage of a kind must say."""
ALLOWED: dict[str, tuple[str, ...]] = {
    "train": ("init_from", "teachers", "teacher_logits"),
    "probe": ("fraction", "seeds", "face_network"),
    "cache-logits": ("views", "each_view"),
    "interpolate": ("alpha",),
    "qat": ("per_tensor",),
    "quantize": ("flags",),
}
"""What it may say besides."""


@dataclass(frozen=True)
class Stage:
    """One step on the way to a model.

    Attributes:
        name: of its folder.
        kind: what is done: a verb of ``python -m training``, or "quantize" for export/quantize.py.
        minutes: what it took, by "cores" (two of a processor) and "gpu": an estimate for those who wait.
        bundle: the model whose int8 network is taken: a name in the package, or a bundle's file.
        init_from: the stage whose weights to start from.
        teachers: stages that are a teacher ensemble.
        teacher_logits: a stage of the kind "cache-logits", or else the name of a file in training/logits.
        between: the two stages whose weights are interpolated.
        alpha: weight of the second.
        of: the stage that is folded, fine-tuned or quantized.
        views: of each image, for "cache-logits".
        each_view: keep each view and its logits, see ``ensemble.cache_logits``.
        per_tensor: one scale a kernel, for "qat".
        flags: more of the command line of export/quantize.py.
        runs: the stages whose features are probed.
        fraction: of the labels that a probe learns from.
        seeds: how often they are drawn.
        face_network: probe dlib's face network too.
        pipeline: name of its file's recipe.
        recipe: what is trained by.
    """

    name: str
    kind: Kind
    pipeline: str
    recipe: Recipe
    minutes: Mapping[str, float] = field(default_factory=dict)
    bundle: str = ""
    init_from: str = ""
    teachers: tuple[str, ...] = ()
    teacher_logits: str = ""
    between: tuple[str, ...] = ()
    alpha: float = 0.5
    of: str = ""
    views: int = 4
    each_view: bool = False
    per_tensor: bool = False
    flags: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    fraction: float = 0.1
    seeds: int = 3
    face_network: bool = False

    def __post_init__(self) -> None:
        check(self, STAGE)
        check_table("minutes", self.minutes)

    @property
    def key(self) -> str:
        """ "pipeline/stage", its folder among the runs."""
        return f"{self.pipeline}/{self.name}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Keys of the stages it is made from, and names of files in training/logits."""
        named = (self.init_from, *self.teachers, self.teacher_logits, *self.between, self.of, *self.runs)
        return tuple(dict.fromkeys(one for one in named if one))

    @property
    def settings(self) -> dict[str, Any]:
        """What it says of its own that decides what it comes to."""
        said = {key: getattr(self, key) for key in (*WANTED.get(self.kind, ()), *ALLOWED.get(self.kind, ()))}
        return {key: value for key, value in said.items() if value not in ("", ())}


OWN = {one.name for one in dataclasses.fields(Stage)} - {"pipeline", "recipe"}


def find(name: str) -> Path:
    """The file of a pipeline: a path that ends in .toml, or a name in training/recipes.

    Raises:
        InputMissingError: there is none.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in RECIPES.glob("*.toml") if one.stem != "base"))
        raise InputMissingError(f"No recipe {path}: give the path of a TOML file, or one of {known}.")
    return path


def collect(path: Path, changes: Sequence[str] = ()) -> dict[str, Stage]:
    """The stages of a file by key, those of other files that they are made from before them.

    Args:
        path: TOML; other files are looked for beside it, then in training/recipes.
        changes: see ``load_stages``; for this file alone.

    Raises:
        InputMissingError: no such file.
        ConfigError: something in it is not as it should be.
    """
    own = load_stages(path, changes)
    files = {own[0].pipeline: {stage.key: stage for stage in own}}
    collected: dict[str, Stage] = {}
    waiting: list[str] = []

    def add(stage: Stage, folder: Path) -> None:
        if stage.key in waiting:
            raise ConfigError(f"{path}: {stage.key} is made from itself, by way of {waiting[-1]}.")
        waiting.append(stage.key)
        for key in stage.inputs:
            pipeline, slash, _ = key.partition("/")
            if not slash or key in collected:
                continue
            beside = folder / f"{pipeline}.toml"
            other = beside if beside.is_file() else find(pipeline)
            if pipeline not in files:
                files[pipeline] = {one.key: one for one in load_stages(other)}
            if key not in files[pipeline]:
                raise ConfigError(f"{stage.key} wants {key}, but {other} has only {', '.join(files[pipeline])}.")
            add(files[pipeline][key], other.parent)
        collected[waiting.pop()] = stage

    for stage in own:
        if stage.key not in collected:
            add(stage, path.parent)
    return collected


def load_stages(path: Path, changes: Sequence[str] = ()) -> list[Stage]:
    """Read the stages of a recipe file; one without ``[[stage]]`` is one stage, "train".

    Args:
        path: TOML.
        changes: "seed=2", "optimizer.learning_rate=0.01": they hold for each stage, whatever it says itself.

    Raises:
        InputMissingError: no such file.
        ConfigError: not TOML, an unknown key, or what cannot be.
    """
    shared = read_table(path)
    tables = shared.pop("stage", [{"name": "train"}])
    if not isinstance(tables, list) or not tables or not all(isinstance(one, dict) for one in tables):
        raise ConfigError(f"{path}: write each stage as [[stage]], with a name.")
    pipeline = shared.get("name")
    if not _is_name(pipeline):
        raise ConfigError(f"{path}: name must be of letters, digits, - and _: it names a folder.")
    stages: list[Stage] = []
    for table in tables:
        stage = _read(path, str(pipeline), shared, table, changes, {one.name for one in stages})
        stages.append(stage)
    return stages


def _read(
    path: Path, pipeline: str, shared: dict[str, Any], table: dict[str, Any], changes: Sequence[str], before: set[str]
) -> Stage:
    name = table.get("name")
    if not _is_name(name) or name in before:
        raise ConfigError(f"{path}: each stage wants a name of its own, of letters, digits, - and _, not {name!r}.")
    origin = f"{path}, stage {name!r}"
    of_recipe = {one.name for one in dataclasses.fields(Recipe)} - {"name"}
    if table.get("kind", "train") not in TRAINS:
        of_recipe = {"seed", "augment", "data"} if table.get("each_view") else {"seed"}
    for key in table:
        if key not in OWN | of_recipe:
            near = get_close_matches(key, OWN | of_recipe, n=1)
            raise ConfigError(f"{origin}: unknown key {key!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
    recipe = merged(shared, {key: value for key, value in table.items() if key in of_recipe})
    for one in changes:
        change(recipe, one)
    own = {"kind": "train"} | {key: value for key, value in table.items() if key in OWN}
    stage = from_table(Stage, {**own, "pipeline": pipeline, "recipe": from_table(Recipe, recipe, origin)}, origin)
    wanted = WANTED.get(stage.kind, ())
    for key in wanted:
        if not getattr(stage, key):
            raise ConfigError(f"{origin}: a stage of the kind {stage.kind!r} wants {key!r}.")
    for key in own.keys() - {"name", "kind", "minutes", *wanted, *ALLOWED.get(stage.kind, ())}:
        raise ConfigError(f"{origin}: {key!r} is not for a stage of the kind {stage.kind!r}.")
    if stage.kind == "interpolate" and len(stage.between) != 2:
        raise ConfigError(f"{origin}: 'between' must name two stages.")
    return _with_keys(stage, before, origin)


def _with_keys(stage: Stage, before: set[str], origin: str) -> Stage:
    """The stage with the keys of those it refers to."""

    def key(reference: str, files: bool = False) -> str:
        if reference in before:
            return f"{stage.pipeline}/{reference}"
        if not reference or (files and (LOGITS / f"{reference}.npz").is_file()):
            return reference
        if re.fullmatch(r"[\w-]+/[\w-]+", reference, re.ASCII):
            return reference
        where = "in training/logits, and no stage before it is called so" if files else "among the stages before it"
        raise ConfigError(f"{origin}: there is no {reference!r} {where}.")

    return dataclasses.replace(
        stage,
        init_from=key(stage.init_from),
        teachers=tuple(map(key, stage.teachers)),
        teacher_logits=key(stage.teacher_logits, files=True),
        between=tuple(map(key, stage.between)),
        of=key(stage.of),
        runs=tuple(map(key, stage.runs)),
    )


def _is_name(text: object) -> bool:
    return isinstance(text, str) and bool(re.fullmatch(r"[\w-]+", text, re.ASCII))
