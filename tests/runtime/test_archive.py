"""Archives: what `run` says of each video as Parquet, whatever happens on the way."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("joblib")
pytest.importorskip("pyarrow")

import pyarrow.parquet as pq
from story import file_size_limit

from edge_fer.archive import engines, folder, task
from edge_fer.archive.inputs import Shard, Video, find_videos
from edge_fer.archive.tables import FACES, VIDEOS
from edge_fer.cli import build_parser, main
from edge_fer.cli.archive import _job
from edge_fer.core import Frame
from edge_fer.model.bundle import DETECTORS

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_fer.config.default_files", list)
    for name in [name for name in os.environ if name.startswith("EDGE_FER_")]:
        monkeypatch.delenv(name)


def write_clip(path: Path, frames: list[Frame]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15, (640, 480))
    for frame in frames:
        writer.write(frame.picture())
    writer.release()
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, demo_frames: list[Frame]) -> Path:
    """Three clips of different lengths. Read them, do not change them."""
    home = tmp_path_factory.mktemp("videos")
    for name, count in (("a.avi", 12), ("b.avi", 8), ("below/c.avi", 5)):
        write_clip(home / name, demo_frames[:count])
    return home


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, videos: Path, call: Callable[..., Any]) -> Path:
    """Their archive, made without disturbance in one process."""
    output = tmp_path_factory.mktemp("archive") / "whole"
    assert call(main, "archive", videos, "-o", output, "-j", 1).code == 0
    return output


def rows(archive: Path, table: str = "faces") -> list[dict[str, Any]]:
    found = [row for path in (archive / table).glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return sorted(found, key=lambda row: (row["video"], row.get("seq", 0), row.get("track", 0)))


def content(archive: Path) -> dict[str, bytes]:
    """All files of the tables; none is left in work."""
    assert list((archive / "working").iterdir()) == []
    return {str(path.relative_to(archive)): path.read_bytes() for path in sorted(archive.glob("*/*.parquet"))}


def sentence(called: Any) -> str:
    (line,) = called.err.splitlines()
    return str(line)


def test_the_rows_are_the_answers_of_run(videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    for path in (videos / "a.avi", videos / "below/c.avi"):
        assert call(main, "run", "--camera", path, "--output", f"jsonl:{tmp_path}/run.jsonl").code == 0
        events = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
        events = [event for event in events if event["phase"] != "end"]
        own = [row for row in rows(whole) if row["video"] == str(path)]
        assert len(own) == len(events) > 0
        for row, event in zip(own, sorted(events, key=lambda one: (one["seq"], one["track"])), strict=True):
            for key in ("seq", "time_s", "track", "expression", "confidence", "uncertain", "raw", "intensity"):
                assert row[key] == event[key]
            assert [row[key] for key in ("valence", "arousal", "stable_ms")] == [
                event[key] for key in ("valence", "arousal", "stable_ms")
            ]
            assert [row[side] for side in "xywh"] == event["box"]
            assert {key[2:]: row[key] for key in row if key.startswith("p_") and row[key] is not None} == event[
                "probabilities"
            ]
            assert {key: row[key] for key in event["quality"]} == event["quality"]


def test_the_row_of_a_video(videos: Path, whole: Path) -> None:
    first, _, _ = rows(whole, "videos")
    assert first["video"] == str(videos / "a.avi")
    assert (first["width"], first["height"], first["fps"], first["frames"]) == (640, 480, 15.0, 12)
    assert first["duration_s"] == pytest.approx(11 / 15, abs=1e-3)
    assert first["faces"] == sum(row["video"] == first["video"] for row in rows(whole))
    assert (first["tracks"], first["error"], first["warnings"], first["decision"]) == (2, None, [], "balanced")


@pytest.mark.parametrize("jobs", [1, 2])
def test_processes_write_the_same_bytes(
    jobs: int, videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    called = call(main, "archive", videos, "-o", tmp_path / "a", "-j", jobs, "--json")
    assert called.code == 0
    figures = json.loads(called.out)
    assert (figures["videos"], figures["done"], figures["bad"], figures["frames"]) == (3, 3, 0, 25)
    assert content(tmp_path / "a") == content(whole)


def test_sampling_and_a_limit_of_size(videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    least = sorted(row["size_px"] for row in rows(whole))[len(rows(whole)) // 2]
    options = ("--every", 3, "--min-size", least, "-j", 1)
    assert call(main, "archive", videos / "a.avi", "-o", tmp_path / "a", *options).code == 0
    sampled = rows(tmp_path / "a")
    assert {row["seq"] for row in sampled} == {0, 3, 6, 9}
    assert all(row["size_px"] >= least for row in sampled)
    (video,) = rows(tmp_path / "a", "videos")
    assert (video["frames"], video["tracks"], video["faces"]) == (4, 2, len(sampled))


def test_a_second_call_does_what_is_left(videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    archive = tmp_path / "a"
    shutil.copytree(whole, archive)
    untouched = {path: path.stat().st_ino for path in archive.glob("*/*.parquet")}
    lost = min((archive / "videos").glob("*.parquet"))
    lost.unlink()  # as after a cut between the two tables of a video
    assert "1 done, 2 done before" in call(main, "archive", videos, "-o", archive, "-j", 1).out
    assert content(archive) == content(whole)
    again = {path for path, inode in untouched.items() if path.stat().st_ino != inode}
    assert again == {lost, archive / "faces" / lost.name}
    assert "3 done before" in call(main, "archive", videos, "-o", archive).out


def test_a_file_that_has_changed_is_done_again(
    tmp_path: Path, demo_frames: list[Frame], call: Callable[..., Any]
) -> None:
    clip, archive = write_clip(tmp_path / "in/a.avi", demo_frames[:4]), tmp_path / "a"
    call(main, "archive", clip, "-o", archive, "-j", 1)
    write_clip(clip, demo_frames[:6])
    assert "1 done." in call(main, "archive", clip, "-o", archive, "-j", 1).out
    (row,) = rows(archive, "videos")
    assert row["frames"] == 6
    assert len(list((archive / "faces").iterdir())) == 1


@pytest.fixture
def junk(tmp_path: Path, videos: Path) -> Path:
    """A good video with a suffix that no video has, bad ones, and what is none."""
    home = tmp_path / "junk"
    (home / "deep").mkdir(parents=True)
    shutil.copy(videos / "a.avi", home / "deep/good.clip")
    whole = (videos / "b.avi").read_bytes()
    (home / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (home / "text.mp4").write_text("no video")
    (home / "empty.mkv").write_bytes(b"")
    (home / "notes.txt").write_text("none either")
    (home / "song.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    (home / "gone.mp4").symlink_to("/nowhere")
    os.mkfifo(home / "pipe.mov")  # whoever opens it waits for ever
    cv2.imwrite(str(home / "still.png"), cv2.VideoCapture(str(videos / "a.avi")).read()[1])
    return home


def test_bad_files_are_listed_and_passed_over(junk: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    called = call(main, "archive", junk, "-o", tmp_path / "a", "-j", 1)
    assert called.code == 0
    assert "4 videos: 1 done, 3 bad. 5 other files passed over." in called.out
    lines = called.err.splitlines()
    assert len(lines) == 3
    assert all(sum(name in line for line in lines) == 1 for name in ("cut.avi", "text.mp4", "empty.mkv"))
    table = {Path(row["video"]).name: row for row in rows(tmp_path / "a", "videos")}
    assert "cut short" in table["cut.avi"]["error"]
    assert 0 < table["cut.avi"]["frames"] < 8  # what could be read is there
    assert table["cut.avi"]["faces"] == sum(row["video"].endswith("cut.avi") for row in rows(tmp_path / "a"))
    assert (table["text.mp4"]["frames"], table["text.mp4"]["width"]) == (0, None)
    assert table["good.clip"]["error"] is None


def test_bad_files_are_tried_again_when_asked(junk: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    archive = tmp_path / "a"
    call(main, "archive", junk, "-o", archive, "-j", 1)
    before = content(archive)
    assert "4 done before" in call(main, "archive", junk, "-o", archive, "-j", 1).out
    assert "3 bad, 1 done before" in call(main, "archive", junk, "-o", archive, "-j", 1, "--retry").out
    assert content(archive) == before


def test_nothing_but_bad_files_is_an_error(tmp_path: Path, call: Callable[..., Any]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    called = call(main, "archive", tmp_path / "text.mp4", "-o", tmp_path / "a", "-j", 1)
    assert called.code == 65
    assert called.err.splitlines()[-1] == "edge-fer: Not one of these files could be read as a video."


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--every", "0"], 2, "--every must be at least 1, not 0."),
        (["--min-size", "-1"], 2, "--min-size must be at least 0"),
        (["--jobs", "0"], 2, "--jobs must be at least 1"),
        (["--shard", "5/4"], 2, "from 1/10 to 10/10, not '5/4'"),
        (["--shard", "0/4"], 2, "not '0/4'"),
        (["--shard", "x"], 2, "not 'x'"),
        (["--backend", "slurm"], 2, "--backend is loky, dask, ray or spark"),
        (["--backend", "loky:8"], 2, "not 'loky:8'"),
        (["--model", "nobody"], 66, "No model nobody"),
        (["--shards", "1/2"], 2, "Did you mean --shard?"),
    ],
)
def test_wrong_options_are_said_in_one_sentence(
    arguments: list[str], code: int, words: str, videos: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    called = call(main, "archive", videos, "-o", tmp_path / "a", *arguments)
    assert called.code == code
    assert words in sentence(called)
    assert not (tmp_path / "a").exists()


def test_inputs_that_are_not_there(tmp_path: Path, call: Callable[..., Any]) -> None:
    called = call(main, "archive", tmp_path / "nowhere", "-o", tmp_path / "a")
    assert (called.code, "nowhere: No such file" in sentence(called)) == (66, True)
    (tmp_path / "notes.txt").touch()
    called = call(main, "archive", tmp_path, "-o", tmp_path / "a")
    assert (called.code, "No video in" in sentence(called)) == (66, True)
    called = call(main, "archive", "-o", tmp_path / "a")
    assert (called.code, "Name the videos" in sentence(called)) == (2, True)


def test_places_that_cannot_be_an_archive(videos: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    (tmp_path / "file").touch()
    called = call(main, "archive", videos, "-o", tmp_path / "file")
    assert (called.code, "Cannot write" in sentence(called)) == (73, True)
    called = call(main, "archive", videos, "-o", videos)
    assert (called.code, "is not empty, and no archive" in sentence(called)) == (78, True)


def test_an_archive_is_made_in_one_way(videos: Path, whole: Path, call: Callable[..., Any]) -> None:
    called = call(main, "archive", videos, "-o", whole, "--every", 2)
    assert (called.code, "was made with every = 1, this call has 2" in sentence(called)) == (78, True)
    called = call(main, "archive", videos, "-o", whole, "--model", "nano")
    assert (called.code, "model_sha256" in sentence(called)) == (78, True)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"no"'])
def test_a_damaged_archive_is_refused(text: str, videos: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    (tmp_path / "archive.json").write_text(text)
    called = call(main, "archive", videos, "-o", tmp_path)
    assert called.code in (65, 78)
    assert "-o." in sentence(called)


@pytest.mark.parametrize(
    ("module", "backend", "cure"),
    [
        ("joblib", "loky", "joblib is not installed: run `pip install joblib pyarrow`."),
        ("pyarrow", "loky", "pyarrow is not installed: run `pip install joblib pyarrow`."),
        ("distributed", "dask", "distributed is not installed: run `pip install 'dask[distributed]'`."),
        ("ray", "ray", "ray is not installed: run `pip install ray`."),
        ("joblibspark", "spark", "joblibspark is not installed: run `pip install joblibspark pyspark`."),
    ],
)
def test_what_is_not_installed_is_named(
    module: str,
    backend: str,
    cure: str,
    videos: Path,
    tmp_path: Path,
    call: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Missing:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name.partition(".")[0] == module:
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    called = call(main, "archive", videos, "-o", tmp_path / "a", "--backend", backend)
    assert (called.code, sentence(called)) == (69, f"edge-fer: {cure}")


@given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 7))
def test_shards_share_all_videos_among_them(names: list[str], count: int) -> None:
    videos = [Video(f"/{name.encode('utf-8', 'replace').decode()}", 1, 1) for name in names]
    shards = [[video for video in videos if Shard(number, count).holds(video)] for number in range(1, count + 1)]
    assert sorted(video for shard in shards for video in shard) == sorted(videos)


def test_shards_make_one_archive(videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    for number in (1, 2, 3):
        assert call(main, "archive", videos, "-o", tmp_path / "a", "-j", 1, "--shard", f"{number}/3").code == 0
    assert content(tmp_path / "a") == content(whole)


def test_a_video_that_another_has_in_hand_is_left_to_him(
    videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    archive = tmp_path / "a"
    shutil.copytree(whole, archive)
    (first, *_), _ = find_videos([str(videos)])
    folder.ArchiveFolder(archive).row_file(first.key, good=True).unlink()
    with (archive / "working" / f"{first.key}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "1 in another's hand, 2 done before" in call(main, "archive", videos, "-o", archive, "-j", 1).out
    assert "1 done, 2 done before" in call(main, "archive", videos, "-o", archive, "-j", 1).out
    assert content(archive) == content(whole)


def test_two_calls_on_one_archive_at_once(videos: Path, whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_fer", "archive", str(videos), "-o", str(tmp_path / "a"), "-j", "1", "--json"]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    figures = [json.loads(one.communicate()[0]) for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert content(tmp_path / "a") == content(whole)
    assert sum(one["frames"] for one in figures) == 25  # no video was done twice


def dies_once(job: task.Job, video: Video, stale: Any) -> task.Outcome:
    """As the system does with a process when memory runs out, while it has a video in hand."""
    mark = job.folder.parent / "died"
    if video.path.endswith("b.avi") and not mark.exists():
        mark.touch()
        with folder.ArchiveFolder(job.folder).claim(video.key):
            os.kill(os.getpid(), signal.SIGKILL)
    return task.process(job, video, stale)


def test_a_worker_is_killed_and_the_rest_goes_on(
    videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "process", dies_once)
    called = call(main, "archive", videos, "-o", tmp_path / "a", "-j", 2)
    assert (called.code, (tmp_path / "died").exists()) == (0, True)
    assert "3 videos: 3 done." in called.out
    assert content(tmp_path / "a") == content(whole)


def dies_untold(job: task.Job, video: Video, stale: Any) -> task.Outcome:
    """Its video is done and the row is there, but nobody hears of it."""
    outcome = task.process(job, video, stale)
    mark = job.folder.parent / "died"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return outcome


def test_what_a_worker_had_done_before_it_died_counts(
    videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "process", dies_untold)
    called = call(main, "archive", videos, "-o", tmp_path / "a", "-j", 2, "--json")
    figures = json.loads(called.out)
    assert (called.code, figures["frames"]) == (0, 25)
    assert content(tmp_path / "a") == content(whole)


def dies_always(job: task.Job, video: Video, stale: Any) -> task.Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_workers_that_always_die_end_the_call(
    videos: Path, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "process", dies_always)
    called = call(main, "archive", videos, "-o", tmp_path / "a", "-j", 2)
    assert (called.code, "die again and again" in sentence(called)) == (1, True)


def test_a_video_that_nobody_survives_is_bad(
    videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    archive = tmp_path / "a"
    shutil.copytree(whole, archive)
    (first, *_), _ = find_videos([str(videos)])
    folder.ArchiveFolder(archive).row_file(first.key, good=True).unlink()
    (archive / "working" / f"{first.key}.lock").write_text("3")
    called = call(main, "archive", videos, "-o", archive, "-j", 1)
    assert (called.code, "A worker died 3 times while it had this video in hand." in sentence(called)) == (0, True)
    assert call(main, "archive", videos, "-o", archive, "-j", 1, "--retry").code == 0
    assert content(archive) == content(whole)


def test_the_whole_call_is_killed_and_the_next_goes_on(
    videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    archive = tmp_path / "a"
    archive.mkdir()
    script = (
        "import os, signal, sys; from edge_fer.archive import folder; from edge_fer.cli import main; "
        "put = folder.ArchiveFolder.put\n"
        "def dies(self, draft, place):\n"
        "    if len(os.listdir(self.faces)) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    put(self, draft, place)\n"
        "folder.ArchiveFolder.put = dies; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, "archive", str(videos), "-o", str(archive), "-j", "1"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert len(list((archive / "videos").iterdir())) == 1  # and the faces of another, without its row
    assert "2 done, 1 done before" in call(main, "archive", videos, "-o", archive, "-j", 1).out
    assert content(archive) == content(whole)


@pytest.mark.parametrize("text", ["", "\0\0", "x"])
def test_a_lock_that_a_power_cut_has_left_is_taken(text: str, tmp_path: Path) -> None:
    (tmp_path / "working").mkdir()
    (tmp_path / "working/key.lock").write_text(text)
    with folder.ArchiveFolder(tmp_path).claim("key") as deaths:
        assert deaths == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_signal_stops_it_and_the_next_call_goes_on(
    jobs: int, number: int, videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    archive = tmp_path / "a"
    script = (
        # Who runs the tests in the background of a script has them ignore Ctrl-C.
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from edge_fer.cli import archive, main; take = archive._Progress.take\n"
        f"def stops(self, outcome): take(self, outcome); os.kill(os.getpid(), {int(number)})\n"
        "archive._Progress.take = stops; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "archive", str(videos), "-o", str(archive), "-j", str(jobs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "Stopped." in done.stderr and "The same command goes on." in done.stderr
    assert "Traceback" not in done.stderr
    assert call(main, "archive", videos, "-o", archive, "-j", 1).code == 0
    assert content(archive) == content(whole)


def test_a_full_disk_loses_nothing(videos: Path, whole: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    archive = tmp_path / "a"
    call(main, "archive", videos / "below/c.avi", "-o", archive, "-j", 1)
    before = content(archive)
    with file_size_limit(2000):
        called = call(main, "archive", videos, "-o", archive, "-j", 1)
    assert called.code == 73
    assert re.search(r"Cannot write .*\. What is done stays done; the same command goes on\.", sentence(called))
    assert content(archive) == before
    assert call(main, "archive", videos, "-o", archive, "-j", 1).code == 0
    assert content(archive) == content(whole)


def test_a_worker_with_another_model_is_refused(videos: Path, tmp_path: Path) -> None:
    (video, *_), _ = find_videos([str(videos)])
    job = task.Job(tmp_path, task.DetectorSettings(), task.ModelSettings(), "0" * 64)
    folder.ArchiveFolder(tmp_path).open(job.made_with())
    outcome = task.process(job, video)
    assert (outcome.kind, outcome.exit_code) == ("failed", 69)
    assert "Install the same wherever workers run." in outcome.message


def test_an_engine_that_fails_is_said_in_one_sentence(
    videos: Path, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(
            "org.apache.x: in stage 1.0\n  File x\n  ModuleNotFoundError: No module named 'edge_fer'\n at y"
        )

    monkeypatch.setattr(engines, "_start_spark", broken)
    called = call(main, "archive", videos, "-o", tmp_path / "a", "--backend", "spark")
    assert called.code == 69
    assert "spark has failed: ModuleNotFoundError: No module named 'edge_fer'. What is done" in sentence(called)


def test_the_report_is_one_page(junk: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    pytest.importorskip("duckdb")
    shutil.copy(junk / "deep/good.clip", junk / "<b>&.avi")
    archive = tmp_path / "out [1]*"  # a name that is a pattern to DuckDB
    called = call(main, "archive", junk, "-o", archive, "-j", 1, "--report")
    assert (called.code, called.out.splitlines()[-1]) == (0, str(archive / "report.html"))
    page = (archive / "report.html").read_text(encoding="utf-8")
    assert "5 videos (0.0 hours), 3 of them bad; " in page
    assert "&lt;b&gt;&amp;.avi" in page and "<b>&.avi" not in page
    assert "cut short" in page
    assert "http" not in page  # it loads nothing
    certain = [row for row in rows(archive) if row["uncertain"] is None]
    assert f"Shares of {len(certain)} rows without doubt" in page
    for expression in {row["expression"] for row in certain}:
        count = sum(row["expression"] == expression for row in certain)
        assert f"{expression}<td class=n>{count}<td class=n>{count / len(certain):.1%}" in page


def test_a_report_of_videos_without_faces(tmp_path: Path, call: Callable[..., Any]) -> None:
    pytest.importorskip("duckdb")
    (tmp_path / "x.mp4").write_text("none")
    call(main, "archive", tmp_path / "x.mp4", "-o", tmp_path / "a", "-j", 1)
    assert call(main, "archive", "-o", tmp_path / "a", "--report").code == 0
    assert "Shares of 0 rows" in (tmp_path / "a/report.html").read_text()


def test_a_report_of_no_archive(tmp_path: Path, call: Callable[..., Any]) -> None:
    pytest.importorskip("duckdb")
    for place in ("none", "x" * 300):  # a name that no file system takes
        called = call(main, "archive", "-o", tmp_path / place, "--report")
        assert (called.code, "There is no archive in" in sentence(called)) == (66, True)


def page() -> str:
    return (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", [FACES, VIDEOS])
def test_the_tables_are_in_the_docs(columns: Any) -> None:
    lines = "\n".join(f"| `{name}` | {kind} | {text} |" for name, kind, text in columns)
    assert lines in page(), f"docs/scale.md lacks:\n{lines}"


def test_the_queries_of_the_docs_run(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(whole.parent)
    (whole.parent / "archive").symlink_to(whole)
    queries = re.findall(r"```sql\n(.*?)```", page(), re.DOTALL)
    assert queries
    for query in queries:
        for statement in query.split(";\n"):
            duckdb.sql(statement)


def test_workers_are_given_a_detector_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(sorted(DETECTORS.iterdir())[0], tmp_path / "mine.tflite")
    words = ["archive", "x", "-o", str(tmp_path / "out"), "--detector-model", "~/mine.tflite"]
    assert _job(build_parser().parse_args(words)).detector.model == str(tmp_path / "mine.tflite")
