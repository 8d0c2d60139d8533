"""Noise injection for Stage 3: a share of its training blocks are not its own.

In the cascade a Stage 3 also gets blocks that Stage 2 sends it by mistake. Here some of them are
among its training blocks, drawn anew each epoch, with soft labels over the classes it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.options import InjectionLabels, InjectionSource
from av1part.partition import IGNORED, Partition, Stage, Taxonomy
from av1part.system.errors import ConfigError


@dataclass(frozen=True)
class Injection:
    """How foreign blocks are drawn and labelled.

    Attributes:
        source: Where the rates are from: Stage 2's measured `confusion`, or `uniform`, the study's.
        share: Of the blocks of an epoch, 0 to 1.
        labels: `nearest` (`Stage.targets`), or `random`, the study's: any class, drawn per epoch.
        rates: Relative frequency at which a block is drawn, by its AV1 id, shape (10,): the
            probability that Stage 2 sends a block of this type here.
        stage2_sha256: Hash of the tensors of the Stage 2 the rates were measured on.
    """

    source: InjectionSource
    share: float
    labels: InjectionLabels
    rates: tuple[float, ...]
    stage2_sha256: str | None = None

    def count(self, own: int) -> int:
        """Return how many foreign blocks go with so many of the stage's own in an epoch."""
        return round(own * self.share / (1 - self.share))

    def weights(self, partition: NDArray[Any]) -> NDArray[np.float64]:
        """Return the probability of drawing each of these foreign blocks.

        Args:
            partition: Their AV1 ids, shape (n,).

        Returns:
            float64, shape (n,), sum 1.

        Raises:
            ConfigError: if none of them would ever be drawn.
        """
        rates = np.asarray(self.rates)[partition.astype(np.int64)]
        total = float(rates.sum())
        if not total:
            raise ConfigError(
                "injection: Stage 2 sends no foreign block of train here, so there is nothing to "
                "draw: use injection=none, or injection=uniform"
            )
        weights: NDArray[np.float64] = rates / total
        return weights

    def facts(self, own: int, partition: NDArray[Any]) -> dict[str, Any]:
        """Collect what a checkpoint must know of the injection.

        Args:
            own: Training nodes of the stage.
            partition: AV1 ids of the foreign blocks that can be drawn, shape (n,).

        Returns:
            Plain values; blocks an epoch, and by type how many there are, their rates, and their
            expected shares of what is drawn.
        """
        ids = partition.astype(np.int64)
        counts = np.bincount(ids, minlength=len(Partition))
        expected = np.bincount(ids, self.weights(ids), minlength=len(Partition))
        foreign = [p for p in Partition if counts[p]]
        return {
            "source": self.source,
            "share": self.share,
            "labels": self.labels,
            "stage2_sha256": self.stage2_sha256,
            "own": own,
            "foreign": self.count(own),
            "available": {p.name: int(counts[p]) for p in foreign},
            "rates": {p.name: float(self.rates[p]) for p in foreign},
            "expected": {p.name: float(expected[p]) for p in foreign},
        }


def describe(facts: Mapping[str, Any]) -> str:
    """Return one line on what `Injection.facts` holds."""
    drawn = ", ".join(f"{name} {100 * share:.1f} %" for name, share in facts["expected"].items())
    sent = ", ".join(f"{name} {100 * rate:.1f} %" for name, rate in facts["rates"].items())
    total = facts["own"] + facts["foreign"]
    return (
        f"injection: {facts['foreign']} of an epoch's {total} blocks are foreign, labels "
        f"{facts['labels']}: {drawn}"
        + (f"; on val Stage 2 sends here {sent}" if facts["source"] == "confusion" else "")
    )


def sender(taxonomy: Taxonomy, stage: Stage) -> tuple[Stage, int]:
    """Find the stage whose mistakes a Stage 3 gets.

    Args:
        taxonomy: The tree of stages.
        stage: The Stage 3.

    Returns:
        That stage, and the index of the class by which it sends blocks on.

    Raises:
        ConfigError: if the stage is not a Stage 3.
    """
    parent = taxonomy.parent(stage)
    if parent is None or parent[0] == taxonomy.root:
        raise ConfigError(
            f"injection is of blocks that Stage 2 sends to a Stage 3 by mistake, {stage.name} is "
            "none: use injection=none"
        )
    return parent


def is_foreign(partition: NDArray[Any], taxonomy: Taxonomy, stage: Stage) -> NDArray[np.bool_]:
    """Return which nodes Stage 2 could send to a Stage 3 by mistake.

    Args:
        partition: AV1 ids, shape (n,).
        taxonomy: The tree of stages.
        stage: The Stage 3.

    Returns:
        bool, shape (n,): of Stage 2's population, but of another class of it.

    Raises:
        ConfigError: if the stage is not a Stage 3.
    """
    parent, index = sender(taxonomy, stage)
    label = parent.labels[partition]
    foreign: NDArray[np.bool_] = (label != IGNORED) & (label != index)
    return foreign
