"""EmotioNet (Fabian Benitez-Quiroz et al., CVPR 2016): a million addresses of web photographs with action units.

``emotioNet_challenge_files/*.txt``: address, address of the original, then 60 columns, 1 where the action unit of
that number is there, 0 where not, 999 where unknown; separated by tabs. Images: wherever the owner's download put
them, by the names at the end of the addresses. The label is worked out: the one of 23 expressions, 17 of them
compound, whose action units are exactly those that are there (the paper's Table 1, as public loaders have it).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets.reading import files_below, lines_of
from datasets.sample import Layout, Sample
from edge_fer.core import Expression as E
from edge_fer.errors import DataError
from edge_fer.sources.folder import STILL_SUFFIXES

_UNITS = {
    "happy": (12, 25),
    "sad": (4, 15),
    "fearful": (1, 4, 20, 25),
    "angry": (4, 7, 24),
    "surprised": (1, 2, 25, 26),
    "disgusted": (9, 10, 17),
    "happily sad": (4, 6, 12, 25),
    "happily surprised": (1, 2, 12, 25),
    "happily disgusted": (10, 12, 25),
    "sadly fearful": (1, 4, 15, 25),
    "sadly angry": (4, 7, 15),
    "sadly surprised": (1, 4, 25, 26),
    "sadly disgusted": (4, 10),
    "fearfully angry": (4, 20, 25),
    "fearfully surprised": (1, 2, 5, 20, 25),
    "fearfully disgusted": (1, 4, 10, 20, 25),
    "angrily surprised": (4, 25, 26),
    "disgustedly surprised": (1, 2, 5, 10),
    "happily fearful": (1, 2, 12, 25, 26),
    "angrily disgusted": (4, 10, 17),
    "awed": (1, 2, 5, 25),
    "appalled": (4, 9, 10),
    "hatred": (4, 7, 10),
}
_SAME = {"awed": "fearfully surprised", "appalled": "angrily disgusted", "hatred": "angrily disgusted"}
"""Of what two expressions a compound is that has a name of its own (Du et al., PNAS 111, 2014)."""
_BASIC = {
    "happy": E.HAPPINESS,
    "sad": E.SADNESS,
    "fearful": E.FEAR,
    "angry": E.ANGER,
    "surprised": E.SURPRISE,
    "disgusted": E.DISGUST,
}
_BY_UNITS = {frozenset(units): name for name, units in _UNITS.items()}
_COLUMNS = 60
_THERE, _UNKNOWN = "1", "999"


def _lists(folder: Path) -> list[Path]:
    places = (folder, folder / "emotioNet_challenge_files", folder / "EmotioNet" / "emotioNet_challenge_files")
    home = next((one for one in places if one.name == "emotioNet_challenge_files" and one.is_dir()), None)
    return files_below(home, ".txt") if home else []


def _read(folder: Path) -> Iterator[Sample]:
    images = {path.name: path for path in files_below(folder, *STILL_SUFFIXES)}
    if not images:
        raise DataError(f"{folder} has EmotioNet's lists and no images: download what they name into it.")
    for path in _lists(folder):
        for number, line in lines_of(path):
            address, *rest = line.split("\t")
            columns = rest[1:]
            if len(columns) != _COLUMNS or not set(columns) <= {"0", _THERE, _UNKNOWN}:
                raise DataError(
                    f"{path}, line {number}: two addresses and 60 numbers (0, 1 or 999) should stand there."
                )
            if (image := images.get(address.rpartition("/")[2])) is None:
                continue  # photographs vanish from the web: nobody has all of them
            units = [unit for unit, column in enumerate(columns, 1) if column == _THERE]
            label = _BY_UNITS.get(frozenset(units))
            compound = _SAME.get(label or "", label if label not in _BASIC else None)
            yield Sample(image, label, _BASIC.get(label or ""), compound, action_units=dict.fromkeys(units, 0.0))


LAYOUT = Layout(
    name="emotionet",
    title="EmotioNet (Fabian Benitez-Quiroz et al., 2016)",
    wants="emotioNet_challenge_files/*.txt, and the images that they name",
    labels={name: _BASIC.get(name) for name in _UNITS},
    recognizes=lambda folder: bool(_lists(folder)),
    read=_read,
    counts={},
    survey="1,000,000 images of 23 expressions; addresses, of which nobody has all images.",
    licence="research, signed agreement; photographs from the web",
)
