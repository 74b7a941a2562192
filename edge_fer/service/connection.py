"""One client of the HTTP server: h11 speaks the protocol, asyncio reads and writes; and who is let in."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qsl

import h11

from edge_fer.errors import printable
from edge_fer.service.http import Channel, Handler, Limits, Request, Response, refusal

LINGER_S = 1.0
"""How long an answer may be on its way after we have nothing more to say."""
_STREAM_SOCKET_BYTES = 1 << 17
"""Kept by the system for a stream: what a slow reader lags behind at most, together with ``Limits.waiting_bytes``."""

log = logging.getLogger("edge_fer")


class Admission:
    """Counts the clients of a server, and answers those who keep within its limits.

    Args:
        handle: makes the answers.
        limits: see there.
        headers: that every answer has.
        clock: seconds that only grow.

    Attributes:
        limits: see above.
        headers: see above.
        open: the connections.
        requests: how many, by the status of the answer.
    """

    def __init__(
        self,
        handle: Handler,
        limits: Limits,
        headers: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.headers = dict(headers)
        self.open: set[Connection] = set()
        self.requests: Counter[int] = Counter()
        self._handle = handle
        self._clock = clock
        self._of_one: Counter[str] = Counter()
        self._buckets: dict[str, tuple[float, float]] = {}

    def joined(self, connection: Connection) -> bool:
        """Count a connection; returns whether it may stay."""
        self.open.add(connection)
        self._of_one[connection.peer] += 1
        few = len(self.open) <= self.limits.connections
        return few and self._of_one[connection.peer] <= self.limits.connections_of_one

    def left(self, connection: Connection) -> None:
        """A connection is closed."""
        self.open.discard(connection)
        self._of_one[connection.peer] -= 1
        if self._of_one[connection.peer] <= 0:
            del self._of_one[connection.peer]

    def answer(self, request: Request) -> Response:
        """The answer to a request, or why there is none."""
        if not self._may_ask(request.peer):
            return refusal(429, "Too many requests. Ask again in a second.", {"Retry-After": "1"})
        if request.method == "CONNECT":
            return refusal(405, "This is no proxy.")
        try:
            return self._handle(request)
        except Exception:  # a fault of ours in one answer must not stop the service
            log.exception("The answer to %s %s failed.", printable(request.method), printable(request.path))
            return refusal(500, "Internal error. The log says more.")

    def _may_ask(self, peer: str) -> bool:
        """A token bucket for each address; those that are full again are forgotten."""
        now_s, hz, burst = self._clock(), self.limits.requests_hz, self.limits.burst
        if len(self._buckets) > 1000:
            full_s = burst / hz
            self._buckets = {one: bucket for one, bucket in self._buckets.items() if now_s - bucket[1] < full_s}
        tokens, since_s = self._buckets.get(peer, (float(burst), now_s))
        tokens = min(burst, tokens + (now_s - since_s) * hz)
        self._buckets[peer] = (max(0.0, tokens - 1), now_s)
        return tokens >= 1


class Connection(asyncio.Protocol):
    """One client: its requests one after another, or the stream that it has asked for; a ``Member`` of its channel.

    Args:
        admission: lets it in, and answers.
        loop: of the server.
    """

    def __init__(self, admission: Admission, loop: asyncio.AbstractEventLoop) -> None:
        self.peer = ""
        self._admission = admission
        self._loop = loop
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=admission.limits.head_bytes)
        self._transport: asyncio.Transport | None = None
        self._request: h11.Request | None = None
        self._body = b""
        self._channel: Channel | None = None
        self._is_ending = False
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.peer = (transport.get_extra_info("peername") or ("",))[0]
        transport.set_write_buffer_limits(self._admission.limits.waiting_bytes // 2)
        self._wait(self._admission.limits.request_s)
        if not self._admission.joined(self):
            self._refuse(503, "Too many connections. Try again later.")

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_waiting()
        self.resume_writing()
        if self._channel is not None:
            self._channel.members.discard(self)
        self._admission.left(self)

    def data_received(self, data: bytes) -> None:
        if self._is_ending or self._channel is not None:
            return  # a stream is one way
        try:
            self._h11.receive_data(data)
            self._go_on()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, "This is no request that a browser would send.")

    def eof_received(self) -> bool:
        return False  # the other side has closed: so does asyncio

    def pause_writing(self) -> None:
        assert self._transport is not None
        self._stalled = self._loop.call_later(self._admission.limits.stall_s, self._transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def push(self, data: bytes) -> bool:
        """Send a part of the stream; returns whether it was."""
        assert self._transport is not None
        if self._transport.is_closing():
            return True
        if self._transport.get_write_buffer_size() + len(data) > self._admission.limits.waiting_bytes:
            return False
        self._transport.write(self._h11.send(h11.Data(data)) or b"")
        return True

    def finish(self) -> None:
        """End a stream or a connection as the protocol wants it."""
        assert self._transport is not None
        if self._channel is not None:
            with suppress(h11.LocalProtocolError):
                self._transport.write(self._h11.send(h11.EndOfMessage()) or b"")
        self._transport.close()

    def _go_on(self) -> None:
        """Do what can be done with what has come."""
        while not self._is_ending and self._channel is None:
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                self._request, self._body = event, b""
                if self._announced_bytes() > self._admission.limits.body_bytes:
                    self._refuse(413, "The request is too large.")
                elif self._h11.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]))
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > self._admission.limits.body_bytes:
                    self._refuse(413, "The request is too large.")
            elif isinstance(event, h11.EndOfMessage):
                self._respond(self._admission.answer(self._parsed()))
            else:
                if isinstance(event, h11.ConnectionClosed):
                    self._close()
                return  # NEED_DATA, or PAUSED until the other side has closed

    def _announced_bytes(self) -> int:
        assert self._request is not None
        lengths = [value for name, value in self._request.headers if name == b"content-length"]
        return int(lengths[0]) if lengths else 0

    def _parsed(self) -> Request:
        assert self._request is not None
        path, _, query = self._request.target.decode("latin-1").partition("?")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._request.headers}
        try:
            asked = dict(parse_qsl(query, max_num_fields=20))
        except ValueError:
            asked = {}
        return Request(self._request.method.decode("latin-1"), path, asked, headers, self._body, self.peer)

    def _respond(self, response: Response) -> None:
        assert self._request is not None
        self._stop_waiting()
        self._admission.requests[response.status] += 1
        is_stream = response.channel is not None and self._request.method != b"HEAD"
        headers = {"Content-Type": response.kind, **self._admission.headers, **response.headers}
        if is_stream:
            headers["Connection"] = "close"
        elif response.status != 304:
            headers["Content-Length"] = str(len(response.body))
        events: list[h11.Event] = [_head(response.status, headers)]
        if response.body and self._request.method != b"HEAD":
            events.append(h11.Data(response.body))
        if is_stream:
            self._write(*events)
            self._join(response.channel)
            return
        self._write(*events, h11.EndOfMessage())
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            self._request = None
            self._wait(self._admission.limits.request_s)
        else:
            self._end()

    def _join(self, channel: Channel | None) -> None:
        assert channel is not None and self._transport is not None
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _STREAM_SOCKET_BYTES)
        self._channel = channel
        channel.members.add(self)
        if channel.once:
            self._wait(self._admission.limits.request_s)

    def _refuse(self, status: int, why: str) -> None:
        """Answer what is no good request, and hear no more."""
        self._admission.requests[status] += 1
        response = refusal(status, why)
        headers = {
            "Content-Type": response.kind,
            **self._admission.headers,
            "Connection": "close",
            "Content-Length": str(len(response.body)),
        }
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            is_head = self._request is not None and self._request.method == b"HEAD"
            body = [] if is_head else [h11.Data(response.body)]
            self._write(_head(status, headers), *body, h11.EndOfMessage())
        self._end()

    def _end(self) -> None:
        """Close after what was written has arrived: what is still sent to a closed socket would destroy that."""
        assert self._transport is not None
        self._is_ending = True
        if self._transport.can_write_eof():
            with suppress(OSError):
                self._transport.write_eof()
            self._wait(LINGER_S)
        else:
            self._transport.close()

    def _write(self, *events: h11.Event) -> None:
        """Send events in one piece."""
        assert self._transport is not None
        self._transport.write(b"".join(self._h11.send(event) or b"" for event in events))

    def _wait(self, limit_s: float) -> None:
        """Cut the connection after a time, unless something happens."""
        self._stop_waiting()
        assert self._transport is not None
        self._timer = self._loop.call_later(limit_s, self._transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        assert self._transport is not None
        self._transport.close()


def _head(status: int, headers: Mapping[str, str]) -> h11.Response:
    dated = {"Date": formatdate(usegmt=True), **headers}
    lines = [(name.encode("ascii"), value.encode("latin-1")) for name, value in dated.items()]
    return h11.Response(status_code=status, headers=lines, reason=HTTPStatus(status).phrase.encode())
