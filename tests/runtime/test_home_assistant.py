"""The real Home Assistant: it finds the device, shows what it sees, switches its camera, and knows it after a restart.

``make test-home-assistant`` prepares it (a Debian trixie root) and runs this: root and some minutes.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mosquitto import Mosquitto, free_port

from edge_fer.core import Expression

pytestmark = pytest.mark.home_assistant

LONG_S = 180.0
CONFIGURATION = """\
http:
  server_port: {port}
  server_host: 127.0.0.1
api:
logger:
  default: warning
"""


class HomeAssistant:
    """A new one, whose only device is a broker."""

    def __init__(self, root: Path, broker: Mosquitto) -> None:
        self._root, self._port = root, free_port()
        self._folder = Path(tempfile.mkdtemp(dir=root / "tmp"))
        self._inside = f"/tmp/{self._folder.name}"
        (self._folder / ".storage").mkdir()
        (self._folder / "configuration.yaml").write_text(CONFIGURATION.format(port=self._port))
        entry = {
            **{"entry_id": "0" * 32, "version": 1, "minor_version": 2, "domain": "mqtt", "title": "broker"},
            **{"data": {"broker": "127.0.0.1", "port": broker.port, "discovery": True}, "options": {}},
            **{"pref_disable_new_entities": False, "pref_disable_polling": False, "source": "user"},
            **{"unique_id": None, "disabled_by": None},
        }
        storage = {"version": 1, "minor_version": 1, "key": "core.config_entries", "data": {"entries": [entry]}}
        (self._folder / ".storage" / "core.config_entries").write_text(json.dumps(storage))
        self._run("--script", "auth", "-c", self._inside, "add", "me", "secret").wait()
        self.log = self._folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["chroot", str(self._root), "/ha/venv/bin/hass", *arguments]
        log = (self._folder / "log").open("ab")
        with log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self) -> None:
        self._process = self._run("-c", self._inside, "--skip-pip")
        self._token = until(self._login, "somebody logs in")

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(LONG_S)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def ask(self, method: str, path: str, body: Any = None, form: bool = False) -> Any:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
            data = urllib.parse.urlencode(body) if form else json.dumps(body)
            kind = "application/x-www-form-urlencoded" if form else "application/json"
            headers = {"Content-Type": kind, **({"Authorization": f"Bearer {self._token}"} if self._token else {})}
            connection.request(method, path, data if body is not None else None, headers)
            return json.loads(connection.getresponse().read())

    def _login(self) -> str:
        self._token = ""
        me = f"http://127.0.0.1:{self._port}/"
        try:
            asked = {"client_id": me, "handler": ["homeassistant", None], "redirect_uri": me}
            flow = self.ask("POST", "/auth/login_flow", asked)
        except OSError:
            return ""
        path = f"/auth/login_flow/{flow['flow_id']}"
        done = self.ask("POST", path, {"client_id": me, "username": "me", "password": "secret"})
        given = {"grant_type": "authorization_code", "code": done["result"], "client_id": me}
        return str(self.ask("POST", "/auth/token", given, form=True)["access_token"])

    def states(self) -> dict[str, str]:
        """The states of the device's entities."""
        states = {one["entity_id"]: str(one["state"]) for one in self.ask("GET", "/api/states")}
        return {name: state for name, state in states.items() if ".kitchen_" in name}


def until(look: Callable[[], Any], what: str) -> Any:
    """What it gives, as soon as that is something; looks twice a second."""
    for _ in range(round(2 * LONG_S)):
        if found := look():
            return found
        threading.Event().wait(0.5)
    pytest.fail(f"{what}: never")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[tuple[HomeAssistant, Mosquitto]]:
    root = Path(os.environ.get("HOME_ASSISTANT_ROOT", "/nowhere"))
    if not (root / "ha").is_dir():
        pytest.skip("Home Assistant is not here: make test-home-assistant")
    broker = Mosquitto(tmp_path)
    there = HomeAssistant(root, broker)
    there.start()
    yield there, broker
    there.remove()
    broker.kill()


def test_home_assistant_knows_the_device(home: tuple[HomeAssistant, Mosquitto], tmp_path: Path) -> None:
    hass, broker = home
    command = [sys.executable, "-m", "edge_fer", "run", "--camera", "demo", "--name", "kitchen"]
    command += ["--output", f"mqtt://127.0.0.1:{broker.port}"]
    environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "nobody"), "STATE_DIRECTORY": str(tmp_path)}
    service = subprocess.Popen(command, env=environ)
    known = {
        *(f"sensor.kitchen_{name}" for name in ("expression", "confidence", "faces", "frame_rate", "status")),
        *("sensor.kitchen_time_for_a_frame", "binary_sensor.kitchen_face", "switch.kitchen_camera"),
    }

    def has(**wanted: str) -> Callable[[], dict[str, str] | None]:
        def look() -> dict[str, str] | None:
            states = hass.states()
            found = {key: states.get(key.replace("__", ".kitchen_")) for key in wanted}
            return states if found == wanted else None

        return look

    def all_well() -> dict[str, str] | None:
        states = has(sensor__status="recognizing", sensor__faces="2", binary_sensor__face="on", switch__camera="on")()
        return states if states and states["sensor.kitchen_expression"] in set(Expression) else None

    try:
        states = until(all_well, "it is seen what is seen")
        assert known <= states.keys()
        assert float(states["sensor.kitchen_confidence"]) > 0 and float(states["sensor.kitchen_frame_rate"]) >= 0
        # Its restart, and that of the broker with all that was retained.
        hass.stop()
        broker.kill()
        broker.start()
        hass.start()
        states = until(all_well, "all is there after its restart")
        assert known <= states.keys() and "unavailable" not in states.values()
        # The privacy switch.
        hass.ask("POST", "/api/services/switch/turn_off", {"entity_id": "switch.kitchen_camera"})
        states = until(
            has(switch__camera="off", sensor__status="paused", binary_sensor__face="off"), "the camera is closed"
        )
        assert states["sensor.kitchen_expression"] == "unknown" and states["sensor.kitchen_confidence"] == "unknown"
        hass.ask("POST", "/api/services/switch/turn_on", {"entity_id": "switch.kitchen_camera"})
        until(all_well, "the camera is open again")
        # A service that dies, and one that comes back.
        service.kill()
        service.wait()
        until(lambda: set(hass.states().values()) == {"unavailable"}, "all is unavailable")
        service = subprocess.Popen(command, env=environ)
        until(all_well, "all is there after a restart of the service")
        complaints = [line for line in hass.log.read_text().splitlines() if "mqtt" in line and "kitchen" in line]
        assert complaints == []
    finally:
        service.terminate()
        assert service.wait(LONG_S) == 0
