"""MQTT, with the real mosquitto: killed and started again, with TLS and wrong passwords; and brokers that misbehave."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mosquitto import LONG_S, Listener, Mosquitto, that_remembers
from story import a_face, a_result, a_run, a_story

import edge_fer
from edge_fer.address import printable
from edge_fer.board import BoardFiles
from edge_fer.cli import main
from edge_fer.config import MqttSettings
from edge_fer.control import Control, State
from edge_fer.core import Expression, FrameResult
from edge_fer.errors import ConfigError, EdgeFerError, UsageError
from edge_fer.events import Run
from edge_fer.sinks import open_sink
from edge_fer.sinks.broker import Broker, filled, read_password, tls_context
from edge_fer.sinks.home_assistant import device_id, discovery
from edge_fer.sinks.summary import STALE_S, Summary

pytest.importorskip("paho.mqtt")

from edge_fer.sinks.mqtt import MqttSink

SCHEMA = json.loads((Path(edge_fer.__file__).parent / "event.schema.json").read_text())
SETTINGS = MqttSettings(heartbeat_s=3600.0)
BASE = "edge-fer/pi"


def recognizing(run: Run | None = None) -> Run:
    run = run or a_run()
    run.control.state = State.RECOGNIZING
    return run


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    there = Mosquitto(tmp_path)
    yield there
    there.kill()


@pytest.fixture
def remembering(tmp_path: Path) -> Iterator[Mosquitto]:
    there = Mosquitto(tmp_path, *that_remembers(tmp_path))
    yield there
    there.kill()


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    with closing(Listener(broker.port)) as one:
        yield one


def a_sink(broker: Mosquitto, run: Run, settings: MqttSettings = SETTINGS, **options: Any) -> MqttSink:
    return MqttSink(f"mqtt://127.0.0.1:{broker.port}", run, settings, **options)


def test_a_story_is_told(broker: Mosquitto, listener: Listener) -> None:
    run = recognizing()
    with closing(a_sink(broker, run)) as sink:
        for result in a_story():
            sink.write(result)
    listener.wait_for(lambda one: one == (f"{BASE}/available", "offline", False))
    events = [one.json() for one in listener.of(f"{BASE}/events")]
    assert [(event["track"], event["phase"]) for event in events] == [
        (1, "start"),
        (2, "start"),
        (1, "end"),
        (2, "end"),
    ]
    assert not any(one.retain for one in listener.of(f"{BASE}/events"))
    states = [one.json() for one in listener.of(f"{BASE}/state")]
    assert states[-1]["state"] == "stopped" and states[-1]["faces"] == 0 and states[-1]["expression"] is None
    with closing(Listener(broker.port)) as late:  # what is retained
        late.wait_for(lambda one: one == (f"{BASE}/available", "offline", True))
        late.wait_for(lambda one: one.topic == f"{BASE}/state" and one.retain)
        late.wait_for(lambda one: one == (f"{BASE}/enabled/state", "ON", True))
        late.wait_for(lambda one: one.topic == "homeassistant/device/edge-fer-pi/config" and one.retain)


def test_what_is_stopped_while_it_is_off_stays_off(broker: Mosquitto) -> None:
    run = recognizing()
    sink = a_sink(broker, run)
    run.control.pause()
    run.control.state = State.PAUSED
    sink.tick()
    sink.close()
    with closing(Listener(broker.port)) as late:
        late.wait_for(lambda one: one.topic == f"{BASE}/state" and one.retain and '"stopped"' in one.payload)
        late.wait_for(lambda one: one == (f"{BASE}/enabled/state", "OFF", True))


def test_faces_that_end_without_a_frame(broker: Mosquitto, listener: Listener) -> None:
    run = recognizing()
    with closing(a_sink(broker, run)) as sink:
        sink.write(a_result(0, a_face(phase="start")))
        sink.end(run.end([a_face()]))
        listener.wait_for(lambda one: one.topic == f"{BASE}/events" and one.json()["phase"] == "end")


def test_an_update_is_published_when_its_answer_changes(broker: Mosquitto, listener: Listener) -> None:
    run = recognizing()
    with closing(a_sink(broker, run)) as sink:
        sink.write(a_result(0, a_face(phase="start")))
        for seq in range(1, 30):
            sink.write(a_result(seq, a_face()))
        sink.write(a_result(30, replace(a_face(), uncertain="dark")))
        sink.write(a_result(31, a_face(expression=Expression.FEAR)))
        sink.write(a_result(32, a_face(expression=Expression.FEAR)))
    listener.wait_for(lambda one: one.payload == "offline")
    events = [one.json() for one in listener.of(f"{BASE}/events")]
    assert [(event["seq"], event["phase"], event["expression"], event["uncertain"]) for event in events] == [
        (0, "start", "happiness", None),
        (30, "update", "happiness", "dark"),
        (31, "update", "fear", None),
        (32, "end", "fear", None),
    ]


def test_nothing_is_lost_while_the_broker_is_away(remembering: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Listener(remembering.port)) as listener, closing(a_sink(remembering, recognizing())) as sink:
        listener.wait_for(lambda one: one.payload == "online")
        remembering.kill()
        for track in range(1, 101):
            sink.write(a_result(track, a_face(track, phase="start"), stream="s", still=True))
        remembering.start()
        listener.wait_for(lambda one: one.topic == f"{BASE}/events" and one.json()["track"] == 100)
        tracks = [one.json()["track"] for one in listener.of(f"{BASE}/events")]
    # Each at least once, in order.
    assert list(dict.fromkeys(tracks)) == list(range(1, 101))
    assert sink.delivery.counts["dropped"] == 0
    away = [message for message in caplog.messages if "It is tried again" in message]
    back = [message for message in caplog.messages if "is reached again; 0 messages were dropped" in message]
    assert (len(away), len(back)) == (1, 1)


def test_a_broker_that_comes_back_is_found_though_nobody_is_seen(broker: Mosquitto, listener: Listener) -> None:
    with closing(a_sink(broker, recognizing())):
        listener.wait_for(lambda one: one.payload == "online")
        broker.kill()
        listener.forget()
        broker.start()  # it has lost all that was retained
        listener.wait_for(lambda one: one.payload == "online")
        listener.wait_for(lambda one: one.topic == "homeassistant/device/edge-fer-pi/config")
        listener.wait_for(lambda one: one == (f"{BASE}/enabled/state", "ON", one.retain))


def test_what_is_too_old_is_dropped(remembering: Mosquitto) -> None:
    now_s = 1000.0
    run = recognizing()
    sink = a_sink(remembering, run, MqttSettings(heartbeat_s=3600, keep_s=60), clock=lambda: now_s)
    with closing(Listener(remembering.port)) as listener, closing(sink):
        listener.wait_for(lambda one: one.payload == "online")
        remembering.kill()
        sink.write(a_result(1, a_face(1, phase="start"), stream="a", still=True))
        now_s += 61
        sink.write(a_result(2, a_face(2, phase="start"), stream="b", still=True))
        remembering.start()
        listener.wait_for(lambda one: one.topic == f"{BASE}/events")
        assert [one.json()["track"] for one in listener.of(f"{BASE}/events")] == [2]
        assert sink.delivery.counts["dropped"] >= 1


def test_the_switch(broker: Mosquitto, listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    run = recognizing()
    asked = threading.Condition()

    class Asked(Control):
        def pause(self) -> None:
            super().pause()
            with asked:
                asked.notify_all()

        def resume(self) -> None:
            super().resume()
            with asked:
                asked.notify_all()

    run.control = control = Asked()
    control.state = State.RECOGNIZING
    with closing(a_sink(broker, run)) as sink:
        sink.write(a_result(0, a_face(phase="start")))
        listener.wait_for(lambda one: one == (f"{BASE}/enabled/state", "ON", False))
        for wrong in (b"off", b"", b"OFF ", b"\xff\xfe", b"1" * 100_000, b'{"on": false}'):
            listener.publish(f"{BASE}/enabled/set", wrong)
        listener.publish(f"{BASE}/enabled/set", "OFF")
        with asked:
            assert asked.wait_for(lambda: control.paused, LONG_S)
        assert sum("is neither ON nor OFF" in message for message in caplog.messages) == 6
        assert max(map(len, caplog.messages)) < 200
        control.state = State.PAUSING
        sink.tick()
        listener.wait_for(lambda one: '"pausing"' in one.payload)
        assert [one.payload for one in listener.of(f"{BASE}/enabled/state")][-1] == "ON", "it is not closed yet"
        control.state = State.PAUSED
        sink.tick()
        listener.wait_for(lambda one: one == (f"{BASE}/enabled/state", "OFF", False))
        state = listener.of(f"{BASE}/state")[-1].json()
        assert (state["state"], state["faces"], state["expression"]) == ("paused", 0, None)
        listener.publish(f"{BASE}/enabled/set", "ON")
        with asked:
            assert asked.wait_for(lambda: not control.paused, LONG_S)


def test_a_retained_command_does_not_open_a_camera(
    broker: Mosquitto, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    listener.publish(f"{BASE}/enabled/set", "ON", retain=True)
    run = recognizing()
    run.control.pause()
    with closing(a_sink(broker, run)) as sink:
        listener.wait_for(lambda one: one.payload == "online")
        listener.publish(f"{BASE}/enabled/set", "?")  # all before it has been heard when this is
        while not any("neither ON nor OFF" in message for message in caplog.messages):
            sink.tick()
        assert run.control.paused
    assert sum("a retained 'ON' on enabled/set does not count" in message for message in caplog.messages) == 1


def test_home_assistant_that_starts_again_is_told_again(broker: Mosquitto, listener: Listener) -> None:
    topic = "homeassistant/device/edge-fer-pi/config"
    with closing(a_sink(broker, recognizing())):
        first = listener.wait_for(lambda one: one.topic == topic)
        listener.wait_for(lambda one: one.payload == "online")
        listener.forget()
        listener.publish("homeassistant/status", "offline")
        listener.publish("homeassistant/status", "online")
        again = listener.wait_for(lambda one: one.topic == topic)
        assert again.json() == first.json()
        listener.wait_for(lambda one: one == (f"{BASE}/available", "online", False))
        listener.wait_for(lambda one: one.topic == f"{BASE}/state")


def test_no_discovery_where_none_is_wanted(broker: Mosquitto, listener: Listener) -> None:
    with closing(a_sink(broker, recognizing(), replace(SETTINGS, discovery=""))):
        listener.wait_for(lambda one: one.payload == "online")
    listener.wait_for(lambda one: one.payload == "offline")
    assert {one.topic for one in listener.heard} == {
        f"{BASE}/{name}" for name in ("available", "state", "enabled/state")
    }


def test_a_flat_payload_has_one_topic(broker: Mosquitto, listener: Listener) -> None:
    spec = f"mqtt://127.0.0.1:{broker.port}/v1/devices/me/telemetry"
    with closing(MqttSink(spec, recognizing(), replace(SETTINGS, payload="flat"))) as sink:
        sink.write(a_result(0, a_face(phase="start")))
        said = listener.wait_for(lambda one: '"happiness"' in one.payload)
    listener.wait_for(lambda one: '"stopped"' in one.payload)
    assert {one.topic for one in listener.heard} == {"v1/devices/me/telemetry"}
    assert not any(one.retain for one in listener.heard)
    table = said.json()
    assert all(isinstance(value, str | int | float) for value in table.values())
    assert table["expression"] == "happiness" and table["p_happiness"] == 0.79 and table["faces"] == 1


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, server.pem for 127.0.0.1, and its key, made by OpenSSL's program."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    openssl("req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=broker")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "server.csr", *signed, "-out", "server.pem")
    return folder


def with_tls(folder: Path) -> list[str]:
    return [f"certfile {folder}/server.pem", f"keyfile {folder}/server.key"]


def test_tls_and_a_password(tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users").write_text("")
    if not Path("/usr/bin/mosquitto_passwd").exists():
        pytest.skip("mosquitto_passwd is not here: apt-get install mosquitto")
    subprocess.run(["/usr/bin/mosquitto_passwd", "-b", tmp_path / "users", "p i@", "s3cret:"], check=True)
    (tmp_path / "mqtt-password").write_text("s3cret:\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    broker = Mosquitto(tmp_path, f"password_file {tmp_path}/users", *with_tls(certificates))
    try:
        with closing(Listener(broker.port, user="p i@", password="s3cret:", ca=certificates / "ca.pem")) as listener:
            settings = replace(SETTINGS, ca_file=str(certificates / "ca.pem"))
            with closing(MqttSink(f"mqtts://p%20i%40@127.0.0.1:{broker.port}", recognizing(), settings)):
                listener.wait_for(lambda one: one.payload == "online")
            listener.wait_for(lambda one: one.payload == "offline")
    finally:
        broker.kill()


def said_by(caplog: pytest.LogCaptureFixture, sink: MqttSink) -> str:
    """The only line that the log has of a broker that is not reached."""
    while not caplog.messages:
        sink.tick()
    sink.close()
    (said,) = caplog.messages
    assert said.endswith("It is tried again; 1000 messages are kept meanwhile.")
    return said


# paho leaves the socket of a handshake that failed to Python, which closes it at once, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_that_cannot_be_known_is_sent_nothing(
    tmp_path: Path, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(tmp_path, *with_tls(certificates))
    try:
        sink = MqttSink(f"mqtts://127.0.0.1:{broker.port}", recognizing(), SETTINGS)  # the system's certificates
        assert "unable to get local issuer certificate" in said_by(caplog, sink)
        assert sink.delivery.counts["sent"] == 0
    finally:
        broker.kill()


def test_a_wrong_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "users").write_text("")
    (tmp_path / "password").write_text("wrong")
    broker = Mosquitto(tmp_path, f"password_file {tmp_path}/users")
    try:
        settings = replace(SETTINGS, password_file=str(tmp_path / "password"))
        sink = MqttSink(f"mqtt://me@127.0.0.1:{broker.port}", recognizing(), settings)
        said = said_by(caplog, sink)
        assert said.startswith(f"mqtt://127.0.0.1:{broker.port}: it refuses the connection: not authorized.")
        assert "wrong" not in said.replace("wrong.", "")
    finally:
        broker.kill()


def test_a_host_that_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    sink = MqttSink("mqtt://no-such-host.invalid", recognizing(), SETTINGS)
    assert said_by(caplog, sink).startswith("mqtt://no-such-host.invalid:1883: ")


class Silent:
    """Takes connections, reads or not, and never answers; or answers with what the test says."""

    def __init__(self, answer: bytes = b"") -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._answer = answer
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        try:
            while True:
                connection, _ = self.server.accept()
                self._connections.append(connection)
                connection.sendall(self._answer)
        except OSError:
            return

    def close(self) -> None:
        self.server.close()
        for connection in self._connections:
            connection.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "it takes the connection and does not answer"),
        (b"\x20\x02\x00\x00", "it does not confirm"),  # CONNACK, and nothing more
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100, ""),
        (b"\x20\x02\x00\x03", "it refuses the connection: server unavailable"),
        (b"\xff" * 100, ""),
    ],
)
def test_a_broker_that_misbehaves(
    answer: bytes, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_fer.sinks.mqtt.ANSWER_S", 0.3)
    with closing(Silent(answer)) as silent:
        sink = MqttSink(f"mqtt://127.0.0.1:{silent.port}", recognizing(), SETTINGS)
        for track in range(1, 2000):
            sink.write(a_result(track, a_face(track, phase="start"), stream="s", still=True))
        assert said in said_by(caplog, sink)
        assert sink.delivery.counts["sent"] == 0


@pytest.mark.parametrize(
    ("address", "broker"),
    [
        ("mqtt://host", Broker("host", 1883, "", False, "edge-fer/{device}")),
        ("mqtts://host", Broker("host", 8883, "", True, "edge-fer/{device}")),
        ("MQTT://me@host:99/home/{device}/face", Broker("host", 99, "me", False, "home/{device}/face")),
        ("mqtt://a%40b@[::1]:99", Broker("::1", 99, "a@b", False, "edge-fer/{device}")),
        ("mqtt://[fe80::1]/x", Broker("fe80::1", 1883, "", False, "x")),
    ],
)
def test_addresses(address: str, broker: Broker) -> None:
    assert Broker.parse(address, "edge-fer/{device}") == broker


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mqtt://", "is no broker"),
        ("mqtt:host", "is no broker"),
        ("mqtt://me:secret@host", "holds a password"),
        ("mqtt://host:0", "is no broker"),
        ("mqtt://host:65536", "is no broker"),
        ("mqtt://host:x", "is no broker"),
        ("mqtt://host:1883:1", "is no broker"),
        ("mqtt://ho st", "is no broker"),
        ("mqtt://host/a?b=c", "is no broker"),
        ("mqtt://host/a/#", "may hold neither"),
        ("mqtt://host/+/a", "may hold neither"),
        ("mqtt://host/a%00b", "may hold neither"),
        ("mqtt://host/a//b", "must be levels"),
        ("mqtt://host/a/", "must be levels"),
        ("mqtt://host/$SYS/a", "must be levels"),
        ("mqtt://host/{camera}", "placeholder that is not known"),
        ("mqtt://host/{device", "placeholder that is not known"),
        ("mqtt://host/{{device}}", "placeholder that is not known"),
        ("mqtt://host/" + "a" * 2000, "must be levels"),
    ],
)
def test_addresses_that_are_wrong(address: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        open_sink(address)
    assert "secret" not in str(raised.value)
    assert printable(str(raised.value)) == str(raised.value), "the whole sentence is shown"
    assert len(str(raised.value)) < 400 and "\n" not in str(raised.value)


@given(st.text(max_size=60))
def test_any_topic_is_good_or_refused(template: str) -> None:
    try:
        topic = filled(template, "pi/+#")
    except UsageError:
        return
    assert topic and not set("+#\0") & set(topic)
    assert not topic.startswith(("$", "/")) and not topic.endswith("/")


@given(st.text(max_size=80))
def test_any_address_is_good_or_refused(text: str) -> None:
    try:
        broker = Broker.parse(f"mqtt://{text}", "t")
    except EdgeFerError:
        return
    assert broker.host and 0 < broker.port < 65536


@given(st.text(max_size=100))
def test_any_device_has_an_id(name: str) -> None:
    assert 0 < len(device_id(name)) <= 64
    assert device_id(device_id(name)) == device_id(name)
    assert filled("{device}", name)


def test_devices_whose_names_differ_have_ids_that_do() -> None:
    names = ["кухня", "спальня", "厨房", "küche", "kôche", "k-che", "", "x" * 70, "x" * 71, "Living room"]
    assert len({device_id(name) for name in names}) == len(names)
    assert [device_id(name) for name in ("Living room", "k-che", "küche")] == ["Living-room", "k-che", "k-che-d4b04d03"]


def test_a_password_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "password"
    settings = replace(SETTINGS, password_file=str(path))
    with pytest.raises(ConfigError, match=r"mqtt\.password_file: .* cannot be read: No such file or directory\."):
        read_password(settings)
    for wrong, said in ((b"", "must hold one line"), (b"a\nb\n", "must hold one line"), (b"\xff", "it is no text")):
        path.write_bytes(wrong)
        with pytest.raises(ConfigError, match=said):
            read_password(settings)
    path.write_text("s3cret \r\n")
    assert read_password(settings) == "s3cret "
    with pytest.raises(UsageError, match="is given a password and no user"):
        MqttSink("mqtt://host", a_run(), settings)
    assert read_password(SETTINGS) is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_password(SETTINGS) is None


def test_certificates_that_are_wrong(tmp_path: Path, certificates: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    good, key = str(certificates / "server.pem"), str(certificates / "server.key")
    for settings, said in (
        (replace(SETTINGS, ca_file="/no/such"), r"mqtt\.ca_file: /no/such is not there"),
        (replace(SETTINGS, ca_file=str(bad)), "is no certificate"),
        (replace(SETTINGS, cert_file=good), "belong together"),
        (replace(SETTINGS, cert_file=good, key_file=str(certificates / "ca.key")), "is no certificate, or not its key"),
        (replace(SETTINGS, cert_file=key, key_file=good), "is no certificate, or not its key"),
    ):
        with pytest.raises(ConfigError, match=said):
            tls_context(settings)
    tls_context(replace(SETTINGS, cert_file=good, key_file=key))


def test_the_largest_face_speaks_and_keeps_the_word() -> None:
    now_s = 0.0
    control = Control()
    control.state = State.RECOGNIZING
    summary, run = Summary(control, clock=lambda: now_s), a_run()

    def see(*faces: tuple[int, int], camera: str = "a") -> dict[str, Any]:
        shown = [
            replace(one, quality=replace(one.quality, size_px=px))
            for one, px in ((a_face(track, list(Expression)[track], "start"), px) for track, px in faces)
        ]
        result: FrameResult = a_result(0, *shown, stream=camera, still=True)
        summary.add(result, run.to_events(result))
        return summary.now()

    assert see((1, 100), (2, 90))["expression"] == list(Expression)[1]
    assert see((1, 80), (2, 90))["expression"] == list(Expression)[1]
    assert see((1, 60), (2, 90))["expression"] == list(Expression)[2]
    assert see((1, 60))["expression"] == list(Expression)[1]
    now = see((3, 200), camera="b")
    assert (now["faces"], now["camera"], now["expression"]) == (2, "b", list(Expression)[3])
    now_s += STALE_S / 2
    see(camera="b")
    now_s += STALE_S * 0.75  # a has sent nothing for long
    assert (summary.now()["faces"], summary.now()["expression"]) == (0, None)


def test_heat_and_throttling(tmp_path: Path) -> None:
    control, now_s = Control(), 0.0
    (tmp_path / "temp").write_text("64321\n")
    (tmp_path / "throttled").write_text("50000\n")
    board = BoardFiles(temperature=tmp_path / "temp", throttled=tmp_path / "throttled")
    summary = Summary(control, board, lambda: now_s)
    assert (summary.now()["temperature_c"], summary.now()["throttled"]) == (64.3, False)
    (tmp_path / "throttled").write_text("50005\n")
    now_s = 60.0
    assert summary.now()["throttled"] is True


def test_discovery_keeps_to_home_assistants_rules() -> None:
    message = discovery("pi", BASE, ["happiness", "fear"], "nano", has_sensors=True)
    components = message["cmps"]
    assert components.keys() == {
        "expression",
        "confidence",
        "face",
        "faces",
        "fps",
        "inference_ms",
        "status",
        "enabled",
        "temperature_c",
        "throttled",
    }
    assert len({one["unique_id"] for one in components.values()}) == len(components)
    for one in components.values():
        assert one["p"] in ("sensor", "binary_sensor", "switch")
        assert one["state_topic"].startswith(BASE)
        if one.get("device_class") == "enum":  # neither a unit nor a state class
            assert one["options"] and not {"unit_of_measurement", "state_class"} & one.keys()
    assert components["enabled"]["command_topic"] == f"{BASE}/enabled/set"
    assert discovery("pi", BASE, [], "nano", has_sensors=False)["cmps"].keys() == components.keys() - {
        "temperature_c",
        "throttled",
    }


def test_two_brokers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--camera", "demo", "--output", "mqtt://a", "--output", "mqtts://me@b/secret"]) == 2
    assert capsys.readouterr().err == (
        "edge-fer: mqtt://a and mqtts://b/...: [mqtt] speaks of one broker; leave one out.\n"
    )


def test_a_missing_package_is_one_sentence() -> None:
    script = (
        "import sys; sys.modules['paho'] = None; from edge_fer.cli import main; "
        "sys.exit(main(['run', '--camera', 'demo', '--output', 'mqtt://127.0.0.1']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 69
    assert done.stderr.startswith("edge-fer: MQTT needs the package paho-mqtt: pip install 'edge-fer[service]'")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def service(broker: Mosquitto, listener: Listener, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a service with the demo and a broker; it has said that it recognizes when this returns."""
    children = []

    def start() -> subprocess.Popen[str]:
        spec = f"mqtt://127.0.0.1:{broker.port}"
        command = [sys.executable, "-m", "edge_fer", "run", "--camera", "demo", "--output", spec, "--name", "pi"]
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "nobody"), "XDG_CONFIG_HOME": str(tmp_path)}
        children.append(subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True))
        listener.wait_for(lambda one: one.topic == f"{BASE}/state" and '"recognizing"' in one.payload)
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.communicate()


def test_a_service_that_is_stopped_says_so(service: Callable[[], subprocess.Popen[str]], listener: Listener) -> None:
    child = service()
    child.send_signal(signal.SIGTERM)
    assert child.communicate(timeout=LONG_S)[1] == ""
    assert child.returncode == 0
    listener.wait_for(lambda one: one == (f"{BASE}/available", "offline", False))
    assert listener.of(f"{BASE}/state")[-1].json()["state"] == "stopped"
    events = [one.json() for one in listener.of(f"{BASE}/events")]
    for event in events:
        jsonschema.validate(event, SCHEMA)
    assert {"start", "end"} <= {event["phase"] for event in events}


def test_a_service_that_dies_is_said_to_be_offline(
    service: Callable[[], subprocess.Popen[str]], listener: Listener
) -> None:
    service().kill()
    listener.wait_for(lambda one: one == (f"{BASE}/available", "offline", False))
    assert listener.of(f"{BASE}/state")[-1].json()["state"] == "recognizing"


def test_a_service_is_switched_off_and_on(service: Callable[[], subprocess.Popen[str]], listener: Listener) -> None:
    service()
    listener.publish(f"{BASE}/enabled/set", "OFF")
    listener.wait_for(lambda one: one == (f"{BASE}/enabled/state", "OFF", False))
    listener.forget()
    listener.publish(f"{BASE}/enabled/set", "ON")
    listener.wait_for(lambda one: one == (f"{BASE}/enabled/state", "ON", False))
    listener.wait_for(lambda one: one.topic == f"{BASE}/events" and one.json()["phase"] == "start")


@pytest.fixture(autouse=True)
def _warnings_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "edge_fer")
