"""The heavy libraries: why one does not load, with the cure; and a first try in a child process, which may die."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from edge_fer.errors import UnavailableError

_PACKAGES = {
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "ai_edge_litert": "ai-edge-litert",
    "tflite_runtime": "tflite-runtime",
    "tensorflow": "tensorflow",
}
"""By module, what pip calls it."""

_WANTED = {
    "cv2": "'opencv-python-headless>=4.13,<5'",
    "joblib": "joblib pyarrow",
    "pyarrow": "joblib pyarrow",
    "dask": "'dask[distributed]'",
    "distributed": "'dask[distributed]'",
    "joblibspark": "joblibspark pyspark",
    "pyspark": "joblibspark pyspark",
}
"""What pip is to install, where the newest will not do (OpenCV 5 has no Haar cascades) or others are wanted as well."""

_TRIAL = """
import sys
for name in "numpy", "cv2", "ai_edge_litert.interpreter":
    print(name.partition(".")[0], flush=True)
    try:
        __import__(name)
    except ImportError as error:
        if name in ("numpy", "cv2"):
            sys.exit(str(error))  # another runtime may do for LiteRT
    except Exception as error:
        sys.exit(str(error))
"""


@dataclass(frozen=True)
class Child:
    """What a script did in a process of its own.

    Attributes:
        code: its exit code; minus the number of the signal that killed it; None where it was not done in time.
        stdout: what it wrote.
        stderr: likewise.
    """

    code: int | None
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.code == 0

    @property
    def signal(self) -> int:
        """The number of the signal that killed it; 0 for none."""
        return -self.code if self.code is not None and self.code < 0 else 0

    @property
    def reason(self) -> str:
        """Why it did not end well, in the last line that it wrote."""
        if self.code is None:
            return "it hangs"
        if self.signal:
            import signal

            return f"it dies ({signal.Signals(self.signal).name})"
        return (self.stderr.strip().splitlines() or ["no reason given"])[-1]


def cannot_load(module: str, reason: str) -> UnavailableError:
    """The error for people when a library that is installed does not load."""
    return _unavailable(*_diagnosis(module, reason))


def _unavailable(text: str, command: str) -> UnavailableError:
    return UnavailableError(f"{text}: run `{command}`." if command else f"{text}.")


def diagnose(module: str, child: Child) -> tuple[str, str]:
    """What is wrong with a library that a child process could not load.

    Args:
        module: the library.
        child: what became of the process.

    Returns:
        A sentence without its end, and the command that mends it; "" where only another system does.
    """
    return _death(module, child.signal) if child.signal else _diagnosis(module, child.reason)


def _diagnosis(module: str, reason: str) -> tuple[str, str]:
    package = _PACKAGES.get(module, module)
    wanted = _WANTED.get(module, package)
    reason = " ".join(reason.removeprefix("ImportError: ").removeprefix("ModuleNotFoundError: ").split()).rstrip(".")
    if reason == f"No module named '{module}'":
        return f"{package} is not installed", f"pip install {wanted}"
    text = f"{package} is installed and does not load: {reason}."
    if "GLIBC" in reason:  # of the C library and of libstdc++
        return f"{text} It was built for a newer system: take Raspberry Pi OS Bookworm or Debian 12, or later", ""
    if "baseline" in reason:  # NumPy's word for the instructions that it needs
        return f"{text} It was built for a newer processor; build it here", _build_here(module)
    if module == "cv2" and "cannot open shared object" in reason:
        command = f"pip uninstall -y opencv-python opencv-contrib-python && pip install --force-reinstall {wanted}"
        return f"{text} This is the OpenCV that has windows; take the other", command
    return f"{text} Install it again", f"pip install --force-reinstall {wanted}"


def _build_here(module: str) -> str:
    package = _PACKAGES[module]
    return f"pip install --force-reinstall --no-binary {package} {_WANTED.get(module, package)}"


def about_import(error: ImportError) -> UnavailableError:
    """The error for people when an import failed somewhere: of the last of the heavy libraries on its way."""
    culprit = (error.name or "a package").partition(".")[0]
    way: TracebackType | None = error.__traceback__
    while way is not None:
        module = str(way.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        culprit = module if module in _PACKAGES else culprit
        way = way.tb_next
    return cannot_load(culprit, str(error))


def try_libraries() -> None:
    """Load the heavy libraries in a child process, unless they have worked on this machine before.

    On a processor that is too old for them they do not fail: they kill their process. What has worked leaves a mark in
    the user's cache, so that one start alone pays for this. Where no mark can be left nothing is tried.

    Raises:
        UnavailableError: one of them does not load here.
    """
    if "cv2" in sys.modules or not sys.executable:
        return
    mark = _mark_file()
    if not mark.is_absolute():  # somebody without a home
        return
    facts = _facts()
    try:
        if mark.read_text(encoding="utf-8", errors="replace") == facts:
            return
    except OSError:
        with suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
    there = os.path.exists(mark)  # noqa: PTH110 - pathlib's fails in a home that this user may not enter
    if not os.access(mark if there else mark.parent, os.W_OK):
        return
    child = run_python(_TRIAL)
    module = (child.stdout.split() or ["numpy"])[-1]
    if not child.ok:
        raise _unavailable(*diagnose(module, child))
    with suppress(OSError):
        mark.write_text(facts, encoding="utf-8", errors="replace")


def run_python(script: str, *arguments: str, timeout_s: float = 120.0) -> Child:
    """Run a script in a process of its own, with the packages of this one.

    Args:
        script: Python.
        arguments: what stands in its ``sys.argv``.
        timeout_s: it is killed after that; the slowest board takes less to load all libraries.
    """
    import subprocess

    # Python's own modules come first, whatever lies in the working directory.
    command = [sys.executable, "-I" if sys.flags.isolated else "-P", "-c", script, *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Child(None, "", "")
    return Child(done.returncode, done.stdout, done.stderr)


def _death(module: str, number: int) -> tuple[str, str]:
    """``_diagnosis`` where a signal kills the process that loads a library."""
    import signal

    package, name = _PACKAGES[module], signal.Signals(number).name
    if number == signal.SIGILL:
        return (
            f"{package} dies when it is loaded ({name}, an illegal instruction): it was built for a newer processor. "
            "On an ARM board set OPENBLAS_CORETYPE=ARMV8; else build it here",
            _build_here(module),
        )
    return (
        f"{package} dies when it is loaded ({name}): it does not fit this system, or is damaged. Install it again",
        f"pip install --force-reinstall {_WANTED.get(module, package)}",
    )


def _mark_file() -> Path:
    # systemd names the folders of a service, which may have no home.
    service = os.environ.get("CACHE_DIRECTORY") or os.environ.get("STATE_DIRECTORY")
    if service:
        return Path(service.partition(":")[0], "libraries")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - see config.py
    return Path(cache, "edge-fer", "libraries")


def _facts() -> str:
    """What must not have changed: the processor, this Python, and the files of the libraries."""
    processor = ""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        lines = file.read(4096).splitlines()  # of the first core
        processor = "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU ")))
    lines = [sys.version, processor]
    for module in ("numpy", "cv2", "ai_edge_litert"):
        with suppress(OSError, ValueError):
            spec = find_spec(module)
            if spec is not None and spec.origin:
                facts = os.stat(spec.origin)  # noqa: PTH116
                lines.append(f"{spec.origin} {facts.st_size} {facts.st_mtime_ns}")
    return "\n".join(lines)
