"""Freezing, in one place: which parts a method freezes, and the proof that they did not move."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

FROZEN_PARTS: Mapping[str, tuple[str, ...]] = {
    "scratch": (),
    "finetune": (),
    "frozen": ("backbone",),
    "adapter": ("backbone",),
}
"""Method to the parts of a classifier that it freezes."""


def freeze(module: nn.Module) -> None:
    """Stop gradients and put the module into eval mode (BatchNorm statistics, dropout).

    `requires_grad=False` alone leaves BatchNorm's running statistics moving; and eval mode is
    undone by any later `.train()` of a parent, which must therefore keep frozen parts in eval
    mode (`Classifier.train` does).
    """
    module.requires_grad_(False)
    module.eval()


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the identity of a state dict.

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


def moved_tensors(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Return the names whose tensors are not bit-identical, or are missing on one side."""
    names = sorted(before.keys() | after.keys())
    return [
        name
        for name in names
        if name not in before
        or name not in after
        or state_sha256({name: before[name]}) != state_sha256({name: after[name]})
    ]
