"""The superblock network as a predictor: one pass gives all sizes, large frames in tiles."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av1part.checkpoints.calibration import read_calibration
from av1part.checkpoints.load import load_stage
from av1part.evaluation.attach import CPU, Compute, device_of
from av1part.evaluation.evaluate import inference
from av1part.options import CalibrationSource
from av1part.partition import SUPERBLOCK, SUPERBLOCK_STAGE, Partition
from av1part.predictors.interface import Distributions, Domain, at_depth, whole_nodes
from av1part.stages.superblock import SuperblockStage
from av1part.system.errors import CalibrationError, CheckpointError
from av1part.system.files import expanded

log = logging.getLogger(__name__)

PASS_SIDE = 3072
"""Luma samples a side of the largest square that goes through the network at once.

A pass over as many samples, a 4K frame and more, takes some 1.1 GiB at the default width. A tile
whose margins alone would be as wide is larger: that is so from `depth` 3 on.
"""

_LEAST_TILE = 512

Slices = tuple[slice, slice]
"""Rows and columns, in luma samples."""


@dataclass(frozen=True)
class SuperblockPredictor:
    """A trained superblock network, on its own device.

    Attributes:
        module: The stage, in eval mode.
        temperatures: Node size to the temperature of its probabilities; 1 where it has none.
        precision: To compute in, a key of `AUTOCASTS`.
        pass_side: As `PASS_SIDE`; a larger frame is predicted in tiles, which overlap so far that
            each node is predicted as in the whole frame.
        name: What it is, for tables.
    """

    module: SuperblockStage
    temperatures: Mapping[int, float] = field(default_factory=dict)
    precision: str = "32-true"
    pass_side: int = PASS_SIDE
    name: str = "superblock"

    def __post_init__(self) -> None:
        """Freeze the network, so that it is folded once and not again for each frame."""
        self.module.requires_grad_(False)

    @property
    def domain(self) -> Domain:
        """See `Predictor`; sizes without a node in training are not predicted."""
        data = self.module.hparams["data"]
        types = self.module.classifier.types
        return Domain(
            sizes=self.module.sizes,
            qindexes=(min(data["qindex"]), max(data["qindex"])),
            bit_depths=(data["bit_depth"],),
            one_to_four=any(Partition.HORZ_4 in of_size for of_size in types.values()),
        )

    def predict(self, plane: NDArray[Any], bit_depth: int, qindex: int) -> Distributions:
        """See `Predictor`; samples of another bit depth are shifted to that of the network."""

        def finish(size: int, logits: Tensor) -> Tensor:
            return (logits.float() / self.temperatures.get(size, 1.0)).softmax(0)

        return self._in_passes(plane, bit_depth, qindex, self._logits, finish)

    def features(
        self, plane: NDArray[Any], bit_depth: int, qindex: int
    ) -> Mapping[int, NDArray[np.float32]]:
        """Compute what the heads see of all nodes; arguments as `predict`.

        Args:
            plane: Luma samples, integers `[h, w]`.
            bit_depth: Bits per sample.
            qindex: Base quantiser index.

        Returns:
            Size to the features of its whole nodes, `[rows, cols, c]`.
        """
        maps = self.module.classifier.maps
        return self._in_passes(plane, bit_depth, qindex, maps, lambda _, own: own.float())

    def _logits(self, block: Tensor, qindex: Tensor) -> Mapping[int, Tensor]:
        """Return the logits of all types by size, (1, 10, r, q), of a block and its qindex."""
        logits: Mapping[int, Tensor] = self.module(block, qindex)
        return logits

    def _in_passes(
        self,
        plane: NDArray[Any],
        bit_depth: int,
        qindex: int,
        compute: Callable[[Tensor, Tensor], Mapping[int, Tensor]],
        finish: Callable[[int, Tensor], Tensor],
    ) -> dict[int, NDArray[np.float32]]:
        """Compute maps of a frame, and put those of its passes together.

        Args:
            plane: Luma samples, integers `[h, w]`.
            bit_depth: Bits per sample.
            qindex: Base quantiser index.
            compute: From a block and its qindex to maps by size, (1, k, r, q).
            finish: From a size and a part of its map, (k, r, q), to what is kept of it.

        Returns:
            Size to what is kept of its whole nodes, float32 `[rows, cols, k]`.
        """
        scaled = torch.from_numpy(
            at_depth(plane, bit_depth, self.module.hparams["data"]["bit_depth"])
        )
        index = torch.tensor([qindex], device=self.module.device)
        found: dict[int, NDArray[np.float32]] = {}
        for shown, kept in self._tiles(plane.shape):
            # A copy: a frame may be a read-only map.
            block = scaled[shown].clone()[None, None].to(self.module.device)
            with inference(self.module.device, self.precision):
                maps = compute(block, index)
            for size in self.domain.sizes:
                rows, cols = whole_nodes(plane.shape, size)
                if rows and cols:
                    whole = (rows, cols, maps[size].shape[1])
                    own = found.setdefault(size, np.zeros(whole, np.float32))
                    _keep(own, maps[size][0], shown, kept, partial(finish, size), size)
        return found

    def _tiles(self, shape: tuple[int, ...]) -> Iterator[tuple[Slices, Slices]]:
        """Cut a frame; yield the samples to show the network, and those whose nodes are kept."""
        height, width = shape
        if height * width <= self.pass_side**2:
            whole = slice(0, height), slice(0, width)
            yield whole, whole
            return
        halo = -(-self.module.classifier.reach // SUPERBLOCK) * SUPERBLOCK
        step = max(_LEAST_TILE, (self.pass_side - 2 * halo) // SUPERBLOCK * SUPERBLOCK)
        for top in range(0, height, step):
            for left in range(0, width, step):
                kept = slice(top, min(top + step, height)), slice(left, min(left + step, width))
                yield (_widened(kept[0], halo, height), _widened(kept[1], halo, width)), kept


def _widened(part: slice, halo: int, length: int) -> slice:
    return slice(max(0, part.start - halo), min(part.stop + halo, length))


def _keep(
    whole: NDArray[np.float32],
    values: Tensor,
    shown: Slices,
    kept: Slices,
    finish: Callable[[Tensor], Tensor],
    size: int,
) -> None:
    """Fill in the whole nodes of a tile, [rows, cols, k], from its map, (k, r, q)."""
    places, own = [], []
    for axis in (0, 1):
        first = kept[axis].start // size
        last = min(-(-kept[axis].stop // size), whole.shape[axis])
        places.append(slice(first, last))
        skipped = shown[axis].start // size
        own.append(slice(first - skipped, last - skipped))
    part = finish(values[:, own[0], own[1]]).permute(1, 2, 0)
    whole[places[0], places[1]] = part.cpu().numpy()


def load_superblock(
    path: str | Path, *, calibration: CalibrationSource = "auto", compute: Compute = CPU
) -> SuperblockPredictor:
    """Load the predictor from a checkpoint.

    Args:
        path: The checkpoint.
        calibration: `stored` beside it; `auto`, stored if there is one; `none`.
        compute: Device and precision.

    Returns:
        The predictor.

    Raises:
        CheckpointError: if the file is refused, or is of another stage.
        CalibrationError: if no calibration is stored, with `stored`.
    """
    path = expanded(path)
    module = load_stage(path, stage=SUPERBLOCK_STAGE)
    if not isinstance(module, SuperblockStage):
        raise CheckpointError(f"checkpoint {path} is not of {SUPERBLOCK_STAGE}")
    return SuperblockPredictor(
        module.to(device_of(compute.device)),
        _temperatures(path, calibration),
        precision=compute.precision,
    )


def _temperatures(path: Path, calibration: CalibrationSource) -> dict[int, float]:
    """Return the stored temperature of each size; none where there is no calibration.

    Raises:
        CalibrationError: if it is asked for and not there.
    """
    stored = read_calibration(path) if calibration != "none" else None
    if stored is not None and stored.by_size is not None:
        return {int(size): value.fitted for size, value in stored.by_size.items()}
    if calibration == "stored":
        raise CalibrationError(
            f"no calibration of each node size is stored beside {path}: av1part calibrate {path} "
            "makes one"
        )
    if calibration == "auto":
        log.warning("no calibration is stored beside %s: probabilities are raw", path)
    return {}
