"""The command line as people use it, in processes of its own where signals and pipes matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_fer.cli import main
from edge_fer.config import Settings
from edge_fer.core import Frame, Image
from edge_fer.model.bundle import DEFAULT_MODEL

EDGE_FER = [sys.executable, "-m", "edge_fer"]


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_fer.config.default_files", list)
    for name in [name for name in os.environ if name.startswith("EDGE_FER_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Any:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def clip(tmp_path: Path, demo_frames: list[Frame]) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15, (640, 480))
    for frame in demo_frames[:20]:
        writer.write(frame.picture())
    writer.release()
    return path


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr when something is wrong: one line, no traceback."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_picture_becomes_events(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--camera", str(photo), "--output", "jsonl:-", "--name", "pi-kitchen"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["phase"] for event in events] == ["start", "start"]
    assert {event["device"] for event in events} == {"pi-kitchen"}
    assert {event["camera"] for event in events} == {str(photo)}


def test_several_outputs_at_once(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [
        f"jsonl:{tmp_path}/e.jsonl",
        f"csv:{tmp_path}/e.csv",
        f"video:{tmp_path}/v.mp4",
        f"pictures:{tmp_path}/p",
    ]
    arguments = [argument for output in ("terminal", *outputs) for argument in ("--output", output)]
    assert main(["run", "--camera", str(clip), *arguments]) == 0
    assert len((tmp_path / "e.jsonl").read_text().splitlines()) == 2 * 20 + 2  # and an end for each
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 1 + 2 * 20
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 20
    assert len(list((tmp_path / "p").iterdir())) == 20
    assert "20 frames" in capsys.readouterr().out


def test_a_configuration_file(photo: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'outputs = ["jsonl:{tmp_path}/out.jsonl"]\n[camera]\nsource = "{photo}"\n')
    assert main(["run", "--config", str(config)]) == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_two_outputs_on_stdout_would_mix(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--camera", "demo", "--output", "terminal", "--output", "jsonl:-"]) == 2
    assert "would mix on stdout" in sentence(capsys)


def test_two_outputs_in_one_file_would_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for second in ("csv:x", f"csv:{tmp_path}/x", "jsonl:x"):
        assert main(["run", "--camera", "demo", "--output", "jsonl:x", "--output", second]) == 2
        assert f"jsonl:x and {second} would mix in one file" in sentence(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["video", "jsonl", "csv"])
def test_what_is_read_is_not_written(kind: str, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = clip.with_name("link.avi")
    link.symlink_to(clip)
    before = clip.read_bytes()
    for source, target in ((clip, clip), (clip, link), (link, clip)):
        assert main(["run", "--camera", str(source), "--output", f"{kind}:{target}"]) == 2
        assert "would replace the file that is read" in sentence(capsys)
    assert clip.read_bytes() == before


def test_a_model_at_home_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model = tmp_path / "mine.tflite"
    model.write_bytes(DEFAULT_MODEL.read_bytes())
    assert main(["run", "--camera", "demo", "--model", "~/mine.tflite", "--output", f"jsonl:{model}"]) == 2
    assert "would replace the model" in sentence(capsys)
    assert model.read_bytes() == DEFAULT_MODEL.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--outptu", "terminal"], 2, "Did you mean --output?"),
        (["run", "clip.mp4"], 2, "Did you mean --camera clip.mp4?"),
        (["run", "--threads", "many"], 2, "invalid int value"),
        (["run", "--device", "gpu"], 2, "choose from"),
        (["fly"], 2, "invalid choice"),
        ([], 2, "required"),
        (["run", "--camera", "demo", "--output", "jsnol:x"], 2, "Did you mean"),
        (["run", "--camera", "demo", "--output", "video:x.gif"], 2, "mp4"),
        (["run", "--camera", "no-such-file.mp4"], 66, "no-such-file.mp4"),
        (["run", "--camera", "/dev/video77"], 69, "/dev/video77"),
        (["run", "--camera", "77"], 69, "No camera 77"),
        (["run", "--camera", ""], 2, "camera is empty"),
        (["run", "--camera", "picamera:0"], 69, "python3-picamera2"),
        (["run", "--camera", "demo", "--model", "none.tflite"], 66, "No model none.tflite"),
        (["run", "--camera", "demo", "--threads", "0"], 78, "model.threads must be from 1 to 64"),
        (["run", "--camera", "demo", "--output", "csv:/proc/none/x.csv"], 73, "/proc/none"),
        (["run", "--config", "none.toml"], 78, "none.toml"),
        (["models", "show", "none.tflite"], 66, "No model none.tflite"),
        (["models", "x.tflite"], 2, "invalid choice"),
    ],
)
def test_mistakes_get_one_sentence_and_their_exit_code(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert message in sentence(capsys)


def test_wrong_models_get_one_sentence(
    bundle_with: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(DEFAULT_MODEL.read_bytes()[:100_000])
    wrong = {
        "cut short": cut,
        "preprocessing version 7": bundle_with(metadata=lambda card: card["preprocess"].update(version=7)),
    }
    for message, path in wrong.items():
        assert main(["run", "--camera", "demo", "--model", str(path)]) == 65
        assert message in sentence(capsys)


def test_a_wrong_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.jpg").write_text("hello")
    assert main(["run", "--camera", str(tmp_path / "x.jpg")]) == 65
    assert "x.jpg" in sentence(capsys)


@pytest.mark.parametrize("kind", ["one pixel", "20 megapixels", "gray", "rgba", "16 bit"])
def test_any_picture_will_do(kind: str, tmp_path: Path, scene: Image, capsys: pytest.CaptureFixture[str]) -> None:
    picture: Any = {
        "one pixel": np.zeros((1, 1, 3), np.uint8),
        "20 megapixels": cv2.resize(scene, (5200, 3900)),
        "gray": scene,
        "rgba": cv2.cvtColor(scene, cv2.COLOR_GRAY2BGRA),
        "16 bit": scene.astype(np.uint16) * 257,
    }[kind]
    cv2.imwrite(str(tmp_path / "x.png"), picture)
    assert main(["run", "--camera", str(tmp_path / "x.png"), "--output", "jsonl:-"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == (0 if kind == "one pixel" else 2)


def test_an_unexpected_error_is_internal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*settings: object, **options: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("edge_fer.cli.run.run", broken)
    assert main(["run"]) == 70
    assert "internal error: ZeroDivisionError('oops')" in sentence(capsys)
    with pytest.raises(ZeroDivisionError):
        main(["run", "--verbose"])


def test_models_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "default" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    (model,) = (model for model in json.loads(capsys.readouterr().out) if model["default"])
    assert main(["models", "show"]) == 0
    shown = capsys.readouterr().out
    assert model["model_sha256"] in shown
    assert "contempt" in shown
    assert main(["models", "show", "--json", model["name"]]) == 0
    assert json.loads(capsys.readouterr().out) == model


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_cleanly_and_files_are_playable(tmp_path: Path, number: int) -> None:
    command = [*EDGE_FER, "run", "--camera", "demo", "--output", "jsonl:-", "--output", f"video:{tmp_path}/v.mp4"]
    # Unbuffered: communicate() does not see what readline() would have taken along.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(6)]
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (0, b"")
    events = [json.loads(line) for line in [*lines, *out.splitlines()]]
    assert [event["phase"] for event in events[-2:]] == ["end", "end"]
    frames = len({event["seq"] for event in events})
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == frames < 245


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    command = [*EDGE_FER, "run", "--camera", "demo", "--output", "jsonl:-", "--output", f"csv:{tmp_path}/x.csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr is not None
        err = child.stderr.read()
        assert child.wait(timeout=30) == 0
    assert "Traceback" not in err
    assert "Broken" not in err
    assert (tmp_path / "x.csv").read_text().endswith("\n")


def test_a_full_disk_is_one_sentence_and_the_rest_is_kept(tmp_path: Path, clip: Path) -> None:
    command = [
        *EDGE_FER,
        "run",
        "--camera",
        str(clip),
        "--output",
        f"csv:{tmp_path}/x.csv",
        "--output",
        "jsonl:/dev/full",
    ]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 73
    assert "/dev/full" in child.stderr
    assert "Traceback" not in child.stderr
    assert len((tmp_path / "x.csv").read_text().splitlines()) > 1


@pytest.mark.parametrize("arguments", [["models"], ["models", "show"], ["cameras"], ["models", "--json"]])
def test_a_full_disk_under_stdout_is_one_sentence(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        child = subprocess.run(
            [*EDGE_FER, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert child.returncode == 73
    (line,) = child.stderr.splitlines()
    assert "Cannot write to stdout: No space left on device" in line


@pytest.mark.parametrize("arguments", [["models"], ["run", "--camera", "clip.avi", "--output", "video:out.mp4"]])
def test_a_closed_stdout_is_no_error_and_no_file_takes_its_place(
    arguments: list[str], clip: Path, tmp_path: Path
) -> None:
    command = ["sh", "-c", 'exec "$@" >&- 2>err', "sh", *EDGE_FER, *arguments]
    child = subprocess.run(command, cwd=tmp_path, timeout=60, check=False)
    assert (child.returncode, (tmp_path / "err").read_text()) == (0, "")
    if arguments[0] == "run":
        assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 20


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "rtsp://me:hunter2@host/"],
        ["rtsp://me:hunter2@host/"],
        ["run", "--threads", "srt://host?token=hunter2"],
        ["run", "--camera", "demo", "--output", "mqtt://me:hunter2@host"],
        ["run", "--http://me:hunter2@host"],
        ["bench", "--frames", "udp://host/hunter2"],
    ],
)
def test_secrets_in_misplaced_addresses_are_not_repeated(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "hunter2" not in sentence(capsys)


def test_secrets_in_an_unexpected_error_are_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*settings: object) -> None:
        raise ValueError("rtsp://me:hunter2@host")

    monkeypatch.setattr("edge_fer.cli.run.run", broken)
    assert main(["run"]) == 70
    assert "hunter2" not in sentence(capsys)


def test_a_recording_is_not_turned_as_the_camera_is(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board whose camera hangs upside down records upright clips, and its configuration counts for all runs."""
    asked: list[Settings] = []
    monkeypatch.setattr("edge_fer.cli.run.run", lambda settings, *rest, **more: asked.append(settings))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(
        '[camera]\nsource = "clip.mp4"\nname = "door"\nrotation = 180\nflip = "vertical"\n'
    )
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "0").touch()
    for cameras in ([], ["clip.mp4"], ["0"], ["."], ["-"], ["0", "clip.mp4"]):
        given = [word for camera in cameras for word in ("--camera", camera)]
        assert call(main, "run", "--config", "c.toml", *given).code == 0
    turned = [[(one.name, one.rotation, one.flip) for one in settings.all_cameras] for settings in asked]
    as_set, as_recorded = ("door", 180, "vertical"), ("", 0, "none")
    assert turned == [[as_set], [as_recorded], [as_set], [as_recorded], [as_set], [("", 180, "vertical"), as_recorded]]
    monkeypatch.setenv("EDGE_FER_CAMERA__ROTATION", "90")
    assert call(main, "run", "--config", "c.toml", "--camera", "clip.mp4").code == 0
    assert (asked[-1].camera.rotation, asked[-1].camera.name) == (90, "")
