"""Which data set lies in a folder."""

from __future__ import annotations

from pathlib import Path

from datasets.afew import LAYOUT as AFEW
from datasets.affectnet import FACES as AFFECTNET_FACES
from datasets.affectnet import LAYOUT as AFFECTNET
from datasets.bu3dfe import LAYOUT as BU3DFE
from datasets.ck48 import LAYOUT as CK48
from datasets.ck_plus import LAYOUT as CK_PLUS
from datasets.emotionet import LAYOUT as EMOTIONET
from datasets.expw import LAYOUT as EXPW
from datasets.fer2013 import LAYOUT as FER2013
from datasets.ferplus import LAYOUT as FERPLUS
from datasets.folders import LAYOUT as FOLDERS
from datasets.jaffe import LAYOUT as JAFFE
from datasets.kdef import LAYOUT as KDEF
from datasets.mmi import LAYOUT as MMI
from datasets.multipie import LAYOUT as MULTIPIE
from datasets.oulu_casia import LAYOUT as OULU_CASIA
from datasets.raf_db import COMPOUND as RAF_DB_COMPOUND
from datasets.raf_db import FOLDERS as RAF_DB_FOLDERS
from datasets.raf_db import LAYOUT as RAF_DB
from datasets.rafd import LAYOUT as RAFD
from datasets.reading import subfolders
from datasets.sample import Layout, Sample
from datasets.sfew import FACES as SFEW_FACES
from datasets.sfew import LAYOUT as SFEW
from datasets.tfd import LAYOUT as TFD
from edge_fer.errors import DataError, InputMissingError

LAYOUTS = (
    *(FER2013, FERPLUS, TFD, CK_PLUS, CK48, JAFFE, AFEW, SFEW, SFEW_FACES, AFFECTNET, AFFECTNET_FACES, MMI, EMOTIONET),
    *(MULTIPIE, BU3DFE, OULU_CASIA, RAFD, KDEF, RAF_DB, RAF_DB_COMPOUND, RAF_DB_FOLDERS, EXPW, FOLDERS),
)
"""The first that fits is it: what is known by a file right in the folder, then by names of folders, then by names of
images, and last a folder for each class, which fits many."""

_DEPTH = 5
"""Folders that hold nothing but a folder, as archives leave them."""


def recognize(folder: Path) -> tuple[Layout, Path]:
    """The data set in a folder, and where in it it lies.

    Raises:
        InputMissingError: there is no such folder, or nothing in it.
        DataError: it is no data set that is known.
    """
    if not folder.is_dir():
        raise InputMissingError(f"No folder {folder}: give the folder that holds the data set.")
    if not any(folder.iterdir()):
        raise InputMissingError(f"{folder} is empty: give the folder that holds the data set.")
    place = folder
    for _ in range(_DEPTH):
        for layout in LAYOUTS:
            if layout.recognizes(place):
                return layout, place
        below = subfolders(place)
        if len(below) != 1:
            break
        (place,) = below
    raise DataError(
        f"{folder} holds no data set in a form that edge-fer knows: `python -m datasets list` says what it looks for."
    )


def read_all(layout: Layout, place: Path) -> list[Sample]:
    """All samples of a set.

    Raises:
        InputMissingError: there are none.
        DataError: one of its files is wrong or missing.
    """
    samples = list(layout.read(place))
    if not samples:
        raise InputMissingError(f"{place} looks like {layout.name} and holds none of its images: unpack its archives.")
    return samples
