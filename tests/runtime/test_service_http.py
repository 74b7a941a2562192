"""The HTTP server: what it takes, and the limits that it keeps."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web_client import LONG_S, ask, connect, forged, said

from edge_fer.errors import UnavailableError, UsageError
from edge_fer.service import http
from edge_fer.service.http import Channel, Limits, Request, Response
from edge_fer.service.server import Server

Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server: ``serve(handle, tls=..., **limits)``."""
    with ExitStack() as stack:

        def act(handle: http.Handler = echo, tls: ssl.SSLContext | None = None, **limits: float) -> Server:
            server = Server("127.0.0.1", 0, handle, headers={"X-Ours": "1"}, tls=tls, limits=Limits(**limits))  # type: ignore[arg-type]
            server.start()
            stack.callback(server.close)
            return server

        yield act


def turn(server: Server) -> None:
    """Until the server's thread has come round."""
    done = threading.Event()
    server.call(done.set)
    assert done.wait(LONG_S)


def echo(request: Request) -> Response:
    return Response(200, f"{request.method} {request.path} {dict(request.query)} {len(request.body)}".encode())


def test_requests_of_one_connection_are_answered_in_order(serve: Serve) -> None:
    with connect(serve().url) as client:
        client.sendall(
            b"GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
        )
        client.sendall(b"HEAD /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = said(client)
    parts = [b"HTTP/1.1 200 OK", b"GET /a {'x': '1'} 0", b"HTTP/1.1 200 OK", b"POST /b {} 2", b"HTTP/1.1 200 OK"]
    where = 0
    for part in parts:
        where = answer.index(part, where) + len(part)
    assert answer.endswith(b"\r\n\r\n")  # HEAD has no body
    assert answer.count(b"X-Ours: 1") == 3


def test_an_old_client_is_answered_and_closed(serve: Serve) -> None:
    with connect(serve().url) as client:
        client.sendall(b"GET /a HTTP/1.0\r\n\r\n")
        assert said(client).endswith(b"GET /a {} 0")


def test_a_client_that_waits_to_send_its_body(serve: Serve) -> None:
    with connect(serve().url) as client:
        client.sendall(b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        client.sendall(b"hi")
        assert b"PUT /a {} 2" in client.recv(1000)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000, b"431"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n" + b"x" * 0x2000, b"413"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),  # TLS
        (b"HELLO\r\n\r\n", b"400"),
        (b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"405"),
    ],
)
def test_what_is_no_good_request_is_refused_in_a_sentence(serve: Serve, request_: bytes, status: bytes) -> None:
    server = serve()
    with connect(server.url) as client:
        client.sendall(request_)
        answer = said(client)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"X-Ours: 1" in head
    assert body.endswith(b".\n")
    assert server.requests[int(status)] == 1


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123"]
)
def test_who_does_not_finish_is_cut_off(serve: Serve, sent: bytes) -> None:
    with connect(serve(request_s=0.05).url) as client:
        client.sendall(sent)
        assert said(client) == b""


def test_a_trickle_does_not_put_it_off(serve: Serve) -> None:
    with connect(serve(request_s=0.3).url) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        client.settimeout(0.02)
        while True:  # a header without end
            try:
                client.sendall(b"X: y\r\n")
                if client.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break


def test_there_are_no_more_connections_than_allowed(serve: Serve) -> None:
    server = serve(connections=3)
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(server.url))) for _ in range(3)]
        for client in clients:
            client.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        with connect(server.url) as one_more:
            assert said(one_more).startswith(b"HTTP/1.1 503")


def test_one_address_does_not_take_all(serve: Serve) -> None:
    server = serve(connections_of_one=1)
    with connect(server.url) as client:
        client.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
        with connect(server.url) as other:
            assert said(other).startswith(b"HTTP/1.1 503")


def test_one_address_may_not_ask_without_end(serve: Serve) -> None:
    server = serve(requests_hz=1e-6, burst=3)
    statuses = [ask(f"{server.url}/a").status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


def test_a_fault_in_an_answer_is_500_and_the_next_is_good(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def handle(request: Request) -> Response:
        if request.path == "/bad":
            raise KeyError("x")
        return echo(request)

    server = serve(handle)
    bad = ask(f"{server.url}/bad")
    assert (bad.status, bad.body) == (500, b"Internal error. The log says more.\n")
    assert ask(f"{server.url}/a").status == 200
    assert "The answer to GET /bad failed." in caplog.text


def test_a_stream_sends_what_is_published_and_forgets_who_left(serve: Serve) -> None:
    channel = Channel()
    server = serve(lambda request: Response(200, b"first ", channel=channel))
    with connect(server.url) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        got = b""
        while not got.endswith(b"first "):
            got += client.recv(1000)
        server.call(channel.publish, b"second")
        assert client.recv(1000) == b"second"
        server.call(server.close)
        client.shutdown(socket.SHUT_WR)
        assert said(client) == b""
    assert len(channel) == 0


def test_a_slow_reader_is_left_out_and_then_cut_off(serve: Serve) -> None:
    channel = Channel()
    server = serve(lambda request: Response(200, b"first", channel=channel), waiting_bytes=1000, stall_s=0.05)
    with connect(server.url) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        client.recv(1000)

        def flood() -> None:
            channel.publish(b"x" * 600)
            if len(channel):
                server.later(0, flood)

        while not len(channel):
            turn(server)
        server.call(flood)
        while len(channel):
            turn(server)
    assert channel.left_out > 0


def test_a_stream_of_one_part_ends_after_it(serve: Serve) -> None:
    channel = Channel(once=True)
    server = serve(lambda request: Response(200, channel=channel))
    with connect(server.url) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while not len(channel):
            turn(server)
        server.call(channel.publish, b"all")
        assert said(client).endswith(b"\r\n\r\nall")


def test_nothing_comes_after_a_while_and_the_client_is_let_go(serve: Serve) -> None:
    server = serve(lambda request: Response(200, channel=Channel(once=True)), request_s=0.1)
    with connect(server.url) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"200" in said(client)


def test_closing_ends_all(serve: Serve) -> None:
    channel = Channel()
    server = serve(lambda request: Response(200, b"first", channel=channel))
    with connect(server.url) as stream, connect(server.url) as idle:
        stream.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        while not len(channel):
            turn(server)
        server.close()
        assert said(stream).endswith(b"0\r\n\r\n")
        assert said(idle) == b""
        server.call(channel.publish, b"late")  # nobody minds


def test_a_port_in_use_is_69() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"Port {port} of 127.0.0.1 is in use.*web:127.0.0.1:{port + 1}"):
            Server("127.0.0.1", port, echo)


@pytest.mark.parametrize(
    ("host", "why"), [("no.such.host.invalid", "there is no host"), ("192.0.2.1", "cannot be listened at")]
)
def test_an_address_of_another_machine_is_refused(host: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Server(host, 8080, echo)


def test_tls(serve: Serve, certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = serve(tls=tls)
    assert server.url.startswith("https://127.0.0.1:")
    client = ssl.create_default_context(cafile=str(certificate))
    with client.wrap_socket(connect(server.url), server_hostname="127.0.0.1") as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert said(connection).endswith(b"GET /a {} 0")
    with connect(server.url) as plain:  # who speaks plain HTTP gets nothing, and stops nothing
        plain.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"200" not in said(plain)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_any_bytes_leave_it_as_it_was(one_server: Server, data: bytes) -> None:
    with connect(one_server.url) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = said(client)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert ask(f"{one_server.url}/a").status == 200


@pytest.fixture(scope="module")
def one_server() -> Iterator[Server]:
    server = Server("127.0.0.1", 0, echo, limits=Limits(requests_hz=1e6, burst=10**9))
    server.start()
    yield server
    server.close()


def test_after_a_good_request_a_bad_one_is_refused(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with connect(serve().url) as client:
        client.sendall(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\nrubbish\r\n\r\n")
        assert b"HTTP/1.1 400 Bad Request" in said(client)
    assert not caplog.records


def test_forged_requests_leave_it_as_it_was(
    one_server: Server, chance: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    """``benchmarks/web.py`` does this ten thousand times to the whole service."""
    for _ in range(300):
        request = forged(chance)
        with connect(one_server.url) as client:
            try:
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
            except ConnectionError:  # it has refused before all was sent
                continue
            answer = said(client)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), request
    assert ask(f"{one_server.url}/a").status == 200
    assert not one_server.requests[500]
    assert not caplog.records


def test_without_h11_a_sentence_says_what_to_install() -> None:
    script = "import sys; sys.modules['h11'] = None; from edge_fer.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "run", "--camera", "demo", "--output", "web:127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        69,
        "edge-fer: The web page needs h11: pip install 'edge-fer[service]'.\n",
    )
