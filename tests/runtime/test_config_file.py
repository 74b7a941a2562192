"""``edge-fer config``: a file that explains itself, edits that keep its comments, mistakes of every kind."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_fer import config_file
from edge_fer.cli import build_parser, main
from edge_fer.config import Field, Settings, all_settings, value_of
from edge_fer.config_file import as_toml, new_file, reference_page, update_file, variable
from edge_fer.errors import ConfigError
from edge_fer.layers import load_settings, mistakes, origins

ROOT = Path(__file__).parents[2]
Call = Callable[..., Any]
SETTINGS = {one.key: one for one in all_settings()}


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home" / "edge-fer" / "config.toml"
    monkeypatch.setattr("edge_fer.config.default_files", lambda: [tmp_path / "etc.toml", home])
    monkeypatch.setattr("edge_fer.cli.config.default_files", lambda: [tmp_path / "etc.toml", home])
    for name in [name for name in os.environ if name.startswith("EDGE_FER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home" / "edge-fer" / "config.toml"


# The definition


def test_every_setting_explains_itself() -> None:
    assert {"name", "outputs", "camera.width", "model.threads"} <= SETTINGS.keys()
    for one in all_settings():
        assert one.setting.text.endswith("."), one.key
        assert "\n" not in one.setting.text, one.key
        if one.hint in (int, float) and not one.setting.choices:
            assert one.setting.least is not None and one.setting.most is not None, one.key
            assert one.setting.least <= one.default <= one.setting.most, one.key
            assert one.setting.unit or one.key == "model.threads", one.key


def test_every_option_is_one_of_run() -> None:
    (verbs,) = (action.choices for action in build_parser()._actions if isinstance(action.choices, dict))
    options = verbs["run"]._option_string_actions
    for one in all_settings():
        assert not one.setting.flag or one.setting.flag in options, one.key


@pytest.mark.parametrize(
    "one", [one for one in all_settings() if one.setting.least is not None], ids=lambda one: one.key
)
def test_ranges_hold(one: Field, tmp_path: Path) -> None:
    table, _, key = one.key.rpartition(".")
    least, most = one.setting.least, one.setting.most
    assert least is not None and most is not None
    kind = one.hint
    for value, good in ((least, True), (most, True), (least - 1, False), (most + 1, False)):
        (tmp_path / "c.toml").write_text(f"[{table}]\n{key} = {kind(value)}\n")
        if good:
            assert value_of(load_settings(tmp_path / "c.toml", {}, {}), one.key) == value
        else:
            with pytest.raises(ConfigError, match=rf"{one.key} must be from {least:g} to {most:g}, not"):
                load_settings(tmp_path / "c.toml", {}, {})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_no_number_is_no_range(value: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f"[detector]\nnew_face_s = {value}\n")
    with pytest.raises(ConfigError, match=r"detector.new_face_s must be from 0.01 to 60"):
        load_settings(tmp_path / "c.toml", {}, {})


# What is made of it


def test_a_new_file_states_the_defaults_and_explains_every_key(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(new_file())
    assert load_settings(tmp_path / "c.toml", {}, {}) == Settings()
    found = origins(tmp_path / "c.toml", {})
    assert {key for key, origin in found.items() if origin == "default"} == {"cameras"}  # an example, in a comment
    lines = new_file().splitlines()
    assert max(map(len, lines)) <= 120
    for number, line in enumerate(lines):
        if " = " in line and not line.startswith("#"):
            assert lines[number - 1].startswith("# "), line


def test_the_reference_page_is_current() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference_page(), "run `edge-fer config reference > docs/configuration.md`"


# init


def test_init_writes_once(home: Path, call: Call) -> None:
    done = call(main, "config", "init")
    assert (done.code, home.read_text()) == (0, new_file())
    home.write_text("# mine\n")
    done = call(main, "config", "init")
    assert (done.code, home.read_text()) == (2, "# mine\n")
    assert "--overwrite" in done.err
    assert call(main, "config", "init", "--overwrite").code == 0
    assert home.read_text() == new_file()


def test_init_to_stdout_and_to_a_place_that_is_none(tmp_path: Path, call: Call) -> None:
    assert call(main, "config", "init", "--config", "-").out == new_file()
    (tmp_path / "file").write_text("")
    done = call(main, "config", "init", "--config", tmp_path / "file" / "c.toml")
    assert done.code == 73
    assert "Cannot write" in done.err


# check


def test_check_names_all_mistakes(home: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    home.parent.mkdir(parents=True)
    home.write_text("nmae = 1\n[camera]\nwidth = 'wide'\nfps = 0\n[modle]\nthreads = 1\n")
    monkeypatch.setenv("EDGE_FER_CAMERA__HIEGHT", "3")
    done = call(main, "config", "check")
    assert (done.code, done.out) == (78, "")
    said = done.err.splitlines()
    assert len(said) == 5
    for wanted, line in zip(
        ("'name'", "'camera.width'", "camera.fps", "'model'", "'camera.height'"), said, strict=True
    ):
        assert line.startswith((f"edge-fer: {home}: ", "edge-fer: EDGE_FER_CAMERA__HIEGHT: "))
        assert wanted in line


def test_check_says_what_is_not_at_its_default(home: Path, call: Call) -> None:
    done = call(main, "config", "check")
    assert done.code == 0
    assert "There is no file" in done.out
    home.parent.mkdir(parents=True)
    home.write_text('[camera]\nsource = "rtsp://me:hunter2@host/x"\nfps = 30\n')
    done = call(main, "config", "check")
    assert done.code == 0
    assert f"{home} is good" in done.out
    assert 'camera.source = "rtsp://host/..."' in done.out
    assert "hunter2" not in done.out
    assert "fps" not in done.out


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ('outputs = ["jsnol:x"]', 2, "Did you mean jsonl"),
        ('outputs = ["terminal", "csv:-"]', 2, "would mix on stdout"),
        ('[model]\npath = "none.tflite"', 66, "No model none.tflite"),
        ('[detector]\nkind = "yunet"', 78, "needs a model"),
        ("name = ", 78, "not valid TOML"),
        ("x = " + "[" * 5000, 78, "not valid TOML"),
        ("[camera]\nwidth = " + "9" * 5000, 78, "not valid TOML"),
        ("[camera]\nwidth = 2020-01-01", 78, "must be a whole number"),
        ("[camera]\nsource = 0", 78, "must be a text in quotes"),
        ("camera = []", 78, "must be a table"),
        ("[[camera]]\nwidth = 3", 78, "must be a table"),
        ('[camera]\nsource = ""', 2, "The name of the camera is empty"),
        ('[camera]\nsource = "ftp://me:hunter2@host/x"', 2, "is not read. Cameras send by rtsp"),
        ('[camera]\nsource = "rpicam:first"', 2, "rpicam:first is not a Pi camera"),
        ('[[cameras]]\nsource = "0"\n[[cameras]]\nsource = "0"', 2, "Camera 0 is given twice"),
        ('[[cameras]]\nname = "a"\n[[cameras]]\nsource = "2"\nname = "a"', 2, "Two cameras are called a"),
        ("[camera.width]\nx = 1", 78, "must be a whole number"),
    ],
)
def test_check_finds(text: str, code: int, said: str, home: Path, call: Call) -> None:
    home.parent.mkdir(parents=True)
    home.write_text(text)
    done = call(main, "config", "check")
    assert done.code == code
    (line,) = done.err.splitlines()
    assert said in line


@pytest.mark.parametrize("kind", ["none", "folder", "utf-16 cut", "bytes", "endless"])
def test_files_that_are_none(kind: str, tmp_path: Path, call: Call) -> None:
    path = tmp_path / "c.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "endless":
        path = Path("/dev/zero")
    elif kind != "none":
        path.write_bytes(b"\xff\xfen" if kind == "utf-16 cut" else bytes(range(256)))
    for action in (["check"], ["show"], *([["edit", "name", "x"]] if kind != "none" else [])):
        done = call(main, "config", *action, "--config", path)
        assert done.code == 78
        (line,) = done.err.splitlines()
        assert str(path) in line


SEVERAL = """\
[[cameras]]
source = "rtsp://me:hunter2@porch/x"
name = "door"
rotation = 180
[[cameras]]
source = "0"
"""


def test_several_cameras(home: Path, call: Call) -> None:
    home.parent.mkdir(parents=True)
    home.write_text(SEVERAL)
    done = call(main, "config", "check")
    assert done.code == 0
    shown = '[{source = "rtsp://porch/...", name = "door", rotation = 180}, {}]'
    assert f"Not at their defaults: cameras = {shown}." in done.out
    done = call(main, "config", "show", "--origin")
    (line,) = (line for line in done.out.splitlines() if line.startswith("cameras"))
    assert (line.partition("  #")[0].rstrip(), line.endswith(str(home))) == (f"cameras = {shown}", True)
    assert tomllib.loads(line.partition("  #")[0])["cameras"][0]["rotation"] == 180
    table = json.loads(call(main, "config", "show", "--json").out)["cameras"]["value"]
    assert [one["source"] for one in table] == ["rtsp://porch/...", "0"]
    assert call(main, "config", "edit", "model.threads", "2").code == 0
    assert home.read_text().startswith(SEVERAL)
    for text, words in (
        ("rotation = 45", "camera.rotation must be 0, 90, 180 or 270, not 45"),
        ("x = 1", "unknown key"),
    ):
        home.write_text(f"[[cameras]]\n{text}\n")
        done = call(main, "config", "check")
        assert (done.code, words in done.err) == (78, True)


def test_the_example_of_several_cameras_can_be_switched_on(home: Path) -> None:
    text, _, example = new_file().partition("# [[cameras]]\n")
    home.parent.mkdir(parents=True)
    home.write_text(text + "[[cameras]]\n" + example.replace("# ", ""))
    assert [(one.source, one.name) for one in load_settings(home, {}, {}).all_cameras] == [("0", "door")]


# show


def test_show_tells_where_values_come_from(home: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    home.parent.mkdir(parents=True)
    home.write_text('[camera]\nwidth = 800\nsource = "a\\u001b[31m\\u009b"\n')
    monkeypatch.setenv("EDGE_FER_CAMERA__FPS", "10")
    done = call(main, "config", "show", "--origin")
    lines = {line.partition(" = ")[0]: line for line in done.out.splitlines()}
    assert lines["width"].endswith(f"# {home}")
    assert lines["fps"].endswith("# EDGE_FER_CAMERA__FPS")
    assert lines["height"].endswith("# default")
    assert all(line.isprintable() for line in done.out.splitlines())
    assert tomllib.loads(call(main, "config", "show").out.replace("\\x9b", ""))["camera"]["fps"] == 10
    shown = json.loads(call(main, "config", "show", "--json").out)
    assert shown["camera.width"] == {"value": 800, "origin": str(home)}
    assert shown.keys() == SETTINGS.keys()


def test_show_and_edit_hide_passwords(home: Path, call: Call) -> None:
    for key in ("camera.source", "name", "outputs", "model.path"):
        done = call(main, "config", "edit", key, "rtsp://me:hunter2@host/x?token=hunter2")
        assert done.code == 0
        assert "hunter2" not in done.out
    assert "hunter2" in home.read_text()
    for options in ([], ["--origin"], ["--json"]):
        assert "hunter2" not in call(main, "config", "show", *options).out


# edit


def test_edit_changes_one_value_and_says_which(home: Path, call: Call) -> None:
    done = call(main, "config", "edit", "camera.source", "picamera:0")
    assert done.out.startswith(f'camera.source: "0" -> "picamera:0" in {home}.\n')
    assert home.read_text() == new_file().replace('\nsource = "0"', '\nsource = "picamera:0"')
    call(main, "config", "edit", "outputs", "terminal", "jsonl:a b.jsonl")
    call(main, "config", "edit", "web.names", "a.local", "b.local")
    call(main, "config", "edit", "overwrite", "TRUE")
    call(main, "config", "edit", "detector.new_face_s", "1")
    now = load_settings(home, {}, {})
    assert (now.outputs, now.overwrite, now.detector.new_face_s) == (["terminal", "jsonl:a b.jsonl"], True, 1)
    assert now.web.names == ["a.local", "b.local"]
    assert home.read_text().count("#") == new_file().count("#")


def test_edit_says_when_a_variable_beats_it(home: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable("model.threads"), "3")
    done = call(main, "config", "edit", "model.threads", "2")
    assert "EDGE_FER_MODEL__THREADS beats the file" in done.out


def test_edit_mends_a_wrong_value_beside_another(home: Path, call: Call) -> None:
    home.parent.mkdir(parents=True)
    home.write_text("[camera]\nwidth = 'wide' # mine\nheigth = 3\n")
    assert call(main, "config", "edit", "camera.width", "800").code == 0
    assert home.read_text() == "[camera]\nwidth = 800 # mine\nheigth = 3\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["camera.widht", "3"], 2, "Did you mean camera.width?"),
        (["camera", "3"], 2, "There is no setting camera."),
        (["", "3"], 2, "There is no setting"),
        (["camera.width.x", "3"], 2, "Did you mean camera.width?"),
        (["x" * 5000, "3"], 2, "There is no setting"),
        (["camera.width", "wide"], 78, "'camera.width' must be a whole number"),
        (["camera.width", "0"], 78, "camera.width must be from 1 to 16384"),
        (["camera.width", "9" * 5000], 78, "'camera.width' must be a whole number"),
        (["overwrite", "yes"], 78, "'overwrite' must be true or false"),
        (["model.device", "gpu"], 78, "must be one of cpu, edgetpu"),
        (["model.threads", "1", "2"], 2, "takes one value, not 2"),
        (["cameras", "0"], 78, "'cameras' must be a table"),
        (["camera.rotation", "45"], 78, "camera.rotation must be 0, 90, 180 or 270, not 45"),
        (["camera.source", "\udcff"], 78, "not UTF-8"),
        (["camera.width"], 2, "required"),
    ],
)
def test_edit_refuses(arguments: list[str], code: int, said: str, home: Path, call: Call) -> None:
    done = call(main, "config", "edit", *arguments)
    assert done.code == code
    (line,) = done.err.splitlines()
    assert said in line
    assert len(line) < 1500
    assert not home.exists()


def test_edit_of_what_this_user_may_not_write(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    done = call(main, "config", "edit", "name", "x", "--config", tmp_path / "c.toml")
    assert done.code == 73
    assert "Permission denied." in done.err
    assert done.err.endswith(" Or run it with sudo.\n")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30), key=st.sampled_from(["name", "camera.source"])
)
def test_any_text_survives_an_edit(text: str, key: str, tmp_path: Path) -> None:
    path = tmp_path / "edited.toml"
    path.write_text(new_file())
    update_file(path, {key: text})
    assert value_of(load_settings(path, {}, {}), key) == text
    assert path.read_text().count("\n# ") == new_file().count("\n# ")


LINES = [
    "[camera]", "[model]", "[detector]", "name = 'x' # mine", "width = 3", "camera.width = 5", "model = {threads = 2}",
    "# a comment", "", "threads = 4", "[camera.x]", "outputs = [\n  'terminal', # here\n]", "'name' = 1", "[[camera]]",
    "source = '''\n[model]\n'''", "\tfps=9", "kind = \"lbp\"", "[ camera ]", "\"cam\\u0065ra\".fps = 3",
]  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.sampled_from(LINES), max_size=7), key=st.sampled_from(["name", "camera.width", "model.threads"])
)
def test_an_edit_is_right_or_refused(lines: list[str], key: str, tmp_path: Path) -> None:
    path = tmp_path / "edited.toml"
    before = "\n".join(lines)
    path.write_text(before)
    value = "new" if key == "name" else 7
    try:
        update_file(path, {key: value})
    except ConfigError:
        assert path.read_text() == before
        return
    after = tomllib.loads(path.read_text())
    section, _, name = key.rpartition(".")
    assert (after[section] if section else after)[name] == value
    assert path.read_text().count("#") >= before.count("#")


def test_a_layout_that_the_editor_spoils_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.toml").write_text("name = 'x'\n[camera]\nwidth = 3\n")
    monkeypatch.setattr("tomlkit.dumps", lambda document: "name = 'lost'\n")
    with pytest.raises(ConfigError, match="by hand"):
        update_file(tmp_path / "c.toml", {"camera.width": 4})
    assert "width = 3" in (tmp_path / "c.toml").read_text()


# Fuzz


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_files_are_good_or_named(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(new_file().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        match data.draw(st.sampled_from(["cut", "bytes", "digits", "double"])):
            case "cut":
                del content[place : place + data.draw(st.integers(1, 40))]
            case "bytes":
                content[place:place] = data.draw(st.binary(max_size=4))
            case "digits":
                content[place:place] = data.draw(st.text(string.digits + "-+.e[]{}=\"'", max_size=6)).encode()
            case _:
                content[place:place] = content[place : place + 60]
    path = tmp_path / "fuzzed.toml"
    path.write_bytes(content)
    wrong = mistakes(path, {})
    assert all(isinstance(one, str) and one.isprintable() and len(one) < 1000 for one in wrong)
    try:
        load_settings(path, {}, {})
    except ConfigError:
        assert wrong
    else:
        assert wrong == []


@pytest.mark.parametrize(
    "name", ["EDGE_FER_", "EDGE_FER___", "EDGE_FER_CAMERA", "EDGE_FER_CAMERA__", "EDGE_FER_X__Y__Z"]
)
def test_hostile_variables(name: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "\x1b[31m" + "x" * 300)
    done = call(main, "config", "check")
    assert done.code == 78
    (line,) = done.err.splitlines()
    assert name in line and line.isprintable() and len(line) < 600


# In a process of its own


def test_config_needs_neither_opencv_nor_numpy(tmp_path: Path) -> None:
    for module in ("cv2", "numpy", "ai_edge_litert"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").write_text("raise ImportError('broken')")
    environ = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "XDG_CONFIG_HOME": str(tmp_path),
        "XDG_CACHE_HOME": "/",
    }
    for arguments in (["init"], ["show", "--origin"], ["edit", "name", "x"], ["reference"]):
        command = [sys.executable, "-P", "-m", "edge_fer", "config", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_texts_are_shown_as_toml() -> None:
    assert as_toml('a"b\n') == '"a\\"b\\n"'
    assert [config_file.limits(SETTINGS[key]) for key in ("camera.width", "overwrite", "model.device", "name")] == [
        "1 to 16384 px", "true | false", '"cpu" | "edgetpu"', "",
    ]  # fmt: skip
