"""Heads, from pooled features to logits, and conditioning on the quantiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from av1part.models.dropout import Dropout

HeadKind = Literal["linear", "mlp"]

QINDEX_MAX = 255
"""Largest `base_q_idx` (AV1 specification, section 5.9.12)."""


def build_head(
    features: int,
    classes: int,
    *,
    kind: HeadKind = "mlp",
    dropout: float = 0.5,
    hidden: Sequence[int] = (256, 128),
) -> nn.Sequential:
    """Build a head.

    Args:
        features: Pooled features, 512 for the standard backbone.
        classes: Classes of the stage.
        kind: `linear` is dropout and one linear map; `mlp` has the `hidden` layers with ReLU and
            dropout before it.
        dropout: Probability.
        hidden: Units of the hidden layers of `mlp`.

    Returns:
        The head: features of shape (b, c) in, logits of shape (b, k) out.

    Raises:
        ValueError: if `kind` is unknown, or a hidden layer has no units.
    """
    if kind == "linear":
        return nn.Sequential(Dropout(dropout), nn.Linear(features, classes))
    if kind != "mlp":
        raise ValueError(f"head kind must be linear or mlp, got {kind!r}")
    if not all(type(units) is int and units > 0 for units in hidden):
        raise ValueError(f"head.hidden must be numbers of units from 1, got {list(hidden)}")
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(features, units), nn.ReLU(), Dropout(dropout)]
        features = units
    return nn.Sequential(*layers, nn.Linear(features, classes))


class QindexFiLM(nn.Module):
    """Scale and shift pooled features by functions of qindex; the identity at the start.

    Reference: Perez et al., FiLM: Visual reasoning with a general conditioning layer, AAAI 2018.
    """

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, hidden)
        self.out = nn.Linear(hidden, 2 * features)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, qindex: Tensor) -> Tensor:
        """Modulate features.

        Args:
            features: float, shape (b, c).
            qindex: int64 0..255, shape (b,).

        Returns:
            Scaled and shifted features, shape (b, c).
        """
        unit = qindex.to(features.dtype)[:, None] / QINDEX_MAX * 2 - 1
        scale, shift = self.out(torch.relu(self.hidden(unit))).chunk(2, dim=1)
        modulated: Tensor = features * (1 + scale) + shift
        return modulated
