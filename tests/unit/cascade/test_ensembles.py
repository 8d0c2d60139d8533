"""Ensembles of 1 to 5 members: how they are joined, routed, and said to differ."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from av1part.cascade.analysis import analyse
from av1part.cascade.choices import Choices, fit_choices
from av1part.cascade.ensembles import disagreement, join
from av1part.cascade.routing import Nodes
from av1part.metrics.intervals import Bootstrap
from av1part.partition import IGNORED, taxonomy

V6 = taxonomy("v6")
TRAIN = np.array([60, 10, 12, 8, 3, 2, 4, 1, 0, 0])
SIZES = (1, 2, 3, 5)


def drawn(members: int, stages: tuple[str, ...] = ("stage3_ab",), n: int = 400) -> Nodes:
    """Nodes of random types, and members that each know the truth a little."""
    rng = np.random.default_rng(members)
    truth = rng.choice(np.array(V6.partitions), n)
    logits = {}
    for stage in V6.stages:
        k = len(stage.class_names)
        hint = stage.labels[truth][:, None] == np.arange(k)
        count = members if stage.name in stages else 1
        logits[stage.name] = [2 * (hint + rng.normal(size=(n, k))) for _ in range(count)]
    return Nodes.build(V6, truth, rng.choice(["a", "b", "c"], n), np.full(n, 80), logits)


def probabilities(nodes: Nodes, stage: str) -> NDArray[np.float64]:
    powers = np.exp(nodes.logits[stage])
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def counted(members: NDArray[np.float64]) -> list[int]:
    """The vote of each node, counted one by one; equal votes by mean probability."""
    winners = []
    for votes, mean in zip(members.argmax(-1).T, members.mean(0), strict=True):
        count = Counter(votes.tolist())
        most = max(count.values())
        winners.append(max((c for c in count if count[c] == most), key=lambda c: mean[c]))
    return winners


@pytest.mark.parametrize("members", SIZES)
def test_routing_uses_the_rule(members: int) -> None:
    nodes = drawn(members)
    neutral = Choices.neutral(nodes.logits)
    ab = V6.stage("stage3_ab")
    said = {}
    for ensemble in ("mean", "vote"):
        result = analyse(
            nodes,
            train_counts=TRAIN,
            split="val",
            protocol="-",
            ensemble=ensemble,
            choices=neutral,
            bootstrap=Bootstrap(resamples=10),
        )
        said[ensemble] = result
    each = probabilities(nodes, "stage3_ab")
    wanted = {"mean": each.mean(0).argmax(-1), "vote": np.array(counted(each))}
    for ensemble, result in said.items():
        sent = np.isin(result.prediction, list(ab.population))
        assert sent.sum() > 40
        got = ab.labels[result.prediction[sent]]
        assert got.tolist() == wanted[ensemble][sent].tolist()
        if members > 1:
            assert result.report["ensemble"]["stage3_ab"]["rule"] == ensemble
        else:
            assert result.report["ensemble"] == {}
    # The flat distribution is that of the mean under either rule.
    assert np.array_equal(said["mean"].probabilities, said["vote"].probabilities)
    differ = bool((said["mean"].prediction != said["vote"].prediction).any())
    assert differ == (members > 1)  # of two, the mean may choose what neither does


@pytest.mark.parametrize("members", SIZES)
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.77])
def test_a_vote_of_the_root_is_a_majority_above_the_threshold(
    members: int, threshold: float
) -> None:
    each = probabilities(drawn(members, ("stage1",)), "stage1")
    joined = join(V6, V6.root, each, "vote")[:, 1] > threshold
    above = (each[:, :, 1] > threshold).sum(0)
    clear = 2 * above != members
    assert joined[clear].tolist() == (2 * above > members)[clear].tolist()
    assert clear.any()
    if members == 2:
        tied = each.mean(0)[:, 1] > threshold
        assert joined[~clear].tolist() == tied[~clear].tolist()


@given(
    members=st.integers(1, 5),
    k=st.integers(2, 4),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_votes_are_counted_whatever_the_number(members: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    each = rng.dirichlet(np.ones(k), size=(members, 20))
    stage = next(s for s in V6.stages[1:] if len(s.class_names) == k)
    assert join(V6, stage, each, "vote").argmax(-1).tolist() == counted(each)


@pytest.mark.parametrize("members", SIZES)
def test_disagreement_is_counted(members: int) -> None:
    said = np.random.default_rng(0).integers(0, 3, (members, 50))
    found = disagreement(said)
    columns = said.T.tolist()
    assert found["nodes"] == 50
    assert found["any"] == pytest.approx(np.mean([len(set(c)) > 1 for c in columns]))
    assert [tuple(p["members"]) for p in found["pairwise"]] == list(
        combinations(range(1, members + 1), 2)
    )
    for pair in found["pairwise"]:
        i, j = (m - 1 for m in pair["members"])
        assert pair["share"] == pytest.approx(np.mean([c[i] != c[j] for c in columns]))


def test_disagreement_of_no_nodes_is_unknown_and_not_nothing() -> None:
    found = disagreement(np.zeros((2, 0), dtype=np.int64))
    assert found == {"nodes": 0, "any": None, "pairwise": [{"members": [1, 2], "share": None}]}


def test_it_is_reported_for_the_population_and_inside_the_cascade() -> None:
    nodes = drawn(3, ("stage1", "stage3_ab"))
    result = analyse(
        nodes, train_counts=TRAIN, split="val", protocol="-", bootstrap=Bootstrap(resamples=10)
    )
    found = result.report["ensemble"]
    assert set(found) == {"stage1", "stage3_ab"}
    ab = V6.stage("stage3_ab")
    belongs = ab.labels[nodes.partition] != IGNORED
    sent = np.isin(result.prediction, list(ab.population))
    entry = found["stage3_ab"]
    assert (entry["standalone"]["nodes"], entry["cascade"]["nodes"]) == (belongs.sum(), sent.sum())
    assert entry["disagreement"] == entry["standalone"]["any"]
    assert found["stage1"]["cascade"] == found["stage1"]["standalone"]  # all nodes, both


def test_the_threshold_is_fitted_for_the_rule_in_use() -> None:
    nodes = drawn(3, ("stage1", "stage2", "stage3_ab"))
    thresholds = {rule: fit_choices(nodes, ensemble=rule).threshold for rule in ("mean", "vote")}
    assert thresholds["mean"] != thresholds["vote"]
