"""The web page as an output: ``web:127.0.0.1:8080``."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path

from edge_fer.address import listening_at
from edge_fer.config import WebSettings
from edge_fer.core import FrameResult
from edge_fer.errors import ConfigError, UnavailableError, UsageError
from edge_fer.events import Run

try:
    from edge_fer.service.server import Server
except ModuleNotFoundError as error:
    if error.name != "h11":
        raise
    raise UnavailableError("The web page needs h11: pip install 'edge-fer[service]'.") from None
from edge_fer.service.access import Access, read_token
from edge_fer.service.live import STATUS_S, Live
from edge_fer.service.metrics import Metrics
from edge_fer.service.routes import HEADERS, Routes

CREDENTIAL = "web-token"
"""Of systemd: ``LoadCredential=web-token:/etc/edge-fer/web-token``."""


class WebSink:
    """Serves a page with what happens now, the state, health and metrics; implements ``core.Sink``.

    Args:
        where: "HOST:PORT", "PORT", or "" for 127.0.0.1:8080.
        run: makes the events, and knows the loop.
        settings: who may see what.

    Attributes:
        url: where it listens.

    Raises:
        UsageError: it is no address of this machine, or one that others can reach and no token guards.
        UnavailableError: the port is in use.
        ConfigError: token or certificate are not as they should be.
    """

    def __init__(self, where: str, run: Run, settings: WebSettings) -> None:
        host, port = listening_at(where)
        self._run = run
        token, tls = _token(settings), _tls(settings)
        self._server = Server(host, port, lambda request: routes(request), headers=HEADERS, tls=tls)
        try:
            if not (self._server.is_loopback or token):
                raise UsageError(
                    f"web:{where} can be reached from the network, and no token guards it. Write one into a file "
                    "(`openssl rand -hex 24 > token`) and set web.token_file or --web-token-file, or listen at "
                    f"web:127.0.0.1:{port}."
                )
            access = Access(token, settings.names, secure=tls is not None)
            self._live = Live(run, settings.show_video, self._server.call)
            self._metrics = Metrics()
            routes = Routes(self._live, self._metrics, run.control, access, self._server.requests)
        except BaseException:
            self._server.close()
            raise
        self._closed = False
        self.url = self._server.url
        self._server.start()
        self._server.call(self._beat)
        print(f"edge-fer: the page is at {self.url}", file=sys.stderr)

    def write(self, result: FrameResult) -> None:
        """Take the events of a frame."""
        events = self._run.to_events(result)
        self._metrics.see(result, events)
        self._live.see(result, events)

    def close(self) -> None:
        """Tell the streams that it ends, and close them."""
        if self._closed:
            return
        self._closed = True
        self._live.end(self._run.to_ends())
        self._server.close()

    def _beat(self) -> None:
        self._live.tick()
        self._server.later(STATUS_S, self._beat)


def _token(settings: WebSettings) -> str:
    """The token of the settings, or the credential that systemd hands over; "" where there is none."""
    if settings.token_file:
        return read_token(Path(settings.token_file))
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", ""), CREDENTIAL)
    return read_token(credential) if credential.is_absolute() and credential.is_file() else ""


def _tls(settings: WebSettings) -> ssl.SSLContext | None:
    """What the certificate of the settings needs; None without one.

    Raises:
        ConfigError: certificate or key are not what they should be.
    """
    if not settings.cert_file:
        if settings.key_file:
            raise ConfigError("web.key_file is the key of a certificate: set web.cert_file too.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def no_pass_phrase() -> str:
        raise ConfigError(f"The key of {settings.cert_file} has a pass phrase. Give one without.")

    try:
        context.load_cert_chain(settings.cert_file, settings.key_file or None, no_pass_phrase)
    except ssl.SSLError:
        raise ConfigError(
            f"{settings.cert_file} and its key are no certificate in PEM that fit together. Set web.cert_file and "
            "web.key_file to what your certificate authority gave you."
        ) from None
    except OSError as error:
        name = error.filename or settings.cert_file
        raise ConfigError(f"Cannot read the certificate {name} or its key: {error.strerror}.") from None
    return context
