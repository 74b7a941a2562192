"""What flash.py takes for a board, edge-fer takes on the board: held against the board's own reading of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cards import KEY
from hypothesis import given
from hypothesis import strategies as st

from card.board import Board, make_board
from card.errors import FlashError
from edge_fer.config import CameraSettings, MqttSettings, WebSettings
from edge_fer.service.access import read_token
from edge_fer.sinks import check_spec
from edge_fer.sinks.broker import Broker, filled, read_password
from edge_fer.sources import open_source

TOKEN = "0123456789abcdef"


def made(**values: str) -> Board:
    return make_board({"hostname": "kitchen", "user": "pi", "key": KEY, **values}, "test")


def refused(**values: str) -> str:
    with pytest.raises(FlashError) as caught:
        made(**values)
    return str(caught.value)


def publishes_to(board: Board) -> str:
    """The topic, as the board makes it of the address; raises what keeps it from publishing."""
    kind, address = check_spec(board.mqtt)
    broker = Broker.parse(f"{kind}:{address}", "edge-fer/{device}")
    assert broker.user or not board.mqtt_password
    broker.host.encode("idna")
    return filled(broker.topic, board.hostname)


GOOD = {
    "mqtt://broker": "edge-fer/kitchen",
    "mqtts://fer@broker.local:8883/": "edge-fer/kitchen",
    "mqtt://fer@192.168.1.5/home/{device}/faces": "home/kitchen/faces",
    "mqtt://a%40b@[fd00::5]:1884/home/k%C3%BCche": "home/küche",
}


@pytest.mark.parametrize("address", GOOD)
def test_a_broker_that_the_board_takes_is_taken(address: str) -> None:
    assert publishes_to(made(mqtt=address)) == GOOD[address]


@pytest.mark.parametrize(
    "address",
    [
        *("MQTT://host", "mqtt:host", "mqtt://", "mqtt:///topic", "mqtt://fer@", "mqtt://a b", "mqtt://host:0"),
        *("mqtt://host:65536", "mqtt://host:", "mqtt://[fd00::5", "mqtt://fd00::5", "mqtt://[broker]", "mqtt://a..b"),
        *("mqtt://host?x=1", "mqtt://a?@host", "mqtt://%00@host", "mqtt://host/a#", "mqtt://host/+/a", "mqtt://host/a?b"),
        *("mqtt://host/a@b", "mqtt://host/{name}", "mqtt://host/a}", "mqtt://host/a//b", "mqtt://host//", "mqtt://host/a/"),
        *("mqtt://host/$SYS/a", "mqtt://host/%23", "mqtt://host/a%2B", "mqtt://host/%24a", "mqtt://host/a%2F"),
        *("mqtt://host/a%00", "mqtt://host/%7Bname%7D", "mqtt://host/" + "a" * 1025),
    ],
)  # fmt: skip
def test_a_broker_that_no_board_gets_to_is_refused(address: str) -> None:
    assert "mqtt" in refused(mqtt=address)


@pytest.mark.parametrize("address", ["mqtt://broker.local", "mqtts://@broker.local/a"])
def test_a_password_wants_a_user(address: str) -> None:
    assert "no user" in refused(mqtt=address, mqtt_password="x")


PIECES = st.sampled_from(
    [*"/@:?#+${}%[]. aé-_1\u00a0", "{device}", "%2F", "%23", "%40", "%24", "%7B", "broker", "fer", "1883", "fd00::5"]
)  # fmt: skip


@given(
    scheme=st.sampled_from(["mqtt", "mqtts", "MQTT", "mqtt+x"]),
    user=st.lists(PIECES, max_size=3),
    host=st.sampled_from(["broker", "broker.local", "10.0.0.5", "[fd00::5]", "ü", ".", "-", "a" * 64]) | PIECES,
    rest=st.lists(PIECES, max_size=6),
    password=st.sampled_from(["", "S3cret", " a\u00a0"]),
)
def test_no_broker_is_taken_that_the_board_refuses(
    scheme: str, user: list[str], host: str, rest: list[str], password: str
) -> None:
    address = f"{scheme}://{''.join(user)}{'@' if user else ''}{host}{''.join(rest)}"
    try:
        board = made(mqtt=address, mqtt_password=password)
    except FlashError:
        return
    publishes_to(board)


CAMERAS = ["0", "12", "/dev/video0", "/dev/v4l/by-id/usb-a-video-index0", "picamera:0", "rpicam:1", "demo"]
CAMERAS += ["rtsp://admin:S3cret@10.0.0.7/live", "rtsps://cam", "http://cam/?a=b", "https://[fd00::7]/live"]


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_that_is_taken_the_board_takes(camera: str) -> None:
    open_source(CameraSettings(source=made(camera=camera).camera), later=True)


@given(
    scheme=st.sampled_from(["rtsp", "rtsps", "http", "https", "HTTP", "ftp", "rtmp"]), rest=st.lists(PIECES, max_size=4)
)
def test_no_camera_of_the_network_is_taken_that_the_board_refuses(scheme: str, rest: list[str]) -> None:
    try:
        camera = made(camera=f"{scheme}://{''.join(rest)}").camera
    except FlashError:
        return
    open_source(CameraSettings(source=camera), later=True)


@pytest.mark.parametrize(
    "camera",
    ["٣", "picamera:٣", "picamera:", "/dev/stdin", "rtsp://", "rtsp:///", "http:////live", "RTSP://cam", "demo "],
)
def test_a_camera_that_no_board_opens_is_refused(camera: str) -> None:
    assert "is none of picamera:0" in refused(camera=camera)


@pytest.mark.parametrize("token", ["", TOKEN, "~!" * 8, "x" * 1000])
def test_a_token_that_is_taken_guards_the_page(token: str, tmp_path: Path) -> None:
    """As cloud-init writes it into the file that the service is given."""
    (tmp_path / "web-token").write_text(made(token=token).token)
    read = read_token(WebSettings(token_file=str(tmp_path / "web-token")))
    assert len(read) >= 16
    assert read == token or not token


@pytest.mark.parametrize("token", ["t0ken", TOKEN[1:], f"{TOKEN}é", f" {TOKEN}", "x" * 1001])
def test_a_token_that_guards_nothing_is_refused_and_not_told(token: str) -> None:
    said = refused(token=token)
    assert "16 to 1000" in said
    assert token not in said


@given(password=st.text(min_size=1, max_size=20))
def test_a_password_of_the_broker_is_one_line(password: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        board = made(mqtt="mqtt://fer@broker", mqtt_password=password)
    except FlashError:
        return
    file = tmp_path_factory.mktemp("password") / "mqtt-password"
    file.write_text(board.mqtt_password, encoding="utf-8")
    assert read_password(MqttSettings(password_file=str(file))) == password
