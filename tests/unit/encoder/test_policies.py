"""Masks of a policy hold the types that it says."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from av1part.encoder import policies
from av1part.encoder.hints import KEEP
from av1part.encoder.policies import WORTH, Policy, reach
from av1part.options import PolicyKind
from av1part.partition import SIZES, Partition, legal_partitions
from av1part.predictors.interface import TYPES, Domain
from av1part.system.errors import ConfigError

ROOT = Path(__file__).parents[3]


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


def test_worth_takes_types_whose_expected_worth_is_least_or_more() -> None:
    probabilities = np.array([[0.5, 0.1, 0.3, 0.05, 0.05, 0, 0, 0, 0, 0]], np.float32)
    expected = probabilities[0] * WORTH[16]  # .38 .1 .3 .02 .03 0 0 0 0 0
    for least, types in ((0.01, [0, 1, 2, 3, 4]), (0.025, [0, 1, 2, 4]), (0.2, [0, 2])):
        (mask,) = Policy(kind="worth", least=least, keep=False).masks(probabilities, 16)
        assert types_of(mask) == types == np.flatnonzero(expected >= least).tolist()
    (mask,) = Policy(kind="worth", least=0.2, keep=False).masks(probabilities, 16, reached=0.5)
    assert types_of(mask) == [0]
    (mask,) = Policy(kind="worth", least=1.0, keep=False).masks(probabilities, 16)
    assert types_of(mask) == [0], "where nothing is worth its time, the best of it"


def test_worth_is_known_for_all_types_of_a_size_and_no_others() -> None:
    for size in SIZES:
        assert np.flatnonzero(WORTH[size]).tolist() == [int(t) for t in legal_partitions(size)]


def distributions(shape: tuple[int, int], seed: int) -> dict[int, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return {
        size: random.dirichlet(np.ones(TYPES), (shape[0] // size, shape[1] // size)).astype("f4")
        for size in SIZES
        if min(shape) >= size
    }


@given(height=st.integers(8, 200), width=st.integers(8, 200), seed=st.integers(0, 9))
def test_reach_is_the_product_of_split_over_the_nodes_around(
    height: int, width: int, seed: int
) -> None:
    answer = distributions((height, width), seed)
    found = reach(answer)
    assert found.keys() == answer.keys()
    for size, own in found.items():
        for row, col in np.ndindex(own.shape):
            product = 1.0
            for larger in (s for s in answer if s > size):
                at = row * size // larger, col * size // larger
                if at[0] < answer[larger].shape[0] and at[1] < answer[larger].shape[1]:
                    product *= answer[larger][(*at, Partition.SPLIT)]
            assert own[row, col] == pytest.approx(product)


def test_worth_thins_out_what_the_encoder_hardly_comes_to() -> None:
    sure = np.eye(TYPES, dtype=np.float32)[Partition.NONE]
    alike = np.full(TYPES, 0.1, np.float32)
    answer = {64: np.stack([sure, alike])[None], 32: np.broadcast_to(alike, (2, 4, TYPES))}
    masks = Policy(kind="worth", least=0.001, keep=False).frame_masks(answer, (64, 128), Domain())
    sizes = np.bitwise_count(masks[32])
    assert (sizes[:, :2] == 1).all()  # inside a node that is certainly not split
    assert (sizes[:, 2:] == TYPES).all()


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
        ({"least": 0.0}, "policy.least=0.0"),
        ({"least": 2}, "policy.least=2"),
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
    # One mask cannot leave two types alone to the encoder's pruning: it holds for all.
    (mask,) = Policy(tau=0.5, keep=False).masks(certain, 16, known)
    assert types_of(mask & 0x3FF) == [0, 8, 9]
    assert mask & KEEP
    (mask,) = Policy(tau=0.5, keep=False).masks(certain, 8, range(4))
    assert mask == 1
    for keep in (False, True):
        (mask,) = Policy(kind="none", keep=keep).masks(certain, 16, known)
        assert types_of(mask & 0x3FF) == [0]


def test_worth_is_that_of_the_measured_table() -> None:
    with (ROOT / "experiments/encoder/worth/table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {(int(row["size"]), Partition[row["type"]]): float(row["worth"]) for row in rows}
    for size, worth in WORTH.items():
        legal = legal_partitions(size)
        assert {type_: worth[type_] for type_ in legal} == {
            type_: measured[size, type_] for type_ in legal
        }


def test_where_the_encoder_prunes_despite_keep_is_said() -> None:
    eight, ten = Domain(one_to_four=False), Domain()
    assert "at size 16, 32, 64, of which" in Policy(keep=False).pruned_anyway(eight)
    assert "at size 32, of which" in Policy(keep=False, sizes=[32, 8]).pruned_anyway(eight)
    for policy, domain in (
        (Policy(), eight),
        (Policy(keep=False), ten),
        (Policy(keep=False, sizes=[8]), eight),
        (Policy("split", keep=False), eight),
    ):
        assert policy.pruned_anyway(domain) == ""


def test_facts_are_what_masks_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Policy(tau=0.8, least=0.01).facts() == {
        "kind": "cumulated",
        "keep": True,
        "sizes": None,
        "tau": 0.8,
    }
    before = Policy("worth").facts()
    assert before["least"] == 0.02
    monkeypatch.setitem(policies.WORTH, 16, 2 * WORTH[16])
    assert Policy("worth").facts() != before
    assert Policy("top").facts() == Policy("top", tau=0.3).facts()
