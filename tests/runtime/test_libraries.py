"""Heavy libraries that do not load, or die of it: the real reason and the cure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from edge_fer import libraries

ROOT = Path(__file__).parents[2]
FAKES = {
    "libGL": ("cv2", 'raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")'),
    "libglib": ("cv2", 'raise ImportError("libgthread-2.0.so.0: cannot open shared object file")'),
    "glibc": ("cv2", 'raise ImportError("libc.so.6: version `GLIBC_2.34\' not found")'),
    "numpy": ("numpy", 'raise ImportError("libopenblas.so: cannot open shared object file")'),
    "absent": ("numpy", "raise ModuleNotFoundError(\"No module named 'numpy'\", name='numpy')"),
    "baseline": ("numpy", 'raise RuntimeError("NumPy was built with baseline optimizations: (X86_V2)")'),
    "litert": ("ai_edge_litert", 'raise ImportError("libstdc++.so.6: version GLIBCXX_3.4.30 not found")'),
    "illegal": ("cv2", "import os; os.kill(os.getpid(), 4)"),
    "illegal numpy": ("numpy", "import os; os.kill(os.getpid(), 4)"),
    "crash": ("ai_edge_litert", "import os; os.abort()"),
}
SAID = {
    "libGL": "libGL.so.1: cannot open shared object file: No such file or directory. This is the OpenCV that has",
    "libglib": "libgthread-2.0.so.0: cannot open shared object file. This is the OpenCV",
    "glibc": "opencv-python-headless is installed and does not load: libc.so.6: version `GLIBC_2.34' not found. It was",
    "numpy": "numpy is installed and does not load: libopenblas.so",
    "absent": "numpy is not installed: run `pip install numpy`.",
    "baseline": "(X86_V2). It was built for a newer processor",
    "litert": "ai-edge-litert is installed and does not load: libstdc++.so.6: version GLIBCXX_3.4.30 not found. It was",
    "illegal": "opencv-python-headless dies when it is loaded (SIGILL, an illegal instruction)",
    "illegal numpy": "numpy dies when it is loaded (SIGILL, an illegal instruction)",
    "crash": "ai-edge-litert dies when it is loaded (SIGABRT)",
}


def call(folder: Path, *arguments: str, cache: str = "cache") -> tuple[int, str]:
    """Exit code and stderr of a command that finds modules of the folder first."""
    environ = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "XDG_CACHE_HOME": str(folder / cache)}
    environ |= {"XDG_CONFIG_HOME": str(folder)}
    for name in ("CACHE_DIRECTORY", "STATE_DIRECTORY"):
        environ.pop(name, None)
    child = subprocess.run(
        [sys.executable, "-P", "-m", "edge_fer", *arguments], env=environ, capture_output=True, text=True, check=False
    )
    return child.returncode, child.stderr


def replace(module: str, code: str, folder: Path) -> None:
    """A module of that name and code in a folder; its predecessor, which would do too, is not there."""
    absent = "raise ModuleNotFoundError(name='tflite_runtime')"
    others = {"tflite_runtime": absent} if module == "ai_edge_litert" else {}
    for name, content in {module: code, **others}.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(content)


@pytest.mark.parametrize("fake", FAKES)
def test_the_reason_and_the_cure_are_said(fake: str, tmp_path: Path) -> None:
    replace(*FAKES[fake], tmp_path)
    for arguments in (["run", "--camera", "demo", "--output", "csv:/dev/null"], ["bench", "--frames", "3"]):
        returned, err = call(tmp_path, *arguments)
        assert returned == 69
        (line,) = err.splitlines()
        assert SAID[fake] in line
        assert "pip install" in line or "Debian 12" in line


@pytest.mark.parametrize("fake", ["libGL", "glibc", "numpy", "litert"])
def test_also_where_no_mark_can_be_left(fake: str, tmp_path: Path) -> None:
    replace(*FAKES[fake], tmp_path)
    (tmp_path / "cache").write_text("in the way")
    returned, err = call(tmp_path, "run", "--camera", "demo", "--output", "csv:/dev/null")
    assert returned == 69
    assert SAID[fake] in err


def test_what_has_worked_is_not_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "cv2"
    folder.mkdir()
    count = f"import os; open({str(tmp_path / 'count')!r}, 'a').write('x'); raise ImportError('libGL: not here')"
    assert call(tmp_path / "none", "cameras", cache=str(tmp_path / "cache"))[0] == 0
    mark = tmp_path / "cache" / "edge-fer" / "libraries"
    before = mark.stat().st_mtime_ns
    assert call(tmp_path / "none", "cameras", cache=str(tmp_path / "cache"))[0] == 0
    assert mark.stat().st_mtime_ns == before
    (folder / "__init__.py").write_text(count)
    assert call(tmp_path, "cameras")[0] == 69  # another OpenCV
    assert (tmp_path / "count").read_text() == "x"  # in the child, and not here again


def test_a_home_that_may_not_be_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    tmp_path.chmod(0)  # as /root is for others
    for name in ("CACHE_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    monkeypatch.setattr(libraries, "run_python", lambda script: pytest.fail("no mark can be left"))
    with nobody():
        libraries.try_libraries()
