"""No output replaces what is read, nor another output: refused before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

import edge_fer
from edge_fer.cli import main
from edge_fer.core import Image
from edge_fer.model.bundle import DEFAULT_MODEL

Link = Callable[[Path, Path], object]


def hard(there: Path, name: Path) -> None:
    os.link(there, name)


def soft(there: Path, name: Path) -> None:
    name.symlink_to(there)


def none(there: Path, name: Path) -> None:
    """The name itself."""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, scene: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_fer.config.default_files", list)
    monkeypatch.chdir(tmp_path)
    Path("photos/sub").mkdir(parents=True)
    for name in ("photos/a.png", "photos/sub/b.jpg"):
        cv2.imwrite(name, scene)
    Path("model.tflite").write_bytes(DEFAULT_MODEL.read_bytes())
    Path("cascade.xml").write_text("<a/>")
    Path("config.toml").write_text("[camera]\nwidth = 640\n")


def content() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize("link", [none, hard, soft])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "video"])
@pytest.mark.parametrize(
    ("read", "what"),
    [
        ("photos/a.png", "the file that is read"),
        ("model.tflite", "the model"),
        ("cascade.xml", "the detector's model"),
        ("config.toml", "the configuration"),
        ("photos/sub/b.jpg", "a picture that is read"),
    ],
)
def test_what_is_read_stays(kind: str, read: str, what: str, link: Link, capsys: pytest.CaptureFixture[str]) -> None:
    target = Path(read) if link is none else Path("other.mp4")
    link(Path(read).absolute(), target)
    before = content()
    camera = "photos" if "sub" in read else "photos/a.png"
    options = ["--model", "model.tflite", "--config", "config.toml", "--detector-model", "cascade.xml"]
    assert main(["run", "--camera", camera, *options, "--output", f"{kind}:{target}"]) == 2
    assert capsys.readouterr().err == f"edge-fer: {kind}:{target} would replace {what}; give it another name.\n"
    assert content() == before


def test_the_default_configuration_stays(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("edge_fer.config.default_files", lambda: [Path("config.toml")])
    assert main(["run", "--camera", "demo", "--output", "csv:config.toml"]) == 2
    assert "would replace the configuration" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bundles/accurate.tflite", "cli/new.csv"])
def test_the_package_stays(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = Path(edge_fer.__file__).parent / name
    assert main(["run", "--camera", "demo", "--output", f"csv:{place}"]) == 2
    assert "would write among the files of edge-fer itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("camera", "folder"),
    [("photos", "photos"), ("photos", "photos/sub"), ("photos/a.png", "photos"), ("photos/a.png", "photos/../photos")],
)
def test_annotated_pictures_do_not_go_among_those_that_are_read(
    camera: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content()
    assert main(["run", "--camera", camera, "--output", "terminal", "--output", f"pictures:{folder}"]) == 2
    assert "holds the pictures that are read" in capsys.readouterr().err
    assert content() == before


@pytest.mark.parametrize("output", ["pictures:photos/new", "csv:photos/faces.csv", "csv:photos/a.csv"])
def test_a_new_place_in_the_folder_will_do(output: str) -> None:
    for _ in range(1 if output.startswith("pictures") else 2):
        assert main(["run", "--camera", "photos", "--output", output]) == 0


def test_two_outputs_on_one_file_by_a_link(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x").touch()
    for link, name in ((hard, "y"), (soft, "z")):
        link(Path("x").absolute(), Path(name))
        assert main(["run", "--camera", "demo", "--output", "csv:x", "--output", f"jsonl:{name}"]) == 2
        assert "would mix in one file" in capsys.readouterr().err
