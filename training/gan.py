"""Faces of rare expressions out of a small conditional GAN, and whether they help: augmentation by GAN.

    python -m training.gan --data ~/fer2013 -o runs/gan --minutes 2
    python -m training.gan --data ~/fer2013 -o runs/gan --minutes 60 --width 16 --batch 32

A generator and a discriminator of 48x48 pixels are trained against each other on faces drawn evenly from the classes of
FER+. Then one recipe is trained, with as many steps each time: on Training as it is, with some faces exchanged for rare
ones that are there already (resampled), and for generated ones. The first line is for a GPU, the second for a
processor. Cut off at any moment, the same command goes on.

RUN/gan.npz          both networks and their optimizers, every minute
RUN/generator.keras  when its time is over
RUN/faces.png        the contact sheet: a row a class, real faces on the left, generated ones on the right
RUN/recall.jsonl     a line a training: recall of the classes on PublicTest, after logit adjustment too

The networks are of the DCGAN family with the loss of Goodfellow et al. (arXiv 1406.2661, section 3, non-saturating),
R1 (Mescheder et al., arXiv 1801.04406, eq. 9), the projection of the class in the discriminator (Miyato & Koyama, arXiv
1802.05637, eq. 4) and the same random shifts, squares and brightness for what is real and what is not (DiffAugment,
Zhao et al., arXiv 2006.10738), without which a few hundred faces of a class are learned by heart.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from rich.console import Console

import datasets
from datasets import Dataset, truth_for
from edge_fer.core import Expression
from edge_fer.errors import ConfigError, DataError, EdgeFerError, UnavailableError, UsageError
from edge_fer.files import make_folder, write_atomically
from edge_fer.model.spec import Head, head_slices
from evaluation.metrics import evaluate_logits
from training import models, onednn
from training.ablation import Trainer, teacher_of
from training.ranges import check_seeds
from training.recipe import load_recipe
from training.runs import replace

Way = Literal["none", "resampled", "generated"]
WAYS: tuple[Way, ...] = ("none", "resampled", "generated")
RARE = (Expression.DISGUST, Expression.FEAR, Expression.CONTEMPT)
NOISE = 96
"""Numbers that a face is generated from."""
R1 = 5.0
"""Weight of the penalty on the discriminator's gradient at real faces."""
KEEP = 0.998
"""Decay of the EMA of the generator's weights, which is what generates."""
TAUS = (0.25, 0.5, 1.0)
KEPT_EVERY_S = 60.0
"""``Gan.train`` can be cut off and loses no more."""
Say = Callable[[str], None]


def build_generator(classes: int, width: int = 64) -> keras.Model:
    """Noise (n, NOISE) and classes one-hot (n, classes) -> faces (n, 48, 48, 1), -1 to 1."""
    noise, label = keras.Input((NOISE,)), keras.Input((classes,))
    style = layers.Dense(2 * width, activation="relu")(layers.Concatenate()([noise, layers.Dense(NOISE)(label)]))
    x = layers.Reshape((6, 6, 4 * width))(layers.Dense(36 * 4 * width)(style))
    for channels in (4 * width, 2 * width, width):
        x = layers.Conv2D(channels, 3, padding="same")(layers.UpSampling2D(2)(x))
        x = layers.GroupNormalization(8)(x)
        gain, shift = (layers.Reshape((1, 1, channels))(layers.Dense(channels)(style)) for _ in range(2))
        x = layers.LeakyReLU(0.2)(layers.Add()([x, layers.Multiply()([x, gain]), shift]))
    return keras.Model([noise, label], layers.Conv2D(1, 3, padding="same", activation="tanh")(x))


def build_discriminator(classes: int, width: int = 64) -> keras.Model:
    """Faces (n, 48, 48, 1), -1 to 1, and classes one-hot (n, classes) -> how real they are, logits (n, 1)."""
    face, label = keras.Input((48, 48, 1)), keras.Input((classes,))
    x = face
    for channels in (width, 2 * width, 4 * width, 4 * width):
        x = layers.LeakyReLU(0.2)(layers.Conv2D(channels, 4, 2, "same")(x))
    x = layers.Dense(4 * width)(layers.Flatten()(x))
    x = layers.LeakyReLU(0.2)(x)
    projected = layers.Dot(1)([layers.Dense(4 * width, use_bias=False)(label), x])
    return keras.Model([face, label], layers.Add()([layers.Dense(1)(x), projected]))


def altered(faces: Any, shift: Any, hidden: Any, brightness: Any) -> Any:
    """DiffAugment: shift by up to six pixels, hide a square of 20, and change brightness; differentiable.

    Args:
        faces: (n, 48, 48, 1).
        shift: whole numbers (2,), rows and columns from -6 to 6; the same for a batch.
        hidden: row and column (n, 2) of the middle of each square, in pixels.
        brightness: (n,).
    """
    padded = ops.pad(faces, ((0, 0), (6, 6), (6, 6), (0, 0)))
    start = (0, 6 + shift[0], 6 + shift[1], 0)
    moved = ops.slice(padded, start, (faces.shape[0], 48, 48, 1))
    rows = ops.reshape(ops.arange(48, dtype="float32") + 0.5, (1, -1, 1, 1))
    columns = ops.reshape(ops.arange(48, dtype="float32") + 0.5, (1, 1, -1, 1))
    middle = ops.reshape(ops.cast(hidden, "float32"), (-1, 2, 1, 1, 1))
    inside = ops.logical_and(ops.abs(rows - middle[:, 0]) < 10, ops.abs(columns - middle[:, 1]) < 10)
    return ops.where(inside, 0.0, moved + ops.reshape(brightness, (-1, 1, 1, 1)))


class Gan:
    """Generator and discriminator, trained in turn.

    Args:
        images: uint8 (n, 48, 48, 1).
        classes: int64 (n,), -1 for faces that are left out.
        count: of the classes.
        seed: of everything.
        width: of the networks.
        batch: faces in a step.

    Raises:
        UnavailableError: Keras runs on something else than TensorFlow.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        classes: NDArray[np.int64],
        count: int,
        seed: int,
        width: int = 64,
        batch: int = 128,
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise UnavailableError("The GAN is trained with TensorFlow: set KERAS_BACKEND=tensorflow.")
        keras.utils.set_random_seed(seed)
        self.batch, self.seed = batch, seed
        self.generator, self.discriminator = build_generator(count, width), build_discriminator(count, width)
        self.averaged = keras.models.clone_model(self.generator)
        self.averaged.set_weights(self.generator.get_weights())
        self._optimizers = [keras.optimizers.Adam(4e-4, 0.0, 0.99) for _ in range(2)]
        networks = (self.generator, self.discriminator)
        for optimizer, network in zip(self._optimizers, networks, strict=True):
            optimizer.build(network.trainable_variables)
        self._held = [
            *(variable for network in networks for variable in network.trainable_variables),
            *(variable for optimizer in self._optimizers for variable in optimizer.variables),
            *self.averaged.trainable_variables,
        ]
        self.steps_per_epoch = -(-len(images) // batch)
        self.done, self.seconds = 0, 0.0
        self.losses: tuple[float, ...] = ()
        self._step = self._compiled(images, classes, count)

    def _compiled(self, images: NDArray[np.uint8], classes: NDArray[np.int64], count: int) -> Callable[..., Any]:
        import tensorflow as tf

        generator, discriminator, batch, seed = self.generator, self.discriminator, self.batch, self.seed
        # A row of places for each class, as long as the longest: a face is drawn evenly from the classes that have any.
        lists = [np.flatnonzero(classes == one) for one in range(count)]
        longest = max(map(len, lists))
        places = tf.constant(np.stack([np.resize(one, longest) for one in lists]))
        lengths = tf.constant([len(one) for one in lists], tf.float32)
        there = tf.constant([one for one, rows in enumerate(lists) if len(rows)])
        pixels = tf.constant(images)

        @tf.function(reduce_retracing=True)
        def step(number: Any) -> Any:
            drawn = iter(range(20))

            def uniform(*shape: int) -> Any:
                return tf.random.stateless_uniform(shape, (seed, 20 * number + next(drawn)))

            def alter(faces: Any) -> Any:
                shift = tf.cast(tf.floor(13 * uniform(2)), tf.int32) - 6
                return altered(faces, shift, tf.floor(48 * uniform(batch, 2)), 0.4 * uniform(batch) - 0.2)

            label = tf.gather(there, tf.cast(len(there) * uniform(batch), tf.int32))
            row = tf.cast(uniform(batch) * tf.gather(lengths, label), tf.int64)
            real = tf.gather(pixels, tf.gather_nd(places, tf.stack([tf.cast(label, tf.int64), row], 1)))
            real = tf.cast(real, tf.float32) / 127.5 - 1
            real = tf.where(uniform(batch, 1, 1, 1) < 0.5, real, real[:, :, ::-1])
            labels = tf.one_hot(label, count)
            noise = tf.random.stateless_normal((batch, NOISE), (seed, 20 * number + next(drawn)))
            ours, theirs = generator.trainable_variables, discriminator.trainable_variables
            with tf.GradientTape() as tape:
                fake, seen = alter(generator([noise, labels])), alter(real)
                with tf.GradientTape() as inner:
                    inner.watch(seen)
                    score = discriminator([seen, labels])
                slope = inner.gradient(score, seen)
                penalty = R1 / 2 * tf.reduce_mean(tf.reduce_sum(slope**2, (1, 2, 3)))
                their_loss = penalty + tf.reduce_mean(
                    tf.nn.softplus(-score) + tf.nn.softplus(discriminator([fake, labels]))
                )
            self._optimizers[1].apply(tape.gradient(their_loss, theirs), theirs)
            with tf.GradientTape() as tape:
                our_loss = tf.reduce_mean(tf.nn.softplus(-discriminator([alter(generator([noise, labels])), labels])))
            self._optimizers[0].apply(tape.gradient(our_loss, ours), ours)
            for mean, new in zip(self.averaged.trainable_variables, ours, strict=True):
                mean.assign(KEEP * mean + (1 - KEEP) * new)
            return our_loss, their_loss

        compiled: Callable[..., Any] = step
        return compiled

    def train(
        self, seconds: float = 0.0, path: Path | None = None, say: Say = print, steps: int = 1
    ) -> tuple[float, ...]:
        """Train until so many seconds and so many steps are done in all, those of earlier calls included.

        Args:
            seconds: of the clock.
            path: .npz that all variables are kept in; what is there is gone on from. None: nothing is kept.
            say: takes a line now and then.
            steps: at least.

        Returns:
            The last losses, of the generator and of the discriminator; none where nothing was ever done.

        Raises:
            DataError: the file is of other networks.
        """
        if path is not None and path.is_file():
            self._restore(path)
        began, before, kept = time.monotonic(), self.seconds, self.seconds
        while self.done < steps or self.seconds < seconds:
            ours, theirs = self.losses = tuple(float(one) for one in self._step(np.int32(self.done)))
            self.done += 1
            self.seconds = before + time.monotonic() - began
            last = self.done >= steps and self.seconds >= seconds
            if path is not None and (last or self.seconds - kept > KEPT_EVERY_S):
                kept = self.seconds
                self._keep(path)
                say(f"GAN, step {self.done}, {self.seconds:.0f} s: losses {ours:.3f} and {theirs:.3f}")
        return self.losses

    def _keep(self, path: Path) -> None:
        arrays = [np.asarray(variable.value) for variable in self._held]
        content = io.BytesIO()
        np.savez(content, *arrays, done=self.done, seconds=self.seconds)
        write_atomically(path, content.getvalue())

    def _restore(self, path: Path) -> None:
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = [file[f"arr_{place}"] for place in range(len(self._held))]
                self.done, self.seconds = int(file["done"]), float(file["seconds"])
                if [one.shape for one in arrays] != [tuple(one.shape) for one in self._held]:
                    raise ValueError("other shapes")
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
            raise DataError(f"{path} is of other networks than these: give their --width, or another -o.") from None
        for variable, value in zip(self._held, arrays, strict=True):
            variable.assign(value)


def generate(generator: keras.Model, label: int, count: int, seed: int) -> NDArray[np.uint8]:
    """Faces of a class: uint8 (count, 48, 48, 1)."""
    classes = generator.input_shape[1][1]
    noise = np.random.default_rng([seed, label]).normal(size=(count, NOISE)).astype(np.float32)
    labels = np.tile(np.eye(classes, dtype=np.float32)[label], (count, 1))
    faces = generator.predict([noise, labels], batch_size=256, verbose=0)
    pixels: NDArray[np.uint8] = np.clip(np.rint(127.5 * (faces + 1)), 0, 255).astype(np.uint8)
    return pixels


def _check(training: Dataset, count: int, width: int, batch: int, minutes: float) -> None:
    """See, before an hour of training, whether all can be made and compared.

    Raises:
        UsageError: a number is out of its range.
        DataError: a rare expression has no face.
    """
    if not 0 < count < len(training):
        raise UsageError(f"--count must be 1 to {len(training) - 1:,}, not {count}: as many Training faces make room.")
    if width < 8 or width % 8:
        raise UsageError(f"--width must be a multiple of 8, not {width}.")
    if not 1 <= batch <= len(training):
        raise UsageError(f"--batch must be 1 to {len(training):,}, not {batch}.")
    if not minutes >= 0:
        raise UsageError(f"--minutes must be 0 or more, not {minutes:g}.")
    labels = training.labels["ferplus"]
    counts = np.bincount(labels.targets.argmax(axis=1), minlength=len(labels.expressions))
    for one in RARE:
        if not counts[labels.expressions.index(one)]:
            raise DataError(f"No Training face shows {one}: there is nothing to learn it from.")


def contact_sheet(rows: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Rows of faces (n, 48, 48, 1) as one image; shorter ones end in black."""
    sheet = np.zeros((48 * len(rows), 48 * max(map(len, rows))), np.uint8)
    for place, row in enumerate(rows):
        sheet[48 * place : 48 * (place + 1), : 48 * len(row)] = np.hstack(list(row[..., 0]))
    return sheet


def exchanged(
    training: Dataset,
    targets: Mapping[str, NDArray[np.float32]],
    kind: Literal["resampled", "generated"],
    count: int,
    generator: keras.Model,
    seed: int,
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
    """Training faces and targets, of which ``count`` at random made room for as many of the rare classes.

    A generated face is to be answered as faces of its class are in the mean, by teachers too.

    Args:
        training: with FER+.
        targets: of them, by name.
        kind: real faces of the rare classes again, or generated ones.
        count: how many.
        generator: see ``build_generator``.
        seed: of what is drawn.
    """
    chance = np.random.default_rng(seed)
    labels = training.labels["ferplus"]
    mode = labels.targets.argmax(axis=1)
    rare = [labels.expressions.index(one) for one in RARE]
    kinds = np.resize(np.array(rare), count)
    kept = np.sort(chance.permutation(len(training))[: len(training) - count])
    if kind == "resampled":
        rows = np.concatenate(
            [kept, *(chance.choice(np.flatnonzero(mode == one), (kinds == one).sum()) for one in rare)]
        )
        return training.images[rows], {name: values[rows] for name, values in targets.items()}
    faces = [generate(generator, one, int((kinds == one).sum()), seed) for one in rare]
    means = {name: _means(name, values, mode, rare) for name, values in targets.items()}
    more = {
        name: np.concatenate([[row] * len(part) for row, part in zip(rows, faces, strict=True)])
        for name, rows in means.items()
    }
    return (
        np.concatenate([training.images[kept], *faces]),
        {name: np.concatenate([values[kept], more[name]]).astype(np.float32) for name, values in targets.items()},
    )


def _means(name: str, values: NDArray[np.float32], mode: NDArray[np.int64], rare: list[int]) -> NDArray[np.float32]:
    """The mean target of each rare class; that of logits is of the probabilities."""
    of_class = [values[mode == one] for one in rare]
    rows = [np.log(np.exp(one).mean(axis=0)) if name == "teacher" else one.mean(axis=0) for one in of_class]
    return np.array(rows, np.float32)


def compare(
    training: Dataset,
    trainer: Trainer,
    generator: keras.Model,
    out: Path,
    *,
    count: int,
    seeds: Sequence[int] = (1, 2, 3),
    say: Say = print,
) -> None:
    """Train each way with as many steps and write a line each: accuracy, macro F1 and recall by head.

    What RUN/recall.jsonl has already is not trained again.

    "post-hoc logit adjustment" is the baseline, from whose logits tau * log(prior) was taken afterwards (Menon et al.,
    arXiv 2007.07314, section 4.1): it costs no training at all.
    """
    own = dict(trainer.targets)
    prior = np.maximum(training.labels["ferplus"].targets.sum(axis=0, dtype=np.float64), 1.0)  # of no face: one
    part = head_slices(trainer.test.heads)["ferplus"]
    path = out / "recall.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    lines = [line for line in lines if line.endswith("\n")]  # without one that was cut off
    try:
        done = {(row["way"], row["seed"]) for row in map(json.loads, lines)}
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is not what `python -m training.gan` wrote: give another -o.") from None
    for seed in seeds:
        for way in WAYS:
            if (way, seed) in done:
                continue
            trainer.targets, images = own, training.images
            if way != "none":
                images, trainer.targets = exchanged(training, own, way, count, generator, seed)
            trainer.train(images, seed)
            logits = trainer.predict(trainer.test.images)
            # The baseline last: where its line stands, those of its adjustments do.
            for tau in TAUS if way == "none" else ():
                adjusted = logits.copy()
                adjusted[:, part] -= tau * np.log(prior / prior.sum())
                lines.append(_line(f"post-hoc logit adjustment, tau {tau}", seed, trainer.test, adjusted, say))
            lines.append(_line(way, seed, trainer.test, logits, say))
            write_atomically(path, "".join(lines).encode())
    trainer.targets = own


def _line(way: str, seed: int, test: Dataset, logits: NDArray[np.float32], say: Say) -> str:
    metrics = evaluate_logits(logits, test, test.heads)
    heads = {
        head.name: {key: metrics[head.name][key] for key in ("accuracy", "macro_f1", "recall")} for head in test.heads
    }
    recall = heads["ferplus"]["recall"]
    rare = ", ".join(f"{one} {recall[one]:.2f}" for one in RARE if one in recall)
    say(f"{way}, seed {seed}: {heads['ferplus']['accuracy']:.2%}; recall of {rare}")
    return json.dumps({"way": way, "seed": seed, "heads": heads}) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    import cv2

    parser = argparse.ArgumentParser(
        prog="python -m training.gan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    recipe = Path(__file__).resolve().parent / "recipes" / "ablation.toml"
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with FER2013 and FER+")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="RUN", help="new folder, or one to go on with")
    parser.add_argument("--minutes", type=float, default=10.0, help="that the GAN is trained in all (default: 10)")
    parser.add_argument("--width", type=int, default=64, help="channels of its networks (default: 64)")
    parser.add_argument("--batch", type=int, default=128, help="faces in a step (default: 128)")
    parser.add_argument("--count", type=int, default=6000, help="faces that are exchanged (default: 6000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the trainings (default: 1 2 3)")
    parser.add_argument("--recipe", type=Path, default=recipe, metavar="TOML")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    logits = Path(__file__).resolve().parent / "logits" / "t1-t4.npz"
    parser.add_argument("--teacher-logits", type=Path, default=logits, metavar="NPZ", help="default: t1-t4")
    args = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        check_seeds(*args.seeds)
        chosen = load_recipe(args.recipe, args.set)
        splits = datasets.load(args.data, chosen.data.exclude or None)
        training, test = splits["Training"], splits["PublicTest"]
        made, variables = args.out / "generator.keras", args.out / "gan.npz"
        if args.out.exists() and not args.out.is_dir():
            raise ConfigError(f"{args.out} is a file: choose another -o, a folder.")
        if args.out.exists() and any(args.out.iterdir()) and not (made.is_file() or variables.is_file()):
            raise ConfigError(f"{args.out} is not empty, and no run of the GAN: choose another -o.")
        if "ferplus" not in training.labels:
            raise DataError(f"{args.data} has no fer2013new.csv: the rare expressions are those of FER+.")
        _check(training, args.count, args.width, args.batch, args.minutes)
        if not made.is_file():
            head = Head("ferplus", training.labels["ferplus"].expressions)
            truth = truth_for(training, head)
            gan = Gan(training.images, truth, len(head.labels), args.seeds[0], args.width, args.batch)
            make_folder(args.out)
            gan.train(60 * args.minutes, variables, console.print)
            replace(made, gan.averaged.save)
            rows = [
                np.concatenate([training.images[truth == place][:8], generate(gan.averaged, place, 8, args.seeds[0])])
                for place in np.unique(truth[truth >= 0]).tolist()
            ]
            cv2.imwrite(str(args.out / "faces.png"), contact_sheet(rows))
        teacher = teacher_of(args.teacher_logits, splits, chosen)
        trainer = Trainer(chosen, training, test, teacher)
        generator = models.load(made)
        compare(training, trainer, generator, args.out, count=args.count, seeds=args.seeds, say=console.print)
    except EdgeFerError as error:
        print(f"gan: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    onednn.guard()
    sys.exit(main())
