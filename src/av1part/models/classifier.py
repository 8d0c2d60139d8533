"""The network of one stage: input planes, backbone with adapters in it, head.

    block (ints) -> plane(s) -> stem -> [layer k -> SE k -> adapter k] k = 1..3
        -> layer 4 -> SE 4 -> attention -> adapter 4 -> mean -> (FiLM by qindex) -> head -> logits

Other forms of adapter sit inside the layers, see `adapters`. The backbone is a ResNet-18, or the
superblock network's trunk, which has no attention, and the node's own cell instead of the mean.

Shapes: b batch, p input planes, c channels, s samples a side, k classes of the stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from av1part.models.adapters import build_adapters
from av1part.models.backbone import ResNet18
from av1part.models.film import conditions
from av1part.models.freeze import Thaw
from av1part.models.heads import QindexFiLM, build_head
from av1part.models.layers import LAYERS, LEVELS, Backbone
from av1part.models.network import Network
from av1part.models.node_trunk import NodeTrunk
from av1part.models.normalise import PixelNormalise
from av1part.models.planes import InputPlanes
from av1part.options import BACKBONES, CONDITIONINGS, RESNET_BACKBONE, Conditioning

PARTS = ("backbone", "adapters", "conditioning", "head")
"""Parts with parameters, in the order of the data flow; also the names of parameter groups."""


POOLED = len(LEVELS) + 1
"""The cut after the last map has been pooled."""


def build_backbone(
    size: int, *, kind: str = RESNET_BACKBONE, planes: int = 1, **options: Any
) -> Backbone:
    """Build a backbone.

    Args:
        size: Luma samples a side of the nodes.
        kind: Of `BACKBONES`.
        planes: Input planes.
        **options: Further arguments of `ResNet18` or `NodeTrunk`.

    Returns:
        The backbone.

    Raises:
        ValueError: if there is no such backbone, or an option does not fit it.
    """
    if kind not in BACKBONES:
        raise ValueError(f"backbone.kind must be one of {BACKBONES}, got {kind!r}")
    if kind == RESNET_BACKBONE:
        return ResNet18(planes=planes, **options)
    return NodeTrunk(size=size, planes=planes, **options)


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
        size: int = 16,
        adapter: Mapping[str, Any] | None = None,
        conditioning: Conditioning = "none",
        thaw: Thaw | None = None,
    ) -> None:
        """Build the network, as it is in epoch 0.

        Args:
            classes: Classes of the stage.
            bit_depth: Bits a sample of the blocks.
            backbone: `kind`, with arguments of `ResNet18` or `NodeTrunk`; `planes`, names from
                `INPUT_PLANES`, or None for the study's single plane.
            head: Arguments of `build_head`.
            size: Luma samples a side of the nodes.
            adapter: Arguments of `build_adapters`, or None for no adapters.
            conditioning: `qindex` adds a FiLM layer on the pooled features, `qindex_blocks` one in
                each residual block.
            thaw: First epoch of each layer, see `freeze.thaw_epochs`; None trains all layers.

        Raises:
            ValueError: if an option is unknown.
        """
        super().__init__()
        self.backbone: Backbone
        if conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning must be one of {CONDITIONINGS}, got {conditioning!r}")
        options = dict(backbone)
        planes, moments = options.pop("planes", None), bool(options.get("energies"))
        if moments and planes is None:
            raise ValueError("backbone.energies goes with backbone.planes: give planes")
        self.normalise = (
            PixelNormalise(bit_depth)
            if planes is None
            else InputPlanes(bit_depth, planes, moments=moments)
        )
        self.backbone = build_backbone(
            size,
            planes=1 if planes is None else len(planes),
            conditioned=conditioning == "qindex_blocks",
            **options,
        )
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
        for layer, module in self.backbone.parts():
            module.requires_grad_(layer not in self.frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """Set the training mode; frozen layers always stay in eval mode.

        `requires_grad=False` alone would leave BatchNorm's running statistics moving, and eval
        mode is undone by any later `.train()` of a parent: so it is set again here.
        """
        super().train(mode)
        for layer, module in self.backbone.parts():
            if layer in self.frozen:
                module.eval()
        return self

    def frozen_state(self) -> dict[str, Tensor]:
        """Return every frozen parameter and buffer by its full name (not copies)."""
        return {
            f"backbone.{name}": tensor
            for name, tensor in self.backbone.state_dict().items()
            if self.backbone.layer_of(name) in self.frozen
        }

    def parameter_groups(self, *, by_layer: bool = False) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that are trained in any epoch, each exactly once.

        FiLM layers in the blocks are in the group `conditioning`, if their layer is ever trained.

        Args:
            by_layer: A group for each layer of the backbone instead of one for all of it.

        Returns:
            Part (or layer) to its parameters; those without any are left out.
        """
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            part, _, rest = name.partition(".")
            if part == "backbone":
                layer = self.backbone.layer_of(rest)
                if self.thaw[layer] is None:
                    continue
                part = layer if by_layer else part
                part = "conditioning" if conditions(rest) else part
            groups.setdefault(part, []).append(parameter)
        return groups

    @property
    def input_facts(self) -> dict[str, Any]:
        """What features depend on beside the backbone's tensors and the blocks, as JSON values."""
        if isinstance(self.normalise, InputPlanes):
            planes = {
                "planes": list(self.normalise.planes),
                "moments": self.normalise.moments,
                "scale": float(self.normalise.scale),
            }
        else:
            planes = self.normalise.facts
        return {**planes, **self.backbone.facts}

    def trunk(self, block: Tensor, qindex: Tensor, cut: int) -> Tensor:
        """Compute features up to a cut, without the adapters that follow it.

        Args:
            block: Integer samples, shape (b, 1, s, s).
            qindex: int64 0..255, shape (b,); used only where planes or blocks depend on it.
            cut: 0 is after the stem, 1 to 4 after that layer and its attention, `POOLED` pooled.

        Returns:
            float, shape (b, c, h, w), or (b, c) if pooled.
        """
        if isinstance(self.normalise, InputPlanes):
            planes = self.normalise(block, qindex)
        else:
            planes = self.normalise(block)
        embedded = self.backbone.embedded(qindex)
        # Channels last is how convolutions compute on a CPU, and on a GPU's tensor cores.
        x = self.backbone.stem(planes.to(memory_format=torch.channels_last), embedded)
        for level in LEVELS[: min(cut, len(LEVELS))]:
            x = self.backbone.level(level, x, embedded=embedded)
        return self.backbone.pool(x) if cut == POOLED else x

    def next_cut(self, features: Tensor, qindex: Tensor, cut: int) -> Tensor:
        """Compute the features of a cut from 1 to 4 from those of the one before, as `trunk`."""
        return self.backbone.level(cut, features, embedded=self.backbone.embedded(qindex))

    def pooled(self, features: Tensor, qindex: Tensor, cut: int) -> Tensor:
        """Compute the pooled features from those of a cut.

        Args:
            features: As `trunk` returns them.
            qindex: As for `trunk`.
            cut: That of the features.

        Returns:
            float, shape (b, c).
        """
        if cut == POOLED:
            return features
        embedded = self.backbone.embedded(qindex)
        x = features if cut == 0 else self.backbone.after(cut, features, self.adapters)
        for level in LEVELS[cut:]:
            x = self.backbone.level(level, x, self.adapters, embedded)
        return self.backbone.pool(x)

    def features(self, block: Tensor, qindex: Tensor) -> Tensor:
        """Return pooled features, float, (b, c), of samples, (b, 1, s, s), and qindex, (b,)."""
        return self.pooled(self.trunk(block, qindex, 0), qindex, 0)

    def from_cut(self, features: Tensor, qindex: Tensor, cut: int) -> Tensor:
        """Classify from the features of a cut.

        Args:
            features: As `trunk` returns them.
            qindex: As for `trunk`, and under conditioning by qindex.
            cut: That of the features.

        Returns:
            Unnormalised logits, float, shape (b, k).
        """
        x = self.pooled(features, qindex, cut)
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
            qindex: int64 0..255, shape (b,); used only where the network depends on it.

        Returns:
            Unnormalised logits, float, shape (b, k).
        """
        return self.from_cut(self.trunk(block, qindex, 0), qindex, 0)

    def _cut(self) -> int | None:
        if self.thaw["stem"] is not None:
            return None
        for level in LEVELS:
            layer = f"layer{level}"
            inside = any(site.startswith(f"{layer}_") for site in self.adapters)
            if self.thaw[layer] is not None or inside:
                below = set(LAYERS[:level]) & set(self.backbone.layers())
                return level - 1 if below else None
            if layer in self.adapters:
                return level
        return POOLED
