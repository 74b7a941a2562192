"""A service: a pause outlasts a restart, SIGHUP reads the configuration again, a hot board is spared."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_fer.cli import main
from edge_fer.config import CameraSettings, DetectorSettings, GovernorSettings, ModelSettings, Settings
from edge_fer.core import Frame
from edge_fer.errors import ConfigError
from edge_fer.pipeline import Pipeline
from edge_fer.service.daemon import Daemon
from edge_fer.service.governor import LOOK_S, Governor
from edge_fer.systemd import JournalFormatter, Service, in_journal

LONG_S = 60.0  # only reached when the code under test hangs


class Told(Service):
    """Keeps what systemd is told."""

    def __init__(self) -> None:
        super().__init__("/nowhere")
        self.words: list[str] = []

    def _send(self, text: str) -> None:
        self.words.append(text)


def a_daemon(settings: Settings, load: Callable[[], Settings], state: Path, governor: Governor | None = None) -> Daemon:
    return Daemon(Told(), settings, load, {"STATE_DIRECTORY": str(state)}, governor)


@pytest.fixture
def settings(tmp_path: Path, demo_frames: list[Frame]) -> Settings:
    return Settings(
        camera=CameraSettings("demo"), outputs=[f"jsonl:{tmp_path}/events.jsonl"], model=ModelSettings("nano")
    )


def test_a_pause_outlasts_a_restart(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    daemon = a_daemon(settings, lambda: settings, tmp_path)
    assert not daemon.control.paused
    daemon.control.pause()
    daemon.idle()
    again = a_daemon(settings, lambda: settings, tmp_path)
    assert again.control.paused
    assert "It begins paused" in caplog.text and f"sudo rm {tmp_path}/paused" in caplog.text
    again.control.resume()
    again.idle()
    assert not a_daemon(settings, lambda: settings, tmp_path).control.paused
    assert not (tmp_path / "paused").exists()


def test_a_state_that_cannot_be_written_is_said_and_no_more(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = a_daemon(settings, lambda: settings, tmp_path / "no" / "such")
    daemon.control.pause()
    daemon.idle()
    daemon.idle()
    assert len(caplog.messages) == 1 and "A restart will not know of the pause" in caplog.messages[0]
    assert Daemon(Told(), settings, lambda: settings, {}).control.paused is False


def reloaded(settings: Settings, load: Callable[[], Settings], state: Path) -> tuple[list[dict[str, Any]], Told]:
    """The events of a demo in the middle of which the settings are read again."""
    daemon = a_daemon(settings, load, state)
    with Pipeline(settings, True, daemon.idle, daemon.control) as pipeline:
        daemon.pipeline = pipeline
        for _ in pipeline:
            if daemon.control.frames == 10:
                daemon.request_reload()
            if daemon.control.frames == 20:
                pipeline.stop()
    events = [json.loads(line) for line in (state / "events.jsonl").read_text().splitlines()]
    assert isinstance(daemon._service, Told)
    return events, daemon._service


def test_live_settings_are_taken_over(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    new = replace(
        settings,
        model=ModelSettings("accurate", decision="as-trained", compound=True),
        detector=DetectorSettings(min_face_px=60),
    )
    events, told = reloaded(settings, lambda: new, tmp_path)
    names = [
        (event["seq"], event["model"]["name"], event["model"]["decision"])
        for event in events
        if event["phase"] != "end"
    ]
    assert {seq < 10 for seq, _, _ in names} == {True, False}
    assert all((model, rule) == ("nano", "balanced") for seq, model, rule in names if seq < 10)
    assert all((model, rule) == ("accurate", "as-trained") for seq, model, rule in names if seq >= 10)
    assert all(("compound" in event) == (event["seq"] >= 10) for event in events if event["phase"] != "end")
    lives: dict[object, list[object]] = {}
    for event in events:
        lives.setdefault(event["track"], []).append(event["phase"])
    assert len(lives) == 4, "the faces of the old one end, and none has the number of another"
    assert all(life[0] == "start" and life[-1] == "end" and life.count("end") == 1 for life in lives.values())
    assert caplog.messages == [
        "The configuration is read again: detector.min_face_px, model.path, model.decision, model.compound changed."
    ]
    at = next(place for place, words in enumerate(told.words) if words.startswith("RELOADING=1\nMONOTONIC_USEC="))
    assert told.words[at + 1] == "READY=1"


def test_what_wants_a_restart_is_said(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    new = replace(settings, name="other", camera=CameraSettings("demo", width=320))
    events, _ = reloaded(settings, lambda: new, tmp_path)
    assert len({event["track"] for event in events}) == 2, "nothing was opened again"
    assert caplog.messages == ["name, camera.width: only a restart takes that over, sudo systemctl restart edge-fer."]


def test_nothing_new(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reloaded(settings, lambda: replace(settings), tmp_path)
    assert caplog.messages == ["The configuration is read again: nothing has changed."]


def test_mistakes_change_nothing(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def wrong() -> Settings:
        raise ConfigError("model.threads must be from 1 to 64, not 0.")

    events, told = reloaded(settings, wrong, tmp_path)
    assert len({event["track"] for event in events}) == 2
    assert caplog.messages == [
        "The configuration is read again and cannot be used: model.threads must be from 1 to 64, not 0. "
        "Nothing has changed."
    ]
    assert told.words.count("READY=1") == 1


def test_a_model_that_is_not_there_changes_nothing(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reloaded(settings, lambda: replace(settings, model=ModelSettings("no-such-model")), tmp_path)
    assert len(caplog.messages) == 1 and caplog.messages[0].endswith("Nothing has changed.")


def test_a_hot_board_is_spared(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now_s, temperature_c = 0.0, 85.0
    governor = Governor(GovernorSettings(), lambda: {"temperature_c": temperature_c, "throttled": None}, lambda: now_s)
    daemon = a_daemon(settings, lambda: settings, tmp_path, governor)
    with Pipeline(settings, True, daemon.idle, daemon.control) as pipeline:
        daemon.pipeline = pipeline
        for _ in pipeline:
            now_s += LOOK_S
            if daemon.control.frames == 2:
                assert daemon.control.effort == "at most 10 frames a second, because of 85 °C"
                assert daemon.frame_s == 0.1
                assert pipeline._lanes[0].recognizer._search.new_face_s == pytest.approx(0.6)
                temperature_c = 60.0
            if daemon.control.frames == 30:
                pipeline.stop()
    assert (daemon.control.effort, daemon.frame_s) == ("", 0.0)
    assert caplog.messages == ["Effort: at most 10 frames a second, because of 85 °C.", "Effort: full again."]


def test_a_line_of_the_journal_has_its_priority(tmp_path: Path) -> None:
    record = logging.LogRecord("edge_fer", logging.WARNING, "", 0, "a\n%s", ("b",), None)
    assert JournalFormatter().format(record) == "<4>a b"
    status = os.fstat(2)
    assert in_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    for other in ({}, {"JOURNAL_STREAM": ""}, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"}):
        assert not in_journal(other)


@pytest.mark.parametrize("journal", [True, False])
def test_a_program_that_fails_says_so_with_a_priority(journal: bool, tmp_path: Path) -> None:
    path = tmp_path / "stderr"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        environ = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}" if journal else "1:2"}
        command = [sys.executable, "-m", "edge_fer", "run", "--camera", "nowhere.mp4"]
        assert subprocess.run(command, stderr=stream, env=environ).returncode == 66
    begin = "<3>" if journal else "edge-fer: "
    assert path.read_text() == f"{begin}There is no file or folder nowhere.mp4.\n"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], Callable[[str], str]]]]:
    """Starts a service with a configuration file; returns it, and what waits for a line of its log."""
    children = []

    def start() -> tuple[subprocess.Popen[str], Callable[[str], str]]:
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "nobody"), "STATE_DIRECTORY": str(tmp_path)}
        command = [sys.executable, "-m", "edge_fer", "run", "--config", str(tmp_path / "c.toml")]
        child = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        children.append(child)
        lines: queue.Queue[str] = queue.Queue()
        assert child.stdout
        threading.Thread(target=lambda: [lines.put(line) for line in child.stdout or ()], daemon=True).start()

        def wait_for(text: str) -> str:
            while text not in (line := lines.get(timeout=LONG_S)):
                pass
            return line

        return child, wait_for

    yield start
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout
        child.stdout.close()


def test_a_service_on_sighup(
    process: Callable[[], tuple[subprocess.Popen[str], Callable[[str], str]]], tmp_path: Path
) -> None:
    config = tmp_path / "c.toml"
    config.write_text('outputs = ["jsonl:-"]\n[camera]\nsource = "demo"\n[model]\npath = "nano"\n')
    child, wait_for = process()
    wait_for('"name":"nano"')
    config.write_text('outputs = ["jsonl:-"]\n[camera]\nsource = "demo"\n[model]\npath = "accurate"\nthreads = 0\n')
    child.send_signal(signal.SIGHUP)
    wait_for("cannot be used: model.threads must be from 1 to 64, not 0. Nothing has changed.")
    config.write_text('outputs = ["jsonl:-"]\n[camera]\nsource = "demo"\n[model]\npath = "accurate"\n')
    child.send_signal(signal.SIGHUP)
    wait_for("The configuration is read again: model.path changed.")
    wait_for('"name":"accurate"')
    child.send_signal(signal.SIGTERM)
    assert child.wait(LONG_S) == 0


def test_a_command_at_a_terminal_remembers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    (tmp_path / "paused").touch()
    assert main(["run", "--camera", "demo", "--output", f"jsonl:{tmp_path}/e.jsonl"]) == 0
    assert (tmp_path / "e.jsonl").stat().st_size > 0
