"""RpicamSource with a program that behaves as rpicam-vid does."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_fer.config import CameraSettings
from edge_fer.errors import UnavailableError, UsageError
from edge_fer.sources import open_source
from edge_fer.sources.rpicam import RpicamSource

SETTINGS = CameraSettings("rpicam:0", width=100, height=49, fps=25)
SIZE = 64 * 48 * 3 // 2
"""Bytes of a frame, with the size that is asked for made to fit."""


@pytest.fixture
def rpicam_vid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Installs a shell script as rpicam-vid, and says where it writes its arguments."""

    def act(script: str) -> Path:
        program = tmp_path / "rpicam-vid"
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n{script}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return tmp_path / "arguments"

    return act


def test_frames_come_in_the_size_that_needs_no_padding(rpicam_vid: Callable[[str], Path]) -> None:
    arguments = rpicam_vid("head -c 1000000 /dev/zero | tr '\\0' '\\200'; exec sleep 1000")
    source = RpicamSource(1, SETTINGS)
    frames = list(islice(source, 2))
    source.close()
    assert [frame.seq for frame in frames] == [0, 1]
    assert frames[0].gray.shape == (48, 64) and frames[0].gray.dtype == np.uint8
    assert frames[0].stream == "rpicam:1"
    # Video's 16-235 becomes 0-255.
    assert np.all(frames[0].gray == round((128 - 16) * 255 / 219))
    assert " ".join(arguments.read_text().split()) == (
        "--camera 1 --width 64 --height 48 --framerate 25 --codec yuv420 --timeout 0 --nopreview --verbose 0 --output -"
    )
    source.close()


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, ""),
        ({"autofocus": False}, " --autofocus-mode manual"),
        ({"exposure_ms": 12.5}, " --shutter 12500"),
        ({"autofocus": False, "exposure_ms": 0.5}, " --autofocus-mode manual --shutter 500"),
    ],
)
def test_asks_for_focus_and_exposure(rpicam_vid: Callable[[str], Path], settings: dict[str, Any], asked: str) -> None:
    arguments = rpicam_vid("exec cat /dev/zero")
    RpicamSource(0, dataclasses.replace(SETTINGS, **settings)).close()
    assert f"--timeout 0 --nopreview{asked} --verbose 0" in arguments.read_text()


@pytest.mark.parametrize(("width", "said"), [(64, []), (100, ["gives 64 x 48 pixels; asked for were 100 x 48."])])
def test_another_size_than_asked_for_is_said(
    rpicam_vid: Callable[[str], Path], caplog: pytest.LogCaptureFixture, width: int, said: list[str]
) -> None:
    rpicam_vid("exec cat /dev/zero")
    RpicamSource(0, dataclasses.replace(SETTINGS, width=width, height=48)).close()
    assert caplog.messages == [f"rpicam:0 {one}" for one in said]


def test_no_camera_is_said_in_the_words_of_rpicam_vid(rpicam_vid: Callable[[str], Path]) -> None:
    rpicam_vid("echo 'ERROR: *** no cameras available ***' >&2; exit 255")
    with pytest.raises(
        UnavailableError, match=r"no frames of rpicam:0 \(ERROR: \*\*\* no cameras available\)\. `rpicam-h"
    ):
        open_source(SETTINGS)


@pytest.mark.parametrize("left", [0, 100])
def test_a_camera_that_goes_is_lost(rpicam_vid: Callable[[str], Path], left: int) -> None:
    """Where frames end, in the middle of one too."""
    rpicam_vid(f"head -c {SIZE + left} /dev/zero; echo 'ERROR: Device timeout detected' >&2")
    source = RpicamSource(0, SETTINGS)
    try:
        frames = iter(source)
        next(frames)
        with pytest.raises(UnavailableError, match="Device timeout detected"):
            next(frames)
    finally:
        source.close()


def test_less_than_a_frame_is_a_camera_that_is_lost(rpicam_vid: Callable[[str], Path]) -> None:
    rpicam_vid("head -c 100 /dev/zero")
    source = RpicamSource(0, SETTINGS)
    with pytest.raises(UnavailableError, match="it said nothing"):
        next(iter(source))
    source.close()


def test_nothing_at_all_is_not_waited_for_for_ever(rpicam_vid: Callable[[str], Path]) -> None:
    rpicam_vid("exec sleep 1000")
    with pytest.raises(UnavailableError, match=r"rpicam:0 has sent nothing for 0\.01 seconds"):
        RpicamSource(0, SETTINGS, first_s=0.01)


def test_without_rpicam_vid_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"No such file.*apt install rpicam-apps-lite"):
        RpicamSource(0, SETTINGS)


def test_a_camera_has_a_number() -> None:
    with pytest.raises(UsageError, match="Write rpicam:0"):
        open_source(CameraSettings("rpicam:front"))
