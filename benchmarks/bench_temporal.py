"""Delay against flicker: how soon and how steadily a change of expression is reported, for each frame aggregation.

    python benchmarks/bench_temporal.py --data CK48 --videos DIR
    python benchmarks/bench_temporal.py --model nano --data CK48 --recurrent runs/nano-gru16 --faces FER2013

CK48 is a folder of CK+48 (or of its like: a folder for each class, CK+'s file names). Its frames are posed peaks,
without neutral: a sequence here is SYNTHETIC, one person's expression held, dissolved within a quarter of a second into
another of theirs, and held. Each frame is shifted and scaled a little, as boxes tremble, and has noise. DIR holds real
clips, whose truth nobody knows: of them the changes of the answer are counted, by the recognizer's own raw predictions.

Each method sees the same predictions, made once at 30 frames a second: at 15 and 5 it sees every second and every
sixth, with a third of them dropped by chance in the columns that say so. Delay is from the middle of the dissolve until
the new expression is reported for good. A sequence counts where single frames of both halves show, in the mean, the
expression that they are of, else no smoothing could be right. Flicker is every change of the answer but the true one.

With --recurrent, a run of ``python -m training recurrent`` for the same model, the rows of its recurrent head come
first, each person's sequences by the head of the fold that never met them, in int8 and by the device's own code; then
those of a dense layer that learned from the same frames one by one, behind the exponential mean, and the bundle's own
answers, likewise. All sequences count here: who has learned from posed faces is right of more of them. --faces adds
sequences between single faces of PublicTest, neutral ones among them, in which the person changes too.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

# So that `python benchmarks/bench_temporal.py` finds `datasets`, which is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import datasets
from datasets import Dataset, truth_for
from edge_fer.board import describe_machine
from edge_fer.config import DetectorSettings
from edge_fer.core import Expression, Prediction
from edge_fer.detection import open_detector
from edge_fer.errors import DataError
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.decision import softmax
from edge_fer.model.spec import Head
from edge_fer.recognizer import Recognizer
from edge_fer.temporal.aggregation import ExponentialMean, Kind, Probabilities
from edge_fer.temporal.smoothing import ExpressionFilter, Smoothing
from training.sequences.synthetic import HZ, dissolved

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
        subject: who it is; "" for single faces.
    """

    raw: tuple[Prediction, ...]
    before: Expression
    after: Expression
    change_s: float
    subject: str


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


Aggregate = Callable[[Prediction, float], Probabilities]


class Method(NamedTuple):
    """A way from the predictions of frames to what a track reports.

    Attributes:
        smoothing: hysteresis, dwell, and the aggregation where there is no other.
        new_aggregate: makes what takes its place for a sequence of a person; None for none.
    """

    smoothing: Smoothing
    new_aggregate: Callable[[str], Aggregate | None] = lambda subject: None


def changes_of(data: Dataset, classifier: TfliteClassifier, most: int, *, every: bool = False) -> list[Change]:
    """Synthetic sequences of all people of a data set who show two expressions that the model reports.

    Args:
        data: with people.
        classifier: sees the frames.
        most: sequences at most.
        every: those too of which single frames do not show, in the mean, what they are of.
    """
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
            raw = _predictions(classifier, peaks[before], peaks[after], chance)
            made.append(Change(raw, before, after, HELD_S + DISSOLVED_S / 2, str(subject)))
    made = [one for one in made if every or _can_be_told(one)]
    return made[:most]


def changes_between(data: Dataset, classifier: TfliteClassifier, most: int) -> list[Change]:
    """Synthetic sequences from one single face to another, of all pairs of labels that the model reports alike many."""
    labels = tuple(classifier.classify([data.images[0]])[0].probabilities)
    truth, chance = truth_for(data, Head("ferplus", labels)), np.random.default_rng(SEED)
    pairs = itertools.cycle(itertools.permutations(np.unique(truth[truth >= 0]).tolist(), 2))
    made = []
    for before, after in itertools.islice(pairs, most):
        first, second = (data.images[chance.choice(np.flatnonzero(truth == one)), ..., 0] for one in (before, after))
        raw = _predictions(classifier, first, second, chance)
        made.append(Change(raw, labels[before], labels[after], HELD_S + DISSOLVED_S / 2, ""))
    return made


def _predictions(
    classifier: TfliteClassifier, before: NDArray[np.uint8], after: NDArray[np.uint8], chance: np.random.Generator
) -> tuple[Prediction, ...]:
    """What the model says of the frames of a sequence between two images, uint8 (height, width)."""
    times_s = np.arange(round((HELD_S + DISSOLVED_S + AFTER_S) * HZ)) / HZ
    parts = np.clip((times_s - HELD_S) / DISSOLVED_S, 0, 1)
    return tuple(classifier.classify(dissolved(before, after, parts, chance)))


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


def reported(
    frames: Iterable[tuple[float, Prediction]], method: Method, subject: str = ""
) -> list[tuple[float, Expression]]:
    """What a track reports after each frame."""
    steady, answers = ExpressionFilter(method.smoothing, method.new_aggregate(subject)), []
    for time_s, raw in frames:
        steady.update(raw, time_s)
        assert steady.expression is not None
        answers.append((time_s, steady.expression))
    return answers


def score(changes: Sequence[Change], hz: int, dropped: float, method: Method) -> Score:
    """Delay and flicker of a method."""
    delays, false, frames, right, missed = [], 0, 0, 0, 0
    for seed, change in enumerate(changes):
        answers = reported(frames_of(change.raw, hz, dropped, seed), method, change.subject)
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


def turns_a_minute(clips: Sequence[tuple[float, list[list[tuple[float, Prediction]]]]], method: Method) -> float:
    """Changes of the answer in real clips."""
    turns = 0
    for _, tracks in clips:
        for frames in tracks:
            turns += sum(one != other for (_, one), (_, other) in itertools.pairwise(reported(frames, method)))
    return turns / sum(minutes for minutes, _ in clips)


class Recurrent:
    """The heads of a run of ``python -m training recurrent``, in bundles as the device has them.

    Args:
        model: name or file of the bundle that they were trained for.
        run: the run folder.
    """

    def __init__(self, model: str, run: Path) -> None:
        from export.sequence import DESCRIPTION, with_head

        bundle = Bundle.load(model)
        self.classifier = TfliteClassifier(with_head(bundle, run)[0])
        """Of everybody's head."""
        self._run, self._fold = run, dict[str, Path]()
        self._of_fold: dict[Path, TfliteClassifier] = {run: self.classifier}
        for fold in sorted(run.glob("fold-*")):
            self._of_fold[fold] = TfliteClassifier(with_head(bundle, fold)[0])
            held_out = json.loads((fold / DESCRIPTION).read_text(encoding="utf-8"))["facts"]["held_out"]
            self._fold |= dict.fromkeys(held_out, fold)

    def methods(self) -> Iterator[tuple[str, Method]]:
        """The recurrent head, and the dense layer behind exponential means; with and without hysteresis and dwell."""
        from training.sequences.recurrent import DENSE

        plain, spec = Smoothing(), self.classifier.bundle.metadata.recurrent
        assert spec
        calm = dataclasses.replace(plain, hysteresis=0.0, dwell_s=0.0)
        for smoothing, words in ((plain, ""), (calm, ", plain")):
            yield f"{spec.kind}{spec.units}{words}", Method(smoothing, self._head)
        layers = {fold: np.load(fold / DENSE) for fold in self._of_fold}

        def dense(subject: str, length_s: float) -> Aggregate:
            layer, mean = layers[self._fold.get(subject, self._run)], ExponentialMean(length_s)
            labels = self._labels

            def act(raw: Prediction, step_s: float) -> Probabilities:
                assert raw.embedding is not None
                p = softmax(raw.embedding @ layer["kernel"] + layer["bias"])
                return mean.update(dict(zip(labels, p.tolist(), strict=True)), step_s)

            return act

        for length_s in LENGTHS_S:
            yield (
                f"dense, exp. {length_s:g} s",
                Method(plain, partial(dense, length_s=length_s)),
            )

    def milliseconds(self, frames: int = 1000) -> float:
        """Of the head for a frame at 30 Hz, the median."""
        aggregate, took = self._head(""), []
        (raw,) = self.classifier.classify(list(self.classifier.bundle.selftest.inputs[:1]))
        assert aggregate
        aggregate(raw, 0.0)
        for _ in range(frames):
            begin = time.perf_counter()
            aggregate(raw, 1 / HZ)
            took.append(time.perf_counter() - begin)
        return float(np.median(took)) * 1000

    @property
    def _labels(self) -> tuple[Expression, ...]:
        decision = self.classifier.bundle.metadata.decision
        assert decision
        return decision.labels

    def _head(self, subject: str) -> Aggregate | None:
        return self._of_fold[self._fold.get(subject, self._run)].new_aggregate()


def methods(kinds: Sequence[Kind] = KINDS) -> Iterator[tuple[str, Method]]:
    """Each aggregation and length, with the hysteresis and dwell that stand, and without."""
    plain = Smoothing()
    for kind, length_s in itertools.product(kinds, LENGTHS_S):
        if length_s == 0 and kind != "exponential":
            continue  # all are the frame itself
        for hysteresis, dwell_s in ((plain.hysteresis, plain.dwell_s), (0.0, 0.0)):
            name = "none" if length_s == 0 else f"{kind} {length_s:g} s"
            yield (
                f"{name}{'' if hysteresis else ', plain'}",
                Method(
                    dataclasses.replace(
                        plain, aggregation=kind, time_constant_s=length_s, hysteresis=hysteresis, dwell_s=dwell_s
                    )
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
    parser.add_argument("--recurrent", type=Path, metavar="RUN", help="of `python -m training recurrent`")
    parser.add_argument("--faces", type=Path, metavar="DIR", help="FER2013: sequences between single faces too")
    parser.add_argument("--most", type=int, default=200, help="sequences at most (default: 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    recurrent = Recurrent(args.model, args.recurrent) if args.recurrent else None
    classifier = recurrent.classifier if recurrent else TfliteClassifier(Bundle.load(args.model))
    data = datasets.load_test(args.data, size_hw=classifier.size_hw)
    changes = changes_of(data, classifier, args.most, every=recurrent is not None)
    between = []
    if args.faces:
        between = changes_between(datasets.load_test(args.faces, size_hw=classifier.size_hw), classifier, args.most)
    clips = []
    if args.videos:
        recognizer = Recognizer(open_detector(DetectorSettings()), classifier)
        paths = sorted(path for path in args.videos.iterdir() if path.is_file() and not path.name.startswith("no_face"))
        clips = [clip_of(path, recognizer) for path in paths]
    conditions = [(hz, dropped) for hz in (30, 15, 5) for dropped in (0.0, DROPPED)]
    rows = {
        name: (
            [score(changes, hz, dropped, method) for hz, dropped in conditions],
            [score(between, hz, 0.0, method) for hz in (30, 15, 5)] if between else [],
            turns_a_minute(clips, method) if clips else None,
        )
        for name, method in ((*recurrent.methods(), *methods(("exponential",))) if recurrent else methods())
    }
    if args.json:
        table = {
            name: {
                "synthetic": {
                    f"{hz} Hz, {dropped:.0%} dropped": one._asdict()
                    for (hz, dropped), one in zip(conditions, scores, strict=True)
                },
                "between_faces": [one._asdict() for one in singles],
                "clips_turns_a_minute": turns,
            }
            for name, (scores, singles, turns) in rows.items()
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
    shown = Table("method", *head, "late ms", "right %", "right at the end %", "real clips, changes/min")
    for name, (scores, _, turns) in rows.items():
        cells = (f"{one.delay_s * 1000:.0f} / {one.flicker:.1f}" for one in scores)
        late, right, end = (
            max(one.late_s for one in scores),
            np.mean([one.right for one in scores]),
            np.mean([1 - one.missed for one in scores]),
        )
        clip = "-" if turns is None else f"{turns:.1f}"
        shown.add_row(name, *cells, f"{late * 1000:.0f}", f"{right:.1%}", f"{end:.1%}", clip)
    console.print(shown)
    if between:
        console.print(f"{len(between)} synthetic sequences between single faces of PublicTest", highlight=False)
        shown = Table("method", *(f"{hz} Hz" for hz in (30, 15, 5)), "right %", "right at the end %")
        for name, (_, scores, _) in rows.items():
            cells = (f"{one.delay_s * 1000:.0f} / {one.flicker:.1f}" for one in scores)
            right, end = np.mean([one.right for one in scores]), np.mean([1 - one.missed for one in scores])
            shown.add_row(name, *cells, f"{right:.1%}", f"{end:.1%}")
        console.print(shown)
    if recurrent:
        console.print(f"the recurrent head takes {recurrent.milliseconds():.3f} ms a frame at 30 Hz", highlight=False)


if __name__ == "__main__":
    main()
