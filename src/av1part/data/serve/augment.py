"""Augmentation of a training batch, on its device, in whole sample values.

block, type -> symmetries -> noise -> soft labels -> mixup; nothing given is changed in place.

Shapes: b blocks, s luma samples a side, k classes of the stage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from av1part.data.serve.blocks import Batch
from av1part.options import InjectionLabels
from av1part.partition import IGNORED, SYMMETRIES, Stage

_TABLES = torch.from_numpy(np.stack([s.table for s in SYMMETRIES]))
"""Partition id after each symmetry, int64 of shape (8, 10)."""

MOST_DEVIATIONS = 3.0
"""Noise beyond so many standard deviations is cut off."""

_STEP = 0x1E3779B97F4A7C15
_SYMMETRY, _NOISE, _LABEL = range(3)
"""Streams of random bits, one a purpose, so that no draw tells anything of another."""
_MIXUP = 1
"""Tells mixup's random numbers from those of the order of blocks."""
_UNIFORM_BITS = 23  # (n + 1/2) / 2^23 is exact in float32 and neither 0 nor 1


@dataclass(frozen=True)
class Augmentation:
    """What becomes of a training batch.

    Attributes:
        stage: Whose classes the labels are of.
        seed: Of the run.
        bit_depth: Of the samples.
        context: Margin around each block, in luma samples.
        symmetries: Whether each block is turned by one of the eight symmetries.
        noise: Deviation of the noise by that of each block; 0 is none.
        mixup: Alpha of the Beta distribution by which blocks are mixed; 0 is none.
        foreign: Labels of blocks that are not the stage's, if there are any.
    """

    stage: Stage
    seed: int
    bit_depth: int
    context: int = 0
    symmetries: bool = False
    noise: float = 0.0
    mixup: float = 0.0
    foreign: InjectionLabels | None = None

    def __call__(self, batch: Batch, *, epoch: int, step: int, rank: int = 0) -> Batch:
        """Return what is trained on.

        Args:
            batch: As the training loader gives it; not changed.
            epoch: Of the training; with seed and node it decides symmetry, noise, random label.
            step: Of the training; with seed and rank it decides the mixture.
            rank: Of this process.

        Returns:
            A batch; with `target` if there are soft labels.
        """
        drawn = {"seed": self.seed, "epoch": epoch}
        if self.symmetries:
            batch = apply_symmetries(batch, draw_symmetries(batch["node"], **drawn))
        if self.noise:
            limits = {"bit_depth": self.bit_depth, "context": self.context}
            batch = add_noise(batch, self.noise, **drawn, **limits)
        if self.foreign is not None or self.mixup:
            soft = soft_labels(batch, self.stage, foreign=self.foreign or "nearest", **drawn)
            batch = {**batch, "target": soft}
        if self.mixup:
            rng = np.random.default_rng((self.seed, step, rank, _MIXUP))
            batch = mix_up(batch, self.mixup, rng)
        return batch


def draw_bits(node: Tensor, seed: int, epoch: int, stream: int) -> Tensor:
    """Draw 64 bits for each node, a function of (seed, epoch, stream, node) alone.

    So the draw does not depend on batch order, workers, rank or an interruption. The mixing is
    splitmix64's finaliser (Steele et al., OOPSLA 2014) in wrapping int64 arithmetic.

    Args:
        node: Node numbers, int64, shape (b,).
        seed: Of the run.
        epoch: Of the training.
        stream: What the bits are for.

    Returns:
        int64, shape (b,).
    """
    bits = _finalise(node + (seed * 1_000_003 + epoch + 1) * _STEP % (1 << 62))
    return bits if stream == _SYMMETRY else _finalise(bits + stream * _STEP)


def draw_symmetries(node: Tensor, seed: int, epoch: int) -> Tensor:
    """Draw a symmetry for each node (b,): an index into `SYMMETRIES`, int64, shape (b,)."""
    return _unsigned_shift(draw_bits(node, seed, epoch, _SYMMETRY), 32) & 7


def turned_places(
    index: NDArray[np.int64], epoch: int, *, nodes: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Return where the features of blocks lie under the symmetries that are drawn for them.

    Args:
        index: Positions in `nodes`, int64, (b,).
        epoch: Of training.
        nodes: Node numbers of all blocks, int64, (n,).
        seed: Of the draws.

    Returns:
        Positions in a `FeatureReader` of eight turns, int64, (b,).
    """
    turn = draw_symmetries(torch.from_numpy(nodes[index]), seed, epoch)
    places: NDArray[np.int64] = index + len(nodes) * turn.numpy()
    return places


def draw_classes(node: Tensor, classes: int, seed: int, epoch: int) -> Tensor:
    """Draw a class for each node (b,), all equally likely: 0..classes-1, int64, shape (b,)."""
    return _unsigned_shift(draw_bits(node, seed, epoch, _LABEL), 32) % classes


def apply_symmetries(batch: Batch, symmetry: Tensor) -> Batch:
    """Transform each block by its symmetry and its partition type to match.

    Args:
        batch: As `BlockReader` gives it; not changed. Features in place of blocks are of the
            transformed blocks already, so only the types change.
        symmetry: Index into `SYMMETRIES` for each block, int64, shape (b,).

    Returns:
        A new batch.
    """
    partition = _TABLES.to(symmetry.device)[symmetry, batch["partition"]]
    if "features" in batch:
        return {**batch, "partition": partition}
    block = batch["block"].clone()
    for index, s in enumerate(SYMMETRIES):
        here = symmetry == index
        x = batch["block"][here]
        if s.transpose:
            x = x.transpose(-2, -1)
        axes = [axis for axis, on in ((-2, s.top_bottom), (-1, s.left_right)) if on]
        block[here] = x.flip(axes) if axes else x
    return {**batch, "block": block, "partition": partition}


def add_noise(
    batch: Batch, share: float, *, seed: int, epoch: int, bit_depth: int, context: int = 0
) -> Batch:
    """Add Gaussian noise whose deviation is a share of each block's own contrast.

    Contrast is the standard deviation of the block without its margin, so a flat block stays as
    it is. No sample moves by more than `MOST_DEVIATIONS` deviations of the noise, rounded. The
    draw is a function of (seed, epoch, node, place in the block) alone.

    Args:
        batch: Integer blocks; not changed.
        share: Deviation of the noise by that of the block, from 0 on.
        seed: Of the run.
        epoch: Of the training.
        bit_depth: Samples stay within 0 .. 2^bit_depth - 1.
        context: Margin around each block, in luma samples.

    Returns:
        A new batch; its blocks have the dtype they had.
    """
    block = batch["block"].float()
    inner = block[..., context : block.shape[-2] - context, context : block.shape[-1] - context]
    deviation = share * inner.std((-2, -1), correction=0, keepdim=True)
    bits = draw_bits(batch["node"], seed, epoch, _NOISE)
    normal = _draw_normal(bits, block[0].numel()).view_as(block)
    noise = deviation * normal.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)
    noisy = (block + noise).round().clamp(0, (1 << bit_depth) - 1)
    return {**batch, "block": noisy.to(batch["block"].dtype)}


def soft_labels(
    batch: Batch, stage: Stage, *, foreign: InjectionLabels = "nearest", seed: int, epoch: int
) -> Tensor:
    """Return the soft label of each block over the classes of a stage.

    Args:
        batch: With types as they are after the symmetries.
        stage: Whose classes; blocks of its types have their class.
        foreign: Of all other types, `nearest` (`Stage.targets`) or `random`, any class.
        seed: Of the run.
        epoch: Of the training.

    Returns:
        float32, shape (b, k), rows sum to 1.
    """
    partition = batch["partition"]
    target = torch.from_numpy(stage.targets).to(partition.device)[partition]
    if foreign == "nearest":
        return target
    classes = len(stage.classes)
    drawn = functional.one_hot(draw_classes(batch["node"], classes, seed, epoch), classes)
    strange = torch.from_numpy(stage.labels).to(partition.device)[partition] == IGNORED
    return torch.where(strange[:, None], drawn.float(), target)


def mix_up(batch: Batch, alpha: float, rng: np.random.Generator) -> Batch:
    """Mix every block, and its soft label alike, with another of the batch at the same qindex.

    Blocks are mixed in sample values and rounded to whole ones. Partners share the qindex, since
    the same pixels are cut otherwise at another one, and a mixture of two has none; a block that
    is alone with its qindex stays as it is. `qindex`, `partition` and `node` stay those of the
    first of each two.

    Reference: Zhang et al., mixup: Beyond empirical risk minimization, ICLR 2018.

    Args:
        batch: With `target`, float, shape (b, k); not changed.
        alpha: Of the Beta distribution of the first block's weight, one draw a block; above 0.
        rng: Drawn from on the host, so that the batch's content cannot change the draw.

    Returns:
        A new batch.
    """
    count, device = len(batch["node"]), batch["block"].device
    weight = torch.from_numpy(rng.beta(alpha, alpha, count).astype(np.float32)).to(device)
    partner = _partners(batch["qindex"], torch.from_numpy(rng.permutation(count)).to(device))
    mixed = {}
    for key in ("block", "target"):
        first = batch[key].float()
        share = weight.view(-1, *(1,) * (first.dim() - 1))
        mixed[key] = torch.lerp(first[partner], first, share)
    block = mixed["block"].round().to(batch["block"].dtype)
    return {**batch, "block": block, "target": mixed["target"]}


def _partners(qindex: Tensor, order: Tensor) -> Tensor:
    """Return a partner of each block: the next in `order` with its qindex, in a ring."""
    ring = order[qindex[order].argsort(stable=True)]
    sorted_ = qindex[ring]
    place = torch.arange(len(ring), device=ring.device)
    following = torch.where(sorted_.roll(-1) == sorted_, place + 1, len(ring))
    first = torch.searchsorted(sorted_, sorted_)
    following = torch.where(following < len(ring), following, first)
    partner = torch.empty_like(ring)
    partner[ring] = ring[following]
    return partner


def _draw_normal(bits: Tensor, count: int) -> Tensor:
    """Return `count` standard normal draws from each 64 bits, float32, shape (b, count).

    Reference: Box and Muller, A note on the generation of random normal deviates, 1958.
    """
    place = torch.arange(1, count + 1, device=bits.device) * _STEP
    drawn = _finalise(bits[:, None] + place)
    uniform = [
        ((_unsigned_shift(drawn, shift) & ((1 << _UNIFORM_BITS) - 1)).float() + 0.5)
        / (1 << _UNIFORM_BITS)
        for shift in (64 - _UNIFORM_BITS, 64 - 2 * _UNIFORM_BITS)
    ]
    return (-2 * uniform[0].log()).sqrt() * (2 * math.pi * uniform[1]).cos()


def _finalise(x: Tensor) -> Tensor:
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ _unsigned_shift(x, shift)) * factor
    return x ^ _unsigned_shift(x, 31)


def _unsigned_shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)
