"""A small HTTP/1.1 server with limits: h11 speaks the protocol, asyncio reads and writes, in a thread of its own."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import platform
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import parse_qsl

import h11

from edge_fer.errors import UnavailableError, UsageError, printable
from edge_fer.threads import start_aside

CLOSE_S = 1.5
"""How long ``close`` waits for the thread, as for the queues of other sinks."""
_STARTS_S = 5.0
_LINGER_S = 1.0
_STREAM_SOCKET_BYTES = 1 << 17
"""Kept by the system for a stream: what a slow reader lags behind at most, together with ``Limits.waiting_bytes``."""

log = logging.getLogger("edge_fer")


@dataclass(frozen=True)
class Limits:
    """What clients may use up, all of them together unless said otherwise.

    Attributes:
        connections: at once.
        connections_of_one: at once, of one address.
        head_bytes: of a request's first line and headers.
        body_bytes: of its body.
        request_s: until a request is whole, from when the connection is made or the last answer is given.
        requests_hz: of one address, in the long run.
        burst: of requests of one address, before that counts.
        waiting_bytes: of a stream that wait for a slow reader; what comes then is left out.
        stall_s: a reader that takes nothing for so long is cut off.
    """

    connections: int = 128
    connections_of_one: int = 96
    head_bytes: int = 16_384
    body_bytes: int = 4096
    request_s: float = 10.0
    requests_hz: float = 50.0
    burst: int = 200
    waiting_bytes: int = 1 << 18
    stall_s: float = 20.0


@dataclass(frozen=True)
class Request:
    """What a client asks for.

    Attributes:
        method: "GET".
        path: "/api/v1/state", as it was sent, without the query.
        query: the last value of each name.
        headers: by name in small letters.
        body: at most ``Limits.body_bytes``.
        peer: address of the client, without its port.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    peer: str = ""


@dataclass(frozen=True)
class Response:
    """What it gets: whole, or where there is a channel, what is published there from now on.

    Attributes:
        status: as 200.
        body: of a stream, what is sent first.
        kind: of the content, as "text/plain".
        headers: further ones.
        channel: of a stream; None for a whole answer.
    """

    status: int = 200
    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    channel: Channel | None = None


Handler: TypeAlias = Callable[[Request], Response]


class Channel:
    """Clients that are sent the same bytes as they come. Used in the server's thread; others may ask ``len``.

    Args:
        once: they are sent one part, and that is all.

    Attributes:
        once: see above.
        members: the clients.
        left_out: how often a client was too slow to be sent something.
    """

    def __init__(self, once: bool = False) -> None:
        self.left_out = 0
        self.members: set[_Connection] = set()
        self.once = once

    def __len__(self) -> int:
        return len(self.members)

    def publish(self, data: bytes) -> None:
        """Send to all that keep up."""
        for member in list(self.members):
            if not member.push(data):
                self.left_out += 1
            if self.once:
                member.finish()


class Server:
    """Listens from the start; ``handle`` answers each request in the server's thread, and should be quick.

    Args:
        host: a name or address of this machine.
        port: 0 for one that is free.
        handle: makes the answer.
        headers: that every answer has.
        tls: of the certificate; None for plain HTTP.
        limits: see there.

    Attributes:
        url: where a browser finds it, "http://127.0.0.1:8080".
        is_loopback: it can be reached from this machine alone.
        requests: how many, by the status of the answer.

    Raises:
        UnavailableError: the port is in use.
        UsageError: the address is not of this machine, or the port may not be used.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handle: Handler,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.headers = dict(headers or {})
        self.requests: Counter[int] = Counter()
        self.connections: Counter[str] = Counter()
        self._handle = handle
        self._tls = tls
        self._buckets: dict[str, tuple[float, float]] = {}
        self._socket = _listen(host, port)
        address, port = self._socket.getsockname()[:2]
        self.is_loopback = ipaddress.ip_address(address).is_loopback
        shown = f"[{address}]" if ":" in address else address
        if ipaddress.ip_address(address).is_unspecified:  # all of this machine's
            shown = platform.node() or "localhost"
        self.url = f"{'https' if tls else 'http'}://{shown}:{port}"
        self._open: set[_Connection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._join: Callable[[float], None] | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._loop = asyncio.new_event_loop()
        self._join = start_aside(self._run, "web")

    def call(self, act: Callable[..., object], *arguments: object) -> None:
        """Let the server's thread call a function soon; may be called by any thread. Before the start, and after the
        end, nothing happens."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(act, *arguments)

    def later(self, pause_s: float, act: Callable[[], object]) -> None:
        """Let the server's thread call a function after a pause. Called in that thread."""
        assert self._loop is not None
        self._loop.call_later(pause_s, act)

    def close(self) -> None:
        """End all connections and the thread. Waits for ``CLOSE_S`` at most."""
        if self._loop is None or self._join is None:
            self._socket.close()
            return
        self.call(self._ended.set)
        self._join(CLOSE_S)

    def _run(self) -> None:
        assert self._loop is not None
        try:
            self._loop.run_until_complete(self._serve(self._loop))
        finally:
            self._loop.close()

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        server = await loop.create_server(
            lambda: _Connection(self, loop),
            sock=self._socket,
            ssl=self._tls,
            backlog=64,
            ssl_handshake_timeout=self.limits.request_s if self._tls else None,
            ssl_shutdown_timeout=_LINGER_S if self._tls else None,
        )
        await self._ended.wait()
        server.close()
        for connection in list(self._open):
            connection.finish()
        await asyncio.sleep(0)  # connections hear of their end

    # The rest is for _Connection.

    def joined(self, connection: _Connection) -> bool:
        """Count a connection; returns whether it may stay."""
        self._open.add(connection)
        self.connections[connection.peer] += 1
        few = len(self._open) <= self.limits.connections
        return few and self.connections[connection.peer] <= self.limits.connections_of_one

    def left(self, connection: _Connection) -> None:
        """A connection is closed."""
        self._open.discard(connection)
        self.connections[connection.peer] -= 1
        if self.connections[connection.peer] <= 0:
            del self.connections[connection.peer]

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
        assert self._loop is not None
        now_s, hz, burst = self._loop.time(), self.limits.requests_hz, self.limits.burst
        if len(self._buckets) > 1000:
            full_s = burst / hz
            self._buckets = {one: bucket for one, bucket in self._buckets.items() if now_s - bucket[1] < full_s}
        tokens, since_s = self._buckets.get(peer, (float(burst), now_s))
        tokens = min(burst, tokens + (now_s - since_s) * hz)
        self._buckets[peer] = (max(0.0, tokens - 1), now_s)
        return tokens >= 1


class _Connection(asyncio.Protocol):
    """One client: its requests one after another, or the stream that it has asked for."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.peer = ""
        self._server = server
        self._loop = loop
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=server.limits.head_bytes)
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
        transport.set_write_buffer_limits(self._server.limits.waiting_bytes // 2)
        self._wait(self._server.limits.request_s)
        if not self._server.joined(self):
            self._refuse(503, "Too many connections. Try again later.")

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_waiting()
        self.resume_writing()
        if self._channel is not None:
            self._channel.members.discard(self)
        self._server.left(self)

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
        self._stalled = self._loop.call_later(self._server.limits.stall_s, self._transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def push(self, data: bytes) -> bool:
        """Send a part of the stream; returns whether it was."""
        assert self._transport is not None
        if self._transport.is_closing():
            return True
        if self._transport.get_write_buffer_size() + len(data) > self._server.limits.waiting_bytes:
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
                if self._announced_bytes() > self._server.limits.body_bytes:
                    self._refuse(413, "The request is too large.")
                elif self._h11.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]))
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > self._server.limits.body_bytes:
                    self._refuse(413, "The request is too large.")
            elif isinstance(event, h11.EndOfMessage):
                self._respond(self._server.answer(self._parsed()))
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
        self._server.requests[response.status] += 1
        is_stream = response.channel is not None and self._request.method != b"HEAD"
        headers = {"Content-Type": response.kind, **self._server.headers, **response.headers}
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
            self._wait(self._server.limits.request_s)
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
            self._wait(self._server.limits.request_s)

    def _refuse(self, status: int, why: str) -> None:
        """Answer what is no good request, and hear no more."""
        self._server.requests[status] += 1
        response = refusal(status, why)
        headers = {
            "Content-Type": response.kind,
            **self._server.headers,
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
            self._wait(_LINGER_S)
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


def refusal(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is a sentence."""
    return Response(status, f"{why}\n".encode(), headers=headers or {})


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UnavailableError: the port is in use.
        UsageError: the address is not of this machine, or the port may not be used.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(f"web:{host}:{port}: there is no host {host}. Write web:127.0.0.1:{port}.") from None
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and ipaddress.ip_address(address[0]).is_loopback:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(64)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UnavailableError(
                f"Port {port} of {host} is in use, perhaps by another edge-fer. Choose another: web:{host}:{port + 1}."
            ) from None
        raise UsageError(f"web:{host}:{port} cannot be listened at: {error.strerror}. Choose another.") from None
    return listening
