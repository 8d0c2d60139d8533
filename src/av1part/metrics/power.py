"""How many pictures and seeds a comparison needs, and a test over both.

A difference of two methods is observed once for each picture and each seed of the training:

    observed = difference + of the picture + of the seed + rest

Pictures and seeds are both samples: another draw of either gives another mean. A test over
pictures alone takes the networks as they are, one over seeds alone the pictures. That of
`crossed_test` allows for both: its standard error is made of the mean squares of the two-way
analysis of variance, its degrees of freedom are Satterthwaite's. Where seeds differ as much as
pictures do, its level of 5 % is some 6 % with five seeds and 7 to 8 % with three, by simulation.
The same components, estimated in a pilot, say how many of each a difference
of a given size needs.

For a score that is no mean over pictures, such as macro-F1, what is observed are the jackknife's
pseudo-values (`metrics.paired`).

References: Satterthwaite, An approximate distribution of estimates of variance components,
Biometrics Bulletin 2 (1946); Clark, The language-as-fixed-effect fallacy, J. Verbal Learning and
Verbal Behavior 12 (1973).

Shapes: g pictures, s seeds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from av1part.metrics.statistics import LEVEL

CHANCE = 0.8
"""Of finding a true difference, where nothing else is said."""

_ROUNDED = 1 - 1e-9
"""Of what is equal but for rounding."""

MOST = 100_000
"""Pictures or seeds beyond which it is given up to look for enough."""


@dataclass(frozen=True)
class Crossed:
    """The mean of a difference over pictures and seeds, with its test.

    Attributes:
        mean: The mean.
        low: Lower limit of its interval, whose coverage is `LEVEL`.
        high: Upper limit.
        p: Two-sided p value.
        standard_error: Of the mean.
        freedom: Degrees of freedom.
    """

    mean: float
    low: float
    high: float
    p: float
    standard_error: float
    freedom: float


@dataclass(frozen=True)
class Components:
    """Variances of one observation of a difference.

    Attributes:
        picture: Between pictures, the same for all seeds.
        seed: Between seeds, the same for all pictures.
        rest: Of a picture with a seed.
    """

    picture: float
    seed: float
    rest: float

    @classmethod
    def of(cls, observed: ArrayLike) -> Components:
        """Estimate the variances by the analysis of variance.

        Args:
            observed: A difference for each picture and seed, shape (g, s).

        Returns:
            The estimates; one that comes out below zero is zero.

        Raises:
            ValueError: if there are fewer than two pictures or seeds.
        """
        values = _checked(observed)
        g, s = values.shape
        picture, seed, rest = _mean_squares(values)
        return cls(max(0.0, (picture - rest) / s), max(0.0, (seed - rest) / g), rest)

    def mean_squares(self, pictures: int, seeds: int) -> tuple[float, float, float]:
        """Return the mean squares to be expected of so many pictures and seeds."""
        return (
            self.rest + seeds * self.picture,
            self.rest + pictures * self.seed,
            self.rest,
        )


def crossed_test(observed: ArrayLike) -> Crossed:
    """Test whether a mean over pictures and seeds is zero, both taken as samples.

    Args:
        observed: A difference for each picture and seed, shape (g, s).

    Returns:
        The mean, its interval and test. Without any spread p is 1 for a mean of zero, else 0.

    Raises:
        ValueError: if there are fewer than two pictures or seeds.
    """
    values = _checked(observed)
    g, s = values.shape
    mean = float(values.mean())
    error, freedom = _error(_mean_squares(values), g, s)
    if error == 0:
        return Crossed(mean, mean, mean, float(mean == 0), 0.0, freedom)
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Crossed(mean, mean - half, mean + half, p, error, freedom)


def power(difference: float, components: Components, *, pictures: int, seeds: int) -> float:
    """Return the chance that `crossed_test` finds a true difference at the level 1 - `LEVEL`.

    Args:
        difference: The true difference, in the unit of the observations.
        components: Variances, in its square.
        pictures: Pictures of the comparison, at least 2.
        seeds: Seeds of the comparison, at least 2.

    Returns:
        A probability.

    Raises:
        ValueError: if there are fewer than two pictures or seeds.
    """
    if min(pictures, seeds) < 2:
        raise ValueError(f"a test over {pictures} pictures and {seeds} seeds needs two of each")
    error, freedom = _error(components.mean_squares(pictures, seeds), pictures, seeds)
    if error == 0:
        return float(difference != 0)
    limit = stats.t.ppf((1 + LEVEL) / 2, freedom)
    shift = abs(difference) / error
    above = stats.nct.sf(limit, freedom, shift)
    below = stats.nct.cdf(-limit, freedom, shift)
    return float(above + np.nan_to_num(below))  # nan is a tail too small for scipy


def pictures_needed(
    difference: float, components: Components, *, seeds: int, chance: float = CHANCE
) -> int | None:
    """Return how many pictures find a true difference.

    Args:
        difference: The true difference, in the unit of the observations.
        components: Variances, in its square.
        seeds: Seeds of the comparison, at least 2.
        chance: Of finding it.

    Returns:
        The least number; None if there is none up to `MOST`, since seeds differ by too much.

    Raises:
        ValueError: if there are fewer than two seeds.
    """
    return _least(lambda n: power(difference, components, pictures=n, seeds=seeds) >= chance)


def seeds_needed(
    difference: float, components: Components, *, pictures: int, chance: float = CHANCE
) -> int | None:
    """Return how many seeds find a true difference; as `pictures_needed`, for given pictures."""
    return _least(lambda n: power(difference, components, pictures=pictures, seeds=n) >= chance)


def detectable(
    components: Components, *, pictures: int, seeds: int, chance: float = CHANCE
) -> float:
    """Return the least true difference that `crossed_test` finds with a given chance.

    Args:
        components: Variances of the observations.
        pictures: Pictures of the comparison, at least 2.
        seeds: Seeds of the comparison, at least 2.
        chance: Of finding it, above 1 - `LEVEL`.

    Returns:
        A difference, at least 0, in the unit of the observations.

    Raises:
        ValueError: if there are fewer than two pictures or seeds.
    """

    def missing(difference: float) -> float:
        return power(difference, components, pictures=pictures, seeds=seeds) - chance

    high = float(sum(components.mean_squares(pictures, seeds)) ** 0.5)
    if high == 0:
        return 0.0
    while missing(high) < 0:
        high *= 2
    return float(optimize.brentq(missing, 0.0, high))


def _least(enough: Callable[[int], bool]) -> int | None:
    """Return the least number of pictures or seeds that is enough, None if there is none to `MOST`.

    Power may rise and fall again: with many pictures and few seeds all that is left are the seeds,
    with few degrees of freedom. So numbers are tried from below, and bisected only between the
    first that is enough and the one tried before it.
    """
    below = 1
    for number in np.unique(np.geomspace(2, MOST, 400).astype(int)).tolist():
        if enough(number):
            return bisect_left(range(number), True, lo=below + 1, key=enough)
        below = number
    return None


def _checked(observed: ArrayLike) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    values = np.asarray(observed, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"a test over pictures and seeds needs two of each, got {values.shape}")
    return values


def _mean_squares(
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> tuple[float, float, float]:
    """Return the mean squares of pictures, of seeds and of the rest."""
    g, s = values.shape
    of_picture = values.mean(1, keepdims=True) - values.mean()
    of_seed = values.mean(0, keepdims=True) - values.mean()
    rest = values - values.mean() - of_picture - of_seed
    return (
        float(s * (of_picture**2).sum() / (g - 1)),
        float(g * (of_seed**2).sum() / (s - 1)),
        float((rest**2).sum() / ((g - 1) * (s - 1))),
    )


def _error(squares: tuple[float, float, float], g: int, s: int) -> tuple[float, float]:
    """Return the standard error of a mean and its degrees of freedom.

    The sum of mean squares that estimates its variance is at least each of the two alone: less
    would deny a variance that was seen.
    """
    picture, seed, rest = squares
    total = picture + seed - rest
    if total >= max(picture, seed) * _ROUNDED:
        parts = picture**2 / (g - 1) + seed**2 / (s - 1) + rest**2 / ((g - 1) * (s - 1))
        freedom = total**2 / parts if parts else float(g + s - 2)
    elif picture >= seed:
        total, freedom = picture, float(g - 1)
    else:
        total, freedom = seed, float(s - 1)
    return float((total / (g * s)) ** 0.5), float(max(1.0, freedom))
