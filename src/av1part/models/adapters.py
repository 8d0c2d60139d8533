"""Residual adapters: the small trainable parts between the layers of a frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from av1part.models.backbone import LEVELS


class BottleneckAdapter(nn.Module):
    """Pool -> Linear(c, b) -> ReLU -> dropout -> Linear(b, c), added to every position.

    Starts as nearly the identity: weights are normal with a small standard deviation, biases 0.

    Reference: Rebuffi et al., Learning multiple visual domains with residual adapters, NeurIPS
        2017; Houlsby et al., Parameter-efficient transfer learning for NLP, ICML 2019.
    """

    def __init__(
        self, channels: int, *, bottleneck: int = 64, dropout: float = 0.1, init_std: float = 1e-3
    ) -> None:
        super().__init__()
        self.down = nn.Linear(channels, bottleneck)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(bottleneck, channels)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=init_std)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`, (b, c, h, w)."""
        delta: Tensor = self.up(self.dropout(self.relu(self.down(x.mean((2, 3))))))
        return x + delta[:, :, None, None]


def build_adapters(
    channels: Sequence[int],
    *,
    layers: Sequence[int],
    bottleneck: int,
    dropout: float,
    init_std: float,
) -> nn.ModuleDict:
    """Build one adapter after each named layer.

    Args:
        channels: Channels after layers 1 to 4.
        layers: Which layers get an adapter, a subset of 1..4.
        bottleneck: Units between the two linear maps.
        dropout: Probability, between them.
        init_std: Standard deviation of the initial weights.

    Returns:
        `layer1` .. `layer4` to adapter, for the named layers.

    Raises:
        ValueError: if `layers` names another layer, or one twice.
    """
    if not set(layers) <= set(LEVELS) or len(set(layers)) != len(layers):
        raise ValueError(f"adapter layers must be distinct and among {LEVELS}, got {list(layers)}")
    return nn.ModuleDict(
        {
            f"layer{level}": BottleneckAdapter(
                channels[level - 1], bottleneck=bottleneck, dropout=dropout, init_std=init_std
            )
            for level in sorted(layers)
        }
    )
