"""The page's addresses: what each gives, to whom, and what is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from story import a_face, a_result, a_run, a_story

from edge_fer.config import WebSettings
from edge_fer.control import Control, State
from edge_fer.core import Face, FrameResult
from edge_fer.errors import ConfigError
from edge_fer.events import Run
from edge_fer.service import access, health
from edge_fer.service.access import COOKIE, Access, read_token
from edge_fer.service.http import Request, Response
from edge_fer.service.live import Live
from edge_fer.service.metrics import Metrics
from edge_fer.service.routes import MOST_EVENTS, MOST_VIDEO, PAGE, Routes

TOKEN = "correct horse battery staple"


class Page:
    """Routes without a server: what the loop sees is seen at once."""

    def __init__(self, token: str = "", show_video: bool = False, names: tuple[str, ...] = ()) -> None:
        self.run = a_run()
        self.now_s = 1_000_000.0
        self.live = Live(self.run, show_video, lambda act, *arguments: act(*arguments), lambda: self.now_s)
        self.metrics = Metrics()
        self.control = self.run.control
        self.control.clock = lambda: self.now_s
        self.access = Access(token, names, clock=lambda: self.now_s)
        self.routes = Routes(self.live, self.metrics, self.control, self.access, Counter())

    def see(self, *results: FrameResult) -> None:
        for result in results:
            stages_ms = {"preprocess": 1.0, "track": 0.1, **result.latency_ms}
            result = FrameResult(result.frame, result.faces, result.ended, stages_ms)
            events = self.run.to_events(result)
            self.metrics.see(result, events)
            self.live.see(result, events)
            self.control.state, self.control.last_frame_s = State.RECOGNIZING, self.now_s

    def ask(
        self, path: str, method: str = "GET", body: bytes = b"", peer: str = "127.0.0.1", **headers: str
    ) -> Response:
        sent = {"host": "localhost:8080", **{name.replace("_", "-"): text for name, text in headers.items()}}
        path, _, query = path.partition("?")
        asked = dict(one.split("=") for one in query.split("&") if one)
        return self.routes(Request(method, path, asked, {k: v for k, v in sent.items() if v}, body, peer))

    def watch(self, path: str) -> Member:
        response = self.ask(path)
        assert response.channel is not None, response
        member = Member()
        response.channel.members.add(member)  # type: ignore[arg-type]
        return member


class Member:
    """A client of a stream."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.keeps_up = True
        self.is_over = False

    def push(self, data: bytes) -> bool:
        if self.keeps_up:
            self.got.append(data)
        return self.keeps_up

    def finish(self) -> None:
        self.is_over = True

    def events(self) -> list[tuple[str, Any]]:
        blocks = b"".join(self.got).decode().split("\n\n")[:-1]
        return [(one[7:].partition("\n")[0], json.loads(one.partition("\ndata: ")[2])) for one in blocks]


def with_crop(face: Face) -> Face:
    return Face(
        **{name: getattr(face, name) for name in Face.__slots__ if name != "crop"},
        crop=np.full((48, 48, 1), 77, np.uint8),
    )


# What it shows


def test_the_page_is_whole() -> None:
    page = Page()
    text = page.ask("/").body.decode()
    for path in re.findall(r'(?:src|href)="(/[^"]*)"', text):
        assert page.ask(path).status == 200, path
    assert "//" not in re.sub(r"<!doctype html>", "", text)  # nothing from elsewhere


def test_no_file_of_the_page_names_another_place_or_has_a_script_inside() -> None:
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\"' )]+", text)) <= {"http://www.w3.org/2000/svg"}, path
        assert not re.search(r"<script>|<style|\sstyle=|\son\w+=|javascript:", text), path


def test_files_are_asked_for_once() -> None:
    page = Page()
    tag = page.ask("/page.js").headers["ETag"]
    again = page.ask("/page.js", if_none_match=tag)
    assert (again.status, again.body) == (304, b"")


def test_the_state_is_as_the_document_says() -> None:
    page = Page()
    document = json.loads(page.ask("/openapi.json").body)
    schema = Resource.from_contents(json.loads(page.ask("/event.schema.json").body))
    registry = Registry().with_resources(  # type: ignore[var-annotated]
        [
            ("urn:document", Resource.from_contents(document, DRAFT202012)),
            ("/event.schema.json", schema),
            ("urn:edge-fer:event:1", schema),
        ]
    )
    validator = jsonschema.Draft202012Validator({"$ref": "urn:document#/components/schemas/State"}, registry=registry)
    validator.validate(json.loads(page.ask("/api/v1/state").body))
    page.control.cameras["door"] = Counter()
    validator.validate(json.loads(page.ask("/api/v1/state").body))
    for result in a_story():
        page.see(result)
        state = json.loads(page.ask("/api/v1/state").body)
        validator.validate(state)
        assert [face["track"] for face in state["faces"]] == [face.track for face in result.faces]
    assert state["cameras"][0]["seq"] == 3
    assert (state["device"], state["state"], state["video"]) == ("pi", "recognizing", False)


def test_a_camera_from_which_nothing_has_come_is_named() -> None:
    page = Page()
    page.control.cameras["door"] = Counter(late=0, lost=2)
    page.see(a_result(0))
    cameras = json.loads(page.ask("/api/v1/state").body)["cameras"]
    assert [(one["name"], one["seq"], one["fps"], one["lost"]) for one in cameras] == [
        ("clip", 0, 0.0, 0),
        ("door", None, 0.0, 2),
    ]


def test_the_document_names_every_address_and_no_other() -> None:
    page = Page(show_video=True)
    page.see(a_result(0, with_crop(a_face(1, phase="start"))))
    document = json.loads(page.ask("/openapi.json").body)
    assert document["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    for method, path in described:
        response = page.ask(
            path.replace("{track}", "1"), method, content_type="application/json", body=b'{"enabled":true}'
        )
        listed = document["paths"][path][method.lower()]["responses"]
        assert str(response.status) in listed, (method, path, response)
    real = {("GET", path) for path in (*page.routes._get, *page.routes._files)} | set(page.routes._change)
    assert {(m, p) for m, p in real} - described == {("GET", "/page.css"), ("GET", "/page.js"), ("GET", "/icon.svg")}
    refs = set(re.findall(r'"\$ref": ?"#/([^"]+)"', json.dumps(document)))
    for ref in refs:
        place: Any = document
        for part in ref.split("/"):
            place = place[part]


def test_the_stream_tells_all_that_changes_and_the_rest_ten_times_a_second(event_schema: Callable[[Any], None]) -> None:
    page = Page()
    page.see(a_story()[0])
    greeting = page.ask("/api/v1/events").body.decode()
    assert greeting.startswith("retry: 2000\n\nevent: status\n")
    member = page.watch("/api/v1/events")
    for result in a_story()[1:]:
        page.see(result)
    told = [(data["phase"], data["track"]) for name, data in member.events() if name == "expression"]
    assert told == [("start", 1), ("update", 1), ("start", 2), ("end", 1), ("update", 2)]
    for name, data in member.events():
        if name == "expression":
            event_schema(data)
    member.got.clear()
    for number in range(20):  # a second at 20 Hz, nothing new
        page.now_s += 0.05
        page.see(a_result(4 + number, a_face(2, a_story()[3].faces[0].expression)))
    assert len([1 for name, _ in member.events() if name == "frame"]) in (10, 11)


@pytest.fixture
def event_schema() -> Callable[[Any], None]:
    schema = json.loads((PAGE.parents[1] / "event.schema.json").read_text(encoding="utf-8"))
    return lambda event: jsonschema.Draft202012Validator(schema).validate(event)


def test_a_new_client_is_told_which_faces_are_there() -> None:
    page = Page()
    page.see(*a_story()[:3])
    blocks = page.ask("/api/v1/events").body.decode().split("\n\n")
    assert [block.partition("\n")[0] for block in blocks[:-1]] == [
        "retry: 2000",
        "event: status",
        "event: expression",
        "event: expression",
    ]


def test_an_event_is_left_out_for_who_does_not_keep_up() -> None:
    page = Page()
    page.see(a_story()[0])
    slow, quick = page.watch("/api/v1/events"), page.watch("/api/v1/events")
    slow.keeps_up = False
    page.see(a_story()[1])
    assert quick.got and not slow.got
    assert b"edge_fer_http_left_out_total 1" in page.ask("/metrics").body


def test_the_status_is_told_and_faces_are_gone_when_it_is_paused() -> None:
    page = Page()
    page.see(*a_story()[:2])
    member = page.watch("/api/v1/events")
    page.control.pause()
    page.control.state = State.PAUSED
    page.live.tick()
    (status,) = [data for name, data in member.events() if name == "status"]
    assert (status["state"], status["enabled"], status["faces"]) == ("paused", False, [])


def test_the_end_is_told() -> None:
    page = Page()
    page.see(*a_story()[:2])
    member = page.watch("/api/v1/events")
    page.control.state = State.STOPPED
    page.live.end(page.run.to_ends())
    page.live.stop()
    (_, end), (_, status) = member.events()
    assert (end["phase"], status["state"]) == ("end", "stopped")


def test_a_face_that_ends_without_a_frame_is_gone_with_its_picture() -> None:
    page = Page(show_video=True)
    page.see(a_result(0, with_crop(a_face(1, phase="start")), with_crop(a_face(2, phase="start", x=95))))
    member = page.watch("/api/v1/events")
    events = page.run.end([a_face(1)])
    page.metrics.end(events)
    page.live.end(events)
    assert [(name, data["phase"], data["track"]) for name, data in member.events()] == [("expression", "end", 1)]
    assert [face["track"] for face in json.loads(page.ask("/api/v1/state").body)["faces"]] == [2]
    assert [page.ask(f"/api/v1/faces/{track}/crop.png").status for track in (1, 2)] == [404, 200]
    assert b"edge_fer_tracks_active 1\n" in page.ask("/metrics").body


def test_the_pictures_of_a_folder_are_one_camera() -> None:
    """Else each of a thousand would be a camera of its own, in the state and in the metrics, for ever."""
    page = Page()
    member = page.watch("/api/v1/events")
    for seq, name in enumerate(("a.jpg", "b\udce9.jpg", "c.jpg")):
        page.see(a_result(seq, a_face(seq, phase="start"), stream=f"photos\udce9/{name}", still=True))
    state = json.loads(page.ask("/api/v1/state").body)
    assert [camera["name"] for camera in state["cameras"]] == ["photos\\xe9"]
    assert [(face["track"], face["camera"]) for face in state["faces"]] == [(2, "photos\\xe9")]
    assert {data["camera"] for _, data in member.events()} == {"photos\\xe9"}
    metrics = page.ask("/metrics").body.decode()
    assert re.findall(r"edge_fer_frames_total(.*)", metrics)[-1] == '{camera="photos\\\\xe9"} 3'
    assert "edge_fer_tracks_active 0\n" in metrics


# Pictures


@pytest.mark.parametrize("path", ["/stream.mjpg", "/snapshot.jpg", "/api/v1/faces/1/crop.png"])
def test_pictures_are_off_unless_asked_for(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    monkeypatch.setattr(cv2, "imencode", None)  # none is made
    page.see(a_result(0, with_crop(a_face(1, phase="start"))))
    answer = page.ask(path)
    assert answer.status == 403
    assert b"--show-video" in answer.body


def test_a_picture_is_made_while_somebody_watches_and_for_all_of_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    imencode = cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *arguments: made.append(1) or imencode(*arguments))
    page = Page(show_video=True)
    page.see(a_result(0, gray=99))
    assert not made
    members = [page.watch("/stream.mjpg") for _ in range(3)]
    page.now_s += 1
    page.see(a_result(1, gray=99))
    page.now_s += 0.05
    page.see(a_result(2, gray=99))  # too soon for another
    assert len(made) == 1
    head, _, rest = members[2].got[0].partition(b"\r\n\r\n")
    assert head.startswith(b"--edge-fer-frame\r\nContent-Type: image/jpeg\r\nContent-Length: ")
    picture = cv2.imdecode(np.frombuffer(rest, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (120, 160) and abs(int(picture.mean()) - 99) <= 2


def test_a_snapshot_is_the_next_picture() -> None:
    page = Page(show_video=True)
    page.see(a_result(0))
    member = page.watch("/snapshot.jpg?camera=clip")
    page.see(a_result(1))
    assert member.is_over
    assert cv2.imdecode(np.frombuffer(member.got[0], np.uint8), cv2.IMREAD_COLOR).shape == (120, 160, 3)


def test_a_crop_is_what_the_model_saw() -> None:
    page = Page(show_video=True)
    page.see(a_result(0, with_crop(a_face(7, phase="start"))))
    crop = page.ask("/api/v1/faces/7/crop.png")
    assert (cv2.imdecode(np.frombuffer(crop.body, np.uint8), cv2.IMREAD_GRAYSCALE) == 77).all()
    assert page.ask("/api/v1/faces/8/crop.png").status == 404


@pytest.mark.parametrize(("path", "status"), [("/stream.mjpg?camera=x", 404), ("/snapshot.jpg?camera=../../etc", 404)])
def test_a_camera_that_is_not_there(path: str, status: int) -> None:
    page = Page(show_video=True)
    assert page.ask(path).status == 503  # none is there yet
    page.see(a_result(0))
    assert page.ask(path).status == status


def test_no_more_watch_than_allowed() -> None:
    page = Page(show_video=True)
    page.see(a_result(0))
    for _ in range(MOST_EVENTS):
        page.watch("/api/v1/events")
    for _ in range(MOST_VIDEO):
        page.watch("/stream.mjpg")
    for path in ("/api/v1/events", "/stream.mjpg", "/snapshot.jpg"):
        answer = page.ask(path)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "10")


# The switch


def test_the_switch() -> None:
    page = Page()
    off = page.ask("/api/v1/enabled", "PUT", b'{"enabled":false}', content_type="application/json; charset=utf-8")
    assert (json.loads(off.body), page.control.paused) == ({"enabled": False}, True)
    assert json.loads(page.ask("/api/v1/enabled").body) == {"enabled": False}
    page.ask("/api/v1/enabled", "PUT", b'{"enabled":true}', content_type="application/json")
    assert not page.control.paused


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OFF",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"enabled":0}',
        b'{"enabled":"false"}',
        b'{"enabled":false,"x":1}',
        b"[" * 4000,
        b"\xff\xfe",
        b'{"enabled":false}{',
    ],
)
def test_what_is_no_switch_is_refused(body: bytes) -> None:
    page = Page()
    answer = page.ask("/api/v1/enabled", "PUT", body, content_type="application/json")
    assert (answer.status, page.control.paused) == (400, False)
    assert answer.body == b'Send {"enabled": false} or {"enabled": true}.\n'


@given(st.binary(max_size=50))
def test_nothing_but_that_switches(body: bytes) -> None:
    page = Page()
    page.ask("/api/v1/enabled", "PUT", body, content_type="application/json")
    assert not page.control.paused


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://elsewhere.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:9"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": ""}, 415),
        ({"origin": "http://localhost:8080", "sec_fetch_site": "same-origin"}, 200),
    ],
)
def test_no_other_site_may_switch(headers: dict[str, str], status: int) -> None:
    page = Page()
    headers = {"content_type": "application/json", **headers}
    assert page.ask("/api/v1/enabled", "PUT", b'{"enabled":false}', **headers).status == status
    assert page.control.paused is (status == 200)


# Who may


@pytest.mark.parametrize(
    ("host", "knows"),
    [
        ("localhost", True),
        ("localhost:8080", True),
        ("LOCALHOST.", True),
        ("127.0.0.1:80", True),
        ("192.168.1.7:8080", True),
        ("[::1]:8080", True),
        ("[fe80::1]", True),
        ("::1", True),
        ("kitchen.example", True),
        ("", False),
        ("elsewhere.example", False),
        ("localhost.elsewhere.example", False),
        ("localhost@elsewhere.example", False),
        ("127.0.0.1.elsewhere.example", False),
        ("2130706433", False),
        ("[::1", True),
        ("[", False),
        (":8080", False),
        ("localhost:8080:9", False),
        ("\xff", False),
    ],
)
def test_hosts_that_are_this_machine(host: str, knows: bool) -> None:
    assert Access(names=["Kitchen.example"]).knows_host(host) is knows


def test_another_host_is_not_answered() -> None:
    assert Page().ask("/api/v1/state", host="elsewhere.example").status == 421
    assert Page(names=("elsewhere.example",)).ask("/api/v1/state", host="elsewhere.example").status == 200


ALL = [
    "/page.js",
    "/metrics",
    "/api/v1/state",
    "/api/v1/events",
    "/api/v1/enabled",
    "/stream.mjpg",
    "/snapshot.jpg",
    "/api/v1/faces/1/crop.png",
    "/openapi.json",
    "/event.schema.json",
    "/nothing",
]


@pytest.mark.parametrize("path", ALL)
def test_nothing_is_shown_without_the_token(path: str) -> None:
    page = Page(TOKEN, show_video=True)
    for given_ in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": f"{COOKIE}={TOKEN}"},
    ):
        assert page.ask(path, **given_).status == 401
    assert page.ask(f"{path}?token={TOKEN.replace(' ', '+')}").status == 401
    assert page.ask(path, "PUT").status == 401
    assert page.ask(path, authorization=f"Bearer {TOKEN}").status != 401


def test_health_is_open_to_all() -> None:
    page = Page(TOKEN)
    assert page.ask("/healthz").status == 200
    assert page.ask("/readyz").status == 503


def test_a_browser_is_sent_to_the_form_and_gets_a_cookie() -> None:
    page = Page(TOKEN)
    assert page.ask("/").headers["Location"] == "/login"
    assert b'name="token"' in page.ask("/login").body
    wrong = page.ask("/login", "POST", b"token=guess")
    assert (wrong.status, b"That is not the token" in wrong.body) == (403, True)
    right = page.ask("/login", "POST", f"token={TOKEN}".replace(" ", "+").encode(), origin="http://localhost:8080")
    assert right.status == 303
    cookie, *flags = right.headers["Set-Cookie"].split("; ")
    assert set(flags) == {"Path=/", f"Max-Age={access.SESSION_S}", "HttpOnly", "SameSite=Strict"}
    assert TOKEN not in cookie
    assert page.ask("/", cookie=f"other=1; {cookie}").status == 200
    assert page.ask("/login", cookie=cookie).headers["Location"] == "/"
    assert "Max-Age=0" in page.ask("/logout", "POST", cookie=cookie).headers["Set-Cookie"]
    page.now_s += access.SESSION_S + 1
    assert page.ask("/", cookie=cookie).status == 303


def test_over_tls_the_cookie_goes_nowhere_else() -> None:
    assert "; Secure" in Access(TOKEN, secure=True).cookie()


@pytest.mark.parametrize(
    "value", ["", ".", "9999999999.", "9999999999.abc", f"{'9' * 5000}.x", "²³.x", "-1.x", "\udcff.\udcff"]
)
def test_forged_cookies(value: str) -> None:
    assert not Access(TOKEN).allows({"cookie": f"{COOKIE}={value}"}, "")


def test_a_cookie_of_another_token_is_worth_nothing() -> None:
    cookie = Access("another token, long enough").cookie().partition(";")[0]
    assert not Access(TOKEN).allows({"cookie": cookie}, "")


def test_guessing_is_stopped_and_others_go_on() -> None:
    page = Page(TOKEN)
    for _ in range(10):
        assert page.ask("/metrics", authorization="Bearer guess", peer="10.0.0.9").status == 401
    assert page.ask("/metrics", authorization=f"Bearer {TOKEN}", peer="10.0.0.9").status == 401
    assert page.ask("/metrics", authorization=f"Bearer {TOKEN}", peer="10.0.0.1").status == 200
    page.now_s += 61
    assert page.ask("/metrics", authorization=f"Bearer {TOKEN}", peer="10.0.0.9").status == 200


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = access.hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    assert not Access(TOKEN).is_token("x", "")
    assert compared == [(b"x", TOKEN.encode())]


@pytest.mark.parametrize("text", [b"", b"short", b"   spaces do not count   "[:18], "é".encode() * 20, b"\xff" * 20])
def test_tokens_that_are_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "token").write_bytes(text)
    with pytest.raises(ConfigError, match="token"):
        read_token(WebSettings(token_file=str(tmp_path / "token")))


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(WebSettings(token_file=str(tmp_path / "token"))) == TOKEN
    with pytest.raises(ConfigError, match=r"Cannot read the token for the web page in .*: No such file"):
        read_token(WebSettings(token_file=str(tmp_path / "none")))


# What is not there


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/../pyproject.toml",
        "/..%2f..%2fetc/passwd",
        "//",
        "/page.js/",
        "/page",
        "/index.html",
        "/%2e%2e/x",
        "",
        "/api/v1/faces/-1/crop.png",
        "/api/v1/faces/1234567890/crop.png",
        "/api/v1/faces/x/crop.png",
    ],
)
def test_other_paths_are_404(path: str) -> None:
    answer = Page().ask(path)
    assert (answer.status, answer.body.count(b"\n")) == (404, 1)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/", "GET, HEAD"),
        ("POST", "/api/v1/enabled", "GET, HEAD, PUT"),
        ("GET", "/logout", "POST"),
        ("OPTIONS", "/metrics", "GET, HEAD"),
    ],
)
def test_other_methods_are_405(method: str, path: str, allow: str) -> None:
    answer = Page().ask(path, method)
    assert (answer.status, answer.headers["Allow"]) == (405, allow)


# Health


@pytest.mark.parametrize(
    ("state", "last_s", "alive_s", "dead", "unready"),
    [
        (State.RECOGNIZING, 99, 100, "", ""),
        (State.RECOGNIZING, 80, 100, "", "The last frame is 20 s old."),
        (State.RECOGNIZING, 70, 70, "The loop has not come round for 30 s.", "The loop has not come round for 30 s."),
        (State.STARTING, None, None, "", "It is starting: no frame has come."),
        (State.WAITING, 50, 100, "", "It is waiting: no frame has come."),
        (State.PAUSED, 99, 100, "", "It is paused."),
        (State.PAUSING, 99, 100, "", "It is pausing."),
        (State.STOPPED, 99, 100, "", "It is stopped: no frame has come."),
    ],
)
def test_health(state: State, last_s: float | None, alive_s: float | None, dead: str, unready: str) -> None:
    control = Control(clock=lambda: 100.0)
    control.state, control.last_frame_s, control.alive_s = state, last_s, alive_s
    assert (health.why_dead(control), health.why_unready(control)) == (dead, unready)


def test_a_run_of_still_images_leaves_no_face() -> None:
    page = Page()
    page.see(a_result(0, a_face(1, phase="start"), still=True))
    assert json.loads(page.ask("/api/v1/state").body)["faces"][0]["phase"] == "start"
    page.see(a_result(0, stream="next", still=True))
    assert json.loads(page.ask("/api/v1/state").body)["faces"] == []


def test_runs_name_themselves() -> None:
    run = Run("kitchen", "nano", "ab" * 32)
    live = Live(run, False, lambda act, *arguments: None)
    assert live.state()["model"] == {"name": "nano", "sha256": "ab" * 32, "decision": "balanced"}
