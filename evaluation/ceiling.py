"""``python -m evaluation ceiling``: how often people would agree with the label that a model is measured by.

python -m evaluation ceiling --data ~/fer2013

FER+ has the votes of ten raters for each image. Ten others would vote a little otherwise: no model can be expected to
agree with the label more often than they would. How often that is has to be estimated, as each image was shown to one
panel only. The votes for an image are taken for draws from its own distribution, and the distributions for a mixture of
multinomials (McLachlan & Peel, Finite Mixture Models, 2000, chapter 5), fitted by EM to the votes for all images of the
split. A check needs no such assumption: five votes, drawn out of the ten of each image, predict by the same mixture
whether the other five agree with them, and the other five show whether they do.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

import datasets
from datasets import Labels
from edge_fer.errors import DataError

COMPONENTS = 64
ROUNDS = 300
"""Of EM; the likelihood has long stood still by then."""
PANELS = 20_000
"""Panels that are drawn from each component."""
SEED = 0

Votes = NDArray[np.int64]
"""int64 (n, k): how many raters chose each class, and behind the classes what else they could choose."""


@dataclass(frozen=True)
class Ceiling:
    """What a fresh panel would reach on the labeled images, each 0-1.

    Attributes:
        n: images with a label.
        raters: of the panel, as many as voted.
        accuracy: how often the expression that most of the panel choose is the label; ties count in part.
        one_rater: how often a single rater chooses the label.
        predicted: the check: agreement of half of the votes with the other half as the mixture predicts it,
        observed: and as it is.
    """

    n: int
    raters: int
    accuracy: float
    one_rater: float
    predicted: float
    observed: float


@dataclass(frozen=True)
class VoteMixture:
    """A mixture of multinomials.

    Attributes:
        weights: float64 (components,), summing to 1.
        chances: float64 (components, k), each summing to 1: how a rater chooses.
    """

    weights: NDArray[np.float64]
    chances: NDArray[np.float64]

    @classmethod
    def fit(cls, votes: Votes, components: int = COMPONENTS) -> VoteMixture:
        """The mixture under which the votes are likeliest, from a start that the seed draws."""
        rows, counts = np.unique(votes, axis=0, return_counts=True)
        share = counts / counts.sum()
        components = min(components, len(rows))
        begin = np.random.default_rng(SEED).choice(len(rows), components, replace=False, p=share)
        mixture = cls(np.full(components, 1 / components), _normalized(rows[begin] + 0.3))
        for _ in range(ROUNDS):
            weighted = mixture.posterior(rows) * counts[:, np.newaxis]
            weights = np.maximum(weighted.sum(axis=0), 1e-9)  # a component may lose all its images
            mixture = cls(weights / weights.sum(), _normalized(weighted.T @ rows + 1e-2))
        return mixture

    def posterior(self, votes: Votes) -> NDArray[np.float64]:
        """Probability of each component for each row of votes, float64 (n, components)."""
        joint = votes @ np.log(self.chances).T + np.log(self.weights)
        likely: NDArray[np.float64] = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        return likely

    def panels(self, raters: int, classes: int) -> NDArray[np.float64]:
        """Probability that a class gets most votes of a panel, float64 (components, classes); ties are shared."""
        generator = np.random.default_rng(SEED)
        drawn = (generator.multinomial(raters, chances, PANELS)[:, :classes] for chances in self.chances)
        return np.stack([_most(votes).mean(axis=0) for votes in drawn])


def human_ceiling(labels: Labels) -> Ceiling:
    """Estimate what people would reach.

    Args:
        labels: with the votes that they come from.

    Raises:
        DataError: there are no votes, or no label.
    """
    if labels.votes is None:
        raise DataError("There is one label for each image and no votes: what people would reach cannot be estimated.")
    votes = labels.votes.astype(np.int64)
    known, classes = labels.truth >= 0, len(labels.expressions)
    if not known.any():
        raise DataError("No image has a label: there is nothing that people could agree with.")
    truth = labels.truth[known]
    raters = round(float(votes[known].sum(axis=1).mean()))
    mixture = VoteMixture.fit(votes)
    likely = mixture.posterior(votes[known])
    agrees = (likely @ mixture.panels(raters, classes))[np.arange(len(truth)), truth]
    one_rater = (likely @ mixture.chances)[np.arange(len(truth)), truth]
    predicted, observed = _check(votes, classes)
    figures = (agrees.mean(), one_rater.mean(), predicted, observed)
    return Ceiling(len(truth), raters, *(round(float(figure), 4) for figure in figures))


def _check(votes: Votes, classes: int) -> tuple[float, float]:
    """Agreement of half of the votes with the other half: predicted from the one half, and observed.

    Of the images for which one class has most votes in the first half.
    """
    generator = np.random.default_rng(SEED)
    half = np.stack([generator.multivariate_hypergeometric(row, row.sum() // 2) for row in votes])
    most = _most(half[:, :classes])
    clear = most.max(axis=1) == 1
    if not clear.any():
        return 0.0, 0.0
    rows, choice = np.arange(clear.sum()), most[clear].argmax(axis=1)
    mixture = VoteMixture.fit(half)
    raters = round(float((votes - half).sum(axis=1).mean()))
    predicted = (mixture.posterior(half[clear]) @ mixture.panels(raters, classes))[rows, choice]
    return float(predicted.mean()), float(_most((votes - half)[clear, :classes])[rows, choice].mean())


def _most(votes: Votes) -> NDArray[np.float64]:
    """1 for the class with most votes of a row, or an equal part for each of those that are tied."""
    top = votes == votes.max(axis=1, keepdims=True)
    return _normalized(top)


def _normalized(rows: NDArray[Any]) -> NDArray[np.float64]:
    normalized: NDArray[np.float64] = rows / rows.sum(axis=1, keepdims=True)
    return normalized


def command(arguments: list[str]) -> None:
    """Estimate and print.

    Raises:
        EdgeFerError: the data set cannot be read, or has no votes.
    """
    parser = argparse.ArgumentParser(
        prog="python -m evaluation ceiling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with fer2013new.csv")
    parser.add_argument("--split", default="PublicTest", choices=["PublicTest", "PrivateTest"])
    args = parser.parse_args(arguments)
    labels = next(iter(datasets.load_test(args.data, args.split).labels.values()))
    if labels.votes is None:
        raise DataError(f"{args.data} has no votes of raters: put FER+'s fer2013new.csv beside fer2013.csv.")
    ceiling = human_ceiling(labels)
    print(
        f"{args.split}: {in_words(ceiling)}\n"
        f"A single rater would choose it for {ceiling.one_rater:.1%}.\n"
        f"Check, half of each image's votes against the other half: they agree on {ceiling.observed:.1%} of the "
        f"images, and the mixture predicts {ceiling.predicted:.1%}."
    )


def in_words(ceiling: Ceiling) -> str:
    """The figure that stands beside a model's."""
    return (
        f"a fresh panel of {ceiling.raters} people would choose the label of {ceiling.accuracy:.1%} of the "
        f"{ceiling.n:,} labeled images."
    )
