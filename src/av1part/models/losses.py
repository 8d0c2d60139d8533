"""Classification losses; the one place where a loss is weighted by class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class FocalLoss(nn.Module):
    """Cross entropy scaled by (1 - p)^gamma, with an optional weight for each class.

    gamma = 0 without weights is plain cross entropy. The mean is over the samples.

    Reference: Lin et al., Focal loss for dense object detection, ICCV 2017, equation 5, in its
        softmax form for any number of classes.
    """

    alpha: Tensor | None

    def __init__(self, *, gamma: float = 0.0, alpha: Sequence[float] | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        # A constant of the configuration, not a state: a checkpoint has no need of it.
        weight = None if alpha is None else torch.tensor(list(alpha), dtype=torch.float32)
        self.register_buffer("alpha", weight, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Average the loss over a batch.

        Args:
            logits: float, shape (b, k).
            labels: int64 in 0..k-1, shape (b,).

        Returns:
            The mean, a scalar.
        """
        log_p = functional.log_softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)
        loss = -log_p
        if self.gamma:
            # The clamp keeps the gradient of the power finite at p = 1.
            loss = loss * (1 - log_p.exp()).clamp_min(1e-8) ** self.gamma
        if self.alpha is not None:
            loss = loss * self.alpha[labels]
        return loss.mean()


def effective_number_weights(counts: Sequence[int], beta: float) -> list[float]:
    """Return (1 - beta) / (1 - beta^n) for each class, scaled to sum to the number of classes.

    Reference: Cui et al., Class-balanced loss based on effective number of samples, CVPR 2019.
    """
    raw = [(1 - beta) / (1 - beta**n) if n and beta else 1.0 for n in counts]
    return [w * len(raw) / sum(raw) for w in raw]


def _cross_entropy(counts: Sequence[int]) -> FocalLoss:
    return FocalLoss()


def _focal(
    counts: Sequence[int], *, gamma: float = 2.0, alpha: Sequence[float] | None = None
) -> FocalLoss:
    if alpha is not None and len(alpha) != len(counts):
        raise ValueError(f"loss.alpha has {len(alpha)} weights for {len(counts)} classes")
    return FocalLoss(gamma=gamma, alpha=alpha)


def _cb_focal(counts: Sequence[int], *, beta: float = 0.9999, gamma: float = 2.0) -> FocalLoss:
    return FocalLoss(gamma=gamma, alpha=effective_number_weights(counts, beta))


LOSSES: Mapping[str, Callable[..., FocalLoss]] = {
    "cross_entropy": _cross_entropy,
    "focal": _focal,
    "cb_focal": _cb_focal,
}
"""Loss kind to its builder: training counts of the classes, then the loss's own parameters."""


def build_loss(counts: Sequence[int], *, kind: str, **parameters: Any) -> FocalLoss:
    """Build a loss.

    Args:
        counts: Training nodes of each class.
        kind: A key of `LOSSES`.
        **parameters: Of that loss.

    Returns:
        The loss; `cb_focal` takes its class weights from the counts.

    Raises:
        ValueError: if the kind is unknown, or a parameter does not fit.
    """
    if kind not in LOSSES:
        raise ValueError(f"loss kind must be one of {', '.join(LOSSES)}, got {kind!r}")
    try:
        return LOSSES[kind](counts, **parameters)
    except TypeError as error:
        raise ValueError(f"loss {kind}: {error}") from None
