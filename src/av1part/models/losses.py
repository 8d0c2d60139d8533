"""Classification losses; the one place where a loss is weighted by class.

Shapes: b samples, k classes of the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from av1part.metrics.scores import POSITIVE
from av1part.options import COST_SENSITIVE


class FocalLoss(nn.Module):
    """Cross entropy scaled by (1 - p)^gamma, with an optional weight for each class.

    Of a soft target every class counts with its share: sum over c of
    target_c alpha_c (1 - p_c)^gamma (-log p_c). gamma = 0 without weights is plain cross entropy.
    The mean is over the samples.

    Reference: Lin et al., Focal loss for dense object detection, ICCV 2017, equation 5, in its
        softmax form for any number of classes; label smoothing of Szegedy et al., Rethinking the
        Inception architecture, CVPR 2016, section 7.
    """

    alpha: Tensor | None

    def __init__(
        self,
        *,
        gamma: float = 0.0,
        alpha: Sequence[float] | None = None,
        smoothing: float = 0.0,
    ) -> None:
        """Take the parameters.

        Args:
            gamma: Power of the focal term; 0 is none.
            alpha: Weight of each class, shape (k,).
            smoothing: Share of each target that is spread evenly over all classes, 0 to 1.
        """
        super().__init__()
        self.gamma = gamma
        self.smoothing = smoothing
        # A constant of the configuration, not a state: a checkpoint has no need of it.
        weight = None if alpha is None else torch.tensor(list(alpha), dtype=torch.float32)
        self.register_buffer("alpha", weight, persistent=False)

    @property
    def balances(self) -> bool:
        """Whether the loss makes up for unequal class counts."""
        return self.alpha is not None

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Average the loss over a batch.

        Args:
            logits: float, shape (b, k).
            target: Classes, int64 in 0..k-1, shape (b,), or soft labels, float, shape (b, k),
                whose rows sum to 1.

        Returns:
            The mean, a scalar.
        """
        return self._each(logits, _soft(target, logits)).mean()

    def _each(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, (b,), for soft labels (b, k)."""
        if self.smoothing:
            target = target * (1 - self.smoothing) + self.smoothing / target.shape[1]
        log_p = functional.log_softmax(logits, dim=1)
        loss = -log_p
        if self.gamma:
            # The clamp keeps the gradient of the power finite at p = 1.
            loss = loss * (1 - log_p.exp()).clamp_min(1e-8) ** self.gamma
        if self.alpha is not None:
            loss = loss * self.alpha
        return (loss * target).sum(1)


class CostSensitiveLoss(FocalLoss):
    """Cross entropy in which each sample counts by what an error on it costs.

    The mean of weight times cross entropy over the samples, not over the weights' sum: weights of
    mean 1 over all training samples make it the expected cost of the whole set, where the other
    would give a batch of cheap samples as much say as one of dear ones.

    Reference: Zadrozny, Langford and Abe, Cost-sensitive learning by cost-proportionate example
        weighting, ICDM 2003, section 2.
    """

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Average the loss over a batch.

        Args:
            logits: float, shape (b, k).
            target: As in `FocalLoss`.
            weight: Of each sample, at least 0, shape (b,); None: all 1, as in validation.

        Returns:
            The mean, a scalar.
        """
        each = self._each(logits, _soft(target, logits))
        return each.mean() if weight is None else (weight * each).mean()


class HardNegativeLoss(FocalLoss):
    """Cross entropy of all positives and of the hardest negatives, for a two-class stage.

    Positive is the class `metrics.POSITIVE` (Stage 1: PARTITION). Of the negatives those of
    greatest loss are kept, at most `ratio` for each positive; the mean is over the samples kept. A
    batch without positives keeps as many as one positive would allow, so that its gradient is
    neither undefined nor that of all its easy negatives. A sample with a soft label is positive
    if at least half of it is.

    Reference: Shrivastava et al., Training region-based object detectors with online hard example
        mining, CVPR 2016; the ratio of Liu et al., SSD, ECCV 2016, section 2.2.
    """

    def __init__(self, *, ratio: float = 3.0, smoothing: float = 0.0) -> None:
        """Take the parameters.

        Args:
            ratio: Most negatives for each positive, at least 1.
            smoothing: As in `FocalLoss`; a sample's loss, by which it is hard, includes it.
        """
        super().__init__(smoothing=smoothing)
        self.ratio = ratio

    @property
    def balances(self) -> bool:
        """Whether the loss makes up for unequal class counts: it does, by leaving out negatives."""
        return True

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of the samples kept; as in `FocalLoss`, with k = 2."""
        soft = _soft(target, logits)
        each = self._each(logits, soft)
        positive = soft[:, POSITIVE] >= 0.5
        count = positive.sum()
        # Positives rank before all negatives; ranks need no synchronisation with the device.
        hardness = each.detach().masked_fill(positive, float("inf"))
        rank = hardness.argsort(descending=True, stable=True).argsort()
        kept = positive | (rank - count + 1 <= self.ratio * count.clamp_min(1))
        return torch.where(kept, each, 0.0).sum() / kept.sum()


def _soft(target: Tensor, logits: Tensor) -> Tensor:
    """Return classes (b,) as one-hot rows (b, k); soft labels as they are."""
    if target.is_floating_point():
        return target
    return functional.one_hot(target, logits.shape[1]).float()


def effective_number_weights(counts: Sequence[int], beta: float) -> list[float]:
    """Return (1 - beta) / (1 - beta^n) for each class, scaled to sum to the number of classes.

    The weights are nearly equal for classes of many more than 1 / (1 - beta) samples.

    Reference: Cui et al., Class-balanced loss based on effective number of samples, CVPR 2019.
    """
    return _scaled([(1 - beta) / (1 - beta**n) if n else None for n in counts])


def inverse_count_weights(counts: Sequence[int], power: float) -> list[float]:
    """Return n^-power for each class, scaled to sum to the number of classes.

    With power 1 every class has the same share of the loss, however many samples there are.

    Reference: King and Zeng, Logistic regression in rare events data, Political Analysis 2001,
        section 4.2 (power 1).
    """
    least = min((n for n in counts if n), default=1)
    return _scaled([(least / n) ** power if n else None for n in counts])


def _scaled(weights: Sequence[float | None]) -> list[float]:
    """Scale class weights to sum to the number of classes.

    A class without samples (None) has the mean weight of the others: that of one sample would
    outweigh them all where smoothing or a soft label gives it a share.
    """
    given = [weight for weight in weights if weight is not None] or [1.0]
    mean = sum(given) / len(given)
    raw = [mean if weight is None else weight for weight in weights]
    return [weight * len(raw) / sum(raw) for weight in raw]


def _cross_entropy(counts: Sequence[int], *, smoothing: float = 0.0) -> FocalLoss:
    return FocalLoss(smoothing=smoothing)


def _focal(
    counts: Sequence[int],
    *,
    gamma: float = 2.0,
    alpha: Sequence[float] | None = None,
    smoothing: float = 0.0,
) -> FocalLoss:
    if alpha is not None:
        _check_alpha(alpha, len(counts))
    return FocalLoss(gamma=gamma, alpha=alpha, smoothing=smoothing)


def _cb_focal(
    counts: Sequence[int], *, beta: float = 0.9999, gamma: float = 2.0, smoothing: float = 0.0
) -> FocalLoss:
    weights = effective_number_weights(counts, beta)
    return FocalLoss(gamma=gamma, alpha=weights, smoothing=smoothing)


def _balanced(
    counts: Sequence[int], *, power: float = 1.0, gamma: float = 0.0, smoothing: float = 0.0
) -> FocalLoss:
    weights = inverse_count_weights(counts, power)
    return FocalLoss(gamma=gamma, alpha=weights, smoothing=smoothing)


def _cost_sensitive(
    counts: Sequence[int], *, power: float = 1.0, cap: float = 20.0, smoothing: float = 0.0
) -> CostSensitiveLoss:
    # Power and cap are of the weights, which the data bring along (`CostWeights`).
    return CostSensitiveLoss(smoothing=smoothing)


def _hard_negative(
    counts: Sequence[int], *, ratio: float = 3.0, smoothing: float = 0.0
) -> FocalLoss:
    if len(counts) != 2:
        raise ValueError(f"loss hard_negative is for two classes, the stage has {len(counts)}")
    return HardNegativeLoss(ratio=ratio, smoothing=smoothing)


def _check_alpha(alpha: Any, classes: int) -> None:
    if not isinstance(alpha, Sequence) or not all(type(w) in (int, float) for w in alpha):
        raise ValueError(f"loss.alpha must be null or a list of numbers, got {alpha!r}")
    if len(alpha) != classes:
        raise ValueError(f"loss.alpha has {len(alpha)} weights for {classes} classes")
    if min(alpha) < 0 or not 0 < sum(alpha) < float("inf"):
        raise ValueError(f"loss.alpha must be finite, not negative and not all 0, got {alpha}")


LOSSES: Mapping[str, Callable[..., FocalLoss]] = {
    "cross_entropy": _cross_entropy,
    "focal": _focal,
    "cb_focal": _cb_focal,
    "balanced": _balanced,
    COST_SENSITIVE: _cost_sensitive,
    "hard_negative": _hard_negative,
}
"""Loss kind to its builder: training counts of the classes, then the loss's own parameters."""


def build_loss(counts: Sequence[int], *, kind: str, **parameters: Any) -> FocalLoss:
    """Build a loss.

    Args:
        counts: Training nodes of each class.
        kind: A key of `LOSSES`.
        **parameters: Of that loss.

    Returns:
        The loss; `cb_focal` and `balanced` take their class weights from the counts.

    Raises:
        ValueError: if the kind is unknown, or a parameter does not fit.
    """
    if kind not in LOSSES:
        raise ValueError(f"loss kind must be one of {', '.join(LOSSES)}, got {kind!r}")
    try:
        return LOSSES[kind](counts, **parameters)
    except TypeError as error:
        raise ValueError(f"loss {kind}: {error}") from None
