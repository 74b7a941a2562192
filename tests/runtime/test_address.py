"""Addresses are shown without what may be secret in them: by the one function that does it, and by every verb."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_parts import write_video

from edge_fer.address import printable, split_address, usable
from edge_fer.cli import main

SECRETS = [
    "geheim",
    "ge[heim",
    "ge#heim",
    "ge/heim",
    "ge?heim",
    "ge@heim",
    "ge:heim",
    "ge heim",
    "ge%40heim",
    "gé…heim",
]
FORMS = [
    "rtsp://me:{}@10.0.0.7:554/live",
    "rtsp://{}@10.0.0.7/live",
    "RTSPS://me:{}@10.0.0.7",
    "http://10.0.0.7/{}/stream",
    "http://10.0.0.7/shot.jpg?user=me&pwd={}",
    "rtsp://10.0.0.7/user=me_password={}_channel=1",
    "https://me:{}@[fe80::1]:8080/x",
    "rtmp://10.0.0.7/app/{}",
    "srt://10.0.0.7:9?passphrase={}",
    "me:{}@10.0.0.7/live",
    "rtsp:/me:{}@10.0.0.7/live",
    "rtsp//me:{}@10.0.0.7/live",
]
SENTENCES = ["{}", "No video comes from {}. Check it.", "Did you mean --camera {}?", "must be a number, not '{}'."]


# A blank ends an address in a sentence, unless an @ follows.
PAIRS = [(secret, form) for secret in SECRETS for form in FORMS if " " not in secret or form.startswith("rtsp://me")]


@pytest.mark.parametrize(("secret", "form"), PAIRS)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_no_part_of_a_secret_is_shown(secret: str, form: str, sentence: str) -> None:
    shown = printable(sentence.format(form.format(secret)))
    assert "heim" not in shown
    assert "ge" not in shown
    assert printable(shown) == shown


@given(st.text(min_size=3), st.sampled_from(["rtsp", "http", "RTMP", "udp"]))
def test_whatever_a_password_holds_it_is_not_shown(password: str, scheme: str) -> None:
    password = "XQ" + password.replace("\n", "") + "QX"
    shown = printable(f"{scheme}://me:{password}@10.0.0.7:554/live")
    assert "XQ" not in shown
    assert "QX" not in shown


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:pw@10.0.0.7:554/live", "rtsp://10.0.0.7:554/..."),
        ("http://camera.local:8080", "http://camera.local:8080"),
        ("HTTP://camera/", "http://camera"),
        ("udp://[fe80::1]:9", "udp://[fe80::1]:9"),
        ("rtsp://me:a/b@10.0.0.7/live", "rtsp://..."),
        ("file:///tmp/a b.mp4", "file:///tmp/a b.mp4"),
        ("pipe:640x480@30", "pipe:640x480@30"),
        ("clip.mp4", "clip.mp4"),
        ("There is no file 2026-11-14T22:57:44.mp4.", "There is no file 2026-11-14T22:57:44.mp4."),
        ("see rtsp://10.0.0.7/live, then", "see rtsp://10.0.0.7/..., then"),
    ],
)
def test_what_is_shown(address: str, shown: str) -> None:
    assert printable(address) == shown


@pytest.mark.parametrize("secret", ["a/b", "a?b", "a#b", "a@b", "a:b", "a[b", "a b", "a%2Fb", "plain"])
def test_a_password_reaches_the_camera_whole(secret: str) -> None:
    parts = split_address(f"rtsp://me:{secret}@10.0.0.7/live")
    assert parts is not None
    user = usable(*parts).removeprefix("rtsp://").removesuffix("@10.0.0.7/live")
    assert not set(user) & set("/?#@[ ")
    assert user.partition(":")[0] == "me"


# --- every verb -------------------------------------------------------------------------------------------------


@pytest.fixture
def video_address(tmp_path: Path) -> Iterator[str]:
    """Of a video, with secrets in every part of it."""

    class Served(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

    def serve(*args: Any) -> Served:
        return Served(*args, directory=str(tmp_path))

    (tmp_path / "geheim").mkdir()
    write_video(tmp_path / "geheim" / "a.avi", "MJPG", 12)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:geheim@127.0.0.1:{server.server_port}/geheim/a.avi?token=geheim"
        server.shutdown()


def test_outputs_of_a_run_hold_no_secret(tmp_path: Path, video_address: str, call: Callable[..., Any]) -> None:
    out = tmp_path / "out"
    sinks = [f"--output={sink}" for sink in (f"jsonl:{out}/a.jsonl", f"csv:{out}/a.csv", "terminal")]
    done = call(main, "run", "--camera", video_address, "--min-face", "20", "-v", *sinks)
    assert done.code == 0
    written = "".join(path.read_text(encoding="utf-8") for path in out.iterdir())
    assert "geheim" not in done.out + done.err + written


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_figures_of_a_bench_hold_no_secret(video_address: str, call: Callable[..., Any], options: list[str]) -> None:
    done = call(main, "bench", "--camera", video_address, *options)
    assert done.code == 0
    assert "geheim" not in done.out + done.err
    if options:
        assert json.loads(done.out)["source"].startswith("http://127.0.0.1:")


REFUSED = "rtsp://me:geheim@127.0.0.1:9/geheim?token=geheim"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--camera", REFUSED],
        ["run", "--camera", REFUSED, "--verbose"],
        ["run", REFUSED],
        ["run", f"--camra={REFUSED}"],
        ["run", "--camera", "demo", "--output", REFUSED],
        ["run", "--camera", "demo", "--output", f"video:{REFUSED}"],
        ["run", "--camera", "demo", "--model", REFUSED],
        ["run", "--camera", "demo", "--fps", REFUSED],
        ["run", "--camera", "demo", "--device", REFUSED],
        ["run", "--camera", "demo", "--detector", "blazeface", "--detector-model", REFUSED],
        ["run", "--config", REFUSED],
        ["run", "--camera", "me:geheim@127.0.0.1/x"],
        ["run", "--camera", "127.0.0.1/shot?pwd=geheim"],
        ["bench", "--camera", REFUSED],
        ["bench", "--camera", REFUSED, "--json"],
        ["bench", "--camera", REFUSED, "--tune"],
        ["bench", REFUSED],
        ["models", "show", REFUSED],
        ["models", REFUSED],
        ["cameras", REFUSED],
        [REFUSED],
    ],
    ids=lambda arguments: " ".join(arguments).replace(REFUSED, "ADDRESS"),
)
def test_no_message_holds_a_secret(
    call: Callable[..., Any], arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(main, *arguments)
    assert done.code not in (0, 70)
    assert "geheim" not in done.out + done.err


@pytest.mark.parametrize(
    "table",
    [
        f"[camera]\nsource = ['{REFUSED}']\n",
        f"[camera]\nsource = {{ address = '{REFUSED}' }}\n",
        f"[camera]\nwidth = '{REFUSED}'\n",
        f"[detector]\nkind = '{REFUSED}'\n",
        f"camera = '{REFUSED}'\n",
        f"outputs = ['{REFUSED}']\n",
        f"['{REFUSED}']\n",
        f"source = {REFUSED}\n",
        f"[camera]\nsource = '{REFUSED}\n",
    ],
)
def test_no_error_of_a_configuration_holds_a_secret(tmp_path: Path, call: Callable[..., Any], table: str) -> None:
    (tmp_path / "config.toml").write_text(table, encoding="utf-8")
    done = call(
        main, "run", "--config", tmp_path / "config.toml", *(["--camera", "demo"] if "outputs" in table else [])
    )
    assert done.code not in (0, 70)
    assert "geheim" not in done.out + done.err


@pytest.mark.parametrize(
    "name", ["CAMERA__WIDTH", "CAMERA", "CAMERA__SOURC", "DETECTOR__KIND", "CAMERA__SOURCE", "OUTPUTS"]
)
def test_no_error_of_the_environment_holds_a_secret(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"EDGE_FER_{name}", REFUSED)
    done = call(main, "run", *(["--camera", "demo"] if name == "OUTPUTS" else []))
    assert done.code not in (0, 70)
    assert "geheim" not in done.out + done.err
