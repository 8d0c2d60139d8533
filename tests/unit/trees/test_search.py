"""Several tries of trees: which settings, and that val chooses among them."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from av1part.trees.boosting import Boosting, Samples, boost
from av1part.trees.search import TRIED, search, settings_to_try

GIVEN = Boosting("balanced", 12, 5, 0.08, 31, 50, 0.5, seed=1, threads=1)


def test_tries_begin_with_the_settings_as_given() -> None:
    four = settings_to_try(replace(GIVEN, tries=4))
    nine = settings_to_try(replace(GIVEN, tries=9))
    assert four[0] == replace(GIVEN, tries=4)
    assert [replace(own, tries=4) for own in nine[:4]] == four
    different = {tuple(asdict(own).items()) for own in settings_to_try(replace(GIVEN, tries=80))}
    assert len(different) == 80
    for own in nine[1:]:
        assert all(getattr(own, key) in values for key, values in TRIED.items())
        assert (own.class_weights, own.iterations) == ("balanced", 12)
    other = settings_to_try(replace(GIVEN, tries=4, seed=2))
    assert [asdict(own) | {"seed": 1} for own in other] != [asdict(own) for own in four]


def test_val_chooses() -> None:
    pytest.importorskip("lightgbm")
    rng = np.random.default_rng(0)
    features = rng.normal(size=(900, 4)).astype(np.float32)
    labels = (features[:, 0] * features[:, 1] + rng.normal(0, 0.5, 900) > 0).astype(np.int64)
    train, val = Samples(features[:600], labels[:600]), Samples(features[600:], labels[600:])
    settings = replace(GIVEN, class_weights="none", tries=5)
    chosen = search(train, val, 2, settings)
    losses = [boost(train, val, 2, own).val_loss for own in settings_to_try(settings)]
    assert chosen.val_loss == min(losses)
    assert len(set(losses)) > 1
    assert chosen.settings == settings_to_try(settings)[int(np.argmin(losses))]
