"""In .ci/run no test is skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("required", "code", "summary"),
    [
        ("", 0, "1 passed, 2 skipped"),
        ("1", 1, "1 passed, 1 failed, 1 error"),
    ],
)
def test_a_skipped_test_fails_where_real_parts_are_required(
    tmp_path: Path, required: str, code: int, summary: str
) -> None:
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "test_one.py").write_text(
        "import pytest\n\ndef test_one(): pytest.skip('no compiler')\n\ndef test_two(): pass\n"
    )
    (tmp_path / "test_file.py").write_text("import pytest\npytest.skip('no JAX', allow_module_level=True)\n")
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rs",
        "--rootdir",
        tmp_path,
        "--continue-on-collection-errors",
        tmp_path,
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path, "REQUIRE_REAL_PARTS": required, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    assert all(reason in done.stdout for reason in ("no compiler", "no JAX"))
    *counts, _ = done.stdout.splitlines()[-1].strip("= ").split(" in ")
    assert sorted(counts[0].split(", ")) == sorted(summary.split(", "))
