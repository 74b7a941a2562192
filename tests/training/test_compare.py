"""Runs side by side: numbers are those of the runs, the test is McNemar's, what cannot be compared is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from training.__main__ import main
from training.compare import mcnemar


@pytest.fixture
def copies(runs: list[Path], tmp_path: Path) -> list[Path]:
    """Both runs, to be changed."""
    return [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def hits(run: Path) -> dict[str, np.ndarray]:
    """Which faces a run is right on, by head."""
    logits, truth = (np.load(run / "evaluation" / f"{name}.npy") for name in ("logits", "truth"))
    return {
        "ferplus": logits[:, :8].argmax(axis=1) == truth[:, 0],
        "fer2013": logits[:, 8:].argmax(axis=1) == truth[:, 1],
    }


def test_mcnemar_counts_what_only_one_is_right_on() -> None:
    ours = np.array([True] * 10 + [False] * 2 + [True] * 5 + [False] * 5)
    theirs = np.array([False] * 10 + [True] * 2 + [True] * 5 + [False] * 5)
    only_ours, only_theirs, p = mcnemar(ours, theirs)
    assert (only_ours, only_theirs) == (10, 2)
    assert p == pytest.approx(2 * (1 + 12 + 66) / 2**12)  # two tails of twelve tosses of a coin
    assert mcnemar(theirs, ours)[2] == pytest.approx(p)
    assert mcnemar(ours, ours) == (0, 0, 1.0)


def test_the_json_says_what_the_runs_say(runs: list[Path], call: Callable[..., Any], seed: int) -> None:
    said = call(main, "compare", *runs, "--json")
    assert said.code == 0
    content = json.loads(said.out)
    first, second = content["runs"]
    facts = [json.loads((run / "run.json").read_text()) for run in runs]
    assert [first["name"], second["name"]] == ["tiny1", "tiny2"]
    assert [first["epochs"], first["parameters"], second["seed"]] == [4, facts[0]["parameters"], seed + 100]
    for name in ("ferplus", "fer2013"):
        metrics = [fact["public_test"][name] for fact in facts]
        ours, theirs = first["heads"][name], second["heads"][name]
        assert ours["accuracy"] == metrics[0]["accuracy"]
        assert theirs["macro_f1"] == metrics[1]["macro_f1"]
        assert ours["interval"][0] < ours["accuracy"] < ours["interval"][1]
        assert "p" not in ours
        assert theirs["difference"] == pytest.approx(metrics[1]["accuracy"] - metrics[0]["accuracy"], abs=1e-4)
        first_hits, second_hits = (hits(run)[name] for run in runs)
        assert theirs["only_this_right"] == (second_hits & ~first_hits).sum()
        assert theirs["only_first_right"] == (first_hits & ~second_hits).sum()
        assert 0 < theirs["p"] <= 1
        assert 0 <= theirs["ece"] <= 1
    assert content["differences"] == {"name": ["tiny1", "tiny2"], "seed": [seed, seed + 100]}


def test_a_pipe_gets_plain_whole_lines(runs: list[Path], call: Callable[..., Any], seed: int) -> None:
    said = call(main, "compare", *runs)
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0].split() == ["tiny1", "tiny2"]
    assert "\x1b" not in said.out and "─" not in said.out
    (p,) = (line for line in lines if line.startswith("  McNemar's p") and lines.index(line) < 16)
    assert p.split()[2] == "-"
    assert f"  seed: {seed} -> {seed + 100}" in lines


def test_a_run_and_itself_do_not_differ(runs: list[Path], call: Callable[..., Any]) -> None:
    said = call(main, "compare", runs[0], runs[0])
    assert said.out.splitlines()[0].split() == [str(runs[0])] * 2  # their names do not tell them apart
    assert "0 / 0" in said.out
    assert "Recipes, data and versions are the same." in said.out


def test_other_settings_are_listed_old_to_new(copies: list[Path], call: Callable[..., Any]) -> None:
    recipe = copies[1] / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("learning_rate = 0.01", "learning_rate = 0.02"))
    edit(copies[1] / "run.json", lambda facts: facts["versions"].update(keras="4.0"))
    edit(copies[1] / "run.json", lambda facts: facts.update(init_from="0" * 64))
    out = call(main, "compare", *copies).out
    assert "  optimizer.learning_rate: 0.01 -> 0.02\n" in out
    assert "-> 4.0\n" in out
    assert "  init_from: - -> 000000000000...\n" in out


def test_on_other_data_there_is_no_difference(copies: list[Path], call: Callable[..., Any]) -> None:
    edit(copies[1] / "run.json", lambda facts: facts["data_sha256"].update(PublicTest="0" * 64))
    second = json.loads(call(main, "compare", *copies, "--json").out)["runs"][1]
    assert second["same_data"] is False
    assert not {"difference", "p"} & second["heads"]["ferplus"].keys()
    assert "Measured on other data than tiny1, so without a difference: tiny2." in call(main, "compare", *copies).out


def test_a_head_that_one_lacks_is_left_open(copies: list[Path], call: Callable[..., Any]) -> None:
    toml = copies[1] / "model.toml"
    toml.write_text(toml.read_text().replace('"ferplus"', '"other"'))
    content = json.loads(call(main, "compare", *copies, "--json").out)
    assert [list(run["heads"]) for run in content["runs"]] == [["ferplus", "fer2013"], ["fer2013"]]
    said = call(main, "compare", *copies)
    assert said.code == 0
    (macro_f1, _) = (line.split() for line in said.out.splitlines() if line.startswith("  macro F1"))
    assert macro_f1[3] == "-"


def test_curves_of_all_runs_are_drawn(runs: list[Path], call: Callable[..., Any], tmp_path: Path) -> None:
    assert call(main, "compare", *runs, "--plot", tmp_path / "curves.png").code == 0
    assert cv2.imread(str(tmp_path / "curves.png")).shape[2] == 3


def test_a_run_without_epochs_has_none(copies: list[Path], call: Callable[..., Any], tmp_path: Path) -> None:
    """As one of interpolated weights."""
    (copies[1] / "history.csv").unlink()
    said = call(main, "compare", *copies, "--json", "--plot", tmp_path / "curves.png")
    assert said.code == 0
    assert [run["epochs"] for run in json.loads(said.out)["runs"]] == [4, None]


def unfinished(run: Path) -> None:
    (run / "run.json").unlink()


def no_run(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


def other_heads(run: Path) -> None:
    toml = run / "model.toml"
    toml.write_text(toml.read_text().replace('"ferplus"', '"mine"').replace('"fer2013"', '"yours"'))


def other_labels(run: Path) -> None:
    toml = run / "model.toml"
    toml.write_text(toml.read_text().replace('"anger", "disgust"', '"disgust", "anger"'))


def fewer_logits(run: Path) -> None:
    path = run / "evaluation" / "logits.npy"
    np.save(path, np.load(path)[1:])


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (shutil.rmtree, 66, "No folder {run}: give the folder of a run"),
        (no_run, 66, "{run} is no run, it has no run.json"),
        (unfinished, 66, "{run} is not finished, it has no run.json yet: go on with `train --resume`."),
        (lambda run: (run / "run.json").write_text("{"), 65, "{run}/run.json is not that of a trained model"),
        (lambda run: (run / "run.json").write_text("[]"), 65, "{run}/run.json is not that of a trained model"),
        (lambda run: (run / "run.json").write_text('{"loss": 1}'), 65, "{run}/run.json is not that of a trained model"),
        (lambda run: (run / "evaluation" / "logits.npy").unlink(), 66, "{run} has no evaluation/logits.npy: train it"),
        (lambda run: (run / "evaluation" / "truth.npy").write_bytes(b""), 65, "truth.npy is no array of NumPy"),
        (lambda run: (run / "evaluation" / "logits.npy").write_bytes(b"x" * 99), 65, "logits.npy is no array of NumPy"),
        (fewer_logits, 65, "{run}/evaluation has arrays of (41, 15) and (42, 2)"),
        (
            lambda run: (run / "history.csv").write_text("epoch,loss\n1,x\n"),
            65,
            "{run}/history.csv is not as a training writes it",
        ),
        (lambda run: (run / "recipe.toml").write_text("="), 78, "{run}/recipe.toml is not valid TOML"),
        (other_heads, 65, "{run} has other heads than {first} (mine, yours, not ferplus, fer2013)"),
        (other_labels, 65, "{run} has other heads than {first} (ferplus, fer2013, not ferplus, fer2013), or other la"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(
    copies: list[Path], call: Callable[..., Any], spoil: Callable[[Path], object], code: int, message: str
) -> None:
    spoil(copies[1])
    said = call(main, "compare", *copies)
    assert (said.code, said.out) == (code, "")
    assert message.format(run=copies[1], first=copies[0]) in said.err
    assert said.err.count("\n") == 1


def test_one_run_is_not_enough(runs: list[Path], call: Callable[..., Any]) -> None:
    with pytest.raises(SystemExit) as stop:
        call(main, "compare", runs[0])
    assert stop.value.code == 2


def test_a_plot_that_cannot_be_written_is_one_sentence(
    runs: list[Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    said = call(main, "compare", *runs, "--plot", tmp_path / "missing" / "curves.png")
    assert said.code == 73
    assert said.err.startswith("training: Cannot write")
