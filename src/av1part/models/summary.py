"""What a classifier is made of: shapes after each layer, parameters, trainable and frozen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from av1part.models.backbone import LEVELS
from av1part.models.classifier import Classifier


@dataclass(frozen=True)
class LayerSummary:
    """One row of the model summary.

    Attributes:
        name: Layer or part.
        channels: Channels of its output.
        side: Samples a side of its output map; None where there is no map.
        parameters: All of its parameters.
        trainable: Those that are trained.
    """

    name: str
    channels: int
    side: int | None
    parameters: int
    trainable: int


def count_parameters(module: nn.Module | None) -> tuple[int, int]:
    """Return (all, trainable) parameters of a module."""
    parameters = [] if module is None else list(module.parameters())
    return (
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
    )


def summarise(classifier: Classifier, side: int) -> list[LayerSummary]:
    """List the layers of a classifier with the spatial size after each.

    At 16x16 the ImageNet stem leaves 4, 2, 1, 1 samples after layers 1 to 4, so that 3x3 kernels
    and the 7x7 attention there see a single one; the table makes that visible.

    Args:
        classifier: The network.
        side: Samples a side of its input blocks, context included.

    Returns:
        Rows in the order the data passes them.
    """
    backbone = classifier.backbone
    stem = [backbone.conv1, backbone.bn1]
    rows = []
    training = classifier.training
    classifier.eval()
    with torch.no_grad():
        block = torch.zeros((1, 1, side, side), dtype=torch.uint8)
        x = backbone.stem(classifier.normalise(block.to(backbone.conv1.weight.device)))
        rows.append(_row("stem", x, *stem))
        for level in LEVELS:
            x = backbone.level(level, x)
            extra = [getattr(backbone, f"se{level}", None)]
            extra += [getattr(backbone, "attention", None)] if level == 4 else []
            rows.append(_row(f"layer{level}", x, getattr(backbone, f"layer{level}"), *extra))
            if f"layer{level}" in classifier.adapters:
                adapter = classifier.adapters[f"layer{level}"]
                x = adapter(x)
                rows.append(_row(f"adapter{level}", x, adapter))
    classifier.train(training)
    if classifier.conditioning is not None:
        rows.append(
            LayerSummary(
                "conditioning", x.shape[1], None, *count_parameters(classifier.conditioning)
            )
        )
    logits = [m for m in classifier.head if isinstance(m, nn.Linear)][-1].out_features
    rows.append(LayerSummary("head", logits, None, *count_parameters(classifier.head)))
    return rows


def _row(name: str, x: torch.Tensor, *modules: nn.Module | None) -> LayerSummary:
    counts = [count_parameters(m) for m in modules]
    total, trainable = (sum(c) for c in zip(*counts, strict=True))
    return LayerSummary(name, x.shape[1], x.shape[2], total, trainable)
