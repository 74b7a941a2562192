"""Oulu-CASIA NIR&VIS (Zhao et al., Image Vis. Comput. 29, 2011): sequences in two cameras and three lights.

``OriginalImg/VL/Strong/P001/Anger/000.jpeg``: visible light (VL) or near infrared (NI); strong, weak or dark;
320x240, from rest to the peak. Archives unpack to ``B_OriginalImg/...``, and to ``PreProcess Img`` with the faces cut
out. Paths as in public loaders (``OriginalImg/VL/Strong/P012/Anger/017.jpeg``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets.reading import folder_named
from datasets.sample import Layout, Sample
from datasets.sequences import last_frames
from edge_fer.core import Expression as E
from edge_fer.errors import DataError

_CAMERAS = ("VL", "NI")
_LIGHTS = ("Strong", "Weak", "Dark")


def _sequences(folder: Path) -> Iterator[Path]:
    for camera in _CAMERAS:
        if (found := folder_named(folder, camera)) is not None:
            yield from sorted(path for light in _LIGHTS for path in found.glob(f"{light}/P*/*") if path.is_dir())


def _read(folder: Path) -> Iterator[Sample]:
    for sequence in _sequences(folder):
        camera, light, subject, label = sequence.parts[-4:]
        expression = LAYOUT.expression(label, sequence)
        frames = sorted(path for path in sequence.glob("*.jp*g") if path.stem.isdecimal())
        if not frames:
            raise DataError(f"{sequence} holds no frames: the set is not whole; unpack its archive anew.")
        for path in frames:
            yield Sample(
                path,
                label,
                expression,
                subject=subject,
                sequence="/".join(sequence.parts[-4:]),
                frame=int(path.stem),
                illumination=light.lower(),
                attributes={"camera": "visible" if camera.upper() == "VL" else "near infrared"},
            )


LAYOUT = Layout(
    name="oulu-casia",
    title="Oulu-CASIA (Zhao et al., 2011)",
    wants="OriginalImg/VL/Strong/P001/Anger/000.jpeg and the like",
    labels={
        "Anger": E.ANGER,
        "Disgust": E.DISGUST,
        "Fear": E.FEAR,
        "Happiness": E.HAPPINESS,
        "Sadness": E.SADNESS,
        "Surprise": E.SURPRISE,
    },
    recognizes=lambda folder: any(True for _ in _sequences(folder)),
    read=_read,
    counts={"people": 80, "sequences": 2880},
    survey="2,880 sequences of 80 people; the tables use the 480 of visible, strong light.",
    licence="research, signed agreement",
    stills=last_frames,
)
