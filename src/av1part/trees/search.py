"""Trees under several settings, of which the val nodes choose one, as a network has tries."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from av1part.trees.boosting import Boosted, Boosting, Samples, boost

log = logging.getLogger(__name__)

TRIED: Mapping[str, tuple[Any, ...]] = {
    "learning_rate": (0.04, 0.08, 0.16),
    "leaves": (15, 31, 63),
    "leaf_nodes": (20, 50, 150),
    "features": (0.3, 0.5, 0.8),
}
"""Attributes of `Boosting` to the values that further tries combine."""


def settings_to_try(settings: Boosting) -> list[Boosting]:
    """Return `settings.tries` different settings.

    Args:
        settings: The first; `seed` draws the others from the combinations of `TRIED`.

    Returns:
        The first as given, then the others; the first of more tries are those of fewer.
    """
    others = [
        replace(settings, **dict(zip(TRIED, values, strict=True)))
        for values in itertools.product(*TRIED.values())
    ]
    order = np.random.default_rng(settings.seed).permutation(len(others))
    drawn = [others[index] for index in order if others[index] != settings]
    return [settings, *drawn][: settings.tries]


def search(train: Samples, val: Samples, classes: int, settings: Boosting) -> Boosted:
    """Train trees under each of the settings to try, and return those of the least val loss.

    Args:
        train: Training nodes, at least one.
        val: Validation nodes, at least one.
        classes: Number of classes.
        settings: How to train, and how many tries.

    Returns:
        The trees; of equal ones the first.

    Raises:
        ConfigError: if LightGBM is not installed.
    """
    tried = []
    for own in settings_to_try(settings):
        tried.append(boost(train, val, classes, own))
        log.debug("trees: val log loss %.4f with %s", tried[-1].val_loss, own)
    return min(tried, key=lambda boosted: boosted.val_loss)
