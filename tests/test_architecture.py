"""The five rules of docs/architecture.md, as far as a test can hold them."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imported_by(path: Path) -> set[str]:
    """Top-level names of all imports of a file, also those inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        ("edge_fer", {"training", "export", "evaluation", "tensorflow", "keras", "matplotlib"}),
        ("evaluation", {"training", "export", "tensorflow", "keras"}),
        ("training", {"export"}),
        ("export", {"training"}),
    ],
)
def test_dependencies_point_inward(folder: str, banned: set[str]) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert not imported_by(path) & banned, path


@pytest.mark.parametrize("folder", ["runtime", "firmware"])
def test_tests_on_a_device_need_no_training(folder: str) -> None:
    """``make test-device`` runs these folders where only the wheel's packages are."""
    banned = {"training", "export", "evaluation", "datasets", "tensorflow", "keras", "matplotlib"}
    files = sorted((ROOT / "tests" / folder).glob("*.py"))
    assert files
    assert [path.name for path in files if imported_by(path) & banned] == []


def test_threads_live_in_one_file() -> None:
    users = {path.name for path in (ROOT / "edge_fer").rglob("*.py") if "threading" in imported_by(path)}
    assert users == {"threads.py"}


def test_the_wheel_holds_the_runtime_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {path.parent for path in (ROOT / "edge_fer").rglob("__init__.py")}
    names = {".".join(path.relative_to(ROOT).parts) for path in packages}
    assert set(project["tool"]["setuptools"]["packages"]) == names
    home = ROOT / "edge_fer"
    carried = {file for glob in project["tool"]["setuptools"]["package-data"]["edge_fer"] for file in home.glob(glob)}
    others = {file for file in home.rglob("*.*") if file.suffix not in (".py", ".pyc")}
    assert carried == others


def test_help_loads_neither_opencv_nor_the_runtime() -> None:
    script = (
        "import sys; from edge_fer.cli import build_parser; build_parser().format_help(); "
        "print([m for m in ('cv2', 'numpy', 'ai_edge_litert', 'rich', 'tensorflow') if m in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_a_service_does_not_load_rich(tmp_path: Path) -> None:
    script = (
        "import sys; from edge_fer.cli import main; "
        "code = main(['run', '--camera', sys.argv[1], '--output', 'jsonl:' + sys.argv[2]]); "
        "print(code, 'rich' in sys.modules, 'tensorflow' in sys.modules)"
    )
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((60, 60), np.uint8))
    arguments = [str(tmp_path / "x.png"), str(tmp_path / "x.jsonl")]
    child = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "0 False False"
