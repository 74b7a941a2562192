"""A small HTTP/1.1 server: it listens, and runs an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import platform
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress

from edge_fer.errors import UnavailableError, UsageError
from edge_fer.service.connection import LINGER_S, Admission, Connection
from edge_fer.service.http import Handler, Limits
from edge_fer.threads import start_aside

CLOSE_S = 1.5
"""How long ``close`` waits for the thread, as for the queues of other sinks."""


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
        self._admission = Admission(handle, limits or Limits(), headers or {})
        self.requests = self._admission.requests
        self._tls = tls
        self._socket = _listen(host, port)
        address, port = self._socket.getsockname()[:2]
        self.is_loopback = ipaddress.ip_address(address).is_loopback
        shown = f"[{address}]" if ":" in address else address
        if ipaddress.ip_address(address).is_unspecified:  # all of this machine's
            shown = platform.node() or "localhost"
        self.url = f"{'https' if tls else 'http'}://{shown}:{port}"
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
            lambda: Connection(self._admission, loop),
            sock=self._socket,
            ssl=self._tls,
            backlog=64,
            ssl_handshake_timeout=self._admission.limits.request_s if self._tls else None,
            ssl_shutdown_timeout=LINGER_S if self._tls else None,
        )
        await self._ended.wait()
        server.close()
        for connection in list(self._admission.open):
            connection.finish()
        await asyncio.sleep(0)  # connections hear of their end


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
