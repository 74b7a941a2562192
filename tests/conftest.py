"""What several tests need: pictures with faces that nobody has, and models that are wrong in one way."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from faces_csv import write_csvs

from edge_fer.core import Frame, Image
from edge_fer.model.bundle import DEFAULT_MODEL, Bundle, sealed
from edge_fer.sources.demo import DemoSource

# oneDNN in TensorFlow 2.21 corrupts the heap where networks with branches or separable convolutions are trained on
# processors with AVX-512; the kernels that Eigen has do not. Tests train such networks in a `child`, in case it is on.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# One number moves all that chance decides in tests of training and export; tests/matrix.py tries ten.
SEED = int(os.environ.get("TEST_SEED", "1"))

# .ci/run sets this: it has all the real parts that tests want (CONTRIBUTING.md), and a test that is skipped has failed.
# The name does not begin as those of settings do: edge-fer would take it for one.
if os.environ.get("REQUIRE_REAL_PARTS"):
    Reports = Generator[None, Any, Any]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport() -> Reports:
        return failed_if_skipped((yield))

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report() -> Reports:
        return failed_if_skipped((yield))


def failed_if_skipped(report: Any) -> Any:
    """The report of a test, or of a file, which must not be skipped."""
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{report.longrepr[2]}, and REQUIRE_REAL_PARTS is set"
    return report


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Data sets that were parsed are kept for this session alone, and nobody's cache is read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def demo_frames() -> list[Frame]:
    """All frames of the demo."""
    return list(DemoSource())


@pytest.fixture(scope="session")
def scene(demo_frames: list[Frame]) -> Image:
    """A gray 640x480 picture with two faces."""
    return demo_frames[0].gray


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fer2013.csv and fer2013new.csv: 140 Training and 42 PublicTest rows. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("data")
    write_csvs(folder)
    return folder


class Called(NamedTuple):
    """What a command did: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def call() -> Callable[..., Called]:
    """Runs a command in this process: ``call(main, "train", "--run", folder)``. Arguments become text."""

    def act(main: Callable[[list[str]], int], *arguments: object) -> Called:
        # As the real streams: bytes below, for what writes past the text layer.
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
        return Called(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]

    return act


@pytest.fixture(scope="session")
def child() -> Callable[..., Called]:
    """Runs a command in its own process, so that its death is one failed test: ``child("training", "train")``.

    With oneDNN off, whatever the rest is run with: TensorFlow 2.21 dies with it in some of the networks that are
    trained here, and has no bfloat16 in it for older processors. That is not ours to test.
    """

    def act(module: str, *arguments: object) -> Called:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, env=environment)
        if done.returncode < 0:
            died = signal.Signals(-done.returncode).name
            pytest.fail(f"{' '.join(command)} died of {died}:\n{done.stderr}", pytrace=False)
        return Called(done.returncode, done.stdout, done.stderr)

    return act


@pytest.fixture(scope="session")
def seed() -> int:
    """For what draws by itself: a recipe, ``keras.utils.set_random_seed``."""
    return SEED


@pytest.fixture
def chance() -> np.random.Generator:
    """Random numbers of the test's own, the same whatever ran before."""
    return np.random.default_rng(SEED)


@pytest.fixture(autouse=True)
def keras_draws_alike() -> None:
    """Networks of a test begin with the same weights whatever ran before."""
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(SEED)


@pytest.fixture
def nobody() -> Callable[[], AbstractContextManager[None]]:
    """Makes a context in which the test is not root, who may read and write everything."""

    @contextmanager
    def act() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.setresuid(65534, 65534, 0)
        try:
            yield
        finally:
            os.setresuid(0, 0, 0)

    return act


@pytest.fixture
def bundle_with(tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the shipped bundle with changed metadata, self-test or model, and its hashes made right again."""

    def make(
        metadata: Callable[[dict[str, Any]], object] | None = None,
        inputs: Callable[[np.ndarray], np.ndarray] | None = None,
        outputs: Callable[[np.ndarray], np.ndarray] | None = None,
        model: Callable[[bytes], bytes] | None = None,
        leave_out: str = "",
    ) -> Path:
        original = Bundle.load()
        with zipfile.ZipFile(DEFAULT_MODEL) as archive:
            table = json.loads(archive.read("metadata.json"))
        if metadata:
            metadata(table)
        arrays = io.BytesIO()
        np.savez(
            arrays,
            inputs=inputs(original.selftest.inputs) if inputs else original.selftest.inputs,
            outputs=outputs(original.selftest.outputs) if outputs else original.selftest.outputs,
        )
        path = tmp_path / "changed.tflite"
        path.write_bytes(model(original.model) if model else original.model)
        with zipfile.ZipFile(path, "a") as archive:
            for name, content in (("metadata.json", json.dumps(table)), ("selftest.npz", arrays.getvalue())):
                if name != leave_out:
                    archive.writestr(name, content)
        path.write_bytes(sealed(path.read_bytes(), len(model(original.model) if model else original.model)))
        return path

    return make
