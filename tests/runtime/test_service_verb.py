"""``edge-fer service``: what it writes, what it asks systemd to do, and what systemd thinks of the unit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_fer.cli import main
from edge_fer.config import CameraSettings, MqttSettings, Settings, WebSettings
from edge_fer.config_file import new_file
from edge_fer.errors import UsageError
from edge_fer.service import unit

Call = Callable[..., Any]


class Machine:
    """A machine with a systemd that writes down what it is asked, and answers what the test says."""

    def __init__(self, folder: Path) -> None:
        self.units, self.etc = folder / "units", folder / "etc"
        self.units.mkdir()
        self.asked = folder / "asked"
        self.answer = folder / "answer"
        self.answer.write_text("")
        self.fails = folder / "fails"
        (folder / "bin").mkdir()
        for name in ("systemctl", "journalctl"):
            script = folder / "bin" / name
            script.write_text(
                f'#!/bin/sh\necho {name} "$@" >>{self.asked}\ncat {self.answer}\n'
                f"if [ -e {self.fails} ]; then cat {self.fails} >&2; exit 1; fi\n"
            )
            script.chmod(0o755)

    @property
    def config(self) -> Path:
        return self.etc / "config.toml"

    def asks(self) -> list[str]:
        asked = self.asked.read_text().splitlines() if self.asked.exists() else []
        self.asked.unlink(missing_ok=True)
        return asked


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    there = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr("edge_fer.service.unit.UNITS", there.units)
    monkeypatch.setattr("edge_fer.service.unit._HIDDEN", ("/home",))
    monkeypatch.setattr("sys.executable", "/opt/edge-fer/bin/python")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return there


def test_install_and_uninstall(machine: Machine, call: Call) -> None:
    done = call(main, "service", "install", "--config", machine.config)
    assert (done.code, done.err) == (0, "")
    assert machine.config.read_text() == new_file()
    text = (machine.units / "edge-fer.service").read_text()
    assert f"\nExecStart=/opt/edge-fer/bin/python -m edge_fer run --config {machine.config}\n" in text
    assert not (machine.units / "edge-fer.service.d" / "configuration.conf").exists()
    assert "The service has no network: nothing asks for one." in done.out
    assert machine.asks() == [
        "systemctl daemon-reload",
        "systemctl enable --quiet edge-fer.service",
        "systemctl restart edge-fer.service",
    ]
    assert call(main, "service", "uninstall").code == 0
    assert machine.asks() == ["systemctl disable --now --quiet edge-fer.service", "systemctl daemon-reload"]
    assert [*machine.units.rglob("*.*")] == [machine.units / "edge-fer.service.d"] or not any(machine.units.iterdir())
    assert machine.config.exists()
    done = call(main, "service", "uninstall")
    assert (done.code, machine.asks()) == (0, [])
    assert "nothing to do" in done.out


def test_install_again_takes_over_the_configuration(machine: Machine, call: Call) -> None:
    machine.etc.mkdir()
    machine.config.write_text('outputs = ["mqtt://me@broker/secret"]\n[camera]\nsource = "rtsp://u:pw@10.0.0.7/x"\n')
    (machine.etc / "mqtt-password").write_text("s3cret")
    done = call(main, "service", "install", "--no-start", "--config", machine.config)
    assert done.code == 0, done.err
    assert machine.asks()[-1] == "systemctl enable --quiet edge-fer.service"
    path = machine.units / "edge-fer.service.d" / "configuration.conf"
    text = path.read_text()
    assert "# For rtsp://10.0.0.7/..., mqtt://broker/....\n" in text
    assert f"\nIPAddressAllow={unit.LOCAL}\n" in text
    assert f"\nLoadCredential=mqtt-password:{machine.etc}/mqtt-password\n" in text
    assert "s3cret" not in text and "pw" not in text.replace("mqtt-password", "")
    call(main, "service", "install", "--internet", "--config", machine.config)
    assert "\nIPAddressDeny=\n" in path.read_text()
    machine.config.write_text("")
    (machine.etc / "mqtt-password").unlink()
    call(main, "service", "install", "--config", machine.config)
    assert not path.exists(), "what needs no network gets none"


@pytest.mark.parametrize("runs", [True, False])
def test_configure_opens_the_network_and_leaves_the_unit(
    machine: Machine, call: Call, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    monkeypatch.setattr("edge_fer.service.unit.RUNNING", machine.units if runs else machine.units / "no")
    machine.etc.mkdir()
    machine.config.write_text('outputs = ["mqtts://me@broker"]\n')
    done = call(main, "service", "configure", "--config", machine.config)
    assert (done.code, done.err, done.out) == (0, "", "The network is open for mqtts://broker.\n")
    assert [path.name for path in machine.units.rglob("*")] == ["edge-fer.service.d", "configuration.conf"]
    assert machine.asks() == ["systemctl daemon-reload"] * runs
    done = call(main, "service", "configure", "--config", machine.etc / "none.toml")
    assert done.code == 78 and len(done.err.splitlines()) == 1


def test_a_wrong_configuration_installs_nothing(machine: Machine, call: Call) -> None:
    machine.etc.mkdir()
    machine.config.write_text("[camera]\nwidht = 3\n")
    done = call(main, "service", "install", "--config", machine.config)
    assert done.code == 78 and "Did you mean 'camera.width'" in done.err
    assert not any(machine.units.iterdir()) and machine.asks() == []


def test_who_is_not_root_is_told(machine: Machine, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for action in ("install", "configure", "uninstall"):
        done = call(main, "service", action)
        assert done.code == 1
        assert done.err == f"edge-fer: This needs root: sudo /opt/edge-fer/bin/edge-fer service {action}.\n"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/home/me/venv/bin/edge-fer", "does not see /home"),
        ("/root/venv/bin/edge-fer", "does not see /root"),
        ("/opt/100%/bin/edge-fer", "has a letter in its name"),
        ("/opt/a'b/bin/edge-fer", "has a letter in its name"),
    ],
)
def test_where_a_service_cannot_be(program: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        unit.unit_text(program, Path("/etc/edge-fer/config.toml"))
    with pytest.raises(UsageError, match=said):
        unit.unit_text("/opt/edge-fer/bin/edge-fer", Path(program))


def test_a_systemd_that_refuses(machine: Machine, call: Call) -> None:
    machine.fails.write_text("Failed to connect to bus: No such file.\nmore\n")
    done = call(main, "service", "install", "--config", machine.config)
    assert done.code == 69
    assert done.err == (
        "edge-fer: systemctl daemon-reload: Failed to connect to bus: No such file. "
        "edge-fer service logs may say more.\n"
    )


SHOWN = """LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
StatusText=recognizing expressions from 0
MainPID=77
NRestarts=2
MemoryCurrent=98765432
"""


def test_status(machine: Machine, call: Call) -> None:
    machine.answer.write_text(SHOWN)
    done = call(main, "service", "status", "--json")
    assert done.code == 0
    assert json.loads(done.out) == {
        "active": "active",
        "state": "running",
        "does": "recognizing expressions from 0",
        "enabled": "enabled",
        "pid": 77,
        "restarts": 2,
        "memory_mb": 98.8,
    }
    assert machine.asks()[0].startswith("systemctl show edge-fer.service --property=LoadState,ActiveState,")
    assert "recognizing expressions from 0" in call(main, "service", "status").out


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("LoadState=not-found\n", "is not installed: sudo edge-fer service install."),
        (SHOWN.replace("ActiveState=active", "ActiveState=failed"), "is failed: edge-fer service logs says why."),
        (SHOWN.replace("98765432", "18446744073709551615").replace("=active", "=inactive"), "is inactive"),
        ("", "The service is : "),
    ],
)
def test_status_of_what_does_not_run(machine: Machine, call: Call, answer: str, said: str) -> None:
    machine.answer.write_text(answer)
    done = call(main, "service", "status", "--json")
    assert done.code == 69 and said in done.err and len(done.err.splitlines()) == 1


def test_logs(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    machine.answer.write_text("a line\n")
    assert main(["service", "logs", "-f", "-n", "7"]) == 0
    assert capfd.readouterr().out == "a line\n"
    assert machine.asks() == ["journalctl --no-pager --unit edge-fer.service --lines 7 --follow"]
    machine.fails.write_text("No journal files were opened.\n")
    assert main(["service", "logs"]) == 1


def test_a_machine_without_systemd(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for action, name in (("status", "systemctl"), ("logs", "journalctl")):
        done = call(main, "service", action)
        assert (done.code, done.err) == (
            69,
            f"edge-fer: {name} is not here: the service needs a system with systemd.\n",
        )


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("internet", [False, True])
def test_systemd_accepts_the_unit_that_is_open_to_the_network(tmp_path: Path, internet: bool) -> None:
    """systemd 252 gives it 1.8 of 10 at home and 1.9 with the internet, where 10 is wholly exposed."""
    settings = Settings(camera=CameraSettings("rtsp://10.0.0.7/1"), outputs=["mqtt://broker", "web:0.0.0.0:8080"])
    for name in ("mqtt-password", "web-token"):
        (tmp_path / name).write_text("secret")
    text = unit.unit_text("/bin/true", Path("/etc/edge-fer/config.toml"))
    extra = unit.drop_in(settings, tmp_path, internet=internet)
    assert text.count("[Install]") == 1 and extra.count("LoadCredential=") == 2
    path = tmp_path / "edge-fer.service"
    path.write_text(text.replace("[Install]", extra + "\n[Install]"))
    verify = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    about_ours = [line for line in verify.stderr.splitlines() if "edge-fer" in line]
    assert (verify.returncode, about_ours) == (0, [])
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]


def test_files_of_root_are_handed_over(tmp_path: Path) -> None:
    """The service has a user of its own, which reads none of them; systemd does not start it if one is missing."""
    for name in ("mqtt-password", "web-token", "100%.key", "password", "web.pem"):
        (tmp_path / name).write_text("secret")
    settings = Settings(
        mqtt=MqttSettings(password_file=f"{tmp_path}/password", key_file=f"{tmp_path}/100%.key", ca_file="/no/such"),
        web=WebSettings(cert_file=f"{tmp_path}/web.pem", key_file="web.pem"),
    )
    lines = re.findall("LoadCredential=(.*)", unit.drop_in(settings, tmp_path))
    assert lines == [
        f"mqtt-password:{tmp_path}/password",
        f"mqtt-key:{tmp_path}/100%%.key",
        f"web-token:{tmp_path}/web-token",
        f"web-cert:{tmp_path}/web.pem",
    ]


def test_a_service_without_network_gets_none(tmp_path: Path) -> None:
    assert unit.drop_in(Settings(), tmp_path) == ""
    for source in ("0", "/dev/video0", "file:///a.mp4", "picamera:0"):
        assert unit.drop_in(Settings(camera=CameraSettings(source)), tmp_path) == ""
