"""Several cameras in one run: each has a recognizer, events name the camera, and none waits for another."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from source_parts import LONG_S, FakeCapture, live_source

from edge_fer import sources
from edge_fer.cli import main
from edge_fer.cli.run import run
from edge_fer.config import CameraSettings, DetectorSettings, ModelSettings, Settings
from edge_fer.core import Frame, FrameSource
from edge_fer.errors import ConfigError, UnavailableError, UsageError
from edge_fer.layers import load_settings
from edge_fer.pipeline import Latencies, Pipeline, build_recognizer
from edge_fer.sources.live import newest_of

SCHEMA = json.loads((Path(sources.__file__).parents[1] / "event.schema.json").read_text())


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_fer.config.default_files", list)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def clip(tmp_path: Path, demo_frames: list[Frame]) -> Callable[[str, int], str]:
    """Writes a clip of the demo, with so many frames, under a name."""

    def write(name: str, frames: int) -> str:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15, (640, 480))
        for frame in demo_frames[:frames]:
            writer.write(frame.picture())
        writer.release()
        return str(path)

    return write


def events_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for line in path.read_text().splitlines():
        event = json.loads(line)
        jsonschema.validate(event, SCHEMA)
        found[event["camera"]].append(event)
    return found


def test_each_camera_is_followed_as_if_it_were_alone(clip: Callable[[str, int], str], tmp_path: Path) -> None:
    names = clip("a.avi", 12), clip("b.avi", 20)
    for name in names:
        assert main(["run", "--camera", name, "--output", f"jsonl:{name}.jsonl"]) == 0
    both = [argument for name in names for argument in ("--camera", name)]
    assert main(["run", *both, "--output", f"jsonl:{tmp_path}/both.jsonl"]) == 0
    together = events_of(tmp_path / "both.jsonl")
    tracks = []
    for name in names:
        alone = events_of(Path(f"{name}.jsonl"))[name]
        numbers: dict[int, int] = {}
        for event, other in zip(together[name], alone, strict=True):
            numbers.setdefault(other["track"], event["track"])
            assert event["track"] == numbers[other["track"]]
            for key in ("phase", "seq", "time_s", "box", "expression", "probabilities"):
                assert event[key] == other[key]
        tracks += numbers.values()
    assert len(set(tracks)) == len(tracks) == 4, "no track of one camera has the number of one of another"


def test_a_video_and_pictures_hold_one_camera_each(clip: Callable[[str, int], str], tmp_path: Path) -> None:
    cameras = [CameraSettings(clip("a.avi", 3), name="door"), CameraSettings(clip("b.avi", 5), name="garden/ü?")]
    run(
        Settings(
            cameras=cameras, outputs=[f"video:{tmp_path}/v.mp4", f"pictures:{tmp_path}/p", f"csv:{tmp_path}/f.csv"]
        )
    )
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["v-door.mp4", "v-garden-ü.mp4"]
    counts = {path.name: len(list(path.iterdir())) for path in (tmp_path / "p").iterdir()}
    assert counts == {"door": 3, "garden-ü": 5}
    assert len((tmp_path / "f.csv").read_text().splitlines()) == 1 + 2 * 8


def test_one_that_is_not_there_is_waited_for(
    clip: Callable[[str, int], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_fer.sources.live.LiveSource.__iter__", lambda self: iter(()))  # and never comes
    settings = Settings(
        cameras=[CameraSettings("/dev/video99"), CameraSettings(clip("a.avi", 12))],
        outputs=[f"jsonl:{tmp_path}/e.jsonl"],
    )
    with Pipeline(settings) as pipeline:
        assert len(list(pipeline)) == 12
    (said,) = caplog.messages
    assert re.match(r"No camera /dev/video99\. .* It is tried again until it is there\.", said)


def test_cameras_of_the_network_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, sixteen that do not answer would hold the others up for minutes."""
    all_asked = threading.Barrier(3)

    def open_source(settings: CameraSettings) -> FrameSource:
        all_asked.wait(LONG_S)
        raise UnavailableError(f"{settings.source} does not answer.")

    monkeypatch.setattr("edge_fer.pipeline.open_source", open_source)
    cameras = [CameraSettings(f"rtsp://10.0.0.{number}/live") for number in range(3)]
    with pytest.raises(UnavailableError, match=r"10\.0\.0\.0/live does not answer"):
        Pipeline(Settings(cameras=cameras))


def test_none_of_several_is_there() -> None:
    settings = Settings(cameras=[CameraSettings("/dev/video98"), CameraSettings("/dev/video99")])
    with pytest.raises(UnavailableError, match=r"No camera /dev/video98\."):
        Pipeline(settings)


@pytest.mark.parametrize(
    ("cameras", "said"),
    [
        ([{"source": "0"}, {"source": "0"}], "Camera 0 is given twice"),
        ([{"source": "rtsp://u:secret@h/1"}] * 2, r"Camera rtsp://h/\.\.\. is given twice"),
        ([{"source": "0", "name": "door"}, {"source": "2", "name": "door"}], "Two cameras are called door"),
    ],
)
def test_cameras_that_cannot_be_told_apart(cameras: list[dict[str, str]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Pipeline(Settings(cameras=[CameraSettings(**camera) for camera in cameras]))


def test_cameras_of_one_host_get_names_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, demo_frames: list[Frame]
) -> None:
    pictures = [frame.picture() for frame in demo_frames[:3]]
    opened: list[str] = []

    def open_source(settings: CameraSettings, *, later: bool = False) -> FrameSource:
        opened.append(settings.name)
        return newest_of(live_source(lambda: FakeCapture(*pictures, None), name=settings.name))

    monkeypatch.setattr("edge_fer.pipeline.open_source", open_source)
    names = ["rtsp://me:secret@10.0.0.7/1", "rtsp://me:secret@10.0.0.7/2", "rtsp://10.0.0.8/1"]
    settings = Settings(cameras=[CameraSettings(name) for name in names], outputs=[f"jsonl:{tmp_path}/e.jsonl"])
    with Pipeline(settings) as pipeline:
        for count, step in enumerate(pipeline):
            assert step.latency_ms is not None and step.latency_ms >= 0
            if count == 2:
                pipeline.stop()
    assert opened == ["rtsp://10.0.0.7/...", "rtsp://10.0.0.7/... #2", "rtsp://10.0.0.8/..."]
    for camera, events in events_of(tmp_path / "e.jsonl").items():
        assert camera in opened
        assert all(event["latency_ms"]["since_capture"] >= 0 for event in events)


def test_what_became_of_the_frames_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, demo_frames: list[Frame]
) -> None:
    pictures = [frame.picture() for frame in demo_frames[:2]]
    source = newest_of(live_source(lambda: FakeCapture(*pictures, None), name="door"))
    monkeypatch.setattr("edge_fer.pipeline.open_source", lambda settings: source)
    with caplog.at_level("INFO", "edge_fer"), Pipeline(Settings(outputs=[])) as pipeline:
        for _ in pipeline:
            pipeline.stop()
    told = next(message for message in caplog.messages if message.startswith("door: "))
    assert "1 frames" in told and "0 damaged" in told
    assert re.search(r"from capture to the last output median [\d.]+ ms, 95th percentile [\d.]+ ms\.$", told)


def test_a_model_that_wants_landmarks_is_warned_of_where_there_are_none(
    bundle_with: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = bundle_with(metadata=lambda table: table["preprocess"].update(alignment="five-points"))
    for model, kind in ((str(path), "haar"), ("nano", "haar"), (str(path), "auto")):
        build_recognizer(Settings(model=ModelSettings(path=model), detector=DetectorSettings(kind=kind)))
    (said,) = caplog.messages
    assert said.endswith("a cascade marks none: they are cut out as they are found. Choose --detector ssd.")


def test_latencies_are_counted_in_little_memory() -> None:
    latencies = Latencies()
    assert latencies.percentile(95) == 0
    values = np.random.default_rng(1).gamma(2, 20, 10_000)
    for ms in values:
        latencies.add(float(ms))
    for percent in (50, 95, 99):
        assert latencies.percentile(percent) == pytest.approx(np.percentile(values, percent), rel=0.1)
    assert len(latencies._counts) < 300


def test_cameras_come_from_the_file_or_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        "[[cameras]]\nsource = '0'\nrotation = 180\n[[cameras]]\nsource = 'rtsp://10.0.0.7/1'\nname = 'door'\n"
    )
    settings = load_settings(path, {}, {})
    assert [(one.source, one.name, one.rotation) for one in settings.all_cameras] == [
        ("0", "", 180),
        ("rtsp://10.0.0.7/1", "door", 0),
    ]
    assert load_settings(path, {}, {"camera.source": "demo", "cameras": []}).all_cameras == [CameraSettings("demo")]
    assert load_settings(None, {}, {}).all_cameras == [CameraSettings("0")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[cameras]]\nrotation = 45", "camera.rotation must be 0, 90, 180 or 270, not 45"),
        ("[[cameras]]\nflip = 'up'", "'cameras.flip' must be one of none, horizontal, vertical"),
        ("[[cameras]]\nexposure_ms = -1", "camera.exposure_ms must be from 0 to 10000, not -1"),
        ("[[cameras]]\nexposure_ms = nan", "camera.exposure_ms must be from 0 to 10000, not nan"),
        ("[[cameras]]\nsuorce = '0'", "Did you mean 'cameras.source'"),
        ("[[cameras]]\n" * 17, "16 cameras at once are the most, not 17"),
        ("cameras = ['0']", "'cameras' must be a table, not '0'"),
        ("[camera]\nrotation = 45", "camera.rotation must be"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_settings(tmp_path / "c.toml", {}, {})


def test_no_output_replaces_what_one_of_several_cameras_reads(
    clip: Callable[[str, int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = clip("a.avi", 2), clip("b.avi", 2)
    both = [argument for name in names for argument in ("--camera", name)]
    assert main(["run", *both, "--output", f"video:{names[1]}"]) == 2
    assert "would replace the file that is read" in capsys.readouterr().err
