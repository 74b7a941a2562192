"""What HTTP clients ask, what they get, and how much of everything: values alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias


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


class Member(Protocol):
    """A client of a stream."""

    def push(self, data: bytes) -> bool:
        """Send a part of the stream; returns whether it was: a slow reader is left out."""
        ...

    def finish(self) -> None:
        """End the stream as the protocol wants it."""
        ...


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
        self.members: set[Member] = set()
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


def refusal(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is a sentence."""
    return Response(status, f"{why}\n".encode(), headers=headers or {})
