"""Which frames of a sequence stand for its label: the rules of the survey's tables (Li & Deng, arXiv 1804.08348, 2.1).

Posed sequences begin at rest. Where they end at the peak (CK+, Oulu-CASIA), the last one to three frames show the
expression and the first is neutral; where they go back to rest (MMI), the frames in the middle show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from datasets.reading import frames_in
from datasets.sample import Sample
from edge_fer.core import Expression

FRAMES = 3
"""Of a sequence, by the survey's Table 1 and most of what it compares."""


def last_frames(samples: Sequence[Sample], frames: int = FRAMES, neutral: bool = True) -> list[Sample]:
    """The last frames of each labeled sequence, and its first as neutral.

    Args:
        samples: frames, in any order; those without a sequence or a label are left out.
        frames: how many of each.
        neutral: whether the first frame is taken too; where a sequence has no more frames than are taken, it is not.
    """
    taken = []
    for sequence in _sequences(samples):
        taken += [_at_rest(sequence[0])] if neutral and len(sequence) > frames else []
        taken += sequence[-frames:]
    return taken


def middle_frames(samples: Sequence[Sample], frames: int = FRAMES, neutral: bool = True) -> list[Sample]:
    """The frames in the middle of each labeled sequence or video, and its first as neutral.

    Args:
        samples: frames in any order, or videos; those without a label are left out.
        frames: how many of each.
        neutral: whether the first frame is taken too.
    """
    taken = []
    for sequence in _sequences([frame for one in samples for frame in _frames(one)]):
        begin = max(0, (len(sequence) - frames) // 2)
        taken += [_at_rest(sequence[0])] if neutral and begin > 0 else []
        taken += sequence[begin : begin + frames]
    return taken


def middle_of_clips(samples: Sequence[Sample], frames: int = FRAMES, neutral: bool = True) -> list[Sample]:
    """``middle_frames`` of what does not begin at rest, as clips of films: their first frames are never neutral."""
    return middle_frames(samples, frames, neutral=False)


def _sequences(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The labeled frames of each sequence, in order."""
    known = [one for one in samples if one.sequence is not None and one.label is not None]
    ordered = sorted(known, key=lambda one: (one.sequence, one.frame or 0))
    return [list(frames) for _, frames in groupby(ordered, key=lambda one: one.sequence)]


def _frames(sample: Sample) -> list[Sample]:
    if not sample.is_video or sample.label is None:
        return [sample]
    return [sample.replace(frame=frame.seq) for frame in frames_in(sample.path)]


def _at_rest(sample: Sample) -> Sample:
    return sample.replace(label="neutral", expression=Expression.NEUTRAL, intensity=None, action_units={})
