"""Freezing: which layers of the backbone a method trains, and from which epoch; hashes of tensors.

A layer that is not (yet) trained is frozen: no gradient, no BatchNorm statistic, no dropout.
Adapters, conditioning of the pooled features and head are trained from the start by every method.
FiLM layers in the blocks of a backbone are frozen with the layer that they are in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from av1part.models.layers import LAYERS
from av1part.options import META

Thaw = Mapping[str, int | None]
"""Layer of the backbone to the first epoch in which it is trained; None is never."""


def _all() -> Thaw:
    return dict.fromkeys(LAYERS, 0)


def _none() -> Thaw:
    return dict.fromkeys(LAYERS)


def _partial(*, layers: Sequence[str]) -> Thaw:
    _check_layers("method.layers", layers)
    if not layers:
        raise ValueError("method.layers names no layer: that is method=frozen")
    return {layer: 0 if layer in layers else None for layer in LAYERS}


def _ulmfit(*, unfreeze: Mapping[str, int | None], lr_decay: float = 1.0) -> Thaw:
    _check_layers("method.unfreeze", list(unfreeze))
    epochs = [unfreeze.get(layer) for layer in LAYERS]
    for layer, epoch in zip(LAYERS, epochs, strict=True):
        if epoch is not None and (type(epoch) is not int or epoch < 0):
            raise ValueError(
                f"method.unfreeze.{layer} must be an epoch from 0 or null, got {epoch!r}"
            )
    if all(epoch is None for epoch in epochs):
        raise ValueError("method.unfreeze names no epoch: that is method=frozen")
    if not lr_decay >= 1:
        raise ValueError(f"method.lr_decay must be at least 1, got {lr_decay!r}")
    return dict(zip(LAYERS, epochs, strict=True))


def _meta(**options: Any) -> Thaw:
    # Its options are of its steps and tasks (`stages.meta`); none is of the backbone.
    return _none()


METHODS: Mapping[str, Callable[..., Thaw]] = {
    "scratch": _all,
    "finetune": _all,
    "partial": _partial,
    "ulmfit": _ulmfit,
    "frozen": _none,
    "adapter": _none,
    META: _meta,
}
"""Method to its schedule, given the method's own options."""


def thaw_epochs(method: str, options: Mapping[str, Any]) -> Thaw:
    """Return when each layer of the backbone is trained.

    Args:
        method: A key of `METHODS`.
        options: Of that method: `layers` of `partial`; `unfreeze` and `lr_decay` of `ulmfit`;
            those of `meta` are not looked at.

    Returns:
        Layer to the first epoch in which it is trained, None for never.

    Raises:
        ValueError: if the method or a layer is unknown, or an option does not fit.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    try:
        return METHODS[method](**options)
    except TypeError as error:
        raise ValueError(f"method {method}: {error}") from None


def check_layers(method: str, thaw: Thaw, layers: Sequence[str]) -> None:
    """Refuse to train a layer that the backbone does not have, where a method names its layers.

    Args:
        method: A key of `METHODS`.
        thaw: Its schedule.
        layers: Layers of the backbone that have parameters.

    Raises:
        ValueError: naming the layers that there are. A schedule of `ulmfit` may have others: its
            default is for every backbone.
    """
    lacking = [layer for layer, first in thaw.items() if first is not None and layer not in layers]
    if method == "partial" and lacking:
        raise ValueError(
            f"method.layers={lacking}: this backbone has {', '.join(layers)} at this node size"
        )


def frozen_text(thaw: Thaw) -> str:
    """Return the frozen layers, and until which epoch, for a log line.

    >>> frozen_text({"stem": None, "layer1": 3, "layer2": 0, "layer3": 0, "layer4": 0})
    'stem, layer1 until epoch 3'
    """
    if set(thaw.values()) == {None}:
        return "backbone"
    frozen = [
        layer if epoch is None else f"{layer} until epoch {epoch}"
        for layer, epoch in thaw.items()
        if epoch != 0
    ]
    return ", ".join(frozen) or "nothing"


def layer_rates(lr: float, lr_decay: float) -> dict[str, float]:
    """Return discriminative learning rates: each layer a factor below the one after it.

    Args:
        lr: Of the last layer.
        lr_decay: The factor.

    Returns:
        Layer to its rate.

    Reference: Howard and Ruder, Universal language model fine-tuning for text classification, ACL
        2018, section 3.2 (with a factor of 2.6).
    """
    return {layer: lr / lr_decay**depth for depth, layer in enumerate(reversed(LAYERS))}


def _check_layers(key: str, layers: Sequence[str]) -> None:
    unknown = [layer for layer in layers if layer not in LAYERS]
    if unknown or len(set(layers)) != len(layers):
        raise ValueError(
            f"{key} takes each of {', '.join(LAYERS)} at most once, got {list(layers)}"
        )


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash a state dict.

    Args:
        state: Tensors by name, on any device.

    Returns:
        SHA-256 over the entries in name order: name, dtype, shape and bytes of each.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tensor_hashes(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return name to SHA-256 of each tensor of a state dict."""
    return {name: state_sha256({name: tensor}) for name, tensor in state.items()}


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the names whose hashes differ, or that are missing on one side, sorted."""
    names = before.keys() | after.keys()
    return sorted(name for name in names if before.get(name) != after.get(name))


def moved_tensors(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Return the names whose tensors are not bit-identical, or are missing on one side."""
    return differing(tensor_hashes(before), tensor_hashes(after))
