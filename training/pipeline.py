"""Walks the stages of a recipe: each once, and from where it was cut off.

    python -m training run accurate --data ~/fer2013

All files are written whole or not at all, so that a process may be cut off at any moment: the next one goes on, and
comes to the same weights. What led to a model, its lineage, is in the run.json of each stage; from there
export/quantize.py takes it into the model's metadata.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from edge_fer.errors import EdgeFerError
from edge_fer.files import make_folder, write_atomically
from training.callbacks.epoch_log import Place
from training.loop import accelerated, train
from training.plan import Pipeline, Step, total_seconds
from training.recipe import AugmentRecipe, Recipe, load_recipe
from training.stages import Stage

EXPORT = Path(__file__).resolve().parent.parent / "export"


def run(
    path: Path,
    data: Path,
    runs: Path,
    *,
    begin: str = "",
    dry_run: bool = False,
    changes: Sequence[str] = (),
    only: Collection[str] = (),
    then: Callable[[Pipeline, Step], None] | None = None,
) -> None:
    """Walk the stages of a recipe, each from where it was cut off.

    Args:
        path: the recipe's file, see ``stages.find``.
        data: see ``datasets.load``.
        runs: folder of all run folders.
        begin: the stage to make again, with all that is built on it; "" for none.
        dry_run: show the plan alone.
        changes: see ``stages.load_stages``.
        only: keys of the stages that are wanted, with what they are made from; none for all.
        then: is called with each stage as soon as it is done, and with those that were done before.

    Raises:
        EdgeFerError: recipe, data or runs are not as they should be.
    """
    console = Console(stderr=True)
    pipeline = Pipeline(path, data, runs, changes, begin, only)
    for step in pipeline.steps.values():
        pipeline.check(step)
    pipeline.show(console)
    if dry_run:
        return
    with _alone({step.folder.parent for step in pipeline.steps.values() if not pipeline.is_done(step)}):
        # From the last on: cut off on the way, what is left was all made from what is left.
        for key in reversed(pipeline.steps):
            if key in pipeline.again:
                pipeline.steps[key].clear()
        pipeline.again.clear()
        for number, step in enumerate(pipeline.steps.values(), 1):
            pipeline.check(step)
            if not step.is_done:
                after = list(pipeline.estimates().values())[number:]
                place = Place(f"stage {number} of {len(pipeline.steps)}, ", sum(filter(None, after)))
                console.rule(f"{place.stage}{step.stage.key}")
                _walk(pipeline, step, place, console)
            if then:
                then(pipeline, step)
    last = list(pipeline.steps.values())[-1]
    console.print(f"All done: {last.made}", highlight=False)


def _walk(pipeline: Pipeline, step: Step, place: Place, console: Console) -> None:
    """Do what a stage says, or go on with it, and record what led to it."""
    started, earlier = time.monotonic(), 0.0
    if not step.output.is_file():
        if (step.folder / "checkpoint.keras").is_file() and step.stage.kind == "train":
            earlier = total_seconds(step.history)
        else:
            step.clear()
            make_folder(step.folder.parent)
            _write(step.record_path, pipeline.begun(step))
        step.folder.mkdir(exist_ok=True)
        _act(pipeline, step, place, console)
        keras.backend.clear_session()
    lineage = pipeline.lineage(step)
    if step.output.name == "run.json":
        _write(step.output, json.loads(step.output.read_text(encoding="utf-8")) | {"lineage": lineage})
    seconds = round(earlier + time.monotonic() - started, 1)
    _write(step.record_path, {**(step.record or {}), "lineage": lineage, "seconds": seconds})


def _act(pipeline: Pipeline, step: Step, place: Place, console: Console) -> None:
    """What ``python -m training`` does by the verb of the stage's kind."""
    stage, data, folder = step.stage, pipeline.data, step.folder
    inputs = {key: pipeline.path_of(key) for key in stage.inputs}
    teachers = [inputs[key].parent for key in stage.teachers]
    match stage.kind:
        case "train":
            logits = inputs[stage.teacher_logits] if stage.teacher_logits else None
            begin = inputs[stage.init_from] if stage.init_from else None
            if begin and begin.with_name("multibranch.keras").is_file():
                begin = begin.with_name("multibranch.keras")
            resume = (folder / "checkpoint.keras").is_file()
            recipe = _calculable(stage.recipe, folder if resume else None, console)
            options: dict[str, Any] = {"resume": resume, "teacher_logits": logits, "teachers": teachers}
            train(recipe, data, folder, **options, init_from=begin, place=place)
        case "pretrain":
            from training.pretrain import pretrain

            pretrain(stage.recipe, data, folder)
        case "probe":
            from training.probe import probe

            options = {"fraction": stage.fraction, "seeds": stage.seeds, "face_network": stage.face_network}
            probe([inputs[key].parent for key in stage.runs], data, step.output, **options)
        case "from-bundle":
            from training.from_bundle import from_bundle

            from_bundle(stage.bundle, stage.recipe, data, folder)
        case "cache-logits":
            from training.cached_logits import cache_logits

            augment = stage.recipe.augment if stage.each_view else AugmentRecipe()
            cache_logits(
                teachers,
                data,
                stage.views,
                stage.recipe.seed,
                step.output,
                each_view=stage.each_view,
                data=stage.recipe.data,
                augment=augment,
            )
        case "interpolate":
            from training.interpolate import interpolate

            first, second = (inputs[key].parent for key in stage.between)
            interpolate(first, second, stage.alpha, data, folder)
        case "fold":
            from training.fold import fold

            fold(inputs[stage.of].parent, data, folder)
        case "qat":
            from training.qat import finetune

            with tempfile.TemporaryDirectory() as place_for:
                equalized = Path(place_for) / "model.keras"
                _export(stage, "equalize.py", inputs[stage.of], "-o", equalized)
                recipe = dataclasses.replace(stage.recipe, precision="float32")
                settings = (recipe.epochs, recipe.optimizer.learning_rate, not stage.per_tensor)
                finetune(equalized, recipe, data, folder, *settings, place=place)
        case "quantize":
            _export(stage, "quantize.py", inputs[stage.of], "--data", data, "-o", step.output, "--force", *stage.flags)


def _export(stage: Stage, script: str, *arguments: object) -> None:
    """Run a program of export/: in a process of its own, which wants TensorFlow whatever trains."""
    command = [sys.executable, str(EXPORT / script), *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "tensorflow"})
    if done.returncode:
        error = EdgeFerError(f"{stage.key} failed: export/{script} says above why.")
        error.exit_code = max(done.returncode, 1)
        raise error


def _calculable(recipe: Recipe, begun: Path | None, console: Console) -> Recipe:
    """The recipe in the precision that a run was begun in, or that the processor has."""
    if begun:
        return dataclasses.replace(recipe, precision=load_recipe(begun / "recipe.toml").precision)
    if recipe.precision == "bfloat16" and not (accelerated() or _has_bfloat16()):
        console.print("In float32: this processor would only imitate bfloat16, slowly.")
        return dataclasses.replace(recipe, precision="float32")
    return recipe


def _has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor calculates in bfloat16 itself: x86-64 with AVX-512 BF16, or ARM with BF16."""
    try:
        return bool(re.search(r"\b(avx512_bf16|bf16)\b", cpuinfo.read_text()))
    except OSError:
        return False


def _write(path: Path, table: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(table, indent=2) + "\n").encode())


@contextmanager
def _alone(folders: set[Path]) -> Iterator[None]:
    """Refuse to train where another process does.

    Raises:
        EdgeFerError: one does.
    """
    held = []
    try:
        for folder in sorted(folders):
            make_folder(folder)
            held.append(os.open(folder, os.O_RDONLY))
            try:
                fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EdgeFerError(f"Another process is at work in {folder}: wait for it, or end it.") from None
        yield
    finally:
        for one in held:
            os.close(one)
