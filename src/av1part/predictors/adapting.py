"""Adapting the heads of a superblock network to a few labelled frames, and a ridge beside it.

    labelled nodes -> frozen trunk -> features -> steps from the network's heads -> new heads

The steps lower the mean negative log-likelihood of the labels plus a pull to the network's own
head W0, as if W0 had been seen at `prior` nodes:

    L(W) = -mean log p(label) + prior / n * s / 2 |W - W0|^2,   W <- W - rate dL/dW P

P is the inverse of a bound on the curvature, M / 2 + prior / n * s, where M is the second moment of
the features and s its mean diagonal. So a step never raises L at a rate of 1, whatever the scale of
the features, and there is no learning rate to be found for each trunk and clip.

Whether a size keeps its new head, and at which temperature, is decided on predictions of each
labelled frame by heads that have not seen it.

Shapes: n nodes, c features, d columns of `design`, k types.

Reference: Böhning, Multinomial logistic regression algorithm, 1992 (the bound); Li et al., Explicit
    inductive bias for transfer learning with convolutional networks, ICML 2018 (the pull).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.cascade.fits import fit_temperature
from av1part.metrics.calibration import negative_log_likelihood, softmax
from av1part.partition import SUPERBLOCK
from av1part.predictors.adapted import AdaptedSuperblock, NodeHead, design
from av1part.predictors.interface import Domain
from av1part.predictors.labelled import View
from av1part.predictors.superblock import SuperblockPredictor

BANDS = 4
"""Bands of superblocks that take the place of frames where there is one labelled frame."""

MOST_NODES = 100_000
"""Nodes of a size that heads are adapted to at most."""

RIDGES = (1.0, 10.0, 100.0, 1e3, 1e4)
"""Strengths of a ridge that are tried, in nodes."""

_RIDGE_TARGET = 10.0
"""Score of the true type that a ridge is fitted to, on the scale of logits; that of others is 0."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """How heads are adapted.

    Attributes:
        steps: Gradient steps.
        rate: Length of each; 1 never raises the loss.
        prior: Labelled nodes that the network's own head counts as.
    """

    steps: int = 10
    rate: float = 1.0
    prior: float = 1000.0


@dataclass(frozen=True)
class NodeFeatures:
    """Labelled nodes of one size, as heads see them.

    Attributes:
        design: As `design` returns it, shape (n, d).
        labels: Columns of the true types, int64 (n,).
        fold: Which frame, or band of the one frame, each is of, int64 (n,).
    """

    design: Matrix
    labels: NDArray[np.int64]
    fold: NDArray[np.int64]

    @property
    def can_be_judged(self) -> bool:
        """Whether a head can be tried on a frame it has not seen, and there is a type to miss."""
        return len(np.unique(self.fold)) > 1 and len(np.unique(self.labels)) > 1

    def only(self, chosen: NDArray[np.bool_]) -> NodeFeatures:
        """Return some of the nodes."""
        return NodeFeatures(self.design[chosen], self.labels[chosen], self.fold[chosen])


@dataclass(frozen=True)
class SizeFit:
    """What adapting one node size came to.

    Attributes:
        nodes: Labelled nodes it was adapted to.
        before: Log loss of the network on them, nats.
        after: That of heads that have not seen the frame of a node.
        kept: Whether the new head is used: `after` is below `before`, and the labels are of
            several types and of several frames, or bands of one.
    """

    nodes: int
    before: float
    after: float
    kept: bool


def node_features(
    network: SuperblockPredictor, views: Sequence[View], *, most: int = MOST_NODES
) -> dict[int, NodeFeatures]:
    """Compute the features of labelled nodes.

    Args:
        network: The network, whose types at a size are all that its nodes have.
        views: Labelled frames at a qindex.
        most: Nodes of a size to take, spread evenly over the views and over each.

    Returns:
        Size to its nodes, of each size that has any.
    """
    parts: dict[int, list[tuple[NDArray[Any], ...]]] = {}
    types = network.module.classifier.types
    of_view = -(-most // len(views))
    for view in views:
        for size, features in network.features(view.plane, view.bit_depth, view.qindex).items():
            if size not in view.types:
                continue
            row, col = (view.types[size] >= 0).nonzero()
            kept = np.linspace(0, max(0, len(row) - 1), min(len(row), of_view)).astype(np.int64)
            if not len(kept):
                continue
            row, col = row[kept], col[kept]
            labels = np.searchsorted(types[size], view.types[size][row, col])  # ids ascend
            columns = design(features[row, col], np.full(len(row), view.qindex))
            frame = np.full(len(row), view.frame)
            parts.setdefault(size, []).append((columns, labels, frame, row * size // SUPERBLOCK))
    one_frame = len({(view.sequence, view.frame) for view in views}) == 1
    found = {}
    for size, of_size in sorted(parts.items()):
        columns, labels, frame, band = map(np.concatenate, zip(*of_size, strict=True))
        found[size] = NodeFeatures(columns, labels, _bands(band) if one_frame else frame)
    return found


def _bands(row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which of `BANDS` groups of neighbouring rows of superblocks each row belongs to."""
    rows, index = np.unique(row, return_inverse=True)
    bands: NDArray[np.int64] = index * min(BANDS, len(rows)) // len(rows)
    return bands


def preconditioned_steps(nodes: NodeFeatures, start: Matrix, settings: Steps) -> Matrix:
    """Take the steps from a head.

    Args:
        nodes: Labelled nodes, at least one.
        start: The head, shape (k, d).
        settings: How many steps, and how.

    Returns:
        The head after them.
    """
    x, count = nodes.design, len(nodes.labels)
    moment = x.T @ x / count
    pull = moment.diagonal().mean() * settings.prior / count
    inverse = np.linalg.inv(moment / 2 + pull * np.eye(len(moment)))
    true = np.eye(len(start))[nodes.labels]
    head = start.copy()
    for _ in range(settings.steps):
        slope = (softmax(x @ head.T) - true).T @ x / count + pull * (head - start)
        head -= settings.rate * slope @ inverse
    return head


def adapt_heads(
    network: SuperblockPredictor, nodes: Mapping[int, NodeFeatures], settings: Steps
) -> tuple[AdaptedSuperblock, dict[int, SizeFit]]:
    """Adapt the heads of a network to labelled nodes.

    Args:
        network: The network; it is not changed.
        nodes: Size to its labelled nodes.
        settings: How.

    Returns:
        The network with new heads and temperatures at the sizes where these are better on frames
        that they have not seen, and what each size came to.
    """
    heads, temperatures, fits = {}, dict(network.temperatures), {}
    for size, own in nodes.items():
        start = NodeHead.of(network.module.classifier.head[str(size)]).matrix()
        before = network.temperatures.get(size, 1.0)
        logits = _unseen(own, partial(preconditioned_steps, start=start, settings=settings), start)
        after = _between(before, fit_temperature(logits, own.labels), own, settings)
        losses = (
            negative_log_likelihood(own.design @ start.T, own.labels, before),
            negative_log_likelihood(logits, own.labels, after),
        )
        kept = own.can_be_judged and losses[1] < losses[0]
        fits[size] = SizeFit(len(own.labels), *losses, kept=kept)
        if kept:
            heads[size] = NodeHead.of_matrix(preconditioned_steps(own, start, settings))
            temperatures[size] = after
    adapted = AdaptedSuperblock(
        network.module, temperatures, network.precision, network.pass_side, heads=heads
    )
    return adapted, fits


def _between(before: float, fitted: float, nodes: NodeFeatures, settings: Steps) -> float:
    """Return the geometric mean of temperatures, weighed by `prior` and by the nodes.

    A few labels that happen to have no error would else make any answer a certain one.
    """
    share = len(nodes.labels) / (len(nodes.labels) + settings.prior)
    return float(before * (fitted / before) ** share)


def ridge_heads(
    network: SuperblockPredictor, nodes: Mapping[int, NodeFeatures], domain: Domain
) -> AdaptedSuperblock:
    """Fit heads by ridge regression on the same features, from nothing.

    Strength and temperature are those of the least log loss on frames that the heads have not
    seen.

    Args:
        network: The network with the trunk.
        nodes: Size to its labelled nodes.
        domain: What the heads answer, of sizes that have nodes.

    Returns:
        The network with these heads.
    """
    heads, temperatures = {}, {}
    for size, own in nodes.items():
        types = len(network.module.classifier.types[size])
        nothing = np.zeros((types, own.design.shape[1]))
        tried = []
        for strength in RIDGES:
            logits = _unseen(own, partial(_ridge, types=types, strength=strength), nothing)
            temperature = _smooth_temperature(logits, own.labels)
            loss = negative_log_likelihood(logits, own.labels, temperature)
            tried.append((loss, strength, temperature))
        _, strength, temperatures[size] = min(tried)
        heads[size] = NodeHead.of_matrix(_ridge(own, types, strength))
    return AdaptedSuperblock(
        network.module,
        temperatures,
        network.precision,
        network.pass_side,
        heads=heads,
        limits=domain,
        name="ridge",
    )


def _smooth_temperature(logits: Matrix, labels: NDArray[np.int64]) -> float:
    """Fit a temperature as if each type had been seen once more, at the mean of the logits."""
    types = logits.shape[1]
    more = np.tile(logits.mean(0), (types, 1))
    return fit_temperature(
        np.concatenate([logits, more]), np.concatenate([labels, np.arange(types)])
    )


def _ridge(nodes: NodeFeatures, types: int, strength: float) -> Matrix:
    """Return the head (k, d) of least squared error, all but its bias drawn to zero."""
    x, count = nodes.design, len(nodes.labels)
    moment = x.T @ x / count
    drawn = np.full(len(moment), moment.diagonal().mean() * strength / count)
    drawn[len(drawn) // 2 - 1] = 1e-9  # the bias; not zero, so that there is one solution
    scores = _RIDGE_TARGET * np.eye(types)[nodes.labels]
    return np.asarray(np.linalg.solve(moment + np.diag(drawn), x.T @ scores / count).T, np.float64)


def _unseen(nodes: NodeFeatures, fit: Callable[[NodeFeatures], Matrix], start: Matrix) -> Matrix:
    """Return logits (n, k) of each fold by a head fitted on the others; by `start` if it is all."""
    logits = np.zeros((len(nodes.labels), len(start)))
    for fold in np.unique(nodes.fold):
        own = nodes.fold == fold
        head = start if own.all() else fit(nodes.only(~own))
        logits[own] = nodes.design[own] @ head.T
    return logits
