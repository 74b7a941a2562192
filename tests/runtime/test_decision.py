"""The decision rule: what it makes of logits, by arithmetic that can be followed by hand; and what is no rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.core import Expression as E
from edge_fer.errors import BundleError
from edge_fer.model.bundle import load_bundle
from edge_fer.model.decision import Rule, softmax
from edge_fer.model.spec import Decision, Head

FIRST = Head("first", (E.NEUTRAL, E.ANGER, E.CONTEMPT), 2.0, (0.8, 0.15, 0.05))
SECOND = Head("second", (E.ANGER, E.NEUTRAL), 1.0, (0.25, 0.75))
PAIR = (E.NEUTRAL, E.ANGER)


def test_the_rule_is_what_its_formula_says() -> None:
    rule = Rule.balanced(Decision(PAIR, (0.6, 0.4), tau=0.5, temperature=1.5), (FIRST, SECOND))
    logits = np.array([1.0, 3.0, 9.0, -1.0, 2.0], np.float32)
    neutral = 0.6 * (1.0 / 2 - 0.5 * np.log(0.8)) + 0.4 * (2.0 - 0.5 * np.log(0.75))
    anger = 0.6 * (3.0 / 2 - 0.5 * np.log(0.15)) + 0.4 * (-1.0 - 0.5 * np.log(0.25))
    assert rule.labels == PAIR
    assert rule.probabilities(logits) == pytest.approx(softmax(np.array([neutral, anger]) / 1.5), abs=1e-6)
    assert rule.probabilities(np.stack([logits] * 3)).shape == (3, 2)


@given(st.lists(st.floats(-8, 8, width=32), min_size=5, max_size=5), st.floats(0, 1.5))
def test_what_is_not_reported_changes_nothing(values: list[float], tau: float) -> None:
    rule = Rule.balanced(Decision(PAIR, (1.0, 0.0), tau), (FIRST, SECOND))
    logits = np.array(values, np.float32)
    other = logits.copy()
    other[2:] += 5  # contempt, and a head without weight
    assert rule.probabilities(other) == pytest.approx(rule.probabilities(logits), abs=1e-6)
    assert rule.probabilities(logits).sum() == pytest.approx(1, abs=1e-5)


@given(st.floats(0, 1.4), st.floats(0.05, 1))
def test_more_tau_favors_the_rarer(tau: float, more: float) -> None:
    logits = np.array([1.0, 1.0, 0.0], np.float32)
    rare, rarer = (
        Rule.balanced(Decision(PAIR, (1.0,), one), (FIRST,)).probabilities(logits)[1] for one in (tau, tau + more)
    )
    assert rarer > rare


def test_as_trained_is_the_first_head_with_its_temperature() -> None:
    logits = np.array([1.0, 3.0, 2.0, -1.0, 2.0], np.float32)
    rule = Rule.as_trained((FIRST, SECOND))
    assert rule.labels == FIRST.labels
    assert rule.probabilities(logits) == pytest.approx(softmax(np.array([0.5, 1.5, 1.0])), abs=1e-6)


def changed(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda table: table["decision"].update(values)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (changed(labels=["neutral"]), "at least two expressions"),
        (changed(labels=["fear", "fear"]), "each once"),
        (changed(labels=["joy", "fear"]), "unknown value 'joy'"),
        (changed(weights=[1]), "a number from 0 to 100 for each head"),
        (changed(weights=[0, 0]), "not all 0"),
        (changed(weights=[-1, 2]), "a number from 0 to 100"),
        (changed(weights=[float("nan"), 1]), "a number from 0 to 100"),
        (changed(tau=-0.1), "decision.tau must be 0 to 10"),
        (changed(tau=float("nan")), "decision.tau must be 0 to 10"),
        (changed(temperature=0), "decision.temperature must be 0.01 to 100"),
        (changed(labels=["neutral", "contempt"], weights=[0.5, 0.5]), "'fer2013' has a weight"),
        (lambda table: table["heads"][0].update(priors=[]), "'ferplus' has a weight"),
        (lambda table: table["heads"][0].update(priors=[0.5, 0.5]), "one for each label"),
        (lambda table: table["heads"][0].update(priors=[0.2] * 8), "summing to 1"),
        (lambda table: table["heads"][0].update(priors=[1.0, *[0.0] * 7]), "one for each label"),
        (lambda table: table["doubt"].update(offsets=[0.0]), "a number for each label"),
        (lambda table: table["doubt"].update(offsets=[-1000.0] * 7), "offsets from -50 to 50"),
        (lambda table: table["doubt"].update(offsets=[float("nan")] * 7), "offsets from -50 to 50"),
        (lambda table: table["doubt"].update(slope=-1), "a slope from 0 to 50"),
        (lambda table: table["doubt"].update(slope=1e300), "a slope from 0 to 50"),
        (lambda table: table["doubt"].update(slope=10**400), "'doubt.slope' is out of range"),
        (lambda table: table["doubt"].update(max_risk=0), "max_risk above 0 and up to 1"),
        (lambda table: table["doubt"].update(max_risk=float("nan")), "max_risk above 0 and up to 1"),
        (lambda table: table["doubt"]["noise"].update(at=0), "doubt.noise must have a limit from 1e-06 to 1e"),
        (lambda table: table["doubt"]["blur"].update(at=1e308), "doubt.blur must have a limit from 1e-06 to 1e"),
        (lambda table: table["doubt"]["mouth"].update(weight=-1), "doubt.mouth must .* a weight from 0 to 50"),
        (lambda table: table["doubt"]["eyes"].update(weight=1e300), "doubt.eyes must .* a weight from 0 to 50"),
        (lambda table: table.pop("decision"), "a number for each label"),
        (lambda table: table.update(decision=None), "'decision' must be a table"),
    ],
)
def test_what_is_no_rule_is_refused_in_a_sentence(
    bundle_with: Callable[..., Path], metadata: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(bundle_with(metadata=metadata))
    assert "\n" not in str(caught.value)
