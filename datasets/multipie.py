"""Multi-PIE (Gross et al., Image Vis. Comput. 28, 2010): 337 people, 15 cameras, 19 flashes, up to four sessions.

``session02/multiview/001/02/05_1/001_02_02_051_07.png``: person, session, recording, camera, shot. What was shown in
which recording, where the cameras stand, and that shots 00 and 19 have no flash: bob.bio.face,
doc/leaderboard/multipie.rst. The 15 degrees from camera to camera go from 11_0 at the person's left to 24_0 at the
right (idiap/facereclib, config/database/multipie_P.py); 08_1 and 19_1 look down from above.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from datasets.reading import files_named, some_name_fits
from datasets.sample import Layout, Sample
from edge_fer.core import Expression as E
from edge_fer.errors import DataError

_NAME = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})")
_SHOWN = {
    "01": ("neutral", "smile"),
    "02": ("neutral", "surprise", "squint"),
    "03": ("neutral", "smile", "disgust"),
    "04": ("neutral", "neutral", "scream"),
}
_CAMERAS = ("110", "120", "090", "080", "130", "140", "051", "050", "041", "190", "200", "010", "240")
"""From the person's left to the right."""
_ABOVE = {"081": 45.0, "191": -45.0}
_NO_FLASH = ("00", "19")


def _read(folder: Path) -> Iterator[Sample]:
    for path, match in files_named(folder, _NAME, ".png", ".jpg"):
        subject, session, recording, camera, shot = match.groups()
        shown = _SHOWN.get(session, ())
        if not 1 <= int(recording) <= len(shown):
            raise DataError(f"{path}: Multi-PIE has no recording {recording} in session {session}.")
        if camera not in _CAMERAS and camera not in _ABOVE:
            raise DataError(f"{path}: Multi-PIE has no camera {camera}.")
        label = shown[int(recording) - 1]
        yield Sample(
            path,
            label,
            LAYOUT.expression(label, path),
            subject=subject,
            yaw_deg=_ABOVE[camera] if camera in _ABOVE else 90.0 - 15 * _CAMERAS.index(camera),
            illumination="no flash" if shot in _NO_FLASH else f"flash {shot}",
            attributes={"session": session, "camera": "above" if camera in _ABOVE else "level"},
        )


LAYOUT = Layout(
    name="multi-pie",
    title="Multi-PIE (Gross et al., 2010)",
    wants="session01/multiview/001/01/05_1/001_01_01_051_07.png and the like",
    labels={
        "neutral": E.NEUTRAL,
        "smile": E.HAPPINESS,
        "surprise": E.SURPRISE,
        "squint": None,
        "disgust": E.DISGUST,
        "scream": None,
    },
    recognizes=lambda folder: some_name_fits(folder, _NAME),
    read=_read,
    counts={"images": 755370, "people": 337},
    survey="755,370 images of 337 people; squint and scream are none of the eight expressions.",
    licence="paid licence of CMU",
)
