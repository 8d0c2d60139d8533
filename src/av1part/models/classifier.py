"""The network of one stage: normalise, backbone with adapters in it, head.

    block (ints) -> normalise -> stem -> [layer k -> SE k -> adapter k] k = 1..3
        -> layer 4 -> SE 4 -> attention -> adapter 4 -> mean -> (FiLM by qindex) -> head -> logits

Other forms of adapter sit inside the layers, see `adapters`.

Shapes: b batch, c channels, s samples a side, k classes of the stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from av1part.models.adapters import build_adapters
from av1part.models.backbone import LAYERS, LEVELS, ResNet18, adapted, layer_of, spatial_mean
from av1part.models.freeze import Thaw
from av1part.models.heads import QindexFiLM, build_head
from av1part.models.network import Network
from av1part.models.normalise import PixelNormalise
from av1part.options import CONDITIONINGS, Conditioning

PARTS = ("backbone", "adapters", "conditioning", "head")
"""Parts with parameters, in the order of the data flow; also the names of parameter groups."""


POOLED = len(LEVELS) + 1
"""The cut after the mean over the last map."""


class Classifier(Network):
    """A stage's network; freezes layers of the backbone by epoch.

    `thaw` is the method's schedule, `frozen` the layers that are frozen now, and `cut` the last
    place, as `trunk` counts, before which no layer is ever trained; None if there is none.
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
        thaw: Thaw | None = None,
    ) -> None:
        """Build the network, as it is in epoch 0.

        Args:
            classes: Classes of the stage.
            bit_depth: Bits a sample of the blocks.
            backbone: Arguments of `ResNet18`.
            head: Arguments of `build_head`.
            adapter: Arguments of `build_adapters`, or None for no adapters.
            conditioning: `qindex` adds a FiLM layer on the pooled features.
            thaw: First epoch of each layer, see `freeze.thaw_epochs`; None trains all layers.

        Raises:
            ValueError: if an option is unknown.
        """
        super().__init__()
        self.backbone: ResNet18
        if conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning must be one of {CONDITIONINGS}, got {conditioning!r}")
        self.normalise = PixelNormalise(bit_depth)
        self.backbone = ResNet18(**backbone)
        channels = self.backbone.channels
        self.adapters = build_adapters(self.backbone, **adapter) if adapter else nn.ModuleDict()
        self.conditioning = QindexFiLM(channels[-1]) if conditioning == "qindex" else None
        self.head = build_head(channels[-1], classes, **head)
        self.thaw = dict.fromkeys(LAYERS, 0) if thaw is None else dict(thaw)
        self.frozen: tuple[str, ...] = ()
        self.cut = self._cut()
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Freeze or thaw layers as the method's schedule says for an epoch."""
        self.frozen = self.frozen_at(epoch)
        for name, module in self.backbone.named_children():
            module.requires_grad_(layer_of(name) not in self.frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """Set the training mode; frozen layers always stay in eval mode.

        `requires_grad=False` alone would leave BatchNorm's running statistics moving, and eval
        mode is undone by any later `.train()` of a parent: so it is set again here.
        """
        super().train(mode)
        for name, module in self.backbone.named_children():
            if layer_of(name) in self.frozen:
                module.eval()
        return self

    def frozen_state(self) -> dict[str, Tensor]:
        """Return every frozen parameter and buffer by its full name (not copies)."""
        return {
            f"backbone.{name}": tensor
            for name, tensor in self.backbone.state_dict().items()
            if layer_of(name) in self.frozen
        }

    def parameter_groups(self, *, by_layer: bool = False) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that are trained in any epoch, each exactly once.

        Args:
            by_layer: A group for each layer of the backbone instead of one for all of it.

        Returns:
            Part (or layer) to its parameters; those without any are left out.
        """
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            part, _, rest = name.partition(".")
            if part == "backbone":
                layer = layer_of(rest)
                if self.thaw[layer] is None:
                    continue
                part = layer if by_layer else part
            groups.setdefault(part, []).append(parameter)
        return groups

    def trunk(self, block: Tensor, cut: int) -> Tensor:
        """Compute features up to a cut, without the adapters that follow it.

        Args:
            block: Integer samples, shape (b, 1, s, s).
            cut: 0 is after the stem, 1 to 4 after that layer and its attention, `POOLED` the mean.

        Returns:
            float, shape (b, c, h, w), or (b, c) if pooled.
        """
        # Channels last is how convolutions compute on a CPU, and on a GPU's tensor cores.
        x = self.backbone.stem(self.normalise(block).to(memory_format=torch.channels_last))
        for level in LEVELS[: min(cut, len(LEVELS))]:
            x = self.backbone.level(level, x)
        return spatial_mean(x) if cut == POOLED else x

    def pooled(self, features: Tensor, cut: int) -> Tensor:
        """Compute the pooled features from those of a cut.

        Args:
            features: As `trunk` returns them.
            cut: That of the features.

        Returns:
            float, shape (b, c).
        """
        if cut == POOLED:
            return features
        x = adapted(features, self.adapters, f"layer{cut}")
        for level in LEVELS[cut:]:
            x = self.backbone.level(level, x, self.adapters)
        return spatial_mean(x)

    def features(self, block: Tensor) -> Tensor:
        """Return pooled features, float, (b, c), of integer samples, (b, 1, s, s)."""
        return self.pooled(self.trunk(block, 0), 0)

    def from_cut(self, features: Tensor, qindex: Tensor, cut: int) -> Tensor:
        """Classify from the features of a cut.

        Args:
            features: As `trunk` returns them.
            qindex: int64 0..255, shape (b,); used only under conditioning by qindex.
            cut: That of the features.

        Returns:
            Unnormalised logits, float, shape (b, k).
        """
        x = self.pooled(features, cut)
        if self.conditioning is not None:
            x = self.conditioning(x, qindex)
        logits: Tensor = self.head(x)
        return logits

    def compile_trained(self) -> None:
        """Compile `from_cut`, which every step computes; on a GPU as CUDA graphs.

        A graph launches the many small kernels of a step at once.
        """
        mode = "reduce-overhead" if torch.cuda.is_available() else "default"
        self.from_cut = torch.compile(self.from_cut, mode=mode)  # type: ignore[method-assign]

    def forward(self, block: Tensor, qindex: Tensor) -> Tensor:
        """Classify blocks.

        Args:
            block: Integer samples, shape (b, 1, s, s).
            qindex: int64 0..255, shape (b,); used only under conditioning by qindex.

        Returns:
            Unnormalised logits, float, shape (b, k).
        """
        return self.from_cut(self.trunk(block, 0), qindex, 0)

    def _cut(self) -> int | None:
        if self.thaw["stem"] is not None:
            return None
        for level in LEVELS:
            layer = f"layer{level}"
            inside = any(site.startswith(f"{layer}_") for site in self.adapters)
            if self.thaw[layer] is not None or inside:
                return level - 1
            if layer in self.adapters:
                return level
        return POOLED
