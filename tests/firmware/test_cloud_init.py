"""What cloud-init and netplan read on a card: filled in for a board, and held against what reads it on the board."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from cards import CMDLINE, CONFIG, FIRMWARE, KEY, board
from hypothesis import given
from hypothesis import strategies as st

from card.board import COUNTRIES
from card.errors import FlashError
from card.seed import TEMPLATES, edit_cmdline, edit_config, edit_toml, fill, quoted

CLOUD_INIT = FIRMWARE.parent / ".models/cloud-init/usr/lib/python3/dist-packages"
needs_cloud_init = pytest.mark.skipif(
    not (CLOUD_INIT.exists() and shutil.which("cloud-init")),
    reason="no cloud-init 25.1: apt-get install cloud-init, then .ci/cloud-init",
)
needs_netplan = pytest.mark.skipif(not shutil.which("netplan"), reason="netplan is not installed")

BARE = {"hostname": "kitchen", "user": "pi", "keys": (KEY,), "token": "t0ken", "instance_id": "edge-fer-kitchen-1"}
FULL = {
    "mqtt_password": "pa$$ 'w' \"d\" \\ #",
    **{"wifi": "Café \"☕\" 🦆 \\ # '$x'", "wifi_password": "pass $word 'x' \"y\" \\ #!"},
    **{"country": "NO", "keys": (KEY, KEY.replace("me@laptop", "you @ home: #2"))},
}  # fmt: skip


def filled(name: str, **values: Any) -> str:
    empty: dict[str, Any] = {"mqtt_password": "", "wifi": "", "wifi_password": "", "country": ""}
    return fill((FIRMWARE / name).read_text(encoding="utf-8"), {**empty, **BARE, **values})


def loaded(name: str, **values: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(filled(name, **values))
    return content


# What is filled in


def test_user_data_of_a_board() -> None:
    data = loaded("user-data", **FULL)
    assert filled("user-data").startswith("#cloud-config\n")
    assert data["hostname"] == "kitchen"
    # `users:` with groups would take the groups of Raspberry Pi OS' first user away.
    assert "users" not in data
    assert set(data["user"]) == {"name", "lock_passwd", "sudo", "ssh_authorized_keys"}
    assert data["user"]["ssh_authorized_keys"] == list(FULL["keys"])
    assert data["apt"] == {"conf": 'Acquire::Check-Date "false";'}
    # runcmd belongs to cloud-final, which waits for multi-user.target.
    assert "runcmd" not in data
    assert [command[:2] for command in data["bootcmd"]] == [["cloud-init-per", "instance"]] * 3
    assert data["bootcmd"][0][3:] == ["systemctl", "mask", "userconfig.service"]
    assert data["bootcmd"][-1][-1] == "/boot/firmware/edge-fer/first-boot.sh"
    assert (FIRMWARE / "first-boot.sh").is_file()
    swap, *files = data["write_files"]
    assert swap == {"path": "/etc/rpi/swap.conf.d/90-edge-fer.conf", "content": "[Main]\nMechanism=zram\n"}
    secrets = {item["path"]: (item["content"], item["permissions"]) for item in files}
    assert secrets == {
        "/etc/edge-fer/web-token": ("t0ken", "0600"),
        "/etc/edge-fer/mqtt-password": (FULL["mqtt_password"], "0600"),
    }


def test_what_a_board_has_not_is_left_out() -> None:
    assert [item["path"] for item in loaded("user-data")["write_files"][1:]] == ["/etc/edge-fer/web-token"]
    assert set(loaded("network-config")["network"]) == {"version", "ethernets"}


def test_network_of_a_board() -> None:
    network = loaded("network-config", **FULL)["network"]
    assert network["version"] == 2
    assert network["ethernets"]["eth0"] == {"dhcp4": True, "optional": True}
    wifi = network["wifis"]["wlan0"]
    assert wifi["access-points"] == {FULL["wifi"]: {"mode": "infrastructure", "password": FULL["wifi_password"]}}
    assert wifi["regulatory-domain"] == "NO"  # unquoted, YAML reads Norway as false
    assert "optional" not in wifi


def test_an_open_network_has_no_password() -> None:
    network = loaded("network-config", wifi="café", country="FR")["network"]
    assert network["wifis"]["wlan0"]["access-points"] == {"café": {"mode": "infrastructure"}}


def test_meta_data_has_the_key_that_nocloud_reads() -> None:
    meta = loaded("meta-data")
    assert meta == {"dsmode": "local", "instance-id": "edge-fer-kitchen-1", "local-hostname": "kitchen"}


@given(text=st.text(max_size=40))
def test_any_text_comes_back_from_yaml_and_toml(text: str) -> None:
    assert yaml.safe_load(quoted(text)) == text
    assert tomllib.loads(f"x = {quoted(text)}")["x"] == text


def test_templates_hold_placeholders_and_no_secrets() -> None:
    for name in TEMPLATES:
        text = (FIRMWARE / name).read_text(encoding="utf-8")
        assert isinstance(yaml.safe_load(text), dict)
        assert set(re.findall(r'"@(\w+)@"', text)) <= BARE.keys() | FULL.keys(), name
        assert not re.search(r"AAAA[\w+/]{20}|\$[156y]\$|PRIVATE KEY", text), name


# What is changed


def test_cmdline_gets_the_country_once() -> None:
    once = edit_cmdline(CMDLINE, board(country="DE", wifi="x"))
    assert once == CMDLINE.strip() + " cfg80211.ieee80211_regdom=DE\n"
    assert edit_cmdline(once, board(country="FR", wifi="x")).split() == [
        *CMDLINE.split(),
        "cfg80211.ieee80211_regdom=FR",
    ]
    assert edit_cmdline(CMDLINE, board()) == CMDLINE


def test_an_instance_id_of_imager_gives_way() -> None:
    """NoCloud takes that of the kernel's command line before meta-data: the first boot would not be gone through."""
    cmdline = CMDLINE.strip() + " ds=nocloud;i=rpi-imager-1787532598498 quiet"
    assert edit_cmdline(cmdline, board()).split()[-2:] == ["ds=nocloud;i=edge-fer-kitchen-1", "quiet"]
    other = edit_cmdline(CMDLINE.strip() + " ds=nocloud;s=file:///boot/;i=a;h=b", board()).split()[-1]
    assert other == "ds=nocloud;s=file:///boot/;i=edge-fer-kitchen-1;h=b"


@pytest.mark.parametrize("text", ["", "console=tty1\n", "root=x\nconsole=tty1\n", "\n\n"])
def test_a_cmdline_that_would_not_boot_is_refused(text: str) -> None:
    with pytest.raises(FlashError, match=r"cmdline\.txt"):
        edit_cmdline(text, board())


def test_config_gets_what_it_lacks_and_nothing_twice() -> None:
    wanted = (FIRMWARE / "config.txt").read_text(encoding="utf-8")
    changed = edit_config(CONFIG, wanted)
    assert changed == f"{CONFIG.rstrip()}\n\n[all]\n# edge-fer\ndtparam=watchdog=on\n"
    assert edit_config(changed, wanted) == changed
    # What somebody has decided stays.
    mine = "camera_auto_detect=0\ndtoverlay=imx290\ndtparam=watchdog=off\n"
    assert edit_config(mine, wanted) == mine


@given(camera=st.text(min_size=1, max_size=30))
def test_the_camera_is_set_and_all_else_stays(camera: str) -> None:
    text = (FIRMWARE / "edge-fer.toml").read_text(encoding="utf-8")
    before, after = tomllib.loads(text), tomllib.loads(edit_toml(text, board(camera=camera)))
    assert after["camera"].pop("source") == camera
    del before["camera"]["source"]
    assert after == before


def test_a_broker_is_one_more_output_of_a_release_that_knows_it() -> None:
    text = (FIRMWARE / "edge-fer.toml").read_text(encoding="utf-8")
    with pytest.raises(FlashError, match="does not send to MQTT"):
        edit_toml(text.replace("mqtt://", ""), board(mqtt="mqtt://fer@broker"))
    changed = edit_toml(text, board(mqtt="mqtt://fer@broker"))
    assert tomllib.loads(changed)["outputs"] == ["terminal", "mqtt://fer@broker"]


def test_a_configuration_without_the_key_is_refused() -> None:
    with pytest.raises(FlashError, match=r"no camera\.source"):
        edit_toml('name = ""\n', board(camera="0"))


# What reads it on the board


def cloud_init(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Debian's Python runs cloud-init 25.1, with the packages of its own."""
    command = ["/usr/bin/python3", *map(str, arguments)]
    return subprocess.run(command, env={"PYTHONPATH": str(CLOUD_INIT)}, capture_output=True, text=True, check=False)


@needs_cloud_init
@pytest.mark.parametrize("values", [{}, FULL])
def test_cloud_init_accepts_user_data(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "user-data").write_text(filled("user-data", **values), encoding="utf-8")
    done = cloud_init("-m", "cloudinit.cmd.main", "schema", "--config-file", tmp_path / "user-data")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid schema" in done.stdout
    assert "deprecated" not in done.stdout + done.stderr


@needs_cloud_init
def test_the_setup_finds_the_secrets_and_waits_for_no_network() -> None:
    """bootcmd, which starts it, comes first in its stage, the secrets of write_files after it."""
    root = CLOUD_INIT.parents[3]
    modules = yaml.safe_load((root / "etc/cloud/cloud.cfg").read_text(encoding="utf-8"))["cloud_init_modules"]
    assert modules.index("bootcmd") < modules.index("write-files")
    setup = (FIRMWARE / "edge-fer-setup.service").read_text(encoding="utf-8")
    for stage in ("local", "network"):  # both run cloud_init_modules, the first where meta-data says dsmode: local
        assert f"cloud-init-{stage}.service" in setup
        unit = (root / f"usr/lib/systemd/system/cloud-init-{stage}.service").read_text(encoding="utf-8")
        # What every service waits for: so this one is held up by nothing more than before.
        assert "Before=sysinit.target\n" in unit


GROUPS = """
import json, sys
from cloudinit import distros, helpers
from cloudinit.distros import ug_util
default = {"name": "pi", "groups": ["video", "render", "gpio"], "shell": "/bin/bash"}
system = {"distro": "debian", "default_user": default}
distro = distros.fetch("debian")("debian", system, helpers.Paths({}))
config = {"users": ["default"], **json.load(sys.stdin)}
users, _ = ug_util.normalize_users_groups(config, distro)
print(json.dumps(users))
"""


@needs_cloud_init
def test_the_user_keeps_the_groups_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "groups.py").write_text(GROUPS)
    command = ["/usr/bin/python3", tmp_path / "groups.py"]
    data = json.dumps({"user": loaded("user-data", user="me")["user"]})
    done = subprocess.run(
        command, env={"PYTHONPATH": str(CLOUD_INIT)}, input=data, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (user,) = json.loads(done.stdout).items()
    assert user[0] == "me"
    assert set(user[1]["groups"].split(",")) == {"video", "render", "gpio"}
    assert user[1]["shell"] == "/bin/bash"
    assert user[1]["sudo"] == "ALL=(ALL) NOPASSWD:ALL"


@needs_netplan
@pytest.mark.parametrize("values", [{}, FULL, {"wifi": "open one", "country": "DE"}, {**FULL, "wifi": "日本語 ; 1;2"}])
def test_netplan_makes_of_it_what_networkmanager_reads(tmp_path: Path, values: dict[str, Any]) -> None:
    """As Raspberry Pi OS does: netplan with NetworkManager as its renderer."""
    (tmp_path / "etc/netplan").mkdir(parents=True)
    config = tmp_path / "etc/netplan/50-cloud-init.yaml"
    config.write_text(filled("network-config", **values) + "  renderer: NetworkManager\n", encoding="utf-8")
    config.chmod(0o600)
    done = subprocess.run(["netplan", "generate", "--root-dir", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    profiles = [
        path.read_text(encoding="utf-8") for path in tmp_path.glob("run/NetworkManager/system-connections/*wlan0*")
    ]
    assert len(profiles) == bool(values)
    for profile in profiles:
        # A keyfile writes backslashes twice (GLib, g_key_file_set_string).
        assert f"ssid={values['wifi']}".replace("\\", "\\\\") in profile.splitlines()
        if "wifi_password" in values:
            assert f"psk={values['wifi_password']}".replace("\\", "\\\\") in profile.splitlines()
        else:
            assert "psk=" not in profile


def test_countries_are_those_of_the_kernels_database() -> None:
    assert {"GB", "DE", "US", "JP", "NO"} <= COUNTRIES
    assert "UK" not in COUNTRIES
    assert all(re.fullmatch("[A-Z]{2}", country) for country in COUNTRIES)
