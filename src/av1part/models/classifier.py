"""The network of one stage: normalise, backbone with adapters between its layers, head.

    block (ints) -> normalise -> stem -> [layer k -> SE k -> adapter k] k = 1..3
        -> layer 4 -> SE 4 -> attention -> adapter 4 -> mean -> (FiLM by qindex) -> head -> logits

Shapes: b batch, c channels, s samples a side, k classes of the stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from av1part.models.adapters import build_adapters
from av1part.models.backbone import LEVELS, ResNet18
from av1part.models.freeze import freeze
from av1part.models.heads import QindexFiLM, build_head
from av1part.models.normalise import PixelNormalise
from av1part.options import CONDITIONINGS, Conditioning

PARTS = ("backbone", "adapters", "conditioning", "head")
"""Parts that have parameters, in the order of the data flow; also names of parameter groups."""


class Classifier(nn.Module):
    """A stage's network; knows which of its parts are frozen and keeps them so.

    `frozen` holds the names of the frozen parts.
    """

    def __init__(
        self,
        *,
        classes: int,
        bit_depth: int,
        backbone: Mapping[str, Any],
        head: Mapping[str, Any],
        adapter: Mapping[str, Any] | None = None,
        conditioning: Conditioning = "none",
        frozen: Sequence[str] = (),
    ) -> None:
        """Build the network.

        Args:
            classes: Classes of the stage.
            bit_depth: Bits a sample of the blocks it will be given.
            backbone: Arguments of `ResNet18`.
            head: Arguments of `build_head`.
            adapter: Arguments of `build_adapters`, or None for no adapters.
            conditioning: `qindex` adds a FiLM layer on the pooled features.
            frozen: Parts to freeze, among `PARTS`.

        Raises:
            ValueError: if an option is unknown.
        """
        super().__init__()
        if conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning must be one of {CONDITIONINGS}, got {conditioning!r}")
        if not set(frozen) <= set(PARTS):
            raise ValueError(f"parts that can be frozen are {PARTS}, got {list(frozen)}")
        self.normalise = PixelNormalise(bit_depth)
        self.backbone = ResNet18(**backbone)
        channels = self.backbone.channels
        self.adapters = build_adapters(channels, **adapter) if adapter else nn.ModuleDict()
        self.conditioning = QindexFiLM(channels[-1]) if conditioning == "qindex" else None
        self.head = build_head(channels[-1], classes, **head)
        self.frozen = tuple(frozen)
        for _, module in self.frozen_modules():
            freeze(module)

    def frozen_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield name and module of every frozen part."""
        for name in self.frozen:
            module = self._modules.get(name)
            if module is not None:
                yield name, module

    def frozen_state(self) -> dict[str, Tensor]:
        """Return every frozen parameter and buffer by its full name (not copies)."""
        return {
            f"{part}.{name}": tensor
            for part, module in self.frozen_modules()
            for name, tensor in module.state_dict().items()
        }

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters of each part that has any, each exactly once."""
        groups = {}
        for part in PARTS:
            module = self._modules.get(part)
            if module is not None:
                parameters = [p for p in module.parameters() if p.requires_grad]
                if parameters:
                    groups[part] = parameters
        return groups

    def train(self, mode: bool = True) -> Classifier:
        """Set training mode; frozen parts stay in eval mode whatever is asked."""
        super().train(mode)
        for _, module in self.frozen_modules():
            module.eval()
        return self

    def features(self, block: Tensor) -> Tensor:
        """Return pooled features.

        Args:
            block: Integer samples, shape (b, 1, s, s).

        Returns:
            float, shape (b, c).
        """
        x = self.backbone.stem(self.normalise(block))
        for level in LEVELS:
            x = self.backbone.level(level, x)
            name = f"layer{level}"
            if name in self.adapters:
                x = self.adapters[name](x)
        return x.mean((2, 3))

    def forward(self, block: Tensor, qindex: Tensor) -> Tensor:
        """Classify blocks.

        Args:
            block: Integer samples, shape (b, 1, s, s).
            qindex: int64 0..255, shape (b,); used only under conditioning by qindex.

        Returns:
            Unnormalised logits, float, shape (b, k).
        """
        features = self.features(block)
        if self.conditioning is not None:
            features = self.conditioning(features, qindex)
        logits: Tensor = self.head(features)
        return logits
