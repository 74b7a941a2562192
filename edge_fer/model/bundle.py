"""The model bundle: one file that holds a model and all that makes it right.

A bundle is a ``.tflite`` FlatBuffer with a ZIP archive behind it. LiteRT reads the front and ignores the rest; ZIP
tools read the back and ignore the front (``unzip -p model.tflite metadata.json`` works). The archive holds

* ``metadata.json``: what the graph cannot say (see ``spec.Metadata``; as JSON: ``metadata.schema.json``);
* ``selftest.npz``: input tensors, and the outputs that the exporter saw for them;
* ``arrays.npz``, in some: what parts of the model that are no graph consist of: "recurrent.ARRAY" of a recurrent head,
  "heads.NAME.ARRAY" of a head on the embedding (``heads.py``);
* ``labels.txt``: the first head's labels, a line each, for other programs; a detector's is "face".

The archive's comment is its own SHA-256, and the metadata holds that of the FlatBuffer: nothing in the file can be
changed unnoticed, by accident or with a ZIP tool. Against somebody who computes the hashes anew there are limits on all
that is read, and a graph that is not one of the package's is first run in a child process (``classifier.py``).

Shape, dtype, scale and zero point are read from the graph, never from the metadata. This file alone reads and writes
the format.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import BundleError, ConfigError, DataError, OutputError
from edge_fer.files import make_folder, read_file, write_atomically
from edge_fer.model.selftest import TOLERANCE_LSB, SelfTest
from edge_fer.model.spec import METADATA_VERSION, Kind, Metadata
from edge_fer.preprocess import PREPROCESS_VERSION
from edge_fer.temporal.recurrent import Weights

BUNDLES = Path(__file__).parent.parent / "bundles"
DEFAULT_MODEL = BUNDLES / "accurate.tflite"
DETECTORS = BUNDLES / "detectors"
"""Of faces, by the size of their input; the same weights."""

MOST_BYTES = 64 << 20
"""Of a file. Larger models are nothing for a board, and a file is read whole."""
MOST_METADATA_BYTES, MOST_SELFTEST_BYTES, MOST_ARRAYS_BYTES = 1 << 20, 4 << 20, 4 << 20
"""Of these members, unpacked; the latter two also of each array in them."""
MOST_ARRAYS = 64
MOST_SELFTESTS = 64
"""They are all run at every start."""
MOST_DIRECTORY_BYTES = 1 << 12
"""Of an archive's list of members: there are eight at most."""

_WRONG_KIND = {
    "detector": "{} finds faces and tells no expressions: name it with --detector-model, and another with --model.",
    "classifier": "{} tells expressions and finds no faces: name it with --model, and another with --detector-model.",
}
_RECURRENT = "recurrent."
"""Before the names of the arrays of a recurrent head."""
_FLATBUFFER_ID = b"TFL3"
_SEAL = 64
"""Letters of a SHA-256 in hex: the archive's comment."""
_END = struct.Struct("<4s8xI4xH")
"""A ZIP archive's end: its mark, the size of its directory, the length of its comment."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model gives the same bytes, whenever it is exported


@dataclass(frozen=True)
class Bundle:
    """A model with its metadata and self-test.

    Attributes:
        model: the FlatBuffer.
        metadata: see ``spec.Metadata``.
        selftest: see ``selftest.SelfTest``.
        path: where it was read from; None for one that is not in a file yet.
        recurrent: the weights of its recurrent head; None where its metadata has none.
        arrays: of its other parts that are no graph, by PART.ARRAY.
    """

    model: bytes
    metadata: Metadata
    selftest: SelfTest
    path: Path | None = None
    recurrent: Weights | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, name: Path | str = DEFAULT_MODEL, kind: Kind | None = "classifier") -> Bundle:
        """Read a bundle and check all that can be checked without running it.

        Args:
            name: the name of a model in the package, "nano"; or path of a file, "./nano" where that is its name.
            kind: what it must be for; None for anything.

        Raises:
            InputMissingError: no such file, and no such name.
            BundleError: it is not a bundle, it is damaged, it is one of another kind, or it was made for another
                version of edge-fer.
        """
        # A setting's ~ has seen no shell. pathlib's expanduser fails where there is no such user.
        path = _packaged(str(name)) or Path(os.path.expanduser(name))  # noqa: PTH111
        try:
            content = read_file(path, MOST_BYTES, "model", "`edge-fer models` lists those in the package.")
        except DataError as error:
            raise BundleError(str(error)) from None
        model, table, selftest, arrays = _parts(content, path)
        metadata = _checked(table, path)
        if kind not in (None, metadata.kind):
            raise BundleError(_WRONG_KIND[metadata.kind].format(path))
        if sha256(model) != metadata.model_sha256:
            raise BundleError(f"{path} is damaged: the model does not match its metadata. Copy or export it again.")
        inputs, outputs = selftest.inputs, selftest.outputs
        usable = inputs.ndim == 4 and outputs.ndim == 2 and 0 < len(inputs) == len(outputs) <= MOST_SELFTESTS
        usable = usable and inputs.dtype in (np.uint8, np.int8) and outputs.dtype.kind in "iuf"
        if not usable or not 0 <= selftest.tolerance_lsb <= 64:
            raise BundleError(f"{path} has no usable self-test. Export it again.")
        weights = _recurrent_of(metadata, arrays, path)
        others = {name: one for name, one in arrays.items() if not name.startswith(_RECURRENT)}
        return cls(model, metadata, selftest, path, weights, others)

    @classmethod
    def new(
        cls,
        model: bytes,
        metadata: Metadata,
        selftest: SelfTest,
        recurrent: Weights | None = None,
        arrays: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    ) -> Bundle:
        """A bundle around a bare FlatBuffer, after the last tool that changes it (the Edge TPU compiler) has run.

        Raises:
            BundleError: the model is no bare FlatBuffer.
        """
        if model[4:8] != _FLATBUFFER_ID:
            raise BundleError("This is not a .tflite model.")
        if zipfile.is_zipfile(io.BytesIO(model)):
            raise BundleError("This model has metadata already; attach it to the bare .tflite file.")
        preprocess = dataclasses.replace(metadata.preprocess, version=PREPROCESS_VERSION)
        metadata = dataclasses.replace(metadata, model_sha256=sha256(model), preprocess=preprocess)
        return cls(model, metadata, selftest, None, recurrent, arrays)

    @property
    def is_packaged(self) -> bool:
        """Whether the graph is one of the package's, wherever the file lies."""
        if self.path and self.path.parent in (BUNDLES, DETECTORS):
            return True
        return any(Bundle.load(path, None).model == self.model for path in packaged())

    @property
    def labels(self) -> tuple[str, ...]:
        """The first head's, or a detector's one."""
        return self.metadata.heads[0].labels if self.metadata.heads else ("face",)

    def __str__(self) -> str:
        """What it is called in messages: its path, else the model's name."""
        return str(self.path or self.metadata.name)

    def with_metadata(self, **changes: Any) -> Bundle:
        """The same model with other metadata, by field of ``spec.Metadata``."""
        return dataclasses.replace(self, metadata=dataclasses.replace(self.metadata, **changes), path=None)

    def members(self) -> dict[str, bytes]:
        """The members of the archive, by name."""
        selftest: dict[str, Any] = {"inputs": self.selftest.inputs, "outputs": self.selftest.outputs}
        if self.selftest.tolerance_lsb != TOLERANCE_LSB:
            selftest["tolerance"] = np.float64(self.selftest.tolerance_lsb)
        if self.selftest.sequence is not None:
            selftest["sequence"] = self.selftest.sequence
        weights = self.recurrent.arrays() if self.recurrent else {}
        arrays = {**self.arrays, **{f"{_RECURRENT}{name}": one for name, one in weights.items()}}
        members = {
            "metadata.json": json.dumps(self.metadata.to_table(), indent=1).encode(),
            "selftest.npz": _packed(selftest),
            "labels.txt": "".join(f"{label}\n" for label in self.labels).encode(),
        }
        return members | ({"arrays.npz": _packed(arrays)} if arrays else {})

    def to_bytes(self) -> bytes:
        """The file. The same bundle gives the same bytes."""
        file = io.BytesIO()
        file.write(self.model)
        with zipfile.ZipFile(file, "a") as archive:
            for name, content in self.members().items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, compress_type=zipfile.ZIP_DEFLATED)
        return sealed(file.getvalue(), len(self.model))

    def write(self, path: Path) -> Bundle:
        """Write the file, whole or not at all; returns the bundle with its path.

        Raises:
            OutputError: it cannot be written.
        """
        write_atomically(path, self.to_bytes())
        return dataclasses.replace(self, path=path)


load_bundle = Bundle.load
"""The public name of it."""


def sha256(data: bytes) -> str:
    """Hex digest. ``hashlib`` loads OpenSSL, 3.5 MB for one digest; Python has its own code, as ``random`` uses it."""
    for name in ("_sha2", "_sha256"):  # from 3.12 on, and 3.11
        try:
            return str(import_module(name).sha256(data).hexdigest())
        except ImportError:
            continue
    return str(import_module("hashlib").sha256(data).hexdigest())  # a Python that was built to have OpenSSL's alone


def sealed(content: bytes, start: int) -> bytes:
    """A file whose archive, which begins at ``start`` and has no comment yet, gets its hash as its comment."""
    content = content[:-2] + _SEAL.to_bytes(2, "little")
    return content + sha256(content[start:]).encode()


def packaged() -> list[Path]:
    """The files of the models in the package: those for expressions, then the detectors."""
    return [path for folder in (BUNDLES, DETECTORS) for path in sorted(folder.glob("*.tflite"))]


def _packaged(name: str) -> Path | None:
    """The file of a model of the package, by its name."""
    return next((path for path in packaged() if path.stem == name), None)


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # it has a keyword of its own, which no array is
    return file.getvalue()


def _parts(content: bytes, path: Path) -> tuple[bytes, Any, SelfTest, dict[str, NDArray[Any]]]:
    """FlatBuffer, metadata, self-test and further arrays of a file's content."""
    if content[4:8] != _FLATBUFFER_ID:
        raise BundleError(f"{path} is not a .tflite model.")
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise BundleError(
            f"{path} has no metadata: it is a bare .tflite file, or it was cut short. Export it with "
            "export/quantize.py."
        )
    try:
        with _archive(content, comment=_SEAL) as archive:
            names = archive.namelist()
            start = min(info.header_offset for info in archive.infolist())
            if sha256(content[start:-_SEAL]).encode() != content[-_SEAL:]:
                raise ValueError("it is not as it was exported")
            table = json.loads(_member(archive, "metadata.json", MOST_METADATA_BYTES))
            selftest = _arrays(archive, "selftest.npz", MOST_SELFTEST_BYTES)
            inputs, outputs = selftest["inputs"], selftest["outputs"]
            tolerance, sequence = float(selftest.get("tolerance", TOLERANCE_LSB)), selftest.get("sequence")
            arrays = _arrays(archive, "arrays.npz", MOST_ARRAYS_BYTES) if "arrays.npz" in names else {}
    except Exception as error:  # zipfile, json and numpy raise a dozen kinds on bytes that somebody changed
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".") if str(error) else type(error).__name__
        raise BundleError(f"{path} is damaged ({reason}). Copy or export it again.") from None
    if len(names) != len(set(names)):
        raise BundleError(f"{path} has a member twice. Export it again.")
    return content[:start], table, SelfTest(inputs, outputs, tolerance, sequence), arrays


def _archive(content: bytes, comment: int = 0) -> zipfile.ZipFile:
    """A ZIP archive, whose list of members is short and whose comment has so many letters.

    Raises:
        ValueError: they are not so.
    """
    mark, directory, length = _END.unpack(content[-_END.size - comment :][: _END.size])
    if mark != b"PK\5\6" or length != comment:
        raise ValueError("its checksum is missing" if comment else "it does not end as an archive")
    if directory > MOST_DIRECTORY_BYTES or b"PK\6\7" in content[-_END.size - comment - 20 :]:
        raise ValueError("it has too many members")
    return zipfile.ZipFile(io.BytesIO(content))


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A member of an archive. Only what is read is unpacked, whatever size the archive tells.

    Raises:
        ValueError: it is larger than ``most`` bytes.
        KeyError: there is none.
    """
    info = archive.getinfo(name)
    if info.file_size > most or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is too large")
    with archive.open(info) as file:
        return file.read(most + 1)


def _arrays(archive: zipfile.ZipFile, name: str, most: int) -> dict[str, NDArray[Any]]:
    """The arrays of a member ``.npz``, by name. All of them together are at most so many bytes."""
    arrays = {}
    with _archive(_member(archive, name, most)) as parts:
        infos = parts.infolist()
        if len(infos) > MOST_ARRAYS or sum(info.file_size for info in infos) > most:
            raise ValueError(f"{name} is too large")
        for info in infos:
            content = io.BytesIO(_member(parts, info.filename, most))
            arrays[info.filename.removesuffix(".npy")] = np.lib.format.read_array(content, allow_pickle=False)
    return arrays


def _checked(table: Any, path: Path) -> Metadata:
    try:
        versions = int(table["metadata_version"]), int(table["preprocess"]["version"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"{path} has metadata that cannot be read ({error!r}). Export it again.") from None
    if versions != (METADATA_VERSION, PREPROCESS_VERSION):
        raise BundleError(
            f"{path} was exported for metadata version {versions[0]} and preprocessing version {versions[1]}; this "
            f"edge-fer has {METADATA_VERSION} and {PREPROCESS_VERSION}. Export it again with this version's "
            "export/quantize.py."
        )
    try:
        return Metadata.from_table(table, str(path))
    except ConfigError as error:
        raise BundleError(f"{error} Export it again.") from None


def _recurrent_of(metadata: Metadata, arrays: Mapping[str, NDArray[Any]], path: Path) -> Weights | None:
    spec, names = metadata.recurrent, [part.name for part in dataclasses.fields(Weights)]
    found = {name: arrays[_RECURRENT + name] for name in names if _RECURRENT + name in arrays}
    if len(found) != (len(names) if spec else 0):
        raise BundleError(f"{path} has a part of a recurrent head, its metadata or its weights. Export it again.")
    if spec is None:
        return None
    assert metadata.decision, "Metadata.from_table has seen it"
    weights = Weights(**found)
    try:
        weights.check(spec, len(metadata.decision.labels), str(path))
    except ConfigError as error:
        raise BundleError(f"{error} Export it again.") from None
    return weights


def extract(bundle: Bundle, folder: Path) -> list[Path]:
    """Write the parts of a bundle into a folder: ``model.tflite`` alone, and the members of the archive.

    Returns:
        The files written.

    Raises:
        OutputError: a file is there already, or the folder cannot be written.
    """
    parts: Mapping[str, bytes] = {"model.tflite": bundle.model, **bundle.members()}
    for name in parts:
        if os.path.lexists(folder / name):  # what may not be seen is told when the folder is made
            raise OutputError(f"{folder / name} exists; choose another folder.")
    make_folder(folder)
    for name, content in parts.items():
        write_atomically(folder / name, content)
    return [folder / name for name in parts]
