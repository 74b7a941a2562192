"""What is to be done for a model: its stages in the order in which they are walked, and what there is of each.

RUNS/PIPELINE/STAGE/      the stage's run folder (``runs``); or logits.npz, probe.csv or PIPELINE.tflite
RUNS/PIPELINE/STAGE.json  what it was begun with, and once it is done, its lineage: all stages that led to it

A stage is done when its last file is there (run.json, logits.npz, probe.csv, PIPELINE.tflite) and its lineage in
STAGE.json.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from edge_fer.errors import ConfigError, DataError, InputMissingError
from edge_fer.model.bundle import Bundle
from edge_fer.version import __version__
from training.callbacks.epoch_log import in_words
from training.curves import read_history
from training.loop import accelerated
from training.recipe import DataRecipe, ModelRecipe, Recipe, load_recipe
from training.runs import load_data, sha256_of
from training.stages import LOGITS, TRAINS, Stage, collect

_DEFAULTS = dataclasses.asdict(Recipe("", ModelRecipe([[1, 1]])))


@dataclass(frozen=True)
class Step:
    """A stage, and what there is of it in the folder of all runs."""

    stage: Stage
    runs: Path

    @property
    def folder(self) -> Path:
        return self.runs / self.stage.key

    @property
    def record_path(self) -> Path:
        return self.folder.with_name(f"{self.stage.name}.json")

    @property
    def output(self) -> Path:
        """The file that is written last."""
        names = {"cache-logits": "logits.npz", "probe": "probe.csv", "quantize": f"{self.stage.pipeline}.tflite"}
        return self.folder / names.get(self.stage.kind, "run.json")

    @property
    def made(self) -> Path:
        """What other stages are made from."""
        return self.folder / "model.keras" if self.output.name == "run.json" else self.output

    @property
    def record(self) -> dict[str, Any] | None:
        """What it was begun with; None where nothing of it is there.

        Raises:
            EdgeFerError: the folder is somebody else's, or the record cannot be read.
        """
        if not self.folder.exists():
            return None
        try:
            record: dict[str, Any] = json.loads(self.record_path.read_text(encoding="utf-8"))
            if {"recipe", "inputs", "versions", "data_sha256"} <= record.keys():
                return record
        except FileNotFoundError:
            raise ConfigError(f"{self.folder} was not made by `run`: move it away, or choose other --runs.") from None
        except (ValueError, AttributeError):
            pass
        raise DataError(f"{self.record_path} is not what `run` wrote: move it and {self.folder} away.")

    @property
    def is_done(self) -> bool:
        record = self.record
        return record is not None and "lineage" in record and self.output.is_file()

    def seconds(self, before: float | None) -> float | None:
        """What it took, or what is left of it; ``before`` is what was known before it began."""
        record = self.record
        if record and self.is_done:
            return float(record["seconds"])
        epochs = self.history if record and self.stage.kind == "train" else []
        if epochs:
            done = epochs[-1]["epoch"]
            return total_seconds(epochs) / done * (self.stage.recipe.epochs - done)
        return before

    @property
    def history(self) -> list[dict[str, float]]:
        """Lines of the epochs that were done."""
        path = self.folder / "history.csv"
        return read_history(path) if path.is_file() else []

    def clear(self) -> None:
        """Take away what there is of it; cut off on the way, it is all there, or nothing that counts."""
        leaving = self.folder.with_name(f"{self.stage.name}.replaced")
        shutil.rmtree(leaving, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(leaving)
        self.record_path.unlink(missing_ok=True)
        shutil.rmtree(leaving, ignore_errors=True)


class Pipeline:
    """The stages that a model needs, in the order in which they are walked.

    Args:
        path: the recipe's file.
        data: see ``datasets.load``.
        runs: folder of all run folders.
        changes: ``--set``, for the stages of this file.
        begin: the stage to make again, with all that is built on it; "" for none.
        only: keys of the stages that are wanted, with what they are made from; none for all.

    Raises:
        EdgeFerError: a recipe or ``begin`` is not as it should be.
    """

    def __init__(
        self,
        path: Path,
        data: Path,
        runs: Path,
        changes: Sequence[str] = (),
        begin: str = "",
        only: Collection[str] = (),
    ) -> None:
        stages = collect(path, changes)
        self.name = next(reversed(stages.values())).pipeline
        self.data = data
        self._hashes: dict[DataRecipe, dict[str, str]] = {}
        begin = f"{self.name}/{begin}" if begin and "/" not in begin else begin
        if begin and begin not in stages:
            raise ConfigError(f"--from {begin}: there is no such stage; there are {', '.join(stages)}.")
        self.again: set[str] = set()
        for key, stage in stages.items():
            if key == begin or self.again & set(stage.inputs):
                self.again.add(key)
        self.known = {key: Step(stage, runs) for key, stage in stages.items()}
        needed = {key for key, stage in stages.items() if stage.pipeline == self.name} | self.again
        needed = needed & set(only) if only else needed
        for key, step in reversed(self.known.items()):
            if key in needed and not self.is_done(step):
                needed.update(step.stage.inputs)
        self.steps = {key: step for key, step in self.known.items() if key in needed}

    def is_done(self, step: Step) -> bool:
        """Whether nothing is to be done for it."""
        return step.stage.key not in self.again and step.is_done

    def check(self, step: Step) -> None:
        """Refuse to go on from what was begun otherwise, or to begin what lacks data.

        Raises:
            ConfigError: by another recipe, with other data, versions or stages before it.
            InputMissingError: there is no folder with the further faces of its recipe.
        """
        record = step.record  # before all else: what is not ours is not replaced either
        further = step.stage.recipe.data.further
        if further and not self.is_done(step) and not (self.data / further).is_dir():
            without = "" if step.stage.recipe.data.further_alone else "; --set data.further= is without"
            raise InputMissingError(
                f"{step.stage.key} wants {self.data / further}, with a folder for each class{without}."
            )
        if record is None or step.stage.key in self.again:
            return
        now = self.begun(step)
        reasons = []
        recorded = _completed(record["recipe"], now["recipe"], _DEFAULTS)
        if changed := _differing(recorded, now["recipe"]):
            reasons.append(f"by another recipe ({', '.join(changed)})")
        if record["data_sha256"] != now["data_sha256"]:
            reasons.append("with other data")
        for name in _differing(record["versions"], now["versions"]):
            theirs, ours = (versions.get(name, "none") for versions in (record["versions"], now["versions"]))
            reasons.append(f"with {name} {theirs}, not {ours}")
        # What a stage was made from may be gone once it is done.
        others = [key for key, sha256 in now["inputs"].items() if record["inputs"].get(key) != sha256]
        reasons += [f"from another {key}" for key in others]
        if reasons:
            short = step.stage.name if step.stage.pipeline == self.name else step.stage.key
            raise ConfigError(
                f"{step.folder} was made {' and '.join(reasons)}: --from {short} makes it again, and all that is built "
                "on it."
            )

    def begun(self, step: Step) -> dict[str, Any]:
        """All that decides what a stage comes to."""
        stage, recipe = step.stage, dataclasses.asdict(step.stage.recipe)
        if stage.kind not in TRAINS:
            read = ["seed", "data", *(["model"] if stage.kind == "from-bundle" else [])]
            read += ["augment"] if stage.each_view else []
            recipe = {key: recipe[key] for key in read}
        paths = {key: self.path_of(key) for key in stage.inputs}
        inputs = {key: sha256_of(path) for key, path in paths.items() if path.is_file()}
        if stage.bundle and not step.is_done:
            inputs[stage.bundle] = Bundle.load(stage.bundle).metadata.model_sha256
        return {
            "recipe": json.loads(json.dumps({"kind": stage.kind, **recipe, **stage.settings})),
            "inputs": inputs,
            "data_sha256": self._data_sha256(stage.recipe),
            "versions": _versions(),
        }

    def path_of(self, key: str) -> Path:
        """The file of an input of a stage."""
        return self.known[key].made if "/" in key else LOGITS / f"{key}.npz"

    def _data_sha256(self, recipe: Recipe) -> dict[str, str]:
        if recipe.data not in self._hashes:
            splits = load_data(self.data, recipe.data)
            self._hashes[recipe.data] = {name: split.sha256 for name, split in splits.items()}
        return self._hashes[recipe.data]

    def estimates(self) -> dict[str, float | None]:
        """Seconds by stage: what it took, or what is left as far as that is known before."""
        hardware = "gpu" if accelerated() else "cores"
        made_anew = {key: _minutes(step.stage, hardware) for key, step in self.steps.items()}
        return {
            key: made_anew[key] if key in self.again else step.seconds(made_anew[key])
            for key, step in self.steps.items()
        }

    def show(self, console: Console) -> None:
        """Print the plan, with what each stage took or will take."""
        table = Table("", "stage", "kind", "made from", "time")
        estimates = self.estimates()
        left, unknown = 0.0, 0
        for number, (key, step) in enumerate(self.steps.items(), 1):
            seconds = estimates[key]
            state = "not known before" if seconds is None else f"about {in_words(seconds)}"
            if self.is_done(step):
                state = f"done in {in_words(seconds or 0.0)}"
            else:
                left += seconds or 0.0
                unknown += seconds is None
                if key not in self.again and step.history:
                    state = f"{int(step.history[-1]['epoch'])} of {step.stage.recipe.epochs} epochs done, {state} left"
            made_from = ", ".join([*filter(None, [step.stage.bundle]), *step.stage.inputs])
            table.add_row(str(number), key, step.stage.kind, made_from, state)
        console.print(table)
        where = "a GPU" if accelerated() else "two cores"
        known = f"about {in_words(left)}" if left or not unknown else ""
        more = f"{unknown} stage{'s' if unknown > 1 else ''} whose time is not known before" if unknown else ""
        console.print(f"Left, on {where}: {' and '.join(filter(None, [known, more]))}.", highlight=False)

    def lineage(self, step: Step) -> dict[str, Any]:
        """All that led to what a stage made: the stages by key, each with what it was made from."""
        stage, record = step.stage, step.record
        assert record is not None
        lineage: dict[str, Any] = {}
        for key in stage.inputs:
            if "/" in key:
                before = self.known[key].record or {}
                lineage |= before.get("lineage", {})
            else:
                path = self.path_of(key)
                with np.load(path, allow_pickle=False) as file:
                    facts = json.loads(str(file["facts"]))
                lineage[key] = {"kind": "cache-logits", **facts, "made_sha256": sha256_of(path)}
        own: dict[str, Any] = {"kind": stage.kind, **stage.settings}
        if stage.kind in (*TRAINS, "cache-logits"):
            own["seed"] = stage.recipe.seed
        if stage.kind in TRAINS:
            own["recipe_sha256"] = sha256_of(step.folder / "recipe.toml")
        if stage.kind == "from-bundle":
            own["bundle"] = json.loads((step.folder / "run.json").read_text(encoding="utf-8"))["bundle"]
        if stage.kind == "train":
            own["precision"] = load_recipe(step.folder / "recipe.toml").precision
        own |= {key: record[key] for key in ("inputs", "data_sha256", "versions")}
        lineage[stage.key] = {**own, "made_sha256": sha256_of(step.made)}
        files = [key for key in lineage if key not in self.known]
        return {key: lineage[key] for key in [*files, *self.known] if key in lineage}


def _versions() -> dict[str, str]:
    backend = keras.backend.backend()
    return {"edge_fer": __version__, "keras": keras.__version__, "backend": f"{backend} {version(backend)}"}


def _minutes(stage: Stage, hardware: str) -> float | None:
    minutes = stage.minutes.get(hardware)
    return None if minutes is None else 60 * minutes


def total_seconds(history: list[dict[str, float]]) -> float:
    """Seconds of all epochs: a line may stand for several, and says their mean."""
    ends = [0.0, *(line["epoch"] for line in history)]
    return sum(line["seconds"] * (line["epoch"] - before) for line, before in zip(history, ends, strict=False))


def _completed(old: dict[str, Any], new: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What was recorded, with the defaults of settings that a later version brought: it was trained as they say."""
    whole = {key: defaults[key] for key in new if key not in old and key in defaults}
    for key, value in old.items():
        inner = isinstance(value, dict) and isinstance(new.get(key), dict) and isinstance(defaults.get(key), dict)
        whole[key] = _completed(value, new[key], defaults[key]) if inner else value
    return whole


def _differing(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys in which two tables differ, those of tables inside as "optimizer.ema"."""
    names = []
    for key in dict.fromkeys([*one, *other]):
        old, new = one.get(key), other.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            names += _differing(old, new, f"{prefix}{key}.")
        elif old != new:
            names.append(prefix + key)
    return names
