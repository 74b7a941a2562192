"""The network's weights in a file: ``.npz``, one array a weight in the order of the Keras model."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import DataError
from edge_fer.files import read_file, write_atomically

MOST_BYTES = 16 << 20


def save(weights: Sequence[NDArray[np.float32]], path: Path) -> None:
    """Write weights, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    content = io.BytesIO()
    arrays = {f"{at:03}": value for at, value in enumerate(weights)}
    np.savez(content, **arrays)  # type: ignore[arg-type]  # it has a keyword of its own, which no array is
    write_atomically(path, content.getvalue())


def load(network: keras.Model, path: Path) -> None:
    """Read them into a network, whatever size of input it is for.

    Raises:
        InputMissingError: no such file.
        DataError: it does not hold weights of this network.
    """
    content = read_file(path, MOST_BYTES, "weights", "`make detector` writes them.")
    try:
        with np.load(io.BytesIO(content)) as arrays:
            network.set_weights([arrays[name] for name in sorted(arrays.files)])
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} does not hold weights of this detector ({reason}). Train it again.") from None
