"""Settings are strict, and flag > environment > file > default."""

import codecs
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from edge_fer.config import ModelSettings, Settings, default_file, default_files
from edge_fer.config_file import update_file
from edge_fer.errors import ConfigError
from edge_fer.layers import load_settings


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_defaults(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, ""), {}, {}) == Settings()


def test_precedence(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "file"\n[camera]\nsource = "file"\nwidth = 1\nheight = 2\n')
    environ = {"EDGE_FER_CAMERA__SOURCE": "environment", "EDGE_FER_CAMERA__WIDTH": "320", "HOME": "/x"}
    settings = load_settings(path, environ, {"camera.source": "flag", "name": None})
    assert (settings.camera.source, settings.camera.width, settings.camera.height) == ("flag", 320, 2)
    assert settings.name == "file"
    assert settings.camera.fps == 30


def test_a_list_in_the_environment_is_split_at_blanks(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, ""), {"EDGE_FER_OUTPUTS": "terminal jsonl:x"}, {})
    assert settings.outputs == ["terminal", "jsonl:x"]


def test_numbers_in_the_environment(tmp_path: Path) -> None:
    environ = {"EDGE_FER_DETECTOR__NEW_FACE_S": "0.7", "EDGE_FER_MODEL__THREADS": "2"}
    settings = load_settings(write(tmp_path, ""), environ, {})
    assert (settings.detector.new_face_s, settings.model.threads) == (0.7, 2)


def test_the_first_default_file_that_exists_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_fer.config.default_files", lambda: [tmp_path / "none", write(tmp_path, 'name = "home"')])
    assert load_settings(None, {}, {}).name == "home"


def test_where_default_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/pi")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    system, own = default_files()
    assert (str(system), str(own)) == ("/etc/edge-fer/config.toml", "/home/pi/.config/edge-fer/config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
    assert default_files()[1] == Path("/elsewhere/edge-fer/config.toml")


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(user_id: int) -> None:
        raise KeyError(user_id)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert not default_files()[1].exists()


def test_a_default_file_that_may_not_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    system, own = Path("etc/config.toml"), Path("home/config.toml")
    monkeypatch.setattr("edge_fer.config.default_files", lambda: [system, own])
    for file in (system, own):
        file.parent.mkdir()
    own.write_text('name = "of another user"')
    own.parent.chmod(0)
    with nobody():
        assert (default_file(), load_settings(None, {}, {})) == (None, Settings())
    system.parent.chmod(0)
    with nobody():
        assert default_file() == system
        said = r"^Cannot read etc/config\.toml: Permission denied\. Let this user read it, or name another file\.$"
        with pytest.raises(ConfigError, match=said):
            load_settings(None, {}, {})
        assert load_settings(Path("/dev/null"), {}, {}) == Settings()


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "file/below", "circle"])
def test_a_default_file_that_cannot_be_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.setattr("edge_fer.config.default_files", lambda: [tmp_path / "none", tmp_path / name])
    assert default_file() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae = 'x'", "Did you mean 'name'"),
        ("[camera]\nsuorce = '0'", "Did you mean 'camera.source'"),
        ("[camera]\nzzz = 1", "Known here: source, name, width, height"),
        ("[camera]\nwidth = 'wide'", "'camera.width' must be a whole number, not 'wide'"),
        ("[camera]\nwidth = true", "'camera.width' must be a whole number, not True"),
        ("camera = 3", "'camera' must be a table"),
        ("outputs = [1]", "'outputs' must be a text in quotes, not 1"),
        ("outputs = 'terminal'", "'outputs' must be a list, not 'terminal'"),
        ("[model]\ndevice = 'gpu'", "must be one of cpu, edgetpu"),
        ("[model]\nthreads = 0", "model.threads must be from 1 to 64, not 0"),
        ("[model]\nthreads = 99999", "model.threads must be from 1 to 64, not 99999"),
        ("[camera]\nwidth = 100000", "camera.width must be from 1 to 16384"),
        ("[detector]\nnew_face_s = 'soon'", "'detector.new_face_s' must be a number, not 'soon'"),
        ("[detector]\nnew_face_s = 0", "detector.new_face_s must be from 0.01 to 60, not 0"),
        ("name = ", "not valid TOML"),
        (f"[detector]\nnew_face_s = {'9' * 400}", "'detector.new_face_s' is out of range: a number of 1329 bits"),
        (f"[camera]\nwidth = 0x{'f' * 5000}", "'camera.width' is out of range: a number of 20000 bits"),
        (f"name = [0x{'f' * 5000}]", "'name' must be a text in quotes, not [a number of 20000 bits]"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        load_settings(write(tmp_path, text), {}, {})


def test_a_mistake_in_the_environment_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    with pytest.raises(ConfigError, match=r"EDGE_FER_CAMERA__WIDHT.*Did you mean 'camera.width'"):
        load_settings(path, {"EDGE_FER_CAMERA__WIDHT": "3"}, {})
    with pytest.raises(ConfigError, match=r"'camera.width' must be a whole number, not 'three'"):
        load_settings(path, {"EDGE_FER_CAMERA__WIDTH": "three"}, {})


def test_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "none.toml", {}, {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_settings(tmp_path / "binary", {}, {})


TOML = 'name = "Küche"\r\n[camera]\r\nsource = "demo"\r\n'


@pytest.mark.parametrize(
    "content",
    [
        TOML.encode("utf-8"),
        TOML.encode("utf-8-sig"),
        TOML.encode("utf-16"),
        codecs.BOM_UTF16_BE + TOML.encode("utf-16-be"),
        TOML.replace("\r\n", "\n").encode("utf-8-sig"),
    ],
)
def test_files_of_windows_are_read_and_edited(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    settings = load_settings(path, {}, {})
    assert (settings.name, settings.camera.source) == ("Küche", "demo")
    update_file(path, {"model.threads": 2})
    assert load_settings(path, {}, {}) == dataclasses.replace(settings, model=ModelSettings(threads=2))


@pytest.mark.parametrize("address", ["rtsp://me:hunter2@host/", "HTTP://host/?token=hunter2", "srt://a b@[hunter2/#?"])
@pytest.mark.parametrize(
    "text",
    ["camera = 'X'", "outputs = 'X'", "[camera]\nwidth = 'X'", "[camera]\nsource = ['X']", "'X' = 1", "model = ['X']"],
)
def test_secrets_are_not_repeated(tmp_path: Path, text: str, address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text.replace("X", address)), {}, {})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, ""), {"EDGE_FER_CAMERA": address}, {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False)])
def test_a_truth_in_the_environment(tmp_path: Path, text: str, value: bool) -> None:
    assert load_settings(write(tmp_path, ""), {"EDGE_FER_OVERWRITE": text}, {}).overwrite is value
    with pytest.raises(ConfigError, match="'overwrite' must be true or false, not 'yes'"):
        load_settings(write(tmp_path, ""), {"EDGE_FER_OVERWRITE": "yes"}, {})
