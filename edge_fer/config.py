"""Settings: frozen dataclasses whose fields carry what a person should know of them; and where their file lies."""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
import typing
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from edge_fer.address import printable
from edge_fer.errors import ConfigError, UsageError

ENV_PREFIX = "EDGE_FER_"
MOST_CAMERAS = 16
MOST_PX = 16_384
"""Of a side of an image: drivers take more without a word, and crash."""

DetectorKind: typing.TypeAlias = typing.Literal["auto", "ssd", "haar", "lbp", "yunet", "blazeface"]
DecisionKind: typing.TypeAlias = typing.Literal["balanced", "as-trained"]
"""What a model's answer supposes: that all expressions are alike frequent, by the bundle's own rule
(``model.decision.Rule``); or the class mix of its training data, by its first head alone."""


@dataclass(frozen=True)
class Setting:
    """What a person should know of a setting, beside its name, type and default.

    It stands once, at the field of a dataclass below; ranges are checked by it, and ``config_file.py`` makes of it the
    comments of a new file and the reference page.

    Attributes:
        text: what it is for; sentences.
        unit: of its value; "" where it has none.
        least: smallest value, for numbers.
        most: largest value, for numbers.
        choices: the only values, where a range does not say it; empty where it does.
        flag: the option of ``edge-fer run`` that beats it; "" where there is none.
        live: can change while a stream runs, without the camera being opened again.
    """

    text: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    flag: str = ""
    live: bool = False
    choices: tuple[int, ...] = ()


def _check(table: Any, section: str) -> None:
    """Refuse a value that is out of its range.

    Args:
        table: one of the dataclasses below.
        section: its name in the file, for the message.

    Raises:
        ConfigError: names the setting and its range.
    """
    for name, hint in typing.get_type_hints(type(table), include_extras=True).items():
        setting, value = typing.get_args(hint)[1], getattr(table, name)
        least, most = setting.least, setting.most
        if setting.choices and value not in setting.choices:
            *others, last = setting.choices
            known = f"{', '.join(map(str, others))} or {last}"
            raise ConfigError(f"{section}.{name} must be {known}, not {value}.")
        if least is not None and most is not None and not least <= value <= most:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise ConfigError(f"{section}.{name} must be from {least:g} to {most:g}, not {shown}.")


@dataclass(frozen=True)
class CameraSettings:
    """Where images come from."""

    source: Annotated[
        str,
        Setting(
            '"0" is the first USB camera, "/dev/v4l/by-id/..." a certain one, which keeps that name when another is '
            'plugged in, "picamera:0" the camera on the ribbon cable ("rpicam:0" without picamera2), "rtsp://..." or '
            '"http://..." one in the network, "demo" drawn faces for trying things out and for a burn-in; also '
            '"pipe:640x480@30", a video, an image or a folder. '
            "`edge-fer cameras` lists what is there.",
            flag="--camera",
        ),
    ] = "0"
    name: Annotated[str, Setting('Name of the camera in events; "" is its address. Pictures keep their path.')] = ""
    width: Annotated[
        int, Setting("Width of the image a camera is asked for. It may give another.", "px", 1, MOST_PX, "--width")
    ] = 640
    height: Annotated[
        int, Setting("Height of the image a camera is asked for. It may give another.", "px", 1, MOST_PX, "--height")
    ] = 480
    fps: Annotated[
        int, Setting("Frame rate a camera is asked for. It may give another.", "frames per second", 1, 1000, "--fps")
    ] = 30
    full_size: Annotated[
        bool,
        Setting(
            "Keep every pixel of a live camera. Else an image of 960 lines or more is halved while it is decoded, "
            "which costs half the memory, and min_face_px counts the pixels that are left."
        ),
    ] = False
    rotation: Annotated[
        int,
        Setting(
            "Degrees clockwise by which a moving image is turned; pictures and the demo stay as they are.",
            "degrees",
            choices=(0, 90, 180, 270),
        ),
    ] = 0
    flip: Annotated[
        typing.Literal["none", "horizontal", "vertical"],
        Setting('What is exchanged in a moving image afterwards: "horizontal" is left and right, as in a mirror.'),
    ] = "none"
    autofocus: Annotated[
        bool, Setting("The camera focuses by itself, if it can; false leaves the lens where it is.")
    ] = True
    exposure_ms: Annotated[
        float, Setting("How long each image is exposed; 0 lets the camera decide.", "ms", 0, 10_000)
    ] = 0.0

    def __post_init__(self) -> None:
        _check(self, "camera")


def told_apart(cameras: Sequence[CameraSettings]) -> list[CameraSettings]:
    """The cameras, each with a name of its own where there are several: an address shown without its secrets is none.

    Raises:
        UsageError: two have the same name, or are the same.
    """
    if len(cameras) == 1:
        return list(cameras)
    given = Counter(camera.source for camera in cameras)
    if twice := [source for source, count in given.items() if count > 1]:
        raise UsageError(f"Camera {printable(twice[0])} is given twice. It can be read once.")
    named = []
    taken = Counter(camera.name for camera in cameras if camera.name)
    if twice := [name for name, count in taken.items() if count > 1]:
        raise UsageError(f"Two cameras are called {twice[0]}. Give each a name of its own.")
    for camera in cameras:
        name = camera.name or printable(camera.source.strip())
        count = 1
        while not camera.name and taken[name if count == 1 else f"{name} #{count}"]:
            count += 1
        name = name if count == 1 else f"{name} #{count}"
        taken[name] += 1
        named.append(dataclasses.replace(camera, name=name))
    return named


@dataclass(frozen=True)
class DetectorSettings:
    """How faces are looked for."""

    kind: Annotated[
        DetectorKind,
        Setting(
            '"ssd" comes with edge-fer, "haar" with OpenCV; "auto" is ssd, and haar where that cannot be opened. "lbp" '
            'needs `sudo apt install opencv-data`. "yunet" and "blazeface" need a model file.',
            flag="--detector",
            live=True,
        ),
    ] = "auto"
    model: Annotated[
        str,
        Setting(
            "The detector's file: YuNet's .onnx, BlazeFace's .tflite, another cascade's .xml, or a bundle of your own; "
            '"" is what comes with OpenCV or edge-fer.',
            flag="--detector-model",
            live=True,
        ),
    ] = ""
    min_face_px: Annotated[
        int,
        Setting(
            "Width of the smallest face to look for, in pixels of the frame. Larger is faster.",
            *("px", 1, MOST_PX, "--min-face"),
            live=True,
        ),
    ] = 40
    new_face_s: Annotated[
        float, Setting("A new face is found within this time. More costs less.", "s", 0.01, 60, live=True)
    ] = 0.3

    def __post_init__(self) -> None:
        _check(self, "detector")


@dataclass(frozen=True)
class ModelSettings:
    """What tells expressions."""

    path: Annotated[
        str,
        Setting(
            'A model of the package ("accurate", "nano") or a bundle\'s file; "" is the package\'s default.',
            flag="--model",
            live=True,
        ),
    ] = ""
    device: Annotated[
        typing.Literal["cpu", "edgetpu"],
        Setting(
            'Where the model runs: "cpu", or "edgetpu" for a Coral; without a working one the CPU does the work.',
            flag="--device",
            live=True,
        ),
    ] = "cpu"
    threads: Annotated[
        int,
        Setting(
            "CPU threads of the model. One is enough for a small network; the rest of the board stays free.",
            *("", 1, 64, "--threads"),
            live=True,
        ),
    ] = 1

    decision: Annotated[
        DecisionKind,
        Setting(
            'What the answer supposes: "balanced", that all expressions are alike frequent, or "as-trained", the class '
            "mix of the training data.",
            flag="--decision",
            live=True,
        ),
    ] = "balanced"
    tta: Annotated[
        bool,
        Setting(
            "Test-time augmentation: the mean of a face and its mirror image is the answer; the model runs twice.",
            flag="--tta",
            live=True,
        ),
    ] = False
    compound: Annotated[
        bool,
        Setting(
            'Events say too which two expressions a face shows at once ("sadly angry"), where both are probable.',
            flag="--compound",
            live=True,
        ),
    ] = False

    def __post_init__(self) -> None:
        _check(self, "model")


@dataclass(frozen=True)
class GovernorSettings:
    """How a service spares a board that is too hot, or is slowed down by its firmware."""

    on: Annotated[
        bool,
        Setting("Look at fewer frames, and search less often for new faces, until the board is cool again.", live=True),
    ] = True
    hot_c: Annotated[
        float,
        Setting("From this temperature on less is done; a Pi slows itself down at 80 to 85.", "°C", 40, 110, live=True),
    ] = 80.0
    hysteresis_c: Annotated[
        float, Setting("When it has been cooler by this for a minute, more is done again.", "°C", 1, 40, live=True)
    ] = 10.0

    def __post_init__(self) -> None:
        _check(self, "governor")


@dataclass(frozen=True)
class PicturesSettings:
    """How long an output ``pictures:DIR`` keeps the pictures of a live camera. Others are never deleted."""

    keep: Annotated[
        int, Setting("So many pictures of a live camera are kept; older ones are deleted.", "pictures", 1, 100_000)
    ] = 10_000
    keep_days: Annotated[
        float, Setting("Pictures of a live camera that are older are deleted.", "days", 0.001, 36_500)
    ] = 30.0

    def __post_init__(self) -> None:
        _check(self, "pictures")


@dataclass(frozen=True)
class MqttSettings:
    """What an output ``mqtt://...`` does, beside its address."""

    payload: Annotated[
        typing.Literal["home-assistant", "flat"],
        Setting(
            '"home-assistant" has topics for state, events and the switch of the camera, below that of the address; '
            '"flat" has that one topic alone, and an object of numbers and texts, for ThingsBoard '
            "(v1/devices/me/telemetry) or Telegraf."
        ),
    ] = "home-assistant"
    discovery: Annotated[str, Setting('Where Home Assistant looks for new devices; "" for it to see none.')] = (
        "homeassistant"
    )
    heartbeat_s: Annotated[float, Setting("The state is published this often at least.", "s", 1, 86_400)] = 60.0
    keep_s: Annotated[
        float, Setting("Events wait so long for a broker that is away; older ones are dropped.", "s", 1, 86_400)
    ] = 600.0
    password_file: Annotated[
        str,
        Setting(
            'File with the password of the user in the address; "" takes the systemd credential mqtt-password, if '
            "there is one."
        ),
    ] = ""
    ca_file: Annotated[
        str, Setting('Certificates by which a broker at mqtts://... is known, in PEM; "" are those of the system.')
    ] = ""
    cert_file: Annotated[str, Setting("Certificate that is shown to the broker, in PEM, if it wants one.")] = ""
    key_file: Annotated[str, Setting("Its key, in PEM, without a pass phrase.")] = ""

    def __post_init__(self) -> None:
        _check(self, "mqtt")


@dataclass(frozen=True)
class WebSettings:
    """What the page of an output ``web:HOST:PORT`` shows, and to whom."""

    show_video: Annotated[
        bool,
        Setting(
            "Show pictures: the live image, and the crops that the model sees. Without this the page has boxes on an "
            "empty stage, and no picture leaves the process.",
            flag="--show-video",
        ),
    ] = False
    token_file: Annotated[
        str,
        Setting(
            'File with the token that opens the page, at least 16 letters; "" takes the systemd credential web-token, '
            "if there is one. Without a token the page listens at this machine alone.",
            flag="--web-token-file",
        ),
    ] = ""
    cert_file: Annotated[str, Setting('Certificate for https, with its chain, in PEM; "" for plain http.')] = ""
    key_file: Annotated[str, Setting('Its key, in PEM, without a pass phrase; "" where cert_file has it too.')] = ""
    names: Annotated[
        list[str],
        Setting(
            "Host names by which browsers reach the page, beside localhost, the name of this machine and addresses: "
            "that of a proxy, for instance."
        ),
    ] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """All of ``edge-fer run``."""

    name: Annotated[str, Setting('Name of this device in events; "" is the host name.', flag="--name")] = ""
    outputs: Annotated[
        list[str],
        Setting(
            'Where results go, any number of: "terminal" (in a service: lines in the journal), "jsonl:PATH", '
            '"csv:PATH", "video:PATH", "pictures:DIR", "mqtt://USER@HOST", "web:HOST:PORT", "webhook:URL"; '
            'at a terminal "terminal:picture" shows what the camera sees. Those with a path write to the SD card and '
            'wear it; "video" and "pictures" keep people\'s faces. The service may write only below /var/lib/edge-fer: '
            "give a relative path.",
            flag="--output",
        ),
    ] = field(default_factory=lambda: ["terminal"])
    overwrite: Annotated[
        bool,
        Setting(
            'Replace what an earlier recording of a camera has left. Else "jsonl" and "csv" go on in their file, and '
            '"video" and "pictures" get a number: annotated-2.mp4, annotated/2/.',
            flag="--overwrite",
        ),
    ] = False
    camera: CameraSettings = CameraSettings()
    cameras: Annotated[
        list[CameraSettings],
        Setting(
            "Several cameras at once, each a table [[cameras]] with the keys of [camera], which then does not count. "
            f"At most {MOST_CAMERAS}."
        ),
    ] = field(default_factory=list)
    detector: DetectorSettings = DetectorSettings()
    model: ModelSettings = ModelSettings()
    governor: GovernorSettings = GovernorSettings()
    pictures: PicturesSettings = PicturesSettings()
    mqtt: MqttSettings = MqttSettings()
    web: WebSettings = field(default_factory=WebSettings)

    def __post_init__(self) -> None:
        if len(self.cameras) > MOST_CAMERAS:
            raise ConfigError(f"{MOST_CAMERAS} cameras at once are the most, not {len(self.cameras)}.")

    @property
    def all_cameras(self) -> list[CameraSettings]:
        """What is read: ``cameras``, or where there are none ``camera`` alone."""
        return self.cameras or [self.camera]


class Field(NamedTuple):
    """One of ``all_settings``.

    Attributes:
        key: dotted, "camera.width".
        hint: its type.
        default: its value where nobody says another.
        setting: what a person should know of it.
    """

    key: str
    hint: Any
    default: Any
    setting: Setting


@functools.cache
def all_settings(kind: type[Any] = Settings, prefix: str = "") -> tuple[Field, ...]:
    """Every setting, in the order of a file: TOML wants tables last."""
    hints = typing.get_type_hints(kind, include_extras=True)
    values: list[Field] = []
    tables: list[Field] = []
    for one in dataclasses.fields(kind):
        hint = hints[one.name]
        if dataclasses.is_dataclass(hint):
            tables += all_settings(hint, f"{prefix}{one.name}.")  # type: ignore[arg-type]
            continue
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        (inner, setting) = typing.get_args(hint)
        values.append(Field(prefix + one.name, inner, default, setting))
    return (*values, *tables)


def value_of(settings: Settings, key: str) -> Any:
    """The value of a dotted key."""
    return functools.reduce(getattr, key.split("."), settings)


def default_files() -> list[Path]:
    """Files that are read when ``--config`` is not given, the system's and the user's: the first that exists counts."""
    # Not Path.home(), which fails for a user without a home, as a container's may be.
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
    return [Path("/etc/edge-fer/config.toml"), Path(home, "edge-fer", "config.toml")]


def default_file() -> Path | None:
    """The one of ``default_files`` that is read; None where there is none.

    The system's is given too where nobody can tell whether it is there: reading it then says why it cannot be. Without
    that, a board would quietly do other than it was told to. Where a user may not look into the folder of the own one,
    it is somebody else's home, as after ``su`` or ``setpriv``, and what lies there was not meant for this user.
    """
    return next((file for place, file in enumerate(default_files()) if _may_be(file, if_hidden=place == 0)), None)


def _may_be(file: Path, *, if_hidden: bool) -> bool:
    """Whether there is such a file; ``if_hidden`` where this user may not see that."""
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a zero byte
        return False
    except OSError:
        return if_hidden
