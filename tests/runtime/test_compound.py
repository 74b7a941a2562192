"""Two expressions at once: what the pair is called, when a face shows it, and that events say so only where asked."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from story import a_face, a_result

import edge_fer.events
from edge_fer.cli import main
from edge_fer.compound import COMPOUNDS, LEAST, compound_of
from edge_fer.core import Expression as E
from edge_fer.core import Prediction
from edge_fer.events import Run

SCHEMA = json.loads((Path(edge_fer.events.__file__).parent / "event.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("probabilities", "name"),
    [
        ({E.HAPPINESS: 0.5, E.SURPRISE: 0.4, E.NEUTRAL: 0.1}, "happily surprised"),
        ({E.SURPRISE: 0.5, E.HAPPINESS: 0.4, E.NEUTRAL: 0.1}, "happily surprised"),
        ({E.ANGER: 0.35, E.DISGUST: 0.35, E.SADNESS: 0.3}, "angrily disgusted"),
        ({E.ANGER: 0.7, E.DISGUST: 0.29, E.SADNESS: 0.01}, None),  # the second is too faint
        ({E.ANGER: 0.7, E.DISGUST: LEAST}, "angrily disgusted"),
        ({E.HAPPINESS: 0.5, E.NEUTRAL: 0.5}, None),  # a faint smile is one expression
        ({E.CONTEMPT: 0.5, E.ANGER: 0.5}, None),  # has no name
    ],
)
def test_a_pair_has_a_name(probabilities: dict[E, float], name: str | None) -> None:
    assert compound_of(probabilities) == name


def test_all_pairs_but_those_of_neutral_and_contempt_have_one() -> None:
    others = [one for one in E if one not in (E.NEUTRAL, E.CONTEMPT)]
    pairs = {frozenset(pair) for pair in combinations(others, 2)}
    assert set(COMPOUNDS) <= pairs
    assert {tuple(sorted(pair)) for pair in pairs - set(COMPOUNDS)} == {("anger", "happiness")}
    assert len(set(COMPOUNDS.values())) == len(COMPOUNDS) == 14
    assert [one for one in SCHEMA["properties"]["compound"]["enum"] if one] == list(COMPOUNDS.values())


@given(st.lists(st.floats(0.001, 1), min_size=8, max_size=8), st.floats(0.01, 0.6))
def test_it_names_the_two_most_probable_or_nothing(weights: list[float], least: float) -> None:
    total = sum(weights)
    probabilities = {one: weight / total for one, weight in zip(E, weights, strict=True)}
    name = compound_of(probabilities, least)
    first, second = sorted(probabilities.values(), reverse=True)[:2]
    if second < least:
        assert name is None
    if name:
        pair = next(pair for pair, one in COMPOUNDS.items() if one == name)
        assert sorted((probabilities[one] for one in pair), reverse=True) == [first, second]


def test_events_say_it_only_where_asked() -> None:
    both = Prediction({E.NEUTRAL: 0.1, E.SADNESS: 0.5, E.FEAR: 0.4})
    sure = Prediction({E.NEUTRAL: 0.1, E.SADNESS: 0.85, E.FEAR: 0.05})
    for prediction, name in ((both, "sadly fearful"), (sure, None)):
        face = a_face(expression=E.SADNESS)
        face = type(face)(*(prediction if field == "prediction" else getattr(face, field) for field in face.__slots__))
        (event,) = Run("pi", "m", "ab" * 32, compound=True).to_events(a_result(0, face))
        assert event["compound"] == name and event["expression"] == "sadness"
        jsonschema.validate(json.loads(json.dumps({**event, "latency_ms": FULL})), SCHEMA)
        (event,) = Run("pi", "m", "ab" * 32).to_events(a_result(0, face))
        assert "compound" not in event


FULL = {"detect": 1.0, "preprocess": 1.0, "classify": 1.0, "track": 1.0}


@pytest.mark.parametrize("asked", [True, False])
def test_the_command_line_asks_for_it(asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_FER_MODEL__COMPOUND", str(asked).lower())
    out = tmp_path / "events.jsonl"
    code = main(["run", "--camera", "demo", "--fast", "--output", f"jsonl:{out}", *(["--compound"] if asked else [])])
    assert code == 0
    events = [json.loads(line) for line in out.read_text().splitlines()]
    assert events and all(("compound" in event) == asked for event in events)
    if asked:
        told = {event["compound"] for event in events}
        assert None in told and told <= {None, *COMPOUNDS.values()}
        for event in events:
            jsonschema.validate(event, SCHEMA)
