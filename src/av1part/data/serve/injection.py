"""Noise injection for Stage 3: a share of its training blocks belong to other stages.

In the cascade a Stage 3 also gets blocks that Stage 2 sends it by mistake. With injection, such
foreign blocks are among its training blocks, drawn again each epoch, with soft labels over the
stage's classes.
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
class ForeignBlocks:
    """How foreign blocks are drawn and labelled.

    Attributes:
        source: Source of the rates: Stage 2's measured `confusion`, or `uniform` as in the study.
        share: Share of foreign blocks in an epoch, 0 to 1.
        labels: `nearest` (`Stage.targets`), or `random` as in the study, drawn per epoch.
        rates: Probability, by AV1 id, that Stage 2 sends a block of this type to the stage, shape
            (10,); blocks are drawn in proportion to it.
        stage2_sha256: Hash of the tensors of the Stage 2 whose rates were measured.
    """

    source: InjectionSource
    share: float
    labels: InjectionLabels
    rates: tuple[float, ...]
    stage2_sha256: str | None = None

    def count(self, own: int) -> int:
        """Return the number of foreign blocks in an epoch with `own` blocks of the stage."""
        return round(own * self.share / (1 - self.share))

    def weights(self, partition: NDArray[Any]) -> NDArray[np.float64]:
        """Return the probability of each foreign block.

        Args:
            partition: AV1 ids of the foreign blocks, shape (n,).

        Returns:
            float64, shape (n,), sum 1.

        Raises:
            ConfigError: if the rates of all these types are 0.
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
        """Return what a checkpoint records of the injection.

        Args:
            own: Training nodes of the stage.
            partition: AV1 ids of the foreign blocks that can be drawn, shape (n,).

        Returns:
            Plain values: blocks per epoch; by type, the number available, the rate, and the
            expected share of the foreign blocks drawn.
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
    """Return a log line of `ForeignBlocks.facts`."""
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in facts["expected"].items())
    rates = ", ".join(f"{name} {100 * rate:.1f} %" for name, rate in facts["rates"].items())
    total = facts["own"] + facts["foreign"]
    return (
        f"injection: {facts['foreign']} of an epoch's {total} blocks are foreign, labels "
        f"{facts['labels']}: {shares}"
        + (f"; on val Stage 2 sends here {rates}" if facts["source"] == "confusion" else "")
    )


def sender(taxonomy: Taxonomy, stage: Stage) -> tuple[Stage, int]:
    """Return the stage that sends blocks to a Stage 3.

    Args:
        taxonomy: The taxonomy.
        stage: The Stage 3.

    Returns:
        The sending stage, and the index of its class whose blocks it sends.

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
    """Return which nodes are of Stage 2's population but of another class than this Stage 3's.

    Args:
        partition: AV1 ids, shape (n,).
        taxonomy: The taxonomy.
        stage: The Stage 3.

    Returns:
        bool, shape (n,).

    Raises:
        ConfigError: if the stage is not a Stage 3.
    """
    parent, index = sender(taxonomy, stage)
    label = parent.labels[partition]
    foreign: NDArray[np.bool_] = (label != IGNORED) & (label != index)
    return foreign
