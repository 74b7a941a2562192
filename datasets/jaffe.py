"""JAFFE (Lyons et al., FG 1998): ten women of Japan, seven expressions, three or four images of each.

``KA.AN1.39.tiff``: person, expression and its number, number of the image; 256x256, the head with its hair. Names as
the public loaders split them (``name.split(".")[1][:2]``) and as they stand in the copy at zenodo.org, record
3451524.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from datasets.reading import files_named, some_name_fits
from datasets.sample import Layout, Sample
from edge_fer.core import Expression as E

_NAME = re.compile(r"([A-Z]{2})\.([A-Z]{2})\d\.\d+", re.IGNORECASE)


def _read(folder: Path) -> Iterator[Sample]:
    for path, match in files_named(folder, _NAME, ".tiff", ".tif", ".png", ".jpg"):
        label = match[2].upper()
        yield Sample(
            path, label, LAYOUT.expression(label, path), subject=match[1].upper(), attributes={"gender": "female"}
        )


LAYOUT = Layout(
    name="jaffe",
    title="JAFFE (Lyons et al., 1998)",
    wants="KA.AN1.39.tiff and the like",
    labels={
        "AN": E.ANGER,
        "DI": E.DISGUST,
        "FE": E.FEAR,
        "HA": E.HAPPINESS,
        "NE": E.NEUTRAL,
        "SA": E.SADNESS,
        "SU": E.SURPRISE,
    },
    recognizes=lambda folder: some_name_fits(folder, _NAME),
    read=_read,
    counts={"images": 213, "people": 10},
    survey="213 images of 10 people; three or four images are of each expression, not of each person.",
    licence="non-commercial research",
)
