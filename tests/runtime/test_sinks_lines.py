"""jsonl and csv."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from story import a_face, a_result, a_run, a_story, file_size_limit

from edge_fer.core import Expression
from edge_fer.errors import OutputError
from edge_fer.sinks import open_sink


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    assert last["camera"] == 'a "strange", name\\xff'
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
