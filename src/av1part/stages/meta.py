"""Learning a start for a few steps on a picture's own labels: Reptile and first-order MAML.

    theta -> k inner steps on a task's labelled blocks -> phi;  over the tasks of a batch:

    fomaml:   gradient of theta  =  mean of the gradients of the query's loss at phi
    reptile:  gradient of theta  =  mean of (theta - phi) / inner rate

Theta are the adapters, conditioning and head over a frozen trunk; an optimizer takes the outer
step. Validation adapts to each task's support, and scores its query.

References: Finn, Abbeel and Levine, Model-agnostic meta-learning for fast adaptation of deep
    networks, ICML 2017, section 5.2 (the first-order approximation); Nichol, Achiam and Schulman,
    On first-order meta-learning algorithms, arXiv:1803.02999, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from av1part.data.serve.blocks import Batch
from av1part.data.serve.episodes import Episodes
from av1part.options import META_ALGORITHMS
from av1part.stages.inner import (
    Loss,
    Values,
    adapt,
    adaptable,
    block_loss,
    descend,
    logits_with,
    trunk_features,
)

if TYPE_CHECKING:
    from av1part.stages.blocks import BlockStage

MOST_STEPS = 1000
"""Inner steps that a run may ask for, or a checkpoint say."""

_PICKS = 9
"""Stream of random numbers of the training batches of inner steps; others are in `data.serve`."""


@dataclass(frozen=True)
class MetaOptions:
    """Options of `method=meta`.

    Attributes:
        episodes: How pictures are cut into tasks.
        algorithm: `reptile` or `fomaml`.
        inner_steps: Steps on a task's labelled blocks, in training and in validation.
        inner_lr: Their learning rate.
        tasks: Tasks of an outer step.
    """

    episodes: Episodes = field(default_factory=Episodes)
    algorithm: str = META_ALGORITHMS[0]
    inner_steps: int = 5
    inner_lr: float = 0.03
    tasks: int = 4

    def __post_init__(self) -> None:
        """Check the values, which may come from a file.

        Raises:
            ValueError: naming the option.
        """
        if self.algorithm not in META_ALGORITHMS:
            raise ValueError(
                f"method.algorithm must be one of {', '.join(META_ALGORITHMS)}, got "
                f"{self.algorithm!r}"
            )
        if type(self.inner_steps) is not int or not 1 <= self.inner_steps <= MOST_STEPS:
            raise ValueError(
                f"method.inner_steps must be an integer from 1 to {MOST_STEPS}, got "
                f"{self.inner_steps!r}"
            )
        if type(self.inner_lr) not in (int, float) or not 0 < self.inner_lr < float("inf"):
            raise ValueError(f"method.inner_lr must be above 0, got {self.inner_lr!r}")
        if type(self.tasks) is not int or self.tasks < 1:
            raise ValueError(f"method.tasks must be an integer from 1, got {self.tasks!r}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> MetaOptions:
        """Return the options of a configuration, or of a checkpoint's hyper-parameters.

        Args:
            options: The keys of `method`, without its name.

        Returns:
            The options, of which those that are not given have their default.

        Raises:
            ValueError: if an option is unknown, or has a wrong value.
        """
        of_tasks = {entry.name for entry in fields(Episodes)}
        own = {key: value for key, value in options.items() if key not in of_tasks}
        cut = {key: value for key, value in options.items() if key in of_tasks}
        try:
            return cls(episodes=Episodes(**cut), **own)
        except TypeError as error:
            raise ValueError(f"method meta: {error}") from None


def outer_gradient(
    module: BlockStage, batch: Batch, options: MetaOptions, epoch: int
) -> tuple[Values, Tensor]:
    """Compute the gradient of an outer step.

    FOMAML takes its inner steps on all of the support. Reptile has no query: each of its steps is
    on as many nodes as the support holds, drawn anew from the whole task, since its gradient
    rewards steps that agree between different nodes of a task (Nichol 2018, section 5).

    Args:
        module: The stage; not changed.
        batch: Tasks, as `TaskReader` gives them, on the stage's device.
        options: Of the method.
        epoch: Decides, with the stage's seed and the task, which nodes Reptile draws.

    Returns:
        Gradient of each adapted parameter, by its name; and the mean loss of the queries after
        the inner steps, over all nodes, a scalar.
    """
    theta = adaptable(module)
    steps, lr = options.inner_steps, options.inner_lr
    gradients, losses, counts = [], [], []
    for task in _tasks(module, batch):
        query = _part(task, asked=True)
        asked = block_loss(module, query)
        if options.algorithm == "reptile":
            picks = _picks(task, options, (module.hparams["seed"], epoch))
            drawn = block_loss(module, task, picks)
            gradient, loss = reptile(theta, drawn, asked, steps=steps, lr=lr)
        else:
            labelled = block_loss(module, _part(task, asked=False))
            gradient, loss = fomaml(theta, labelled, asked, steps=steps, lr=lr)
        gradients.append(gradient)
        losses.append(loss * len(query["qindex"]))
        counts.append(len(query["qindex"]))
    mean = {name: torch.stack([own[name] for own in gradients]).mean(0) for name in theta}
    return mean, torch.stack(losses).sum() / sum(counts)


def fomaml(
    theta: Mapping[str, Tensor], support: Loss, query: Loss, *, steps: int, lr: float
) -> tuple[Values, Tensor]:
    """Compute first-order MAML's gradient of a start, on one task.

    Args:
        theta: The start.
        support: Loss of the inner steps.
        query: Loss that the start is for.
        steps: Inner steps.
        lr: Their learning rate.

    Returns:
        The gradient of the query's loss after the steps, as if it were that of the start; and this
        loss, a scalar.

    Reference: Finn, Abbeel and Levine 2017, section 5.2.
    """
    phi = descend(theta, support, steps=steps, lr=lr)
    leaves = {name: value.requires_grad_() for name, value in phi.items()}
    loss = query(leaves, steps)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return dict(zip(leaves, gradients, strict=True)), loss.detach()


def reptile(
    theta: Mapping[str, Tensor], task: Loss, query: Loss, *, steps: int, lr: float
) -> tuple[Values, Tensor]:
    """Compute Reptile's gradient of a start, on one task.

    Args:
        theta: The start.
        task: Loss of the inner steps.
        query: Loss that is reported.
        steps: Inner steps.
        lr: Their learning rate.

    Returns:
        The way that the steps went, back and by their rate; and the query's loss after them, a
        scalar.

    Reference: Nichol, Achiam and Schulman 2018, section 3.
    """
    phi = descend(theta, task, steps=steps, lr=lr)
    with torch.no_grad():
        loss = query(phi, steps)
    return {name: (value - phi[name]) / lr for name, value in theta.items()}, loss


def adapted_logits(
    module: BlockStage, batch: Batch, *, steps: int, lr: float
) -> Iterator[tuple[Tensor, Batch]]:
    """Adapt to each task of a batch, and classify its query.

    Args:
        module: The stage; not changed.
        batch: Tasks, as `TaskReader` gives them, on the stage's device.
        steps: Inner steps.
        lr: Their learning rate.

    Yields:
        Of each task the logits of its query, (q, k), and the query as a batch.
    """
    for task in _tasks(module, batch):
        phi = adapt(module, _part(task, asked=False), steps=steps, lr=lr)
        query = _part(task, asked=True)
        yield logits_with(module, phi, query["features"], query["qindex"]), query


def _tasks(module: BlockStage, batch: Batch) -> Iterator[Batch]:
    """Yield the tasks of a batch with `features`, which the frozen trunk computes at once."""
    features = batch["features"] if "features" in batch else trunk_features(module, batch)
    whole = {key: tensor for key, tensor in batch.items() if key != "block"}
    whole["features"] = features
    for number in range(int(batch["task"].max()) + 1):
        own = batch["task"] == number
        yield {key: tensor[own] for key, tensor in whole.items()}


def _part(task: Batch, *, asked: bool) -> Batch:
    """Return the query of a task, or its support."""
    own = task["support"] != asked
    return {key: tensor[own] for key, tensor in task.items()}


def _picks(task: Batch, options: MetaOptions, seed: tuple[int, int]) -> list[Tensor]:
    """Draw the nodes of each of Reptile's steps, a function of seed, epoch and task alone."""
    nodes, drawn = len(task["node"]), int(task["support"].sum())
    rng = np.random.default_rng((*seed, int(task["node"][0]), _PICKS))
    device = task["node"].device
    return [
        torch.from_numpy(np.sort(rng.choice(nodes, drawn, replace=False))).to(device)
        for _ in range(options.inner_steps)
    ]
