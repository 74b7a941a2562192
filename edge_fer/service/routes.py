"""What each address of the page gives, and to whom."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from edge_fer.control import Control, State
from edge_fer.service.access import Access
from edge_fer.service.health import why_dead, why_unready
from edge_fer.service.http import Request, Response, refusal
from edge_fer.service.live import BOUNDARY, Camera, Live
from edge_fer.service.metrics import CONTENT_TYPE, Metrics

PAGE = Path(__file__).with_name("page")
HEADERS = {
    # Nothing from elsewhere, and no script or style but the files beside the page.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without any, a browser does not say where a form comes from
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
MOST_EVENTS, MOST_VIDEO = 64, 24
"""Clients that watch at once."""

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/openapi.json": ("openapi.json", "application/json"),
    "/event.schema.json": ("../../event.schema.json", "application/schema+json"),
}
_OPEN = {"/healthz", "/readyz", "/login", "/page.css", "/icon.svg"}
"""What everybody may see."""
_CROP = re.compile(r"/api/v1/faces/(\d{1,9})/crop\.png")
_LOGIN_ERROR = "<!--error-->"


class _File(NamedTuple):
    body: bytes
    kind: str
    tag: str


class Routes:
    """Answers requests; ``server.Server`` calls it.

    Args:
        live: what is known.
        metrics: what is counted.
        control: what the loop does, and how it is paused.
        access: who may see it.
        requests: how many there were, by the status of the answer; the server counts them.
    """

    def __init__(
        self, live: Live, metrics: Metrics, control: Control, access: Access, requests: Mapping[int, int]
    ) -> None:
        self._requests = requests
        self._live = live
        self._metrics = metrics
        self._control = control
        self._access = access
        self._files = {path: _load(name, kind) for path, (name, kind) in _FILES.items()}
        self._login = (PAGE / "login.html").read_text(encoding="utf-8")
        self._get: dict[str, Callable[[Request], Response]] = {
            "/healthz": lambda request: _verdict(why_dead(control)),
            "/readyz": lambda request: _verdict(why_unready(control)),
            "/metrics": self._show_metrics,
            "/api/v1/state": lambda request: _json(self._state()),
            "/api/v1/events": self._watch_events,
            "/api/v1/enabled": lambda request: _json({"enabled": not control.paused}),
            "/stream.mjpg": self._watch_video,
            "/snapshot.jpg": self._take_picture,
            "/login": self._show_login,
        }
        self._change: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("PUT", "/api/v1/enabled"): self._switch,
            ("POST", "/login"): self._log_in,
            ("POST", "/logout"): self._log_out,
        }

    def __call__(self, request: Request) -> Response:
        """The answer to a request."""
        if not self._access.knows_host(request.headers.get("host", "")):
            return refusal(
                421, "This machine is not known by that name. Use its address, or add the name to web.names."
            )
        if request.path not in _OPEN and not self._access.allows(request.headers, request.peer):
            if request.path == "/" and request.method in ("GET", "HEAD"):
                return Response(303, headers={"Location": "/login"})
            return refusal(401, "A token is needed: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})
        if request.method in ("GET", "HEAD"):
            return self._look(request)
        act = self._change.get((request.method, request.path))
        if act is None:
            return self._not_allowed(request)
        if not self._access.is_from_here(request.headers):
            return refusal(403, "Another site must not do this.")
        return act(request)

    def _look(self, request: Request) -> Response:
        if file := self._files.get(request.path):
            if request.headers.get("if-none-match") == file.tag:
                return Response(304, kind=file.kind, headers={"ETag": file.tag, "Cache-Control": "no-cache"})
            return Response(200, file.body, file.kind, {"ETag": file.tag, "Cache-Control": "no-cache"})
        if act := self._get.get(request.path):
            return act(request)
        if crop := _CROP.fullmatch(request.path):
            return self._show_crop(int(crop[1]))
        return self._not_allowed(request)

    def _not_allowed(self, request: Request) -> Response:
        methods = {method for method, path in self._change if path == request.path}
        if request.path in self._get or request.path in self._files:
            methods |= {"GET", "HEAD"}
        if methods:
            return refusal(405, "This cannot be done here.", {"Allow": ", ".join(sorted(methods))})
        return refusal(404, "There is nothing here. / is the page, /openapi.json says what else there is.")

    def _state(self) -> dict[str, Any]:
        return self._live.state()

    def _show_metrics(self, request: Request) -> Response:
        web = {
            "events": len(self._live.events),
            "video": self._live.watchers,
            "left_out": self._live.left_out,
            "requests": dict(self._requests),
        }
        state = {**self._state(), "web": web, "states": [state.value for state in State]}
        return Response(200, self._metrics.render(state).encode(), CONTENT_TYPE)

    def _watch_events(self, request: Request) -> Response:
        if len(self._live.events) >= MOST_EVENTS:
            return _crowded()
        return Response(200, self._live.greeting(), "text/event-stream", channel=self._live.events)

    def _watch_video(self, request: Request) -> Response:
        camera = self._camera(request)
        if isinstance(camera, Response):
            return camera
        return Response(200, b"", f"multipart/x-mixed-replace; boundary={BOUNDARY}", channel=camera.video)

    def _take_picture(self, request: Request) -> Response:
        camera = self._camera(request)
        if isinstance(camera, Response):
            return camera
        if why := why_unready(self._control):
            return refusal(503, why)
        return Response(200, b"", "image/jpeg", channel=camera.stills)

    def _camera(self, request: Request) -> Camera | Response:
        """The camera that is asked for, or why it is not shown."""
        if not self._live.show_video:
            return _no_pictures()
        if self._live.watchers >= MOST_VIDEO:
            return _crowded()
        cameras = self._live.cameras
        name = request.query.get("camera", next(iter(cameras), ""))
        if name in cameras:
            return cameras[name]
        return refusal(404 if cameras else 503, "No picture has come from such a camera.")

    def _show_crop(self, track: int) -> Response:
        if not self._live.show_video:
            return _no_pictures()
        crop = self._live.crop(track)
        return Response(200, crop, "image/png") if crop else refusal(404, "There is no such face now.")

    def _switch(self, request: Request) -> Response:
        # A form of another site cannot send this type.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return refusal(415, 'Send application/json: {"enabled": false}.')
        try:
            asked = json.loads(request.body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict) or asked.keys() != {"enabled"} or not isinstance(asked["enabled"], bool):
            return refusal(400, 'Send {"enabled": false} or {"enabled": true}.')
        if asked["enabled"]:
            self._control.resume()
        else:
            self._control.pause()
        return _json({"enabled": not self._control.paused})

    def _show_login(self, request: Request) -> Response:
        if self._access.allows(request.headers, request.peer):
            return Response(303, headers={"Location": "/"})
        return self._login_page(200, "")

    def _log_in(self, request: Request) -> Response:
        try:
            given = parse_qs(request.body.decode("utf-8", "replace"), max_num_fields=5).get("token", [""])[0]
        except ValueError:
            given = ""
        if not self._access.is_guarded or self._access.is_token(given.strip(), request.peer):
            return Response(303, headers={"Location": "/", "Set-Cookie": self._access.cookie()})
        return self._login_page(403, "That is not the token. After ten tries, wait a minute.")

    def _log_out(self, request: Request) -> Response:
        return Response(303, headers={"Location": "/login", "Set-Cookie": self._access.no_cookie()})

    def _login_page(self, status: int, error: str) -> Response:
        said = f'<p class="error" role="alert">{error}</p>' if error else ""
        return Response(status, self._login.replace(_LOGIN_ERROR, said).encode(), "text/html; charset=utf-8")


def _load(name: str, kind: str) -> _File:
    body = (PAGE / name).read_bytes()
    return _File(body, kind, f'"{sha256(body).hexdigest()[:16]}"')


def _json(value: Mapping[str, Any]) -> Response:
    return Response(200, json.dumps(value, separators=(",", ":")).encode(), "application/json")


def _verdict(why_not: str) -> Response:
    return refusal(503, why_not) if why_not else Response(200, b"ok\n")


def _no_pictures() -> Response:
    return refusal(403, "Pictures are not shown. Start with --show-video, or set web.show_video.")


def _crowded() -> Response:
    return refusal(503, "So many are watching already that nobody else can.", {"Retry-After": "10"})
