"""Offline methods on sequences, each trained without the people it is asked about: PPDN, DCPN, MSCNN, C3D, PHRNN.

    python -m training sequences --method cross-entropy ppdn mscnn c3d phrnn phrnn+mscnn --data ~/CK+48 \\
        --model runs/nano/model.keras --landmarks mesh:face_landmark.tflite --k 5 --seeds 3 --run runs/sequences

RUN/results.json   a row for each method
RUN/answers.npz    what each said of each clip, (seeds, n, frames, classes), and the truth
RUN/curves.csv     method, seed, fold, measure, epoch, value
RUN/curves.png     the measures that show a method's mechanism, as means over folds and seeds
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from datasets import SIDE
from edge_fer.errors import UsageError
from edge_fer.files import write_atomically
from evaluation.intervals import bootstrap, paired_bootstrap
from training.runs import refuse_used
from training.sequences import c3d, mscnn, phrnn, ppdn, trajectories
from training.sequences.branch import Trunk, cut
from training.sequences.clips import Clips, Examples, load_clips, split, views
from training.sequences.fit import Plan, Trained
from training.sequences.intensity import order_of

BASELINE = "cross-entropy"
FUSED = "phrnn+mscnn"
PLANS = {
    BASELINE: Plan(12),
    "ppdn": Plan(12),
    "ppdn-unsuppressed": Plan(12),
    "dcpn": Plan(12),
    "mscnn": Plan(12),
    "mscnn-identity": Plan(12),
    "c3d": Plan(60, learning_rate=3e-3),
    "phrnn": Plan(80, learning_rate=3e-3),
}
"""By method, how it is trained where --epochs says nothing. None of it was chosen by what came out."""
ON_FRAMES = frozenset(PLANS) - {"c3d", "phrnn"}
"""Methods that answer for each frame, with the branch of a trained network."""


class Choice(NamedTuple):
    """What is tried.

    Attributes:
        methods: of ``OFFLINE_METHODS``, in the order of the table.
        data: folder of the data set.
        k: folds by people.
        seeds: each method is trained with so many.
        frames: of a clip.
        epochs: of each method; 0 for its own.
        model: a ``.keras`` file, for methods on frames; None for none.
        landmarks: an aligner, for PHRNN: "mesh:FILE" or "dlib:FILE"; "" for none.
        weakened: whether clips are the synthetic ones of ``Clips.weakened``.
    """

    methods: Sequence[str]
    data: Path
    k: int
    seeds: int
    frames: int = 3
    epochs: int = 0
    model: Path | None = None
    landmarks: str = ""
    weakened: bool = False


def run(choice: Choice, folder: Path) -> None:
    """Train all folds and seeds of all methods, print a table and write the run.

    Args:
        choice: what.
        folder: new, of the run.

    Raises:
        EdgeFerError: options, data or model are not as they should be.
    """
    _refuse(choice)
    refuse_used(folder)
    console = Console(stderr=True, highlight=False)
    trunk = cut(choice.model) if choice.model else None
    loaded = load_clips(choice.data, choice.k, choice.frames, trunk.lower.input_shape[1:3] if trunk else (SIDE, SIDE))
    if choice.weakened:
        loaded = loaded.weakened()
    facts: dict[str, Any] = {
        "clips": len(loaded.truth),
        "people": len(np.unique(loaded.subjects)),
        "frames": choice.frames,
        "k": choice.k,
        "seeds": choice.seeds,
        "synthetic": choice.weakened,
    }
    inputs: dict[str, NDArray[np.float32]] = {}
    if "phrnn" in choice.methods:
        found = trajectories.of_clips(loaded.images, choice.landmarks)
        inputs["phrnn"] = trajectories.views(found.points)
        facts["frames without landmarks"], facts["clips without landmarks"] = found.missed, int(found.lost.sum())
    if "c3d" in choice.methods:
        inputs["c3d"] = views(loaded.images)
    if trunk and (on_frames := ON_FRAMES & set(choice.methods)):
        inputs |= dict.fromkeys(on_frames, trunk.inputs(loaded.images))
    answers: dict[str, NDArray[np.float64]] = {}
    rows, curves = [], []
    for method in choice.methods:
        if method == FUSED:
            both = zip(answers["phrnn"], answers["mscnn"], strict=True)
            answers[method] = np.stack([phrnn.fused(one) for one in both])
            rows.append({"method": method, **_measured(answers, method, loaded)})
            continue
        answers[method], drawn, cost = _trained(method, choice, loaded, inputs[method], trunk, console)
        curves += drawn
        rows.append({"method": method, **_measured(answers, method, loaded), **cost})
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "curves.csv", _csv(curves))
    _plot(curves, folder / "curves.png")
    archive = io.BytesIO()
    np.savez_compressed(archive, truth=loaded.truth, subjects=loaded.subjects, **answers)  # type: ignore[arg-type]
    write_atomically(folder / "answers.npz", archive.getvalue())
    facts["rows"] = rows
    # Last: a folder with it is a run that is whole.
    write_atomically(folder / "results.json", (json.dumps(facts, indent=2) + "\n").encode())
    _print(facts)


def _refuse(choice: Choice) -> None:
    asked = set(choice.methods)
    if choice.seeds < 1 or choice.frames < 2 or choice.epochs < 0:
        raise UsageError("--seeds wants 1 or more, --frames 2 or more, --epochs 1 or more.")
    if (needy := sorted(ON_FRAMES & asked)) and choice.model is None:
        raise UsageError(f"{needy[0]} starts from a trained network: give --model KERAS.")
    if "phrnn" in asked and not choice.landmarks:
        raise UsageError("phrnn wants points of each face: give --landmarks mesh:FILE or dlib:FILE.")
    before = list(choice.methods)[: choice.methods.index(FUSED)] if FUSED in asked else []
    if FUSED in asked and not {"phrnn", "mscnn"} <= set(before):
        raise UsageError(f"{FUSED} joins the answers of two methods: name phrnn and mscnn before it.")


def _trained(
    method: str, choice: Choice, loaded: Clips, inputs: NDArray[np.float32], trunk: Trunk | None, console: Console
) -> tuple[NDArray[np.float64], list[Point], dict[str, Any]]:
    """All folds and seeds of a method: answers (seeds, n, frames, classes), curves, and what it costs."""
    began = time.monotonic()
    plan = PLANS[method]._replace(**({"epochs": choice.epochs} if choice.epochs else {}))
    answers: list[NDArray[np.float64]] = []
    curves: list[Point] = []
    cost: dict[str, Any] = {}
    for seed in range(1, choice.seeds + 1):
        said: NDArray[np.float64] | None = None
        for fold in np.unique(loaded.folds):
            training, test = split(loaded, inputs, int(fold))
            one = _fold(method, trunk, training, test, plan, seed)
            said = np.zeros((len(loaded.truth), *one.probabilities.shape[1:])) if said is None else said
            said[loaded.folds == fold] = one.probabilities
            for measure, values in one.curves.items():
                curves += [Point(method, seed, int(fold), measure, at, value) for at, value in enumerate(values, 1)]
            cost = {"parameters": one.parameters, "mmac": round(one.mmac, 3)}
            hits = one.probabilities[:, -1].argmax(axis=1) == test.truth
            console.print(f"{method}, seed {seed}, fold {fold + 1}: {hits.sum()} of {len(hits)}")
        assert said is not None
        answers.append(said)
    cost["minutes"] = round((time.monotonic() - began) / 60, 2)
    return np.stack(answers), curves, cost


def _fold(method: str, trunk: Trunk | None, training: Examples, test: Examples, plan: Plan, seed: int) -> Trained:
    match method:
        case "c3d":
            return c3d.train(training, test, plan, seed)
        case "phrnn":
            return phrnn.train(training, test, plan, seed)
    assert trunk is not None
    match method:
        case "dcpn":
            return ppdn.train_cascaded(trunk, training, test, plan, seed)
        case "mscnn":
            return mscnn.train(trunk, training, test, plan, seed, "expression")
        case "mscnn-identity":
            return mscnn.train(trunk, training, test, plan, seed, "identity")
        case "ppdn":
            return ppdn.train(trunk, training, test, plan, seed, ppdn.PeakPiloting())
        case "ppdn-unsuppressed":
            return ppdn.train(trunk, training, test, plan, seed, ppdn.PeakPiloting(suppress=False))
    return ppdn.train(trunk, training, test, plan, seed, None)


def _measured(answers: Mapping[str, NDArray[np.float64]], method: str, loaded: Clips) -> dict[str, Any]:
    """Accuracy over all seeds, at the peak, at the first frame, and how intensity grows; intervals draw people."""
    own = answers[method]
    seeds, classes = len(own), len(loaded.labels)
    truth, people = np.tile(loaded.truth, seeds), np.tile(loaded.subjects, seeds)
    found = own[:, :, -1].argmax(axis=-1).ravel()
    hits = found == truth
    intervals = bootstrap(truth, found, np.zeros(len(truth), bool), classes, people)
    row: dict[str, Any] = {
        "accuracy": float(hits.mean()),
        "accuracy_interval": intervals["accuracy"],
        "accuracy_of_seeds": [round(float(one), 4) for one in hits.reshape(seeds, -1).mean(axis=1)],
        "mean_recall": float(np.mean([hits[truth == label].mean() for label in np.unique(truth)])),
        "mean_recall_interval": intervals["mean_recall"],
    }
    if method != BASELINE and BASELINE in answers:
        base = answers[BASELINE][:, :, -1].argmax(axis=-1).ravel()
        row["above_cross_entropy_interval"] = paired_bootstrap(truth, base, found, classes, people)["accuracy"]
    if own.shape[2] > 1:
        row["accuracy_of_first_frame"] = float((own[:, :, 0].argmax(axis=-1).ravel() == truth).mean())
        shown = np.take_along_axis(own, loaded.truth[np.newaxis, :, np.newaxis, np.newaxis], axis=3)[..., 0]
        # How sure it is of what the clip shows: as the event's proxy, not with the answer of the network.
        order = order_of(list(shown.reshape(-1, own.shape[2])))
        row["pairs_in_order"], row["monotone"] = order.pairs, order.monotone
    return row


class Point(NamedTuple):
    """One value of a curve."""

    method: str
    seed: int
    fold: int
    measure: str
    epoch: int
    value: float


def _csv(curves: Sequence[Point]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Point._fields)
    writer.writerows((*point[:-1], round(point.value, 5)) for point in curves)
    return text.getvalue().encode()


def means(curves: Sequence[Point]) -> dict[str, dict[str, list[float]]]:
    """By measure and method, the mean over folds and seeds of each epoch; values that are no numbers are left out."""
    gathered: dict[str, dict[str, dict[int, list[float]]]] = {}
    for point in curves:
        of_epoch = gathered.setdefault(point.measure, {}).setdefault(point.method, {}).setdefault(point.epoch, [])
        of_epoch += [] if np.isnan(point.value) else [point.value]
    return {
        measure: {
            method: [float(np.mean(one)) if one else float("nan") for _, one in sorted(epochs.items())]
            for method, epochs in methods.items()
        }
        for measure, methods in gathered.items()
    }


def _plot(curves: Sequence[Point], path: Path) -> None:
    shown = means(curves)
    figure = Figure(figsize=(5 * min(3, len(shown)), 3.2 * -(-len(shown) // 3)))
    for number, (measure, methods) in enumerate(shown.items(), 1):
        axes = figure.add_subplot(-(-len(shown) // 3), min(3, len(shown)), number)
        for method, values in methods.items():
            axes.plot(range(1, len(values) + 1), values, label=method)
        axes.set_title(measure, fontsize=9)
        axes.set_xlabel("epoch")
        axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _print(facts: Mapping[str, Any]) -> None:
    table = Table(box=SIMPLE, padding=0, pad_edge=False)
    for name in ("method", "accuracy % (95 %)"):
        table.add_column(name, no_wrap=True)
    for name in ("recall %", "first frame %", "pairs in order %", "grow %", "params", "MMAC", "min"):
        table.add_column(name, justify="right")
    for row in facts["rows"]:
        low, high = row["accuracy_interval"]
        cells = [f"{100 * row['accuracy']:.1f} ({100 * low:.1f}-{100 * high:.1f})", f"{100 * row['mean_recall']:.1f}"]
        of_frames = ("accuracy_of_first_frame", "pairs_in_order", "monotone")
        cells += [f"{100 * row[name]:.1f}" if name in row else "" for name in of_frames]
        cells += [f"{row['parameters']:,}", f"{row['mmac']:.1f}", f"{row['minutes']:.1f}"] if "minutes" in row else []
        table.add_row(row["method"], *cells)
    console = Console(highlight=False)
    made = "synthetic clips" if facts["synthetic"] else "clips"
    console.print(
        f"{facts['clips']} {made} of {facts['frames']} frames, {facts['people']} people, {facts['k']} folds by people, "
        f"{facts['seeds']} seeds; intervals draw people",
        soft_wrap=True,
    )
    if "frames without landmarks" in facts:
        missed, lost = facts["frames without landmarks"], facts["clips without landmarks"]
        console.print(f"no landmarks in {missed} of {facts['clips'] * facts['frames']} frames, in {lost} whole clips")
    console.print(table)
