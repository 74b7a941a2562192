"""Clients of the web page for tests and benchmarks: good ones, and requests that no browser sends."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

LONG_S = 20.0  # only reached when the code under test hangs

TARGETS = (
    "/",
    "/page.js",
    "/login",
    "/healthz",
    "/readyz",
    "/metrics",
    "/api/v1/state",
    "/api/v1/enabled",
    "/snapshot.jpg",
    "/api/v1/faces/1/crop.png",
    "/api/v1/faces/99999999999999999999/crop.png",
    "/../../etc/passwd",
    "/..%2f..%2fetc/passwd",
    "/%00",
    "//",
    "/page.js/..",
    "/static/../../config.toml",
    "http://elsewhere/",
    "*",
    "",
    "/" + "a" * 3000,
    "/?" + "&" * 300,
    "/stream.mjpg?camera=../../x",
    "/login?token=guess",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get", "G\x00T", "A" * 500)
HEADERS = (
    "Host: localhost",
    "Host: elsewhere.example",
    "Host: ",
    "Host: localhost\r\nHost: localhost",
    "Host: [::1",
    "Host: 127.0.0.1:99999999",
    "Content-Length: 5",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999999",
    "Content-Length: 5\r\nContent-Length: 6",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 3",
    "Expect: 100-continue",
    "Upgrade: websocket\r\nConnection: upgrade",
    "Connection: close",
    "Authorization: Bearer x",
    "Authorization: Basic \xff",
    "Cookie: edge-fer=1.2; edge-fer=" + "9" * 5000 + ".0",
    "Cookie: =;;;=",
    'If-None-Match: "x"',
    "Origin: https://elsewhere.example",
    "Sec-Fetch-Site: cross-site",
    "Content-Type: application/json",
    "X: \x00",
    "X : y",
    " folded",
    "X: " + "y" * 20_000,
    "Range: bytes=0-0",
    "no colon",
)
BODIES = (
    b"",
    b"12345",
    b'{"enabled": 1}',
    b'{"enabled": tru',
    b"[" * 4000,
    b"token=x",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"\xff" * 300,
)


class Answer(NamedTuple):
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    """One request. Underscores in the names of headers are written as dashes."""
    parts = urlsplit(url)
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=LONG_S)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(
            method, target or "/", body, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def connect(url: str) -> socket.socket:
    """A bare connection."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=LONG_S)


def said(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    try:
        while data := connection.recv(1 << 16):
            parts.append(data)
    except ConnectionError:
        pass
    return b"".join(parts)


def events(connection: socket.socket, target: str = "/api/v1/events") -> Iterator[tuple[str, Any]]:
    """The events of a stream, by name and data."""
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    response = http.client.HTTPResponse(connection)
    response.begin()
    assert response.status == 200, response.read()
    name = ""
    for line in response:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def forged(chance: np.random.Generator) -> bytes:
    """A request that is wrong in some ways, or right by chance."""

    def one(of: Any) -> Any:
        return of[int(chance.integers(len(of)))]

    lines = [f"{one(METHODS)} {one(TARGETS)} {one(('HTTP/1.1', 'HTTP/1.1', 'HTTP/1.0', 'HTTP/9.9', ''))}"]
    lines += [str(one(HEADERS)) for _ in range(int(chance.integers(0, 6)))]
    if chance.random() < 0.7:
        lines.insert(1, "Host: localhost")
    request: bytes = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + one(BODIES)
    kind = chance.random()
    if kind < 0.2:  # cut off
        return request[: int(chance.integers(len(request) + 1))]
    if kind < 0.4:  # some bytes are others
        damaged = bytearray(request)
        for place in chance.integers(0, len(damaged), int(chance.integers(1, 9))):
            damaged[place] = int(chance.integers(256))
        return bytes(damaged)
    if kind < 0.5:
        return chance.bytes(int(chance.integers(1, 2000)))
    return request
