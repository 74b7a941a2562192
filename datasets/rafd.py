"""RaFD (Langner et al., Cognition & Emotion 24, 2010): 67 models, eight expressions, three gazes, five cameras.

``Rafd090_01_Caucasian_female_angry_frontal.jpg``: camera in degrees from the right (000 to 180; 090 is the front),
model, group, gender, expression, gaze; 681x1024. The fields as the set's FAQ lists them, quoted by public readmes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from datasets.reading import files_named, some_name_fits
from datasets.sample import Layout, Sample
from edge_fer.core import Expression as E

_NAME = re.compile(r"Rafd(\d{3})_(\d+)_([a-z]+)_([a-z]+)_([a-z]+)_([a-z]+)", re.IGNORECASE)


def _read(folder: Path) -> Iterator[Sample]:
    for path, match in files_named(folder, _NAME, ".jpg", ".jpeg", ".png"):
        camera, model, group, gender, label, gaze = match.groups()
        yield Sample(
            path,
            label.lower(),
            LAYOUT.expression(label.lower(), path),
            subject=model,
            yaw_deg=float(camera) - 90,
            attributes={"group": group, "gender": gender, "gaze": gaze},
        )


LAYOUT = Layout(
    name="rafd",
    title="RaFD (Langner et al., 2010)",
    wants="Rafd090_01_Caucasian_female_angry_frontal.jpg and the like",
    labels={
        "angry": E.ANGER,
        "contemptuous": E.CONTEMPT,
        "disgusted": E.DISGUST,
        "fearful": E.FEAR,
        "happy": E.HAPPINESS,
        "neutral": E.NEUTRAL,
        "sad": E.SADNESS,
        "surprised": E.SURPRISE,
    },
    recognizes=lambda folder: some_name_fits(folder, _NAME),
    read=_read,
    counts={"images": 8040, "people": 67},
    survey="1,608 images of 67 people: those of the frontal camera alone, 67 x 8 x 3; all five cameras have 8,040.",
    licence="non-commercial research, by registration",
)
