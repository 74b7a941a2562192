"""The cost on a board is what an emulated one prints; here QEMU is a script that prints the same."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_fer.errors import UnavailableError

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "board_cost.py"
SPEC = importlib.util.spec_from_file_location("board_cost", SCRIPT)
assert SPEC is not None and SPEC.loader is not None
board_cost: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(board_cost)


def figures(model: str, frame: float) -> dict[str, Any]:
    """What the machine prints of one model, as far as it is read."""
    times = {"mean": frame, "p50": frame, "p95": 2 * frame, "p99": 3 * frame}
    versions = {"edge_fer": "0.1.0", "python": "3.13.5", "opencv": "4.14.0", "runtime": "ai-edge-litert 2.3.0"}
    stages = {"decode": times, "detect": times, "classify": times}
    rest = {"start_ns": 2_095_400_000, "frames": 240, "rss_peak_mb": 108.1}
    return {"model": model, "stages_ms": stages, "frame_ms": times, **rest, **versions}


def printed(*models: dict[str, Any]) -> str:
    lines = [f"board-cost: {json.dumps(one)}" for one in models]
    return "\r\n".join(["[    0.1] Booting", *lines, "[    9.9] reboot: Power down", ""])


def entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content by name, of a cpio archive in the format "newc", trailers included."""
    found, place = {}, 0
    while place < len(archive):
        assert archive[place : place + 6] == b"070701"
        fields = [int(archive[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        name = archive[place + 110 : place + 110 + name_size - 1].decode()
        start = (place + 110 + name_size + 3) // 4 * 4
        found[name] = (fields[1], archive[start : start + size])
        assert fields[2:4] == [0, 0]
        place = (start + size + 3) // 4 * 4
    assert place == len(archive)
    return found


def test_a_ram_disk_holds_files_folders_and_links(tmp_path: Path) -> None:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "usr" / "bin" / "tool").write_bytes(b"12345")
    (tmp_path / "usr" / "bin" / "tool").chmod(0o755)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "bin").symlink_to("usr/bin")
    os.mkfifo(tmp_path / "pipe")
    archive = io.BytesIO()
    board_cost.write_cpio(tmp_path, archive)
    found = entries(archive.getvalue())
    assert list(found) == ["bin", "empty", "usr", "usr/bin", "usr/bin/tool", "TRAILER!!!"]
    assert found["usr/bin/tool"] == (0o100755, b"12345")
    assert found["bin"] == (0o120777, b"usr/bin")
    assert found["usr"][0] & 0o170000 == 0o040000
    assert found["empty"][1] == b""


def test_results_are_what_the_machine_printed() -> None:
    results = board_cost.results_of(printed(figures("accurate", 4.5), figures("nano", 2.0)), ["accurate", "nano"])
    assert list(results) == ["accurate", "nano"]
    assert results["accurate"]["stages"] == {"decode": 4.5, "detect": 4.5, "classify": 4.5}
    assert (results["accurate"]["frame"], results["accurate"]["frame_p95"]) == (4.5, 9.0)
    assert results["nano"]["first_event"] == 2095


def test_a_machine_that_died_is_told_by_its_last_words() -> None:
    console = printed(figures("accurate", 4.5)) + "Segmentation fault\n"
    with pytest.raises(UnavailableError, match="no result for nano; it ended with: Segmentation fault"):
        board_cost.results_of(console, ["accurate", "nano"])
    with pytest.raises(UnavailableError, match="it ended with: nothing"):
        board_cost.results_of("\n", ["nano"])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a QEMU of our own on the path: a script that shows its arguments and prints what it is told."""
    system = tmp_path / "system.cpio"
    with system.open("wb") as archive:
        board_cost._write_entry(archive, "TRAILER!!!", 0, 0, b"")
    monkeypatch.setattr(board_cost, "base", lambda folder: (tmp_path / "vmlinuz", system))

    def install(script: str) -> Path:
        tool = tmp_path / "qemu-system-aarch64"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return tmp_path

    return install


def test_the_command(machine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(figures("accurate", 43.25), figures("nano", 19.5))
    folder = machine(f'echo "$@" > "$(dirname "$0")/arguments"\ncat <<"END"\n{text}END')
    assert board_cost.main([]) == 0
    shown = capsys.readouterr()
    assert "million instructions, emulated" in shown.out
    assert "43.25" in shown.out and "19.50" in shown.out and "2,095" in shown.out
    assert "decode" not in shown.out
    arguments = (folder / "arguments").read_text()
    assert "-cpu cortex-a53 -smp 1" in arguments and "-icount shift=0,sleep=off" in arguments
    assert board_cost.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"]["nano"]["frame"] == 19.5


def test_the_machine_gets_edge_fer_and_what_to_measure(machine: Any) -> None:
    """The disk is Debian's archive, and behind it ours."""
    script = 'while [ "$1" != -initrd ]; do shift; done; cp "$2" "$(dirname "$0")/disk"'
    folder = machine(script)
    board_cost.emulate(*board_cost.base(folder), 30, ["nano"])
    found = entries((folder / "disk").read_bytes())
    assert found["init"][0] == 0o100755
    assert b"python3 /guest.py 30 nano" in found["init"][1]
    assert found["opt/edge-fer/edge_fer/version.py"][1] == (SCRIPT.parents[1] / "edge_fer" / "version.py").read_bytes()
    assert not [name for name in found if "__pycache__" in name]
    compile(found["guest.py"][1], "guest.py", "exec")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'qemu: could not load kernel' >&2; exit 1", "QEMU failed: qemu: could not load kernel"),
        ("exit 1", "QEMU failed: it says nothing"),
        ("echo Kernel panic", "gave no result for accurate; it ended with: Kernel panic"),
    ],
)
def test_an_emulator_that_fails(script: str, message: str, machine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    machine(script)
    assert board_cost.main([]) == 69
    shown = capsys.readouterr()
    assert message in shown.err and shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "0"], "--frames must be at least 1, not 0."),
        (["--model", "nano", "none"], "No model 'none' is in the package."),
        (["--model", "mine"], "No model 'mine' is in the package."),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert board_cost.main(arguments) == 2
    assert capsys.readouterr().err == f"board_cost: {message}\n"


def test_what_has_to_be_installed_is_said(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == "board_cost: qemu-system-aarch64 is not installed: sudo apt-get install qemu-system-arm.\n"


def test_without_debians_packages_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in (("qemu-system-aarch64", "exit 0"), ("mmdebstrap", "echo 'E: no network' >&2; exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UnavailableError, match="mmdebstrap failed; it wants Debian's packages and PyPI: E: no network"):
        board_cost.base(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
