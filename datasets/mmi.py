"""MMI (Pantic et al., ICME 2005; Valstar & Pantic, LREC Workshops 2010): sequences from rest to an expression and back.

``Sessions/1/session.xml`` (``<track view="0">``: 0 is the front, 2 front and profile side by side), ``S001-001.avi``
and ``S001-001.xml`` with ``<Metatag Name="Emotion" Value="4"/>``; perhaps ``S001-001-oao_aucs.xml`` with action
units. Codes 1 to 6; higher ones are other displays, and most sessions have none. The frames in the middle are the
peak. As public loaders read it; some videos lie on their side and are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from datasets.reading import folder_named, xml_in
from datasets.sample import Layout, Sample
from datasets.sequences import middle_frames
from edge_fer.core import Expression as E
from edge_fer.errors import DataError

_CODES = {
    "1": ("anger", E.ANGER),
    "2": ("disgust", E.DISGUST),
    "3": ("fear", E.FEAR),
    "4": ("happiness", E.HAPPINESS),
    "5": ("sadness", E.SADNESS),
    "6": ("surprise", E.SURPRISE),
}
_VIEWS = {"0": "front", "1": "profile", "2": "front and profile"}


def _read(folder: Path) -> Iterator[Sample]:
    sessions = folder_named(folder, "Sessions")
    if sessions is None:
        raise DataError(f"{folder} has no Sessions.")
    for session in sorted(path for path in sessions.iterdir() if path.is_dir() and path.name.isdigit()):
        view = _attribute(session / "session.xml", "track", {}, "view")
        for path in sorted(session.glob("S*.avi")):
            code = _attribute(path.with_suffix(".xml"), "Metatag", {"Name": "Emotion"}, "Value")
            label, expression = _CODES.get(code or "", (None, None))
            yield Sample(
                path,
                label,
                expression,
                subject=path.stem.partition("-")[0],
                sequence=session.name,
                attributes={"view": _VIEWS.get(view or "0", "front")},
            )


def _attribute(path: Path, element: str, given: Mapping[str, str], name: str) -> str | None:
    """What the first such element of a file says, whatever its name space; None without one."""
    if not path.is_file():
        return None
    fitting = [
        one
        for one in xml_in(path).iter()
        if one.tag.rpartition("}")[2] == element and given.items() <= one.attrib.items()
    ]
    return fitting[0].get(name) if fitting else None


LAYOUT = Layout(
    name="mmi",
    title="MMI (Pantic et al., 2005)",
    wants="Sessions/1/S001-001.avi and .xml, and the like",
    labels=dict(_CODES.values()),
    recognizes=lambda folder: (home := folder_named(folder, "Sessions")) is not None and any(home.glob("*/S*-*.avi")),
    read=_read,
    counts={"people": 32, "sequences": 326, "labeled sequences": 213},
    survey="326 sequences of 32 people, 213 labeled, as first published; MMI has grown since.",
    licence="signed agreement: research",
    stills=middle_frames,
)
