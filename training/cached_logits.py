"""Cached teacher logits, so that a student can be trained where no teacher could, or sooner than one could.

    python -m training cache-logits --teacher runs/teacher --teacher runs/plain --data ~/fer2013 -o runs/teachers.npz

Each teacher sees each Training image as it is, mirrored, and augmented as in training. The mean of what the ensemble
predicts for all these views is the image's soft target. Or each view is kept with what the
ensemble predicts for it (``--each-view``): that is online distillation from so many views, paid for once for all
students. Faces without labels may be among the images, for self-training.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from datasets import Dataset, truth_for
from edge_fer.errors import ConfigError, DataError, InputMissingError, OutputError
from edge_fer.model.spec import head_slices
from training import augmentation
from training.ensemble import LEAST, Floats, data_recipe, fused, measure, weighted_average
from training.recipe import AugmentRecipe, DataRecipe
from training.runs import load_for, read_data, replace, sha256_of

SURE, SURE_WITH_RATER = 0.8, 0.5
"""See ``sure``."""


def cache_logits(
    teachers: list[Path],
    data_folder: Path,
    views: int,
    seed: int,
    out: Path,
    *,
    each_view: bool = False,
    data: DataRecipe | None = None,
    augment: AugmentRecipe | None = None,
) -> None:
    """Write the ensemble's logits for all Training images, and print how good each rule of fusion is.

    The weights are those of VA-Expo-WA on PublicTest, which a student may not be judged on as if it were unseen: all
    that is chosen here is one number for each head.

    Args:
        teachers: run folders of ``python -m training train``.
        data_folder: see ``datasets.load``.
        views: of each image: as it is, mirrored, and then augmented at random.
        seed: of the augmentation.
        out: .npz with ``logits`` float16 (n, classes), which are log-probabilities, and ``facts``, JSON. The n are the
            Training samples and, behind them, the faces without labels of ``data``, for which ``sure``, bool, tells
            where the ensemble is sure.
        each_view: keep each view and its logits, (views, n, classes), in place of their mean. The views lie in
            ``views.npy`` beside, uint8 (views, n, height, width, 1); behind the n are the further faces of ``data``,
            for which the ensemble is not asked. A student learns from them as by online distillation.
        data: faces without labels, and further faces; None for none.
        augment: how views are augmented; None for the defaults.

    Raises:
        EdgeFerError: a teacher, the data or the output is not as it should be.
    """
    console = Console(stderr=True)
    if views < 1:
        raise ConfigError(f"--views is {views}; it must be at least 1.")
    of_teachers = data_recipe(teachers)
    wanted = dataclasses.replace(
        of_teachers.data,
        further=data.further if data and each_view else "",
        unlabeled=data.unlabeled if data else "",
    )
    splits = read_data(data_folder, dataclasses.replace(of_teachers, data=wanted))
    training, validation = splits["Training"], splits["PublicTest"]
    asked = [training, *([splits[wanted.unlabeled]] if wanted.unlabeled else [])]
    images = np.concatenate([one.images for one in asked])
    networks = [load_for(run / "model.keras", validation) for run in teachers]
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("PublicTest", total=len(networks) * (1 + views))

        def predicted(network: keras.Model, images: Any) -> NDArray[np.float32]:
            logits: NDArray[np.float32] = network.predict(images, batch_size=256, verbose=0)
            progress.advance(task)
            return logits

        on_validation = [predicted(network, validation.images) for network in networks]
        table, weights = measure(teachers, on_validation, validation)
        progress.update(task, description="Training")
        mean = np.zeros((len(images), sum(len(head.labels) for head in training.heads)))
        kept: list[NDArray[np.float16]] = []
        shown = images
        if wanted.further:
            shown = np.concatenate([images, splits[wanted.further].images])
        stored = _Views(out.with_name("views.npy"), (views, *shown.shape)) if each_view else None
        for place, view in enumerate(_views(shown, views, seed, augment or AugmentRecipe())):
            if stored:
                view = stored.keep(place, view)
            logits = [predicted(network, view[: len(images)]) for network in networks]
            both = fused(logits, training.heads, lambda head, members: weighted_average(members, weights[head]))
            mean += both / views
            if each_view:
                kept.append(_logarithm(both))
    console.print(table)
    facts: dict[str, Any] = {
        "teachers": [run.name for run in teachers],
        "weights": {head: [round(float(one), 4) for one in each] for head, each in weights.items()},
        "views": views,
        "seed": seed,
        "data_sha256": training.sha256,
    }
    arrays: dict[str, Any] = {"logits": np.stack(kept) if each_view else _logarithm(mean)}
    if wanted.unlabeled:
        first = next(iter(head_slices(training.heads).values()))
        rater = truth_for(splits[wanted.unlabeled], training.heads[0])
        arrays["sure"] = sure(mean[len(training) :, first], rater)
        facts["unlabeled"] = {wanted.unlabeled: splits[wanted.unlabeled].sha256, "sure": int(arrays["sure"].sum())}
    if stored:
        facts["views_sha256"] = stored.finish()
    try:
        replace(out, lambda path: _save(path, arrays, facts))
    except OSError as error:
        raise OutputError(f"Cannot write {out}: {error.strerror}.") from None
    of_those = f", sure of {facts['unlabeled']['sure']:,} without labels" if wanted.unlabeled else ""
    console.print(f"Wrote {out}: {len(images):,} images{of_those}, {out.stat().st_size / 1000:.0f} kB", highlight=False)


@dataclasses.dataclass(frozen=True)
class CachedLogits:
    """What ``cache_logits`` wrote.

    Attributes:
        logits: float16 (views, n, classes), of the Training samples and of the faces without labels behind them; one
            view where the file has the mean of all.
        sure: bool (m,), for the faces without labels; None where the file has none.
        images: uint8 (views, n or more, height, width, 1), the views; None where the file has the mean.
        facts: what is known of them.
    """

    logits: NDArray[np.float16]
    sure: NDArray[np.bool_] | None
    images: NDArray[np.uint8] | None
    facts: dict[str, Any]


def load_logits(path: Path, splits: Mapping[str, Dataset], data: DataRecipe) -> CachedLogits:
    """Cached teacher logits for what a recipe learns from.

    Args:
        path: .npz; its views lie beside it.
        splits: see ``datasets.load``.
        data: of the recipe.

    Raises:
        InputMissingError: no such file, or its views are gone.
        DataError: it is not what ``cache_logits`` wrote, or was made from other samples.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            logits, facts = file["logits"].astype(np.float16), json.loads(str(file["facts"]))
            found = file["sure"].astype(np.bool_) if "sure" in file else None
            if logits.ndim not in (2, 3):
                raise ValueError(f"logits of {logits.ndim} dimensions")
    except FileNotFoundError:
        raise InputMissingError(f"No {path}: make it with `python -m training cache-logits`.") from None
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not what `python -m training cache-logits` wrote: {error}.") from None
    images = None
    if logits.ndim == 3:
        try:
            images = np.load(path.with_name("views.npy"), mmap_mode="r")
        except FileNotFoundError:
            raise InputMissingError(f"{path} was cached with its views, but views.npy is not beside it.") from None
    logits = logits.reshape(-1, *logits.shape[-2:])
    unlabeled = splits[data.unlabeled] if data.unlabeled else None
    expected = len(splits["Training"]) + (0 if found is None else len(found))
    others = not _answered(splits["Training"], facts.get("data_sha256"), images is None)
    others |= logits.shape[1] != expected
    if unlabeled is not None and found is not None:
        others |= not _answered(unlabeled, facts.get("unlabeled", {}).get(data.unlabeled), images is None)
    if images is not None:
        seen = expected + (len(splits[data.further]) if data.further else 0)
        others |= len(images) != len(logits) or images.shape[1] < seen
    if others:
        raise DataError(f"{path} was made from other samples: make it again with `python -m training cache-logits`.")
    return CachedLogits(logits, found, images, facts)


def _answered(data: Dataset, sha256: str | None, before: bool) -> bool:
    """Whether a teacher saw these faces; or, where the cache holds no images of its own, as they were before alignment
    and light: what it says of a face holds for the same face aligned."""
    return sha256 is not None and sha256 in (data.sha256, *([data.source_sha256] if before else []))


def sure(probabilities: Floats, rater: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where an ensemble is sure enough of faces without labels for a student to believe it: bool (n,).

    That is at ``SURE``, or at ``SURE_WITH_RATER`` where a rater, who need not be a good one, said the same.

    Args:
        probabilities: of the first head, (n, classes), the mean over views.
        rater: what somebody called it, (n,), as indices into the classes; -1 for nothing.
    """
    most = probabilities.max(axis=1)
    agreed = probabilities.argmax(axis=1) == rater
    found: NDArray[np.bool_] = (most >= SURE) | (agreed & (most >= SURE_WITH_RATER))
    return found


def _views(images: NDArray[np.uint8], count: int, seed: int, recipe: AugmentRecipe) -> Iterator[NDArray[Any]]:
    """Each image as it is, then mirrored, then augmented as a recipe says: (n, h, w, 1) each."""
    yield images
    if count > 1:
        yield images[:, :, ::-1]
    augment, _ = augmentation.make(recipe, seed)
    for _ in range(count - 2):
        parts = [images[start : start + 512].astype(np.float32) for start in range(0, len(images), 512)]
        yield np.concatenate([keras.ops.convert_to_numpy(augment(part, training=True)) for part in parts])


def _logarithm(probabilities: Floats) -> NDArray[np.float16]:
    return np.log(np.maximum(probabilities, LEAST)).astype(np.float16)


class _Views:
    """Views of images, written one by one: whole at the end, or not there.

    Args:
        path: .npy to write.
        shape: (views, n, height, width, 1).
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path, self._draft = path, path.with_name("views.part.npy")
        try:
            self._pixels = np.lib.format.open_memmap(self._draft, "w+", np.uint8, shape)
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error.strerror}.") from None

    def keep(self, place: int, view: NDArray[Any]) -> NDArray[np.uint8]:
        """Keep a view, and give it back as a student will see it."""
        self._pixels[place] = np.round(np.clip(view, 0, 255))
        kept: NDArray[np.uint8] = self._pixels[place]
        return kept

    def finish(self) -> str:
        """Put the file in its place; the hash of it."""
        self._pixels.flush()
        self._draft.replace(self._path)
        return sha256_of(self._path)


def _save(path: Path, arrays: Mapping[str, Any], facts: dict[str, Any]) -> None:
    with path.open("wb") as file:  # whatever its name ends in
        np.savez(file, **arrays, facts=json.dumps(facts))
