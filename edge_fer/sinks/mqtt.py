"""Results for a broker of MQTT 3.1.1: events, a retained state, and the switch that closes the camera."""

from __future__ import annotations

import json
import logging
import queue
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from edge_fer.board import BOARD, BoardFiles
from edge_fer.config import MqttSettings
from edge_fer.control import State
from edge_fer.core import Expression, FrameResult
from edge_fer.errors import UnavailableError
from edge_fer.events import Event, Run
from edge_fer.sinks.broker import Access
from edge_fer.sinks.delivery import Delivery
from edge_fer.sinks.home_assistant import device_id, discovery, discovery_topic
from edge_fer.sinks.summary import Summary

try:
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion
except ImportError:
    raise UnavailableError(
        "MQTT needs the package paho-mqtt: pip install 'edge-fer[service]', or paho-mqtt alone, where edge-fer is."
    ) from None

KEEPALIVE_S = 30
"""A connection over which nothing comes for longer is closed, by either side; the broker then says ``offline``."""
ANSWER_S = 4.0
"""So long a broker may take to answer; then the connection is made anew."""
GOODBYE_S = 0.5
BATCH = 20
TICK_S = 1.0
"""How often it is looked whether the state has changed in what only matters now and then, as the confidence."""
CONFIDENCE_STEP = 0.1
"""A confidence that has changed by more is published."""

log = logging.getLogger("edge_fer")


class _Message:
    """One that waits for the broker. ``arrived`` once it has it: a batch that is sent again leaves it out."""

    __slots__ = ("arrived", "payload", "retain", "topic")

    def __init__(self, topic: str, payload: str, retain: bool = False) -> None:
        self.topic = topic
        self.payload = payload
        self.retain = retain
        self.arrived = False


class MqttSink:
    """Publishes events and the state of the device; implements ``core.Sink``.

    Below the topic of the address, with ``payload = "home-assistant"``:

    * ``available``, retained: ``online``; ``offline`` after ``close``, and as last will when the connection is lost;
    * ``state``, retained: one JSON object, on each change and with each heartbeat;
    * ``events``: those that start or end a face, or change its answer, as ``event.schema.json`` describes them;
    * ``enabled/set`` takes ``ON`` and ``OFF``: the pause switch; ``enabled/state``, retained, says ``OFF`` once all
      cameras are closed.

    Home Assistant's discovery message is published with each connection, and again when Home Assistant says that it
    has come ``online``. With ``payload = "flat"`` there is one topic, that of the address, and one flat JSON object, on
    each change and with each heartbeat.

    Events wait while the broker is away, ``mqtt.keep_s`` at most, and arrive at least once, in order. Of the state only
    the newest is sent.

    Args:
        spec: address of the broker, see ``Broker.parse``.
        run: makes the events, and is paused.
        settings: what the address does not say.
        board: tells temperature and throttling.
        clock: seconds that only grow.

    Attributes:
        delivery: the queue.

    Raises:
        UsageError: the address or a topic is wrong.
        ConfigError: the password or a certificate cannot be read.
    """

    def __init__(
        self,
        spec: str,
        run: Run,
        settings: MqttSettings,
        *,
        board: BoardFiles = BOARD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._flat = settings.payload == "flat"
        self._broker, self._base, self._prefix, self._password, self._tls = Access.of(spec, settings, run.device)
        self._run = run
        self._settings = settings
        self._summary = Summary(run.control, board, clock)
        self._clock = clock
        self._sent_changes: dict[int, tuple[str, str | None]] = {}
        self._queued_s: float | None = None
        self._looked_s = self._beat_s = float("-inf")
        self._published: dict[str, Any] = {}
        self._client: paho.Client | None = None
        self._enabled = ""  # as last published over this connection
        self._closed = False
        name = run.control.own_name(str(self._broker))
        self.delivery: Delivery[_Message | None] = Delivery(
            name, self._send, batch=BATCH, oldest_s=settings.keep_s, clock=clock
        )
        run.control.deliveries[name] = self.delivery
        self._queue_state()

    def write(self, result: FrameResult) -> None:
        """Queue what has changed with a frame; returns at once."""
        events = self._run.to_events(result)
        self._summary.add(result, events)
        for event in events:
            self._queue_event(event, remember=not result.frame.still)
        self.tick()

    def tick(self) -> None:
        """Called by the loop some five times a second, also where no frame comes: the state changes without them."""
        now_s = self._clock()
        if self._summary.is_other(self._published):
            self._queue_state()
        elif now_s - self._looked_s >= TICK_S:
            self._looked_s = now_s
            moved = abs((self._summary.confidence or 0.0) - (self._published.get("confidence") or 0.0))
            if now_s - self._beat_s >= self._settings.heartbeat_s or moved > CONFIDENCE_STEP:
                self._queue_state()

    def end(self, events: Sequence[Event]) -> None:
        """Queue the ends of faces of a camera that shows nothing more."""
        for event in events:
            self._queue_event(event)

    def close(self) -> None:
        """End the faces, say that it is ``stopped`` and ``offline``, and leave the broker; never raises."""
        if self._closed:
            return
        self.end(self._run.to_ends())
        self._run.control.state = State.STOPPED
        self._queued_s = None
        self._queue_state()
        self.delivery.close()
        self._closed = True
        client, self._client = self._client, None
        if client is None:
            return
        with suppress(ValueError, RuntimeError):
            if not self._flat:
                client.publish(f"{self._base}/available", "offline", 1, True).wait_for_publish(GOODBYE_S)
        _leave(client)

    def _queue_event(self, event: Event, *, remember: bool = True) -> None:
        if self._flat:
            return
        answer, track = (event["expression"], event["uncertain"]), event["track"]
        if event["phase"] == "update" and self._sent_changes.get(track) == answer:
            return
        if event["phase"] == "end":
            self._sent_changes.pop(track, None)
        elif remember:
            self._sent_changes[track] = answer
        self.delivery.put(_Message(f"{self._base}/events", json.dumps(event, separators=(",", ":"))))

    def _queue_state(self) -> None:
        """Have the state published: as it will be when its turn comes, so that one in the queue is enough."""
        now_s = self._clock()
        self._beat_s = now_s
        self._published = self._summary.now()
        if self._queued_s is None or now_s - self._queued_s > self._settings.heartbeat_s:  # it may have been dropped
            self._queued_s = now_s
            self.delivery.put(None)

    # What follows is called by the delivery's thread, and the callbacks by that of paho.

    def _send(self, batch: Sequence[_Message | None]) -> None:
        """Publish, and wait until the broker has it all.

        Raises:
            OSError: the broker cannot be reached, or has not confirmed in time.
            UnavailableError: it refuses.
        """
        client = self._client
        if client is None or not client.is_connected():
            client = self._connect()
        messages: list[_Message] = []
        for one in batch:
            if one is None:
                self._queued_s = None
                messages += self._state_messages()
            elif not one.arrived:
                messages.append(one)
        waiting = [(one, client.publish(one.topic, one.payload, 1, one.retain)) for one in messages]
        until_s = time.monotonic() + ANSWER_S
        try:
            for message, info in waiting:
                info.wait_for_publish(max(0.1, until_s - time.monotonic()))
                message.arrived = info.is_published()
                if not message.arrived:
                    raise TimeoutError("it does not confirm")
        except (ValueError, RuntimeError) as error:
            raise ConnectionError(f"the connection was lost ({error})") from None
        finally:
            if not all(message.arrived for message in messages):
                self._client = None
                _leave(client)

    def _connect(self) -> paho.Client:
        client, self._client = self._client, None
        if client is not None:
            _leave(client)
        if self._closed:
            raise ConnectionError("it is closed")
        # The same id each time: a broker that has not noticed the end of the last connection ends it now.
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"edge-fer-{device_id(self._run.device)}",
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = ANSWER_S
        if self._broker.user:
            client.username_pw_set(self._broker.user, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        client.on_connect = lambda client, data, flags, code, properties: answers.put(code)
        client.on_disconnect = lambda client, data, flags, code, properties: answers.put(code)
        client.on_message = self._on_message
        if not self._flat:
            client.will_set(f"{self._base}/available", "offline", 1, True)
        try:
            client.connect(self._broker.host, self._broker.port, KEEPALIVE_S)
            client.loop_start()
            code = answers.get(timeout=ANSWER_S)
        except queue.Empty:
            _leave(client)
            raise TimeoutError("it takes the connection and does not answer") from None
        except OSError as error:
            raise ConnectionError(getattr(error, "verify_message", "") or error.strerror or str(error)) from None
        except ValueError as error:  # a host that cannot be one
            raise ConnectionError(str(error)) from None
        if code != 0:
            _leave(client)
            raise UnavailableError(f"it refuses the connection: {str(code).lower()}")
        client.on_disconnect = lambda client, data, flags, code, properties: self._lost(client)
        self._client, self._enabled = client, ""
        if not self._flat:
            client.subscribe(
                [(f"{self._base}/enabled/set", 1), *([(f"{self._prefix}/status", 1)] if self._prefix else [])]
            )
            self._introduce(client)
        return client

    def _lost(self, client: paho.Client) -> None:
        """Have it reached again, though there may be nothing to say for long."""
        if self._client is client and not self._closed:
            self.delivery.put(None)

    def _introduce(self, client: paho.Client) -> None:
        """Say what is here, and that it is: retained, but a broker may have forgotten it."""
        if self._prefix:
            message = discovery(
                self._run.device,
                self._base,
                [one.value for one in Expression],
                self._run.model,
                has_sensors=self._published.get("temperature_c") is not None,
            )
            client.publish(discovery_topic(self._prefix, self._run.device), json.dumps(message), 1, True)
        client.publish(f"{self._base}/available", "online", 1, True)
        for one in self._state_messages(anew=True):
            client.publish(one.topic, one.payload, 1, one.retain)

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        if self._prefix and message.topic == f"{self._prefix}/status":
            if message.payload == b"online":
                self._introduce(client)
            return
        command = message.payload[:20].decode(errors="replace")
        if message.retain:
            # It may be as old as the broker, and open a camera that was closed since.
            log.warning(
                "%s: a retained %r on enabled/set does not count. Publish it without retain.", self._broker, command
            )
        elif command == "OFF":
            self._run.control.pause()
        elif command == "ON":
            self._run.control.resume()
        else:
            log.warning("%s: %r on enabled/set is neither ON nor OFF.", self._broker, command)

    def _state_messages(self, *, anew: bool = False) -> list[_Message]:
        state = self._summary.now() if self._run.control.state is State.STOPPED else self._published
        if self._flat:
            flat = {key: value for key, value in self._summary.flat(state).items() if value is not None}
            return [_Message(self._base, json.dumps(flat, separators=(",", ":")))]
        messages = [_Message(f"{self._base}/state", json.dumps(state, separators=(",", ":")), True)]
        is_off = state["state"] == State.PAUSED or (state["state"] == State.STOPPED and self._run.control.paused)
        enabled = "OFF" if is_off else "ON"
        if anew or enabled != self._enabled:
            self._enabled = enabled
            messages.append(_Message(f"{self._base}/enabled/state", enabled, True))
        return messages


def _leave(client: paho.Client) -> None:
    client.on_disconnect = None
    client.disconnect()
    client.loop_stop()
    client.on_message = None  # no circle is left, so that it closes its sockets now
