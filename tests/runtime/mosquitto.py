"""A real broker for tests, which can be killed and started again, and somebody who listens to it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

LONG_S = 20.0  # only reached when the code under test hangs

PROGRAM = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Mosquitto:
    """The program of Debian's package, with a configuration of the test's."""

    def __init__(self, folder: Path, *lines: str, port: int = 0) -> None:
        if PROGRAM is None:
            pytest.skip("mosquitto is not here: apt-get install mosquitto")
        self.port = port or free_port()
        self._config = folder / "mosquitto.conf"
        open_to_all = () if any(line.startswith("password_file") for line in lines) else ("allow_anonymous true",)
        text = [f"listener {self.port} 127.0.0.1", "user root", *open_to_all, *lines]
        self._config.write_text("\n".join(text) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Returns when it listens."""
        assert PROGRAM
        self._process = subprocess.Popen(
            [PROGRAM, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until_s = time.monotonic() + LONG_S
        while time.monotonic() < until_s:
            assert self._process.poll() is None, f"mosquitto does not start: {self._config.read_text()}"
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            threading.Event().wait(0.05)
        pytest.fail("mosquitto does not listen")

    def kill(self) -> None:
        """As when the power is cut: what it held in memory is lost."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


def that_remembers(folder: Path) -> list[str]:
    """Lines for a broker that knows all, after it was killed too, that it knew before."""
    return ["persistence true", f"persistence_location {folder}/", "autosave_on_changes true", "autosave_interval 1"]


class Heard(NamedTuple):
    topic: str
    payload: str
    retain: bool

    def json(self) -> Any:
        return json.loads(self.payload)


class Listener:
    """Hears all that is published, or some of it; also publishes."""

    def __init__(self, port: int, topic: str = "#", user: str = "", password: str = "", ca: Path | None = None) -> None:
        paho = pytest.importorskip("paho.mqtt.client")
        enums = pytest.importorskip("paho.mqtt.enums")
        self.heard: list[Heard] = []
        self._changed = threading.Condition()
        # A broker that keeps sessions keeps what this listener has missed.
        self._client = paho.Client(enums.CallbackAPIVersion.VERSION2, f"listener-{id(self)}", clean_session=False)
        if user:
            self._client.username_pw_set(user, password)
        if ca:
            self._client.tls_set(str(ca))
        subscribed = threading.Event()
        self._client.on_connect = lambda client, *rest: client.subscribe(topic, 1)
        self._client.on_subscribe = lambda *rest: subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(LONG_S)

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        with self._changed:
            self.heard.append(Heard(message.topic, message.payload.decode(errors="replace"), message.retain))
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[Heard], bool], what: str = "it") -> Heard:
        """The first message that is wanted."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(map(wanted, self.heard)), LONG_S), (
                f"{what} never came; heard: {self.heard}"
            )
            return next(filter(wanted, self.heard))

    def of(self, topic: str) -> list[Heard]:
        with self._changed:
            return [one for one in self.heard if one.topic == topic]

    def forget(self) -> None:
        with self._changed:
            self.heard.clear()

    def publish(self, topic: str, payload: str | bytes, retain: bool = False) -> None:
        self._client.publish(topic, payload, 1, retain).wait_for_publish(LONG_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client.on_message = None  # no circle: the client closes its sockets when it goes
