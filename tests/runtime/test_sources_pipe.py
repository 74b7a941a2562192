"""Video that another program writes: by standard input or a named pipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from source_parts import OLD_OPENCV, H, W, scene, source_of, write_video

from edge_fer.core import Image
from edge_fer.errors import DataError, InputMissingError, UsageError
from edge_fer.sources import pipe

READ = """
import sys
from edge_fer import open_source
from edge_fer.config import CameraSettings
from edge_fer.errors import EdgeFerError
try:
    source = open_source(CameraSettings(source=sys.argv[1], fps=10))
    for frame in source:
        print(frame.seq, round(frame.time_s, 3), round(frame.gray.mean(), 2), *frame.gray.shape)
    print("live" if source.live else "waits")
except EdgeFerError as error:
    print(error.exit_code, error)
"""


def piped(data: bytes, name: str = "-") -> list[list[str]]:
    """What is read from a pipe with such data."""
    done = subprocess.run([sys.executable, "-c", READ, name], input=data, capture_output=True, check=True)
    assert not done.stderr
    return [line.split() for line in done.stdout.decode().splitlines()]


def planes(bgr: Image) -> bytes:
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420).tobytes()


@pytest.mark.parametrize(
    ("name", "fourcc"), [("a.avi", "MJPG"), ("a.mkv", "mp4v"), ("a.mp4", "mp4v"), ("a.ts", "mp4v")]
)
def test_a_video_from_standard_input(tmp_path: Path, name: str, fourcc: str) -> None:
    *rows, last = piped(write_video(tmp_path / name, fourcc, 12).read_bytes())
    assert last == ["waits"]  # and loses none
    assert [row[0] for row in rows] == [str(n) for n in range(12)]
    assert [float(row[1]) for row in rows] == pytest.approx([n / 20 for n in range(12)], abs=2e-3)
    means = [float(row[2]) for row in rows]
    assert all(later > earlier for earlier, later in pairwise(means))


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_jpegs_from_standard_input_have_the_asked_rate(name: str) -> None:
    *rows, _ = piped(b"".join(cv2.imencode(".jpg", scene(n))[1].tobytes() for n in range(12)), name)
    fps = 25 if OLD_OPENCV else 10  # which FFmpeg takes where it is not told
    assert [float(row[1]) for row in rows] == pytest.approx([n / fps for n in range(12)], abs=2e-3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_one_image_from_standard_input(suffix: str) -> None:
    rows = piped(cv2.imencode(suffix, scene(3))[1].tobytes())
    assert rows[0][:2] == ["0", "0.0"]
    assert rows[0][3:] == [str(H), str(W)]


def test_a_file_as_standard_input_is_read_as_a_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "mp4v", 5)
    with path.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", READ, "-"], stdin=file, capture_output=True, check=True)
    assert len(done.stdout.splitlines()) == 6


@pytest.mark.parametrize("data", [b"", b"just text\n" * 50, bytes(range(256)) * 99], ids=["nothing", "text", "bytes"])
def test_neither_picture_nor_video_from_standard_input(data: bytes) -> None:
    ((code, *words),) = piped(data)
    assert code == "65"
    assert " ".join(words).startswith("What comes from standard input is neither a picture nor a video.")


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (
            "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))",
            r"73 Cannot write to (/\S+), the folder for temporary files \(TMPDIR\): File too large\. Choose a place",
        ),
        (
            "import tempfile; tempfile._candidate_tempdir_list = list",
            "73 Cannot write a temporary file: No usable temp",
        ),
    ],
    ids=["full", "none"],
)
def test_a_video_that_cannot_be_copied_names_the_folder(tmp_path: Path, before: str, said: str) -> None:
    data = write_video(tmp_path / "a.mp4", "mp4v", 12).read_bytes()
    assert data.find(b"mdat") < data.find(b"moov")
    code = f"{before}\n{READ}"
    done = subprocess.run([sys.executable, "-c", code, "-"], input=data, capture_output=True, check=True)
    assert re.match(said, done.stdout.decode())


def test_standard_input_that_is_closed() -> None:
    code = "import os; os.close(0)\n" + READ
    done = subprocess.run([sys.executable, "-c", code, "-"], capture_output=True, check=True, text=True)
    assert done.stdout == "66 Standard input is closed: there is nothing to read.\n"


def test_planes_of_pixels() -> None:
    *rows, last = piped(b"".join(planes(scene(n)) for n in range(7)), f"pipe:{W}x{H}@12.5")
    assert last == ["waits"]
    assert [float(row[1]) for row in rows] == pytest.approx([n / 12.5 for n in range(7)], abs=1e-3)
    for n, row in enumerate(rows):
        assert float(row[2]) == pytest.approx(cv2.cvtColor(scene(n), cv2.COLOR_BGR2GRAY).mean(), abs=1)


def test_planes_by_a_named_pipe_and_their_color(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "camera:1")
    with closing(source_of(f"pipe:{W}x{H}@30:{tmp_path / 'camera:1'}")) as source:  # opened before its writer
        assert (source.fps, source.live) == (30, False)
        writer = os.open(tmp_path / "camera:1", os.O_WRONLY)
        data = planes(scene(2)) + planes(scene(3))
        os.write(writer, data[:1000])
        os.write(writer, data[1000:])
        first, second = islice(source, 2)
        os.close(writer)
    assert first.stream == str(tmp_path / "camera:1")
    assert np.abs(first.picture().astype(int) - scene(2)).mean() < 4
    assert second.gray.mean() > first.gray.mean()


def test_planes_of_another_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "raw").write_bytes(planes(scene(0)) + b"some")
    assert len(list(source_of(f"pipe:{W}x{H}@30:{tmp_path / 'raw'}"))) == 1
    assert caplog.messages == [f"{tmp_path / 'raw'} ended in the middle of a frame. Is {W} x {H} its size?"]
    (tmp_path / "raw").write_bytes(b"some")
    with pytest.raises(DataError, match=rf"ended after 4 bytes; a frame of {W} x {H} pixels has {W * H * 3 // 2}"):
        list(source_of(f"pipe:{W}x{H}@30:{tmp_path / 'raw'}"))


@pytest.mark.parametrize(
    "name",
    ["pipe:", "pipe:640x480", "pipe:640x480@", "pipe:640x480@0", "pipe:0x480@30", "pipe:641x480@30", "pipe:640@30",
     "pipe:99999x480@30", "pipe:640x480@30000", "pipe:-640x480@30", "pipe:640x480@30:"],
)  # fmt: skip
def test_a_pipe_written_wrongly(name: str) -> None:
    with pytest.raises(UsageError, match="write pipe:640x480@30"):
        source_of(name)


def test_a_pipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="cannot be read: No such file"):
        source_of(f"pipe:640x480@30:{tmp_path / 'nothing'}")
    with pytest.raises(InputMissingError, match="is a folder"):
        source_of(f"pipe:640x480@30:{tmp_path}")


def test_a_signal_that_closes_it_while_it_waits_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    source = source_of(f"pipe:{W}x{H}@30:{tmp_path / 'pipe'}")
    writer = os.open(tmp_path / "pipe", os.O_WRONLY)
    select = pipe.select.select

    def interrupted(*arguments: Any) -> Any:
        source.close()  # as the handler does, before the system call is tried again
        return select(*arguments)

    monkeypatch.setattr(pipe.select, "select", interrupted)
    assert list(source) == []
    os.close(writer)
