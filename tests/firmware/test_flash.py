"""flash.py as people start it: onto a mounted partition, an image, a disk; a fleet; and everything that it refuses."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from cards import CMDLINE, FIRMWARE, KEY, RASPBERRY, START, make_fat, make_folder, make_key, make_release

from card import cli, job, target
from card.errors import BAD_DATA, CANNOT_WRITE, DECLINED, INTERRUPTED, NO_INPUT, USAGE, FlashError, hidden
from card.fat import Fat
from edge_fer.address import printable as device_printable

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")

PASSWORD = """pass $word 'x' "y" \\ #!"""
NETWORK = "Café \"☕\" 🦆 \\ # '$x'"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a release, a login key, a password and an image of a system."""
    folder = tmp_path_factory.mktemp("parts")
    make_release(folder / "edge-fer", make_key(folder))
    (folder / "id.pub").write_text(f"{KEY}\n")
    (folder / "password").write_text(f"{PASSWORD}\n", encoding="utf-8")
    make_fat(folder / "raspios.img")
    return folder


class Flash:
    """Runs the command in this process; the terminal's two ends are held apart."""

    def __init__(self, parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.parts, self._capsys = parts, capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object, **options: object) -> int:
        words = ["write", *map(str, arguments)]
        for name, value in {"key": self.parts / "id.pub", "release": self.parts / "edge-fer", **options}.items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}", str(value)]
        code = cli.main(words)
        self.out, self.err = self._capsys.readouterr()
        return code

    def refused(self, code: int, *arguments: object, **options: object) -> str:
        """The one sentence with which something is refused."""
        assert self("--yes", *arguments, **options) == code, self.out + self.err
        (line,) = self.err.splitlines()
        assert line.startswith("flash.py: ")
        assert line.endswith((".", "?"))
        return line


@pytest.fixture
def flash(parts: Path, capsys: pytest.CaptureFixture[str]) -> Flash:
    return Flash(parts, capsys)


@pytest.fixture
def bootfs(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "bootfs")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def image_files(path: Path, names: list[str]) -> dict[str, bytes]:
    fat = Fat(io.BytesIO(path.read_bytes()), START)
    return {name: fat.read(name) for name in names}


def on_card(read: Any) -> dict[str, Any]:
    """What a card says about its board."""
    user, network, meta = (yaml.safe_load(read(name)) for name in ("user-data", "network-config", "meta-data"))
    secrets = {item["path"].rpartition("/")[2]: item["content"] for item in user["write_files"]}
    camera = tomllib.loads(read("edge-fer/edge-fer.toml"))["camera"]["source"]
    wifi = network["network"].get("wifis", {}).get("wlan0", {})
    return {**user, **meta, **secrets, "camera": camera, "wifi": wifi, "cmdline": read("cmdline.txt")}


def of_image(path: Path) -> dict[str, Any]:
    fat = Fat(io.BytesIO(path.read_bytes()), START)
    return on_card(lambda name: fat.read(name).decode())


def of_folder(path: Path) -> dict[str, Any]:
    return on_card(lambda name: (path / name).read_text(encoding="utf-8"))


# Where to


def test_a_mounted_boot_partition_gets_all(flash: Flash, parts: Path, bootfs: Path) -> None:
    before = snapshot(bootfs)
    wifi = {"wifi": NETWORK, "wifi_password_file": parts / "password", "country": "NO"}
    assert flash(bootfs, "--yes", hostname="kitchen", camera="picamera:0", **wifi) == 0, flash.err
    card = of_folder(bootfs)
    assert card["hostname"] == card["local-hostname"] == "kitchen"
    assert card["user"]["ssh_authorized_keys"] == [KEY]
    assert card["wifi"]["access-points"] == {NETWORK: {"mode": "infrastructure", "password": PASSWORD}}
    assert card["wifi"]["regulatory-domain"] == "NO"  # Norway, which YAML would read as false
    assert card["cmdline"] == CMDLINE.strip() + " cfg80211.ieee80211_regdom=NO\n"
    assert card["camera"] == "picamera:0"
    assert len(card["web-token"]) >= 32
    after = snapshot(bootfs)
    changed = {"user-data", "network-config", "meta-data", "cmdline.txt", "config.txt"}
    assert {name for name in before if after[name] != before[name]} == changed
    assert {name for name in after.keys() - before.keys() if not name.startswith("edge-fer/")} == set()
    release = snapshot(parts / "edge-fer")
    differing = {name for name in release if after[f"edge-fer/{name}"] != release[name]}
    assert differing == {"edge-fer.toml"}


def test_what_the_board_will_check_is_on_the_card(flash: Flash, bootfs: Path) -> None:
    assert flash(bootfs, "--yes", hostname="kitchen") == 0
    command = ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"]
    assert subprocess.run(command, cwd=bootfs / "edge-fer", check=False).returncode == 0


def test_a_second_time_replaces_the_release_and_begins_a_new_first_boot(flash: Flash, bootfs: Path) -> None:
    assert flash(bootfs, "--yes", hostname="kitchen") == 0
    first = of_folder(bootfs)
    (bootfs / "edge-fer" / "wheels" / "old.whl").touch()
    (bootfs / "edge-fer-status.txt").write_text("by the board")
    assert flash(bootfs, "--yes", hostname="hall") == 0
    second = of_folder(bootfs)
    assert second["hostname"] == "hall"
    assert first["instance-id"] != second["instance-id"]
    assert first["web-token"] != second["web-token"]
    assert not (bootfs / "edge-fer" / "wheels" / "old.whl").exists()
    assert (bootfs / "edge-fer-status.txt").exists()
    assert (bootfs / "config.txt").read_text().count("dtparam=watchdog=on") == 1


@pytest.mark.parametrize("packed", [".img", ".img.xz", ".img.gz", ".zip"])
def test_an_image_is_unpacked_written_and_filled_in(flash: Flash, parts: Path, tmp_path: Path, packed: str) -> None:
    content = (parts / "raspios.img").read_bytes()
    source = tmp_path / f"raspios{packed}"
    if packed == ".zip":
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("raspios.img", content)
    else:
        pack = {".img": bytes, ".img.xz": lambda data: lzma.compress(data, preset=0), ".img.gz": gzip.compress}[packed]
        source.write_bytes(pack(content))
    made = tmp_path / "cards" / "kitchen.img"
    assert flash(made, "--yes", hostname="kitchen", image=source) == 0, flash.err
    assert of_image(made)["hostname"] == "kitchen"
    assert image_files(made, ["kernel8.img"])["kernel8.img"] == RASPBERRY["kernel8.img"]
    assert made.stat().st_size == len(content)
    assert [path.name for path in made.parent.iterdir()] == ["kitchen.img"]


def test_an_image_that_is_there_is_changed_in_place(flash: Flash, tmp_path: Path) -> None:
    card = make_fat(tmp_path / "card.img", bits=32, megabytes=36)
    assert flash(card, "--yes", hostname="kitchen") == 0, flash.err
    assert of_image(card)["hostname"] == "kitchen"


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that passes for a disk of 32 MB."""
    path = tmp_path / "sdz"
    path.write_bytes(b"\xa5" * 32_000_000)
    monkeypatch.setattr(job, "is_device", lambda one: one == path)
    monkeypatch.setattr(job, "device_size", lambda one, *, yes_really: 32_000_000)
    return path


def test_a_disk_gets_the_system_and_the_settings(flash: Flash, parts: Path, disk: Path) -> None:
    assert flash(disk, "--yes", hostname="kitchen", image=parts / "raspios.img") == 0, flash.err
    assert of_image(disk)["hostname"] == "kitchen"
    size = (parts / "raspios.img").stat().st_size
    assert disk.read_bytes()[size:] == b"\xa5" * (32_000_000 - size)
    assert flash(disk, "--yes", hostname="hall") == 0, flash.err  # the card is written already
    assert of_image(disk)["hostname"] == "hall"


def test_a_disk_that_is_too_small_is_left_alone(
    flash: Flash, parts: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "device_size", lambda one, *, yes_really: 8_000_000)
    assert "too small" in flash.refused(CANNOT_WRITE, disk, hostname="kitchen", image=parts / "raspios.img")
    assert disk.read_bytes() == b"\xa5" * 32_000_000


def test_a_disk_that_forgets_is_found_out(
    flash: Flash, parts: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forged cards take everything and keep part of it."""

    class Forged(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() < 12_000_000:
                return super().write(data) or 0
            return self.seek(len(data), 1) and len(data)

    monkeypatch.setattr(job, "_opened", lambda path, mode: Forged(path, "r+"))
    assert "broken" in flash.refused(CANNOT_WRITE, disk, hostname="kitchen", image=parts / "raspios.img")


def test_a_disk_that_is_taken_out_holds_no_half_system(
    flash: Flash, parts: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TakenOut(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 12_000_000:
                raise OSError(5, "Input/output error")
            return super().write(data) or 0

    monkeypatch.setattr(job, "_opened", lambda path, mode: TakenOut(path, "r+"))
    assert "holds no system now" in flash.refused(CANNOT_WRITE, disk, hostname="kitchen", image=parts / "raspios.img")
    assert disk.read_bytes()[: 1 << 20] == bytes(1 << 20)


# Which disks it writes to


class Computer:
    """What Linux says of a computer's disks, in a folder."""

    def __init__(self, root: Path) -> None:
        self.block, self.proc, self._root = root / "block", root / "proc", root
        (self.proc / "self").mkdir(parents=True)
        self.block.mkdir()
        self.mounts = ""

    def add(self, name: str, size: int, *, parts: int = 2, held: bool = False) -> None:
        disk = self._root / "devices" / name
        for number in range(parts + 1):
            folder = disk / f"{name}{number}" if number else disk
            (folder / "holders").mkdir(parents=True)
            (folder / "dev").write_text(f"8:{number}\n")
            (folder / "size").write_text(f"{size // 512}\n")
            if number:
                (folder / "partition").write_text(f"{number}\n")
                (self.block / folder.name).symlink_to(folder)
        if held:
            (disk / f"{name}1" / "holders" / "dm-0").mkdir()
        (self.block / name).symlink_to(disk)

    def size(self, name: str, mounted: str = "", *, swap: str = "", yes_really: bool = False) -> int:
        lines = ["24 1 99:9 / / rw shared:1 - ext4 /dev/root rw"]
        lines += [f"30 24 8:1 / {mounted} rw,relatime shared:5 - vfat /dev/sdb1 rw"] if mounted else []
        (self.proc / "self/mountinfo").write_text("\n".join(lines) + "\n")
        (self.proc / "swaps").write_text(f"Filename Type Size Used Priority\n{swap}\n")
        return target.device_size(Path("/dev") / name, yes_really=yes_really, sys_block=self.block, proc=self.proc)


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    return Computer(tmp_path)


def test_a_card_in_a_reader_may_be_written(computer: Computer) -> None:
    computer.add("sdb", 32 * 10**9)
    assert computer.size("sdb") == 32 * 10**9


@pytest.mark.parametrize(
    ("size", "mounted", "says"),
    [
        (32 * 10**9, "/media/me/bootfs", r"mounted \(/media/me/bootfs\)"),
        (513 * 10**9, "", "513.0 GB"),
        (10**12, "/media/x", "mounted"),
    ],
)
def test_a_mounted_or_large_disk_wants_to_be_named_twice(
    computer: Computer, size: int, mounted: str, says: str
) -> None:
    computer.add("sdb", size)
    with pytest.raises(FlashError, match=says) as caught:
        computer.size("sdb", mounted)
    assert caught.value.exit_code == USAGE
    assert "--yes-really" in str(caught.value)
    assert computer.size("sdb", mounted, yes_really=True) == size // 512 * 512


@pytest.mark.parametrize(
    "why", [{"mounted": "/"}, {"mounted": "/boot/efi"}, {"mounted": "/home"}, {"swap": "/dev/sdb2 partition 9 0 -2"}]
)
def test_the_disk_of_the_system_is_never_written(computer: Computer, why: dict[str, Any]) -> None:
    computer.add("sdb", 32 * 10**9)
    with pytest.raises(FlashError, match="own system"):
        computer.size("sdb", yes_really=True, **why)


def test_a_disk_under_an_encrypted_one_is_never_written(computer: Computer) -> None:
    computer.add("sdb", 32 * 10**9, held=True)
    with pytest.raises(FlashError, match="own system"):
        computer.size("sdb", yes_really=True)


@pytest.mark.parametrize(("name", "says"), [("sdb1", "is a partition"), ("sdc", "no disk"), ("sdd", "holds no card")])
def test_what_is_no_whole_disk_is_refused(computer: Computer, name: str, says: str) -> None:
    computer.add("sdb", 32 * 10**9)
    computer.add("sdd", 0, parts=0)
    with pytest.raises(FlashError, match=says):
        computer.size(name)


def test_on_other_systems_the_partition_is_asked_for(flash: Flash, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "/Volumes/bootfs" in flash.refused(USAGE, "/dev/disk4", hostname="kitchen")


# What is shown, and the question


def test_a_dry_run_shows_all_but_secrets_and_writes_nothing(flash: Flash, parts: Path, bootfs: Path) -> None:
    before = snapshot(bootfs)
    wifi = {"wifi": NETWORK, "wifi_password_file": parts / "password", "country": "GB"}
    assert flash(bootfs, "--dry-run", hostname="kitchen", **wifi) == 0
    assert "pass $word" not in flash.out
    assert flash.out.count('"***"') == 2  # password and token
    assert 'hostname: "kitchen"' in flash.out
    assert "me@laptop" in flash.out
    assert snapshot(bootfs) == before


SECRETS = ("S3cret", "hidden-token")


@pytest.mark.parametrize(
    ("camera", "shows"),
    [
        ("rtsp://admin:S3cret@10.0.0.7/live", "rtsp://10.0.0.7/..."),
        ("rtsp://admin:S3/?#@cret@cam.local:554/live", "rtsp://..."),
        ("http://cam/hidden-token/live?key=S3cret", "http://cam/..."),
        ("https://cam/?S3cret", "https://cam/..."),
        ("rtsp://S3cret@[fd00::7]:554", "rtsp://[fd00::7]:554"),
    ],
)
def test_an_address_is_shown_without_what_is_secret_in_it(flash: Flash, bootfs: Path, camera: str, shows: str) -> None:
    assert flash(bootfs, "--dry-run", hostname="kitchen", camera=camera, mqtt="mqtt://S3cret@broker") == 0, flash.err
    assert f"Camera   {shows}\n" in flash.out
    assert "MQTT     mqtt://broker\n" in flash.out
    assert not [secret for secret in SECRETS if secret in flash.out + flash.err]
    assert hidden(camera) == shows == device_printable(camera)  # as the board shows it


@pytest.mark.parametrize(
    "options",
    [
        {"camera": "rtsp ://admin:S3cret@cam"},
        {"camera": "rtsp://admin:S3 cret@cam"},
        {"camera": "admin:S3cret@cam/live"},
        {"camera": "rtsp://admin:S3cret@cam\n"},
        {"mqtt": "mqtt://fer:S3cret@broker"},
        {"mqtt": "mqtt://fer:S3/cret@broker"},
        {"mqtt": "mqqt://fer:S3cret@broker"},
        {"mqtt": "fer:S3 cret@broker"},
        {"mqtt": "mqtt://fer@broker?S3cret"},
        {"hostname": "mqtt://fer:S3cret@broker"},
        {"user": "mqtt://fer:S3cret@broker"},
        {"country": "mqtt://fer:S3cret@broker"},
        {"camra": "rtsp://admin:S3cret@cam/live"},
    ],
)  # fmt: skip
def test_a_refusal_tells_no_secret(flash: Flash, bootfs: Path, options: dict[str, str]) -> None:
    assert "S3" not in flash.refused(USAGE, bootfs, **{"hostname": "kitchen", **options})


@pytest.mark.parametrize(
    "content",
    [
        "rtsp://a:S3cret@cam,door\n",
        "hostname,token\na,S3cret\x07\n",
        "hostname,mqtt,mqtt_password\na,mqtt://u@b,S3cret\x07\n",
    ],
)
def test_a_wrong_fleet_tells_no_secret(flash: Flash, tmp_path: Path, content: str) -> None:
    (tmp_path / "fleet.csv").write_text(content)
    assert flash("--yes", tmp_path / "{hostname}.img", fleet=tmp_path / "fleet.csv") in (BAD_DATA, USAGE)
    assert "s3cret" not in (flash.out + flash.err).lower()  # names of columns are read in small letters


def in_terminal(parts: Path, arguments: list[object], answers: list[tuple[str, bytes]]) -> tuple[int, str]:
    """Start flash.py in a terminal of its own; type each answer when its question has been asked."""
    parent, child = pty.openpty()
    command = [sys.executable, FIRMWARE / "flash.py", "write", *arguments]
    command += ["--key", parts / "id.pub", "--release", parts / "edge-fer"]
    said = b""
    # A session of its own has no terminal but this: else the password would be asked for in that of the tests.
    with subprocess.Popen(
        list(map(str, command)), stdin=child, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        os.close(child)
        guard = threading.Timer(120, process.kill)
        guard.start()
        assert process.stdout
        for question, typed in answers:
            seen = len(said)
            while question.encode() not in said[seen:] and (byte := process.stdout.read(1)):
                said += byte
            os.write(parent, typed)
        said += process.stdout.read()
        guard.cancel()
    os.close(parent)
    return process.returncode, said.decode()


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"YES\n", 0), (b"\n", DECLINED), (b"n\n", DECLINED)])
def test_a_person_is_asked_and_only_a_yes_counts(parts: Path, bootfs: Path, answer: bytes, code: int) -> None:
    got, said = in_terminal(parts, [bootfs, "--hostname", "kitchen"], [("Write this? [y/N]", answer)])
    assert got == code, said
    assert (snapshot(bootfs) == RASPBERRY) == (code != 0)


def test_a_password_is_asked_for_and_not_shown(parts: Path, bootfs: Path) -> None:
    arguments = [bootfs, "--hostname", "kitchen", "--wifi", "home", "--country", "GB", "--yes"]
    _, said = in_terminal(parts, arguments, [("Password of home", b"s3cret word\n")])
    assert of_folder(bootfs)["wifi"]["access-points"] == {
        "home": {"mode": "infrastructure", "password": "s3cret word"}
    }, said
    assert "s3cret" not in said


def test_the_end_of_input_is_no_yes(parts: Path, bootfs: Path) -> None:
    code, said = in_terminal(parts, [bootfs, "--hostname", "kitchen"], [("Write this? [y/N]", b"\x04")])
    assert (code, said.splitlines()[-1]) == (INTERRUPTED, "flash.py: stopped.")
    assert snapshot(bootfs) == RASPBERRY


def test_a_card_that_is_pulled_out_is_said(flash: Flash, bootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(folder: target.Folder) -> int:
        raise OSError(5, "Input/output error", str(folder.path))

    monkeypatch.setattr(target.Folder, "free", gone)
    assert "still there?" in flash.refused(CANNOT_WRITE, bootfs, hostname="kitchen")
    assert snapshot(bootfs) == RASPBERRY


def test_nobody_to_ask_is_no_yes(flash: Flash, bootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    before = snapshot(bootfs)
    assert flash(bootfs, hostname="kitchen") == USAGE
    assert "--yes" in flash.err
    assert snapshot(bootfs) == before


# A fleet


def fleet_file(path: Path, rows: list[str], header: str = "hostname,wifi,wifi_password,country,camera") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_fifty_boards_each_with_its_own(flash: Flash, parts: Path, tmp_path: Path) -> None:
    rows = [
        f"door-{number},,,," if number % 2 else f"door-{number},net-{number},pass word-{number},DE,rpicam:0"
        for number in range(50)
    ]
    small = make_fat(tmp_path / "small.img", megabytes=5)
    made = tmp_path / "cards"
    fleet = fleet_file(tmp_path / "fleet.csv", rows)
    assert flash(made / "{hostname}.img", "--yes", fleet=fleet, image=small) == 0, flash.err
    cards = [of_image(made / f"door-{number}.img") for number in range(50)]
    assert len(list(made.iterdir())) == 50
    for name in ("hostname", "instance-id", "web-token"):
        assert len({card[name] for card in cards}) == 50, name
    assert cards[2]["wifi"]["access-points"] == {"net-2": {"mode": "infrastructure", "password": "pass word-2"}}
    assert (cards[2]["camera"], cards[3]["camera"], cards[3]["wifi"]) == ("rpicam:0", "0", {})


def test_cards_one_after_another(parts: Path, tmp_path: Path, bootfs: Path) -> None:
    fleet = fleet_file(tmp_path / "fleet.csv", ["a", "b", "c"], "hostname")
    answers = [("card for a", b"\n"), ("Write this?", b"y\n"), ("card for b", b"s\n")]
    answers += [("card for c", b"\n"), ("Write this?", b"y\n")]
    code, said = in_terminal(parts, [bootfs, "--fleet", fleet], answers)
    assert code == 0, said
    assert "a: written and read back" in said
    assert "b: written" not in said
    assert of_folder(bootfs)["hostname"] == "c"


def test_the_question_names_all_boards_that_it_is_about(parts: Path, tmp_path: Path) -> None:
    fleet = fleet_file(tmp_path / "fleet.csv", ["a", "b", "c"], "hostname")
    arguments = [tmp_path / "{hostname}.img", "--image", parts / "raspios.img", "--fleet", fleet]
    code, said = in_terminal(parts, arguments, [("Write this and the 2 others?", b"n\n")])
    assert code == DECLINED
    assert "2 more boards: b, c" in said
    assert not list(tmp_path.glob("*.img*"))


def test_a_fleet_without_a_terminal_needs_places_for_all(
    flash: Flash, tmp_path: Path, bootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    fleet = fleet_file(tmp_path / "fleet.csv", ["a", "b"], "hostname")
    assert "{hostname}" in flash.refused(USAGE, bootfs, fleet=fleet)


def test_one_bad_row_and_no_card_is_written(flash: Flash, parts: Path, tmp_path: Path) -> None:
    fleet = fleet_file(tmp_path / "fleet.csv", ["a,,,,", "b,,,,", "a,,,,"])
    made = tmp_path / "cards"
    said = flash.refused(BAD_DATA, made / "{hostname}.img", fleet=fleet, image=parts / "raspios.img")
    assert "row 4: hostname a is already in row 2" in said
    assert not made.exists()


# What it refuses, and leaves as it was


def without(*names: str, **more: bytes) -> dict[str, bytes]:
    return {name: content for name, content in {**RASPBERRY, **more}.items() if name not in names}


OTHERS = {
    "a stick with photos": ({"IMG_1.jpg": b""}, "no boot partition of a Raspberry Pi"),
    "Ubuntu": (without("issue.txt", vmlinuz=b""), "another system"),
    "Bookworm": (without("user-data", "meta-data"), "without cloud-init"),
    "32-bit": ({**RASPBERRY, "kernel7.img": b""}, "32-bit"),
    "a broken cmdline.txt": ({**RASPBERRY, "cmdline.txt": b"console=tty1\nroot=x\n"}, "cmdline.txt"),
}


@pytest.mark.parametrize("system", OTHERS)
def test_the_boot_partition_of_another_system_is_refused(flash: Flash, tmp_path: Path, system: str) -> None:
    files, says = OTHERS[system]
    folder = make_folder(tmp_path / "other", files)
    before = snapshot(folder)
    assert says in flash.refused(BAD_DATA, folder, hostname="kitchen")
    assert snapshot(folder) == before
    image = make_fat(tmp_path / "other.img", files=files)
    content = image.read_bytes()
    assert says in flash.refused(BAD_DATA, image, hostname="kitchen")
    assert says in flash.refused(BAD_DATA, tmp_path / "new.img", hostname="kitchen", image=image)
    assert image.read_bytes() == content
    assert not list(tmp_path.glob("new.img*"))


def test_a_full_card_is_refused_and_stays_as_it_was(
    flash: Flash, tmp_path: Path, bootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_fat(tmp_path / "card.img", megabytes=9, files={**RASPBERRY, "filler": bytes(9_300_000)})
    content = image.read_bytes()
    assert "full" in flash.refused(CANNOT_WRITE, image, hostname="kitchen")
    assert image.read_bytes() == content
    monkeypatch.setattr(target.Folder, "free", lambda self: 1000)
    before = snapshot(bootfs)
    assert "full" in flash.refused(CANNOT_WRITE, bootfs, hostname="kitchen")
    assert snapshot(bootfs) == before


def test_a_card_that_fails_while_it_is_written_keeps_what_it_had(
    flash: Flash, bootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(bootfs)
    written: list[int] = []

    def fails(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 8:
            raise OSError(30, "Read-only file system")

    monkeypatch.setattr(target.os, "fsync", fails)
    assert "locked" in flash.refused(CANNOT_WRITE, bootfs, hostname="kitchen")
    assert snapshot(bootfs) == before


@pytest.mark.parametrize(
    "name", ["wheels/edge_fer-1.2.0-py3-none-any.whl", "install.sh", "first-boot.sh", "allowed_signers"]
)
def test_a_tampered_release_is_refused(flash: Flash, parts: Path, tmp_path: Path, bootfs: Path, name: str) -> None:
    release = tmp_path / "edge-fer"
    shutil.copytree(parts / "edge-fer", release)
    with (release / name).open("a") as file:
        file.write(" ")
    before = snapshot(bootfs)
    assert f"{name} in " in flash.refused(BAD_DATA, bootfs, hostname="kitchen", release=release)
    assert snapshot(bootfs) == before


def test_a_wrong_signature_is_refused(flash: Flash, parts: Path, tmp_path: Path, bootfs: Path) -> None:
    release = tmp_path / "edge-fer"
    shutil.copytree(parts / "edge-fer", release)
    make_release(tmp_path / "other", make_key(tmp_path))
    shutil.copy(tmp_path / "other" / "SHA256SUMS.sig", release / "SHA256SUMS.sig")
    assert "signature" in flash.refused(BAD_DATA, bootfs, hostname="kitchen", release=release)
    assert snapshot(bootfs) == RASPBERRY


def test_half_a_release_is_refused(flash: Flash, parts: Path, tmp_path: Path, bootfs: Path) -> None:
    release = tmp_path / "edge-fer"
    shutil.copytree(parts / "edge-fer", release)
    (release / "wheels" / "pip-26.2.1-py3-none-any.whl").unlink()
    assert "no whole release" in flash.refused(NO_INPUT, bootfs, hostname="kitchen", release=release)
    assert "SHA256SUMS" in flash.refused(NO_INPUT, bootfs, hostname="kitchen", release=FIRMWARE)
    make_release(tmp_path / "bookworm", make_key(tmp_path), codename="bookworm")
    assert "trixie" in flash.refused(USAGE, bootfs, hostname="kitchen", release=tmp_path / "bookworm")
    assert snapshot(bootfs) == RASPBERRY


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ({}, USAGE, "needs a hostname"),
        ({"hostname": "Küche"}, USAGE, "RFC 1123"),
        ({"hostname": "a-"}, USAGE, "RFC 1123"),
        ({"hostname": "a" * 64}, USAGE, "RFC 1123"),
        ({"user": "root"}, USAGE, "user root"),
        ({"user": "Me"}, USAGE, "user Me"),
        ({"wifi": "home"}, USAGE, "needs the country"),
        ({"wifi": "home", "country": "XX"}, USAGE, "two letters"),
        ({"wifi": "home", "country": "UK"}, USAGE, "did you mean GB?"),
        ({"wifi": "home", "country": "de"}, USAGE, "did you mean DE?"),
        ({"country": "XX"}, USAGE, "country XX"),
        ({"wifi": "🦆" * 9, "country": "DE"}, USAGE, "32 bytes"),
        ({"wifi": "ho\nme", "country": "DE"}, USAGE, r"ho\nme"),
        ({"wifi": "\x1b[31mred", "country": "DE"}, USAGE, r"\x1b[31mred"),
        ({"camera": "picam"}, USAGE, "picamera:0"),
        ({"mqtt": "broker"}, USAGE, "mqtt://USER@HOST"),
        ({"mqtt": "mqtt://a:b@host"}, USAGE, "mqtt_password"),
        ({"mqtt": "mqtt://host:x"}, USAGE, "mqtt://USER@HOST"),
        ({"mqtt": "mqtt://fer@broker/a/#"}, USAGE, "neither +, # nor ?"),
        ({"mqtt": "mqtt://fer@broker/{host}"}, USAGE, "{device} alone"),
        ({"mqtt": "mqtt://fer@broker/a//b"}, USAGE, "levels with a /"),
        ({"mqtt": "mqtt://host", "mqtt_password_file": "-"}, USAGE, "no user"),
        ({"token_file": "-"}, USAGE, "too easy to guess"),
        ({"key": "/nowhere/id.pub"}, NO_INPUT, "No such file"),
        ({"image": "/nowhere.img"}, NO_INPUT, "No such file"),
        ({"fleet": "/nowhere.csv", "hostname": None}, NO_INPUT, "No such file"),
        ({"wifi_password_file": "/nowhere"}, NO_INPUT, "No such file"),
        ({"surprise": "x"}, USAGE, "unrecognized"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_said(
    flash: Flash, bootfs: Path, options: dict[str, Any], code: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    values = {**({"hostname": "kitchen"} if options else {}), **options}
    assert says in flash.refused(code, bootfs, **values)
    assert snapshot(bootfs) == RASPBERRY


@pytest.mark.parametrize(
    ("password", "says"),
    [("short", "8 to 63"), ("x" * 65, "8 to 63"), ("pässword", "ASCII"), ("tab\tbed word", "control")],
)
def test_a_password_that_no_network_has_is_said(
    flash: Flash, tmp_path: Path, bootfs: Path, password: str, says: str
) -> None:
    (tmp_path / "password").write_text(password, encoding="utf-8")
    options = {"wifi": "home", "country": "DE", "wifi_password_file": tmp_path / "password"}
    said = flash.refused(USAGE, bootfs, hostname="kitchen", **options)
    assert says in said
    assert snapshot(bootfs) == RASPBERRY


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n", "private key"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA\n", "no whole public"),
        (KEY.replace("ssh-ed25519 ", "ssh-rsa "), "no whole public"),
        ("\n# nothing\n", "no public SSH key"),
        ("\x00\xff", "no"),
    ],
)
def test_a_key_that_lets_nobody_in_is_said(flash: Flash, tmp_path: Path, bootfs: Path, text: str, says: str) -> None:
    (tmp_path / "id.pub").write_bytes(text.encode("latin-1"))
    assert says in flash.refused(BAD_DATA, bootfs, hostname="kitchen", key=tmp_path / "id.pub")
    assert snapshot(bootfs) == RASPBERRY


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "must name the columns"),
        (b"name\nx\n", "unknown column name"),
        (b"host\nx\n", "did you mean hostname?"),
        (b"wifi,country\nx,DE\n", "hostname among them"),
        (b"hostname,hostname\nx,y\n", "each once"),
        (b"hostname\n", "names no board"),
        (b"hostname,user\nx\n", "row 2: 1 cells under 2"),
        (b"hostname,token\na,0123456789abcdef\nb,0123456789abcdef\n", "row 3: this token is already in row 2"),
        (b"hostname,user\na,\nb,Me\n", "row 3: user Me"),
        (b'hostname\n"a\n', "no CSV"),
        (b"hostname\n\xff\xfe\xe9\n", "UTF-8"),
    ],
)
def test_a_wrong_fleet_is_said(flash: Flash, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "fleet.csv").write_bytes(content)
    said = flash("--yes", tmp_path / "{hostname}.img", fleet=tmp_path / "fleet.csv")
    assert said in (BAD_DATA, USAGE)
    assert says in flash.err
    assert len(flash.err.splitlines()) == 1
    assert not list(tmp_path.glob("*.img"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_fleet_as_spreadsheets_write_it(flash: Flash, parts: Path, tmp_path: Path, encoding: str) -> None:
    text = 'Hostname;Wifi;wifi_password;country\r\nkitchen;"Café; ""5G""";pass,word 1;DE\r\n;;;\r\n'
    (tmp_path / "fleet.csv").write_bytes(text.encode(encoding))
    made = tmp_path / "{hostname}.img"
    assert flash(made, "--yes", fleet=tmp_path / "fleet.csv", image=parts / "raspios.img") == 0, flash.err
    assert of_image(tmp_path / "kitchen.img")["wifi"]["access-points"] == {
        'Café; "5G"': {"mode": "infrastructure", "password": "pass,word 1"}
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.img.xz", b"no xz"),
        ("a.img.gz", b"no gz"),
        ("a.zip", b"no zip"),
        ("a.img", b""),
        ("b.img.xz", lzma.compress(bytes(99999))[:-9]),
    ],
)
def test_a_damaged_download_is_said_before_anything_is_written(
    flash: Flash, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert "anew" in flash.refused(BAD_DATA, tmp_path / "card.img", hostname="kitchen", image=tmp_path / name)
    assert not (tmp_path / "card.img").exists()


def test_a_target_that_is_not_there_is_said(flash: Flash, tmp_path: Path, parts: Path, bootfs: Path) -> None:
    assert "is not there" in flash.refused(NO_INPUT, tmp_path / "none", hostname="kitchen")
    assert "is a folder" in flash.refused(USAGE, bootfs, hostname="kitchen", image=parts / "raspios.img")


# Raspberry Pi Imager


def test_the_manifest_says_what_imager_asks(tmp_path: Path, parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    content = (parts / "raspios.img").read_bytes()
    (tmp_path / "edge-fer.img.xz").write_bytes(lzma.compress(content, preset=0))
    assert cli.main(["manifest", str(tmp_path / "edge-fer.img.xz")]) == 0
    (entry,) = json.loads((tmp_path / "edge-fer.img.xz.rpi-imager-manifest").read_text())["os_list"]
    # What doc/json-schema/os-list-schema.json of Imager requires, and what makes it offer customization.
    assert {
        "name",
        "description",
        "icon",
        "url",
        "extract_size",
        "extract_sha256",
        "image_download_size",
        "release_date",
    } <= entry.keys()
    assert entry["extract_sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["extract_size"] == len(content)
    assert entry["image_download_size"] == (tmp_path / "edge-fer.img.xz").stat().st_size
    assert entry["init_format"] == "cloudinit-rpi"
    assert entry["url"] == (tmp_path / "edge-fer.img.xz").as_uri()


def test_an_image_that_is_not_there_gets_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["manifest", str(tmp_path / "none.img.xz")]) == NO_INPUT
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["help", "docs/flash.md"])
def test_commands_that_people_are_told_exist(text: str) -> None:
    told = cli._EXAMPLES if text == "help" else (FIRMWARE.parent / text).read_text(encoding="utf-8")
    commands = re.findall(r"(?m)^.*?\bflash\.py ((?:write|manifest) [^`\n]+)", told)
    assert len(commands) >= 5
    for command in commands:
        assert callable(cli._parser().parse_args(shlex.split(command, comments=True)).act)


def test_the_key_of_the_person_is_found_with_sudo_too(
    flash: Flash, bootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ecdsa.pub").write_text(KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert flash(bootfs, "--yes", hostname="kitchen", key=None) == 0, flash.err
    monkeypatch.setenv("HOME", "/nowhere")
    assert "without it nobody can" in flash.refused(USAGE, bootfs, hostname="kitchen", key=None)
    monkeypatch.setenv("SUDO_USER", "root")
    assert Path("~root").expanduser() == cli._home()


def test_help_names_every_verb() -> None:
    done = subprocess.run([sys.executable, FIRMWARE / "flash.py", "--help"], capture_output=True, text=True, check=True)
    assert "manifest" in done.stdout
    assert "write" in done.stdout


def test_it_is_python_of_every_laptop() -> None:
    """Python 3.9, and its standard library alone."""
    import ast

    for path in [FIRMWARE / "flash.py", *(FIRMWARE / "card").glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert {str(name).split(".")[0] for name in names} <= {*sys.stdlib_module_names, "card"}, path
