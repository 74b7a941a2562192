"""Data sets that are slow to parse are parsed once: what was read is kept as .npz in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from datasets.core import Dataset, Labels
from edge_fer.core import Expression

VERSION = 2
"""Grows when a reader reads the same files otherwise."""


def cached(files: Sequence[Path], read: Callable[[], dict[str, Dataset]]) -> dict[str, Dataset]:
    """What ``read`` makes of files, from the cache where the same content was read before.

    The cache lies in ``$XDG_CACHE_HOME/edge-fer`` (else ``~/.cache``). It is only ever a copy: one that cannot be read
    is made anew, one that cannot be written is done without.

    Args:
        files: all that it reads; those that are not there count as such.
        read: parses them into splits.
    """
    digest = hashlib.sha256(str(VERSION).encode())
    for file in files:
        digest.update(file.name.encode("utf-8", "surrogateescape"))
        if file.is_file():
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 - may have no home
    if not home.is_absolute():
        return read()
    path = home / "edge-fer" / f"{digest.hexdigest()}.npz"
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
            if arrays.zip.testzip() is None:  # all of it is as it was written: NumPy checks what it reads to the end
                return _unpacked(arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile):
        pass
    splits = read()
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as written:
                np.savez(written, **_packed(splits))
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    return splits


def _packed(splits: dict[str, Dataset]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    about: dict[str, dict[str, list[str]]] = {}
    for split, data in splits.items():
        arrays[f"{split}/images"] = data.images
        for name in ("subjects", "sequences"):
            if (texts := getattr(data, name)) is not None:
                arrays[f"{split}/{name}"] = texts
        about[split] = {task: list(labels.expressions) for task, labels in data.labels.items()}
        for task, labels in data.labels.items():
            for name in ("truth", "targets", "votes"):
                if (values := getattr(labels, name)) is not None:
                    arrays[f"{split}/{task}/{name}"] = values
    return {**arrays, "about": json.dumps(about)}


def _unpacked(arrays: Any) -> dict[str, Dataset]:
    splits = {}
    for split, tasks in json.loads(str(arrays["about"])).items():
        labels = {
            task: Labels(
                tuple(Expression(one) for one in expressions),
                arrays[f"{split}/{task}/truth"],
                arrays[f"{split}/{task}/targets"],
                arrays.get(f"{split}/{task}/votes"),
            )
            for task, expressions in tasks.items()
        }
        images = arrays[f"{split}/images"]
        more = {name: arrays.get(f"{split}/{name}") for name in ("subjects", "sequences")}
        splits[split] = Dataset(images, labels, np.zeros(len(images), np.bool_), **more)
    return splits
