"""What changes, sent to an address: ``webhook:http://homeassistant.local:8123/api/webhook/...``."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Sequence

from edge_fer.address import http_url, printable
from edge_fer.core import FrameResult
from edge_fer.events import Changes, Event, Run
from edge_fer.sinks.delivery import Delivery, RefusedError
from edge_fer.version import __version__

ANSWER_S = 5.0
"""The receiver may take so long for each step."""


class WebhookSink:
    """Sends an event by POST when a face comes, goes, or shows another expression; implements ``core.Sink``.

    The body is that event, as ``event.schema.json`` describes it. An answer of 2xx takes it; after 408, 425, 429, 5xx
    or none it is sent again; any other refuses it. A redirection is not followed: it could lead anywhere.

    Args:
        url: http or https; ``user:password@`` before the host goes as basic authentication.
        run: makes the events.

    Raises:
        UsageError: it is no such address.
    """

    def __init__(self, url: str, run: Run) -> None:
        self._url = http_url(url)
        self._run = run
        self._changes = Changes()
        self._closed = False
        self._tls = ssl.create_default_context() if self._url.secure else None
        self._headers = {"Content-Type": "application/json", "User-Agent": f"edge-fer/{__version__}"}
        if self._url.user:
            self._headers["Authorization"] = f"Basic {base64.b64encode(self._url.user.encode()).decode()}"
        name = run.control.own_name(printable(url))
        self._delivery: Delivery[Event] = Delivery(name, self._send)
        run.control.deliveries[name] = self._delivery

    def write(self, result: FrameResult) -> None:
        """Take the events of a frame."""
        self._put(self._run.to_events(result))

    def end(self, events: Sequence[Event]) -> None:
        """Take the ends of faces of a camera that shows nothing more."""
        self._put(events)

    def close(self) -> None:
        """End the faces that are still there, and send what waits."""
        if not self._closed:
            self._closed = True
            self._put(self._run.to_ends())
            self._delivery.close()

    def _put(self, events: Sequence[Event]) -> None:
        for event in self._changes.of(events):
            self._delivery.put(event)

    def _send(self, events: Sequence[Event]) -> None:
        url = self._url
        if self._tls is None:
            connection = http.client.HTTPConnection(url.host, url.port, timeout=ANSWER_S)
        else:
            connection = http.client.HTTPSConnection(url.host, url.port, timeout=ANSWER_S, context=self._tls)
        try:
            for event in events:
                connection.request("POST", url.target, json.dumps(event).encode(), self._headers)
                answer = connection.getresponse()
                answer.read(1 << 16)
                _check(answer.status)
        except http.client.HTTPException as error:
            raise OSError(f"it does not answer as a web server would ({type(error).__name__})") from None
        finally:
            connection.close()


def _check(status: int) -> None:
    """Raises OSError where trying again may help, RefusedError where it will not."""
    if 200 <= status < 300:
        return
    if status >= 500 or status in (408, 425, 429):
        raise OSError(f"it answers {status}")
    if 300 <= status < 400:
        raise RefusedError(
            f"It answers {status}: it sends us elsewhere, which is not followed. Write the address there."
        )
    raise RefusedError(f"It answers {status} and does not take the event. Check the address.")
