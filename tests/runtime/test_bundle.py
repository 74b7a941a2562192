"""The bundle: written, read back, and refused when anything about it is wrong."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, get_args

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge_fer
from edge_fer.cli import main
from edge_fer.core import Expression, Prediction
from edge_fer.errors import BundleError, EdgeFerError, InputMissingError, OutputError
from edge_fer.model.bundle import BUNDLES, DEFAULT_MODEL, Bundle, extract, load_bundle, sealed
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.litert import Network, load_runtime
from edge_fer.model.selftest import TOLERANCE_LSB, SelfTest
from edge_fer.model.spec import METADATA_VERSION, Head, Metadata
from edge_fer.model.trial import why_it_dies
from edge_fer.preprocess import PREPROCESS_VERSION, PreprocessSpec
from edge_fer.preprocess.illumination import MOST_STEPS, Illumination
from edge_fer.temporal.smoothing import Smoothing

HEADS = (Head("pair", (Expression.ANGER, Expression.FEAR), 1.5),)
FLATBUFFER = b"\x1c\x00\x00\x00TFL3" + bytes(range(200))
MOST_LSB = int(load_runtime().__name__.startswith("tflite_runtime"))
"""By how many LSB tflite-runtime's golden outputs may differ from LiteRT's (docs/runtimes.md)."""
INPUTS = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
OUTPUTS = np.array([[1, -2], [3, 4]], np.int8)
METADATA = Metadata("pair", HEADS, PreprocessSpec(margin=0.25), Smoothing(dwell_s=0.3), {"n": 3})


def written(tmp_path: Path, model: bytes = FLATBUFFER) -> Path:
    path = tmp_path / "model.tflite"
    Bundle.new(model, METADATA, SelfTest(INPUTS, OUTPUTS)).write(path)
    return path


def test_the_hash_is_that_of_hashlib_and_does_not_load_it(tmp_path: Path) -> None:
    # NumPy 1 loads hashlib itself; that of the legacy set is not ours to mend.
    script = (
        "import sys, numpy; theirs = set(sys.modules); import edge_fer; "
        "edge_fer.load_bundle(); print(*set(sys.modules) - theirs)"
    )
    # `make coverage` would measure the child too, and that loads it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    child = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    modules = set(child.stdout.split())
    assert "edge_fer.model.bundle" in modules and not {"hashlib", "_hashlib"} & modules
    assert load_bundle(written(tmp_path)).metadata.model_sha256 == hashlib.sha256(FLATBUFFER).hexdigest()


def test_a_python_without_a_hash_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    monkeypatch.setitem(sys.modules, "_sha2", None)
    monkeypatch.setitem(sys.modules, "_sha256", None)
    assert load_bundle(path).model == FLATBUFFER


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    assert bundle.model == FLATBUFFER
    assert bundle.metadata.name == "pair"
    assert bundle.metadata.heads == HEADS
    assert bundle.metadata.preprocess.margin == 0.25
    assert bundle.metadata.smoothing == Smoothing(dwell_s=0.3)
    assert bundle.metadata.facts == {"n": 3}
    assert np.array_equal(bundle.selftest.inputs, INPUTS)
    assert np.array_equal(bundle.selftest.outputs, OUTPUTS)


def test_other_programs_find_the_labels(tmp_path: Path) -> None:
    with zipfile.ZipFile(written(tmp_path)) as archive:
        assert archive.read("labels.txt") == b"anger\nfear\n"


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path).read_bytes() == written(tmp_path).read_bytes()


def test_metadata_is_attached_once(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has metadata already"):
        Bundle.new(written(tmp_path).read_bytes(), METADATA, SelfTest(INPUTS, OUTPUTS))
    with pytest.raises(BundleError, match=r"not a .tflite"):
        Bundle.new(b"hello, world", METADATA, SelfTest(INPUTS, OUTPUTS))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a .tflite"), (b"hello, world", "not a .tflite"), (FLATBUFFER, "has no metadata")],
)
def test_what_is_no_bundle(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=message):
        load_bundle(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="edge-fer models"):
        load_bundle(tmp_path / "none.tflite")
    with pytest.raises(BundleError, match="directory"):
        load_bundle(tmp_path)


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path).rename(tmp_path / "mine.tflite")
    assert load_bundle("~/mine.tflite").path == tmp_path / "mine.tflite"
    with pytest.raises(InputMissingError, match="No model ~nobody-has-this-name/x"):
        load_bundle("~nobody-has-this-name/x")


def change(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda table: table.update(values)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (change(metadata_version=1), "metadata version 1"),
        (change(preprocess={"version": 99, "margin": 0}), "preprocessing version 99"),
        (
            change(heads=[{"name": "x", "labels": ["joy", "anger"], "temperature": 1}]),
            "unknown value 'joy'",
        ),
        (change(heads=[{"name": "x", "labels": ["anger"], "temperature": 0}]), "must be 0.01 to 100"),
        (change(heads=[]), "has no heads"),
        (change(heads=[{"name": "x", "labels": ["fear", "fear"], "temperature": 1}]), "each once"),
        (change(heads=3), "'heads' must be a list"),
        (change(heads=[{"name": "x", "labels": [["fear"]], "temperature": 1}]), "unknown value"),
        (change(metadata_version=float("inf")), "cannot be read"),
        (change(smoothing={"dwell_s": float("nan")}), "smoothing.dwell_s must be 0 or more"),
        (change(smoothing={"dwel_s": 1.0}), "Did you mean"),
        (change(facts=3), "'facts' must be a table"),
        (change(preprocess={"version": 1, "margin": -1}), "preprocess.margin must be 0 to 2"),
        (change(preprocess={"version": 1, "margin": 10**400}), "'preprocess.margin' is out of range: a number of 1329"),
        (change(preprocess={"version": 1, "margin": 0, "alignment": "nose"}), "must be one of none, eyes, two-points"),
        (change(preprocess={"version": 1, "margin": 0, "illumination": ["candle"]}), "must be one of equalization"),
        (change(preprocess={"version": 1, "margin": 0, "illumination": ["log"] * 4}), "at most 3 steps"),
        (change(preprocess={"version": 1, "margin": 0, "illumination": "log"}), "must be a list"),
        (change(model_sha256="0" * 64), "does not match its metadata"),
        (lambda table: table.pop("name"), "'name' is missing"),
    ],
)
def test_wrong_metadata(bundle_with: Callable[..., Path], metadata: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        load_bundle(bundle_with(metadata=metadata))


def head(temperature: float) -> list[dict[str, Any]]:
    return [{"name": "x", "labels": ["fear"], "temperature": temperature}]


@pytest.mark.parametrize(
    ("metadata", "usable"),
    [
        (change(heads=head(0.01)), True),
        (change(heads=head(0.0099)), False),
        (change(heads=head(100)), True),
        (change(heads=head(100.1)), False),
        (change(heads=[{"name": "x", "labels": [], "temperature": 1}]), False),
        (change(heads=[*head(1), *head(0)]), False),  # one that is wrong is enough
        (change(preprocess={"version": 1, "margin": 0, "alignment": "none"}), True),
        (change(preprocess={"version": 1, "margin": 2, "alignment": "eyes"}), True),
        (change(preprocess={"version": 1, "margin": 2.01}), False),
        (change(smoothing={"dwell_s": 0}), True),
        (change(smoothing={"dwell_s": -0.01}), False),
        (change(smoothing={"dwell_s": float("inf")}), False),
    ],
)
def test_the_limits_of_metadata(bundle_with: Callable[..., Path], metadata: Any, usable: bool) -> None:
    def alone(table: dict[str, Any]) -> None:
        del table["decision"], table["doubt"]  # they are of other heads
        metadata(table)

    path = bundle_with(metadata=alone)
    if usable:
        load_bundle(path)
        jsonschema.validate(metadata_of(path), SCHEMA)
    else:
        with pytest.raises(BundleError):
            load_bundle(path)


def test_metadata_without_smoothing_has_the_usual(bundle_with: Callable[..., Path]) -> None:
    """Golden: metadata that names nothing means these numbers, in all that read metadata of version 2."""
    smoothing = load_bundle(bundle_with(metadata=change(smoothing={}))).metadata.smoothing
    assert smoothing == Smoothing(
        time_constant_s=0.17,
        max_turn=0.35,
        hysteresis=0.2,
        dwell_s=0.1,
        min_confidence=0.4,
        min_size_px=24.0,
        min_blur=5.0,
        min_brightness=0.08,
    )
    assert METADATA_VERSION == 2


@pytest.mark.parametrize(("tolerance", "usable"), [(0.0, True), (64.0, True), (64.5, False), (-1.0, False)])
def test_the_limits_of_a_tolerance(tmp_path: Path, tolerance: float, usable: bool) -> None:
    path = tmp_path / "x.tflite"
    Bundle.new(FLATBUFFER, METADATA, SelfTest(INPUTS, OUTPUTS, tolerance)).write(path)
    if usable:
        assert load_bundle(path).selftest.tolerance_lsb == tolerance
    else:
        with pytest.raises(BundleError, match="no usable self-test"):
            load_bundle(path)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(INPUTS[0], OUTPUTS), (INPUTS, OUTPUTS[0]), (INPUTS[:1], OUTPUTS), (INPUTS[:0], OUTPUTS[:0])],
    ids=["no batch", "no rows", "one missing", "none"],
)
def test_a_self_test_that_tests_nothing_is_refused(tmp_path: Path, inputs: np.ndarray, outputs: np.ndarray) -> None:
    path = tmp_path / "x.tflite"
    Bundle.new(FLATBUFFER, METADATA, SelfTest(inputs, outputs)).write(path)
    with pytest.raises(BundleError, match="no usable self-test"):
        load_bundle(path)


def test_a_missing_member(bundle_with: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(bundle_with(leave_out="selftest.npz"))


def test_a_changed_model(bundle_with: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="does not match its metadata"):
        load_bundle(bundle_with(model=lambda model: model[:-1] + bytes([model[-1] ^ 1])))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage") / "model.tflite"


def test_a_model_of_the_package_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_bundle(Path(DEFAULT_MODEL.stem)).path == DEFAULT_MODEL
    for path in (Path("nobody"), tmp_path / DEFAULT_MODEL.stem, Path(f"../{DEFAULT_MODEL.stem}")):
        with pytest.raises(InputMissingError, match="edge-fer models"):
            load_bundle(path)
    for own in (Path.mkdir, lambda path: path.write_bytes(BUNDLES.joinpath("nano.tflite").read_bytes())):
        own(Path(DEFAULT_MODEL.stem))  # as `models extract` makes it; a file of the user's own
        assert load_bundle(DEFAULT_MODEL.stem).path == DEFAULT_MODEL
        if Path(DEFAULT_MODEL.stem).is_dir():
            Path(DEFAULT_MODEL.stem).rmdir()
    assert load_bundle(f"./{DEFAULT_MODEL.stem}").metadata.name == "nano"  # a path is a path


@pytest.fixture(scope="module")
def whole() -> tuple[Bundle, list[Prediction]]:
    """The shipped bundle, and what it says of one of its faces."""
    bundle = load_bundle(DEFAULT_MODEL)
    return bundle, TfliteClassifier(bundle).classify(bundle.selftest.inputs[:1])


def refused_or_right(path: Path, whole: tuple[Bundle, list[Prediction]]) -> bool:
    """One sentence, never a crash, and never another answer than that of the whole file; whether it is answered."""
    original, answer = whole
    try:
        bundle = load_bundle(path)
        predictions = TfliteClassifier(bundle).classify(original.selftest.inputs[:1])
    except EdgeFerError as error:
        assert "\n" not in str(error)
        return False
    assert predictions == answer
    assert bundle.metadata == original.metadata
    return True


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_refused(scratch: Path, whole: tuple[Bundle, list[Prediction]], data: st.DataObject) -> None:
    content = DEFAULT_MODEL.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    if cut:
        damaged = content[:place]
    else:
        damaged = content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    scratch.write_bytes(damaged)
    assert not refused_or_right(scratch, whole)


def damage(content: bytes, chance: random.Random) -> bytes:
    """Damage as cards, cables and editors do it, half of it in the archive, which is a tenth of the file."""
    archive = content.index(b"PK\x03\x04")
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        place = chance.randrange(chance.choice([0, archive]), len(content))
        length = chance.randrange(1, 600)
        match chance.choice(["byte", "bit", "zeros", "noise", "missing", "more", "end", "tail"]):
            case "byte":
                damaged[place : place + 1] = chance.randbytes(1)
            case "bit":
                damaged[place : place + 1] = bytes([content[place] ^ 1 << chance.randrange(8)])
            case "zeros":
                damaged[place : place + length] = bytes(length)
            case "noise":
                damaged[place : place + length] = chance.randbytes(length)
            case "missing":
                del damaged[place : place + length]
            case "more":
                damaged[place:place] = chance.randbytes(length)
            case "end":
                del damaged[place:]
            case "tail":
                damaged += chance.choice([chance.randbytes(length), content[archive:]])
    return bytes(damaged)


def test_files_damaged_at_random_are_refused(scratch: Path, whole: tuple[Bundle, list[Prediction]]) -> None:
    content, chance = DEFAULT_MODEL.read_bytes(), random.Random(3)
    for _ in range(300):
        damaged = damage(content, chance)
        scratch.write_bytes(damaged)
        assert refused_or_right(scratch, whole) == (damaged == content)


def test_damage_to_the_directories_of_the_archive(scratch: Path, whole: tuple[Bundle, list[Prediction]]) -> None:
    """Every byte of them is turned, and some others at once."""
    content = DEFAULT_MODEL.read_bytes()
    chance = random.Random(5)
    start = content.index(b"PK\x01\x02", len(load_bundle(DEFAULT_MODEL).model))
    for place in range(start, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= chance.randrange(1, 256)
        for _ in range(chance.randrange(3)):
            damaged[chance.randrange(start, len(content))] = chance.randrange(256)
        scratch.write_bytes(damaged)
        assert not refused_or_right(scratch, whole)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_members_that_somebody_changed_on_purpose(scratch: Path, data: st.DataObject) -> None:
    """With checksums made right again: only what the members say is wrong."""
    original = load_bundle(DEFAULT_MODEL)
    with zipfile.ZipFile(DEFAULT_MODEL) as archive:
        members = {name: bytearray(archive.read(name)) for name in ("metadata.json", "selftest.npz")}
    member = members[data.draw(st.sampled_from(sorted(members)))]
    for _ in range(data.draw(st.integers(1, 3))):
        member[data.draw(st.integers(0, min(len(member), 3000) - 1))] = data.draw(st.integers(0, 255))
    write_by_hand(scratch, {name: bytes(content) for name, content in members.items()})
    try:
        bundle = load_bundle(scratch)
    except EdgeFerError as error:
        assert "\n" not in str(error)
    else:
        assert bundle.model == original.model


def members_of(path: Path = DEFAULT_MODEL) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_by_hand(
    path: Path, members: dict[str, bytes], *, seal: Path | None = None, compression: int = zipfile.ZIP_STORED
) -> None:
    """The shipped model with these members and their right hash, or with that of another bundle."""
    model = load_bundle().model
    path.write_bytes(model)
    with zipfile.ZipFile(path, "a", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    content = sealed(path.read_bytes(), len(model))
    path.write_bytes(content if seal is None else content[:-64] + seal.read_bytes()[-64:])


def archive_of(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.json", b"[" * 100_000),
        ("metadata.json", b"[]"),
        ("metadata.json", b"\xff\xfe"),
        ("selftest.npz", b""),
        ("selftest.npz", b"hello"),
        ("selftest.npz", npz(inputs=3, outputs=4)),
        ("selftest.npz", npz(inputs=np.zeros((0, 4, 4, 1)), outputs=np.zeros((0, 2)))),
        ("selftest.npz", npz(inputs=np.zeros((2, 4, 4, 1)), outputs=np.zeros((3, 2)))),
    ],
)
def test_members_that_are_something_else(scratch: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(DEFAULT_MODEL) as archive:
        members = {name: archive.read(name) for name in ("metadata.json", "selftest.npz")} | {name: content}
    write_by_hand(scratch, members)
    with pytest.raises(BundleError):
        load_bundle(scratch)


def test_parts_that_are_no_graph_travel_with_it(tmp_path: Path) -> None:
    arrays = {
        "heads.x.weights": np.arange(6, dtype=np.float32).reshape(2, 3),
        "heads.x.left": np.array([1, 2], np.int32),
    }
    path = tmp_path / "parts.tflite"
    Bundle.new(FLATBUFFER, METADATA, SelfTest(INPUTS, OUTPUTS), arrays=arrays).write(path)
    read = load_bundle(path)
    assert {name: (one.dtype, one.tolist()) for name, one in read.arrays.items()} == {
        name: (one.dtype, one.tolist()) for name, one in arrays.items()
    }
    assert read.with_metadata(name="other").to_bytes() != read.to_bytes() == path.read_bytes()
    assert read.with_metadata(name="other").arrays.keys() == arrays.keys()


def test_two_members_of_one_name(scratch: Path) -> None:
    scratch.write_bytes(load_bundle().model)
    with zipfile.ZipFile(scratch, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for name, content in (*members_of().items(), ("metadata.json", b"{}")):
            archive.writestr(name, content)
    scratch.write_bytes(sealed(scratch.read_bytes(), len(load_bundle().model)))
    with pytest.raises(BundleError, match=r"a member twice|cannot be read"):
        load_bundle(scratch)


@pytest.mark.parametrize("member", ["metadata.json", "selftest.npz", "labels.txt"])
def test_a_member_that_was_edited_with_a_tool_is_refused(tmp_path: Path, member: str) -> None:
    """The archive is whole, and its comment is kept or lost: what was exported was something else."""
    members = members_of() | {member: members_of()[member].replace(b"neutral", b"disgust", 1) + b" "}
    with zipfile.ZipFile(DEFAULT_MODEL) as original:
        comment = original.comment
    for kept in (comment, b"", b"0" * 64):
        path = tmp_path / "edited.tflite"
        path.write_bytes(load_bundle().model)
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = kept
            for name, content in members.items():
                archive.writestr(name, content)
        with pytest.raises(BundleError, match=r"it is not as it was exported|its checksum is missing"):
            load_bundle(path)


def test_every_permutation_of_two_labels_is_refused(tmp_path: Path) -> None:
    labels = [head["labels"] for head in json.loads(members_of()["metadata.json"])["heads"]]
    path = tmp_path / "permuted.tflite"
    for head, names in enumerate(labels):
        for first, second in itertools.pairwise(names):
            table = json.loads(members_of()["metadata.json"])
            order = table["heads"][head]["labels"]
            here, there = order.index(first), order.index(second)
            order[here], order[there] = second, first
            write_by_hand(path, members_of() | {"metadata.json": json.dumps(table).encode()}, seal=DEFAULT_MODEL)
            with pytest.raises(BundleError, match="it is not as it was exported"):
                load_bundle(path)


def bomb(size: int, claimed: int | None = None) -> bytes:
    """A deflated member of zeros in an archive; in its directory it may claim another size."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inputs.npy", bytes(size))
    content = file.getvalue()
    return content if claimed is None else content.replace(size.to_bytes(4, "little"), claimed.to_bytes(4, "little"))


def npy(shape: tuple[int, ...], kind: str) -> bytes:
    """The head of an array file, without the array."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.json", lambda: b" " * (200 << 20)),
        ("selftest.npz", lambda: bytes(200 << 20)),
        ("selftest.npz", lambda: bomb(200 << 20)),
        ("selftest.npz", lambda: bomb(200 << 20, claimed=64)),
        ("selftest.npz", lambda: npz(inputs=np.zeros((100_000, 1, 1, 1), np.uint8), outputs=np.zeros((100_000, 1)))),
        ("selftest.npz", lambda: npz(**{f"a{n}": np.zeros(1) for n in range(2000)})),
        ("selftest.npz", lambda: archive_of(**{"inputs.npy": npy((1 << 20, 1 << 20, 1 << 9, 1), "|u1")})),
        ("selftest.npz", lambda: archive_of(**{"inputs.npy": npy((1 << 14, 1 << 14, 4, 1), "|u1")})),
        ("labels.txt", lambda: b"x" * (200 << 20)),
        ("arrays.npz", lambda: bomb(200 << 20)),
        ("arrays.npz", lambda: npz(**{f"a{n}": np.zeros((256, 256)) for n in range(60)})),
    ],
    ids=[
        "metadata",
        "arrays",
        "array",
        "lying",
        "self-tests",
        "names",
        "header",
        "header-1g",
        "unread",
        "part",
        "parts",
    ],
)
def test_bombs_take_no_memory(tmp_path: Path, name: str, content: Callable[[], bytes]) -> None:
    path = tmp_path / "bomb.tflite"
    write_by_hand(path, members_of() | {name: content()}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 3_000_000
    script = (
        "import resource, sys; import edge_fer; edge_fer.load_bundle()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: edge_fer.load_bundle(sys.argv[1])\n"
        "except edge_fer.EdgeFerError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    child = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    *messages, grown_kb = child.stdout.splitlines()
    assert len(messages) == (0 if name == "labels.txt" else 1)
    assert int(grown_kb) < 30_000


@pytest.mark.parametrize("what", ["pipe", "device", "directory", "huge", "zero byte", "long name"])
def test_what_is_no_file_is_refused_before_it_is_read(tmp_path: Path, what: str) -> None:
    path, message = tmp_path / "x.tflite", "pipe or a device"
    match what:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/zero")
        case "directory":
            path, message = tmp_path, "directory"
        case "huge":
            with path.open("wb") as file:
                file.truncate(3 << 30)
            message = "3,221 MB"
        case "zero byte":
            path, message = tmp_path / "a\0b", "No model"
        case "long name":
            path, message = tmp_path / ("x" * 300), "name too long"
    with pytest.raises((BundleError, InputMissingError), match=message):
        load_bundle(path)


def test_an_archive_of_many_members_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.tflite"
    write_by_hand(path, members_of() | {f"{number}": b"" for number in range(70_000)})
    with pytest.raises(BundleError, match="too many members"):
        load_bundle(path)


@pytest.mark.parametrize("kind", ["<U4", "|O", "<c16", "|b1", "<M8[s]", "|V0", ">f4", "<f4", "<u8", "[('a', '<f4')]"])
@pytest.mark.parametrize("name", ["inputs", "outputs", "tolerance"])
def test_arrays_of_odd_kinds_are_refused_or_harmless(tmp_path: Path, kind: str, name: str) -> None:
    shapes = {"inputs": (2, 48, 48, 1), "outputs": (2, 15), "tolerance": ()}
    arrays = {one: np.zeros(shape, {"inputs": np.uint8, "outputs": np.int8}.get(one)) for one, shape in shapes.items()}
    arrays[name] = np.zeros(shapes[name], eval(kind) if kind.startswith("[") else kind)
    path = tmp_path / "odd.tflite"
    write_by_hand(path, members_of() | {"selftest.npz": npz(**arrays)})
    with pytest.raises(BundleError):
        TfliteClassifier(load_bundle(path))


@pytest.mark.parametrize(
    "facts",
    [
        {"public_test": 3},
        {"public_test": {"ferplus": 3}},
        {"public_test": {"ferplus": {}}},
        {"public_test": {"ferplus": {"n": "x", "accuracy": 1, "accuracy_float": 1, "macro_f1": 1, "recall": {}}}},
        {"public_test": {"ferplus": {"n": 1, "accuracy": None, "accuracy_float": 1, "macro_f1": 1, "recall": {}}}},
        {"public_test": {"ferplus": {"n": 1, "accuracy": 1, "accuracy_float": 1, "macro_f1": 1, "recall": []}}},
        {"public_test": {"ferplus": {"n": 1, "accuracy": 10**400, "macro_f1": 1, "recall": {}}}},
        {
            "public_test": {
                "ferplus": {"n": 1, "accuracy": 1, "accuracy_float": 1, "macro_f1": 1, "recall": {"\x1b[2J": 1}}
            }
        },
        {"\x1b[2J": "\x1b[2J", "training": 7, "parameters": "\ud800"},
    ],
)
def test_odd_facts_are_shown_harmlessly(
    bundle_with: Callable[..., Path], capsys: pytest.CaptureFixture[str], facts: Any
) -> None:
    path = bundle_with(metadata=change(facts=facts))
    for arguments in (["models", "show", str(path)], ["models", "show", str(path), "--json"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        out.encode()


@pytest.mark.parametrize("name", ["\x1b[2Jx", "a\nb", "\ud800", "", "x" * 101, "a\u202eb"])
def test_names_that_a_terminal_would_obey_are_refused(bundle_with: Callable[..., Path], name: str) -> None:
    def of_head(table: dict[str, Any]) -> None:
        table["heads"][0]["name"] = name

    for changed in (change(name=name), of_head):
        with pytest.raises(BundleError, match="names of model and heads"):
            load_bundle(bundle_with(metadata=changed))


@pytest.mark.parametrize(
    "metadata",
    [
        change(**{"\x1b[2J": 1}),
        change(**{"x" * 500_000: 1}),
        change(heads="y" * 500_000),
        change(heads=[{"name": "x", "labels": ["z" * 500_000], "temperature": 1}]),
        change(metadata_version="\x1b[2J"),
    ],
)
def test_messages_about_metadata_are_short_and_plain(bundle_with: Callable[..., Path], metadata: Any) -> None:
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle_with(metadata=metadata))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


def forged(model: bytes, chance: random.Random) -> bytes:
    """A graph with a few bytes of its tables changed: weights fill most of the file, but its tables are small."""
    changed = bytearray(model)
    for _ in range(chance.choice([1, 3, 10])):
        place = chance.choice([chance.randrange(2000), chance.randrange(len(model) - 12_000, len(model))])
        changed[place] = chance.choice([0, 255, 127, chance.randrange(256)])
    return bytes(changed)


def test_forged_graphs_with_right_hashes_are_refused_or_run(tmp_path: Path) -> None:
    """Some of these take the runtime with them: this process must outlive them all."""
    original, chance = load_bundle("nano"), random.Random(11)
    for number in range(12):
        model = forged(original.model, chance)
        path = tmp_path / f"{number}.tflite"
        Bundle.new(model, original.metadata, original.selftest).write(path)
        bundle = load_bundle(path)
        assert not bundle.is_packaged
        try:
            TfliteClassifier(bundle)
        except EdgeFerError as error:
            assert str(error).isprintable()


def packed(graph: Any) -> bytes:
    builder = pytest.importorskip("flatbuffers").Builder(1024)
    builder.Finish(graph.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def unpacked(model: bytes) -> Any:
    return pytest.importorskip("ai_edge_litert.schema_py_generated").ModelT.InitFromPackedBuf(model, 0)


def convolution(graph: Any) -> Any:
    """The first one, with inputs that can be changed."""
    conv = next(one for one in graph.subgraphs[0].operators if hasattr(one.builtinOptions, "strideW"))
    conv.inputs = conv.inputs.copy()
    return conv


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda conv: conv.inputs.__setitem__(1, -1), "a tensor of its CONV_2D is missing"),
        (lambda conv: setattr(conv.builtinOptions, "strideW", 0), "cannot load the model"),
        (lambda conv: conv.inputs.__setitem__(0, 9999), "cannot load the model"),
    ],
    ids=["no weights", "no stride", "no tensor"],
)
def test_a_graph_forged_to_kill_the_runtime(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Any], object], message: str
) -> None:
    original = load_bundle("nano")
    graph = unpacked(original.model)
    change(convolution(graph))
    path = tmp_path / "forged.tflite"
    Bundle.new(packed(graph), original.metadata, original.selftest).write(path)
    with pytest.raises(BundleError, match=message):
        TfliteClassifier(load_bundle(path))
    assert main(["run", "--camera", "demo", "--model", str(path)]) == 65
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_operators_without_a_tensor_that_they_need_are_refused_before_they_are_prepared(side: str) -> None:
    """The runtime does not look, and reads foreign memory: it may die, ask for all memory, or answer."""
    model = load_bundle("nano").model
    for number, operator in enumerate(unpacked(model).subgraphs[0].operators):
        for place in range(len(getattr(operator, side))):
            graph = unpacked(model)
            tensors = getattr(graph.subgraphs[0].operators[number], side).copy()
            tensors[place] = -1
            setattr(graph.subgraphs[0].operators[number], side, tensors)
            said = ""
            try:
                Network(packed(graph))
            except BundleError as error:
                said = str(error)
            is_bias = side == "inputs" and place == 2
            assert ("is missing" in said) is not is_bias, (number, place, said)


def test_a_trial_tells_what_a_script_does_to_its_process() -> None:
    assert why_it_dies("pass") is None
    assert why_it_dies("raise ValueError") is None  # who comes after meets it again
    assert why_it_dies("import os; os.abort()") == "crashes (SIGABRT)"
    assert why_it_dies("while True: pass", timeout_s=0.2) == "is not ready after 0.2 s"
    too_much = "from edge_fer.model.trial import limit_memory; limit_memory(); bytearray(3 << 30)"
    assert why_it_dies(too_much) == "wants too much memory"
    assert why_it_dies("import sys; assert sys.stdin.read() == 'x'; sys.exit(3)", b"x") == "wants too much memory"


def test_the_graphs_of_the_package_are_known_wherever_they_lie(tmp_path: Path) -> None:
    copy = load_bundle("nano").with_metadata(name="mine").write(tmp_path / "mine.tflite")
    assert copy.is_packaged
    assert load_bundle(tmp_path / "mine.tflite").is_packaged
    assert not load_bundle(written(tmp_path)).is_packaged


SCHEMA = json.loads((Path(edge_fer.__file__).parent / "model" / "metadata.schema.json").read_text(encoding="utf-8"))


def metadata_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        table: dict[str, Any] = json.loads(archive.read("metadata.json"))
        return table


def test_all_metadata_follows_the_schema(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for path in (*BUNDLES.glob("*.tflite"), written(tmp_path)):
        jsonschema.validate(metadata_of(path), SCHEMA)


@pytest.mark.parametrize(("name", "largest_bytes"), [("accurate", 500_000), ("nano", 120_000)])
def test_the_models_of_the_package_are_small_and_run(name: str, largest_bytes: int) -> None:
    bundle = load_bundle(Path(name))
    assert DEFAULT_MODEL.with_stem(name).stat().st_size <= largest_bytes
    assert [head.name for head in bundle.metadata.heads] == ["ferplus", "fer2013"]
    assert TfliteClassifier(bundle).size_hw == (48, 48)
    assert bundle.selftest.check_golden(bundle.model, name) == MOST_LSB


def test_the_schema_names_what_the_code_knows() -> None:
    properties = SCHEMA["properties"]
    labels = properties["heads"]["items"]["properties"]["labels"]["items"]["enum"]
    assert labels == list(Expression)
    assert properties["smoothing"]["properties"].keys() == vars(Smoothing()).keys()
    assert properties["metadata_version"]["const"] == METADATA_VERSION
    assert properties["preprocess"]["properties"]["version"]["const"] == PREPROCESS_VERSION
    light = properties["preprocess"]["properties"]["illumination"]
    assert light["items"]["enum"] == list(get_args(Illumination))
    assert light["maxItems"] == MOST_STEPS


@pytest.mark.parametrize(
    "wrong",
    [
        change(metadata_version=3),
        change(heads=[]),
        change(heads=[{"name": "x", "labels": ["joy"], "temperature": 1}]),
        change(heads=[{"name": "x", "labels": ["fear"], "temperature": 0}]),
        change(preprocess={"version": 1, "margin": -1}),
        change(preprocess={"version": 1, "margin": 0, "alignment": "nose"}),
        change(preprocess={"version": 1, "margin": 0, "alignment": "none", "illumination": ["candle"]}),
        change(preprocess={"version": 1, "margin": 0, "alignment": "none", "illumination": ["log"] * 4}),
        change(smoothing={"dwel_s": 1.0}),
        lambda table: table["doubt"].update(slope=51),
        lambda table: table["doubt"].update(offsets=[-51] * 7),
        lambda table: table["doubt"]["blur"].update(at=1e7),
        lambda table: table["doubt"]["eyes"].update(weight=51),
        lambda table: table.pop("name"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(bundle_with: Callable[..., Path], wrong: Any) -> None:
    path = bundle_with(metadata=wrong)
    with pytest.raises(BundleError):
        load_bundle(path)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(metadata_of(path), SCHEMA)


def test_a_bundle_is_taken_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "parts"
    assert main(["models", "extract", DEFAULT_MODEL.stem, "-o", str(folder)]) == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.tflite", "metadata.json", "selftest.npz", "labels.txt"}
    assert (folder / "model.tflite").read_bytes() == load_bundle(DEFAULT_MODEL).model
    assert json.loads((folder / "metadata.json").read_text())["name"] == "accurate"
    capsys.readouterr()
    assert main(["models", "extract", str(DEFAULT_MODEL), "-o", str(folder)]) == 73
    assert "choose another folder" in capsys.readouterr().err
    with pytest.raises(OutputError, match="Cannot write"):
        extract(load_bundle(), Path("/proc/none"))


def test_a_bundle_is_taken_apart_where_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    Path("locked").mkdir(0)
    for folder in ("locked", "locked/below"):
        with nobody(), pytest.raises(OutputError, match=f"^Cannot write {folder}.*: Permission denied"):
            extract(load_bundle(), Path(folder))


def test_the_golden_outputs_are_exact(bundle_with: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify"]) == 0
    assert f"golden vectors {f'within {MOST_LSB} LSB' if MOST_LSB else 'to the bit'}" in capsys.readouterr().out
    # One LSB too much in one output: within the tolerance of the self-test, but not exact.
    wrong = MOST_LSB + 1
    path = bundle_with(outputs=lambda outputs: outputs + wrong * (np.arange(outputs.size) == 7).reshape(outputs.shape))
    assert main(["models", "verify", str(path)]) == 65
    assert "1 of 60 golden outputs differ" in capsys.readouterr().err


@pytest.mark.parametrize("tolerance", [2.0, 9.0])
def test_the_tolerance_of_the_self_test_travels_with_it(tmp_path: Path, tolerance: float) -> None:
    model = load_bundle(DEFAULT_MODEL).model
    path = tmp_path / "deep.tflite"
    Bundle.new(model, METADATA, SelfTest(INPUTS, OUTPUTS, tolerance)).write(path)
    assert load_bundle(path).selftest.tolerance_lsb == tolerance


def test_a_tolerance_that_allows_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.tflite"
    Bundle.new(FLATBUFFER, METADATA, SelfTest(INPUTS, OUTPUTS, 300.0)).write(path)
    with pytest.raises(BundleError, match="no usable self-test"):
        load_bundle(path)


def test_the_tolerance_is_measured_and_never_below_the_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle()
    usual = SelfTest.measured(bundle.model, bundle.selftest.inputs)
    assert usual.tolerance_lsb == TOLERANCE_LSB
    assert np.array_equal(usual.outputs, bundle.selftest.outputs)
    # Golden outputs that lie 10 LSB beside those of this machine's optimized kernels ask for about 20.
    beside = usual.outputs.astype(np.int16) + 10
    monkeypatch.setattr("edge_fer.model.selftest.golden_outputs", lambda model, inputs: (beside, 0))
    assert SelfTest.measured(bundle.model, bundle.selftest.inputs).tolerance_lsb == pytest.approx(20, abs=2)


def test_a_bundle_with_other_metadata_is_the_same_model(tmp_path: Path) -> None:
    bundle = load_bundle("nano")
    hotter = bundle.with_metadata(name="hot").write(tmp_path / "hot.tflite")
    again = load_bundle(tmp_path / "hot.tflite")
    assert (again.metadata.name, again.model, again.metadata.heads) == ("hot", bundle.model, bundle.metadata.heads)
    assert (str(hotter), str(bundle.with_metadata(name="hot"))) == (str(tmp_path / "hot.tflite"), "hot")
