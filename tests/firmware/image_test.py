"""``make image-test``: boots fresh cards in an emulated board, breaks them in many ways, and cuts their power.

    python tests/firmware/image_test.py RELEASE.zip [IMAGE.img READ-ONLY-IMAGE.img]     (of `make release image`)

flash.py writes a card for each board of a fleet, onto what Raspberry Pi's system is to us: Debian trixie, cloud-init
that reads the boot partition, systemd; nothing of edge-fer but the release. The kernel is Debian's, and no camera, LED
or firmware of a Pi is there: the USB camera is the kernel's `vivid`. After a step that fails the rest goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
from machine import Hangs, Machine, copy_to_boot, read_from_boot

from edge_fer.sources.demo import DemoSource

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "firmware_configs" / "image" / "build"
CONFIG = "/etc/edge-fer/config.toml"
ROOT_OFFSET = 257 << 20
NO_UNIT_FAILED = "systemctl list-units --failed --no-legend --plain | tee /dev/stderr | wc -l | grep -x 0"
STATUS_ON_CARD = "/boot/firmware/edge-fer-status.txt"
LONG_S = 1200.0
"""Only reached where something hangs: the machine's own timeouts come long before."""

PARTS = ("breaking", "fleet", "online", "images")
FLEET = """hostname,camera
porch,demo
hall,/dev/v4l/by-id/usb-none-video-index0
attic,0
"""


class Tally:
    """What passed and what failed."""

    def __init__(self) -> None:
        self.passed = self.failed = 0
        self._since_s = time.monotonic()

    def check(self, what: str, right: bool, said: object = "") -> None:
        """One result, told at once."""
        self.passed += right
        self.failed += not right
        minutes = (time.monotonic() - self._since_s) / 60
        print(f"{'ok   ' if right else 'FAILS'} {minutes:5.1f} min  {what}", flush=True)
        if not right:
            print(said, flush=True)


class Board:
    """A card, the machine that it is in, and what is expected of them."""

    def __init__(self, disk: Path, log: Path, tally: Tally, chance: random.Random) -> None:
        self.disk, self._log, self.tally, self._chance = disk, log, tally, chance
        self._machine: Machine | None = None

    def switch_on(self, ssh_port: int | None = None) -> Machine:
        self._machine = Machine(self.disk, self._log, chance=self._chance, ssh_port=ssh_port)
        return self._machine

    @property
    def machine(self) -> Machine:
        assert self._machine
        return self._machine

    def cut(self, what: str = "") -> None:
        """Take away the power, if it is on, and tell what the card has lost."""
        late, lost = self._machine.cut() if self._machine else (0, 0)
        if what:
            print(f"      {what}: {late} writes were not flushed, {lost} of them are lost", flush=True)

    def says(self, what: str, command: str, wanted: str = "") -> None:
        """A command succeeds, and says something."""
        code, said = self.machine.run(command, LONG_S)
        self.tally.check(what, code == 0 and wanted in said, f"{command}: {code}, {said!r}")

    def comes(self, what: str, command: str) -> None:
        """A command succeeds sooner or later."""
        try:
            self.machine.until(command, LONG_S, every_s=1)
        except Hangs as error:
            self.tally.check(what, False, error)
        else:
            self.tally.check(what, True)

    def status_is(self, what: str, status: str) -> None:
        """`systemctl status` comes to say something of the service."""
        self.comes(what, f"systemctl show --value -p StatusText edge-fer | grep -q -- '{status}'")

    def configure(self, camera: str, more: str = "") -> None:
        """Another configuration; the service is started anew."""
        text = f'{more}\\n[camera]\\nsource = "{camera}"\\n'
        anew = "systemctl reset-failed edge-fer; systemctl restart edge-fer"
        self.machine.run(f"printf '{text}' >{CONFIG}; {anew}", LONG_S)


def comparable(line: str) -> dict[str, object]:
    """What of an event is the same on every processor."""
    event = json.loads(line)
    return {key: event[key] for key in ("phase", "seq", "track", "box", "expression", "uncertain", "probabilities")}


def write_cards(system: Path, release: Path, folder: Path, fleet: str) -> None:
    """What a person does: flash.py of an unpacked release writes system and settings, a card ``HOSTNAME.img`` each."""
    unpacked = folder / "release"
    if not unpacked.exists():
        with zipfile.ZipFile(release) as archive:
            archive.extractall(unpacked)
        make_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@laptop", "-f", folder / "key"]
        subprocess.run(make_key, check=True)
    (folder / "fleet.csv").write_text(fleet)
    flash = [sys.executable, unpacked / "edge-fer" / "flash.py", "write", folder / "{hostname}.img", "--image", system]
    subprocess.run([*flash, "--fleet", folder / "fleet.csv", "--key", folder / "key.pub", "--yes"], check=True)


def write_clip(path: Path) -> None:
    """Every eighth frame of the demo, as YUV420 planes of 640x480."""
    with path.open("wb") as file:
        for frame in islice(DemoSource(), 0, None, 8):
            file.write(cv2.cvtColor(frame.picture(), cv2.COLOR_BGR2YUV_I420).tobytes())


def file_of_root(disk: Path, name: str, folder: Path) -> str:
    """A file of the card's second partition, read without starting anything."""
    part = folder / "root.img"
    copy = ["dd", f"if={disk}", f"of={part}", "bs=1M", f"skip={ROOT_OFFSET >> 20}", "conv=sparse", "status=none"]
    subprocess.run(copy, check=True)
    # Only what the journal of the file system makes of it counts.
    subprocess.run(["e2fsck", "-p", part], capture_output=True, check=False)
    command = ["debugfs", "-R", f"cat {name}", part]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def first_boot(board: Board, chance: random.Random) -> None:
    """Offline, in 1970, without a camera; the power goes while edge-fer is being installed."""
    with board.switch_on() as machine:
        machine.log_in(LONG_S)
        machine.until("ls -d /opt/edge-fer-*", LONG_S, every_s=1)
        after_s = chance.uniform(0, 30)
        time.sleep(after_s)
        installed, _ = machine.run("test -e /opt/edge-fer", LONG_S)
        board.cut(f"power cut {after_s:.0f} s after the installation began")
    text = read_from_boot(board.disk, "edge-fer-status.txt")
    board.tally.check("the card says what the board is doing", "is being installed" in text or installed == 0, text)

    board.switch_on().log_in(LONG_S)
    board.comes("after a power cut the installation begins again and comes to its end", "test -L /opt/edge-fer")
    board.status_is("the service waits for a camera", "no camera: ")
    board.says("and is active, not failing again and again", "systemctl is-active edge-fer")
    board.says("it has said so once", "test $(journalctl -u edge-fer | grep -c 'tried again until it is there') = 1")
    board.comes("the card says so too", f"grep -q 'installed and running: no camera' {STATUS_ON_CARD}")
    is_as_told(board)
    board.says("its clock is wrong", f"date; test $(date +%s) -lt {time.time() - 86400:.0f}")
    is_as_made(board)


def is_as_made(board: Board) -> None:
    """Journal and swap are in memory, the hardware watchdog is set: what firmware_configs/image/overlay asks for."""
    nothing = 'test -z "$(ls -A /var/log/journal)"'
    board.says("what happened is in memory alone", f"journalctl --header | grep /run/log && {nothing}")
    board.says("so is its swap", "swapon --noheadings --show=NAME,SIZE", "/dev/zram0")
    board.says("a watchdog guards the system", "wdctl --oneline /dev/watchdog0", 'TIMEOUT="60"')


def is_as_told(board: Board) -> None:
    """Name, user, key and token are those that flash.py was told; cloud-init has done all, and no unit has failed."""
    name = board.disk.stem
    key = board.disk.with_name("key.pub").read_text().split()[1]
    board.says(f"it is {name}", f"test $(hostname) = {name} && grep -w {name} /etc/hosts")
    board.says("pi's key is there, and no password", f"grep -q {key} ~pi/.ssh/authorized_keys && passwd -S pi", "pi L")
    board.says("it has a token of its own, root's alone", "stat -c %a-%U-%s /etc/edge-fer/web-token", "600-root-32")
    board.says("cloud-init is done", "cloud-init status --wait", "done")
    board.says("no unit has failed", NO_UNIT_FAILED)


def another_board(board: Board, status: str) -> None:
    """Another board of the fleet, offline."""
    board.switch_on().log_in(LONG_S)
    board.status_is(f"{board.disk.stem} runs after its first boot: {status}", status)
    board.comes("its card says so", f"grep -q 'installed and running: {status}' {STATUS_ON_CARD}")
    is_as_told(board)
    board.machine.power_off(LONG_S)


def online(board: Board) -> None:
    """First boot with a network; the board is reached by SSH with the key, and nothing else."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    board.switch_on(port).log_in(LONG_S)
    board.status_is(f"{board.disk.stem} runs after its first boot, online", "recognizing expressions")
    board.says("it has an address", "ip -4 -o address show eth0", "10.0.2.15")
    is_as_told(board)
    key = board.disk.with_name("key")
    ssh = ["ssh", "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    ssh += ["-o", "BatchMode=yes", "-o", "ConnectTimeout=60"]
    there = ["pi@127.0.0.1", "sudo systemctl show --value -p StatusText edge-fer; id"]
    done = subprocess.run([*ssh, "-i", key, *there], capture_output=True, text=True, check=False)
    board.tally.check("pi comes in by SSH, and sudo asks nothing", "recognizing" in done.stdout, done)
    done = subprocess.run([*ssh, "-o", "IdentitiesOnly=yes", *there], capture_output=True, text=True, check=False)
    board.tally.check("nobody comes in without the key", "Permission denied (publickey)" in done.stderr, done)
    board.machine.power_off(LONG_S)


def camera(board: Board) -> None:
    """A camera is plugged in; its driver is the kernel's, and the unit's confinement is in force."""
    board.machine.run("modprobe vivid n_devs=1 node_types=0x1", LONG_S)
    board.comes("there is a camera", "test -e /dev/video0")
    board.status_is("the service finds it by itself", "recognizing expressions from 0")


def events(board: Board, folder: Path) -> None:
    """Expressions on a fixed clip are those of this machine."""
    script = "cd /tmp; /opt/edge-fer/bin/edge-fer run --camera pipe:640x480@2:/boot/firmware/clip --output jsonl:there"
    board.says("edge-fer runs on a clip", script)
    _, there = board.machine.run("cat /tmp/there", LONG_S)
    command = [sys.executable, "-m", "edge_fer", "run", "--camera", f"pipe:640x480@2:{folder / 'clip'}"]
    subprocess.run([*command, "--output", f"jsonl:{folder / 'here'}"], check=True, cwd=ROOT)
    ours = [comparable(line) for line in (folder / "here").read_text().splitlines()]
    theirs = [comparable(line) for line in there.splitlines() if line.startswith("{")]
    same = f"all {len(ours)} events are those of this machine, probabilities to the last digit"
    board.tally.check(same, ours == theirs, theirs[:3])


def demo(board: Board) -> None:
    """The demo goes on without end; the service comes back when it is killed."""
    board.configure("demo")
    board.status_is("the demo runs", "recognizing expressions from demo:loop")
    board.comes("longer than it is long", "test $(journalctl -u edge-fer -o cat | grep -c '') -gt 20")
    board.machine.run("systemctl kill --signal=KILL edge-fer", LONG_S)
    board.comes("killed, it comes back", "test $(systemctl show --value -p NRestarts edge-fer) = 1")
    board.status_is("and works", "recognizing expressions from demo:loop")


def hung_camera(board: Board) -> None:
    """A camera that sends ten frames and then nothing."""
    ten = "head -c $((10 * 640 * 480 * 3 / 2)) /dev/zero"
    board.machine.run(
        f"mkfifo -m 666 /run/hung; ({ten}; sleep infinity) >/run/hung & sleep infinity </run/hung &", LONG_S
    )
    board.configure("pipe:640x480@15:/run/hung")
    board.comes("the watchdog ends it", "journalctl -u edge-fer -o cat | grep -q 'Watchdog timeout'")
    board.comes("and it is started again", "test $(systemctl show --value -p NRestarts edge-fer) -ge 1")


def broken_configuration(board: Board) -> None:
    """A key that does not exist."""
    board.configure("demo", 'nme = "x"')
    board.comes("it is not tried again", "systemctl is-failed edge-fer")
    board.says("with the exit code of a configuration", "systemctl show --value -p ExecMainStatus edge-fer", "78")
    board.says("and a sentence", "journalctl -u edge-fer -o cat | tail -5", "Did you mean")
    board.machine.run("systemctl restart edge-fer-setup", LONG_S)
    board.comes("the card says so", "grep -q 'does NOT run' /boot/firmware/edge-fer-status.txt")


def full_disk(board: Board) -> None:
    """Not a byte is free where it records."""
    fill = "fallocate -l $(df --output=avail -B1 / | tail -1) /fill; dd if=/dev/zero of=/fill2 bs=4k"
    board.machine.run(fill, LONG_S)
    board.configure("demo", 'outputs = ["jsonl:events.jsonl"]')
    said = "journalctl -u edge-fer -o cat | grep -i 'no space left'"
    board.comes("it says so", said)
    board.machine.run("rm -f /fill /fill2", LONG_S)
    board.status_is("and goes on when there is room", "recognizing expressions")
    board.comes("and records", "grep -q expression /var/lib/private/edge-fer/events.jsonl")


def hang(board: Board) -> None:
    """The kernel hangs."""
    board.machine.type("echo c >/proc/sysrq-trigger")
    board.machine.ends(LONG_S)
    board.tally.check("the watchdog ends a kernel that hangs", True)


def power_cuts(board: Board, folder: Path, cuts: int, chance: random.Random) -> None:
    """The power goes at moments drawn by chance, while it starts and works, and somebody changes its configuration."""
    board.switch_on().log_in(LONG_S)
    board.configure("demo")
    again = "while edge-fer config edit camera.fps 5 && edge-fer config edit camera.fps 10; do :; done"
    unit = f'[Service]\\nEnvironment=PATH=/opt/edge-fer/bin:/usr/bin\\nExecStart=/bin/sh -c "{again}"\\n'
    unit += "[Install]\\nWantedBy=multi-user.target\\n"
    place = "/etc/systemd/system/edits.service"
    board.machine.run(f"printf '{unit}' >{place}; systemctl enable edits; sync", LONG_S)
    board.machine.power_off(LONG_S)
    seen = set()
    for number in range(1, cuts + 1):
        after_s = chance.uniform(1, 90)
        board.switch_on()
        time.sleep(after_s)
        board.cut(f"power cut {after_s:.0f} s after it was switched on")
        text = file_of_root(board.disk, CONFIG, folder)
        seen.add(text)
        whole = [line for line in text.splitlines() if line and not line.startswith("fps = ")]
        board.tally.check(f"cut {number}: the configuration is whole", whole == ["[camera]", 'source = "demo"'], text)
    board.tally.check("it was changed between the cuts", len(seen) > 1, seen)
    board.switch_on().log_in(LONG_S)
    board.status_is(f"after {cuts} cuts it works", "recognizing expressions from demo:loop")
    board.says("and no unit has failed", NO_UNIT_FAILED)
    board.machine.power_off(LONG_S)


def installed(board: Board, chance: random.Random) -> None:
    """The image that has edge-fer installed: nothing is installed at first boot."""
    board.switch_on().log_in(LONG_S)
    board.status_is("the image with edge-fer runs", "recognizing expressions from demo:loop")
    board.says("nothing was installed", "! journalctl -u edge-fer-setup -o cat | grep 'tflite is good'")
    is_as_told(board)
    time.sleep(chance.uniform(0, 20))
    board.cut("power cut")
    board.switch_on().log_in(LONG_S)
    board.status_is("it runs after a power cut", "recognizing expressions from demo:loop")
    board.machine.power_off(LONG_S)


def read_only(board: Board, chance: random.Random) -> None:
    """The image with a read-only system: what changes lies on a partition of its own, and may be lost."""
    board.switch_on().log_in(LONG_S)
    board.status_is("the image with a read-only system runs", "recognizing expressions from demo:loop")
    is_as_told(board)
    is_as_made(board)
    board.says("its system cannot be written", "findmnt -n -o OPTIONS /run/system | grep -E '^ro,'")
    board.says("what changes goes elsewhere", "findmnt -n -o SOURCE /run/data", "/dev/vda3")
    board.configure("/dev/video9")
    board.machine.run("sync", LONG_S)
    for _ in range(2):
        time.sleep(chance.uniform(0, 30))
        board.cut("power cut")
        board.switch_on().log_in(LONG_S)
        board.status_is("a change is there after a power cut", "no camera: .*video9")
    board.machine.run("dd if=/dev/zero of=/dev/vda3 bs=1M count=8; sync", LONG_S)
    board.cut()
    board.switch_on().log_in(LONG_S)
    board.status_is("it runs as it was made where the partition of changes is destroyed", "recognizing expressions")
    board.says("and no unit has failed", NO_UNIT_FAILED)
    board.machine.power_off(LONG_S)


def main() -> int:
    """Run all; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("images", type=Path, nargs="*", help="with edge-fer installed; a second one read-only")
    parser.add_argument("--cache", type=Path, default=ROOT / ".image")
    parser.add_argument("--cuts", type=int, default=10, help="power cuts (default: 10)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts of it (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the cuts, and of what they leave")
    args = parser.parse_args()
    if not shutil.which("qemu-system-aarch64"):
        sys.exit("image-test: qemu-system-aarch64 is missing: apt-get install qemu-system-arm.")
    tally, chance = Tally(), random.Random(args.seed)
    with tempfile.TemporaryDirectory(dir=args.cache) as scratch:
        folder = Path(scratch)
        log = args.cache / "console.log"
        log.unlink(missing_ok=True)
        print(f"The console is written to {log}.", flush=True)
        system = folder / "system.img"
        if {"breaking", "fleet", "online"} & set(args.only):
            subprocess.run([BUILD, "disk", system], check=True, stdout=subprocess.DEVNULL)

        def board(name: str, camera: str, image: Path = system) -> Board:
            write_cards(image, args.release, folder, f"hostname,camera\n{name},{camera}\n")
            return Board(folder / f"{name}.img", log, tally, chance)

        def at(step: Callable[..., None], on: Board, *more: object) -> None:
            try:
                step(on, *more)
            except (Hangs, OSError, subprocess.CalledProcessError) as error:
                tally.check(f"{step.__name__}: {step.__doc__}", False, error)
                on.cut()

        if "breaking" in args.only:
            kitchen = board("kitchen", "0")
            write_clip(folder / "clip")
            copy_to_boot(kitchen.disk, folder / "clip")
            at(first_boot, kitchen, chance)
            at(camera, kitchen)
            at(events, kitchen, folder)
            at(demo, kitchen)
            at(hung_camera, kitchen)
            at(broken_configuration, kitchen)
            at(full_disk, kitchen)
            at(hang, kitchen)
        if "fleet" in args.only:
            write_cards(system, args.release, folder, FLEET)
            names = ("porch", "hall", "attic")
            fleet = [Board(folder / f"{name}.img", log, tally, chance) for name in names]
            for one, status in zip(fleet, ("recognizing expressions", "no camera", "no camera"), strict=True):
                at(another_board, one, status)
            at(power_cuts, fleet[0], folder, args.cuts, chance)
        if "online" in args.only:
            at(online, board("garden", "demo"))
        if "images" in args.only:
            for image, step in zip(args.images, (installed, read_only), strict=False):
                at(step, board("cellar", "demo", image), chance)
    print(f"{tally.passed} passed, {tally.failed} failed")
    return int(tally.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
