"""Ratios of two things run in turn: the median of the ratios of pairs, and their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Compared:
    """Two rates measured in turn.

    Attributes:
        ours: Median of our rates, blocks a second.
        theirs: Median of the peer's.
        ratio: Median of the ratios of pairs run next to each other.
        low: Least of these ratios.
        high: Greatest of them.
        repeats: Number of pairs.
    """

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    repeats: int


def compare(
    ours: Callable[[], float], theirs: Callable[[], float], *, repeats: int = 3
) -> Compared:
    """Run two measurements in turn.

    Args:
        ours: Returns a rate, blocks a second.
        theirs: Likewise.
        repeats: Pairs.
    """
    pairs = [(ours(), theirs()) for _ in range(repeats)]
    return paired(*map(list, zip(*pairs, strict=True)))


def paired(ours: list[float], theirs: list[float]) -> Compared:
    """Compare rates that were measured in turn, one of ours with one of theirs."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Compared(
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        repeats=len(ratios),
    )
