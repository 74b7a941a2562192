"""One training by one recipe, into a run folder (``runs``) that says all about it.

RUN/history.csv      a line an epoch; curves.png shows it
RUN/checkpoint.keras network, optimizer and epoch, after every epoch: what --resume continues from
RUN/ema.keras        the EMA of the weights, where the recipe has one
RUN/multibranch.keras with its RepVGG blocks not yet re-parameterized, where it has any: what --init-from takes
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from edge_fer.errors import ConfigError, InputMissingError
from edge_fer.model.spec import Head
from training import augmentation, distributed, models, optimizers
from training.augmentation import Mixup
from training.cached_logits import load_logits
from training.callbacks.chance import Batches, ChanceByEpoch
from training.callbacks.ema import WeightEMA
from training.callbacks.epoch_log import ALONE, EpochLog, Place
from training.callbacks.mixup import MixupUntil
from training.corruption import Corrupt, Halves
from training.curves import read_history
from training.ensemble import TeacherEnsemble, gather
from training.fixed_statistics import with_statistics
from training.recipe import Recipe, load_recipe
from training.runs import read_data, replace, sha256_of, write_recipe, write_run
from training.samples import gather_samples
from training.tasks import ClassBalance, TrainingNetwork, class_balance, compose


def train(
    recipe: Recipe,
    data_folder: Path,
    run: Path,
    *,
    resume: bool = False,
    teacher_logits: Path | None = None,
    teachers: Sequence[Path] = (),
    init_from: Path | None = None,
    place: Place = ALONE,
) -> None:
    """Train, or go on with a training that was cut off.

    Args:
        recipe: all that decides.
        data_folder: see ``datasets.load``.
        run: new folder to write, or one to go on with.
        resume: go on from the last checkpoint.
        teacher_logits: cached logits of a teacher ensemble for the Training images; these or ``teachers`` where the
            recipe distills.
        teachers: run folders of a teacher ensemble for online distillation: it predicts each image as the network sees
            it.
        init_from: a .keras file with the same layers, whose weights to start from.
        place: where this training stands in a plan of several stages.

    Raises:
        EdgeFerError: recipe, data or run folder are not as they should be.
    """
    checkpoint = run / "checkpoint.keras"
    if resume:
        if not checkpoint.is_file():
            raise InputMissingError(f"{run} has no checkpoint.keras to resume from; start without --resume.")
        if load_recipe(run / "recipe.toml") != recipe:
            raise ConfigError(
                f"{recipe.name} differs from {run}/recipe.toml: a run is resumed with its own recipe and --set."
            )
    elif run.exists() and any(run.iterdir()):
        raise ConfigError(f"{run} is not empty: choose another --run, or go on with it by --resume.")
    if recipe.fixed_statistics and not init_from:
        raise ConfigError(f"{recipe.name} has fixed_statistics: give --init-from, the model whose statistics to keep.")
    if bool(teacher_logits) + bool(teachers) != bool(recipe.distill.weight):
        raise ConfigError(
            f"{recipe.name} has a distill.weight: give --teacher-logits or --teacher, one of the two."
            if recipe.distill.weight
            else f"{recipe.name} has no distill.weight: leave --teacher-logits and --teacher out."
        )
    processes = distributed.join(recipe.distribution)  # after all looked into the folder, which one of them will fill
    console = Console(stderr=True, quiet=not processes.leads)
    splits = read_data(data_folder, recipe)
    training, validation = splits["Training"], splits["PublicTest"]
    facts: dict[str, Any] = {}
    cached = load_logits(teacher_logits, splits, recipe.data) if teacher_logits else None
    samples = gather_samples(recipe, splits, cached)
    if cached:
        facts["teacher"] = cached.facts
    ensemble = None
    if teachers:
        ensemble, facts["teacher"] = gather(list(teachers), recipe, validation)

    keras.utils.set_random_seed(recipe.seed)
    steps = -(-len(samples) // recipe.batch_size)
    network = build(recipe, training.heads, steps, class_balance(recipe.class_balance, training), ensemble)
    core = models.core_of(network, recipe.model.kind)
    epochs_done, history, ema_so_far = 0, [], None
    if resume:
        with distributed.leader_first(processes):
            models.restore(network, checkpoint)
            epochs_done = int(network.optimizer.iterations.numpy()) // steps
            # A cut after the checkpoint but before the line in history.csv, or the reverse, must not double an epoch.
            history = [line for line in read_history(run / "history.csv") if line["epoch"] <= epochs_done]
            if recipe.optimizer.ema:
                ema_so_far = _load_ema(run, epochs_done)
    if init_from:
        if not resume:
            _init_from(core, init_from)
        facts["init_from"] = sha256_of(init_from)
    if processes.leads:
        run.mkdir(parents=True, exist_ok=True)
        write_recipe(run, recipe)
    others = " and ".join(filter(None, [recipe.data.unlabeled, recipe.data.further]))
    more = f" and {len(samples) - len(training):,} of {others}" if others else ""
    if recipe.data.further_alone:
        more = f", but of them none: {len(samples):,} of {recipe.data.further}"
    console.print(
        f"{recipe.name}: {core.count_params():,} parameters, {len(training):,} Training samples{more}, "
        f"{len(validation):,} PublicTest samples, Keras on {keras.backend.backend()}"
    )
    started = time.monotonic()
    ema, callbacks = None, []
    if recipe.optimizer.ema:
        averaged = ema_so_far or keras.models.clone_model(core)
        if not resume:
            averaged.set_weights(core.get_weights())
        ema = WeightEMA(core, averaged, recipe.optimizer.ema)
    if recipe.mixup:
        callbacks.append(MixupUntil(recipe.epochs - math.ceil(recipe.epochs / 10)))
    measured = ema.averaged if ema else core
    log = EpochLog(recipe.epochs, run, measured, ema, validation, history, steps, console, place)
    if processes.leads:
        callbacks.append(log)
    with log.progress:  # the terminal has its cursor back whatever happens
        if accelerated() or recipe.distribution == "data":
            from training import jax_fit

            log.least_seconds = 10.0 if accelerated() else 0.0
            callbacks.append(ChanceByEpoch(recipe.seed))
            jax_fit.fit(
                network,
                samples,
                batch_size=recipe.batch_size,
                epochs=recipe.epochs,
                initial_epoch=epochs_done,
                callbacks=callbacks,
                seed=recipe.seed,
                ema=ema,
                parallel=recipe.distribution == "data",
            )
        else:
            batches = Batches(*samples.of_epoch(0), recipe.batch_size)
            views = samples if samples.views > 1 else None
            callbacks += [ChanceByEpoch(recipe.seed, batches, views), *([ema] if ema else [])]
            network.fit(
                batches,
                epochs=recipe.epochs,
                initial_epoch=epochs_done,
                shuffle=False,
                callbacks=callbacks,
                verbose=0,
            )
    if not processes.leads:
        distributed.wait_for_all(processes)
        return
    facts |= {"seconds": round(time.monotonic() - started), "resumed": resume, "processes": processes.count}
    seconds = float(np.mean([line["seconds"] for line in history]))
    facts["images_per_second"] = round(len(samples) / max(seconds, 1e-3))
    if recipe.model.repvgg:
        replace(run / "multibranch.keras", measured.save)
        measured = models.reparameterize(measured)
    if recipe.fixed_statistics:
        measured = with_statistics(measured, fixed=False)
    if recipe.precision != "float32":
        measured = models.in_precision(measured, "float32")
    write_run(run, recipe, measured, splits, facts)
    distributed.wait_for_all(processes)


def _load_ema(run: Path, epochs_done: int) -> keras.Model:
    """The EMA that belongs to the checkpoint: a cut between the two files leaves the newer one by the epoch's name."""
    newer = run / f"ema.{epochs_done}.keras"
    if newer.is_file():
        newer.replace(run / "ema.keras")
    for leftover in run.glob("ema.*.keras"):
        leftover.unlink()
    return models.load(run / "ema.keras")


def accelerated() -> bool:
    """Whether Keras runs on JAX and JAX on a GPU or TPU, where ``jax_fit.fit`` is the faster way."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return bool(jax.default_backend() != "cpu")


def _init_from(core: keras.Model, path: Path) -> None:
    weights = models.load(path).get_weights()
    if [one.shape for one in weights] != [one.shape for one in core.get_weights()]:
        raise ConfigError(f"{path} has other layers than the recipe's [model]: --init-from wants the same.")
    core.set_weights(weights)


def build(
    recipe: Recipe,
    heads: Sequence[Head],
    steps_per_epoch: int,
    balance: Mapping[str, ClassBalance] | None = None,
    ensemble: TeacherEnsemble | None = None,
) -> TrainingNetwork:
    """The network with augmentation in front, its tasks and its optimizer, ready to fit.

    Args:
        recipe: all of it.
        heads: of the data set.
        steps_per_epoch: batches.
        balance: what ``tasks.class_balance`` made of the data.
        ensemble: for online distillation, where no teacher logits come with the targets. It sees what the network sees,
            but neither the blur and noise of ``augmentation.Camera`` nor ``corruption.Corrupt``, which would spoil its
            soft targets too.
    """
    core = models.build(recipe.model, sum(len(head.labels) for head in heads), recipe.precision)
    if recipe.fixed_statistics:
        core = with_statistics(core, fixed=True)
    centers = len(heads[-1].labels) if recipe.center else 0
    pairs = max(recipe.locality, recipe.contrastive, recipe.tuplets) > 0
    core = models.with_extras(core, recipe.auxiliary_heads > 0, centers, embedded=pairs, identity=recipe.identity > 0)
    pixels = keras.Input(core.input_shape[1:], name="pixels")
    augment, camera = augmentation.make(recipe.augment, recipe.seed)
    seen, more = augment(pixels), {}
    if recipe.mixup:
        seen, more["mixup"] = Mixup(recipe.mixup, seed=recipe.seed)(seen)
    if ensemble:
        more["teacher"] = ensemble(seen)
    if recipe.consistency:
        # One pass over both views, so that batch normalization has the same statistics for both, as on the device.
        views = keras.layers.Concatenate(axis=0)([camera(seen), Corrupt(recipe.seed + 2)(seen)])
        halves = {name: Halves()(both) for name, both in core(views).items()}
        outputs = {**{name: clean for name, (clean, _) in halves.items()}, "corrupted": halves["logits"][1], **more}
    else:
        outputs = {**core(camera(seen)), **more}
    network = TrainingNetwork(pixels, outputs)
    network.tasks = compose(recipe, heads, list(outputs), balance)
    network.compile(optimizers.make(recipe.optimizer, recipe.epochs, steps_per_epoch), jit_compile=False)
    return network
