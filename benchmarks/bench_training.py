"""How many images a second a recipe trains on, and where the time goes.

    python benchmarks/bench_training.py
    python benchmarks/bench_training.py --recipe nano --stage second --set precision=float32

Images and labels are noise: time does not depend on what they show. By the clock, on all cores that the process may
use (`taskset -c 0` for one of them). Mixup is left out, and a teacher's logits come with the labels.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

# So that `python benchmarks/bench_training.py` finds `training`, which is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its greetings

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track
from rich.table import Table

from datasets.fer2013 import FER2013_LABELS, FERPLUS_LABELS
from edge_fer.board import describe_machine
from edge_fer.errors import ConfigError, EdgeFerError
from edge_fer.model.spec import Head
from training import augmentation, models
from training.callbacks.chance import Batches
from training.callbacks.ema import WeightEMA
from training.loop import build
from training.recipe import Recipe
from training.stages import find, load_stages

HEADS = (Head("ferplus", FERPLUS_LABELS), Head("fer2013", FER2013_LABELS))
STEPS = 20
"""In one reading of the whole, less the first; of the parts, one is timed at a time."""
ROUNDS = 7


class Clock(keras.callbacks.Callback):
    """When the first and the last step ended: what an epoch takes to begin does not count, a real one is long."""

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        now = time.perf_counter()
        if not batch:
            self.began = now
        self.seconds = now - self.began


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="cached", help="a name in training/recipes, or a TOML file (cached)")
    parser.add_argument("--stage", metavar="NAME", help="default: the last that trains")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    try:
        stages = [stage for stage in load_stages(find(args.recipe), args.set) if stage.kind == "train"]
        stages = [stage for stage in stages if args.stage in (None, stage.name)]
        if not stages:
            raise ConfigError(f"{args.recipe} has no stage {args.stage!r} that trains.")
        recipe = dataclasses.replace(stages[-1].recipe, name=stages[-1].key, mixup=0.0)
        milliseconds = measure(recipe)
    except EdgeFerError as error:
        print(f"bench_training: {error}", file=sys.stderr)
        return error.exit_code
    whole = milliseconds.pop("all of it")
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        **describe_machine(),
        "cores_used": len(os.sched_getaffinity(0)),
        "recipe": recipe.name,
        "precision": recipe.precision,
        "batch_size": recipe.batch_size,
        "images_per_second": round(1000 * recipe.batch_size / whole),
    }
    if args.json:
        print(json.dumps({**facts, "ms_a_batch": {**milliseconds, "all of it": whole}}))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), highlight=False)
    table = Table("part of a step", "ms", "fraction", title=f"{recipe.name}, batches of {recipe.batch_size}")
    for part, value in milliseconds.items():
        table.add_row(part, f"{value:.1f}", f"{value / whole:.0%}")
    table.add_row("all of it", f"{whole:.1f}", "")
    console.print(table)
    return 0


def measure(recipe: Recipe) -> dict[str, float]:
    """Milliseconds of a batch: of each part, and of all as ``training.loop`` does it. Medians of readings in turn."""
    random = np.random.default_rng(0)
    network = build(recipe, HEADS, STEPS)
    core, trained = models.core_of(network, recipe.model.kind), network.get_layer(recipe.model.kind)
    images = random.integers(0, 256, (STEPS * recipe.batch_size, *core.input_shape[1:]), dtype=np.uint8)
    widths = {head.name: len(head.labels) for head in HEADS}
    if recipe.distill.weight:
        widths["teacher"] = sum(widths.values())
    targets = {name: random.dirichlet(np.ones(width), len(images)).astype(np.float32) for name, width in widths.items()}
    batch = tf.constant(images[: recipe.batch_size], tf.float32)
    batch_targets = {name: values[: recipe.batch_size] for name, values in targets.items()}
    augment, camera = augmentation.make(recipe.augment, recipe.seed)

    @tf.function
    def change() -> tf.Tensor:
        return camera(augment(batch, training=True), training=True)

    @tf.function
    def forward() -> tf.Tensor:
        return network.compute_loss(y=batch_targets, y_pred=trained(batch, training=True))

    @tf.function
    def backward() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = network.compute_loss(y=batch_targets, y_pred=trained(batch, training=True))
        return tape.gradient(loss, trained.trainable_variables)

    batches, clock = Batches(images, targets, recipe.batch_size), Clock()
    callbacks: list[keras.callbacks.Callback] = [clock]
    if recipe.optimizer.ema:
        callbacks.insert(0, WeightEMA(core, keras.models.clone_model(core), recipe.optimizer.ema))

    def whole() -> None:
        network.fit(batches, callbacks=callbacks, verbose=0, shuffle=False)

    parts: dict[str, Callable[[], object]] = {
        "change": change,
        "forward": forward,
        "backward": backward,
        "whole": whole,
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    console = Console(stderr=True)
    for _ in track(range(1 + ROUNDS), recipe.name, console=console, transient=True, disable=not console.is_terminal):
        for name, run in parts.items():
            began = time.perf_counter()
            run()
            seconds = clock.seconds / (STEPS - 1) if name == "whole" else time.perf_counter() - began
            times[name].append(1000 * seconds)
    ms = {name: median(values[1:]) for name, values in times.items()}  # the first round compiles
    return {
        "augmentation": ms["change"],
        "the network, forward": ms["forward"],
        "the network, backward": ms["backward"] - ms["forward"],
        "optimizer, EMA, the loop": ms["whole"] - ms["backward"] - ms["change"],
        "all of it": ms["whole"],
    }


if __name__ == "__main__":
    sys.exit(main())
