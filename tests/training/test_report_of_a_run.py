"""The report of a run: one page that needs nothing else, says what the run says, and shows the right faces."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faces_csv import write_csvs
from labeled import labeled
from rich.console import Console

from edge_fer.core import Expression as E
from edge_fer.model.spec import Head
from training.__main__ import main
from training.callbacks.epoch_log import EpochLog, LiveView
from training.curves import LiveCurves, braille, read_history, write_history
from training.report import worst_mistakes

PAIR = Head("fer2013", (E.ANGER, E.FEAR))


@pytest.fixture
def copy(runs: list[Path], tmp_path: Path) -> Path:
    """A run, to be changed."""
    return Path(shutil.copytree(runs[0], tmp_path / "<b>mine"))


@pytest.fixture
def write(call: Callable[..., Any], data: Path) -> Callable[[Path], str]:
    """Writes the report of a run, and reads it."""

    def act(run: Path) -> str:
        said = call(main, "report", run, "--data", data)
        assert said.code == 0, said.err
        return (run / "report.html").read_text()

    return act


def test_the_page_needs_no_network_and_escapes_what_it_shows(copy: Path, write: Callable[[Path], str]) -> None:
    table = json.loads((copy / "run.json").read_text())
    table |= {"lineage": [{"stage": "<i>distill</i>", "seed": 3}], "teacher": "<script>"}
    (copy / "run.json").write_text(json.dumps(table))
    page = write(copy)
    assert not re.search(r"""(src|href)=["']?(https?:|//|file:)|@import|url\(http|<script|<link""", page)
    assert "<b>mine" not in page and "<h1>&lt;b&gt;mine" in page
    assert "&lt;i&gt;distill" in page
    assert "&lt;script&gt;" in page
    assert page.count("<svg") == 2
    assert not re.search("{{|{%|>None<|nan", re.sub(r"<svg.*?</svg>|base64,[^\"]*", "", page, flags=re.DOTALL))


def test_the_page_says_what_the_run_says(copy: Path, write: Callable[[Path], str]) -> None:
    page = write(copy)
    facts = json.loads((copy / "run.json").read_text())
    for name in ("ferplus", "fer2013"):
        metrics = facts["public_test"][name]
        assert f"{metrics['accuracy']:.2%}" in page
        assert f"<td>{metrics['macro_f1']:.3f}" in page
        assert f"{name}, N = 42" in page
    assert (copy / "recipe.toml").read_text().splitlines()[-1] in page.replace("&#34;", '"')
    assert facts["data_sha256"]["PublicTest"][:16] in page
    logits, truth = (np.load(copy / "evaluation" / f"{name}.npy") for name in ("logits", "truth"))
    wrong = [(logits[:, :8].argmax(axis=1) != truth[:, 0]).sum(), (logits[:, 8:].argmax(axis=1) != truth[:, 1]).sum()]
    assert page.count("<figure>") == sum(min(24, count) for count in wrong)


def test_a_run_without_epochs_has_no_curves(copy: Path, write: Callable[[Path], str]) -> None:
    (copy / "history.csv").unlink()
    page = write(copy)
    assert "None: this run had no epochs." in page
    assert page.count("<svg") == 1


def test_the_worst_mistakes_come_first_and_what_is_right_or_unknown_not_at_all() -> None:
    data = labeled([E.ANGER, E.FEAR, E.FEAR, E.HAPPINESS, E.ANGER], [None, E.ANGER, None, None, None])
    probabilities = np.array([[0.4, 0.6], [0.9, 0.1], [0.1, 0.9], [0.99, 0.01], [0.2, 0.8]], np.float32)
    mistakes = worst_mistakes(PAIR, probabilities, data)
    assert [face["row"] for face in mistakes] == [1, 4, 0]
    assert mistakes[0] | {"confidence": 0} == {
        "row": 1,
        "label": E.FEAR,
        "predicted": E.ANGER,
        "confidence": 0,
        "elsewhere": {"ferplus": E.ANGER},
    }
    assert mistakes[1]["elsewhere"] == {}


def test_other_data_are_refused(copy: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    write_csvs(tmp_path / "other", public=35)
    said = call(main, "report", copy, "--data", tmp_path / "other")
    assert said.code == 65
    assert f"{tmp_path / 'other'} holds other PublicTest images or labels than {copy} was measured on." in said.err
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize(
    ("missing", "code", "message"),
    [
        ("run.json", 66, "is not finished"),
        ("evaluation/logits.npy", 66, "has no evaluation/logits.npy: train it again"),
        ("evaluation/truth.npy", 66, "has no evaluation/truth.npy: train it again"),
        ("model.toml", 66, "has no model.toml: train it again"),
    ],
)
def test_a_run_with_a_part_missing_is_refused(
    copy: Path, data: Path, call: Callable[..., Any], missing: str, code: int, message: str
) -> None:
    (copy / missing).unlink()
    said = call(main, "report", copy, "--data", data)
    assert (said.code, said.err.count("\n")) == (code, 1)
    assert message in said.err


def test_the_page_goes_where_it_is_told(copy: Path, data: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    assert call(main, "report", copy, "--data", data, "-o", tmp_path / "page.html").code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    said = call(main, "report", copy, "--data", data, "-o", tmp_path / "missing" / "page.html")
    assert said.code == 73
    assert "Cannot write" in said.err


def test_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    history = [{"epoch": 1.0, "loss": 2.5, "seconds": 3.0}, {"epoch": 5.0, "loss": 1.5, "seconds": 3.0, "fer2013": 0.5}]
    write_history(tmp_path / "history.csv", history, [PAIR])
    assert read_history(tmp_path / "history.csv") == history


def test_braille_draws_from_the_lower_left_to_the_upper_right() -> None:
    assert [line.plain for line in braille([[0, 1]], 0, 1, 4, 2)] == ["⠀⠀⡠⠊", "⡠⠊⠀⠀"]
    assert [line.plain for line in braille([[1, 0]], 0, 1, 4, 2)] == ["⠑⢄⠀⠀", "⠀⠀⠑⢄"]


def test_braille_draws_steep_lines_whole_flat_ones_and_what_is_finite() -> None:
    assert [line.plain for line in braille([[0, 1]], 0, 1, 1, 2)] == ["⢸", "⡸"]
    assert [line.plain for line in braille([[3, 3]], 3, 3, 2, 1)] == ["⣀⣀"]
    assert braille([[0, float("nan"), 1]], 0, 1, 4, 2) == braille([[0, 1]], 0, 1, 4, 2)
    assert [line.plain for line in braille([[float("nan")] * 2], 0, 1, 2, 1)] == ["⠀⠀"]


def shown(history: list[dict[str, float]], width: int, height: int, encoding: str = "utf-8", live: bool = True) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding, errors="replace", write_through=True)
    console = Console(file=file, force_terminal=live, width=width, height=height, color_system=None)
    with LiveView(LiveCurves(history, ["ferplus", "fer2013"]), console) as view:
        view.add_task("epoch 2/9", total=10, completed=5, loss=1.25)
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


HISTORY = [{"epoch": e, "loss": 4.0 / e, "seconds": 1.0, "ferplus": 0.1 * e, "fer2013": 0.05 * e} for e in (1.0, 2.0)]


def test_a_terminal_shows_curves_and_what_is_left() -> None:
    text = shown(HISTORY, 80, 24)
    assert all(one in text for one in ("4.00", "2.00", "20%", "5%", "epoch 2", "PublicTest", "left  loss 1.250"))
    assert max(map(len, re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", text).replace("\r", "\n").split("\n"))) <= 80


@pytest.mark.parametrize(
    ("history", "width", "height", "encoding"),
    [(HISTORY[:1], 80, 24, "utf-8"), (HISTORY, 30, 24, "utf-8"), (HISTORY, 80, 8, "utf-8"), (HISTORY, 80, 24, "ascii")],
    ids=["one epoch", "narrow", "low", "no Unicode"],
)
def test_where_there_is_no_place_for_curves_there_is_the_bar(
    history: list[dict[str, float]], width: int, height: int, encoding: str
) -> None:
    text = shown(history, width, height, encoding)
    assert "PublicTest" not in text
    assert "epoch" in text


def test_a_pipe_sees_neither_bar_nor_curves() -> None:
    assert shown(HISTORY, 80, 24, live=False) == ""


def test_the_bar_is_of_the_whole_training_and_goes_on_where_a_resumed_one_stood(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    log = EpochLog(5, tmp_path, None, None, labeled([E.FEAR]), list(HISTORY), 4, console)
    log.on_train_begin()
    (task,) = log.progress.tasks
    assert (task.completed, task.total) == (8, 20)
    log.on_epoch_begin(2)
    log.on_train_batch_end(1, {"loss": 0.5})
    assert (task.completed, task.description, task.fields["loss"]) == (10, "epoch 3/5", 0.5)
