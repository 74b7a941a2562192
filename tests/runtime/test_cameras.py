"""Names of cameras, in whatever bytes they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_fer.sources.v4l2 import list_cameras

NAMES = [
    (b"HD Webcam\n", "HD Webcam"),
    ("Caméra intégrée".encode()[:12] + b"\n", "Caméra int\ufffd"),
    (b"Cam\xe9ra\n", "Cam\ufffdra"),
    ("表情".encode()[:5], "表\ufffd"),
    (b"\x1b[31mred\n", "\ufffd[31mred"),
    (b"two\nlines\n", "two\ufffdlines"),
    (b"", ""),
    (b"end\0\0\0", "end"),
]


@pytest.mark.parametrize(("raw", "shown"), NAMES)
def test_names_are_shown(raw: bytes, shown: str, tmp_path: Path) -> None:
    (tmp_path / "video7").mkdir()
    (tmp_path / "video7" / "name").write_bytes(raw)
    assert list_cameras(tmp_path) == [("/dev/video7", shown)]


def test_a_camera_that_is_unplugged_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "video7").mkdir()
    assert list_cameras(tmp_path) == [("/dev/video7", "?")]
