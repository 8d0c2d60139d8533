"""Augmenter of a training batch, on its device, in whole sample values.

block, type -> symmetries -> noise -> soft labels -> mixup; the given batch is never changed.

Shapes: b blocks, s luma samples a side, k classes of the stage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from av1part.data.serve.blocks import Batch
from av1part.data.serve.draws import NodeDraws
from av1part.defects import MIRROR_LABELS, TURN_LABELS
from av1part.options import InjectionLabels
from av1part.partition import IGNORED, SYMMETRIES, Stage, Symmetry


@lru_cache
def label_tables(defects: tuple[str, ...] = ()) -> Tensor:
    """Return the partition id after each symmetry, int64 of shape (8, 10).

    Args:
        defects: With `mirror_labels` a mirror has the map of the other mirror, with `turn_labels` a
            transpose has none.

    Returns:
        The table; rows in the order of `SYMMETRIES`.
    """
    tables = []
    for symmetry in SYMMETRIES:
        mapped = symmetry
        if MIRROR_LABELS in defects:
            mapped = Symmetry(mapped.transpose, mapped.left_right, mapped.top_bottom)
        if TURN_LABELS in defects:
            mapped = replace(mapped, transpose=False)
        tables.append(mapped.table)
    return torch.from_numpy(np.stack(tables))


_MIXUP = 1
"""Stream of mixup's random numbers; see `draws` for the others."""


@dataclass(frozen=True)
class Augmenter:
    """Augments training batches; called with a batch, returns one.

    Attributes:
        stage: Stage whose classes the labels are of.
        seed: Seed of the run.
        bit_depth: Bits a sample.
        nodes: Rows of the dataset's node table.
        context: Margin around each block, in luma samples.
        symmetries: Whether each block is transformed by one of the eight symmetries.
        noise: Standard deviation of the noise as a share of the block's own; 0 for no noise.
        mixup: Alpha of the Beta distribution of mixup's weights; 0 for no mixup.
        foreign: Labels of blocks of other stages; None if the batches have none.
        defects: The study's defects that the run has on purpose, see `label_tables`.
    """

    stage: Stage
    seed: int
    bit_depth: int
    nodes: int
    context: int = 0
    symmetries: bool = False
    noise: float = 0.0
    mixup: float = 0.0
    foreign: InjectionLabels | None = None
    defects: tuple[str, ...] = ()

    def __call__(self, batch: Batch, *, epoch: int, step: int, rank: int = 0) -> Batch:
        """Augment a batch.

        Args:
            batch: As the training loader gives it; not changed.
            epoch: Decides, with seed and node, symmetry, noise and random label.
            step: Decides, with seed and rank, the partners and weights of mixup.
            rank: Rank of this process.

        Returns:
            A new batch, or the given one where nothing is to be done; with `target` if labels are
            soft.
        """
        draws = NodeDraws(self.nodes, self.seed, epoch)
        if self.symmetries:
            batch = apply_symmetries(batch, draws.symmetries(batch["node"]), self.defects)
        if self.noise:
            limits = {"bit_depth": self.bit_depth, "context": self.context}
            batch = add_noise(batch, self.noise, draws, **limits)
        if self.foreign is not None or self.mixup:
            target = soft_labels(batch, self.stage, draws, foreign=self.foreign or "nearest")
            batch = {**batch, "target": target}
        if self.mixup:
            rng = np.random.default_rng((self.seed, step, rank, _MIXUP))
            batch = mix_up(batch, self.mixup, rng)
        return batch


def turned_positions(
    index: NDArray[np.int64], epoch: int, *, nodes: NDArray[np.int64], rows: int, seed: int
) -> NDArray[np.int64]:
    """Return the positions of blocks' features under the symmetries drawn for this epoch.

    Args:
        index: Positions in `nodes`, int64, (b,).
        epoch: Epoch of the training.
        nodes: Node numbers of all blocks, int64, (n,).
        rows: Rows of the dataset's node table.
        seed: Seed of the run.

    Returns:
        Positions in a `FeatureReader` of all eight symmetries, int64, (b,).
    """
    symmetry = NodeDraws(rows, seed, epoch).symmetries(torch.from_numpy(nodes[index]))
    positions: NDArray[np.int64] = index + len(nodes) * symmetry.numpy()
    return positions


def apply_symmetries(batch: Batch, symmetry: Tensor, defects: tuple[str, ...] = ()) -> Batch:
    """Transform each block and its partition type by a symmetry.

    Args:
        batch: As `BlockReader` gives it; not changed. If it has features instead of blocks, they
            are those of the transformed blocks already, and only the types change.
        symmetry: Index into `SYMMETRIES` for each block, int64, shape (b,).
        defects: As for `label_tables`.

    Returns:
        A new batch.
    """
    partition = label_tables(defects).to(symmetry.device)[symmetry, batch["partition"]]
    if "features" in batch:
        return {**batch, "partition": partition}
    block = batch["block"].clone()
    for index, s in enumerate(SYMMETRIES):
        chosen = symmetry == index
        x = batch["block"][chosen]
        if s.transpose:
            x = x.transpose(-2, -1)
        axes = [axis for axis, on in ((-2, s.top_bottom), (-1, s.left_right)) if on]
        block[chosen] = x.flip(axes) if axes else x
    return {**batch, "block": block, "partition": partition}


def add_noise(
    batch: Batch, share: float, draws: NodeDraws, *, bit_depth: int, context: int = 0
) -> Batch:
    """Add Gaussian noise whose deviation is a share of each block's own contrast.

    Contrast is the standard deviation of the block without its margin, so a flat block stays as
    it is. No sample moves by more than `draws.MOST_DEVIATIONS` deviations of the noise, rounded.

    Args:
        batch: Integer blocks; not changed.
        share: Standard deviation of the noise over that of the block, at least 0.
        draws: Random numbers of the epoch.
        bit_depth: Samples stay within 0 .. 2^bit_depth - 1.
        context: Margin around each block, in luma samples.

    Returns:
        A new batch; its blocks have the dtype they had.
    """
    block = batch["block"].float()
    inner = block[..., context : block.shape[-2] - context, context : block.shape[-1] - context]
    deviation = share * inner.std((-2, -1), correction=0, keepdim=True)
    noise = deviation * draws.noise(batch["node"], block[0].numel()).view_as(block)
    noisy = (block + noise).round().clamp(0, (1 << bit_depth) - 1)
    return {**batch, "block": noisy.to(batch["block"].dtype)}


def change_levels(block: Tensor, level: Tensor, bit_depth: int) -> Tensor:
    """Negate and shift the luma of blocks, without cutting anything off.

    An encoder predicts, transforms and quantises differences of samples, so that neither changes
    its cuts by much.

    Args:
        block: Integer samples, shape (b, 1, s, s); not changed.
        level: At least 0, int64, shape (b,). Bit 0: negate, x becomes 2^bit_depth - 1 - x. The
            bits above it, modulo the number of shifts that keep all samples in range: the shift.
        bit_depth: Bits a sample.

    Returns:
        Blocks of the same dtype.
    """
    most = (1 << bit_depth) - 1
    drawn = level.to(torch.int32)[:, None, None, None]
    samples = block.to(torch.int32)
    samples = torch.where(drawn & 1 == 1, most - samples, samples)
    least, greatest = (own((1, 2, 3), keepdim=True) for own in (samples.amin, samples.amax))
    shifted = samples + (drawn >> 1) % (most - (greatest - least) + 1) - least
    return shifted.to(block.dtype)


def soft_labels(
    batch: Batch, stage: Stage, draws: NodeDraws, *, foreign: InjectionLabels = "nearest"
) -> Tensor:
    """Return the soft label of each block over the classes of a stage.

    Args:
        batch: Batch with the types after the symmetries.
        stage: The stage; blocks of its own types are labelled with their class.
        draws: Random numbers of the epoch.
        foreign: Labels of all other types: `nearest` (`Stage.targets`), or `random`, any class.

    Returns:
        float32, shape (b, k), rows sum to 1.
    """
    partition = batch["partition"]
    target = torch.from_numpy(stage.targets).to(partition.device)[partition]
    if foreign == "nearest":
        return target
    classes = len(stage.classes)
    random = functional.one_hot(draws.classes(batch["node"], classes), classes)
    is_foreign = torch.from_numpy(stage.labels).to(partition.device)[partition] == IGNORED
    return torch.where(is_foreign[:, None], random.float(), target)


def mix_up(batch: Batch, alpha: float, rng: np.random.Generator) -> Batch:
    """Mix each block and its soft label with those of another block at the same qindex.

    Samples are rounded to integers. Partners share the qindex because the encoder cuts the same
    pixels differently at another one, and a mixture of two qindexes is not a qindex. A block whose
    qindex is unique in the batch is not mixed. `qindex`, `partition` and `node` stay those of the
    first block.

    Reference: Zhang et al., mixup: Beyond empirical risk minimization, ICLR 2018.

    Args:
        batch: With `target`, float, shape (b, k); not changed.
        alpha: Parameter of the Beta distribution of the first block's weight, above 0.
        rng: Generator on the host, so that draws are the same on every device.

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
