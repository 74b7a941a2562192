"""``python -m evaluation fit``: from a bundle to the same graph with a rule and doubt; and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faces_csv import write_csvs

from edge_fer.core import Expression
from edge_fer.model.bundle import Bundle
from edge_fer.model.classifier import TfliteClassifier
from evaluation.__main__ import main


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """210 PublicTest rows, 30 of each class but contempt: just enough."""
    folder = tmp_path_factory.mktemp("faces")
    write_csvs(folder, public=210)
    return folder


def test_the_graph_stays_and_the_metadata_gets_rule_and_doubt(
    call: Callable[..., Any], faces: Path, tmp_path: Path
) -> None:
    out, figures = tmp_path / "out.tflite", tmp_path / "out.json"
    options = ["--model", "nano", "--data", faces, "--max-loss", 10]
    done = call(main, "fit", *options, "-o", out, "--json", figures)
    assert done.code == 0, done.err
    before, after = Bundle.load("nano"), Bundle.load(out)
    assert after.model == before.model and after.metadata.model_sha256 == before.metadata.model_sha256
    rule, facts = after.metadata.decision, after.metadata.facts["decision"]
    assert rule and Expression.CONTEMPT not in rule.labels and len(rule.labels) == 7
    assert "Not reported" in done.out and "contempt" in done.out and f"tau {rule.tau:g}" in done.out
    assert after.metadata.doubt and len(after.metadata.doubt.offsets) == 7
    assert after.metadata.facts["public_test"] == before.metadata.facts["public_test"]
    assert facts["n"] == 210 and facts["max_loss"] == 10
    content = json.loads(figures.read_text(encoding="utf-8"))
    assert content["decision" if "decision" in content else "accuracy"] == facts["accuracy"]
    assert content["curve"][0]["tau"] == 0 and len(content["curve"]) > 20
    classifier = TfliteClassifier(after)
    (answer,) = classifier.classify([np.zeros((48, 48, 1), np.uint8)])
    assert classifier.decision == "balanced" and set(answer.probabilities) == set(rule.labels)


def test_what_cannot_be_fitted_is_a_sentence(call: Callable[..., Any], data: Path, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for options, code, words in (
        (["--data", data], 65, "too few faces"),
        (["--data", tmp_path / "none"], 66, "No folder"),
        (["--data", tmp_path / "empty"], 66, "neither fer2013.csv"),
        (["--data", faces, "--max-loss", -1], 2, "--max-loss must be 0 to 100"),
        (["--data", faces, "--max-loss", "nan"], 2, "--max-loss must be 0 to 100"),
        (["--data", faces, "--model", tmp_path / "none.tflite"], 66, "none.tflite"),
    ):
        done = call(main, "fit", "--model", "nano", *options)
        assert (done.code, done.out) == (code, ""), done.err
        said = done.err.splitlines()[-1]
        assert said.startswith("evaluation: ") and words in said
