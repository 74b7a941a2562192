"""Delay against flicker: how soon and how steadily a change of expression is reported, for each frame aggregation.

    python benchmarks/bench_temporal.py --data CK48 --videos DIR

CK48 is a folder of CK+48 (or of its like: a folder for each class, CK+'s file names). Its frames are posed peaks,
without neutral: a sequence here is SYNTHETIC, one person's expression held, dissolved within a quarter of a second into
another of theirs, and held. Each frame is shifted and scaled a little, as boxes tremble, and has noise. DIR holds real
clips, whose truth nobody knows: of them the changes of the answer are counted, by the recognizer's own raw predictions.

Each method sees the same predictions, made once at 30 frames a second: at 15 and 5 it sees every second and every
sixth, with a third of them dropped by chance in the columns that say so. Delay is from the middle of the dissolve until
the new expression is reported for good. A sequence counts where single frames of both halves show, in the mean, the
expression that they are of, else no smoothing could be right. Flicker is every change of the answer but the true one.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import datasets
from datasets import Dataset
from edge_fer.board import describe_machine
from edge_fer.core import Expression, Prediction
from edge_fer.errors import DataError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.recognizer import Recognizer
from edge_fer.temporal.aggregation import Kind
from edge_fer.temporal.smoothing import ExpressionFilter, Smoothing

HZ = 30
HELD_S, DISSOLVED_S, AFTER_S = 1.5, 0.25, 2.25
LENGTHS_S = (0.0, 0.05, 0.1, 0.17, 0.25, 0.4, 0.6)
KINDS: tuple[Kind, ...] = ("exponential", "mean", "max", "majority")
DROPPED = 1 / 3
SEED = 0


@dataclass(frozen=True)
class Change:
    """Predictions of a sequence at 30 frames a second.

    Attributes:
        raw: of each frame.
        before: what is shown first.
        after: what it changes to.
        change_s: middle of the change.
    """

    raw: tuple[Prediction, ...]
    before: Expression
    after: Expression
    change_s: float


class Score(NamedTuple):
    """Of one method over all sequences.

    Attributes:
        delay_s: median.
        late_s: of the slowest tenth, the quickest.
        missed: fraction of sequences in whose end the new expression is not reported.
        flicker: false changes a minute.
        right: fraction of frames, the dissolve left out, that report what is shown.
    """

    delay_s: float
    late_s: float
    missed: float
    flicker: float
    right: float


def changes_of(data: Dataset, classifier: TfliteClassifier, most: int) -> list[Change]:
    """Synthetic sequences of all people of a data set who show two expressions that the model reports."""
    if data.subjects is None:
        raise DataError("These images do not say who is in them: give a folder with the file names of CK+48.")
    labels = next(iter(data.labels.values()))
    known = classifier.prediction(
        np.zeros(sum(len(head.labels) for head in classifier.heads), np.float32)
    ).probabilities
    chance = np.random.default_rng(SEED)
    made = []
    for subject in np.unique(data.subjects):
        # Files are sorted: of a sequence's frames the last one, the peak, stays.
        peaks = {
            labels.expressions[labels.truth[row]]: data.images[row, ..., 0]
            for row in np.flatnonzero(data.subjects == subject)
        }
        shown = [expression for expression in Expression if expression in peaks and expression in known]
        for before, after in itertools.pairwise([*shown, shown[0]] if len(shown) > 2 else shown):
            raw = tuple(
                classifier.classify([_seen(peaks[before], peaks[after], number / HZ, chance)])[0]
                for number in range(round((HELD_S + DISSOLVED_S + AFTER_S) * HZ))
            )
            made.append(Change(raw, before, after, HELD_S + DISSOLVED_S / 2))
    made = [one for one in made if _can_be_told(one)]
    return made[:most]


def _seen(before: NDArray[np.uint8], after: NDArray[np.uint8], time_s: float, chance: np.random.Generator) -> Any:
    """A frame as a camera and a trembling box would show it, uint8 (height, width, 1)."""
    part = float(np.clip((time_s - HELD_S) / DISSOLVED_S, 0, 1))
    image = cv2.addWeighted(before, 1 - part, after, part, 0.0)
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), chance.normal(0, 1.5), 1 + chance.normal(0, 0.03))
    matrix[:, 2] += chance.normal(0, 0.02 * width, 2)
    image = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.clip(image + chance.normal(0, 8, image.shape), 0, 255).astype(np.uint8)[..., np.newaxis]


def _can_be_told(change: Change) -> bool:
    """Whether the mean of all predictions before, and of all after, is the expression that is shown."""
    first, last = round(HELD_S * HZ), round((HELD_S + DISSOLVED_S) * HZ)
    for frames, shown in ((change.raw[:first], change.before), (change.raw[last:], change.after)):
        total = {label: sum(one.probabilities[label] for one in frames) for label in frames[0].probabilities}
        if max(total, key=total.__getitem__) != shown:
            return False
    return True


def frames_of(raw: Sequence[Prediction], hz: int, dropped: float, seed: int) -> Iterator[tuple[float, Prediction]]:
    """The frames that arrive, with their times; the first always does."""
    chance = np.random.default_rng(seed)
    for number in range(0, len(raw), HZ // hz):
        if chance.random() >= dropped or number == 0:
            yield number / HZ, raw[number]


def reported(frames: Iterable[tuple[float, Prediction]], smoothing: Smoothing) -> list[tuple[float, Expression]]:
    """What a track reports after each frame."""
    steady, answers = ExpressionFilter(smoothing), []
    for time_s, raw in frames:
        steady.update(raw, time_s)
        assert steady.expression is not None
        answers.append((time_s, steady.expression))
    return answers


def score(changes: Sequence[Change], hz: int, dropped: float, smoothing: Smoothing) -> Score:
    """Delay and flicker of a method."""
    delays, false, frames, right, missed = [], 0, 0, 0, 0
    for seed, change in enumerate(changes):
        answers = reported(frames_of(change.raw, hz, dropped, seed), smoothing)
        turns = sum(one != other for (_, one), (_, other) in itertools.pairwise(answers))
        found = answers[-1][1] == change.after
        # Of the turns one is true, if there is any that had to be.
        false += turns - min(turns, int(answers[0][1] != answers[-1][1]))
        missed += not found
        if found:
            begin = len(answers)
            while begin and answers[begin - 1][1] == change.after:
                begin -= 1
            delays.append(answers[begin][0] - change.change_s)
        for time_s, expression in answers:
            if abs(time_s - change.change_s) > DISSOLVED_S / 2:
                frames += 1
                right += expression == (change.before if time_s < change.change_s else change.after)
    minutes = len(changes) * (HELD_S + DISSOLVED_S + AFTER_S) / 60
    return Score(
        float(np.median(delays)),
        float(np.quantile(delays, 0.9)),
        missed / len(changes),
        false / minutes,
        right / frames,
    )


def clip_of(path: Path, recognizer: Recognizer) -> tuple[float, list[list[tuple[float, Prediction]]]]:
    """Minutes of a clip, and the raw predictions of each of its tracks with their times."""
    tracks: dict[int, list[tuple[float, Prediction]]] = {}
    last_s = 0.0
    for result in recognizer.restarted().stream(str(path)):
        last_s = result.frame.time_s
        for face in result.faces:
            tracks.setdefault(face.track, []).append((result.frame.time_s, face.raw))
    return last_s / 60, list(tracks.values())


def turns_a_minute(clips: Sequence[tuple[float, list[list[tuple[float, Prediction]]]]], smoothing: Smoothing) -> float:
    """Changes of the answer in real clips."""
    turns = 0
    for _, tracks in clips:
        for frames in tracks:
            turns += sum(one != other for (_, one), (_, other) in itertools.pairwise(reported(frames, smoothing)))
    return turns / sum(minutes for minutes, _ in clips)


def methods() -> Iterator[tuple[str, Smoothing]]:
    """Each aggregation and length, with the hysteresis and dwell that stand, and without."""
    plain = Smoothing()
    for kind, length_s in itertools.product(KINDS, LENGTHS_S):
        if length_s == 0 and kind != "exponential":
            continue  # all are the frame itself
        for hysteresis, dwell_s in ((plain.hysteresis, plain.dwell_s), (0.0, 0.0)):
            name = "none" if length_s == 0 else f"{kind} {length_s:g} s"
            yield (
                f"{name}{'' if hysteresis else ', plain'}",
                dataclasses.replace(
                    plain, aggregation=kind, time_constant_s=length_s, hysteresis=hysteresis, dwell_s=dwell_s
                ),
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="CK48", help="class folders with people in their names"
    )
    parser.add_argument("--videos", type=Path, metavar="DIR", help="real clips with one face")
    parser.add_argument("--model", default="accurate", help="of the package, or a bundle's file (default: accurate)")
    parser.add_argument("--most", type=int, default=200, help="sequences at most (default: 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    classifier = TfliteClassifier(Bundle.load(args.model))
    changes = changes_of(datasets.load_test(args.data, size_hw=classifier.size_hw), classifier, args.most)
    clips = []
    if args.videos:
        recognizer = Recognizer.load(args.model)
        paths = sorted(path for path in args.videos.iterdir() if path.is_file() and not path.name.startswith("no_face"))
        clips = [clip_of(path, recognizer) for path in paths]
    conditions = [(hz, dropped) for hz in (30, 15, 5) for dropped in (0.0, DROPPED)]
    rows = {
        name: (
            [score(changes, hz, dropped, smoothing) for hz, dropped in conditions],
            turns_a_minute(clips, smoothing) if clips else None,
        )
        for name, smoothing in methods()
    }
    if args.json:
        table = {
            name: {
                "synthetic": {
                    f"{hz} Hz, {dropped:.0%} dropped": one._asdict()
                    for (hz, dropped), one in zip(conditions, scores, strict=True)
                },
                "clips_turns_a_minute": turns,
            }
            for name, (scores, turns) in rows.items()
        }
        print(json.dumps({**describe_machine(), "model": args.model, "sequences": len(changes), "methods": table}))
        return
    console = Console(width=160)
    console.print(
        f"{args.model}: {len(changes)} synthetic sequences; each cell is the median delay "
        "in ms / false changes a minute; plain is without hysteresis and dwell",
        highlight=False,
    )
    head = (f"{hz} Hz{', drops' if dropped else ''}" for hz, dropped in conditions)
    shown = Table("method", *head, "late ms", "right %", "real clips, changes/min")
    for name, (scores, turns) in rows.items():
        cells = (f"{one.delay_s * 1000:.0f} / {one.flicker:.1f}" for one in scores)
        late, right = max(one.late_s for one in scores), np.mean([one.right for one in scores])
        shown.add_row(name, *cells, f"{late * 1000:.0f}", f"{right:.1%}", "-" if turns is None else f"{turns:.1f}")
    console.print(shown)


if __name__ == "__main__":
    main()
