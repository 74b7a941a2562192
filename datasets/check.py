"""``python -m datasets check``: which data set lies in a folder, whether it is whole, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from datasets.catalog import read_all, recognize
from datasets.leaks import near_duplicates
from datasets.sample import Layout, Sample, counted
from edge_fer.core import Image
from edge_fer.errors import DataError

MOST_COMPARED = 40_000
"""Images of which each is compared with each other."""
_SIDE = 48
_NAMED = 3
"""Files that a message names of many."""


@dataclass(frozen=True)
class Findings:
    """What is wrong with the images of a set.

    Attributes:
        unreadable: rows of the samples whose images cannot be read.
        copies: rows of samples with the very same pixels, two or more in each group.
        near: pairs of rows, of nearly the same image, which are of no group, and not of one person or sequence: a
            person's posed images are alike. None where there were too many images to compare.
    """

    unreadable: tuple[int, ...]
    copies: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, int], ...] | None


def findings_of(samples: Sequence[Sample]) -> Findings:
    """Read every image, and compare them. Of a video its first frame stands for it."""
    unreadable, by_pixels, small, rows = [], dict[str, list[int]](), list[Image](), list[int]()
    console = Console(stderr=True)
    shown = track(samples, "Reading images", console=console, transient=True, disable=not console.is_terminal)
    for row, sample in enumerate(shown):
        try:
            image = _face(sample, next(sample.images()))
        except (DataError, OSError, StopIteration):
            unreadable.append(row)
            continue
        same = by_pixels.setdefault(hashlib.sha1(image.tobytes() + str(image.shape).encode()).hexdigest(), [])
        same.append(row)
        if len(same) == 1 and len(rows) <= MOST_COMPARED:
            small.append(cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False))
            rows.append(row)
    copies = tuple(tuple(group) for group in by_pixels.values() if len(group) > 1)
    if len(rows) > MOST_COMPARED:
        return Findings(tuple(unreadable), copies, None)
    pairs = near_duplicates(np.stack(small)[..., np.newaxis]).tolist() if rows else []
    near = [(rows[one], rows[other]) for one, other in pairs]
    return Findings(tuple(unreadable), copies, tuple(pair for pair in near if not _of_one_person(samples, pair)))


def _face(sample: Sample, image: Image) -> Image:
    """The part that a sample is about: one of several faces of a photograph."""
    if sample.box is None:
        return image
    box = sample.box.clipped(image.shape)
    part = image[int(box.y) : int(np.ceil(box.y + box.h)), int(box.x) : int(np.ceil(box.x + box.w))]
    return np.ascontiguousarray(part) if part.size else image


def _of_one_person(samples: Sequence[Sample], pair: tuple[int, int]) -> bool:
    one, other = (samples[row] for row in pair)
    return any(
        ours is not None and ours == theirs
        for ours, theirs in ((one.subject, other.subject), (one.sequence, other.sequence))
    )


def check(folder: Path, quick: bool = False) -> None:
    """Print what lies in a folder and what is wrong with it.

    Args:
        folder: with a data set.
        quick: only count; images are not opened.

    Raises:
        InputMissingError: there is no such folder, or nothing in it.
        DataError: it is no known set, not whole, or some of its images cannot be read.
    """
    layout, place = recognize(folder)
    samples = read_all(layout, place)
    console = Console(highlight=False)
    console.print(f"{layout.title}, in {place}")
    console.print(_counts(layout, samples))
    console.print(_labels(layout, samples))
    console.print(f"The survey: {layout.survey}")
    console.print(f"Licence: {layout.licence}.")
    for note in _notes(layout, samples):
        console.print(f"- {note}")
    found = Findings((), (), None)
    if not quick:
        found = findings_of(samples)
        for note in _about(samples, found):
            console.print(f"- {note}")
    if problems := list(_problems(layout, samples, found)):
        raise DataError(f"{folder} is {layout.name}, and not whole: {'; '.join(problems)}.")


def _counts(layout: Layout, samples: Sequence[Sample]) -> Table:
    here = counted(samples)
    table = Table("", box=SIMPLE)
    for name in ("here", "whole set"):
        table.add_column(name, justify="right")
    for what in dict.fromkeys((*here, *layout.counts)):
        whole = layout.counts.get(what)
        table.add_row(what, f"{here.get(what, 0):,}", "" if whole is None else f"{whole:,}")
    return table


def _labels(layout: Layout, samples: Sequence[Sample]) -> Table:
    table = Table("label", "expression", box=SIMPLE)
    table.add_column("samples", justify="right")
    counts = Counter(one.label for one in samples)
    compounds = {one.label: one.compound for one in samples}
    for label, expression in layout.labels.items():
        if counts[label] or layout.name != "folders":  # whose classes have several names each
            table.add_row(label, expression or compounds.get(label) or "-", f"{counts[label]:,}")
    return table


def _notes(layout: Layout, samples: Sequence[Sample]) -> Iterator[str]:
    """What is not there and is not wrong."""
    if bare := [one for one in samples if one.label is None]:
        yield f"{len(bare):,} samples have no label{_named(bare) if len(bare) < 10 else ''}."
    with_points = sum(one.landmarks is not None for one in samples)
    if 0 < with_points < len(samples):
        bare = [one for one in samples if one.landmarks is None]
        yield f"{len(bare):,} of {len(samples):,} samples have no landmarks{_named(bare)}."
    if not any(one.subject for one in samples):
        yield "It does not tell who is in its images: nobody can keep people apart in folds of it."
    if layout.splits and not any(one.split == "validation" for one in samples):
        yield "It has no validation split: a tenth of train is held out to choose by (`PublicTest`)."


def _about(samples: Sequence[Sample], found: Findings) -> Iterator[str]:
    """Duplicates, and which of them contradict each other or stand in two splits."""
    groups = [[samples[row] for row in group] for group in found.copies]
    names = [[_name(samples, row) for row in group] for group in found.copies]
    extra = sum(len(group) - 1 for group in groups)
    yield f"{extra:,} images stand there again, pixel for pixel ({len(groups):,} groups)."
    conflicts = [name for name, group in zip(names, groups, strict=True) if len({one.label for one in group}) > 1]
    if conflicts:
        yield f"{len(conflicts):,} of these groups have conflicting labels, as {_listed(conflicts[0])}."
    across = Counter(pair for group in groups for pair in _splits_of(group))
    for (one, other), count in sorted(across.items()):
        yield f"{count:,} groups stand in {one} and {other} alike: what is measured there is partly memory."
    if found.near is None:
        yield f"More than {MOST_COMPARED:,} images: near-duplicates were not looked for."
        return
    different = [pair for pair in found.near if samples[pair[0]].label != samples[pair[1]].label]
    note = f"{len(found.near):,} pairs are nearly the same image, {len(different):,} of them with different labels"
    if different:
        note += f", as {_listed([_name(samples, row) for row in different[0]])}"
    yield f"{note}."


def _splits_of(group: Sequence[Sample]) -> Iterator[tuple[str, str]]:
    order = ("train", "validation", "test")
    yield from combinations([split for split in order if any(one.split == split for one in group)], 2)


def _problems(layout: Layout, samples: Sequence[Sample], found: Findings) -> Iterator[str]:
    here = counted(samples)
    for what, whole in layout.counts.items():
        if here.get(what, 0) < whole:
            yield f"{here.get(what, 0):,} of {whole:,} {what}"
    if found.unreadable:
        first = [samples[row] for row in found.unreadable]
        yield f"{len(first):,} images cannot be read{_named(first)}"


def _named(samples: Sequence[Sample]) -> str:
    return f" ({_listed([one.path.name for one in samples])})"


def _name(samples: Sequence[Sample], row: int) -> str:
    """The end of its path, or where in its file of many it stands."""
    sample = samples[row]
    return "/".join(sample.path.parts[-2:]) if sample.pixels is None else f"sample {row + 1:,} of {sample.path.name}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}"
