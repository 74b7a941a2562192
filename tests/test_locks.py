"""The lock files say what pyproject.toml asks for, with hashes; `make lock` makes them."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    "requirements.lock": ("service",),
    "requirements-pi.lock": ("service",),
    "requirements-dev.lock": ("dev",),
    "requirements-train.lock": ("dev", "train"),
}


def locked(name: str) -> dict[str, str]:
    """Version of each package; every one has to have a hash."""
    text = (ROOT / name).read_text(encoding="utf-8")
    entries = re.findall(r"^([a-z0-9-]+)==([^ ;]+)[^\\\n]*\\\n    --hash=sha256:[0-9a-f]{64}\b", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[^\s#]", text, re.MULTILINE))
    return dict(entries)


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_allows_what_the_project_asks_for(name):
    asked = [*PROJECT["dependencies"]]
    for extra in EXTRAS[name]:
        asked += PROJECT["optional-dependencies"][extra]
    versions = locked(name)
    for requirement in map(Requirement, asked):
        if (name, requirement.name) != ("requirements-pi.lock", "numpy"):
            assert requirement.specifier.contains(versions[requirement.name]), f"{requirement}: make lock"


def test_all_locks_agree_on_the_runtime_and_the_pi_takes_numpy_from_apt():
    runtime = locked("requirements.lock")
    assert locked("requirements-pi.lock") == {name: version for name, version in runtime.items() if name != "numpy"}
    for name in ("requirements-dev.lock", "requirements-train.lock"):
        assert runtime.items() <= locked(name).items()


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_names_no_place_to_download_from(name):
    assert "://" not in (ROOT / name).read_text(encoding="utf-8")


def test_the_legacy_packages_are_those_of_the_runtime_with_another_interpreter():
    lines = (ROOT / "requirements-legacy.txt").read_text(encoding="utf-8").splitlines()
    legacy = {Requirement(line).name for line in lines if line and not line.startswith("#")}
    runtime = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert legacy == runtime - {"ai-edge-litert"} | {"tflite-runtime"}
