"""BU-3DFE (Yin et al., FG 2006): 100 people, six expressions in four intensities and neutral, as scans and photographs.

``F0001/F0001_AN01WH_F2D.bmp``: gender and person, expression, intensity 01 to 04 (00 for neutral), group. ``_F2D`` is
the frontal photograph; ``_F3D.bmp`` is the texture of the scan, two views side by side, and is not a face: left out.
Names as in github.com/RasmusRPaulsen/Deep-MVLM and other public loaders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from datasets.reading import files_named, some_name_fits
from datasets.sample import Layout, Sample
from edge_fer.core import Expression as E
from edge_fer.errors import DataError

_NAME = re.compile(r"([FM]\d{4})_([A-Z]{2})(\d{2})([A-Z]{2})_F([23])D", re.IGNORECASE)
LEVELS = 4


def _read(folder: Path) -> Iterator[Sample]:
    files = list(files_named(folder, _NAME, ".bmp", ".png", ".jpg"))
    if not any(match[5] == "2" for _, match in files):
        raise DataError(f"{folder} has the textures of the scans alone (_F3D.bmp): unpack the photographs (_F2D.bmp).")
    for path, match in files:
        subject, label, level, group, _ = match.groups()
        if match[5] == "3":
            continue
        if int(level) > LEVELS:
            raise DataError(f"{path}: {level} is no intensity of BU-3DFE, which are 00 to 04.")
        yield Sample(
            path,
            label.upper(),
            LAYOUT.expression(label.upper(), path),
            subject=subject,
            intensity=int(level) / LEVELS if int(level) else None,
            attributes={"gender": "female" if subject.startswith("F") else "male", "group": group},
        )


LAYOUT = Layout(
    name="bu-3dfe",
    title="BU-3DFE (Yin et al., 2006)",
    wants="F0001/F0001_AN01WH_F2D.bmp and the like",
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
    counts={"images": 2500, "people": 100},
    survey="2,500 images of 100 people.",
    licence="research, signed agreement",
)
