"""Secrets in files of root's, and what a check says of outputs in the network before they are opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_fer import credentials
from edge_fer.cli import main
from edge_fer.config import MqttSettings, Settings, WebSettings, all_settings
from edge_fer.credentials import SETTINGS, credential_of, roots_alone, secret_file
from edge_fer.doctor.devices import check_outputs
from edge_fer.doctor.machine import Machine
from edge_fer.errors import EdgeFerError
from edge_fer.sinks import check_network

Call = Callable[..., Any]
TOKEN = "correct horse battery staple"


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that only root may read, whoever runs the test."""
    path = tmp_path / "roots"
    path.write_text(TOKEN)
    may = os.access
    monkeypatch.setattr(credentials.os, "access", lambda name, mode: str(name) != str(path) and may(name, mode))
    return path


def test_every_file_of_the_network_is_known() -> None:
    named = {one.key for one in all_settings() if one.key.endswith("_file")}
    assert named == set(SETTINGS)


def test_a_file_that_may_not_be_read_is_handed_over(
    roots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.touch()
    assert secret_file("web.key_file", "") == ""
    assert secret_file("web.key_file", str(roots)) == str(roots), "whoever opens it says what is wrong"
    (tmp_path / credential_of("web.key_file")).touch()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert secret_file("web.key_file", str(roots)) == secret_file("web.key_file", "") == str(tmp_path / "web-key")
    assert secret_file("web.key_file", str(mine)) == str(mine)
    assert secret_file("web.token_file", str(roots)) == str(roots)


def test_whether_files_are_roots_alone(roots: Path) -> None:
    assert roots_alone(Settings(web=WebSettings(key_file=str(roots))), "web")
    assert not roots_alone(Settings(web=WebSettings(key_file=str(roots))), "mqtt")
    assert not roots_alone(Settings(mqtt=MqttSettings(key_file="/no/such")), "mqtt")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("web:0.0.0.0:8080", "no token guards it"),
        ("mqtt://u:p@host", "holds a password"),
        ("mqtt://host/a#b", "may hold neither"),
        ("mqtt://host/{x}", "placeholder"),
        ("mqtt://", "is no broker"),
        ("webhook:ftp://host", "no address to send to"),
    ],
)
def test_a_check_refuses_what_a_run_refuses(output: str, said: str, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'outputs = ["{output}"]\n')
    for verb in (("config", "check"), ("run", "--camera", "demo")):
        done = call(main, *verb, "--config", str(path))
        assert (done.code, done.err.count("\n")) == (2, 1), verb
        assert said in done.err
    (found,) = check_outputs(Machine(settings=Settings(outputs=[output]), config=path))
    assert found.level == "red" and said in found.text and found.cure == f"nano {path}"


def test_a_check_of_secrets(tmp_path: Path, roots: Path) -> None:
    def refused(output: str, settings: Settings, folder: Path | None = None) -> str:
        try:
            check_network(output, settings, folder)
        except EdgeFerError as error:
            return str(error)
        return ""

    web = "web:0.0.0.0:8080"
    assert "is not there" in refused("mqtts://host", Settings(mqtt=MqttSettings(ca_file="/no/such")))
    assert "is given a password and no user" in refused(
        "mqtt://host", Settings(mqtt=MqttSettings(password_file=str(_one_line(tmp_path))))
    )
    assert "cannot be read" in refused("mqtt://me@host", Settings(mqtt=MqttSettings(password_file="/no/such")))
    assert "Cannot read the token" in refused(web, Settings(web=WebSettings(token_file="/no/such")))
    assert "set web.cert_file too" in refused("web:", Settings(web=WebSettings(key_file=str(_one_line(tmp_path)))))
    # Good: a token, this machine alone, one that systemd hands over, files that this user may not read.
    assert not refused(web, Settings(web=WebSettings(token_file=str(_one_line(tmp_path)))))
    assert not refused("web:localhost:8080", Settings()) and not refused("web:[::1]:8080", Settings())
    (tmp_path / "web-token").touch()
    assert not refused(web, Settings(), tmp_path)
    assert not refused(web, Settings(web=WebSettings(token_file=str(roots))))
    assert not refused("mqtts://host", Settings(mqtt=MqttSettings(cert_file=str(roots), key_file=str(roots))))


def _one_line(folder: Path) -> Path:
    (folder / "line").write_text(f"{TOKEN}\n")
    return folder / "line"
