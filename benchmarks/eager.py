"""The peers' network: the same layers called as anyone would, nothing folded or cached."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from av1part.models.backbone import LEVELS, adapted
from av1part.models.classifier import Classifier


class Eager(nn.Module):
    """A classifier's own modules in torchvision's and PyTorch's own forward passes."""

    def __init__(self, classifier: Classifier, memory_format: torch.memory_format) -> None:
        """Share the classifier's modules.

        Args:
            classifier: Whose.
            memory_format: Of blocks and features.
        """
        super().__init__()
        self.classifier = classifier
        self.memory_format = memory_format

    def forward(self, block: Tensor, cut: int = 0) -> Tensor:
        """Return logits (b, k); no gradient is computed up to the level `cut`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and cut == 0):
            b = self.classifier.backbone
            x = self.classifier.normalise(block).to(memory_format=self.memory_format)
            x = b.maxpool(b.relu(b.bn1(b.conv1(x))))
            for level in LEVELS[:cut]:
                x = self._level(level, x)
        x = adapted(x, self.classifier.adapters, f"layer{cut}")
        for level in LEVELS[cut:]:
            x = adapted(self._level(level, x), self.classifier.adapters, f"layer{level}")
        logits: Tensor = self.classifier.head(x.mean((2, 3)))
        return logits

    def _level(self, level: int, x: Tensor) -> Tensor:
        b = self.classifier.backbone
        x = b.get_submodule(f"se{level}")(b.get_submodule(f"layer{level}")(x))
        if level < LEVELS[-1]:
            return x
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        gate: Tensor = torch.sigmoid(b.attention.conv(pooled))
        return x * gate


FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
"""Memory formats among which a peer's best is searched."""
