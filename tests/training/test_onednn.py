"""Where oneDNN would take a training with it, it is off."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from training import onednn


@pytest.mark.parametrize(
    ("flags", "environment", "reason", "off"),
    [
        ("avx2 amx_tile", {}, "crashes (SIGABRT)", True),
        ("avx512f", {}, "is not ready after 300 s", True),
        ("amx_tile", {}, None, False),
        ("avx2", {}, "crashes (SIGABRT)", False),
        ("amx_tile", {"TF_ENABLE_ONEDNN_OPTS": "1"}, "crashes (SIGABRT)", False),
        ("amx_tile", {"KERAS_BACKEND": "jax"}, "crashes (SIGABRT)", False),
    ],
)
def test_onednn_is_off_where_a_short_training_dies(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: str,
    environment: dict[str, str],
    reason: str | None,
    off: bool,
) -> None:
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(onednn, "why_it_dies", lambda *_, **__: reason)
    begun_anew: list[str] = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: begun_anew.append(program))
    monkeypatch.setitem(sys.modules, "tensorflow", onednn)
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    onednn.guard(tmp_path / "cpuinfo")
    assert (environment.get("TF_ENABLE_ONEDNN_OPTS") == "0") == off
    assert ("oneDNN is off" in capsys.readouterr().err) == off
    assert begun_anew == ([sys.executable] if off else [])


def test_the_trial_trains() -> None:
    done: dict[str, Any] = {}
    exec(onednn._TRIAL, done)
    assert done["model"].optimizer.iterations == 3 * 8
