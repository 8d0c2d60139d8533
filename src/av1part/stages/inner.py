"""Adapting a stage to a few labelled blocks: steps of SGD on what lies above its frozen trunk.

    support -> frozen trunk, once -> features -> k steps on copies of adapters, conditioning, head
                                                                   |
    other blocks -> frozen trunk  -> features ------------------> logits

The stage itself is not changed: adapted values stand beside it, by the names of its state dict. All
is computed in eval mode and float32: no dropout, no BatchNorm statistic, no random number.

Shapes: b blocks, k classes of the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from av1part.data.serve.blocks import Batch
from av1part.models.classifier import POOLED, Classifier

if TYPE_CHECKING:  # which adapts by this module, if its method says so
    from av1part.stages.blocks import BlockStage

Values = dict[str, Tensor]
"""Parameter of a stage, by its name in the state dict, to a value of it."""

Loss = Callable[[Values, int], Tensor]
"""Computes a scalar from values and the number of the step, from 0 on."""

_BATCH = 1024
"""Blocks whose features are computed at once."""


def descend(values: Mapping[str, Tensor], loss: Loss, *, steps: int, lr: float) -> Values:
    """Take steps of plain SGD, w <- w - lr dL/dw, on copies.

    Args:
        values: Where to start; not changed.
        loss: What is made smaller.
        steps: How many; 0 returns copies of the start.
        lr: Learning rate of all values.

    Returns:
        The values after the steps, without a graph.
    """
    now = {name: value.detach().clone() for name, value in values.items()}
    for step in range(steps):
        leaves = {name: value.requires_grad_() for name, value in now.items()}
        gradients = torch.autograd.grad(loss(leaves, step), list(leaves.values()))
        now = {
            name: value.detach() - lr * gradient
            for (name, value), gradient in zip(leaves.items(), gradients, strict=True)
        }
    return now


def adaptable(module: BlockStage) -> Values:
    """Return what is adapted of a stage, as it is: adapters, conditioning, head (not copies)."""
    return {
        f"classifier.{name}": parameter.detach()
        for name, parameter in module.classifier.named_parameters()
        if not name.startswith("backbone.")
    }


def trunk_features(module: BlockStage, batch: Batch) -> Tensor:
    """Compute what does not change while a stage is adapted.

    Args:
        module: The stage.
        batch: `block` (b, 1, s, s) and `qindex` (b,), on the stage's device.

    Returns:
        Features of the last place before the first adapter, float32, with b rows.
    """
    classifier = module.classifier
    cut = _cut(classifier)
    with _plainly(module), torch.no_grad():
        parts = [
            classifier.trunk(block, qindex, cut)
            for block, qindex in zip(
                *(torch.split(batch[key], _BATCH) for key in ("block", "qindex")), strict=True
            )
        ]
        return torch.cat(parts)


def logits_with(
    module: BlockStage, values: Mapping[str, Tensor], features: Tensor, qindex: Tensor
) -> Tensor:
    """Classify with other values of what is adapted.

    Args:
        module: The stage; not changed.
        values: As `adaptable` or `adapt` returns them; gradients flow to those that ask for one.
        features: As `trunk_features` returns them.
        qindex: int64, shape (b,).

    Returns:
        Logits, float32, shape (b, k).
    """
    with _plainly(module):
        above = _Above(module.classifier)
        logits: Tensor = functional_call(above, dict(values), (features, qindex))
        return logits


def adapt(
    module: BlockStage,
    support: Batch,
    *,
    steps: int,
    lr: float,
    values: Mapping[str, Tensor] | None = None,
    picks: Sequence[Tensor] | None = None,
) -> Values:
    """Adapt a stage to labelled blocks by steps of SGD on its own loss.

    Args:
        module: The stage, on any device; not changed.
        support: `qindex` and `partition` (b,), with `block` (b, 1, s, s) or `features`, as
            `trunk_features` returns them; on that device.
        steps: How many.
        lr: Learning rate of the steps.
        values: Where to start; None is the stage as it is.
        picks: Positions in the support, int64, for each step; None is all of it in each.

    Returns:
        The adapted values. They are not finite if `lr` is far too great.

    Raises:
        ValueError: if a block of the support does not belong to the stage.
    """
    with torch.inference_mode(False), torch.enable_grad(), _plainly(module):
        start = adaptable(module) if values is None else values
        own = {name: value.clone() for name, value in start.items()}
        return descend(own, block_loss(module, support, picks), steps=steps, lr=lr)


def block_loss(module: BlockStage, batch: Batch, picks: Sequence[Tensor] | None = None) -> Loss:
    """Return a stage's loss on labelled blocks as a function of what is adapted.

    Args:
        module: The stage.
        batch: As for `adapt`.
        picks: Likewise.

    Returns:
        Values and number of the step to the mean loss of its blocks.

    Raises:
        ValueError: if a block does not belong to the stage.
    """
    given = batch["features"] if "features" in batch else trunk_features(module, batch)
    with torch.inference_mode(False):
        # Copies: inference tensors, as an evaluation makes them, have no gradient.
        features, qindex, labels = (
            tensor.clone() for tensor in (given.float(), batch["qindex"], module.labels(batch))
        )

    def loss(values: Values, step: int) -> Tensor:
        pick = slice(None) if picks is None else picks[step]
        with _plainly(module):
            logits = logits_with(module, values, features[pick], qindex[pick])
            mean: Tensor = module.loss(logits, labels[pick])
        return mean

    return loss


class _Above(nn.Module):
    """A classifier from its cut on, so that `functional_call` reaches its parameters."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, features: Tensor, qindex: Tensor) -> Tensor:
        return self.classifier.from_cut(features, qindex, _cut(self.classifier))


def _cut(classifier: Classifier) -> int:
    """Return the last place before the first adapter, as `Classifier.trunk` counts."""
    if not len(classifier.adapters):  # whatever a method trains below the head is not adapted
        return POOLED
    # Methods with adapters train no layer, and no trunk's first layer has a block for an adapter.
    assert classifier.cut is not None
    return classifier.cut


@contextmanager
def _plainly(module: BlockStage) -> Iterator[None]:
    """Compute in eval mode and float32, whatever surrounds it."""
    training = module.training
    if training:
        module.eval()
    try:
        with torch.autocast(module.device.type, enabled=False):
            yield
    finally:
        if training:
            module.train()
