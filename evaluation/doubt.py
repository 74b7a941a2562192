"""When not to rely on an answer: fitted on clean and corrupted faces, and how well it sorts right from wrong.

Risk-coverage curves and their area are those of Geifman & El-Yaniv (NeurIPS 2017) and Geifman et al. (ICLR 2019,
arXiv 1805.08206).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from scipy.optimize import minimize
from scipy.special import expit

from edge_fer.core import Quality
from edge_fer.temporal.doubt import LEAST, MOST_CONFIDENT, Doubt, Limit
from evaluation.decision import folds

CLEAN = "none"
"""Name of the condition that nothing was done to."""
ANSWERED = 0.95
"""Fraction of clean faces that are answered."""
ANSWERED_CORRUPTED = 0.5
"""Of each corruption's, at least,"""
MOST_ERROR = 2.0
"""so that of the answers at most so many times the clean error is wrong, where that can be had."""
_TAIL = 0.02
"""Fraction of clean faces that pass a limit."""
_STEP, _LEAST_WEIGHT, _MOST_WEIGHT = 1.25, 0.1, 6.0
"""By how much a weight grows at a time, from where and up to where: with more it would mark clean faces instead."""
_SPARE = 0.02
"""Answers that are kept in hand beyond ``ANSWERED_CORRUPTED``: other faces are not quite like these."""
_RIDGE = 1e-4
_MEASURES = ("noise", "blur", "brightness", "eyes", "mouth")


@dataclass(frozen=True)
class Answers:
    """What a rule answers to the faces of one condition.

    Attributes:
        answer: int64 (n,), places among the rule's labels.
        confidence: float64 (n,), 0-1.
        wrong: bool (n,).
        quality: float64 (n, measures): noise, blur, brightness, eyes, mouth of ``core.Quality``.
    """

    answer: NDArray[np.int64]
    confidence: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    quality: NDArray[np.float64]

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], truth: NDArray[np.int64], quality: Sequence[Quality]) -> Answers:
        """From probabilities, float32 (n, labels), and the truth as places among the labels."""
        answer = probabilities.argmax(axis=1)
        measures = np.array([[getattr(one, name) for name in _MEASURES] for one in quality], np.float64)
        return cls(answer, probabilities.max(axis=1).astype(np.float64), answer != truth, measures)

    def __getitem__(self, rows: NDArray[np.int64]) -> Answers:
        return Answers(self.answer[rows], self.confidence[rows], self.wrong[rows], self.quality[rows])


def risk_coverage(wrong: NDArray[np.bool_], risk: NDArray[np.float64]) -> NDArray[np.float64]:
    """Error among the answers with the least risk, float64 (n,): of 1, 2, ... all n of them.

    Args:
        wrong: bool (n,).
        risk: float64 (n,), high where the answer is doubted.
    """
    order = np.argsort(risk, kind="stable")
    return np.asarray(np.cumsum(wrong[order]) / np.arange(1, len(wrong) + 1))


def wrong_left(wrong: NDArray[np.bool_], risk: NDArray[np.float64], coverage: float) -> float:
    """Fraction of all wrong answers that are left where so many, 0-1, are answered."""
    answered = max(1, int(coverage * len(wrong)))
    return float(risk_coverage(wrong, risk)[answered - 1] * answered / max(1, wrong.sum()))


def risks(doubt: Doubt, answers: Answers) -> NDArray[np.float64]:
    """Of all answers, float64 (n,), as the device reckons them."""
    odds = np.array(doubt.offsets)[answers.answer] - doubt.slope * _log_odds(answers.confidence)
    limits = [getattr(doubt, name) for name in _MEASURES]
    excess = _passed(answers.quality, [limit.at for limit in limits])
    return np.asarray(expit(odds + excess @ np.array([limit.weight for limit in limits])))


def fit_doubt(answers: Mapping[str, Answers], labels: int) -> Doubt:
    """The logistic regression of wrong answers, and the risk that leaves ``ANSWERED`` of the clean faces.

    Clean and corrupted faces weigh alike in it. Likelihood alone would answer most noisy faces wrongly rather than mark
    them, and mark the worst corruptions whole. So measures get less weight where hardly ``ANSWERED_CORRUPTED`` are
    answered, then more, step by step: the one that tells most about the corruption with the most
    errors, until ``MOST_ERROR`` holds for it or it has hardly more than ``ANSWERED_CORRUPTED`` answers.

    Args:
        answers: by condition, ``CLEAN`` among them.
        labels: how many expressions are reported.
    """
    clean = answers[CLEAN]
    low, high = np.quantile(clean.quality, _TAIL, axis=0), np.quantile(clean.quality, 1 - _TAIL, axis=0)
    at = [float(f"{(high if name == 'noise' else low)[place]:.4g}") for place, name in enumerate(_MEASURES)]
    offsets, slope, weights = _regression(answers, labels, at)
    doubt = _with_weights(offsets, slope, at, weights, clean)
    for one in answers.values():
        while _kept(doubt, one).mean() < ANSWERED_CORRUPTED + _SPARE and weights.max() > _LEAST_WEIGHT:
            told = (_passed(one.quality, at) * weights).mean(axis=0)
            if not told.any():  # it is in doubt by its confidence
                break
            weights[told.argmax()] /= _STEP
            doubt = _with_weights(offsets, slope, at, weights, clean)
    settled: set[str] = {CLEAN}
    while True:
        errors = {name: _error(one.wrong[_kept(doubt, one)]) for name, one in answers.items() if name not in settled}
        worst = max(errors, key=errors.__getitem__, default=CLEAN)
        if errors.get(worst, 0.0) <= MOST_ERROR * _error(clean.wrong):
            return doubt
        heavier = np.maximum(weights, _LEAST_WEIGHT)
        heavier[(_passed(answers[worst].quality, at) * heavier).mean(axis=0).argmax()] *= _STEP
        stricter = _with_weights(offsets, slope, at, heavier, clean)
        fewest = min(float(_kept(stricter, one).mean()) for one in answers.values())
        if fewest < ANSWERED_CORRUPTED + _SPARE or heavier.max() > _MOST_WEIGHT:
            settled.add(worst)
        else:
            doubt, weights = stricter, heavier


def _with_weights(
    offsets: NDArray[np.float64],
    slope: float,
    at: Sequence[float],
    weights: NDArray[np.float64],
    clean: Answers,
) -> Doubt:
    """A doubt that leaves ``ANSWERED`` of the clean faces."""
    limits = {
        name: Limit(one, round(float(weight), 3)) for name, one, weight in zip(_MEASURES, at, weights, strict=True)
    }
    doubt = Doubt(tuple(np.round(offsets, 3).tolist()), round(slope, 3), **limits, max_risk=1.0)
    # Rounded up: who stands on the threshold is answered.
    most = float(np.ceil(np.quantile(risks(doubt, clean), ANSWERED) * 1e4) / 1e4)
    return dataclasses.replace(doubt, max_risk=min(most, 1.0))


def _kept(doubt: Doubt, answers: Answers) -> NDArray[np.bool_]:
    return risks(doubt, answers) <= doubt.max_risk


def measured(answers: Mapping[str, Answers], truth: NDArray[np.int64], labels: int) -> dict[str, Any]:
    """How well doubt sorts right from wrong, each fold by a doubt fitted on the others.

    Args:
        answers: by condition, all of the same n faces.
        truth: int64 (n,), by which the folds are made.
        labels: how many expressions are reported.

    Returns:
        ``area`` under the risk-coverage curve, ``curve``: the error at 5, 10, ... 100 % coverage, ``wrong_left_at_90``;
        by condition ``error``, ``answered`` and ``error_answered``, all of them 0-1.
    """
    risk = {name: np.zeros(len(truth)) for name in answers}
    answered = {name: np.zeros(len(truth), np.bool_) for name in answers}
    for fitted_on, measured_on in folds(truth):
        doubt = fit_doubt({name: one[fitted_on] for name, one in answers.items()}, labels)
        for name, one in answers.items():
            own = risks(doubt, one[measured_on])
            # Each fold's own threshold is 1 here, so that the folds can be sorted together.
            risk[name][measured_on], answered[name][measured_on] = own / doubt.max_risk, own <= doubt.max_risk
    wrong = answers[CLEAN].wrong
    errors = risk_coverage(wrong, risk[CLEAN])
    places = [max(1, round(len(errors) * part / 20)) - 1 for part in range(1, 21)]
    return {
        "area": round(float(errors.mean()), 4),
        "curve": [round(float(errors[place]), 4) for place in places],
        "wrong_left_at_90": round(wrong_left(wrong, risk[CLEAN], 0.9), 4),
        "wrong_left_at_90_by_confidence": round(wrong_left(wrong, -answers[CLEAN].confidence, 0.9), 4),
        "conditions": {
            name: {
                "error": round(_error(one.wrong), 4),
                "answered": round(float(answered[name].mean()), 4),
                "error_answered": round(_error(one.wrong[answered[name]]), 4),
            }
            for name, one in answers.items()
        },
    }


def table(figures: Mapping[str, Any]) -> Group:
    """Figures of ``measured`` for a terminal."""
    shown = Table("faces", "error", "answered", "error of the answers", title="Doubt")
    for name, row in figures["conditions"].items():
        shown.add_row(name, *(f"{row[key]:.1%}" for key in ("error", "answered", "error_answered")))
    curve = ", ".join(f"{5 * (place + 1)} %: {error:.1%}" for place, error in enumerate(figures["curve"]) if place % 2)
    said = (
        f"Error by coverage: {curve}; area under the curve {figures['area']:.4f}. Of the wrong answers "
        f"{figures['wrong_left_at_90']:.2f} are left at 90 % coverage; confidence alone would leave "
        f"{figures['wrong_left_at_90_by_confidence']:.2f}."
    )
    return Group(shown, said)


def _error(wrong: NDArray[np.bool_]) -> float:
    return float(wrong.mean()) if wrong.size else 0.0


def _log_odds(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """``temporal.doubt.log_odds`` of many."""
    bounded = np.clip(confidence, LEAST, MOST_CONFIDENT)
    return np.asarray(np.log(bounded / (1 - bounded)))


def _passed(quality: NDArray[np.float64], at: Sequence[float]) -> NDArray[np.float64]:
    """``temporal.doubt.passed`` of many, float64 (n, measures)."""
    high_is_bad = np.where([name == "noise" for name in _MEASURES], 1.0, -1.0)
    return np.asarray(np.maximum(0, high_is_bad * np.log(np.maximum(quality, LEAST) / np.array(at))))


def _regression(
    answers: Mapping[str, Answers], labels: int, at: Sequence[float]
) -> tuple[NDArray[np.float64], float, NDArray[np.float64]]:
    """Offsets, slope and weights with the highest likelihood; the latter two are not negative."""
    features, wrong, weights = [], [], []
    for name, one in answers.items():
        sure = _log_odds(one.confidence)
        features.append(np.hstack([np.eye(labels)[one.answer], -sure[:, np.newaxis], _passed(one.quality, at)]))
        wrong.append(one.wrong)
        weights.append(np.full(len(sure), max(1.0, len(answers) - 1.0) if name == CLEAN else 1.0))
    x, y, w = np.concatenate(features), np.concatenate(wrong).astype(np.float64), np.concatenate(weights)
    w /= w.sum()

    def loss(coefficients: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = x @ coefficients
        value = float((w * (np.logaddexp(0, odds) - y * odds)).sum() + _RIDGE * (coefficients**2).sum())
        return value, x.T @ (w * (expit(odds) - y)) + 2 * _RIDGE * coefficients

    bounds = [(None, None)] * labels + [(0, None)] * (1 + len(_MEASURES))
    found = minimize(loss, np.zeros(x.shape[1]), jac=True, bounds=bounds, method="L-BFGS-B").x
    return found[:labels], float(found[labels]), found[labels + 1 :]
