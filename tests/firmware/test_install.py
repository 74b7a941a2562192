"""The release and its install.sh: signed and packed as in earnest, installed with stand-ins for a system's commands."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edge_fer.layers import load_settings

FOLDER = Path(__file__).parents[2] / "firmware_configs"
SPEC = importlib.util.spec_from_file_location("release", FOLDER / "release.py")
assert SPEC and SPEC.loader
release = importlib.util.module_from_spec(SPEC)
sys.modules["release"] = release
SPEC.loader.exec_module(release)

TRIXIE, BOOKWORM = release.SYSTEMS

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")


def make_key(folder: Path) -> Path:
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
    return key


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("key"))


def make_release(folder: Path, key: Path, version: str = "1.2.0", system: object = TRIXIE) -> Path:
    """A release whose wheels are empty but for their names."""
    (folder / "wheels").mkdir(parents=True)
    for name in (f"edge_fer-{version}", "numpy-2.4.6", "pip-26.2.1"):
        (folder / "wheels" / f"{name}-py3-none-any.whl").write_text(name)
    release.fill(folder, system, version)
    release.sign(folder, key)
    return folder


LOGGED = """#!/bin/sh
PATH=${PATH#*:}
name=$(basename "$0")
echo "$name $*" >> "$ROOT/log"
[ ! -e "$ROOT/cut" ] || [ "$(wc -l <"$ROOT/log")" -ne "$(cat "$ROOT/cut")" ] || { kill -9 $PPID; exit 1; }
"""
PASSES_ON = f'{LOGGED}exec "$name" "$@"\n'
CHANGES = ("mkdir", "cp", "chmod", "mv", "install", "ln", "rm", "touch")
STAND_IN = (
    LOGGED
    + """case "$name $1" in
    "id -u") echo 0 ;;
    "dpkg --print-architecture") cat "$ROOT/architecture" ;;
    "python3 -m")
        for venv; do :; done
        mkdir -p "$venv/bin"
        cp "$0" "$venv/bin/python"
        cp "$0" "$venv/bin/edge-fer" ;;
    "python3 -c") [ -e "$ROOT/picamera2" ] ;;
    "python3 -") exec "$PYTHON" "$@" ;;
    "apt-get"*) [ -e "$ROOT/network" ] ;;
    "edge-fer models") [ ! -e "$ROOT/bad-model" ] ;;
    "edge-fer service") : >"$ROOT/etc/configured" ;;
    "systemctl enable") : >"$ROOT/etc/enabled" ;;
    "systemctl restart") [ ! -e "$ROOT/bad-config" ] ;;
    "systemctl show")
        case "$3" in
            *ActiveState) cat "$ROOT/state" ;;
            *StatusText) echo "no camera: plug one in" ;;
        esac ;;
esac
"""
)


class Board:
    """A root folder with the system's commands replaced by ones that only write down that they were called."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.card = root / "boot" / "firmware" / "edge-fer"
        for folder in ("bin", "etc", "run/systemd/system", "leds/ACT"):
            (root / folder).mkdir(parents=True)
        for name in ("trigger", "delay_on", "delay_off"):
            (root / "leds" / "ACT" / name).touch()
        commands = ("id", "dpkg", "apt-get", "python3", "udevadm", "systemctl", "journalctl", "sync", "hostname")
        for name in commands:
            self.have(name)
        self.write("architecture", "arm64\n")
        self.write("state", "active\n")
        self.write("etc/os-release", 'ID=debian\nVERSION_CODENAME="trixie"\n')

    def have(self, command: str, script: str = STAND_IN) -> None:
        """The system has a command."""
        (self.root / "bin" / command).write_text(script)
        (self.root / "bin" / command).chmod(0o755)

    def write(self, name: str, text: str = "") -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def insert(self, folder: Path, camera: str = "0") -> None:
        """Put a release onto the card."""
        shutil.rmtree(self.card, ignore_errors=True)
        shutil.copytree(folder, self.card)
        toml = (self.card / "edge-fer.toml").read_text()
        (self.card / "edge-fer.toml").write_text(toml.replace('source = "0"', f'source = "{camera}"'))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the card, which sees this root for /opt, /etc, /run and the LED."""
        (self.root / "log").unlink(missing_ok=True)
        scripts = self.root / "scripts"
        scripts.mkdir(exist_ok=True)
        for name in ("install.sh", "first-boot.sh"):
            text = (self.card / name).read_text()
            text = re.sub(r"(?<![\w/.])/(opt|etc|run)/", rf"{self.root}/\1/", text)
            text = text.replace("/sys/class/leds", f"{self.root}/leds")
            # The script itself is signed, so another one stands in for it.
            text = text.replace('here=$(cd "$(dirname "$0")" && pwd)', f"here={self.card}")
            (scripts / name).write_text(text.replace("$here/install.sh", f"{scripts}/install.sh"))
        environment = {"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}", "ROOT": str(self.root)}
        environment["PYTHON"] = sys.executable
        name, *arguments = command
        return subprocess.run(
            ["sh", scripts / name, *arguments], env=environment, capture_output=True, text=True, check=False
        )

    def install(self) -> list[str]:
        """Run install.sh, which succeeds; the calls it made."""
        done = self.run("install.sh")
        assert done.returncode == 0, done.stderr
        return self.calls()

    def calls(self) -> list[str]:
        return (self.root / "log").read_text().splitlines()

    def refuses(self) -> tuple[int, str]:
        """Run install.sh, which does not install: exit code and the one sentence."""
        before = self.installed()
        done = self.run("install.sh")
        assert self.installed() == before
        assert not [call for call in self.calls() if call.startswith("systemctl")]
        (line,) = done.stderr.splitlines()
        return done.returncode, line

    def installed(self) -> list[str]:
        """All that is installed."""
        return sorted(str(path) for top in ("opt", "etc/edge-fer") for path in (self.root / top).rglob("*"))

    def tree(self) -> dict[str, bytes]:
        """All that an installation changes, with what is in it."""
        paths = [path for top in ("opt", "etc") for path in (self.root / top).rglob("*")]
        return {str(path): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
                for path in paths if path.is_symlink() or path.is_file()}  # fmt: skip

    def config(self) -> str:
        return (self.root / "etc" / "edge-fer" / "config.toml").read_text()


BUILDS = ("python3 -m", "python ")
"""Calls that make an environment."""


@pytest.fixture
def board(tmp_path: Path, key: Path) -> Board:
    """A board of Trixie with a release on its card."""
    board = Board(tmp_path / "root")
    board.insert(make_release(tmp_path / "release", key))
    return board


# The release


def test_pip_installs_what_the_release_names_by_hash_and_nothing_else(board: Board) -> None:
    wheels = board.card / "wheels"
    lines = (board.card / "requirements.txt").read_text().splitlines()
    assert lines == [
        f"edge-fer==1.2.0 --hash=sha256:{release.sha256(wheels / 'edge_fer-1.2.0-py3-none-any.whl')}",
        f"numpy==2.4.6 --hash=sha256:{release.sha256(wheels / 'numpy-2.4.6-py3-none-any.whl')}",
    ]
    assert (board.card / "requirements-picamera2.txt").read_text().splitlines() == lines[:1]


def test_all_is_signed_but_what_people_fill_in(board: Board) -> None:
    signed = {line.split("  ")[1] for line in (board.card / "SHA256SUMS").read_text().splitlines()}
    files = {path.relative_to(board.card).as_posix() for path in board.card.rglob("*") if path.is_file()}
    assert files - signed - release.FILLED_IN == {"SHA256SUMS", "SHA256SUMS.sig"}
    assert not signed & release.FILLED_IN
    assert {"install.sh", "first-boot.sh", "edge-fer-setup.service", "edge-fer.service"} <= signed
    assert not [name for name in files if name.startswith(release.NOT_ON_A_CARD)]


def test_the_wheels_fit_the_system() -> None:
    assert [system.codename for system in release.SYSTEMS] == ["trixie", "bookworm"]
    assert TRIXIE.platforms()[0] == "manylinux_2_41_aarch64"
    # The wheel of OpenCV that pip takes on a board, and whose pixels were compared; the other one is manylinux2014.
    for system in release.SYSTEMS:
        assert system.platforms().index("manylinux_2_28_aarch64") < system.platforms().index("manylinux2014_aarch64")


def test_the_archive_is_a_folder_and_always_the_same(board: Board, tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip"):
        release.pack(board.card, tmp_path / name)
        (board.card / "install.sh").touch()
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert all(name.startswith("edge-fer/") for name in archive.namelist())
        assert archive.read("edge-fer/install.sh") == (FOLDER / "install.sh").read_bytes()


@pytest.mark.parametrize("name", ["edge_fer-1.2.0.tar.gz", "numpy-2.4.6-py3-none-any.whl"])
def test_another_package_is_no_release(name: str, tmp_path: Path, key: Path) -> None:
    with pytest.raises(SystemExit, match=f"{name} is not a wheel of edge-fer"):
        release.make(TRIXIE, tmp_path / name, key, tmp_path)


# install.sh


def test_everything_gets_to_its_place(board: Board) -> None:
    calls = board.install()
    for name, target in (
        ("edge-fer.toml", "edge-fer/config.toml"),
        ("edge-fer.service", "systemd/system/edge-fer.service"),
        ("99-edge-fer-coral.rules", "udev/rules.d/99-edge-fer-coral.rules"),
        ("allowed_signers", "edge-fer/allowed_signers"),
    ):
        file = board.root / "etc" / target
        assert file.read_bytes() == (board.card / name).read_bytes()
        # The service runs as a user of its own and must be able to read them.
        assert file.stat().st_mode & 0o777 == 0o644
    environment = (board.root / "opt/edge-fer").resolve()
    assert environment.parent == board.root / "opt"
    assert f"python3 -m venv --without-pip {environment}" in calls
    assert (
        f"python {board.card}/wheels/pip-26.2.1-py3-none-any.whl/pip install --quiet --no-cache-dir --no-index "
        f"--find-links {board.card}/wheels --require-hashes -r {board.card}/requirements.txt"
    ) in calls
    assert calls.index("edge-fer models verify") < calls.index("systemctl daemon-reload")
    assert calls[-2:] == ["systemctl restart edge-fer.service", "sync "]
    assert not [call for call in calls if call.startswith("apt-get")]


def test_an_image_is_made_where_no_system_runs(board: Board) -> None:
    shutil.rmtree(board.root / "run" / "systemd")
    called = [call for call in board.install() if call.startswith(("systemctl", "udevadm"))]
    assert called == []
    assert board.run("first-boot.sh").returncode == 0
    assert board.calls() == ["systemctl enable --quiet edge-fer-setup.service"]


def test_a_board_configures_what_its_image_has_installed(board: Board) -> None:
    """The camera that flash.py wrote on the card counts, not the one of the day when the image was made."""
    shutil.move(board.root / "run" / "systemd", board.root / "run" / "later")
    board.install()
    assert not (board.root / "etc/edge-fer/config.toml").exists()
    shutil.move(board.root / "run" / "later", board.root / "run" / "systemd")
    board.write("boot/firmware/edge-fer/edge-fer.toml", '[camera]\nsource = "demo"\n')
    calls = board.install()
    assert 'source = "demo"' in board.config()
    assert not [call for call in calls if call.startswith(BUILDS)]
    assert "systemctl enable --quiet edge-fer.service" in calls
    assert calls[-2:] == ["systemctl restart edge-fer.service", "sync "]


def test_the_second_time_nothing_happens(board: Board) -> None:
    board.install()
    assert not [call for call in board.install() if call.startswith((*BUILDS, "edge-fer", "systemctl"))]


def test_an_update_takes_the_place_of_the_old_one(board: Board, tmp_path: Path, key: Path) -> None:
    board.install()
    board.write("etc/edge-fer/config.toml", 'name = "hall"\n')
    before = (board.root / "opt/edge-fer").resolve()
    board.insert(make_release(tmp_path / "newer", key, "1.3.0"))
    board.install()
    after = (board.root / "opt/edge-fer").resolve()
    assert after != before and not before.exists()
    assert board.config() == 'name = "hall"\n'


def test_an_environment_of_an_earlier_version_gives_way(board: Board) -> None:
    board.write("opt/edge-fer/bin/edge-fer")
    board.write("opt/edge-fer/lib/python3.13/site-packages/x.py")
    board.install()
    assert (board.root / "opt/edge-fer").is_symlink()
    assert not (board.root / "opt/edge-fer/lib").exists()


def test_a_cut_off_installation_begins_again(board: Board) -> None:
    """The power goes while pip installs: what is left is not taken for an environment."""
    mark = release.sha256(board.card / "SHA256SUMS")[:12]
    board.write(f"opt/edge-fer-{mark}/bin/half")
    board.install()
    assert not (board.root / "opt" / f"edge-fer-{mark}" / "bin" / "half").exists()


@pytest.mark.parametrize("first", ["a new card", "an image that has it", "its configuration is taken away"])
def test_wherever_the_power_fails_the_next_start_completes_it(board: Board, tmp_path: Path, first: str) -> None:
    """Cut off before each call that changes something, it is in the end as if it had not been."""
    if first != "a new card":
        shutil.move(board.root / "run/systemd", board.root / "run/later")
        board.install()
        assert not [name for name in board.tree() if name.endswith("/installed")]
        shutil.move(board.root / "run/later", board.root / "run/systemd")
    if first == "its configuration is taken away":
        board.install()
        for name in ("edge-fer/config.toml", "configured", "enabled"):
            (board.root / "etc" / name).unlink()
    for name in CHANGES:
        board.have(name, PASSES_ON)
    shutil.copytree(board.root, tmp_path / "before", symlinks=True)
    calls = board.install()
    whole = board.tree()
    assert {"configured", "enabled", "installed", "config.toml"} <= {Path(name).name for name in whole}
    assert "is installed already" in board.run("install.sh").stdout
    for number, call in enumerate(calls, 1):
        shutil.rmtree(board.root)
        shutil.copytree(tmp_path / "before", board.root, symlinks=True)
        board.write("cut", str(number))
        assert board.run("install.sh").returncode == -9, call
        (board.root / "cut").unlink()
        board.install()
        assert board.tree() == whole, call


def test_what_is_written_once_is_on_the_card_before_it_has_its_name(board: Board) -> None:
    """A file system may keep a name and lose what was in the file: an empty configuration would count for ever."""
    board.have("mv", PASSES_ON)
    calls = board.install()
    for name in ("config.toml", "allowed_signers"):
        new = f"{board.root}/etc/edge-fer/{name}.new"
        assert calls.index(f"sync {new}") < calls.index(f"mv {new} {new.removesuffix('.new')}")


def test_a_model_that_computes_something_else_is_not_taken(board: Board, tmp_path: Path, key: Path) -> None:
    board.install()
    before = (board.root / "opt/edge-fer").resolve()
    board.write("bad-model")
    board.insert(make_release(tmp_path / "newer", key, "1.3.0"))
    assert board.run("install.sh").returncode != 0
    assert (board.root / "opt/edge-fer").resolve() == before
    assert (before / "bin" / "edge-fer").exists()


def test_a_wrong_configuration_is_said(board: Board) -> None:
    board.write("bad-config")
    done = board.run("install.sh")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == (
        "edge-fer 1.2.0 is installed and does not start: journalctl -u edge-fer says why."
    )


@pytest.mark.parametrize("name", ["wheels/numpy-2.4.6-py3-none-any.whl", "install.sh", "requirements.txt"])
def test_a_changed_file_is_refused(board: Board, name: str) -> None:
    with (board.card / name).open("a") as file:
        file.write("\n")
    code, said = board.refuses()
    assert code == 65
    assert said.endswith(f"{name} is missing or not as it was signed: copy the release to the card again.")


def test_a_missing_wheel_is_refused(board: Board) -> None:
    (board.card / "wheels" / "numpy-2.4.6-py3-none-any.whl").unlink()
    assert "wheels/numpy-2.4.6-py3-none-any.whl is missing" in board.refuses()[1]


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.sig", "release", "requirements.txt"])
def test_half_a_release_is_refused(board: Board, name: str) -> None:
    (board.card / name).unlink()
    code, said = board.refuses()
    assert (code, said.endswith(f"{name} is missing: copy the folder edge-fer of a release there, all of it.")) == (
        65,
        True,
    )


def test_a_changed_list_of_checksums_is_refused(board: Board) -> None:
    """A tampered wheel with its own checksum: the signature is of the old list."""
    wheel = board.card / "wheels" / "numpy-2.4.6-py3-none-any.whl"
    sums = (board.card / "SHA256SUMS").read_text()
    before = release.sha256(wheel)
    wheel.write_text("evil")
    (board.card / "SHA256SUMS").write_text(sums.replace(before, release.sha256(wheel)))
    code, said = board.refuses()
    assert (code, said.startswith("install.sh: The signature of this release is not by the one")) == (65, True)


def test_an_update_by_somebody_else_is_refused(board: Board, tmp_path: Path) -> None:
    board.install()
    board.insert(make_release(tmp_path / "evil", make_key(tmp_path), "9.9.9"))
    code, said = board.refuses()
    assert (code, "etc/edge-fer/allowed_signers names" in said) == (65, True)


def test_a_signature_for_another_purpose_is_refused(board: Board, key: Path) -> None:
    (board.card / "SHA256SUMS.sig").unlink()
    sums = board.card / "SHA256SUMS"
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "file", sums], check=True, capture_output=True)
    assert board.refuses()[0] == 65


def test_another_system_is_refused(board: Board) -> None:
    board.write("etc/os-release", "VERSION_CODENAME=bookworm\n")
    assert board.refuses() == (
        65,
        "install.sh: This release is for trixie and this system is bookworm: download edge-fer-...-bookworm-arm64.zip.",
    )


def test_32_bits_are_refused(board: Board) -> None:
    board.write("architecture", "armhf\n")
    code, said = board.refuses()
    assert (code, "Raspberry Pi OS (64-bit)" in said) == (65, True)


# The camera on the ribbon cable


def test_picamera2_is_used_where_it_is(board: Board, tmp_path: Path, key: Path) -> None:
    board.insert(tmp_path / "release", "picamera:0")
    board.write("picamera2")
    calls = board.install()
    assert [call for call in calls if call.startswith("python3 -m venv --without-pip --system-site-packages")]
    assert [call for call in calls if call.endswith("requirements-picamera2.txt")]
    assert 'source = "picamera:0"' in board.config()


def test_without_picamera2_it_is_rpicam_vid(board: Board, tmp_path: Path) -> None:
    board.insert(tmp_path / "release", "picamera:1")
    board.have("rpicam-vid")
    calls = board.install()
    assert not [call for call in calls if "system-site-packages" in call or call.startswith("apt-get")]
    assert 'source = "rpicam:1"' in board.config()


def test_picamera2_of_bookworm_is_left_alone(board: Board, tmp_path: Path, key: Path) -> None:
    """It wants NumPy 1."""
    board.write("etc/os-release", "VERSION_CODENAME=bookworm\n")
    board.write("picamera2")
    board.have("rpicam-vid")
    board.insert(make_release(tmp_path / "bookworm", key, system=BOOKWORM), "picamera:0")
    board.install()
    assert 'source = "rpicam:0"' in board.config()


def test_a_card_without_either_wants_a_network(board: Board, tmp_path: Path) -> None:
    board.insert(tmp_path / "release", "picamera:0")
    code, said = board.refuses()
    assert (code, "connect the board to the internet until it is installed" in said) == (69, True)
    board.write("network")
    assert (
        "apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends rpicam-apps-lite" in board.install()
    )
    assert 'source = "rpicam:0"' in board.config()


def test_a_configuration_of_somebody_is_not_changed_for_a_camera(board: Board) -> None:
    board.write("etc/edge-fer/config.toml", '[camera]\nsource = "picamera:0"\n')
    board.have("rpicam-vid")
    done = board.run("install.sh")
    assert 'write source = "rpicam:0" in' in done.stdout
    assert 'source = "picamera:0"' in board.config()


RIBBON = {
    "double quotes": '[camera]\nsource = "picamera:0"\n',
    "single quotes": "[camera]\nsource = 'picamera:0'\n",
    "no number": '[camera]\nsource="picamera" # the one\n',
    "a key in quotes": '[camera]\n"source" = "picamera:1"\n',
    "tabs": '[camera]\n\tsource\t=\t"picamera:0"\n',
    "a second camera": '[[cameras]]\nsource = "0"\nname = "a"\n[[cameras]]\nname = "b"\nsource = "picamera:0"\n',
    "an inline table": 'camera = { name = "#1", source = "picamera:0" }\n',
    "a dotted key": 'camera.source = "picamera:0"\n',
    "lines of Windows": '[camera]\r\nsource = "picamera:0"\r\n',
}
ELSEWHERE = {
    "a comment": '[camera]\n# source = "picamera:0"\nsource = "0"\n',
    "another way": '[camera]\nsource = "rpicam:0"\n',
    "a text": """name = 'source = "picamera:0"'\n""",
    "a camera that does not count": '[camera]\nsource = "picamera:0"\n[[cameras]]\nsource = "0"\n',
    "nothing": "",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", [*RIBBON.values(), *ELSEWHERE.values()], ids=[*RIBBON, *ELSEWHERE])
def test_the_ribbon_camera_is_found_where_edge_fer_finds_it(board: Board, text: str, encoding: str) -> None:
    board.write("picamera2")
    config = board.root / "etc/edge-fer/config.toml"
    config.parent.mkdir(parents=True)
    config.write_bytes(text.encode(encoding))
    cameras = load_settings(config, {}, {}).all_cameras
    wants = any(camera.source.partition(":")[0] == "picamera" for camera in cameras)
    assert wants == (text in RIBBON.values())
    assert wants == any(call.endswith("requirements-picamera2.txt") for call in board.install())


@pytest.mark.parametrize("text", RIBBON.values(), ids=RIBBON)
def test_every_ribbon_camera_of_a_new_configuration_goes_the_other_way(board: Board, text: str) -> None:
    board.write("boot/firmware/edge-fer/edge-fer.toml", text)
    board.have("rpicam-vid")
    board.install()
    sources = [one.source for one in load_settings(board.root / "etc/edge-fer/config.toml", {}, {}).all_cameras]
    assert any(source.startswith("rpicam") for source in sources)
    assert not any(source.startswith("picamera") for source in sources)


def test_a_damaged_configuration_is_left_to_the_service(board: Board) -> None:
    board.write("etc/edge-fer/config.toml", '[camera\nsource = "picamera:0"\n')
    assert board.run("install.sh").stderr == ""


# first-boot.sh


def status(board: Board) -> str:
    return (board.root / "boot" / "firmware" / "edge-fer-status.txt").read_text()


def led(board: Board) -> tuple[str, str]:
    folder = board.root / "leds" / "ACT"
    return (folder / "trigger").read_text().strip(), (folder / "delay_on").read_text().strip()


def test_cloud_init_starts_the_service_and_goes_on(board: Board) -> None:
    done = board.run("first-boot.sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert board.calls() == [
        "systemctl daemon-reload",
        "systemctl enable --quiet edge-fer-setup.service",
        "sync ",
        "systemctl start --no-block edge-fer-setup.service",
    ]
    unit = board.root / "etc" / "systemd" / "system" / "edge-fer-setup.service"
    assert unit.read_bytes() == (FOLDER / "edge-fer-setup.service").read_bytes()


def test_the_card_says_that_it_runs_and_what_it_lacks(board: Board) -> None:
    done = board.run("first-boot.sh", "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "edge-fer 1.2.0 is installed: " in done.stdout  # in the journal
    assert status(board).splitlines()[0] == "edge-fer is installed and running: no camera: plug one in"
    assert led(board)[0] == "mmc0"


@pytest.mark.parametrize(
    ("break_it", "code", "says"),
    [
        ("release", 65, "It tries again when it is switched on again."),
        ("camera", 69, "It tries again in a minute."),
    ],
)
def test_the_card_says_why_not(board: Board, tmp_path: Path, break_it: str, code: int, says: str) -> None:
    if break_it == "release":
        (board.card / "release").unlink()
    else:
        board.insert(tmp_path / "release", "picamera:0")
    assert board.run("first-boot.sh", "run").returncode == code
    first = status(board).splitlines()[0]
    assert first.startswith("edge-fer is NOT installed: ") and says in first
    assert led(board) == ("timer", "100")
    # It is mended, and tried again.
    board.insert(tmp_path / "release")
    assert board.run("first-boot.sh", "run").returncode == 0
    assert status(board).startswith("edge-fer is installed and running")


def test_the_card_says_that_the_service_does_not_run(board: Board) -> None:
    board.write("state", "failed\n")
    assert board.run("first-boot.sh", "run").returncode == 0
    assert status(board).startswith("edge-fer is installed and does NOT run.")
    assert led(board) == ("timer", "100")


@pytest.mark.parametrize("state", ["active", "failed"])
def test_a_bad_update_leaves_the_earlier_version_and_the_card_says_so(board: Board, tmp_path: Path, state: str) -> None:
    board.install()
    (board.card / "release").unlink()
    board.write("state", f"{state}\n")
    assert board.run("first-boot.sh", "run").returncode == 65
    first = status(board).splitlines()[0]
    assert first.startswith("The release on this card is NOT installed: ")
    assert "It tries again when it is switched on again." in first
    if state == "active":
        assert first.endswith("stays, and runs: no camera: plug one in")
        assert led(board)[0] == "mmc0"
    else:
        assert "stays, and does NOT run." in first
        assert led(board) == ("timer", "100")


def test_a_board_without_such_a_led_is_no_failure(board: Board) -> None:
    shutil.rmtree(board.root / "leds")
    assert board.run("first-boot.sh", "run").returncode == 0


def test_the_setup_is_tried_again_unless_nothing_can_mend_it() -> None:
    text = (FOLDER / "edge-fer-setup.service").read_text()
    assert "RestartPreventExitStatus=65\n" in text
    assert "StartLimitIntervalSec=0\n" in text
    # No network, no right time, no dialog. Of cloud-init what comes before those: test_cloud_init.py.
    after = " ".join(re.findall(r"(?m)^After=(.*)$", text)).split()
    assert after == ["edge-fer.service", "cloud-init-local.service", "cloud-init-network.service"]
    assert "oneshot\n" not in text
