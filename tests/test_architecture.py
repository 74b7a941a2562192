"""The six rules of docs/architecture.md, as far as a test can hold them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
from mutation import LIBRARIES, TARGETS

from edge_fer.errors import EXIT_CODES

ROOT = Path(__file__).parent.parent
PACKAGES = ("edge_fer", "datasets", "evaluation", "export", "training")
FRAMEWORKS = {"tensorflow", "keras", "jax", "matplotlib", "sklearn", "jinja2"}


def modules() -> dict[str, Path]:
    """All modules of the project's packages, by dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_by(path: Path) -> set[str]:
    """Dotted names of all imports of a file, also those inside functions, not those for type checkers alone."""
    names: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        todo += ast.iter_child_nodes(node)
    return names


def top_level(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported_by(path)}


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        ("edge_fer", {"training", "export", "evaluation", "datasets", *FRAMEWORKS}),
        ("datasets", {"training", "export", "evaluation", "tensorflow", "keras"}),
        ("evaluation", {"training", "export", "tensorflow", "keras"}),
        ("export", {"training"}),
    ],
)
def test_dependencies_point_inward(folder: str, banned: set[str]) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert not top_level(path) & banned, path


def test_there_is_no_circle_of_imports() -> None:
    known = modules()
    graph = {name: imported_by(path) & known.keys() for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in graph[name] - {name}:
                visit(other, (*way, name))
            done.add(name)

    assert len(graph) > 60
    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("folder", ["runtime", "firmware"])
def test_tests_on_a_device_need_no_training(folder: str) -> None:
    """``make test-device`` runs these folders where only the wheel's packages are."""
    banned = {"training", "export", "evaluation", "datasets", *FRAMEWORKS}
    files = sorted((ROOT / "tests" / folder).glob("*.py"))
    assert files
    assert [path.name for path in files if top_level(path) & banned] == []


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("threading", {"edge_fer.threads", "edge_fer.sinks.delivery"}),
        ("ai_edge_litert", set()),
        ("tomlkit", {"edge_fer.config_file"}),
        ("duckdb", {"edge_fer.archive.report"}),
        ("joblib", {"edge_fer.archive.engines", "edge_fer.cli.archive"}),
    ],
)
def test_some_packages_have_one_user(name: str, home: set[str]) -> None:
    users = {module for module, path in modules().items() if name in top_level(path) and module.startswith("edge_fer")}
    assert users == home


def test_one_file_makes_interpreters() -> None:
    makers = {name for name, path in modules().items() if ".Interpreter(" in path.read_text(encoding="utf-8")}
    assert makers - {"export.microcontroller"} == {"edge_fer.model.litert"}  # TensorFlow Lite Micro is another runtime


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_a_benchmark_finds_what_is_not_installed(path: Path) -> None:
    beside = {name.partition(".")[0] for name in imported_by(path)} & {*PACKAGES, "firmware_configs"} - {"edge_fer"}
    assert not beside or "sys.path.insert(0, " in path.read_text(encoding="utf-8")


def test_the_wheel_holds_the_runtime_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {path.parent for path in (ROOT / "edge_fer").rglob("__init__.py")}
    names = {".".join(path.relative_to(ROOT).parts) for path in packages}
    assert set(project["tool"]["setuptools"]["packages"]) == names
    home = ROOT / "edge_fer"
    carried = {file for glob in project["tool"]["setuptools"]["package-data"]["edge_fer"] for file in home.glob(glob)}
    others = {file for file in home.rglob("*.*") if file.suffix not in (".py", ".pyc")}
    assert carried == others


def test_the_table_of_rooms_is_the_tree() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = set(re.findall(r"(?m)^\| `([\w./]+)` \|", text))
    assert [room for room in rooms if not (ROOT / room).exists()] == []
    files = {f"edge_fer/{path.name}" for path in (ROOT / "edge_fer").glob("*.py") if not path.name.startswith("__")}
    folders = {
        f"{path.relative_to(ROOT)}/" for home in (ROOT, ROOT / "edge_fer") for path in home.iterdir() if path.is_dir()
    }
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    folders = {folder for folder in folders if any(name.startswith(folder) for name in tracked)} - {".ci/"}
    assert files <= rooms
    assert not tracked or folders - {"edge_fer/"} <= rooms


def test_mutation_testing_names_files_that_are_there() -> None:
    tests = {f"tests/{name}.py" for names in TARGETS.values() for name in names.split()}
    assert [name for name in sorted(TARGETS.keys() | tests) if not (ROOT / name).is_file()] == []
    assert {name.partition("/")[0] for name in TARGETS} == LIBRARIES.keys()


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_of_the_docs_lead_somewhere(page: str) -> None:
    path = ROOT / page if page in ("README.md", "CONTRIBUTING.md") else ROOT / "docs" / page
    for one in {path, ROOT / "docs" / page} if page == "README.md" else {path}:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", one.read_text(encoding="utf-8")):
            assert "://" in target or (one.parent / target).exists(), f"{one}: {target}"


def test_the_readme_lists_the_exit_codes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"Exit codes: (.*?)\.\s", text, re.DOTALL)
    assert [int(code) for code in re.findall(r"\d+", listed)] == list(EXIT_CODES)


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
        "print(code, [m for m in ('rich', 'tensorflow', 'tomlkit') if m in sys.modules])"
    )
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((60, 60), np.uint8))
    arguments = [str(tmp_path / "x.png"), str(tmp_path / "x.jsonl")]
    child = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "0 []"
