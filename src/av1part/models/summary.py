"""Summary of a classifier: shapes after each layer, and parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from av1part.models.classifier import Classifier
from av1part.models.layers import LAYERS
from av1part.models.network import Network
from av1part.models.superblock import SuperblockNetwork


@dataclass(frozen=True)
class LayerSummary:
    """A row of the summary.

    Attributes:
        name: Layer or part.
        channels: Channels of its output.
        side: Samples a side of its output map; None where there is no map.
        parameters: All of its parameters.
        trainable: Parameters that are trained.
    """

    name: str
    channels: int
    side: int | None
    parameters: int
    trainable: int


def count_parameters(module: nn.Module | None) -> int:
    """Return the number of parameters of a module."""
    return 0 if module is None else sum(p.numel() for p in module.parameters())


def count_trainable(classifier: Network) -> int:
    """Return the number of parameters of a classifier that are trained in any epoch."""
    return sum(p.numel() for group in classifier.parameter_groups().values() for p in group)


def summarise(network: Network, side: int) -> list[LayerSummary]:
    """List the layers of a network with the spatial size after each.

    Args:
        network: The network.
        side: Samples a side of its input blocks, context included, or of its crops.

    Returns:
        Rows in the order of the data flow.
    """
    if isinstance(network, SuperblockNetwork):
        return _summarise_superblock(network, side)
    assert isinstance(network, Classifier)
    return _summarise_classifier(network, side)


def _summarise_superblock(network: SuperblockNetwork, side: int) -> list[LayerSummary]:
    """List the maps by stride; those of nodes have their way back down and their head."""

    def row(name: str, channels: int, map_side: int | None, *modules: nn.Module) -> LayerSummary:
        count = sum(count_parameters(module) for module in modules)
        return LayerSummary(name, channels, map_side, count, count)

    trunk, rows = network.backbone, []
    for stride, down, blocks in zip(trunk.strides, trunk.down, trunk.blocks, strict=True):
        channels = trunk.by_stride[stride]
        rows.append(row(f"stride {stride}", channels, side // stride, down, blocks))
    for size, channels in reversed(trunk.channels.items()):
        ways = [d[str(size)] for d in (trunk.top_down, trunk.merged) if str(size) in d]
        head = network.head[str(size)]
        rows.append(row(f"nodes {size}", channels, side // size, *ways, head))
    if trunk.condition is not None:
        rows.append(row("conditioning", 0, None, trunk.condition))
    return rows


def _summarise_classifier(classifier: Classifier, side: int) -> list[LayerSummary]:
    """List the layers with the spatial size after each.

    At 16x16 the ImageNet stem leaves 4, 2, 1, 1 samples after layers 1 to 4, so that 3x3 kernels
    and the 7x7 attention there see a single one. Adapters have a row after their layer.
    """
    backbone, adapters = classifier.backbone, classifier.adapters
    trained = {id(p) for group in classifier.parameter_groups().values() for p in group}

    def row(name: str, channels: int, map_side: int | None, *modules: nn.Module) -> LayerSummary:
        parameters = [p for module in modules for p in module.parameters()]
        trainable = sum(p.numel() for p in parameters if id(p) in trained)
        return LayerSummary(name, channels, map_side, sum(p.numel() for p in parameters), trainable)

    rows = []
    training = classifier.training
    classifier.eval()
    with torch.no_grad():
        device = next(backbone.parameters()).device
        block = torch.zeros((1, 1, side, side), dtype=torch.uint8, device=device)
        qindex = torch.zeros(1, dtype=torch.int64, device=device)
        x, embedded = classifier.trunk(block, qindex, 0), backbone.embedded(qindex)
        for layer in LAYERS:
            if layer != LAYERS[0]:
                x = backbone.level(LAYERS.index(layer), x, adapters, embedded)
            modules = [module for owner, module in backbone.parts() if owner == layer]
            if modules:
                rows.append(row(layer, x.shape[1], x.shape[2], *modules))
            here = [m for site, m in adapters.items() if site.partition("_")[0] == layer]
            if here:
                rows.append(row(layer.replace("layer", "adapter"), x.shape[1], x.shape[2], *here))
    classifier.train(training)
    if classifier.conditioning is not None:
        rows.append(row("conditioning", x.shape[1], None, classifier.conditioning))
    logits = [m for m in classifier.head if isinstance(m, nn.Linear)][-1].out_features
    rows.append(row("head", logits, None, classifier.head))
    return rows
