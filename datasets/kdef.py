"""KDEF (Lundqvist et al., 1998): 70 amateur actors, seven expressions, five angles, photographed twice.

``KDEF/AF01/AF01ANS.JPG``: series A or B, female or male, number of the person, expression, angle; 562x762. Codes as
in github.com/oarriaga/face_classification (src/utils/datasets.py: characters 4 to 6 are the expression). A file
whose name is cut off (``AM31H.JPG``) has no label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from datasets.reading import files_below, some_name_fits
from datasets.sample import Layout, Sample
from edge_fer.core import Expression as E

_NAME = re.compile(r"[AB]([FM]\d{2})([A-Z]{2})(FL|HL|S|HR|FR)", re.IGNORECASE)
_BROKEN = re.compile(r"[AB]([FM]\d{2})[A-Z]*", re.IGNORECASE)
_YAW_DEG = {"FL": 90.0, "HL": 45.0, "S": 0.0, "HR": -45.0, "FR": -90.0}
"""A left profile shows the left side; the codes are taken at their word."""


def _read(folder: Path) -> Iterator[Sample]:
    for path in files_below(folder, ".jpg", ".jpeg", ".png"):
        name = path.stem.upper()
        if not (match := _NAME.fullmatch(name) or _BROKEN.fullmatch(name)):
            continue
        sample = Sample(path, subject=match[1], attributes={"gender": "female" if match[1][0] == "F" else "male"})
        if match.re is _NAME:
            expression = LAYOUT.expression(match[2], path)
            sample = sample.replace(label=match[2], expression=expression, yaw_deg=_YAW_DEG[match[3]])
        yield sample


LAYOUT = Layout(
    name="kdef",
    title="KDEF (Lundqvist et al., 1998)",
    wants="AF01/AF01ANS.JPG and the like",
    labels={
        "AF": E.FEAR,
        "AN": E.ANGER,
        "DI": E.DISGUST,
        "HA": E.HAPPINESS,
        "NE": E.NEUTRAL,
        "SA": E.SADNESS,
        "SU": E.SURPRISE,
    },
    recognizes=lambda folder: some_name_fits(folder, _NAME),
    read=_read,
    counts={"images": 4900, "people": 70},
    survey="4,900 images of 70 people.",
    licence="non-commercial research, by registration",
)
