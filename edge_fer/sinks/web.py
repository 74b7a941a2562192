"""The web page as an output: ``web:127.0.0.1:8080``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from edge_fer.address import listening_at
from edge_fer.config import WebSettings
from edge_fer.core import FrameResult
from edge_fer.errors import UnavailableError
from edge_fer.events import Event, Run

try:
    from edge_fer.service.server import Server
except ModuleNotFoundError as error:
    if error.name != "h11":
        raise
    raise UnavailableError("The web page needs h11: pip install 'edge-fer[service]'.") from None
from edge_fer.service.access import Access, read_certificate, read_token, without_token
from edge_fer.service.live import STATUS_S, Live
from edge_fer.service.metrics import Metrics
from edge_fer.service.routes import HEADERS, Routes


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
        token, tls = read_token(settings), read_certificate(settings)
        self._server = Server(host, port, lambda request: routes(request), headers=HEADERS, tls=tls)
        try:
            if not (self._server.is_loopback or token):
                raise without_token(where)
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

    def end(self, events: Sequence[Event]) -> None:
        """Take the ends of faces of a camera that shows nothing more."""
        self._metrics.end(events)
        self._live.end(events)

    def close(self) -> None:
        """Tell the streams that it ends, and close them."""
        if self._closed:
            return
        self._closed = True
        self.end(self._run.to_ends())
        self._live.stop()
        self._server.close()

    def _beat(self) -> None:
        self._live.tick()
        self._server.later(STATUS_S, self._beat)
