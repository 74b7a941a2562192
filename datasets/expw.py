"""ExpW (Zhang et al., ICCV 2015; Int. J. Comput. Vis. 126, 2018): faces in web photographs.

::

    image/origin/afraid_African_214.jpg
    label/label.lst      "afraid_African_214.jpg 0 33 275 342 100 68.6817 2": image, face, top, left, right, bottom,
                         confidence of the box, expression

Columns and codes as in github.com/HazyResearch/meerkat (meerkat/datasets/expw). The labels are noisy.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets.reading import folder_named, lines_of, numbers_of, refuse_missing
from datasets.sample import Layout, Sample
from edge_fer.core import Expression as E
from edge_fer.core import FaceBox
from edge_fer.errors import DataError


def _list(folder: Path) -> Path | None:
    places = (folder / "label.lst", folder / "label" / "label.lst", folder / "data" / "label" / "label.lst")
    return next((path for path in places if path.is_file()), None)


def _read(folder: Path) -> Iterator[Sample]:
    labels, images = _list(folder), folder_named(folder, "origin", "images", "image")
    if labels is None or images is None:
        raise DataError(f"{folder} has no {'label.lst' if labels is None else 'image/origin'}: unpack both archives.")
    images = folder_named(images, "origin") or images
    samples = []
    for number, line in lines_of(labels):
        try:
            name, _, *sides, _, label = line.split()
            top, left, right, bottom = numbers_of(sides)
        except ValueError:
            raise DataError(f"{labels}, line {number}: not the eight columns of label.lst.") from None
        samples.append(
            Sample(
                images / name,
                label,
                LAYOUT.expression(label, f"{labels}, line {number}"),
                box=FaceBox(left, top, right - left, bottom - top),
            )
        )
    there = {path.name for path in images.iterdir()}
    refuse_missing([one.path for one in samples if one.path.name not in there], len(samples), labels)
    yield from samples


LAYOUT = Layout(
    name="expw",
    title="ExpW (Zhang et al., 2015)",
    wants="image/origin, label/label.lst",
    labels={
        "0": E.ANGER,
        "1": E.DISGUST,
        "2": E.FEAR,
        "3": E.HAPPINESS,
        "4": E.SADNESS,
        "5": E.SURPRISE,
        "6": E.NEUTRAL,
    },
    recognizes=lambda folder: _list(folder) is not None,
    read=_read,
    counts={"images": 91793},
    survey="91,793 faces, in the survey's second version alone; a photograph may have several.",
    licence="research; photographs from the web",
)
