from __future__ import annotations

import csv
import importlib
import io
import json
import os
import pty
import resource
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.core import Expression, Face, FaceBox, Frame, FrameResult, Prediction, Quality, TrueFace
from edge_fer.draw import COLORS, annotate
from edge_fer.errors import OutputError, UsageError
from edge_fer.events import Run
from edge_fer.sinks import open_sink
from edge_fer.sinks.terminal import TerminalSink

SPECS = [
    "terminal",
    "jsonl:new/a.jsonl",
    "jsonl:-",
    "csv:new/a.csv",
    "csv:-",
    "video:new/a.mp4",
    "video:new/a.avi",
    "pictures:new/a",
]


def predict(expression: Expression, confidence: float = 0.79) -> Prediction:
    """As the seven-class model does: it knows no contempt."""
    labels = [label for label in Expression if label != Expression.CONTEMPT]
    rest = (1 - confidence) / (len(labels) - 1)
    return Prediction({label: confidence if label == expression else rest for label in labels})


def a_face(track: int = 1, expression: Expression = Expression.HAPPINESS, phase: str = "update", x: float = 30) -> Face:
    prediction = predict(expression)
    box = FaceBox(x, 25.0, 60.0, 60.0)
    return Face(track, phase, box, expression, prediction, prediction, 400.0, Quality(60, 41.0, 0.5))  # type: ignore[arg-type]


def a_result(
    seq: int = 0,
    *faces: Face,
    time_s: float | None = None,
    stream: str = "clip",
    still: bool = False,
    ended: tuple[Face, ...] = (),
    truth: tuple[TrueFace, ...] = (),
    gray: int = 128,
    size_wh: tuple[int, int] = (160, 120),
) -> FrameResult:
    picture = np.full((size_wh[1], size_wh[0]), gray, np.uint8)
    frame = Frame(picture, seq, seq / 10 if time_s is None else time_s, stream, still, truth)
    return FrameResult(frame, faces, ended, {"detect": 20.0 + seq, "classify": 0.5})


def a_run(live: bool = False) -> Run:
    return Run("pi", "compact", "ab" * 32, fps=10.0, live=live)


def a_story() -> list[FrameResult]:
    """Nobody, a face, two faces, one of them gone."""
    return [
        a_result(0),
        a_result(1, a_face(1, phase="start")),
        a_result(2, a_face(1), a_face(2, Expression.FEAR, "start", x=95)),
        a_result(3, a_face(2, Expression.FEAR), ended=(a_face(1),)),
    ]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """The kernel refuses to write files beyond it, in the middle of a write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def frames_of(path: str) -> list[np.ndarray]:
    clip, frames = cv2.VideoCapture(path), []
    while True:
        ok, frame = clip.read()
        if not ok:
            return frames
        frames.append(frame)


# ---------------------------------------------------------------- the contract of every sink


@pytest.mark.parametrize("spec", SPECS)
def test_takes_a_story_and_closes_twice(spec: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sink = open_sink(spec, a_run())
    for result in a_story():
        sink.write(result)
    sink.close()
    sink.close()
    out, err = capfd.readouterr()
    assert err == ""
    if ":new/" in spec:
        assert out == ""
        assert Path(spec.partition(":")[2]).exists()
    else:
        assert "happiness" in out
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spec", SPECS)
def test_takes_still_pictures(spec: str, capfd: pytest.CaptureFixture[str]) -> None:
    sink = open_sink(spec, a_run())
    sink.write(a_result(0, a_face(phase="start"), stream="photos/one.png", still=True))
    sink.write(a_result(1, stream="photos/two.png", still=True, size_wh=(90, 200)))
    sink.close()
    out, err = capfd.readouterr()
    assert err == ""
    assert Path(spec.partition(":")[2]).exists() if ":new/" in spec else "happiness" in out


@pytest.mark.parametrize("spec", SPECS)
def test_closes_without_results(spec: str) -> None:
    open_sink(spec, a_run()).close()
    assert not Path("new/a.mp4").exists()


@pytest.mark.parametrize("spec", SPECS)
def test_leaves_the_frame_as_it_was(spec: str) -> None:
    color = np.full((120, 160, 3), 77, np.uint8)
    frame = Frame(np.full((120, 160), 77, np.uint8), 0, 0.0, "clip", color=lambda: color)
    sink = open_sink(spec, a_run())
    sink.write(FrameResult(frame, (a_face(),), (), {"detect": 1.0, "classify": 1.0}))
    sink.close()
    assert (color == 77).all()
    assert (frame.gray == 77).all()


@pytest.mark.parametrize("spec", [spec for spec in SPECS if ":new/" in spec])
def test_a_file_where_the_folder_should_be(spec: str) -> None:
    Path("new").write_text("in the way")
    with pytest.raises(OutputError, match=r"^Cannot write new.*\. [A-Z].*\.$"):
        open_sink(spec, a_run())


@pytest.mark.parametrize(
    "spec", ["jsonl:locked/a.jsonl", "csv:locked/a.csv", "video:locked/a.mp4", "pictures:locked", "pictures:locked/new"]
)
def test_a_folder_that_may_not_be_written(
    spec: str, tmp_path: Path, nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    importlib.import_module(f"edge_fer.sinks.{spec.partition(':')[0]}")  # nobody may not read Python's own files
    tmp_path.chmod(0o755)
    Path("locked").mkdir(mode=0o555)
    with nobody(), pytest.raises(OutputError, match=r"^Cannot write locked.*: Permission denied\. Choose another"):
        open_sink(spec, a_run())


@pytest.mark.parametrize("spec", ["terminal", "jsonl:-", "csv:-", "jsonl:/dev/full", "csv:/dev/full"])
def test_a_full_disk(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OutputError, match="Make room on the disk"):
            write_all(spec)


@pytest.mark.parametrize(
    "spec", ["jsonl:new/a.jsonl", "csv:new/a.csv", "video:new/a.mp4", "video:new/a.avi", "pictures:new/a"]
)
def test_a_disk_that_fills_up(spec: str) -> None:
    with file_size_limit(400), pytest.raises(OutputError):
        write_all(spec)


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_a_disk_that_fills_up_in_the_middle_of_a_video(name: str) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (30, 120, 160)).astype(np.uint8)
    sink = open_sink(f"video:{name}", a_run())
    with file_size_limit(60_000), pytest.raises(OutputError, match=f"{name} could not be written in full"):
        for seq, gray in enumerate(noise):
            sink.write(FrameResult(Frame(gray, seq, seq / 10, "clip"), (), (), {}))
        sink.close()
    sink.close()


def write_all(spec: str) -> None:
    """A story is written; after a failure the sink still closes, quietly, twice."""
    sink = open_sink(spec, a_run())
    try:
        for result in a_story():
            sink.write(result)
    except OutputError:
        sink.close()
        sink.close()
        raise
    sink.close()


@pytest.mark.parametrize("spec", ["terminal", "jsonl:-", "csv:-"])
def test_a_reader_that_goes_away(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    # Closing the file at the end proves that nothing was left in its buffer.
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        sink = open_sink(spec, a_run())
        sink.write(a_result(0, a_face(phase="start")))
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            sink.write(a_result(1, a_face(2, phase="start")))
        sink.close()
        sink.close()


@pytest.mark.parametrize("spec", ["terminal", "jsonl:-"])
def test_a_reader_that_goes_away_before_the_end(
    spec: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        sink = open_sink(spec, a_run())
        sink.write(a_result(0, a_face(phase="start")))
        os.close(reader)
        sink.close()
    assert capfd.readouterr().err == ""


def test_a_service_does_not_load_rich() -> None:
    script = (
        "import sys; from edge_fer.sinks import open_sink; from edge_fer.events import Run\n"
        "for spec in 'terminal', 'jsonl:-', 'csv:-': open_sink(spec, Run(live=True)).close()\n"
        "sys.exit('rich' in sys.modules)"
    )
    folder = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, check=False).returncode == 0


# ---------------------------------------------------------------- specs


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("jsnl:a", "Unknown output 'jsnl:a'. Did you mean jsonl:events.jsonl?"),
        ("events.txt", "Unknown output 'events.txt'. Known: terminal, jsonl:events.jsonl, csv:faces.csv, "),
        ("", "Unknown output ''. Known: terminal"),
        ("jsonl", "Output 'jsonl' needs a path: write jsonl:events.jsonl."),
        ("video:", "Output 'video:' needs a path: write video:annotated.mp4."),
        ("terminal:a", "Output 'terminal:a' takes no path: write terminal."),
        ("video:a.mov", "A video ends in .mp4 or .avi, and 'a.mov' does not"),
        ("video:-", "A video ends in .mp4 or .avi, and '-' does not"),
    ],
)
def test_wrong_specs(spec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_sink(spec, a_run())
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    open_sink("jsonl:~/a.jsonl", a_run()).close()
    assert (tmp_path / "me" / "a.jsonl").exists()
    open_sink("jsonl:~nobody-has-this-name.jsonl", a_run()).close()
    assert (tmp_path / "~nobody-has-this-name.jsonl").exists()


# ---------------------------------------------------------------- jsonl


def lines_of(path: str) -> list[tuple[int, int, str]]:
    events = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [(event["seq"], event["track"], event["phase"]) for event in events]


def test_jsonl_is_complete_after_every_frame() -> None:
    sink = open_sink("jsonl:a.jsonl", a_run())
    expected = []
    for result, news in zip(
        a_story(),
        ([], [(1, 1, "start")], [(2, 1, "update"), (2, 2, "start")], [(2, 1, "end"), (3, 2, "update")]),
        strict=True,
    ):
        sink.write(result)
        expected += news
        assert lines_of("a.jsonl") == expected
    sink.close()
    assert lines_of("a.jsonl") == [*expected, (3, 2, "end")]


def test_no_half_line_remains_and_writing_goes_on_when_there_is_room_again() -> None:
    sink = open_sink("jsonl:a.jsonl", a_run())
    sink.write(a_result(0, a_face(1, phase="start")))
    whole = Path("a.jsonl").read_bytes()
    with file_size_limit(len(whole) + 100), pytest.raises(OutputError):
        sink.write(a_result(1, a_face(1)))
    assert Path("a.jsonl").read_bytes() == whole
    sink.write(a_result(2, a_face(1)))
    sink.close()
    assert lines_of("a.jsonl") == [(0, 1, "start"), (2, 1, "update"), (2, 1, "end")]


@pytest.mark.parametrize(("live", "runs"), [(False, 1), (True, 2)])
@pytest.mark.parametrize("spec", ["jsonl:a", "csv:a"])
def test_files_of_clips_are_replaced_and_those_of_cameras_continued(spec: str, live: bool, runs: int) -> None:
    for _ in range(2):
        sink = open_sink(spec, a_run(live))
        sink.write(a_result(0, a_face(phase="start")))
        sink.close()
    text = Path("a").read_text()
    assert text.count("start") == runs
    assert text.count("confidence,raw") == (spec == "csv:a")


# ---------------------------------------------------------------- csv


def test_csv_has_a_row_for_each_face_and_frame() -> None:
    sink = open_sink("csv:a.csv", a_run())
    for result in a_story():
        sink.write(result)
    sink.write(a_result(4, a_face(3, Expression.ANGER, "start", x=10.26), stream='a "strange", name\udcff'))
    sink.close()
    with Path("a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seq"], row["track"], row["phase"]) for row in rows] == [
        ("1", "1", "start"),
        ("2", "1", "update"),
        ("2", "2", "start"),
        ("3", "2", "update"),
        ("4", "3", "start"),
    ]
    last = rows[-1]
    assert last["camera"] == 'a "strange", name\\udcff'
    assert [last[key] for key in ("time_s", "x", "y", "w", "h", "size_px")] == [
        "0.4",
        "10.3",
        "25.0",
        "60.0",
        "60.0",
        "60",
    ]
    assert (last["expression"], last["confidence"], last["raw"]) == ("anger", "0.79", "anger")
    assert [last[label] for label in Expression] == ["0.035"] * 4 + ["0.79"] + ["0.035"] * 2 + [""]


# ---------------------------------------------------------------- video


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "100%d a:b.mp4"])
def test_video_keeps_the_time_of_the_stream(name: str) -> None:
    sink = open_sink(f"video:{name}", a_run())
    # Two frames in one moment, then a gap of three, then the next frame in time.
    for time_s, gray in ((5.0, 20), (5.1, 60), (5.12, 255), (5.2, 100), (5.6, 160), (5.7, 220)):
        sink.write(a_result(0, time_s=time_s, gray=gray))
    sink.close()
    shades = [round(frame.mean() / 20) * 20 for frame in frames_of(name)]
    assert shades == [20, 60, 100, 100, 100, 100, 160, 220]
    assert cv2.VideoCapture(str(Path(name).absolute()), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FPS) == pytest.approx(10)


def test_video_does_not_hold_a_picture_for_hours() -> None:
    sink = open_sink("video:a.mp4", a_run())
    for time_s, gray in ((0.0, 40), (7200.0, 200), (7200.2, 120)):
        sink.write(a_result(0, time_s=time_s, gray=gray))
    sink.close()
    shades = [round(frame.mean() / 20) * 20 for frame in frames_of("a.mp4")]
    assert shades == [40] * 21 + [200, 200, 120]


def test_video_of_several_streams_and_sizes() -> None:
    sink = open_sink("video:a.mp4", a_run())
    sink.write(a_result(0, gray=200, size_wh=(161, 121)))
    sink.write(a_result(0, gray=200, size_wh=(60, 240), stream="tall"))
    sink.write(a_result(0, gray=200, size_wh=(320, 40), stream="wide"))
    sink.close()
    first, tall, wide = (frame[..., 0] > 100 for frame in frames_of("a.mp4"))
    assert first.shape == (120, 160)
    assert first.all()
    assert tall[:, 68:92].all()
    assert not tall[:, :60].any() and not tall[:, 100:].any()
    assert wide[54:66].all()
    assert not wide[:44].any() and not wide[76:].any()


def test_video_at_a_rate_that_mpeg4_cannot_count() -> None:
    run = Run("pi", "compact", "ab" * 32, fps=143.8561)
    sink = open_sink("video:a.mp4", run)
    for seq in range(30):
        sink.write(a_result(seq, time_s=seq / run.fps))
    sink.close()
    assert len(frames_of("a.mp4")) == 30


def test_video_too_large_for_mpeg4() -> None:
    sink = open_sink("video:a.mp4", a_run())
    with pytest.raises(OutputError, match=r"9000 x 16 pixels .* \.avi"):
        sink.write(a_result(0, size_wh=(9000, 16)))
    sink.close()


# ---------------------------------------------------------------- pictures


def test_pictures_are_named_after_their_source_or_frame() -> None:
    sink = open_sink("pictures:out", a_run())
    for stream in ("a/one.png", "b/one.jpg", "b/one-2.jpg", "a/two.png"):
        sink.write(a_result(0, stream=stream, still=True))
    sink.write(a_result(123, a_face()))
    sink.close()
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "000123.jpg",
        "one-2-2.jpg",
        "one-2.jpg",
        "one.jpg",
        "two.jpg",
    ]
    picture = cv2.imread("out/000123.jpg")
    assert picture.shape == (120, 160, 3)
    assert np.ptp(picture.astype(int), axis=2).max() > 60  # the gray frame has got color


def test_pictures_do_not_replace_their_sources() -> None:
    Path("photos").mkdir()
    Path("photos/one.jpg").write_bytes(b"precious")
    sink = open_sink("pictures:photos", a_run())
    with pytest.raises(OutputError, match="Choose another folder"):
        sink.write(a_result(0, stream="photos/../photos/one.jpg", still=True))
    sink.close()
    assert Path("photos/one.jpg").read_bytes() == b"precious"


def test_no_half_picture_remains() -> None:
    sink = open_sink("pictures:out", a_run())
    with file_size_limit(100), pytest.raises(OutputError, match=r"out/000001\.jpg"):
        sink.write(a_result(1, a_face()))
    assert list(Path("out").iterdir()) == []


# ---------------------------------------------------------------- draw


@pytest.mark.parametrize("expression", list(Expression))
def test_boxes_have_the_color_of_their_expression(expression: Expression) -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    box = FaceBox(200, 150, 160, 160)
    prediction = Prediction({label: float(label == expression) for label in Expression})
    annotate(
        picture, [Face(1, "start", box, prediction.expression, prediction, prediction, 0.0, Quality(160, 1.0, 0.5))]
    )
    red, green, blue = bytes.fromhex(COLORS[expression][1:])
    for y, x in ((150, 280), (310, 280), (230, 200), (230, 360)):
        assert picture[y, x].tolist() == [blue, green, red]
    assert not picture[160:300, 210:350].any()  # the face itself stays free


def test_faces_keep_their_colors_apart() -> None:
    assert len(set(COLORS.values())) == len(COLORS) == len(Expression)


def test_a_label_goes_where_no_other_face_is() -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    prediction = predict(Expression.ANGER)
    boxes = [FaceBox(300, 200, 60, 60), FaceBox(380, 150, 60, 60), FaceBox(380, 250, 60, 60)]
    quality = Quality(60, 1.0, 0.5)
    annotate(
        picture,
        [Face(1, "start", box, prediction.expression, prediction, prediction, 0.0, quality) for box in boxes],
    )
    assert picture[180:190, 250:290].any()  # above the first face, and to the left of it
    for box in boxes:
        assert not picture[int(box.y) + 6 : int(box.y) + 54, int(box.x) + 6 : int(box.x) + 54].any()


@given(
    size_hw=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    boxes=st.lists(st.tuples(*[st.floats(-400, 400)] * 2, *[st.floats(0.1, 400)] * 2), max_size=4),
)
def test_any_box_can_be_drawn_on_any_picture(size_hw: tuple[int, int], boxes: list[tuple[float, ...]]) -> None:
    picture = np.zeros((*size_hw, 3), np.uint8)
    prediction = predict(Expression.ANGER)
    quality = Quality(1, 1.0, 0.5)
    annotate(
        picture,
        [Face(9, "start", FaceBox(*box), prediction.expression, prediction, prediction, 0.0, quality) for box in boxes],
    )
    assert picture.shape == (*size_hw, 3)


# ---------------------------------------------------------------- terminal


def test_plain_lines_tell_what_changes(capsys: pytest.CaptureFixture[str]) -> None:
    sink = open_sink("terminal", a_run())
    for result in a_story():
        sink.write(result)
    sink.write(a_result(124, a_face(2, Expression.ANGER)))
    assert capsys.readouterr().out.splitlines() == [
        "0.1 s  face 1  happiness 79 %",
        "0.2 s  face 2  fear 79 %",
        "0.3 s  face 1  left",
        "12.4 s  face 2  anger 79 %",
    ]


def test_plain_lines_of_still_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    sink = open_sink("terminal", a_run())
    sink.write(a_result(0, a_face(1, phase="start"), a_face(2, phase="start"), stream="photos/one.jpg", still=True))
    sink.write(a_result(1, stream="photos/two.jpg", still=True))
    sink.close()
    assert capsys.readouterr().out.splitlines()[:3] == [
        "one.jpg  face 1  happiness 79 %",
        "one.jpg  face 2  happiness 79 %",
        "two.jpg  no face",
    ]


def test_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([100.0, 100.5, 101.0, 102.0])
    sink = TerminalSink(clock=lambda: next(clock))
    sink.write(a_result(0, a_face(1, phase="start")))
    sink.write(a_result(1, a_face(1), a_face(2, Expression.FEAR, "start")))
    sink.write(a_result(2, a_face(1), a_face(2, Expression.FEAR)))
    sink.write(a_result(3, a_face(1), stream="next"))
    capsys.readouterr()
    sink.close()
    assert capsys.readouterr().out.splitlines() == [
        "4 frames (0.2 s), 1.5 a second, 2 faces",
        "  happiness  ████████████████████████      4   67 %",
        "  fear       ████████████░░░░░░░░░░░░      2   33 %",
        "median a frame: detect 21.0 ms, classify 0.5 ms",
    ]


def test_the_summary_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    open_sink("terminal", a_run()).close()
    assert capsys.readouterr().out == "0 frames (0.0 s), 0 faces\n"


def test_the_summary_judges_by_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    def truth(x: float, expression: Expression | None) -> TrueFace:
        return TrueFace(FaceBox(x, 25, 60, 60), expression)

    sink = open_sink("terminal", a_run())
    happy, afraid = a_face(1, Expression.HAPPINESS), a_face(2, Expression.FEAR, x=95)
    # Both right. One wrong. The nearer of two detected counts. One between two expressions, one not found.
    sink.write(a_result(0, happy, afraid, truth=(truth(32, Expression.HAPPINESS), truth(90, Expression.FEAR))))
    sink.write(a_result(1, happy, truth=(truth(30, Expression.SADNESS),)))
    sink.write(a_result(2, happy, a_face(3, Expression.ANGER, x=50), truth=(truth(45, Expression.ANGER),)))
    sink.write(a_result(3, happy, truth=(truth(30, None), truth(80, Expression.HAPPINESS))))
    sink.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["faces found: 4 of 5", "right expression: 3 of 4 (75.0 %)"]


def test_no_truth_no_judgement(capsys: pytest.CaptureFixture[str]) -> None:
    sink = open_sink("terminal", a_run())
    sink.write(a_result(0, a_face()))
    sink.close()
    assert "found" not in capsys.readouterr().out


def test_a_terminal_that_knows_only_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    sink = open_sink("terminal", a_run())
    sink.write(a_result(0, a_face(phase="start"), stream="photos/Ärger\udcff.jpg", still=True))
    sink.close()
    lines = raw.getvalue().decode("ascii").splitlines()
    assert lines[0] == "\\xc4rger\\udcff.jpg  face 1  happiness 79 %"
    assert lines[2] == "  happiness  ########################      1  100 %"


class Screen:
    """A real terminal (a pty) in place of stdout; ``text`` is all that was sent to it so far."""

    def __init__(self, encoding: str) -> None:
        self._master, slave = pty.openpty()
        self.stdout = os.fdopen(slave, "w", encoding=encoding)
        self._text = b""

    @property
    def text(self) -> str:
        self.stdout.flush()
        while select.select([self._master], [], [], 0)[0]:
            self._text += os.read(self._master, 65536)
        return self._text.decode()

    def close(self) -> None:
        self.stdout.close()
        os.close(self._master)


@contextmanager
def a_screen(monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8", **environ: str) -> Iterator[Screen]:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", **environ}.items():
        monkeypatch.setenv(name, value)
    screen = Screen(encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen.stdout)
        yield screen
    screen.close()


def test_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    with a_screen(monkeypatch) as screen:
        sink = TerminalSink(clock=lambda: now_s)
        for seq in range(201):
            now_s = seq / 100
            sink.write(a_result(seq, a_face(3, Expression.ANGER), a_face(4, Expression.FEAR, x=95)))
            text = screen.text
        assert 10 <= text.count("frame ") <= 22  # two seconds at ten a second, and both ends
        for part in ("clip", "100.0 fps", "classify 0.5 ms", "face 3", "anger", "79 %", "█", "face 4", "fear"):
            assert part in text
        assert "\x1b[38;5;" in text
        sink.close()
        sink.close()
        summary = screen.text[len(text) :]
    assert "201 frames (20.0 s), 100.0 a second" in summary
    assert "\x1b[?25h" in summary  # the cursor is back


def test_the_live_view_without_color(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch, NO_COLOR="1") as screen:
        sink = open_sink("terminal", a_run())
        sink.write(a_result(0, a_face(3, Expression.ANGER)))
        sink.close()
        assert "anger" in screen.text
        assert "\x1b[38;" not in screen.text


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch, TERM="dumb") as screen:
        sink = open_sink("terminal", a_run())
        sink.write(a_result(0, a_face(3, Expression.ANGER)))
        sink.close()
        assert screen.text.startswith("0.0 s  face 3  anger 79 %\r\n1 frame (0.0 s), 0 faces\r\n")
        assert "\x1b" not in screen.text


def test_the_live_view_on_a_terminal_that_knows_only_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_screen(monkeypatch, encoding="ascii") as screen:
        sink = open_sink("terminal", a_run())
        sink.write(a_result(0, a_face(3, Expression.ANGER), stream="Küche\udcff"))
        sink.close()
        assert "K?che?" in screen.text
        assert "#####" in screen.text
