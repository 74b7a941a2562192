"""Video from the network: streams, files that end, single images, and addresses that are wrong."""

from __future__ import annotations

import http.server
import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import pytest
from source_parts import EndlessCapture, FakeCapture, scene, source_of, write_video

from edge_fer.config import CameraSettings
from edge_fer.core import Image
from edge_fer.errors import InputMissingError, UnavailableError, UsageError
from edge_fer.sources.network import ALIKE, network_source
from edge_fer.threads import LatestFrame

URL = "rtsp://me:secret@10.0.0.7:554/live?token=secret#secret"


def refuse(*args: Any) -> FakeCapture:
    capture = FakeCapture()
    capture.release()
    return capture


def test_secrets_of_a_network_camera_stay_out_of_frames_and_messages() -> None:
    calls: list[tuple[Any, ...]] = []

    def video_capture(*args: Any) -> FakeCapture:
        calls.append(args)
        return EndlessCapture(lambda bgr: bgr)

    with closing(network_source(CameraSettings(source=URL), video_capture)) as source:
        assert calls[0][:2] == (URL, cv2.CAP_FFMPEG)
        assert next(iter(source)).stream == "rtsp://10.0.0.7:554/..."
    with pytest.raises(UnavailableError) as caught:
        network_source(CameraSettings(source=URL), refuse)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "opened"),
    [
        ("RTSP://10.0.0.7/Live", "rtsp://10.0.0.7/Live"),
        ("  rtsp://10.0.0.7/live\n", "rtsp://10.0.0.7/live"),
        ("rtsp://u:a/b?c#d@e@10.0.0.7/x", "rtsp://u:a%2Fb%3Fc%23d%40e@10.0.0.7/x"),
        ("rtsp://u:p%40q@10.0.0.7/x", "rtsp://u:p%40q@10.0.0.7/x"),
        ("rtmps://10.0.0.7/@room", "rtmps://10.0.0.7/@room"),
        ("udp://0.0.0.0:5000", "udp://0.0.0.0:5000"),
        ("srt://10.0.0.7:9", "srt://10.0.0.7:9"),
        ("tcp://[fe80::1]:9", "tcp://[fe80::1]:9"),
    ],
)
def test_addresses_as_people_write_them(written: str, opened: str) -> None:
    calls: list[str] = []

    def video_capture(address: str, *args: Any) -> FakeCapture:
        calls.append(address)
        return FakeCapture(scene(0))

    network_source(CameraSettings(source=written), video_capture).close()
    assert calls == [opened]


@pytest.mark.parametrize("name", ["gopher://me:secret@10.0.0.7/x", "s3://secret", "rtsp://", "http:///"])
def test_addresses_that_nobody_reads(name: str) -> None:
    with pytest.raises(UsageError, match=r"is not read|lacks the name of a host") as caught:
        source_of(name)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("form", ["file://{}", "file://localhost{}", "file:{}", "FILE://{}", " file://{}"])
def test_the_address_of_a_file_is_its_path(tmp_path: Path, form: str) -> None:
    cv2.imwrite(str(tmp_path / "a b.png"), scene(0))
    (frame,) = source_of(form.format(str(tmp_path / "a b.png").replace(" ", "%20")))
    assert frame.stream == str(tmp_path / "a b.png")


@pytest.mark.parametrize("name", ["me:secret@10.0.0.7/live", "rtsp:/me:secret@10.0.0.7/x", "10.0.0.7/shot?pwd=secret"])
def test_an_address_that_lacks_its_beginning_is_not_shown(name: str) -> None:
    with pytest.raises(InputMissingError) as caught:
        source_of(name)
    assert "secret" not in str(caught.value)


class Served(http.server.SimpleHTTPRequestHandler):
    """Files of a folder."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    def serve(*args: Any) -> Served:
        return Served(*args, directory=str(tmp_path))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:secret@127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("name", "fourcc"), [("a.mkv", "mp4v"), ("a.avi", "MJPG"), ("a.mp4", "mp4v")])
def test_a_video_file_by_http_is_read_once_and_whole(tmp_path: Path, address: str, name: str, fourcc: str) -> None:
    write_video(tmp_path / name, fourcc, 12)
    with closing(source_of(f"{address}/{name}?token=secret")) as source:
        assert not source.live
        frames = list(source)
    assert [frame.seq for frame in frames] == list(range(12))
    assert "secret" not in frames[0].stream


def test_an_image_by_http_is_asked_for_again_and_again(tmp_path: Path, address: str) -> None:
    cv2.imwrite(str(tmp_path / "shot.jpg"), scene(0))
    pauses: list[float] = []
    settings = CameraSettings(source=f"{address}/shot.jpg", fps=4)
    with closing(network_source(settings, sleep=pauses.append)) as source:
        assert source.live
        assert source.fps == 4
        assert len(list(islice(source, 3))) == 3
    assert max(pauses) <= 3  # the sleep is a fake, so all that is due adds up
    assert len([pause for pause in pauses if pause > 0]) >= 2


def test_an_image_that_is_away_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[FakeCapture] = [FakeCapture(scene(n), None) for n in range(3)] + [refuse()] * 2
    answers += [FakeCapture(scene(n), None) for n in range(3, 9)]

    def video_capture(*args: Any) -> FakeCapture:
        return answers.pop(0) if len(answers) > 1 else FakeCapture(scene(9), None)

    with caplog.at_level(logging.WARNING, "edge_fer"):
        settings = CameraSettings(source="http://10.0.0.7/shot.jpg")
        with closing(network_source(settings, video_capture, sleep=lambda seconds: None)) as source:
            frames = iter(source)
            while answers[1:]:
                next(frames)
    assert [record.getMessage() for record in caplog.records] == [
        "http://10.0.0.7/... is lost. It is tried again until it is back.",
        "http://10.0.0.7/... is back.",
    ]


class Frozen(EndlessCapture):
    """Says that it has read, and gives the picture before."""

    def read(self) -> tuple[bool, Image | None]:
        super().read()
        return self.opened, scene(0)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_stream_that_cannot_be_converted_is_noticed(caplog: pytest.LogCaptureFixture, frozen: bool) -> None:
    def video_capture(*args: Any) -> FakeCapture:
        return Frozen(lambda bgr: bgr) if frozen else EndlessCapture(lambda bgr: bgr)

    latest = network_source(CameraSettings(source="rtsp://10.0.0.7/live"), video_capture)
    assert isinstance(latest, LatestFrame)
    with caplog.at_level(logging.WARNING, "edge_fer"), closing(latest):
        for _ in islice(latest._source, ALIKE * 2):  # in this thread, so that none is dropped
            pass
    assert [record.getMessage()[:60] for record in caplog.records] == (
        ["rtsp://10.0.0.7/... sends the same picture again and again. "] if frozen else []
    )
