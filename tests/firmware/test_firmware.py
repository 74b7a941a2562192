"""The files for a Raspberry Pi: each is parsed by what reads it on the board, as far as that runs here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from edge_fer import errors
from edge_fer.cli import build_parser
from edge_fer.config import Settings
from edge_fer.config_file import new_file
from edge_fer.layers import load_settings

FOLDER = Path(__file__).parents[2] / "firmware_configs"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
INSTALL = (FOLDER / "install.sh").read_text(encoding="utf-8")
ON_THE_CARD = "/boot/firmware/edge-fer/"


def unit() -> dict[str, dict[str, list[str]]]:
    """Sections of the unit. A key may stand more than once, which configparser cannot hold."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in (FOLDER / "edge-fer.service").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), defaultdict(list))
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section[key].append(value)
    return sections


SERVICE = unit()["Service"]


# The configuration


def test_example_configuration_is_valid_and_states_the_defaults() -> None:
    assert load_settings(FOLDER / "edge-fer.toml", {}, {}) == Settings()


def test_example_configuration_is_what_init_writes() -> None:
    text = (FOLDER / "edge-fer.toml").read_text(encoding="utf-8")
    assert text == new_file(), "run `edge-fer config init --overwrite --config firmware_configs/edge-fer.toml`"


# The unit


def test_unit_starts_a_command_that_exists() -> None:
    (command,) = SERVICE["ExecStart"]
    program, *arguments = shlex.split(command)
    args = build_parser().parse_args(arguments)
    assert args.verb == "run"
    assert str(args.config) in INSTALL
    assert program.removesuffix("/bin/edge-fer") in INSTALL


def test_unit_retries_what_may_mend_and_nothing_else() -> None:
    (prevent,) = SERVICE["RestartPreventExitStatus"]
    hopeless = {errors.UsageError, errors.DataError, errors.BundleError, errors.InputMissingError, errors.ConfigError}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not errors.EdgeFerError]
    assert len(kinds) > 6
    for kind in kinds:
        assert (str(kind.exit_code) in prevent.split()) == (kind in hopeless), kind
    assert SERVICE["Restart"] == ["on-failure"]


def test_unit_reaches_cameras_and_no_network() -> None:
    allowed = {line.split()[0] for line in SERVICE["DeviceAllow"]}
    assert {"char-video4linux", "char-media", "char-dma_heap", "char-usb_device", "/dev/vcio"} == allowed
    assert SERVICE["DevicePolicy"] == ["closed"]
    assert SERVICE["PrivateDevices"] == ["no"]
    assert {"video", "plugdev"} <= set(SERVICE["SupplementaryGroups"][0].split())
    assert SERVICE["RestrictAddressFamilies"] == ["AF_UNIX AF_NETLINK"]


def test_classes_of_devices_are_there_before_the_unit_starts() -> None:
    """Seen on an emulated board: a camera plugged in later was refused, since systemd had found no such class."""
    for key in ("Wants", "After"):
        assert unit()["Unit"][key] == ["modprobe@videodev.service modprobe@mc.service"]


def test_unit_hears_what_the_program_says() -> None:
    """tests/runtime/test_systemd.py has the program's side: it is ready, and feeds a watchdog."""
    assert SERVICE["Type"] == ["notify"]
    assert int(SERVICE["WatchdogSec"][0]) >= 30  # the first frame of a slow board may take long
    assert "NotifyAccess" not in SERVICE  # the process itself, and no other


@pytest.fixture
def stub_unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here, as the checks of systemd want."""
    program = tmp_path / "edge-fer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = (FOLDER / "edge-fer.service").read_text(encoding="utf-8")
    (tmp_path / "edge-fer.service").write_text(text.replace("/opt/edge-fer/bin/edge-fer", str(program)))
    return tmp_path / "edge-fer.service"


needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@needs_systemd
def test_systemd_accepts_the_unit(stub_unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", stub_unit], capture_output=True, text=True, check=False)
    about_ours = [line for line in done.stderr.splitlines() if "edge-fer" in line]
    assert (done.returncode, about_ours) == (0, [])


@needs_systemd
def test_systemd_finds_the_unit_well_confined(stub_unit: Path) -> None:
    """systemd 252 gives 1.5 of 10, where 10 is wholly exposed."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", stub_unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]


# What ties the files together


def test_what_the_scripts_use_is_in_the_folder() -> None:
    made = {"release", "requirements.txt", "SHA256SUMS", "SHA256SUMS.sig", "allowed_signers", "wheels"}  # by release.py
    for script in ("install.sh", "first-boot.sh"):
        named = set(re.findall(r"\$here/([\w-][\w.-]*)", (FOLDER / script).read_text(encoding="utf-8")))
        assert [name for name in named - made if not (FOLDER / name).is_file()] == []


def test_coral_rules_name_both_faces_of_the_accelerator() -> None:
    text = (FOLDER / "99-edge-fer-coral.rules").read_text(encoding="utf-8")
    rules = [line for line in text.splitlines() if line and not line.startswith("#")]
    pattern = (
        r'SUBSYSTEM=="usb", ATTRS\{idVendor\}=="(\w{4})", ATTRS\{idProduct\}=="(\w{4})", GROUP="plugdev", MODE="0660"'
    )
    found = [re.fullmatch(pattern, rule) for rule in rules]
    assert [match and match.groups() for match in found] == [("1a6e", "089a"), ("18d1", "9302")]


def test_a_windows_checkout_does_not_change_the_files() -> None:
    attributes = (FOLDER.parent / ".gitattributes").read_text(encoding="utf-8").splitlines()
    assert "firmware_configs/** text eol=lf" in attributes
    files = [path for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert not [path.name for path in files if b"\r\n" in path.read_bytes()]


def test_config_txt_is_made_of_settings_and_filters() -> None:
    for line in (FOLDER / "config.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"|#.*|\[\w+\]|\w+=[\w=,.]+", line), line


def test_readme_names_every_file() -> None:
    names = [path.name for path in FOLDER.iterdir() if path.is_file()]
    assert [name for name in names if f"`{name}`" not in README] == ["README.md"]


def test_readme_and_the_legacy_set_name_the_same_packages() -> None:
    lines = (FOLDER.parent / "requirements-legacy.txt").read_text(encoding="utf-8").splitlines()
    wanted = {line.partition(">=")[0] for line in lines if line and not line.startswith("#")}
    (command,) = re.findall(r"(?m)^sudo /opt/edge-fer/bin/pip install (\".+)$", README)
    assert set(shlex.split(command)) == wanted


def test_commands_in_the_readme_exist() -> None:
    commands = re.findall(r"(?m)^\S*/bin/edge-fer (.+)$", README)
    assert len(commands) >= 2
    for command in commands:
        assert build_parser().parse_args(shlex.split(command, comments=True)).verb == "run"


# Images


IMAGE = FOLDER / "image"


def test_configurations_for_rpi_image_gen_name_layers_that_it_has() -> None:
    """Its names, as of November 2026. No image was made of them."""
    devices = {"zero2w": "rpizero2w", "pi3": "rpi3", "pi4": "rpi4", "pi5": "rpi5", "pi4-ab": "rpi4", "pi5-ab": "rpi5"}
    files = {file.stem: yaml.safe_load(file.read_text()) for file in (IMAGE / "rpi-image-gen" / "config").iterdir()}
    assert files.keys() == devices.keys()
    for name, config in files.items():
        assert config["device"] == {"layer": devices[name]}
        assert config["layer"] == {"base": "trixie-minbase", "app": "edge-fer"}
        # The layout with two slots is for these devices alone.
        assert config["image"]["layer"] == ("image-rota" if name.endswith("-ab") else "image-rpios")


def test_the_layer_for_rpi_image_gen_declares_what_it_uses() -> None:
    text = (IMAGE / "rpi-image-gen" / "layer" / "edge-fer.yaml").read_text()
    header = text.partition("# METAEND\n---\n")[0]
    fields = dict(re.findall(r"(?m)^# (X-Env-[\w-]+): (.*)$", header))
    assert fields["X-Env-Layer-Name"] == "edge-fer"
    declared = {name for field in fields if (name := field.removeprefix("X-Env-Var-")).islower() and "-" not in name}
    hooks = yaml.safe_load(text)["mmdebstrap"]["customize-hooks"]
    assert set(re.findall(r"\$IGconf_edgefer_(\w+)", "\n".join(hooks))) == declared == {"release", "overlay"}
    assert all((FOLDER / name).is_file() for hook in hooks for name in re.findall(r"edge-fer/([\w-]+\.sh)", hook))
    assert all((IMAGE / "overlay" / name).is_dir() for name in ("etc/cloud", "etc/systemd"))


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_the_image_builder_says_what_it_can_do() -> None:
    assert subprocess.run(["bash", "-n", IMAGE / "build"], check=False).returncode == 0
    if os.getuid() == 0 and shutil.which("mmdebstrap"):
        done = subprocess.run([IMAGE / "build", "nothing"], capture_output=True, text=True, check=False)
        assert (done.returncode, "build disk IMAGE" in done.stderr) == (2, True)


def test_the_overlay_is_laid_over_a_system_as_it_is() -> None:
    files = {
        path.relative_to(IMAGE / "overlay").as_posix() for path in (IMAGE / "overlay").rglob("*") if path.is_file()
    }
    assert files == {
        "etc/fstab",
        "etc/cloud/cloud.cfg.d/99_edge-fer.cfg",
        "etc/systemd/journald.conf.d/edge-fer.conf",
        "etc/systemd/system.conf.d/edge-fer.conf",
        "etc/systemd/zram-generator.conf",
    }
    cloud = yaml.safe_load((IMAGE / "overlay" / "etc/cloud/cloud.cfg.d/99_edge-fer.cfg").read_text())
    assert cloud["datasource"]["NoCloud"]["seedfrom"] == "file:///boot/firmware"
