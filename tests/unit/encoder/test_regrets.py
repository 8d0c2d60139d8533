"""Regrets of the nodes of a frame, by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from av1part.encoder.counts import COSTS_DTYPE, NOT_TRIED
from av1part.encoder.regrets import frame_regrets
from av1part.partition import Partition
from av1part.system.errors import EncoderError

from .test_ties import record, tree

NONE, HORZ, SPLIT = Partition.NONE, Partition.HORZ, Partition.SPLIT


def test_a_regret_is_the_second_best_types_share_of_the_frame() -> None:
    """The frame costs 499 + 900, whatever the children of its superblocks do."""
    found = frame_regrets(tree()).sort("size", "row", "col")
    assert found.drop("regret").rows() == [
        *((row, col, 8, NONE) for row in (0, 8) for col in (0, 8)),
        (0, 0, 16, SPLIT),
        (0, 16, 16, NONE),
    ]
    assert found["regret"].dtype == pl.Float32
    known = found["regret"][:5].to_list()
    np.testing.assert_allclose(known, [3 / 1399] * 4 + [1 / 1399], rtol=1e-6)
    # All others were abandoned: they cost more, but it is not known how much.
    assert found["regret"][5] is None


def test_a_type_that_was_tried_alone_has_no_regret() -> None:
    assert frame_regrets(np.array([record(0, 0, 16, 0, {NONE: 7}, NONE)], COSTS_DTYPE))[
        "regret"
    ].to_list() == [None]


def test_a_cost_below_the_chosen_one_is_no_regret() -> None:
    one = record(0, 0, 16, 0, {NONE: 100, HORZ: 90}, NONE)
    assert frame_regrets(np.array([one], COSTS_DTYPE))["regret"].to_list() == [0.0]


def test_a_node_without_its_own_cost_has_no_regret() -> None:
    records = tree()
    child = np.flatnonzero(records["size_log2"] == 3)[0]
    known = frame_regrets(records)["regret"].null_count()
    records["cost"][child, NONE] = NOT_TRIED
    assert frame_regrets(records)["regret"].null_count() == known + 1


def test_records_of_several_frames_are_refused() -> None:
    records = tree()
    records["frame"][-1] = 1
    with pytest.raises(ValueError, match="one frame"):
        frame_regrets(records)
    with pytest.raises(EncoderError, match="without a cost"):
        frame_regrets(np.array([record(0, 0, 16, 0, {HORZ: 1}, NONE)], COSTS_DTYPE))
