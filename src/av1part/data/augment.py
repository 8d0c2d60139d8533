"""Label-aware augmentation of a batch, on its device: the eight symmetries of a square."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from av1part.data.blocks import Batch
from av1part.partition import SYMMETRIES

_TABLES = torch.from_numpy(np.stack([s.table for s in SYMMETRIES]))
"""Partition id after each symmetry, int64 of shape (8, 10)."""


def draw_symmetries(node: Tensor, seed: int, epoch: int) -> Tensor:
    """Draw a symmetry for each node, a function of (seed, epoch, node) alone.

    So the draw does not depend on batch order, workers, rank or an interruption. The mixing is
    splitmix64's finaliser (Steele et al., OOPSLA 2014) in wrapping int64 arithmetic.

    Args:
        node: Node numbers, int64, shape (b,).
        seed: Of the run.
        epoch: Of the training.

    Returns:
        Index into `SYMMETRIES`, int64, shape (b,).
    """
    x = node + (seed * 1_000_003 + epoch + 1) * 0x1E3779B97F4A7C15 % (1 << 62)
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ _unsigned_shift(x, shift)) * factor
    return _unsigned_shift(x ^ _unsigned_shift(x, 31), 32) & 7


def apply_symmetries(batch: Batch, symmetry: Tensor) -> Batch:
    """Transform each block by its symmetry and its partition type to match.

    Args:
        batch: As `BlockReader` gives it; not changed.
        symmetry: Index into `SYMMETRIES` for each block, int64, shape (b,).

    Returns:
        A new batch.
    """
    block = batch["block"].clone()
    for index, s in enumerate(SYMMETRIES):
        here = symmetry == index
        x = batch["block"][here]
        if s.transpose:
            x = x.transpose(-2, -1)
        axes = [axis for axis, on in ((-2, s.top_bottom), (-1, s.left_right)) if on]
        block[here] = x.flip(axes) if axes else x
    partition = _TABLES.to(symmetry.device)[symmetry, batch["partition"]]
    return {**batch, "block": block, "partition": partition}


def _unsigned_shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)
