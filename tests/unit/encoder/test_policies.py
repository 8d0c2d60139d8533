"""Masks of a policy hold the types that it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from av1part.encoder.hints import KEEP
from av1part.encoder.policies import Policy
from av1part.options import PolicyKind
from av1part.predictors.interface import TYPES, Domain
from av1part.system.errors import ConfigError


def types_of(mask: int) -> list[int]:
    return [t for t in range(TYPES) if mask >> t & 1]


@pytest.mark.parametrize(
    ("tau", "types"),
    [(0.0, [0]), (0.5, [0]), (0.51, [0, 2]), (0.9, [0, 1, 2]), (1.0, [0, 1, 2, 3])],
)
def test_cumulated_takes_the_most_probable_types_up_to_tau(tau: float, types: list[int]) -> None:
    probabilities = np.array([[0.5, 0.1, 0.3, 0.1, 0, 0, 0, 0, 0, 0]], np.float32)
    (mask,) = Policy(tau=tau, keep=False).masks(probabilities, 16)
    assert types_of(mask) == types


def test_tau_may_be_given_by_size() -> None:
    policy = Policy(tau=[0.5, 1.0], sizes=[16, 64], keep=False)
    alike = np.full((1, TYPES), 0.1, np.float32)
    assert types_of(policy.masks(alike, 16)[0]) == [0, 1, 2, 3, 4]
    assert types_of(policy.masks(alike, 64)[0]) == list(range(TYPES))
    assert policy.hinted_sizes(Domain()) == (16, 64)


@pytest.mark.parametrize(("kind", "type_"), [("none", 0), ("split", 3)])
def test_one_type_everywhere(kind: PolicyKind, type_: int) -> None:
    alike = np.full((2, 3, TYPES), 0.1, np.float32)
    masks = Policy(kind=kind, keep=False).masks(alike, 32)
    assert masks.shape == (2, 3)
    assert (masks == 1 << type_).all()


@given(
    drawn=arrays(np.float64, (4, TYPES), elements=st.floats(0, 1)),
    tau=st.floats(0, 1),
    k=st.integers(1, TYPES),
    keep=st.booleans(),
)
def test_sets_are_minimal_and_large_enough(
    drawn: NDArray[np.float64], tau: float, k: int, keep: bool
) -> None:
    drawn = drawn + np.eye(4, TYPES)
    probabilities = (drawn / drawn.sum(1, keepdims=True)).astype(np.float32)
    masks = Policy(tau=tau, keep=keep).masks(probabilities, 16)
    for row, mask in zip(probabilities, masks, strict=True):
        types = types_of(mask)
        assert bool(mask & KEEP) == keep
        assert row[types].sum() >= tau - 1e-5
        assert row[types].sum() - row[types].min() < tau + 1e-5 or len(types) == 1
        assert row[types].min() >= np.delete(row, types).max(initial=0)
    for mask in Policy(kind="top", k=k).masks(probabilities, 16):
        assert len(types_of(mask)) == k


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "best"}, "policy.kind=best"),
        ({"tau": 1.5}, "policy.tau=1.5"),
        ({"tau": [0.5, 0.9]}, "one for each of policy.sizes"),
        ({"k": 0}, "policy.k=0"),
        ({"sizes": (4,)}, "policy.sizes"),
    ],
)
def test_values_that_cannot_be_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Policy(**values)


def test_types_that_the_predictor_does_not_know_are_left_to_the_encoder() -> None:
    certain = np.eye(TYPES, dtype=np.float32)[:1]
    known = range(8)
    assert types_of(Policy(tau=0.5).masks(certain, 16, known)[0] & 0x3FF) == [0, 8, 9]
    assert types_of(Policy(tau=0.5).masks(certain, 8, range(4))[0] & 0x3FF) == [0]
    assert types_of(Policy(tau=0.5, keep=False).masks(certain, 16, known)[0]) == [0]
