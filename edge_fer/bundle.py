"""The model bundle: one file that holds a model and all that makes it right.

A bundle is a ``.tflite`` FlatBuffer with a ZIP archive behind it. LiteRT reads the front and ignores the rest; ZIP
tools read the back and ignore the front (``unzip -p model.tflite card.json`` works). The archive holds

* ``card.json``: what the graph cannot say (see ``Card``; as JSON: ``card.schema.json``, one version of it for each
  ``CARD_VERSION``);
* ``selftest.npz``: input tensors, and the outputs that the exporter saw for them;
* ``labels.txt``: the first head's labels, a line each, for other programs.

Shape, dtype, scale and zero point are read from the graph, never from the card.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from edge_fer.config import from_table
from edge_fer.core import Expression
from edge_fer.errors import BundleError, ConfigError, InputMissingError, OutputError
from edge_fer.eyes import Alignment
from edge_fer.preprocess import PREPROCESS_VERSION

CARD_VERSION = 1
"""Grows when a card of the version before can no longer be read, or would be read wrongly."""
MODELS = Path(__file__).parent / "models"
DEFAULT_MODEL = MODELS / "accurate.tflite"

_FLATBUFFER_ID = b"TFL3"
SELFTEST_TOLERANCE = 2.0
"""Quanta by which the outputs of a device may differ from the exporter's on average. Optimised kernels round otherwise
than plain ones: in a network of ten layers by 0.8 on average, by up to 8 in one output in thousands. Pixels mirrored or
shifted by one differ by 6. Deep networks differ by more, and their bundles say by how much."""

_MEMBERS = ("card.json", "selftest.npz", "labels.txt")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model gives the same bytes, whenever it is exported


@dataclass(frozen=True)
class Head:
    """A slice of the output that is a task of its own.

    Attributes:
        name: of the task: "ferplus", "fer2013".
        labels: expressions in the order of the logits.
        temperature: logits are divided by it before softmax, so that confidence is frequency (Guo et al.,
            arXiv 1706.04599).
    """

    name: str
    labels: tuple[Expression, ...]
    temperature: float


@dataclass(frozen=True)
class Smoothing:
    """How predictions of a track become one steady answer; see ``temporal.ExpressionFilter``.

    Attributes:
        time_constant_s: of the exponential mean of the probabilities.
        hysteresis: how much more probable than the reported expression another one must be to replace it
        dwell_s: after this time; with a smaller lead it takes longer, in proportion.
        min_confidence: below it the answer is marked uncertain.
        min_size_px: so is that of a smaller face,
        min_blur: of one with a smaller variance of the Laplacian,
        min_brightness: and of a darker one, 0-1.
    """

    time_constant_s: float = 0.17
    hysteresis: float = 0.2
    dwell_s: float = 0.1
    min_confidence: float = 0.4
    min_size_px: float = 24.0
    min_blur: float = 5.0
    min_brightness: float = 0.08


@dataclass(frozen=True)
class Card:
    """What a model needs that its graph cannot say.

    Attributes:
        name: of the model.
        heads: in the order of their logits; the first is what the recognizer reports.
        margin: how far beyond the detector's box the face's crop reaches, as a fraction of its sides.
        preprocess_version: of ``edge_fer.preprocess`` at export.
        model_sha256: of the FlatBuffer, without the archive.
        smoothing: see ``Smoothing``.
        facts: what is said for people: metrics, training, licence. Never read by the runtime.
        align: how a face is turned before it is cut out.
    """

    name: str
    heads: tuple[Head, ...]
    margin: float
    preprocess_version: int
    model_sha256: str
    smoothing: Smoothing
    facts: Mapping[str, Any]
    align: Alignment = "none"


@dataclass(frozen=True)
class Bundle:
    """A bundle as read from a file; its card and hash have been checked.

    Attributes:
        path: where it was read from.
        model: the FlatBuffer.
        card: see ``Card``.
        selftest_inputs: uint8 or int8 (n, height, width, channels).
        selftest_outputs: int8, uint8 or float32 (n, logits), from the reference kernels of the exporter.
        selftest_tolerance: quanta by which a device may differ from them on average.
    """

    path: Path
    model: bytes
    card: Card
    selftest_inputs: NDArray[Any]
    selftest_outputs: NDArray[Any]
    selftest_tolerance: float = SELFTEST_TOLERANCE


def load_bundle(path: Path) -> Bundle:
    """Read a bundle and check all that can be checked without running it.

    Args:
        path: of a file, or the name of a model in the package: "nano".

    Raises:
        InputMissingError: no such file, and no such name.
        BundleError: it is not a bundle, it is damaged, or it was made for another version of edge-fer.
    """
    if path.name == str(path) and not path.exists() and (packaged := MODELS / f"{path}.tflite").is_file():
        path = packaged
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputMissingError(f"No model {path}; `edge-fer models` lists those in the package.") from None
    except OSError as error:
        raise BundleError(f"Cannot read {path}: {error.strerror}.") from None
    if content[4:8] != _FLATBUFFER_ID:
        raise BundleError(f"{path} is not a .tflite model.")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if (broken := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {broken!r} is wrong")
            model = content[: min(info.header_offset for info in archive.infolist())]
            table = json.loads(archive.read("card.json"))
            with np.load(io.BytesIO(archive.read("selftest.npz")), allow_pickle=False) as arrays:
                inputs, outputs = np.asarray(arrays["inputs"]), np.asarray(arrays["outputs"])
                tolerance = float(arrays["tolerance"]) if "tolerance" in arrays else SELFTEST_TOLERANCE
    except zipfile.BadZipFile:
        raise BundleError(
            f"{path} has no card: it is a bare .tflite file, or it was cut short. Export it with export/quantize.py."
        ) from None
    except Exception as error:  # zipfile, json and numpy raise a dozen kinds on bytes that somebody changed
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".") if str(error) else type(error).__name__
        raise BundleError(f"{path} is damaged ({reason}). Copy or export it again.") from None
    if len(names) != len(set(names)):
        raise BundleError(f"{path} has two cards. Export it again.")
    card = _card_from(table, path)
    if _sha256(model) != card.model_sha256:
        raise BundleError(f"{path} is damaged: the model does not match its card. Copy or export it again.")
    if inputs.ndim != 4 or outputs.ndim != 2 or not 0 < len(inputs) == len(outputs) or not 0 <= tolerance <= 64:
        raise BundleError(f"{path} has no usable self-test. Export it again.")
    return Bundle(path, model, card, inputs, outputs, tolerance)


def _sha256(data: bytes) -> str:
    """Hex digest. ``hashlib`` loads OpenSSL, 3.5 MB for one digest; Python has its own code, as ``random`` uses it."""
    for name in ("_sha2", "_sha256"):  # from 3.12 on, and 3.11
        try:
            return str(import_module(name).sha256(data).hexdigest())
        except ImportError:
            continue
    return str(import_module("hashlib").sha256(data).hexdigest())  # a Python that was built to have OpenSSL's alone


def _card_from(table: Any, path: Path) -> Card:
    try:
        version, preprocess_version = int(table["card_version"]), int(table["preprocess"]["version"])
        if version != CARD_VERSION or preprocess_version != PREPROCESS_VERSION:
            raise BundleError(
                f"{path} was exported for card version {version} and preprocessing version {preprocess_version}; this "
                f"edge-fer has {CARD_VERSION} and {PREPROCESS_VERSION}. Export it again with this version's "
                "export/quantize.py."
            )
        heads = []
        for head in table["heads"]:
            unknown = [label for label in head["labels"] if label not in set(Expression)]
            if unknown:
                raise BundleError(
                    f"{path} has unknown labels {', '.join(map(str, unknown))}; known are {', '.join(Expression)}. "
                    "Name them so and export it again."
                )
            heads.append(Head(str(head["name"]), tuple(map(Expression, head["labels"])), float(head["temperature"])))
        card = Card(
            name=str(table["name"]),
            heads=tuple(heads),
            margin=float(table["preprocess"]["margin"]),
            preprocess_version=preprocess_version,
            model_sha256=str(table["model_sha256"]),
            smoothing=from_table(Smoothing, table["smoothing"], "card", "smoothing."),
            facts=dict(table["facts"]),
            align=table["preprocess"].get("align", "none"),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, ConfigError) as error:
        raise BundleError(f"{path} has a card that cannot be read ({error!r}). Export it again.") from None
    usable = card.heads and all(
        head.labels and len(head.labels) == len(set(head.labels)) and 0.01 <= head.temperature <= 100
        for head in card.heads
    )
    if not usable or not 0 <= card.margin <= 2 or card.align not in get_args(Alignment):
        raise BundleError(f"{path} has a card without usable heads, margin or alignment. Export it again.")
    if not all(0 <= value < math.inf for value in asdict(card.smoothing).values()):
        raise BundleError(f"{path} has a card whose smoothing is below 0 or not a number. Export it again.")
    return card


def bundle_bytes(
    model: bytes,
    name: str,
    heads: tuple[Head, ...],
    margin: float,
    smoothing: Smoothing,
    facts: Mapping[str, Any],
    selftest_inputs: NDArray[Any],
    selftest_outputs: NDArray[Any],
    selftest_tolerance: float = SELFTEST_TOLERANCE,
    align: Alignment = "none",
) -> bytes:
    """Attach card and self-test to a bare FlatBuffer. The same arguments give the same bytes.

    Args:
        model: the FlatBuffer, after the last tool that changes it (the Edge TPU compiler) has run.
        name: see ``Card``; so are ``heads``, ``margin``, ``smoothing`` and ``facts``.
        heads: as above.
        margin: as above.
        smoothing: as above.
        facts: as above; JSON-able.
        selftest_inputs: see ``Bundle``.
        selftest_outputs: see ``Bundle``.
        selftest_tolerance: see ``Bundle`` and ``measured_tolerance``.
        align: see ``Card``.

    Raises:
        BundleError: the model is no bare FlatBuffer.
    """
    if model[4:8] != _FLATBUFFER_ID:
        raise BundleError("This is not a .tflite model.")
    if zipfile.is_zipfile(io.BytesIO(model)):
        raise BundleError("This model has a card already; attach a card to the bare .tflite file.")
    card = {
        "card_version": CARD_VERSION,
        "name": name,
        "heads": [{"name": h.name, "labels": list(h.labels), "temperature": h.temperature} for h in heads],
        "preprocess": {"version": PREPROCESS_VERSION, "margin": margin, "align": align},
        "model_sha256": _sha256(model),
        "smoothing": asdict(smoothing),
        "facts": dict(facts),
    }
    arrays = io.BytesIO()
    unusual: dict[str, Any] = (
        {} if selftest_tolerance == SELFTEST_TOLERANCE else {"tolerance": np.float64(selftest_tolerance)}
    )
    np.savez_compressed(arrays, inputs=selftest_inputs, outputs=selftest_outputs, **unusual)
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a") as archive:
        for member, content in (
            ("card.json", json.dumps(card, indent=1).encode()),
            ("selftest.npz", arrays.getvalue()),
            ("labels.txt", "".join(f"{label}\n" for label in heads[0].labels).encode()),
        ):
            archive.writestr(zipfile.ZipInfo(member, _EPOCH), content, compress_type=zipfile.ZIP_DEFLATED)
    return file.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: what was there before stays until all is written.

    Raises:
        OutputError: the folder is not there, not writable or full.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def extract(path: Path, folder: Path) -> list[Path]:
    """Write the parts of a bundle into a folder: ``model.tflite`` without a card, and the members of the archive.

    Returns:
        The files written.

    Raises:
        BundleError: see ``load_bundle``.
        OutputError: a file is there already, or the folder cannot be written.
    """
    bundle = load_bundle(path)
    with zipfile.ZipFile(bundle.path) as archive:
        parts = {name: archive.read(name) for name in _MEMBERS if name in archive.namelist()}
    parts = {"model.tflite": bundle.model, **parts}
    for name in parts:
        if (folder / name).exists():
            raise OutputError(f"{folder / name} exists; choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write into {folder}: {error.strerror}.") from None
    for name, content in parts.items():
        write_whole(folder / name, content)
    return [folder / name for name in parts]


def golden_outputs(model: bytes, inputs: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Raw outputs (n, logits) of the reference kernels, and by how many quanta those of another machine may differ.

    LiteRT's reference kernels give the same bits on every processor, those of tflite-runtime 2.14 round a dense layer
    otherwise. Optimised kernels round in ways of their own (docs/runtimes.md); they serve where an operator, such as
    ELU, has no reference kernel.

    Args:
        model: the FlatBuffer.
        inputs: (n, height, width, channels) in the model's own type.

    Raises:
        UnavailableError: no runtime is installed.
        BundleError: the runtime cannot load the model.
    """
    from edge_fer.classifier import load_runtime

    runtime = load_runtime()
    reason = ""
    for kernels, quanta in (
        ("BUILTIN_REF", int(runtime.__name__.startswith("tflite_runtime"))),
        ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", 4),
    ):
        try:
            interpreter = runtime.Interpreter(
                model_content=model, experimental_op_resolver_type=runtime.OpResolverType[kernels]
            )
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            continue
        return _outputs(interpreter, inputs), quanta
    raise BundleError(f"The runtime cannot load the model: {reason}")


def measured_tolerance(model: bytes, inputs: NDArray[Any], golden: NDArray[Any]) -> float:
    """``Bundle.selftest_tolerance`` for a model: twice what the optimised kernels of this machine differ by on average.

    Args:
        model: the FlatBuffer.
        inputs: of the self-test.
        golden: see ``golden_outputs``.
    """
    from edge_fer.classifier import load_runtime

    interpreter = load_runtime().Interpreter(model_content=model)
    interpreter.allocate_tensors()
    difference = np.abs(_outputs(interpreter, inputs).astype(np.float64) - golden).mean()
    return max(SELFTEST_TOLERANCE, float(np.ceil(2 * difference)))


def _outputs(interpreter: Any, inputs: NDArray[Any]) -> NDArray[Any]:
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for tensor in inputs:
        interpreter.set_tensor(source["index"], tensor[np.newaxis])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"])[0].copy())
    return np.stack(outputs)


def check_golden(bundle: Bundle) -> int:
    """Replay the self-test with the reference kernels, which must give the exporter's outputs.

    Returns:
        By how many quanta they might have differed: 0 is to the bit; see ``golden_outputs``.

    Raises:
        BundleError: they do not.
        UnavailableError: no runtime is installed.
    """
    outputs, quanta = golden_outputs(bundle.model, bundle.selftest_inputs)
    difference = np.abs(outputs.astype(np.float64) - bundle.selftest_outputs)
    different = int((difference > quanta).sum())
    if different:
        raise BundleError(
            f"{bundle.path}: {different} of {outputs.size} golden outputs differ on this machine with reference "
            "kernels. Export it again, or use another version of the runtime."
        )
    return quanta
