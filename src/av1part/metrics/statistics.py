"""Comparing variants over seeds and folds: means, intervals, paired tests, Holm's correction.

A member is one training: a seed, on a fold. Members of two variants with the same seed and fold
differ only in the variant, so that their difference is one observation of a paired t test. With f
variants against one baseline, Holm's correction keeps the chance of any false positive below the
level of the tests.

The test assumes independent members, but members of one fold share their data: with few folds the
intervals cover other seeds, not other pictures.

References: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6 (1979);
Dror et al., The hitchhiker's guide to testing statistical significance in NLP, ACL 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_NO_SPREAD = 1e-9
"""Spread of differences, by their size, that is rounding alone."""

LEVEL = 0.95
"""Nominal coverage of intervals; 1 less this is the level of tests."""


@dataclass(frozen=True)
class Mean:
    """A mean over members.

    Attributes:
        mean: The mean.
        sd: Sample standard deviation; None of a single member.
        low: Lower limit of Student's interval of the mean; None of a single member.
        high: Upper limit.
        n: Number of members.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Difference(Mean):
    """The mean of paired differences to a baseline, as `Mean`, and its test.

    Attributes:
        p: Two-sided p value of the paired t test; None of a single pair, and of pairs that all
            differ by the same.
        p_holm: The same, corrected for all comparisons of the family.
    """

    p: float | None = None
    p_holm: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the corrected test rejects that there is no difference."""
        return self.p_holm is not None and self.p_holm < 1 - LEVEL


def mean_of(values: Sequence[float]) -> Mean:
    """Average values over members.

    Args:
        values: One a member, at least one.

    Returns:
        Their mean with its interval by Student's t.
    """
    sample = np.asarray(values, dtype=np.float64)
    n, mean = len(sample), float(sample.mean())
    if n < 2:
        return Mean(mean, None, None, None, n)
    sd = float(sample.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / n**0.5
    return Mean(mean, sd, mean - half, mean + half, n)


def against_baseline(
    scores: Mapping[str, Mapping[str, float]], baseline: str
) -> dict[str, Difference]:
    """Compare every variant with a baseline, member by member.

    Args:
        scores: Variant to member to score; a member is used if both variants have it.
        baseline: A key of `scores`.

    Returns:
        Variant to its difference, without the baseline and variants that share no member with it.
        The family of Holm's correction are all of these.
    """
    results: dict[str, Difference] = {}
    for variant, of in scores.items():
        common = sorted(of.keys() & scores[baseline].keys())
        if variant == baseline or not common:
            continue
        differences = np.array([of[m] - scores[baseline][m] for m in common])
        mean = mean_of(differences.tolist())
        results[variant] = Difference(**vars(mean), p=paired_p(differences))
    tested = {name: result.p for name, result in results.items() if result.p is not None}
    corrected = holm(list(tested.values()))
    for name, p in zip(tested, corrected, strict=True):
        results[name] = replace(results[name], p_holm=p)
    return results


def paired_p(differences: NDArray[np.float64]) -> float | None:
    """Return the two-sided p value of a paired t test.

    Args:
        differences: One a pair, shape (n,).

    Returns:
        1 for differences that are all zero; None of one pair, and of equal ones, which have no
        spread to compare with.
    """
    if len(differences) < 2:
        return None
    if not differences.any():
        return 1.0
    if differences.std() <= _NO_SPREAD * np.abs(differences).max():
        return None  # t would be infinite: seeds that change nothing are no evidence
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values of a family of tests, step down.

    Args:
        p: One a test.

    Returns:
        Corrected p values, in the same order, at most 1.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    result: list[float] = corrected.tolist()
    return result
