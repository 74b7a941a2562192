"""``edge-fer cameras``: what is there, under which name, who holds it, and what one sees."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from v4l2_fake import CAPTURE, CAPTURE_MPLANE, META, FakeCamera, FakeMachine

from edge_fer import cameras, snapshot
from edge_fer.cameras import Camera, Format, Holder, PiCamera, Size, list_cameras, list_pi_cameras
from edge_fer.cli import main
from edge_fer.config import CameraSettings, ModelSettings, Settings
from edge_fer.core import Frame, Image
from edge_fer.libraries import Child
from edge_fer.recognizer import Recognizer

Call = Callable[..., Any]

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


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_fer.config.default_files", list)
    for name in [name for name in os.environ if name.startswith("EDGE_FER_")]:
        monkeypatch.delenv(name)


# What is there


@pytest.mark.parametrize(("raw", "shown"), NAMES)
def test_names_are_shown(raw: bytes, shown: str, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {7: FakeCamera()})
    (tmp_path / "sys/class/video4linux/video7/name").write_bytes(raw)
    (camera,) = list_cameras(tmp_path, machine.ioctl)
    assert (camera.device, camera.name) == ("/dev/video7", shown)


def test_a_camera_that_is_unplugged_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "sys/class/video4linux/video7").mkdir(parents=True)
    (camera,) = list_cameras(tmp_path)
    assert (camera.device, camera.name, camera.refused) == ("/dev/video7", "?", "No such file or directory")
    machine = FakeMachine(tmp_path / "other", {0: FakeCamera(fails=errno.ENODEV)})
    (camera,) = list_cameras(tmp_path / "other", machine.ioctl)
    assert (camera.formats, camera.refused) == ((), "No such device")


def test_second_nodes_that_cannot_be_asked_are_left_out(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {0: FakeCamera(fails=errno.EACCES), 1: FakeCamera(fails=errno.EACCES)})
    for number in (0, 1):
        (tmp_path / f"sys/class/video4linux/video{number}/index").write_text(f"{number}\n")
    assert [one.device for one in list_cameras(tmp_path, machine.ioctl)] == ["/dev/video0"]


def test_a_machine_without_video(tmp_path: Path) -> None:
    assert list_cameras(tmp_path) == []
    assert not cameras.has_pi_pipeline(tmp_path)


def test_the_pis_pipeline_and_metadata_nodes_are_left_out(tmp_path: Path) -> None:
    there = {
        10: FakeCamera("bcm2835-isp"),
        2: FakeCamera("Old: Webcam"),
        3: FakeCamera("Old: Webcam", META),
        11: FakeCamera("HD Webcam"),
        1: FakeCamera("unicam-image"),
    }
    machine = FakeMachine(tmp_path, there)
    (tmp_path / "sys/class/video4linux/v4l-subdev0").mkdir()
    assert [one.device for one in list_cameras(tmp_path, machine.ioctl)] == ["/dev/video2", "/dev/video11"]
    assert cameras.has_pi_pipeline(tmp_path)


@pytest.mark.parametrize("capabilities", [CAPTURE, CAPTURE_MPLANE])
def test_formats_sizes_and_rates(tmp_path: Path, capabilities: int) -> None:
    formats = {
        b"MJPG": [(1920, 1080, [30]), (640, 480, [15, 60, 30])],
        b"YUYV": [(640, 480, [30]), (640, 480, [30])],
        b"Y\xff16": [(160, 120, [])],
        b"Y16\xa0": [],
    }
    machine = FakeMachine(tmp_path, {0: FakeCamera("Cam", capabilities, formats)})
    (camera,) = list_cameras(tmp_path, machine.ioctl)
    assert camera.formats == (
        Format("MJPG", (Size(640, 480, 60), Size(1920, 1080, 30))),
        Format("YUYV", (Size(640, 480, 30),)),
        Format("Y\ufffd16", (Size(160, 120, None),)),
        Format("Y16-BE", ()),
    )


def test_a_camera_that_scales_freely(tmp_path: Path) -> None:
    formats = {b"NV12": [(32, 32, [90]), (4056, 3040, [10])]}
    machine = FakeMachine(tmp_path, {0: FakeCamera(formats=formats, stepwise=True)})
    (camera,) = list_cameras(tmp_path, machine.ioctl)
    assert camera.formats == (Format("NV12", (Size(32, 32, 90), Size(4056, 3040, 10))),)


def test_a_driver_that_never_ends_its_lists(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {0: FakeCamera()})

    def endless(descriptor: int, request: int, answer: bytearray) -> int:
        if request == 0x80685600:
            return machine.ioctl(descriptor, request, answer)
        if request == 0xC02C564A:
            answer[8:20] = (1).to_bytes(4, "little") + answer[:4] + answer[:4]
        return 0

    (camera,) = list_cameras(tmp_path, endless)
    assert len(camera.formats) == len(camera.formats[0].sizes) == 100


def test_names_that_stay(tmp_path: Path) -> None:
    there = {0: FakeCamera("A"), 2: FakeCamera("Twin"), 4: FakeCamera("Twin"), 6: FakeCamera("B"), 8: FakeCamera("C")}
    machine = FakeMachine(tmp_path, there)
    machine.link(0, "usb-A-video-index0")
    machine.link(4, "usb-Twin-video-index0")  # both have this name, and the last one takes it
    for number in (0, 2, 4, 6):
        machine.link(number, f"pci-usb-0:{number}:1.0-video-index0", "by-path")
    assert [one.stable for one in list_cameras(tmp_path, machine.ioctl)] == [
        "/dev/v4l/by-id/usb-A-video-index0",
        "/dev/v4l/by-path/pci-usb-0:2:1.0-video-index0",
        "/dev/v4l/by-path/pci-usb-0:4:1.0-video-index0",
        "/dev/v4l/by-path/pci-usb-0:6:1.0-video-index0",
        None,
    ]


def test_who_holds_a_camera(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {0: FakeCamera(), 2: FakeCamera(), 12: FakeCamera()})
    machine.hold(0, 812, "edge-fer", "0::/system.slice/edge-fer.service\n")
    machine.hold(2, 90, "rpicam\x1b[1m", "0::/user.slice/user-1000.slice/user@1000.service\n")
    machine.hold(12, os.getpid(), "python")
    (tmp_path / "proc/91").mkdir()  # another user's: no fd to be read
    first, second, third = list_cameras(tmp_path, machine.ioctl)
    assert first.holders == (Holder(812, "edge-fer", "edge-fer.service"),)
    assert second.holders == (Holder(90, "rpicam\ufffd[1m", ""),)
    assert third.holders == ()


def test_the_real_proc_is_read() -> None:
    assert isinstance(cameras.find_holders(), dict)


# Pi cameras


@pytest.mark.parametrize(
    ("child", "found", "reason"),
    [
        (Child(0, '[{"number": 1, "model": "imx708", "id": "/base/soc/i2c0mux/i2c@1/imx708@1a"}]\n', ""), 1, ""),
        (Child(0, 'noise\n[{"number": 0, "model": "C920", "id": "/base/scb/pcie/usb@0,0-1:1.0"}]\n', "x"), 0, ""),
        (Child(0, "[]\n", ""), 0, ""),
        (Child(0, "", ""), 0, "picamera2 gives no list"),
        (Child(0, "null\n", ""), 0, "picamera2 gives no list"),
        (Child(1, "", "Traceback\nImportError: numpy.core failed\n"), 0, "ImportError: numpy.core failed"),
        (Child(-11, "", ""), 0, "it dies (SIGSEGV)"),
        (Child(None, "", ""), 0, "it hangs"),
    ],
)
def test_pi_cameras(child: Child, found: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "run_python", lambda script: child)
    there, why = list_pi_cameras()
    assert (len(there), why) == (found, reason)
    assert there in ([], [PiCamera(1, "imx708")])


# The verb


def show(
    monkeypatch: pytest.MonkeyPatch, call: Call, usb: list[Camera], pi: list[PiCamera] | None = None, *options: str
) -> str:
    monkeypatch.setattr(cameras, "list_cameras", lambda: usb)
    monkeypatch.setattr(cameras, "list_pi_cameras", lambda: (pi or [], ""))
    monkeypatch.setattr("edge_fer.cli.cameras.find_spec", lambda name: pi and object())
    done = call(main, "cameras", *options)
    assert (done.code, done.err) == (0, "")
    return str(done.out)


SIZES = tuple(Size(w, w * 3 // 4, 30) for w in (160, 320, 640, 800, 1280))
WEBCAM = Camera(
    "/dev/video2",
    "HD [b]Webcam",
    "/dev/v4l/by-id/usb-046d_C920-video-index0",
    (Format("YUYV", SIZES), Format("NV12", SIZES), Format("MJPG", SIZES[:1])),
    (Holder(812, "edge-fer", "edge-fer.service"),),
)


def test_the_table(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    text = show(monkeypatch, call, [Camera("/dev/video0", "Old"), WEBCAM], [PiCamera(0, "imx708")])
    rows = [line for line in text.splitlines() if "│" in line]
    assert "/dev/video0 (0)" in rows[0]
    assert "HD [b]Webcam" in rows[1]
    assert "YUYV, NV12  1280x960@30, 800x600@30, 640x480@30, 320x240@30 and 1 smaller" in rows[1]
    assert "MJPG  160x120@30" in rows[2]
    assert "edge-fer (pid 812, edge-fer.service)" in rows[1]
    assert "picamera:0" in rows[3] and "imx708" in rows[3]
    assert "\n  --camera /dev/v4l/by-id/usb-046d_C920-video-index0  (HD [b]Webcam)\n" in text
    assert "none of these" not in text
    assert "none of these" in show(monkeypatch, call, [WEBCAM])


def test_no_permission_and_no_root(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    errors = ("Permission denied", "No such device", "No such file or directory")
    text = show(monkeypatch, call, [Camera(f"/dev/video{n}", "Old", refused=error) for n, error in enumerate(errors)])
    assert "usermod -aG video" in text
    assert "cannot be asked: No such device" in text
    assert "`--device /dev/video2`" in text
    assert "sudo edge-fer cameras" in text


def test_no_camera_at_all(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    text = show(monkeypatch, call, [])
    for word in ("docker run --device", "rpicam-hello --list-cameras", "rtsp://", "--camera demo"):
        if word != "docker run --device" or not Path("/sys/class/video4linux").is_dir():
            assert word in text
    assert show(monkeypatch, call, [], None, "--json") == "[]\n"


def test_json(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    usb, old, pi = json.loads(
        show(monkeypatch, call, [WEBCAM, Camera("/dev/video0", "Old")], [PiCamera(1, "imx708")], "--json")
    )
    assert usb["camera"] == usb["stable"] == "/dev/v4l/by-id/usb-046d_C920-video-index0"
    assert usb["formats"][0]["sizes"][0] == {"width": 160, "height": 120, "fps": 30}
    assert usb["holders"] == [{"pid": 812, "program": "edge-fer", "unit": "edge-fer.service"}]
    assert (usb["is_0"], old["is_0"], old["camera"]) == (False, True, "/dev/video0")
    assert pi == {"camera": "picamera:1", "name": "imx708", "is_0": False}


# The snapshot


def test_a_snapshot_shows_what_the_model_saw(tmp_path: Path, call: Call, scene: Image) -> None:
    cv2.imwrite(str(tmp_path / "scene.png"), scene)
    path = tmp_path / "out" / "snapshot.png"
    done = call(main, "cameras", "--snapshot", tmp_path / "scene.png", "--output", path)
    assert (done.code, done.err) == (0, "")
    assert f"{path}: 640x480 of {tmp_path}/scene.png, faces: 2." in done.out
    picture = cv2.imread(str(path))
    assert picture is not None and picture.shape == (480, 640 + 192 + 24, 3)
    taken = snapshot.take_snapshot(Settings(camera=CameraSettings(source=str(tmp_path / "scene.png"))))
    for face, crop in zip(taken.faces, taken.crops, strict=True):
        top = 12 + (192 + 22 + 12) * taken.faces.index(face)
        assert crop.shape == (48, 48, 1)
        assert np.array_equal(picture[top : top + 192 : 4, 652 : 652 + 192 : 4, 1], crop[..., 0])
    box = taken.faces[0].box
    assert np.ptp(picture[int(box.y) : int(box.y + 4), int(box.x + 30) : int(box.x + 60)]) > 50  # its outline


def test_a_snapshot_replaces_nothing(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("snapshot.png", "snapshot-2.png"):
        shown = json.loads(call(main, "cameras", "--snapshot", "demo", "--json").out)
        assert (shown["file"], shown["width"], shown["height"]) == (name, 640, 480)
        assert Path(name).is_file()
    assert len(shown["faces"]) == 2
    assert shown["faces"][0].keys() == {"box_px", "expression", "confidence", "uncertain", "quality"}


def test_a_snapshot_answers_as_run_does(photo: Path) -> None:
    camera = CameraSettings(source=str(photo))
    for model in (ModelSettings(), ModelSettings(decision="as-trained"), ModelSettings(tta=True)):
        taken = snapshot.take_snapshot(Settings(camera=camera, model=model))
        recognizer = Recognizer.load(decision=model.decision, tta=model.tta)
        (result,) = recognizer.stream(str(photo))
        assert [face.confidence for face in taken.faces] == [face.confidence for face in result.faces]
        assert len(taken.faces) == 2


class Settling:
    """A live camera that is dark in its first second."""

    fps, live, closed = 10.0, True, False

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def __iter__(self) -> Any:
        for seq in range(self.frames):
            yield Frame(np.full((60, 80), min(seq, 10) * 10, np.uint8), seq, seq / 10, "camera")

    def close(self) -> None:
        self.closed = True


def test_a_camera_settles_first(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Settling(100)
    monkeypatch.setattr(snapshot, "open_source", lambda settings: source)
    assert snapshot.take_snapshot(Settings()).frame.seq == 10
    assert source.closed
    monkeypatch.setattr(snapshot, "open_source", lambda settings: Settling(3))
    assert snapshot.take_snapshot(Settings()).frame.seq == 0
    monkeypatch.setattr(snapshot, "open_source", lambda settings: Settling(0))
    with pytest.raises(snapshot.UnavailableError, match="has sent nothing"):
        snapshot.take_snapshot(Settings())


@pytest.mark.parametrize(
    ("gray", "said"),
    [
        (np.zeros((60, 80), np.uint8), "all black"),
        (np.full((60, 80), 200, np.uint8), "all of one gray"),
        (np.tile(np.arange(80, dtype=np.uint8) // 2, (60, 1)), "dark (brightness 0.08 of 1)"),
        (np.tile(np.arange(80, dtype=np.uint8) * 3, (60, 1)), "at least 40 pixels wide"),
    ],
)
def test_no_face(gray: Image, said: str, tmp_path: Path, call: Call) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), gray)
    done = call(main, "cameras", "--snapshot", tmp_path / "x.png", "--output", tmp_path / "y.png")
    assert done.code == 0
    assert said in done.out
    assert np.array_equal(cv2.imread(str(tmp_path / "y.png"), cv2.IMREAD_GRAYSCALE), gray)


def test_many_faces_in_a_low_picture(scene: Image) -> None:
    taken = snapshot.take_snapshot(Settings(camera=CameraSettings(source="demo")))
    many = snapshot.Snapshot(Frame(scene[:100], 0, 0.0, "x"), taken.faces, taken.crops)
    assert snapshot.compose(many).shape == (192 + 22 + 24, 640 + 2 * 204 + 12, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--snapshot", "77"], 69, "No camera 77 (/dev/video77)"),
        (["--snapshot", ""], 2, "name of the camera is empty"),
        (["--snapshot", "none.png"], 66, "There is no file or folder none.png"),
        (["--snapshot", "demo", "--output", "x.gifx"], 73, "let it end in .png or .jpg"),
        (["--snapshot", "demo", "--output", "x"], 73, "let it end in .png or .jpg"),
        (["--snapshot", "demo", "--output", "/proc/none/x.png"], 73, "Cannot write /proc/none"),
        (["--output", "x.png"], 2, "--snapshot 0 --output"),
        (["--snapshot"], 2, "expected one argument"),
    ],
)
def test_mistakes(arguments: list[str], code: int, said: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    done = call(main, "cameras", *arguments)
    assert (done.code, done.out) == (code, "")
    (line,) = done.err.splitlines()
    assert said in line
