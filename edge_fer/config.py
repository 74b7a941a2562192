"""Settings: frozen dataclasses, filled from a TOML file, the environment and the command line, all strict."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_fer.errors import ConfigError
from edge_fer.files import make_folder, write_atomically
from edge_fer.strict import from_table, read_text, read_toml

ENV_PREFIX = "EDGE_FER_"


DetectorKind: typing.TypeAlias = typing.Literal["haar", "lbp", "yunet", "blazeface"]
DecisionKind: typing.TypeAlias = typing.Literal["balanced", "as-trained"]
"""What a model's answer supposes: that all expressions are alike frequent, by the bundle's own rule
(``model.decision.Rule``); or the class mix of its training data, by its first head alone."""


@dataclass(frozen=True)
class CameraSettings:
    """Where images come from.

    Attributes:
        source: what ``--camera`` takes: 0, /dev/video2, picamera:0, rtsp://..., a video, an image, a folder, -, demo.
        width: pixels a camera is asked for.
        height: pixels a camera is asked for.
        fps: frames per second a camera is asked for.
    """

    source: str = "0"
    width: int = 640
    height: int = 480
    fps: int = 30


@dataclass(frozen=True)
class DetectorSettings:
    """How faces are looked for.

    Attributes:
        kind: which detector.
        model: its file: a cascade for haar and lbp, YuNet's .onnx, BlazeFace's .tflite; "" for what OpenCV comes with.
        min_face_px: smallest face that is looked for, in pixels of the frame.
        new_face_s: a new face is found within so many seconds; more costs less.
    """

    kind: DetectorKind = "haar"
    model: str = ""
    min_face_px: int = 40
    new_face_s: float = 0.5


@dataclass(frozen=True)
class ModelSettings:
    """What tells expressions.

    Attributes:
        path: a bundle's file, or the name of a model of the package; "" for its default.
        device: "cpu" or "edgetpu".
        threads: CPU threads of the interpreter.
        decision: "balanced", which supposes that all expressions are alike frequent, or "as-trained".
        tta: test-time augmentation: the mean of a face and its mirror image is the answer; the network runs twice.
    """

    path: str = ""
    device: typing.Literal["cpu", "edgetpu"] = "cpu"
    threads: int = 1
    decision: DecisionKind = "balanced"
    tta: bool = False


@dataclass(frozen=True)
class Settings:
    """All of ``edge-fer run``.

    Attributes:
        name: of this device in events; "" for the host name.
        outputs: what ``--output`` takes, any number: terminal, jsonl:PATH, csv:PATH, video:PATH, pictures:DIR.
        overwrite: replace what an earlier recording of a camera has left.
        camera: where images come from.
        detector: how faces are looked for.
        model: what tells expressions.
    """

    name: str = ""
    outputs: list[str] = field(default_factory=lambda: ["terminal"])
    overwrite: bool = False
    camera: CameraSettings = CameraSettings()
    detector: DetectorSettings = DetectorSettings()
    model: ModelSettings = ModelSettings()

    def __post_init__(self) -> None:
        # Drivers and LiteRT take more without a word, and crash.
        for name, value, most in (
            ("camera.width", self.camera.width, 16_384),
            ("camera.height", self.camera.height, 16_384),
            ("camera.fps", self.camera.fps, 1000),
            ("detector.min_face_px", self.detector.min_face_px, 16_384),
            ("model.threads", self.model.threads, 64),
        ):
            if not 1 <= value <= most:
                raise ConfigError(f"{name} must be from 1 to {most}, not {value}.")
        if not self.detector.new_face_s > 0:
            raise ConfigError(f"detector.new_face_s must be more than 0, not {self.detector.new_face_s}.")


def default_files() -> list[Path]:
    """Files that are read when ``--config`` is not given: the first that exists counts."""
    # Not Path.home(), which fails for a user without a home, as a container's may be.
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
    return [Path("/etc/edge-fer/config.toml"), Path(home, "edge-fer", "config.toml")]


def default_file() -> Path | None:
    """The one of ``default_files`` that is read; None where there is none."""
    return next((file for file in default_files() if file.is_file()), None)


def load_settings(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Merge the settings: a flag beats ``EDGE_FER_SECTION__KEY`` beats the file beats the default.

    Args:
        path: a TOML file; None for the first of ``default_files`` that exists, or none at all.
        environ: the environment.
        flags: values of the command line by dotted key, ``{"camera.source": "demo"}``; None where not given.

    Raises:
        ConfigError: a key, value or file is wrong.
    """
    path = path or default_file()
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = read_toml(path)
        except FileNotFoundError as error:
            raise ConfigError(f"Cannot read {path}: {error.strerror}.") from None
        from_table(Settings, table, str(path))
        _encode_paths(table)
    for name, text in environ.items():
        if name.startswith(ENV_PREFIX):
            keys = name.removeprefix(ENV_PREFIX).lower().split("__")
            overlay = _nested(keys, _parsed(Settings, keys, text))
            from_table(Settings, overlay, name)
            table = _merged(table, overlay)
    for dotted, value in flags.items():
        if value is not None:
            overlay = _nested(dotted.split("."), value)
            table = _merged(table, overlay)
    return from_table(Settings, table, "settings")


def update_file(path: Path, values: Mapping[str, int]) -> None:
    """Set keys of a TOML file, and leave all else as it is: comments, order, other keys.

    Args:
        path: made if it is not there, with its folder. It is replaced whole or not at all.
        values: by dotted key, ``{"model.threads": 2}``.

    Raises:
        ConfigError: the file is not valid TOML.
        OutputError: it cannot be written.
    """
    import tomlkit  # only who edits pays for it

    path = path.resolve()  # a link stays a link
    try:
        document = tomlkit.parse(read_text(path) if path.exists() else "")
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from None
    except (tomlkit.exceptions.TOMLKitError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    for dotted, value in values.items():
        table, key = dotted.split(".")
        document.setdefault(table, tomlkit.table())[key] = value
    make_folder(path.parent)
    write_atomically(path, tomlkit.dumps(document).encode())


def _encode_paths(table: dict[str, Any]) -> None:
    """Write the paths of a file, UTF-8 whatever the locale, as this Python writes those of the command line."""
    for section, key in (("camera", "source"), ("detector", "model"), ("model", "path")):
        if key in table.get(section, ()):
            table[section][key] = os.fsdecode(table[section][key].encode())
    if "outputs" in table:
        table["outputs"] = [os.fsdecode(spec.encode()) for spec in table["outputs"]]


def _parsed(kind: Any, keys: list[str], text: str) -> Any:
    """An environment value in the type of its key: a list is split at blanks; what does not parse stays text."""
    hint = typing.get_type_hints(kind).get(keys[0]) if isinstance(kind, type) else None
    if len(keys) > 1 and dataclasses.is_dataclass(hint):
        return _parsed(hint, keys[1:], text)
    if typing.get_origin(hint) is list:
        return text.split()
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return hint(text) if hint in (int, float) else text
    except ValueError:
        return text


def _nested(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: _nested(keys[1:], value) if len(keys) > 1 else value}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged
