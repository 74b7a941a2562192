"""What the configuration asks for, and whether it is there: cameras, a Coral, places to write."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from edge_fer.address import listening_at, printable, split_address
from edge_fer.cameras import Camera, find_holders, has_pi_pipeline, list_cameras, list_pi_cameras
from edge_fer.config import ENV_PREFIX, default_files
from edge_fer.doctor.machine import Finding, Machine
from edge_fer.errors import EdgeFerError
from edge_fer.files import mode_of
from edge_fer.sinks import check_network

CORAL_USB = {("1a6e", "089a"): "before its first use", ("18d1", "9302"): "in use before"}
"""Vendor and product of a Coral USB Accelerator: it takes another number once its firmware is loaded."""
CORAL_PCI = ("0x1ac1", "0x089a")

CORAL_SCRIPT = "from edge_fer.model.litert import probe_edgetpu; print(probe_edgetpu() or '')"

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935, "rtmps": 443}
_SEEN_BY_DEBIAN = "/usr/lib/python3/dist-packages/"


def check_configuration(machine: Machine) -> Iterator[Finding]:
    """The configuration has no mistakes."""
    if not machine.mistakes:
        yield Finding("green", str(machine.config or "no file: all is at its default"))
        return
    first, *more = machine.mistakes
    text = f"{first} {f'`edge-fer config check` has {len(more)} more. ' if more else ''}To mend it:"
    file = shlex.quote(str(machine.config))
    if first.startswith(ENV_PREFIX):
        yield Finding("red", text, f"unset {first.partition(':')[0]}")
    elif machine.config and "Permission denied" in first:
        yield Finding("red", text, f"sudo chmod a+rX {shlex.quote(str(machine.config.parent))} {file}")
    elif machine.config and not machine.config.exists():
        yield Finding("red", text, f"edge-fer config init --config {file}")
    else:
        yield Finding("red", text, f"nano {file}")


def check_camera(machine: Machine) -> Iterator[Finding]:
    """The cameras of the configuration are there, may be used, and are not held by another program."""
    for camera in machine.settings.all_cameras:
        source = camera.source
        address = split_address(source)
        if _is_ribbon(source) or source in ("-", "demo") or source.startswith("pipe:"):
            yield Finding("green", f"{source}: nothing to look for here")
        elif address and address[0] != "file":
            yield from _network_camera(machine, source, *address)
        elif source.isdecimal() or source.startswith("/dev/"):
            yield from _v4l2_camera(machine, f"/dev/video{source}" if source.isdecimal() else source)
        elif not source:
            yield Finding(
                "red", "The name of the camera is empty. The first one is:", "edge-fer config edit camera.source 0"
            )
        elif mode_of(os.path.expanduser(source)):  # noqa: PTH111 - pathlib's fails where there is no such user
            yield Finding("green", source)
        else:
            yield Finding("red", f"There is no {printable(source)}. Choose a camera that is there:", "edge-fer cameras")


def _is_ribbon(source: str) -> bool:
    return source.partition(":")[0] in ("picamera", "rpicam")


def _v4l2_camera(machine: Machine, wanted: str) -> Iterator[Finding]:
    cameras = list_cameras(machine.root, machine.ioctl)
    device = _device_behind(machine, wanted)
    camera = next((one for one in cameras if one.device == device), None)
    if camera is None:
        yield _no_camera(machine, wanted, cameras)
    elif camera.refused:
        yield _refused(machine, camera)
    elif holders := [one for one in camera.holders if one.unit != "edge-fer.service"]:
        who = " and ".join(f"{one.program} (pid {one.pid})" for one in holders)
        stop = f"sudo systemctl stop {holders[0].unit}" if holders[0].unit else f"kill {holders[0].pid}"
        yield Finding("red", f"{camera.device} ({camera.name}) is held by {who}. Stop that:", stop)
    elif camera.holders:
        yield Finding("green", f"{camera.device} ({camera.name}), at work in edge-fer.service")
    elif camera.stable and len(cameras) > 1 and not wanted.startswith("/dev/v4l/"):
        text = (
            f"{camera.device} ({camera.name}) is one of {len(cameras)}, whose numbers may change. Give it its own name:"
        )
        yield Finding("yellow", text, f"edge-fer config edit camera.source {camera.stable}")
    else:
        yield Finding("green", f"{camera.device} ({camera.name})")


def _device_behind(machine: Machine, name: str) -> str:
    """What /dev/v4l/by-id/... points to; other names as they are."""
    with suppress(OSError):
        return f"/dev/{machine.path(name).readlink().name}"
    return name


def _no_camera(machine: Machine, wanted: str, cameras: list[Camera]) -> Finding:
    if cameras:
        other = cameras[0]
        text = f"There is no camera {wanted}; there is {other.device} ({other.name}). Take that, or plug the other in:"
        return Finding("red", text, f"edge-fer config edit camera.source {other.stable or other.device}")
    if machine.config is None or wanted == "/dev/video0":
        level: Literal["red", "yellow"] = "yellow" if machine.config is None else "red"
        other_way = "edge-fer config edit camera.source picamera:0"
        if has_pi_pipeline(machine.root):
            return Finding(level, "No USB camera, but one on the ribbon cable. Take that:", other_way)
        text = "No camera. Plug one in; `edge-fer run --camera demo` needs none. What is looked for, and where:"
        return Finding(level, text, "edge-fer cameras")
    return Finding("red", f"There is no camera {wanted}: plug it in. What there is:", "edge-fer cameras")


def _refused(machine: Machine, camera: Camera) -> Finding:
    if camera.refused == "No such file or directory":
        text = f"The kernel has {camera.device} ({camera.name}), and it is not in /dev here. Give it to the container:"
        return Finding("red", text, f"docker run --device {camera.device} ...")
    if camera.refused != "Permission denied":
        text = f"{camera.device} ({camera.name}) cannot be asked: {camera.refused}. Unplug it, plug it in, and see:"
        return Finding("red", text, "sudo dmesg | tail")
    group = next((line.split(":") for line in machine.read("/etc/group").splitlines() if line.startswith("video:")), [])
    listed = len(group) > 3 and machine.user in group[3].split(",")
    if listed and int(group[2]) not in machine.groups:
        text = f"You may use {camera.device} from your next login on; for this shell alone:"
        return Finding("red", text, "newgrp video")
    text = f"{machine.user} may not open {camera.device}. Join the group, then log out and in:"
    return Finding("red", text, f"sudo usermod -aG video {machine.user}")


def _network_camera(machine: Machine, source: str, scheme: str, rest: str) -> Iterator[Finding]:
    """Whether something answers at the port of a camera that speaks TCP."""
    shown = printable(source)
    host, _, port = rest.partition("/")[0].rpartition("@")[2].partition(":")
    if scheme not in _PORTS or not host or host.startswith("[") or not (port or "1").isdecimal():
        yield Finding("green", f"{shown}: not tried here")
        return
    reason = machine.why_unreachable(host, int(port or _PORTS[scheme]))
    if reason:
        text = f"{shown} does not answer ({reason}). Is it switched on, and in this network?"
        yield Finding("red", text, f"ping -c 3 {shlex.quote(host)}")
    else:
        yield Finding("green", f"{shown} answers")


def check_pi_camera(machine: Machine) -> Iterator[Finding]:
    """A camera on the ribbon cable, where there is one or the configuration wants one: picamera2 sees it from here."""
    wanted = any(_is_ribbon(camera.source) for camera in machine.settings.all_cameras)
    if not wanted and not (machine.is_pi and has_pi_pipeline(machine.root)):
        return
    level: Literal["red", "yellow"] = "red" if wanted else "yellow"
    found, reason = list_pi_cameras(machine.run_python)
    if found:
        there = ", ".join(f"picamera:{one.number} ({one.model})" for one in found)
        held = [one for device, some in find_holders(machine.root).items() if "media" in device for one in some]
        others = [one for one in held if one.unit != "edge-fer.service"]
        if others:
            stop = f"sudo systemctl stop {others[0].unit}" if others[0].unit else f"kill {others[0].pid}"
            yield Finding(level, f"{there} is held by {others[0].program} (pid {others[0].pid}). Stop that:", stop)
        else:
            yield Finding("green", there)
    elif not reason:
        config = machine.read("/boot/firmware/config.txt")
        lines = [line.strip() for line in config.splitlines()]
        if config and not any(
            line.startswith(("camera_auto_detect=1", "dtoverlay=imx", "dtoverlay=ov")) for line in lines
        ):
            cure = "echo camera_auto_detect=1 | sudo tee -a /boot/firmware/config.txt && sudo reboot"
            yield Finding(level, "The firmware does not look for cameras. Let it, then start again:", cure)
        else:
            text = "libcamera finds no camera: check both ends of the ribbon cable, with the power off. What it says:"
            yield Finding(level, text, "rpicam-hello --list-cameras")
    else:
        yield Finding(level, *_no_picamera2(machine, reason))


def _no_picamera2(machine: Machine, reason: str) -> tuple[str, str]:
    """Why picamera2 does not load in this Python, and what mends it."""
    if "numpy" in reason.lower():
        text = f"picamera2 was built for another NumPy ({reason}), as on Bookworm; Trixie has no such fault. Try:"
        return text, machine.pip("pip install --force-reinstall --no-deps simplejpeg")
    if "No module named" not in reason:
        return (
            f"picamera2 does not load ({reason}). Install it again:",
            "sudo apt install --reinstall python3-picamera2",
        )
    if not machine.path(_SEEN_BY_DEBIAN + "picamera2").exists():
        return f"picamera2 is not installed ({reason}):", "sudo apt install -y python3-picamera2"
    seen = "s/^include-system-site-packages.*/include-system-site-packages = true/"
    text = "picamera2 is installed, and this virtual environment does not look at the system's packages. Let it:"
    return text, f"sudo sed -i '{seen}' {shlex.quote(str(machine.prefix / 'pyvenv.cfg'))}"


def check_coral(machine: Machine) -> Iterator[Finding]:
    """A Coral, where there is one or the configuration wants one: present, permitted, and its library works."""
    wanted = machine.settings.model.device == "edgetpu"
    level: Literal["red", "yellow"] = "red" if wanted else "yellow"
    usb = [(device, CORAL_USB[found]) for device, found in _usb_devices(machine) if found in CORAL_USB]
    pci = [one for one in machine.path("/sys/bus/pci/devices").glob("*") if _ids(one, "vendor", "device") == CORAL_PCI]
    give_up = "edge-fer config edit model.device cpu"
    if not usb and not pci:
        if wanted:
            text = "The configuration wants a Coral, and none is there: plug it in (a USB 3 port), or do without:"
            yield Finding("red", text, give_up)
        return
    if pci and not machine.path("/dev/apex_0").exists():
        text = "A Coral is on the PCIe bus, and its driver (gasket) is not loaded:"
        yield Finding(level, text, "sudo modprobe apex || sudo apt install -y gasket-dkms")
        return
    denied = [node for node in (_usb_node(machine, device) for device, _ in usb) if not machine.may_write(node)]
    if denied:
        rule = (
            'SUBSYSTEM=="usb", ATTRS{idVendor}=="1a6e|18d1", ATTRS{idProduct}=="089a|9302", TAG+="uaccess", MODE="0666"'
        )
        cure = f"echo '{rule}' | sudo tee /etc/udev/rules.d/99-edge-fer-coral.rules && sudo udevadm control --reload"
        yield Finding(
            level, f"{machine.user} may not use the Coral ({denied[0]}). Allow it, then plug it in again:", cure
        )
        return
    where = f"USB, {usb[0][1]}" if usb else "PCIe"
    child = machine.run_python(CORAL_SCRIPT)
    reason = child.stdout.strip() if child.ok else child.reason
    if reason:
        text = f"A Coral is there ({where}) and cannot be used: {reason.rstrip('.')}. To let the CPU do its work:"
        yield Finding(level, text, give_up)
    elif wanted:
        yield Finding("green", f"{where}; its library works")
    else:
        yield Finding("green", f"{where}; not used: model.device is cpu")


def _usb_devices(machine: Machine) -> Iterator[tuple[Path, tuple[str, str]]]:
    for device in sorted(machine.path("/sys/bus/usb/devices").glob("*")):
        yield device, _ids(device, "idVendor", "idProduct")


def _ids(device: Path, *names: str) -> tuple[str, str]:
    try:
        first, second = ((device / name).read_text(encoding="ascii", errors="replace").strip() for name in names)
    except OSError:  # an interface, or a hub that is unplugged
        return "", ""
    return first, second


def _usb_node(machine: Machine, device: Path) -> Path:
    bus, number = _ids(device, "busnum", "devnum")
    return machine.path(f"/dev/bus/usb/{int(bus or 0):03}/{int(number or 0):03}")


def check_outputs(machine: Machine) -> Iterator[Finding]:
    """The places that outputs write to can be written, and the ports that they listen at are free."""
    for spec in machine.settings.outputs:
        kind, _, name = spec.partition(":")
        try:
            check_network(spec, machine.settings, machine.config.parent if machine.config else None)
        except EdgeFerError as error:
            yield Finding(
                "red",
                f"{printable(str(error))} To mend it:",
                f"nano {shlex.quote(str(machine.config or default_files()[-1]))}",
            )
            continue
        if kind == "web":
            yield _port(machine, spec, name)
            continue
        if name in ("", "-") or name.startswith("//") or "://" in name:  # nowhere, or to an address of others
            continue
        folder = Path(os.path.expanduser(name)).absolute()  # noqa: PTH111 - see sinks
        folder = machine.path(str(folder)) if machine.root != Path("/") else folder
        folder = next(parent for parent in folder.parents if parent.exists())
        if not machine.may_write(folder):
            text = f"{machine.user} may not write {printable(spec)}. Let that folder be yours:"
            yield Finding("red", text, f"sudo chown {machine.user} {shlex.quote(str(folder))}")
        else:
            yield Finding("green", printable(spec))


def _port(machine: Machine, spec: str, where: str) -> Finding:
    """Whether an output that serves can listen where it is told to: HOST:PORT, PORT, or nothing at all."""
    host, number = listening_at(where)
    reason = machine.why_taken(host, number)
    if not reason:
        return Finding("green", printable(spec))
    # The service holds its own port while it runs.
    if machine.read("/sys/fs/cgroup/system.slice/edge-fer.service/cgroup.procs").strip():
        return Finding("green", f"{printable(spec)}: in use, by edge-fer.service as far as can be told")
    text = f"{printable(spec)} cannot listen there ({reason}). Choose another port, or see who does:"
    return Finding("red", text, f"sudo ss -ltnp 'sport = :{number}'")
