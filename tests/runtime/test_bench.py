"""`edge-fer bench`: what a board tells about itself, the loop's stages, and the configuration that --tune writes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from edge_fer import measure as bench
from edge_fer.board import BoardFiles, describe_machine, read_health
from edge_fer.cli import main
from edge_fer.config import CameraSettings, DetectorSettings, ModelSettings, Settings
from edge_fer.config_file import update_file
from edge_fer.core import Frame, FrameResult
from edge_fer.errors import ConfigError, DataError, OutputError
from edge_fer.layers import load_settings
from edge_fer.recognizer import Recognizer
from edge_fer.sources.demo import DemoSource

Call = Callable[..., Any]


@pytest.fixture
def board(tmp_path: Path) -> BoardFiles:
    """The files of a Pi 4 that is warm and was once short of power."""
    files = BoardFiles(*(tmp_path / name for name in ("model", "cpuinfo", "status", "temp", "throttled")))
    files.model.write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    files.cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 108.00\n")
    files.status.write_text("Name:\tpython\nVmHWM:\t   97656 kB\nVmRSS:\t   80000 kB\n")
    files.temperature.write_text("61835\n")
    files.throttled.write_text("50008\n")
    return files


@pytest.fixture(autouse=True)
def user_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only configuration file that counts in these tests; it is not there at first."""
    path = tmp_path / "etc" / "config.toml"
    for module in ("config", "cli.bench"):
        monkeypatch.setattr(f"edge_fer.{module}.default_files", lambda: [path])
    return path


class Nowhere:
    """A sink that counts."""

    written = 0

    def write(self, result: FrameResult) -> None:
        self.written += 1

    def close(self) -> None:
        pass


def test_a_pi_tells_its_name_heat_and_throttling(board: BoardFiles) -> None:
    assert describe_machine(board)["board"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert read_health(board) == {
        "temperature_c": 61.8,
        "throttled": ["soft temperature limit", "under-voltage since boot", "throttled since boot"],
        "rss_peak_mb": 100.0,
    }


def test_a_healthy_pi_is_not_throttled(board: BoardFiles) -> None:
    board.throttled.write_text("0\n")
    assert read_health(board)["throttled"] == []


def test_a_board_that_does_not_tell_is_no_error(tmp_path: Path) -> None:
    silent = BoardFiles(*(tmp_path / "nothing" for _ in range(5)))
    assert set(read_health(silent).values()) == {None}
    assert describe_machine(silent)["board"]


def test_every_stage_of_the_loop_is_timed(demo_frames: list[Frame]) -> None:
    sink = Nowhere()
    figures = bench.measure(demo_frames[: bench.WARM_UP + 8], Recognizer.load(), sink)
    assert sink.written == bench.WARM_UP + 8
    assert figures["frames"] == 8
    stages = figures["stages_ms"]
    assert next(iter(stages)) == "decode"
    assert list(stages)[-1] == "sinks"
    assert {"detect", "classify"} < set(stages)
    for row in (*stages.values(), figures["frame_ms"]):
        assert 0 <= row["p50"] <= row["p95"] <= row["p99"]
    # The recognizer's stages are inside of what was timed around it.
    inside = sum(row["mean"] for stage, row in stages.items() if stage not in ("decode", "sinks"))
    assert 0 < inside <= figures["frame_ms"]["mean"] + 0.01


def test_measuring_stops_at_the_limit(demo_frames: list[Frame]) -> None:
    sink = Nowhere()
    bench.measure(demo_frames, Recognizer.load(), sink, limit_s=0.0)
    assert sink.written == 1


def test_a_source_without_frames_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="no frame"):
        bench.measure([], Recognizer.load(), Nowhere())


def test_one_line_of_json_for_the_table_of_boards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--frames", "12", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    figures = json.loads(line)
    assert figures["source"] == "demo"
    assert figures["frames"] == 12 - bench.WARM_UP
    assert figures["rss_peak_mb"] > 10
    assert {"date", "board", "opencv", "runtime", "fps", "frame_ms", "temperature_c", "throttled"} < set(figures)


def test_the_table_names_the_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--frames", "8"]) == 0
    out = capsys.readouterr().out
    assert all(stage in out for stage in ("decode", "detect", "classify", "sinks", "fps"))


def test_bad_input_is_answered_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--frames", "0"]) == 2
    assert main(["bench", "--frames", "9" * 30]) == 2
    assert main(["bench", "--camera", str(tmp_path / "none.mp4")]) == 66
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.parametrize("asked", [["--camera", "PHOTO"], []])
@pytest.mark.parametrize("tunes", [False, True])
def test_the_named_camera_is_measured_not_those_of_the_configuration(
    asked: list[str], tunes: bool, user_config: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_config.parent.mkdir()
    user_config.write_text('[[cameras]]\nsource = "none.mp4"\n[[cameras]]\nsource = "7"\n')
    seen: list[str] = []

    def look(settings: Settings, *_: object) -> NoReturn:
        seen.extend(camera.source for camera in settings.all_cameras)
        raise DataError("enough")

    monkeypatch.setattr(bench, "tune" if tunes else "measure_settings", look)
    words = [word.replace("PHOTO", str(photo)) for word in asked]
    assert main(["bench", *words, *(["--tune"] if tunes else [])]) == 65
    assert seen == [str(photo) if asked else "demo"]


# --tune: which trial wins is tested on figures that are made up, since a test must not depend on the machine's speed.


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[float, ...], tuple[float, float]]]:
    """Makes ``measure`` answer (network ms, p95 of frames in ms) by (threads, min_face_px) and new_face_s if raised."""
    table: dict[tuple[float, ...], tuple[float, float]] = {}

    def build(settings: Settings) -> Recognizer:
        recognizer = Recognizer.load()
        asked = (settings.model.threads, settings.detector.min_face_px)
        slowed = settings.detector.new_face_s != Settings().detector.new_face_s
        recognizer.asked = (*asked, settings.detector.new_face_s) if slowed else asked  # type: ignore[attr-defined]
        return recognizer

    def measured(frames: object, recognizer: Recognizer, sink: object, limit_s: float) -> dict[str, object]:
        network_ms, p95 = table[recognizer.asked]  # type: ignore[attr-defined]
        figures = {"stages_ms": {"classify": {"mean": network_ms}}, "frame_ms": {"p50": p95 / 2, "p95": p95}}
        return {**figures, "frames": 100}

    monkeypatch.setattr(bench, "build_recognizer", build)
    monkeypatch.setattr(bench, "measure", measured)
    monkeypatch.setattr(bench.os, "cpu_count", lambda: 3)
    yield table


SETTINGS = Settings(camera=CameraSettings(source="demo", fps=30))


def test_threads_count_only_where_they_help(speeds: dict[tuple[float, ...], tuple[float, float]]) -> None:
    speeds.update({(1, 40): (4.0, 20), (2, 40): (3.0, 20), (3, 40): (2.9, 20), (2, 60): (3.0, 15), (2, 80): (3.0, 10)})
    trials, best = bench.tune(SETTINGS)
    assert best == {"model.threads": 2, "detector.min_face_px": 40, "detector.new_face_s": 0.3}
    assert [(one["threads"], one["min_face_px"]) for one in trials] == [(1, 40), (2, 40), (3, 40), (2, 60), (2, 80)]


def test_the_smallest_face_that_keeps_the_frame_rate(speeds: dict[tuple[float, ...], tuple[float, float]]) -> None:
    speeds.update({(1, 40): (4.0, 50), (2, 40): (4.0, 50), (3, 40): (4.0, 50), (1, 60): (4.0, 30), (1, 80): (4.0, 10)})
    best = {"model.threads": 1, "detector.min_face_px": 60, "detector.new_face_s": 0.3}
    assert bench.tune(SETTINGS)[1] == best


@pytest.mark.parametrize(("slowed_p95", "new_face_s"), [(50, 1.0), (60, 0.3), (61, 0.3)])
def test_a_slow_board_takes_the_quickest_and_looks_for_new_faces_more_slowly_where_that_helps(
    speeds: dict[tuple[float, ...], tuple[float, float]], slowed_p95: float, new_face_s: float
) -> None:
    speeds.update({(1, 40): (9.0, 90), (2, 40): (9.0, 90), (3, 40): (9.0, 90), (1, 60): (9.0, 70), (1, 80): (9.0, 60)})
    speeds[1, 80, 1.0] = (9.0, slowed_p95)
    best = {"model.threads": 1, "detector.min_face_px": 80, "detector.new_face_s": new_face_s}
    assert bench.tune(SETTINGS)[1] == best


def test_a_user_who_waits_longer_for_new_faces_keeps_that(speeds: dict[tuple[float, ...], tuple[float, float]]) -> None:
    speeds.update(dict.fromkeys([(1, 40, 2), (2, 40, 2), (3, 40, 2), (1, 60, 2), (1, 80, 2)], (9.0, 90)))
    settings = Settings(camera=CameraSettings(source="demo"), detector=DetectorSettings(new_face_s=2))
    assert bench.tune(settings)[1]["detector.new_face_s"] == 2


def test_tune_writes_a_configuration_that_run_reads(
    user_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "TUNE_FRAMES", 8)
    assert main(["bench", "--tune"]) == 0
    assert str(user_config) in capsys.readouterr().out.replace("\n", "")
    settings = load_settings(None, {}, {})
    written = tomllib.loads(user_config.read_text())
    assert written == {
        "model": {"threads": settings.model.threads},
        "detector": {
            "min_face_px": settings.detector.min_face_px,
            "new_face_s": settings.detector.new_face_s,
        },
    }


def test_tune_does_not_begin_where_the_best_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.toml"
    path.write_text("# mine\n")
    path.with_name("c.toml.part").mkdir()  # the draft's place is taken; root may write everywhere else
    monkeypatch.setattr(bench, "tune", lambda settings: pytest.fail("a minute in vain"))
    assert main(["bench", "--tune", "--config", str(path)]) == OutputError.exit_code
    assert f"Cannot write {path}" in capsys.readouterr().err
    assert path.read_text() == "# mine\n"


def test_tune_does_not_begin_where_the_configuration_may_not_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: Callable[[], AbstractContextManager[None]], call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    Path("home").mkdir(0)
    for module in ("config", "cli.bench"):
        monkeypatch.setattr(f"edge_fer.{module}.default_files", lambda: [Path("none"), Path("home/config.toml")])
    monkeypatch.setattr(bench, "tune", lambda settings: pytest.fail("a minute in vain"))
    with nobody():
        done = call(main, "bench", "--tune")
    assert (done.code, "Cannot read home/config.toml: Permission denied" in done.err) == (78, True)


# update_file

HAND_WRITTEN = """\
# Kitchen. Do not touch.
outputs = ["jsonl:-"]   # to the journal

[model]           # the network
threads = 1       # one is enough
device = "cpu"

[camera]
source = "0"
"""


def test_an_edit_leaves_comments_and_order(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(HAND_WRITTEN)
    path.chmod(0o640)
    update_file(path, {"model.threads": 3, "detector.min_face_px": 60})
    expected = HAND_WRITTEN.replace("threads = 1 ", "threads = 3 ") + "\n[detector]\nmin_face_px = 60\n"
    assert path.read_text() == expected
    assert path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["c.toml"]


@pytest.mark.parametrize(
    "before",
    [
        "",
        "[model]",
        "[model]\n",
        "[camera]\nfps = 10",
        "[model]\n# threads = 4\n[camera]\nfps = 10\n",
        "[camera]\nwidth = 1\n\n[model]\nthreads=7#x\n",
        '[ model ]\npath = "threads = 9"\n',
        'name = "[model]"\n',
        "model.threads = 1\n",
        "model = { threads = 1 }\n",
        'name = """\n[model]\n"""\n',
    ],
)
def test_many_ways_to_write_a_file(tmp_path: Path, before: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(before)
    update_file(path, {"model.threads": 2})
    after, table = tomllib.loads(path.read_text()), tomllib.loads(before)
    assert after == {**table, "model": {**table.get("model", {}), "threads": 2}}


@pytest.mark.parametrize("before", ["= 3", "[model]\nthreads = 1\nthreads = 2\n", b"\xff"])
def test_what_is_no_toml_is_left_alone(tmp_path: Path, before: str | bytes) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(before if isinstance(before, bytes) else before.encode())
    content = path.read_bytes()
    with pytest.raises(ConfigError, match="is not valid TOML"):
        update_file(path, {"model.threads": 2})
    assert path.read_bytes() == content


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text("[model]\nthreads = 1\n")
    (tmp_path / "link.toml").symlink_to(tmp_path / "real.toml")
    update_file(tmp_path / "link.toml", {"model.threads": 2})
    assert (tmp_path / "link.toml").is_symlink()
    assert "threads = 2" in (tmp_path / "real.toml").read_text()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        update_file(tmp_path / "file" / "c.toml", {"model.threads": 2})


def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[model]\nthreads = 1\n")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        update_file(path, {"model.threads": 2})
    assert path.read_text() == "[model]\nthreads = 1\n"
    assert [file.name for file in tmp_path.iterdir()] == ["c.toml"]


def test_other_settings_of_the_user_reach_the_trials(speeds: dict[tuple[float, ...], tuple[float, float]]) -> None:
    speeds.update(dict.fromkeys([(1, 40), (2, 40), (3, 40), (1, 60), (1, 80)], (1.0, 1.0)))
    settings = Settings(camera=CameraSettings(source="demo"), model=ModelSettings(threads=3))
    assert bench.tune(settings)[1]["model.threads"] == 1


def test_no_secret_in_what_people_pass_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("edge_fer.measure.open_source", lambda settings: DemoSource())
    for options in ([], ["--json"]):
        assert main(["bench", "--frames", "8", "--camera", "rtsp://me:hunter2@host/?token=hunter2", *options]) == 0
        shown = capsys.readouterr()
        assert "rtsp://" in shown.out
        assert "hunter2" not in shown.out + shown.err
