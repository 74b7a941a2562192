"""Frame aggregation: many distributions become one."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.core import Expression, Prediction
from edge_fer.errors import ConfigError
from edge_fer.model.spec import Metadata
from edge_fer.temporal.aggregation import Aggregator, Kind, make_aggregator
from edge_fer.temporal.smoothing import ExpressionFilter, Smoothing

N, H, S = Expression.NEUTRAL, Expression.HAPPINESS, Expression.SURPRISE
KINDS: tuple[Kind, ...] = ("exponential", "mean", "max", "majority")


def of(neutral: float, happiness: float, surprise: float = 0.0) -> dict[Expression, float]:
    return {N: neutral, H: happiness, S: surprise}


def fed(aggregator: Aggregator, *frames: dict[Expression, float], step_s: float = 0.1) -> Any:
    result: Any = None
    for number, frame in enumerate(frames):
        result = aggregator.update(frame, step_s if number else 0.0)
    return result


FRAMES = (of(0.8, 0.2), of(0.1, 0.9), of(0.5, 0.3, 0.2))


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("mean", of(1.4 / 3, 1.4 / 3, 0.2 / 3)),
        ("max", of(0.8 / 1.9, 0.9 / 1.9, 0.2 / 1.9)),
        ("majority", of(2 / 3, 1 / 3)),
    ],
)
def test_pooling_by_hand(kind: Kind, wanted: dict[Expression, float]) -> None:
    assert fed(make_aggregator(kind, 1.0), *FRAMES) == pytest.approx(wanted)


def test_the_exponential_mean_by_hand() -> None:
    keep = math.exp(-0.5)
    result = fed(make_aggregator("exponential", 0.2), of(1, 0), of(0, 1))
    assert result == pytest.approx(of(keep, 1 - keep))


@pytest.mark.parametrize("kind", ["mean", "max", "majority"])
def test_what_is_older_than_the_window_is_forgotten(kind: Kind) -> None:
    aggregator = make_aggregator(kind, 0.25)
    assert fed(aggregator, of(1, 0), *[of(0, 1)] * 3)[N] == 0.0  # 0.3 s ago
    assert fed(make_aggregator(kind, 0.25), of(1, 0), *[of(0, 1)] * 2)[N] > 0  # 0.2 s ago
    assert aggregator.update(of(1, 0), 100.0) == of(1, 0)  # a gap leaves the newest alone


@pytest.mark.parametrize("kind", KINDS)
def test_a_length_of_zero_is_the_frame_itself(kind: Kind) -> None:
    assert fed(make_aggregator(kind, 0.0), of(0, 1), of(1, 0)) == pytest.approx(of(1, 0))


@pytest.mark.parametrize("kind", ["exponential", "mean"])
@pytest.mark.parametrize("rate_hz", [1, 5, 30, 120])
def test_a_second_means_the_same_at_any_rate(kind: Kind, rate_hz: int) -> None:
    """After as long as the window, or five time constants, of a new expression nothing is left of the old."""
    aggregator, length_s = make_aggregator(kind, 1.0), 1.0 if kind == "mean" else 5.0
    fed(aggregator, of(1, 0), of(1, 0), step_s=1.0)
    for _ in range(math.ceil(length_s * rate_hz) + 1):
        result = aggregator.update(of(0, 1), 1 / rate_hz)
    assert result[N] < math.exp(-5) + 1e-9


distributions = st.tuples(*[st.floats(0.01, 1)] * 3).map(lambda p: of(*(one / sum(p) for one in p)))


@given(st.sampled_from(KINDS), st.lists(st.tuples(distributions, st.floats(0, 3)), min_size=1), st.floats(0, 2))
def test_distributions_stay_distributions(kind: Kind, frames: list[tuple[Any, float]], length_s: float) -> None:
    aggregator = make_aggregator(kind, length_s)
    for frame, step_s in frames:
        result = aggregator.update(frame, step_s)
        assert sum(result.values()) == pytest.approx(1)
        assert all(0 <= p <= 1 + 1e-9 for p in result.values())


@given(distributions, st.integers(1, 9))
def test_equal_frames_are_their_own_mean(frame: Any, count: int) -> None:
    for kind in ("exponential", "mean", "max"):
        assert fed(make_aggregator(kind, 1.0), *[frame] * count) == pytest.approx(frame)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_says_how_its_answers_are_aggregated(kind: Kind) -> None:
    table = {"name": "m", "heads": [{"name": "a", "labels": ["neutral", "happiness", "surprise"]}]}
    metadata = Metadata.from_table({**table, "smoothing": {"aggregation": kind, "time_constant_s": 0.5}}, "m")
    steady = ExpressionFilter(metadata.smoothing)
    for number, frame in enumerate(FRAMES):
        steady.update(Prediction(frame), number / 10)
    assert steady.prediction is not None
    assert steady.prediction.probabilities == fed(make_aggregator(kind, 0.5), *FRAMES)
    assert Metadata.from_table(json.loads(json.dumps(metadata.to_table())), "m") == metadata


def test_an_aggregation_that_nobody_knows_is_refused() -> None:
    table = {"name": "m", "heads": [{"name": "a", "labels": ["neutral", "happiness"]}]}
    with pytest.raises(ConfigError, match="aggregation"):
        Metadata.from_table({**table, "smoothing": {"aggregation": "median"}}, "m")


def test_time_that_runs_backwards_counts_as_none_for_a_window_too() -> None:
    steady = ExpressionFilter(Smoothing(aggregation="mean", time_constant_s=0.5))
    for time_s in (5.0, 1.0, 5.1):
        steady.update(Prediction(of(0.5, 0.5)), time_s)
    assert steady.prediction is not None
    assert steady.prediction.probabilities == pytest.approx(of(0.5, 0.5))


def test_the_default_is_the_exponential_mean() -> None:
    assert Smoothing().aggregation == "exponential"
