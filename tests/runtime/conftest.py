"""What tests of the runtime need: networks of others, as they are; an image file."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
import real_models

from edge_fer.core import Image


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """Gives the path of a model by its name; the test is skipped where nobody fetched it."""

    def act(name: str) -> Path:
        path = real_models.FOLDER / name
        if not path.is_file():
            pytest.skip(f"{name} is not here: run `make real-models`")
        assert real_models.intact(name), f"{path} is damaged: run `make real-models`"
        return path

    return act


@pytest.fixture
def photo(tmp_path: Path, scene: Image) -> Path:
    """A file with an image of two faces."""
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), scene)
    return path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not here")
    (folder / "both.pem").write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return folder / "both.pem"


@pytest.fixture(autouse=True)
def _hangup() -> Iterator[None]:
    """SIGHUP ends a process, where the tests run under nohup too: children inherit that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
