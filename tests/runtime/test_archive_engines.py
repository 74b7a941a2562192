"""A local cluster of each engine writes the same archive. ``make test-engines`` installs them and runs this alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from edge_fer.core import Frame

pytestmark = pytest.mark.engines
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, demo_frames: list[Frame]) -> Path:
    """Five short clips, and a file that is none."""
    home = tmp_path_factory.mktemp("videos")
    for number in range(5):
        writer = cv2.VideoWriter(str(home / f"{number}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 15, (640, 480))
        for frame in demo_frames[number * 5 : number * 9 + 4]:
            writer.write(frame.picture())
        writer.release()
    (home / "text.mp4").write_text("no video")
    return home


def archive(videos: Path, output: Path, *options: str) -> str:
    """Run it; returns what it says on stdout."""
    command = [sys.executable, "-m", "edge_fer", "archive", str(videos), "-o", str(output), "-j", "2", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=output.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def by_loky(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    output = tmp_path_factory.mktemp("archives") / "loky"
    archive(videos, output)
    return output


def content(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.glob("*/*.parquet")}


@pytest.mark.parametrize("engine", ["dask", "ray", "spark"])
def test_a_local_cluster_writes_the_same_archive(engine: str, videos: Path, by_loky: Path, tmp_path: Path) -> None:
    output = tmp_path / engine
    assert "6 videos: 5 done, 1 bad." in archive(videos, output, "--backend", engine)
    assert content(output) == content(by_loky)
    next(output.glob("videos/*.parquet")).unlink()
    assert "5 done before" in archive(videos, output, "--backend", engine)
    assert content(output) == content(by_loky)


def test_a_cluster_that_runs_already_is_joined(videos: Path, by_loky: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster:
        archive(videos, tmp_path / "a", "--backend", f"dask:{cluster.scheduler_address}")
    assert content(tmp_path / "a") == content(by_loky)  # two threads of a process have a model each
