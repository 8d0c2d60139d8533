"""Scores of several predictors on the same pictures: intervals, and differences between them.

A score is a function of sums over nodes. Intervals resample pictures (`metrics.intervals`); all
predictors are resampled alike, so that the difficulty of a picture cancels out in a difference.
The test of a difference is a paired t test over pictures, on the jackknife's pseudo-values: what
each picture contributes to the difference. Holm's correction is over the predictors that are
compared with one reference, for each score by itself.

Reference: Miller, The jackknife - a review, Biometrika 61 (1974).

Shapes: g pictures, r resamples, w sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.metrics.intervals import Bootstrap, Interval
from av1part.metrics.statistics import holm, paired_p

Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Computes a score from sums with any leading axes, which its result has."""


@dataclass(frozen=True)
class PairedDifference:
    """A score of one predictor less that of another.

    Attributes:
        interval: The difference with its interval.
        p: Two-sided p value; None of one picture, and where all contribute the same.
        p_holm: The same, corrected for all comparisons of the family.
    """

    interval: Interval
    p: float | None = None
    p_holm: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return {**self.interval.to_json(), "p": self.p, "p_holm": self.p_holm}


@dataclass(frozen=True)
class Resampled:
    """The scores of a predictor, on all pictures and on resamples.

    Attributes:
        estimate: Score to its value on all pictures.
        draws: Score to its value on each resample, shape (r,).
        without: Score to its value without each picture, shape (g,).
        bootstrap: How pictures were resampled.
    """

    estimate: Mapping[str, float]
    draws: Mapping[str, NDArray[np.float64]]
    without: Mapping[str, NDArray[np.float64]]
    bootstrap: Bootstrap

    @classmethod
    def of(
        cls, sums: NDArray[Any], scores: Mapping[str, Score], bootstrap: Bootstrap | None = None
    ) -> Resampled:
        """Compute scores of all pictures, of resamples, and of all pictures but each.

        Args:
            sums: One set of sums a picture, shape (g, ...), each of at least one node.
            scores: The scores.
            bootstrap: How to resample.

        Returns:
            The scores.
        """
        bootstrap = bootstrap or Bootstrap()
        stack = np.asarray(sums, dtype=np.float64)
        total = stack.sum(0)
        several = len(stack) > 1
        resamples = bootstrap.resample(stack) if several else stack[:0]
        others = total - stack if several else stack[:0]
        return cls(
            {name: float(score(total)) for name, score in scores.items()},
            {name: score(resamples) for name, score in scores.items()},
            {name: score(others) for name, score in scores.items()},
            bootstrap,
        )

    @classmethod
    def mean(cls, members: Sequence[Resampled]) -> Resampled:
        """Average the scores of several predictors, such as seeds of one training.

        Args:
            members: At least one, all of the same pictures and resamples.

        Returns:
            The mean of each score on all pictures, on each resample, and without each picture:
            intervals and tests of it are over pictures, and take the members as they are.
        """

        def averaged(name: str) -> dict[str, Any]:
            parts = [getattr(member, name) for member in members]
            return {score: sum(part[score] for part in parts) / len(parts) for score in parts[0]}

        return cls(
            averaged("estimate"), averaged("draws"), averaged("without"), members[0].bootstrap
        )

    @property
    def pictures(self) -> int:
        """Number g of pictures."""
        return max(1, *(len(values) for values in self.without.values()))

    def intervals(self) -> dict[str, Interval]:
        """Return each score with its interval; without limits if there is one picture."""
        return {name: self._interval(self.estimate[name], name) for name in self.estimate}

    def minus(self, other: Resampled) -> dict[str, PairedDifference]:
        """Return each score less that of another predictor on the same pictures and resamples."""
        found, contributions = {}, self.contributions(other)
        for name, value in self.estimate.items():
            draws = self.draws[name] - other.draws[name]
            p = paired_p(contributions[name]) if self.pictures > 1 else None
            difference = value - other.estimate[name]
            found[name] = PairedDifference(self._interval(difference, name, draws), p)
        return found

    def contributions(self, other: Resampled) -> dict[str, NDArray[np.float64]]:
        """Return what each picture contributes to a difference, the jackknife's pseudo-values.

        Args:
            other: The predictor that is subtracted, on the same pictures.

        Returns:
            Score to its pseudo-values, shape (g,); empty of one picture.
        """
        g = self.pictures
        return {
            name: g * (value - other.estimate[name])
            - (g - 1) * (self.without[name] - other.without[name])
            for name, value in self.estimate.items()
        }

    def _interval(
        self, estimate: float, name: str, draws: NDArray[np.float64] | None = None
    ) -> Interval:
        if self.pictures < 2:
            return Interval(estimate, clusters=1)
        values = self.draws[name] if draws is None else draws
        return self.bootstrap.interval(estimate, values, self.pictures)


def compare_with(
    predictors: Mapping[str, Resampled], reference: str
) -> dict[str, dict[str, PairedDifference]]:
    """Compare all predictors with one of them.

    Args:
        predictors: Name to scores, all of the same pictures.
        reference: A key of it.

    Returns:
        Name of each other predictor to its differences, corrected by Holm's method.
    """
    found = {
        name: scores.minus(predictors[reference])
        for name, scores in predictors.items()
        if name != reference
    }
    for score in predictors[reference].estimate:
        tested = {n: d[score].p for n, d in found.items() if d[score].p is not None}
        corrected = holm([p for p in tested.values() if p is not None])
        for name, p_holm in zip(tested, corrected, strict=True):
            found[name][score] = replace(found[name][score], p_holm=p_holm)
    return found
