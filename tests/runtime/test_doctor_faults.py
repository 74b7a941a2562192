"""Each seeded fault is found by ``edge-fer doctor``: red with the one command that mends it, or yellow."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board_fake import Board

from edge_fer import cameras
from edge_fer.config import DetectorSettings, ModelSettings, Settings
from edge_fer.doctor import devices, packages
from edge_fer.libraries import Child


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def broken(script: str, child: Child) -> Callable[[Board], None]:
    return lambda board: board.answers.update({script: child})


def said(script: str, **facts: Any) -> Callable[[Board], None]:
    return lambda board: board.answers.update({script: {**board.answers[script], **facts}})


def fields(**values: Any) -> Callable[[Board], None]:
    return lambda board: board.fields.update(values)


def text(name: str, content: str) -> Callable[[Board], None]:
    return lambda board: board.write(name, content)


def several(*faults: Callable[[Board], None]) -> Callable[[Board], None]:
    def act(board: Board) -> None:
        for fault in faults:
            fault(board)

    return act


def no_camera(board: Board) -> None:
    (board.root / "sys/class/video4linux/video0/name").unlink()
    (board.root / "sys/class/video4linux/video0").rmdir()


def pi_camera(board: Board) -> None:
    board.write("sys/class/video4linux/video7/name", "unicam-image\n")


def usb_coral(vendor: str, product: str) -> Callable[[Board], None]:
    def act(board: Board) -> None:
        for name, value in (("idVendor", vendor), ("idProduct", product), ("busnum", "2"), ("devnum", "7")):
            board.write(f"sys/bus/usb/devices/2-1/{name}", value + "\n")

    return act


def pcie_coral(board: Board) -> None:
    board.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x1ac1\n")
    board.write("sys/bus/pci/devices/0000:01:00.0/device", "0x089a\n")


SSD = fields(settings=Settings(detector=DetectorSettings(kind="ssd")))
EDGETPU = fields(settings=Settings(model=ModelSettings(device="edgetpu")))
PI = "/opt/x/bin/python -m pip install"
ILLEGAL = Child(-signal.SIGILL, "", "")


def source(name: str) -> Callable[[Board], None]:
    return lambda board: board.source(name)


def missing(module: str) -> Child:
    return Child(1, "", f"Traceback (most recent call last):\nModuleNotFoundError: No module named '{module}'\n")


def failed(reason: str) -> Child:
    return Child(1, "", f"Traceback (most recent call last):\nImportError: {reason}\n")


RED: list[tuple[str, Callable[[Board], None], str, str]] = [
    ("64-bit", fields(bits=32, arch="armv7l"), "This system is 32-bit, and", "rpi-imager"),
    ("64-bit", fields(bits=32), "although the processor could do more", "rpi-imager"),
    ("Python", fields(python=(3, 9)), "Python 3.9 is too old", "rpi-imager"),
    ("C library", fields(libc=("", "")), "Alpine has musl", "docker pull python"),
    ("C library", fields(libc=("glibc", "2.27")), "glibc 2.27 is older", "rpi-imager"),
    (
        "configuration",
        fields(mistakes=("x: unknown key 'a'.", "y"), config=Path("/proc/self/../self/status")),
        "unknown key 'a'. `edge-fer config check` has 1 more",
        "nano /proc/self/",
    ),
    (
        "configuration",
        fields(mistakes=("Cannot read.",), config=Path("/none/c d.toml")),
        "Cannot read. To mend it:",
        "edge-fer config init --config '/none/c d.toml'",
    ),
    (
        "configuration",
        fields(mistakes=("Cannot read c: Permission denied.",), config=Path("/none/c d.toml")),
        "Permission denied. To mend it:",
        "sudo chmod a+rX /none '/none/c d.toml'",
    ),
    ("configuration", fields(mistakes=("EDGE_FER_X: unknown key 'x'.",)), "unknown key 'x'", "unset EDGE_FER_X"),
    ("NumPy", broken(packages.NUMPY_SCRIPT, missing("numpy")), "not installed", f"{PI} numpy"),
    (
        "NumPy",
        broken(packages.NUMPY_SCRIPT, ILLEGAL),
        "SIGILL, an illegal instruction",
        f"{PI} --force-reinstall --no-binary numpy numpy",
    ),
    (
        "OpenCV",
        broken(packages.OPENCV_SCRIPT, missing("cv2")),
        "not installed",
        f"{PI} 'opencv-python-headless>=4.13,<5'",
    ),
    (
        "OpenCV",
        broken(packages.OPENCV_SCRIPT, failed("libGL.so.1: cannot open shared object file")),
        "has windows",
        "-m pip uninstall -y opencv-python opencv-contrib-python && /opt/x/bin/python -m pip install --force-reinstall",
    ),
    (
        "OpenCV",
        broken(packages.OPENCV_SCRIPT, failed("libc.so.6: version `GLIBC_2.34' not found")),
        "newer system",
        "rpi-imager",
    ),
    ("OpenCV", said(packages.OPENCV_SCRIPT, cascade=False, version="5.0.0"), "5.0.0 has no Haar cascade", ",<5'"),
    (
        "OpenCV",
        broken(packages.OPENCV_SCRIPT, failed("numpy.core.multiarray failed to import")),
        "does not fit NumPy 2.2.4",
        ",<5'",
    ),
    ("OpenCV", broken(packages.OPENCV_SCRIPT, ILLEGAL), "illegal instruction", "--no-binary opencv-python-headless"),
    ("OpenCV", broken(packages.OPENCV_SCRIPT, Child(None, "", "")), "it hangs", "--force-reinstall"),
    ("runtime", broken(packages.RUNTIME_SCRIPT, missing("ai_edge_litert")), "not installed", f"{PI} ai-edge-litert"),
    ("runtime", said(packages.RUNTIME_SCRIPT, name="tflite-runtime"), "built for NumPy 1", "ai-edge-litert"),
    ("runtime", broken(packages.RUNTIME_SCRIPT, ILLEGAL), "ai-edge-litert dies", "--no-binary"),
    ("model", said(packages.MODEL_SCRIPT, error="accurate.tflite is damaged."), "is damaged. To install", "edge-fer"),
    (
        "model",
        several(
            fields(settings=Settings(model=ModelSettings(path="my.tflite"))),
            said(packages.MODEL_SCRIPT, error="my.tflite is damaged."),
        ),
        "my.tflite is damaged.",
        "edge-fer config edit model.path accurate",
    ),
    (
        "model",
        broken(packages.MODEL_SCRIPT, Child(-11, "loaded\n", "")),
        "self-test (it dies (SIGSEGV))",
        "ai-edge-litert",
    ),
    (
        "detector",
        several(SSD, said(packages.DETECTOR_SCRIPT, error="face.tflite is damaged.")),
        "face.tflite is damaged. To take OpenCV's",
        "edge-fer config edit detector.kind haar",
    ),
    (
        "detector",
        several(SSD, broken(packages.DETECTOR_SCRIPT, Child(-4, "loaded\n", ""))),
        "ssd dies when it is opened (it dies (SIGILL))",
        "edge-fer config edit detector.kind haar",
    ),
    (
        "camera",
        several(source("/dev/video3")),
        "no camera /dev/video3; there is /dev/video0",
        "edge-fer config edit camera.source /dev/video0",
    ),
    (
        "camera",
        several(source("/dev/v4l/by-id/usb-X"), no_camera),
        "no camera /dev/v4l/by-id/usb-X",
        "edge-fer cameras",
    ),
    ("camera", several(source("0"), no_camera, pi_camera), "one on the ribbon cable", "camera.source picamera:0"),
    ("camera", several(source("0"), no_camera), "No camera. Plug one in", "edge-fer cameras"),
    ("camera", lambda board: board.video.hold(0, 812, "rpicam-vid"), "held by rpicam-vid (pid 812)", "kill 812"),
    (
        "camera",
        lambda board: board.video.hold(0, 90, "motion", "0::/system.slice/motion.service\n"),
        "held by motion",
        "sudo systemctl stop motion.service",
    ),
    ("camera", lambda board: setattr(board.video.cameras[0], "fails", errno.EIO), "Input/output error", "dmesg"),
    (
        "camera",
        lambda board: (board.root / "dev/video0").unlink(),
        "it is not in /dev here",
        "docker run --device /dev/video0",
    ),
    ("camera", source("/srv/none.mp4"), "There is no /srv/none.mp4", "edge-fer cameras"),
    (
        "camera",
        several(source("rtsp://me:hunter2@porch:8554/x"), fields(why_unreachable=lambda host, port: f"{host} {port}")),
        "rtsp://porch:8554/... does not answer (porch 8554)",
        "ping -c 3 porch",
    ),
    (
        "Pi camera",
        several(source("picamera:0"), broken(cameras._PI_SCRIPT, missing("picamera2"))),
        "is not installed",
        "sudo apt install -y python3-picamera2",
    ),
    (
        "Pi camera",
        several(
            source("picamera:0"),
            broken(cameras._PI_SCRIPT, missing("picamera2")),
            text("usr/lib/python3/dist-packages/picamera2/__init__.py", ""),
        ),
        "does not look at the system's packages",
        "include-system-site-packages = true/' /opt/x/pyvenv.cfg",
    ),
    (
        "Pi camera",
        several(source("picamera:0"), broken(cameras._PI_SCRIPT, failed("numpy.dtype size changed"))),
        "built for another NumPy",
        "simplejpeg",
    ),
    (
        "Pi camera",
        several(source("picamera:0"), broken(cameras._PI_SCRIPT, ILLEGAL)),
        "it dies (SIGILL)",
        "--reinstall",
    ),
    (
        "Pi camera",
        several(source("picamera:0"), lambda board: board.answers.update({cameras._PI_SCRIPT: []})),
        "check both ends of the ribbon cable",
        "rpicam-hello --list-cameras",
    ),
    (
        "Pi camera",
        several(
            source("picamera:0"),
            lambda board: board.answers.update({cameras._PI_SCRIPT: []}),
            text("boot/firmware/config.txt", "# camera_auto_detect=1\n"),
        ),
        "does not look for cameras",
        "camera_auto_detect=1",
    ),
    (
        "Pi camera",
        several(
            source("picamera:0"),
            text("proc/55/comm", "rpicam-vid"),
            lambda board: (board.root / "proc/55/fd").mkdir(),
            lambda board: (board.root / "proc/55/fd/3").symlink_to("/dev/media0"),
        ),
        "held by rpicam-vid (pid 55)",
        "kill 55",
    ),
    ("Coral", EDGETPU, "none is there", "edge-fer config edit model.device cpu"),
    (
        "Coral",
        several(EDGETPU, usb_coral("1a6e", "089a"), fields(may_write=lambda path: False)),
        "may not use the Coral",
        "udevadm control --reload",
    ),
    (
        "Coral",
        several(
            EDGETPU, usb_coral("1a6e", "089a"), broken(devices.CORAL_SCRIPT, Child(0, "crashes (signal 11)\n", ""))
        ),
        "(USB, before its first use) and cannot be used: crashes",
        "model.device cpu",
    ),
    (
        "Coral",
        several(EDGETPU, usb_coral("18d1", "9302"), broken(devices.CORAL_SCRIPT, Child(-11, "", ""))),
        "(USB, in use before) and cannot be used: it dies (SIGSEGV)",
        "model.device cpu",
    ),
    ("Coral", several(EDGETPU, pcie_coral), "driver (gasket) is not loaded", "modprobe apex"),
    (
        "outputs",
        fields(settings=Settings(outputs=["terminal", "jsonl:/srv/x/e.jsonl"]), may_write=lambda path: False),
        "may not write jsonl:/srv/x/e.jsonl",
        "sudo chown pi ",
    ),
    (
        "outputs",
        fields(settings=Settings(outputs=["web:127.0.0.1:8080"]), why_taken=lambda host, port: f"{host} {port} in use"),
        "web:127.0.0.1:8080 cannot listen there (127.0.0.1 8080 in use)",
        "sudo ss -ltnp 'sport = :8080'",
    ),
    ("outputs", fields(settings=Settings(outputs=["web:here"])), "web:here is no address to listen at", "nano "),
    ("outputs", fields(settings=Settings(outputs=["web:0.0.0.0:8080"])), "no token guards it", "nano "),
    ("outputs", fields(settings=Settings(outputs=["mqtt://me:secret@host"])), "mqtt://host holds a password", "nano "),
    ("outputs", fields(settings=Settings(outputs=["web:65536"])), "web:65536 is no address to listen at", "nano "),
    (
        "memory",
        text("proc/meminfo", "MemTotal: 437000 kB\nMemAvailable: 60000 kB\nSwapFree: 90000 kB\n"),
        "58 MB of 426",
        "systemctl isolate",
    ),
    (
        "memory limit",
        text("sys/fs/cgroup/system.slice/edge-fer.service/memory.max", "67108864\n"),
        "At most 64 MB",
        "sudo systemctl set-property edge-fer.service MemoryMax=256M",
    ),
    ("memory limit", text("sys/fs/cgroup/system.slice/memory.max", "67108864\n"), "At most 64 MB", "set-property"),
    (
        "memory limit",
        several(
            text("proc/self/cgroup", "3:memory:/\n"), text("sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n")
        ),
        "At most 100 MB",
        "docker update --memory",
    ),
    ("disk", fields(free_bytes=lambda folder: 20 << 20), "20 MB left", "sudo apt-get clean"),
    ("clock", fields(now_s=86_400.0), "before the day on which edge-fer was installed", "timedatectl set-ntp true"),
    (
        "camera memory",
        several(source("picamera:0"), text("proc/meminfo", "CmaTotal: 16384 kB\nCmaFree: 100 kB\n")),
        "16 MB of contiguous memory",
        "cma-128",
    ),
    (
        "power",
        text("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
        "under-voltage, throttled",
        "vcgencmd get_throttled",
    ),
]

YELLOW: list[tuple[str, Callable[[Board], None], str]] = [
    ("detector", said(packages.DETECTOR_SCRIPT, error="face.tflite is damaged."), "damaged. To take OpenCV's"),
    ("64-bit", fields(arch="riscv64"), "riscv64"),
    (
        "64-bit",
        several(fields(bits=32, arch="armv7l"), broken("import tflite_runtime.interpreter", Child(0, "", ""))),
        "32-bit",
    ),
    ("Python", fields(python=(3, 15)), "newer than what was tested, 3.14"),
    ("OpenCV", said(packages.OPENCV_SCRIPT, numpy="1.26.4"), "made for NumPy 2"),
    ("OpenCV", said(packages.OPENCV_SCRIPT, packages=["opencv-python", "opencv-python-headless"]), "spoil one another"),
    (
        "OpenCV",
        several(
            broken(packages.OPENCV_SCRIPT, failed("No module named 'numpy'")),
            broken(packages.NUMPY_SCRIPT, missing("numpy")),
        ),
        "mend NumPy first",
    ),
    ("model", broken(packages.MODEL_SCRIPT, missing("cv2")), "mend the lines above first"),
    ("camera", no_camera, "No camera. Plug one in"),
    ("camera", several(no_camera, pi_camera), "one on the ribbon cable"),
    ("Pi camera", several(pi_camera, broken(cameras._PI_SCRIPT, missing("picamera2"))), "not installed"),
    (
        "Coral",
        several(usb_coral("1a6e", "089a"), broken(devices.CORAL_SCRIPT, Child(0, "not installed\n", ""))),
        "not inst",
    ),
    (
        "memory",
        text("proc/meminfo", "MemTotal: 437000 kB\nMemAvailable: 60000 kB\nSwapFree: 900000 kB\n"),
        "be swapped",
    ),
    ("memory limit", text("sys/fs/cgroup/cgroup.controllers", "cpu pids\n"), "switches the memory controller off"),
    ("disk", fields(free_bytes=lambda folder: 200 << 20), "200 MB left"),
    ("clock", fields(is_synchronized=lambda: False), "follows no other"),
    ("camera memory", text("proc/meminfo", "CmaTotal: 16384 kB\nCmaFree: 100 kB\n"), "16 MB of contiguous memory"),
    ("power", text("sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n"), "since boot"),
    ("power", text("sys/class/thermal/thermal_zone0/temp", "82000\n"), "hot"),
]


@pytest.mark.parametrize(("check", "fault", "words", "cure"), RED, ids=[f"{n}-{row[0]}" for n, row in enumerate(RED)])
def test_faults_are_red_and_named_with_one_cure(
    check: str, fault: Callable[[Board], None], words: str, cure: str, board: Board
) -> None:
    fault(board)
    found = board.findings()
    one = found[check]
    assert one.level == "red"
    assert words in one.text
    assert cure in one.cure
    assert "\n" not in one.cure and "hunter2" not in one.text
    others = {name: other for name, other in found.items() if name != check and other.level == "red"}
    assert others == {}


@pytest.mark.parametrize(("check", "fault", "words"), YELLOW, ids=[f"{n}-{row[0]}" for n, row in enumerate(YELLOW)])
def test_what_works_but_should_be_looked_at_is_yellow(
    check: str, fault: Callable[[Board], None], words: str, board: Board
) -> None:
    fault(board)
    found = board.findings()[check]
    assert (found.level, words in found.text) == ("yellow", True), found


@pytest.mark.parametrize(
    ("check", "state", "words"),
    [
        ("camera", lambda board: board.video.hold(0, 9, "edge-fer", "0::/system.slice/edge-fer.service\n"), "at work"),
        ("camera", source("rtsp://porch/x"), "rtsp://porch/... answers"),
        ("camera", source("udp://@:5000"), "not tried here"),
        ("camera", source("http://[fe80::1]/x"), "not tried here"),
        ("camera", source("demo"), "demo"),
        ("Pi camera", source("picamera"), "picamera:0 (imx708)"),
        ("Coral", several(EDGETPU, usb_coral("18d1", "9302")), "USB, in use before; its library works"),
        ("Coral", usb_coral("1a6e", "089a"), "not used: model.device is cpu"),
        ("Coral", several(pcie_coral, text("dev/apex_0", "")), "PCIe; not used"),
        ("outputs", fields(settings=Settings(outputs=["csv:/srv/x.csv"])), "csv:/srv/x.csv"),
        ("outputs", fields(settings=Settings(outputs=["web:"])), "web:"),
        (
            "outputs",
            several(
                fields(settings=Settings(outputs=["web:[::1]:8080"]), why_taken=lambda host, port: f"{host} in use"),
                text("sys/fs/cgroup/system.slice/edge-fer.service/cgroup.procs", "812\n"),
            ),
            "web:[::1]:8080: in use, by edge-fer.service",
        ),
        ("model", said(packages.MODEL_SCRIPT, lsb=1), "within 1 LSB"),
        ("clock", fields(is_synchronized=lambda: None), "cannot be told"),
    ],
)
def test_what_is_good_is_said(check: str, state: Callable[[Board], None], words: str, board: Board) -> None:
    state(board)
    found = board.findings()[check]
    assert (found.level, words in found.text) == ("green", True), found


MEMORY = "MemTotal: 3884316 kB\nMemAvailable: {} kB\nSwapFree: {} kB\n"


@pytest.mark.parametrize(
    ("check", "state", "level"),
    [
        ("Python", fields(python=(3, 11)), "green"),
        ("Python", fields(python=(3, 14)), "green"),
        ("C library", fields(libc=("glibc", "2.28")), "green"),
        ("memory", text("proc/meminfo", MEMORY.format(160 * 1024, 0)), "green"),
        ("memory", text("proc/meminfo", MEMORY.format(159 * 1024, 1024)), "yellow"),
        ("memory", text("proc/meminfo", MEMORY.format(159 * 1024, 0)), "red"),
        ("memory", text("proc/meminfo", "MemTotal: 3884316 kB\n"), None),
        ("memory limit", text("sys/fs/cgroup/system.slice/memory.max", f"{160 << 20}\n"), "yellow"),
        ("memory limit", text("sys/fs/cgroup/system.slice/memory.max", f"{159 << 20}\n"), "red"),
        ("disk", fields(free_bytes=lambda folder: 50 << 20), "yellow"),
        ("disk", fields(free_bytes=lambda folder: 49 << 20), "red"),
        ("disk", fields(free_bytes=lambda folder: 500 << 20), "green"),
        ("camera memory", text("proc/meminfo", "CmaTotal: 65536 kB\nCmaFree: 100 kB\n"), "green"),
        ("camera memory", text("proc/meminfo", "CmaTotal: 65536 kB\n"), None),
        ("power", text("sys/class/thermal/thermal_zone0/temp", "79900\n"), "green"),
        ("power", text("sys/class/thermal/thermal_zone0/temp", "80000\n"), "yellow"),
        ("power", lambda board: (board.root / "sys/devices/platform/soc/soc:firmware/get_throttled").unlink(), None),
    ],
)
def test_where_a_level_begins(check: str, state: Callable[[Board], None], level: str | None, board: Board) -> None:
    board.write("sys/fs/cgroup/cgroup.controllers", "memory\n" if check != "memory limit" else "cpu\n")
    state(board)
    found = board.findings().get(check)
    assert (found and found.level) == level
