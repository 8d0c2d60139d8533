"""Hint files of points: what random sets are drawn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from av1part.encoder.hinting import random_sets
from av1part.encoder.hints import KEEP, HintsWriter, open_hints
from av1part.encoder.policies import Policy
from av1part.partition import Partition
from av1part.predictors.interface import Domain


def test_random_sets_are_as_large_as_those_of_a_hint_file(tmp_path: Path) -> None:
    """Nodes over the edge have no hint, and types that the predictor does not know do not count."""
    domain = Domain(sizes=(16, 32), one_to_four=False)
    unknown = 1 << Partition.HORZ_4 | 1 << Partition.VERT_4
    one, three = 1 << Partition.NONE, 0b111
    masks = np.full((4, 5), KEEP | unknown | three, np.uint16)
    masks[:, 0] = KEEP | unknown | one
    masks[3] = 0  # over the lower edge
    large = np.full((2, 3), KEEP | 0xFF, np.uint16)
    large[1] = 0
    with HintsWriter(tmp_path / "a", 80, 60, (16, 32)) as writer:
        writer.add({16: masks, 32: large})
    drawn = random_sets(open_hints(tmp_path / "a"), domain, 80)
    assert drawn.set_sizes.at(16, 80).tolist() == [3, 0, 12, 0, 0, 0, 0, 0, 0, 0]
    assert drawn.set_sizes.at(32, 80).tolist() == [0, 0, 0, 0, 0, 0, 0, 3, 0, 0]
    assert drawn.domain == domain
    plane = np.random.default_rng(0).integers(0, 256, (1600, 1600), np.uint8)
    chosen = Policy(tau=1.0).frame_masks(drawn.predict(plane, 8, 80), plane.shape, domain)
    sizes = np.bitwise_count(chosen[16] & 0xFF)
    assert set(np.unique(sizes).tolist()) == {1, 3}
    assert abs((sizes == 1).mean() - 0.2) < 0.02
    assert ((chosen[16] & unknown) == unknown).all()  # left to the encoder, which prunes too
    assert (np.bitwise_count(chosen[32] & 0xFF) == 8).all()
