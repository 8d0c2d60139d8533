"""Adapting heads: the steps, what decides on them, the ridge, and heads in a network."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from av1part import embedded
from av1part.data.store.store import Store
from av1part.metrics.calibration import negative_log_likelihood, softmax
from av1part.partition import SIZES
from av1part.predictors import adapting
from av1part.predictors.adapted import (
    LOG_STEPS,
    AdaptedSuperblock,
    NodeHead,
    adapted_domain,
    design,
)
from av1part.predictors.adapting import (
    NodeFeatures,
    Steps,
    adapt_heads,
    node_features,
    preconditioned_steps,
    ridge_heads,
)
from av1part.predictors.clip import ClipPart
from av1part.predictors.interface import Domain
from av1part.predictors.superblock import SuperblockPredictor

from .small import small_adapted, small_superblock

RNG = np.random.default_rng(7)


def some_nodes(n: int = 200, c: int = 5, k: int = 3, frames: int = 4) -> NodeFeatures:
    """Nodes whose types follow a head of their own."""
    features, qindex = RNG.normal(size=(n, c)), RNG.choice([80, 220], n)
    columns = design(features, qindex)
    logits = columns @ RNG.normal(size=(columns.shape[1], k))
    return NodeFeatures(columns, logits.argmax(1), np.arange(n) % frames)


def loss(nodes: NodeFeatures, head: np.ndarray, start: np.ndarray, prior: float) -> float:
    count = len(nodes.labels)
    scale = (nodes.design**2).mean()
    return negative_log_likelihood(nodes.design @ head.T, nodes.labels) + float(
        prior / count * scale / 2 * ((head - start) ** 2).sum()
    )


def test_a_step_is_the_gradient_of_the_loss_times_the_bound() -> None:
    nodes, prior, rate = some_nodes(), 30.0, 0.7
    start = RNG.normal(size=(3, nodes.design.shape[1]))
    x, y = torch.from_numpy(nodes.design), torch.from_numpy(nodes.labels)
    scale = (x**2).mean() * prior / len(y)
    bound = x.T @ x / len(y) / 2 + scale * torch.eye(x.shape[1], dtype=x.dtype)
    # The first step leaves the start, where there is no pull; the second has both.
    first = preconditioned_steps(nodes, start, Steps(1, rate, prior))
    assert not np.allclose(first, start)
    head = torch.tensor(first, requires_grad=True)
    pull = scale / 2 * ((head - torch.from_numpy(start)) ** 2).sum()
    (torch.nn.functional.cross_entropy(x @ head.T, y) + pull).backward()
    assert head.grad is not None
    expected = first - rate * (head.grad @ torch.linalg.inv(bound)).numpy()
    second = preconditioned_steps(nodes, start, Steps(2, rate, prior))
    np.testing.assert_allclose(second, expected, rtol=1e-8, atol=1e-10)


def test_a_step_by_hand() -> None:
    # One feature of 1 at t = 0 would be two columns; here two nodes and two types, head of zeros.
    nodes = NodeFeatures(np.array([[2.0], [2.0]]), np.array([0, 0]), np.zeros(2, np.int64))
    # Slope (1/2 - 1) * 2 = -1 for type 0, +1 for type 1; M = 4, bound 4 / 2 + 4 * 2 / 2 = 6.
    moved = preconditioned_steps(nodes, np.zeros((2, 1)), Steps(1, 1.0, 2.0))
    np.testing.assert_allclose(moved, [[1 / 6], [-1 / 6]])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_no_step_raises_the_loss_whatever_the_scale(scale: float) -> None:
    nodes = some_nodes()
    nodes = replace(nodes, design=nodes.design * scale)
    start = RNG.normal(size=(3, nodes.design.shape[1])) / scale
    losses = [
        loss(nodes, preconditioned_steps(nodes, start, Steps(n, 1.0, 5.0)), start, 5.0)
        for n in range(12)
    ]
    assert all(after < before for before, after in pairwise(losses))
    assert losses[-1] < losses[0] - 0.3


def test_a_strong_prior_keeps_the_head_and_no_step_is_the_head() -> None:
    nodes = some_nodes()
    start = RNG.normal(size=(3, nodes.design.shape[1]))
    np.testing.assert_array_equal(preconditioned_steps(nodes, start, Steps(0)), start)
    np.testing.assert_allclose(
        preconditioned_steps(nodes, start, Steps(10, 1.0, 1e12)), start, atol=1e-6
    )


def test_a_frame_is_predicted_by_heads_that_have_not_seen_it() -> None:
    nodes, settings = some_nodes(), Steps(5, 1.0, 10.0)
    start = np.zeros((3, nodes.design.shape[1]))

    def logits(labels: np.ndarray) -> np.ndarray:
        changed = replace(nodes, labels=labels)
        return adapting._unseen(
            changed, lambda seen: preconditioned_steps(seen, start, settings), start
        )

    before, own = logits(nodes.labels), nodes.fold == 1
    after = logits(np.where(own, 2 - nodes.labels, nodes.labels))
    np.testing.assert_array_equal(before[own], after[own])
    assert not np.allclose(before[~own], after[~own])


def labelled(network: SuperblockPredictor, head: NodeHead | None) -> dict[int, NodeFeatures]:
    """Nodes of 16x16 whose types are drawn by a head; None: of the network's own."""
    rng, types = np.random.default_rng(1), len(network.module.classifier.types[16])
    head = NodeHead.of(network.module.classifier.head["16"]) if head is None else head
    features = rng.normal(size=(4000, head.weight.shape[2]))
    columns = design(features, rng.choice([80, 128, 220], 4000))
    chances = softmax(columns @ head.matrix().T, network.temperatures[16])
    labels = np.array([rng.choice(types, p=p / p.sum()) for p in chances])
    return {16: NodeFeatures(columns, labels, np.arange(4000) // 1000)}


def test_what_is_no_better_on_unseen_frames_is_not_kept() -> None:
    network = small_superblock()
    adapted, fits = adapt_heads(network, labelled(network, None), Steps(prior=1.0))
    assert not fits[16].kept
    assert fits[16].after >= fits[16].before
    assert adapted.heads == {}
    assert adapted.temperatures == network.temperatures
    plane = RNG.integers(0, 256, (130, 70), np.uint8)
    own, theirs = adapted.predict(plane, 8, 90), network.predict(plane, 8, 90)
    assert all(np.array_equal(own[size], theirs[size]) for size in SIZES)


def test_what_is_better_is_kept_and_learnt() -> None:
    network, other = small_superblock(), small_adapted().heads[16]
    nodes = labelled(network, other)
    adapted, fits = adapt_heads(network, nodes, Steps(steps=10, prior=10.0))
    assert fits[16].kept
    assert fits[16].after < fits[16].before - 0.1
    assert set(adapted.heads) == {16}
    unseen = labelled(network, other)[16].design[:500]
    wanted, learnt, before = (
        softmax(unseen @ head.matrix().T, t)
        for head, t in (
            (other, network.temperatures[16]),
            (adapted.heads[16], adapted.temperatures[16]),
            (NodeHead.of(network.module.classifier.head["16"]), network.temperatures[16]),
        )
    )
    assert abs(learnt - wanted).mean() < abs(before - wanted).mean() / 2


def test_what_cannot_be_judged_is_not_kept() -> None:
    network = small_superblock()
    nodes = labelled(network, small_adapted().heads[16])[16]
    one_frame = replace(nodes, fold=np.zeros_like(nodes.fold))
    one_type = replace(nodes, labels=np.full_like(nodes.labels, 3))
    for bad in (one_frame, one_type):
        adapted, fits = adapt_heads(network, {16: bad}, Steps())
        assert not fits[16].kept
        assert (adapted.heads, adapted.temperatures) == ({}, network.temperatures)


def test_few_labels_without_an_error_make_no_answer_certain() -> None:
    """All but one of a hundred nodes are of one type, and the features say which."""
    network = small_superblock()
    channels = network.module.classifier.backbone.channels[16]
    features = np.ones((100, channels))
    features[7] = -1
    columns = design(features, np.full(100, 128))
    labels = np.where(np.arange(100) == 7, 3, 0)
    nodes = {16: NodeFeatures(columns, labels, np.arange(100) % 4)}
    adapted, fits = adapt_heads(network, nodes, Steps(prior=400.0))
    before = network.temperatures[16]
    assert fits[16].kept
    assert before * (0.05 / before) ** 0.21 < adapted.temperatures[16] < before * 20**0.21
    # The ridge, which has seen one type alone, holds the others to be possible.
    one = {16: replace(nodes[16], labels=np.zeros_like(labels))}
    ridge = ridge_heads(network, one, replace(network.domain, sizes=(16,)))
    logits = columns[:1] @ ridge.heads[16].matrix().T
    assert softmax(logits, ridge.temperatures[16])[0, 3] > 1e-4


def test_the_ridge_is_that_of_scikit_learn() -> None:
    nodes, strength = some_nodes(k=4), 20.0
    ours = adapting._ridge(nodes, 4, strength)
    c = nodes.design.shape[1] // 2
    others = np.delete(nodes.design, c - 1, axis=1)
    alpha = (nodes.design**2).mean() * strength
    theirs = Ridge(alpha=alpha).fit(others, 10.0 * np.eye(4)[nodes.labels])
    np.testing.assert_allclose(np.delete(ours, c - 1, axis=1), theirs.coef_, atol=1e-6)
    np.testing.assert_allclose(ours[:, c - 1], theirs.intercept_, atol=1e-6)


def test_a_head_is_the_same_as_a_matrix_and_as_a_convolution() -> None:
    head = small_adapted().heads[16]
    again = NodeHead.of_matrix(head.matrix())
    np.testing.assert_array_equal(again.weight, head.weight)
    np.testing.assert_array_equal(again.bias, head.bias)
    x = torch.from_numpy(RNG.normal(size=(1, head.weight.shape[2], 3, 2)).astype(np.float32))
    for qindex in (0, 90, 255):
        pixels = x[0].permute(1, 2, 0).reshape(6, -1).numpy()
        expected = design(pixels, np.full(6, qindex)) @ head.matrix().T
        found = head(x, qindex)[0].permute(1, 2, 0).reshape(6, -1)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert LOG_STEPS[0] < LOG_STEPS[90] < LOG_STEPS[255]


def test_other_heads_change_their_size_alone_in_tiles_too() -> None:
    adapted = small_adapted()
    plain = SuperblockPredictor(adapted.module, adapted.temperatures)
    plane = RNG.integers(0, 256, (1300, 700), np.uint8)
    own, theirs = adapted.predict(plane, 8, 90), plain.predict(plane, 8, 90)
    assert {size for size in SIZES if not np.array_equal(own[size], theirs[size])} == {16}
    np.testing.assert_allclose(own[16].sum(-1), 1, rtol=1e-5)
    tiled = replace(adapted, pass_side=512).predict(plane, 8, 90)
    for size in SIZES:
        np.testing.assert_allclose(tiled[size], own[size], rtol=1e-4, atol=1e-6)


def test_features_are_what_the_heads_see() -> None:
    network = small_superblock()
    plane = RNG.integers(0, 256, (70, 90), np.uint8)
    features, answer = network.features(plane, 8, 90), network.predict(plane, 8, 90)
    for size in SIZES:
        head = NodeHead.of(network.module.classifier.head[str(size)])
        flat = features[size].reshape(-1, features[size].shape[-1])
        logits = design(flat, np.full(len(flat), 90)) @ head.matrix().T
        expected = softmax(logits, network.temperatures.get(size, 1.0))
        own = answer[size][..., network.module.classifier.types[size]]
        np.testing.assert_allclose(own.reshape(expected.shape), expected, rtol=1e-3, atol=1e-5)


def test_labelled_nodes_with_their_features_and_folds() -> None:
    network, store = small_superblock(), Store.open(embedded.STORE)
    part = ClipPart(store, "chelsea", {0: 0})
    nodes = node_features(network, list(part))
    counts = part.type_counts()
    for size, own in nodes.items():
        types = network.module.classifier.types[size]
        found = np.bincount(own.labels, minlength=len(types))
        np.testing.assert_array_equal(found, counts[size][types])
        assert set(own.fold.tolist()) == set(range(4))  # bands of the one frame
    few = node_features(network, list(part), most=40)
    assert max(len(own.labels) for own in few.values()) <= 40
    assert min(len(own.labels) for own in few.values()) >= 20
    ridge = ridge_heads(network, few, replace(network.domain, sizes=tuple(few)))
    plane = store.plane("chelsea")[0]
    found = ridge.predict(plane, 8, 80)
    assert set(found) == set(few)
    np.testing.assert_allclose(found[16].sum(-1), 1, rtol=1e-5)


def test_the_domain_is_what_network_and_labels_share() -> None:
    network = Domain(qindexes=(32, 220), bit_depths=(8,))
    assert adapted_domain(network, [80, 128], 8).qindexes == (80, 128)
    assert adapted_domain(network, [8, 240], 8).qindexes == (32, 220)
    outside = adapted_domain(network, [240], 10)
    assert (outside.qindexes, outside.bit_depths) == ((240, 240), (10,))


def test_adapting_is_the_same_each_time() -> None:
    network = small_superblock()
    nodes = labelled(network, small_adapted().heads[16])
    heads = [adapt_heads(network, nodes, Steps())[0].heads[16] for _ in range(2)]
    assert heads[0].weight.tobytes() == heads[1].weight.tobytes()
    assert isinstance(small_adapted(), AdaptedSuperblock)
