"""What every sink keeps to, and how it is named."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from story import a_face, a_result, a_run, a_story, file_size_limit

from edge_fer.core import Frame, FrameResult
from edge_fer.errors import OutputError, UsageError
from edge_fer.sinks import open_sink

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


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    reason = f"Cannot write {name}: File too large" if name.endswith(".mp4") else f"{name} could not be written in full"
    with file_size_limit(60_000), pytest.raises(OutputError, match=reason):
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


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("jsnl:a", "Unknown output 'jsnl:a'. Did you mean jsonl:events.jsonl?"),
        ("events.txt", "Unknown output 'events.txt'. Known: terminal, jsonl:events.jsonl, csv:faces.csv, "),
        ("", "Unknown output ''. Known: terminal"),
        ("jsonl", "Output 'jsonl' needs a path: write jsonl:events.jsonl."),
        ("video:", "Output 'video:' needs a path: write video:annotated.mp4."),
        ("terminal:a", "The terminal does not show 'a'. Write terminal, terminal:text, terminal:picture or terminal:"),
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


@pytest.mark.parametrize("spec", ["mqtt://user:secret@host", "jsonl://user:secret@host/x", "htp://h/?token=secret"])
def test_secrets_are_not_repeated(spec: str) -> None:
    try:
        open_sink(spec, a_run()).close()  # jsonl: a path
    except UsageError as error:
        assert "secret" not in str(error)


def test_a_path_with_a_zero_byte() -> None:
    with pytest.raises(UsageError, match="zero byte"):
        open_sink("csv:a\0b", a_run())
