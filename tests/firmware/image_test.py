"""``make image-test``: boots a fresh card in an emulated board, offline, breaks it in many ways, and cuts its power.

    python tests/firmware/image_test.py dist/edge-fer-*-trixie-arm64.zip [--cuts 10] [--keep]

The card is what Raspberry Pi's is to us: Debian trixie, cloud-init that reads the boot partition, systemd; nothing of
edge-fer but the release on the boot partition. The kernel is Debian's, and no camera, LED or firmware of a Pi is there:
the USB camera is the kernel's `vivid`. All steps are made in turn on one card; after one that fails the rest goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
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
LONG_S = 3600.0
"""Only reached where something hangs: the machine's own timeouts come long before."""

USER_DATA = """#cloud-config
hostname: kitchen
bootcmd:
  - [sh, /boot/firmware/edge-fer/first-boot.sh]
"""
META_DATA = "dsmode: local\ninstance-id: kitchen-1\nlocal-hostname: kitchen\n"
NETWORK = "network:\n  version: 2\n"


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

    def __init__(self, disk: Path, kernel: Path, log: Path, tally: Tally) -> None:
        self._disk, self._kernel, self._log, self._tally = disk, kernel, log, tally
        self._machine: Machine | None = None

    def switch_on(self) -> Machine:
        self._machine = Machine(self._disk, self._kernel, self._log)
        return self._machine

    @property
    def machine(self) -> Machine:
        assert self._machine
        return self._machine

    def cut(self) -> None:
        self.machine.cut()

    def says(self, what: str, command: str, wanted: str = "") -> None:
        """A command succeeds, and says something."""
        code, said = self.machine.run(command, LONG_S)
        self._tally.check(what, code == 0 and wanted in said, f"{command}: {code}, {said!r}")

    def comes(self, what: str, command: str) -> None:
        """A command succeeds sooner or later."""
        try:
            self.machine.until(command, LONG_S, every_s=1)
        except Hangs as error:
            self._tally.check(what, False, error)
        else:
            self._tally.check(what, True)

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
    return {key: event[key] for key in ("phase", "seq", "track", "box", "expression", "uncertain", "model")}


def fresh_card(disk: Path, release: Path, folder: Path) -> None:
    """What a person makes: a system on a card, the release and three files on its boot partition."""
    with zipfile.ZipFile(release) as archive:
        archive.extractall(folder)
    for name, text in (("user-data", USER_DATA), ("meta-data", META_DATA), ("network-config", NETWORK)):
        (folder / name).write_text(text)
    with (folder / "clip").open("wb") as file:
        for frame in islice(DemoSource(), 0, None, 8):
            file.write(cv2.cvtColor(frame.picture(), cv2.COLOR_BGR2YUV_I420).tobytes())
    names = ("edge-fer", "user-data", "meta-data", "network-config", "clip")
    copy_to_boot(disk, *(folder / name for name in names))


def file_of_root(disk: Path, name: str, folder: Path) -> str:
    """A file of the card's second partition, read without starting anything."""
    part = folder / "root.img"
    subprocess.run(["dd", f"if={disk}", f"of={part}", "bs=1M", f"skip={ROOT_OFFSET >> 20}", "status=none"], check=True)
    # Only what the journal of the file system makes of it counts.
    subprocess.run(["e2fsck", "-p", part], capture_output=True, check=False)
    command = ["debugfs", "-R", f"cat {name}", part]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def first_boot(board: Board, tally: Tally, disk: Path, seed: random.Random) -> None:
    """Offline, in 1970, without a camera; the power goes while edge-fer is being installed."""
    with board.switch_on() as machine:
        machine.log_in(LONG_S)
        machine.until("ls -d /opt/edge-fer-*", LONG_S, every_s=1)
        time.sleep(seed.uniform(0, 60))
        installed, _ = machine.run("test -e /opt/edge-fer", LONG_S)
    text = read_from_boot(disk, "edge-fer-status.txt")
    tally.check("the card says what the board is doing", "is being installed" in text or installed == 0, text)

    machine = board.switch_on()
    machine.log_in(LONG_S)
    board.comes("after a power cut the installation begins again and comes to its end", "test -L /opt/edge-fer")
    board.status_is("the service waits for a camera", "no camera: ")
    board.says("and is active, not failing again and again", "systemctl is-active edge-fer")
    board.says("it has said so once", "test $(journalctl -u edge-fer | grep -c 'tried again until it is there') = 1")
    board.comes("the card says so too", "grep -q 'installed and running: no camera' /boot/firmware/edge-fer-status.txt")
    board.says("cloud-init is done", "cloud-init status --wait", "done")
    board.says("no unit has failed", NO_UNIT_FAILED)
    board.says("its clock is wrong", "date +%Y")


def camera(board: Board) -> None:
    """A camera is plugged in; its driver is the kernel's, and the unit's confinement is in force."""
    board.machine.run("modprobe vivid n_devs=1 node_types=0x1", LONG_S)
    board.comes("there is a camera", "test -e /dev/video0")
    board.status_is("the service finds it by itself", "recognizing expressions from 0")


def events(board: Board, tally: Tally, folder: Path) -> None:
    """Expressions on a fixed clip are those of this machine."""
    script = "cd /tmp; /opt/edge-fer/bin/edge-fer run --camera pipe:640x480@2:/boot/firmware/clip --output jsonl:there"
    board.says("edge-fer runs on a clip", script)
    _, there = board.machine.run("cat /tmp/there", LONG_S)
    command = [sys.executable, "-m", "edge_fer", "run", "--camera", f"pipe:640x480@2:{folder / 'clip'}"]
    subprocess.run([*command, "--output", f"jsonl:{folder / 'here'}"], check=True, cwd=ROOT)
    ours = [comparable(line) for line in (folder / "here").read_text().splitlines()]
    theirs = [comparable(line) for line in there.splitlines() if line.startswith("{")]
    tally.check(f"all {len(ours)} events have the same faces and expressions as on x86-64", ours == theirs, theirs[:3])


def demo(board: Board) -> None:
    """The demo goes on without end; the service comes back when it is killed."""
    board.configure("demo")
    board.status_is("the demo runs", "recognizing expressions from demo:loop")
    board.comes("longer than it is long", "test $(journalctl -u edge-fer -o cat | grep -c '') -gt 20")
    board.machine.run("systemctl kill --signal=KILL edge-fer", LONG_S)
    board.comes("killed, it comes back", "test $(systemctl show --value -p NRestarts edge-fer) = 1")
    board.status_is("and works", "recognizing expressions from demo:loop")


def hung_camera(board: Board) -> None:
    """A camera that is open and sends nothing."""
    board.machine.run("mkfifo -m 666 /run/hung; sleep infinity >/run/hung & sleep infinity </run/hung &", LONG_S)
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


def power_cuts(board: Board, tally: Tally, disk: Path, folder: Path, cuts: int, seed: random.Random) -> None:
    """The power goes at moments that are drawn by chance, while it starts and while it works."""
    board.configure("demo")
    wanted = '\n[camera]\nsource = "demo"\n'
    board.machine.run("sync", LONG_S)
    board.cut()
    for number in range(1, cuts + 1):
        with board.switch_on():
            time.sleep(seed.uniform(1, 120))
        text = file_of_root(disk, CONFIG, folder)
        tally.check(f"cut {number}: the configuration is whole", text == wanted, text)
    board.switch_on().log_in(LONG_S)
    board.status_is(f"after {cuts} cuts it works", "recognizing expressions from demo:loop")
    board.says("and no unit has failed", NO_UNIT_FAILED)
    board.machine.power_off(LONG_S)


def main() -> int:
    """Run all; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--cache", type=Path, default=ROOT / ".image")
    parser.add_argument("--cuts", type=int, default=10, help="power cuts (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the cuts")
    args = parser.parse_args()
    if not shutil.which("qemu-system-aarch64"):
        sys.exit("image-test: qemu-system-aarch64 is missing: apt-get install qemu-system-arm.")
    tally, seed = Tally(), random.Random(args.seed)
    with tempfile.TemporaryDirectory(dir=args.cache) as scratch:
        folder = Path(scratch)
        disk = folder / "card.img"
        subprocess.run([BUILD, "disk", disk], check=True)
        fresh_card(disk, args.release, folder)
        log = args.cache / "console.log"
        log.unlink(missing_ok=True)
        board = Board(disk, args.cache, log, tally)
        print(f"The console is written to {log}.")

        def at(step: Callable[..., None], *more: object) -> None:
            try:
                step(board, *more)
            except Hangs as error:
                tally.check(f"{step.__name__}: {step.__doc__}", False, error)

        at(first_boot, tally, disk, seed)
        at(camera)
        at(events, tally, folder)
        at(demo)
        at(hung_camera)
        at(broken_configuration)
        at(full_disk)
        at(power_cuts, tally, disk, folder, args.cuts, seed)
        board.cut()
    print(f"{tally.passed} passed, {tally.failed} failed")
    return int(tally.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
