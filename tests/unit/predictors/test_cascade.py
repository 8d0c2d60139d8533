"""Cascades of several sizes as one predictor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from av1part.partition import taxonomy
from av1part.predictors.cascade import Cascades
from av1part.system.errors import CheckpointError


def cascade(size: int, name: str = "v6", qindexes: tuple[int, int] = (80, 220)) -> Any:
    tree = taxonomy(name).at(size)
    return SimpleNamespace(size=size, bit_depth=8, qindexes=qindexes, taxonomy=tree)


def test_the_domain_is_what_all_were_trained_on() -> None:
    joined = Cascades.of([cascade(32, "v6_1to4", (100, 255)), cascade(8)])
    assert (joined.domain.sizes, joined.domain.qindexes) == ((8, 32), (100, 220))
    assert joined.domain.one_to_four


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (cascade(16), "two cascades are of size 16"),
        (cascade(32, "v6_1to4"), "only some of the cascades know HORZ_4 and VERT_4"),
        (cascade(8, qindexes=(20, 79)), "no qindex that all cascades were trained on"),
    ],
)
def test_cascades_that_do_not_fit_together_are_refused(other: Any, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        Cascades.of([cascade(16), other])
