"""The superblock network as a predictor: one pass gives all sizes, large frames in tiles."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from av1part.checkpoints.calibration import read_calibration
from av1part.checkpoints.load import load_stage
from av1part.evaluation.attach import CPU, Compute, device_of
from av1part.evaluation.evaluate import inference
from av1part.options import CalibrationSource
from av1part.partition import SUPERBLOCK, SUPERBLOCK_STAGE, Partition
from av1part.predictors.interface import TYPES, Distributions, Domain, at_depth, whole_nodes
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
        scaled = torch.from_numpy(
            at_depth(plane, bit_depth, self.module.hparams["data"]["bit_depth"])
        )
        index = torch.tensor([qindex], device=self.module.device)
        found = {}
        for size in self.module.sizes:
            rows, cols = whole_nodes(plane.shape, size)
            if rows and cols:
                found[size] = np.zeros((rows, cols, TYPES), np.float32)
        for shown, kept in self._tiles(plane.shape):
            # A copy: a frame may be a read-only map.
            block = scaled[shown].clone()[None, None].to(self.module.device)
            with inference(self.module.device, self.precision):
                logits = self.module(block, index)
            for size, probabilities in found.items():
                scaled_logits = logits[size][0].float() / self.temperatures.get(size, 1.0)
                _keep(probabilities, scaled_logits, size, shown, kept)
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
    probabilities: NDArray[np.float32],
    logits: torch.Tensor,
    size: int,
    shown: Slices,
    kept: Slices,
) -> None:
    """Fill in the whole nodes of a tile, [rows, cols, 10], from its logits, (10, r, q)."""
    places, own = [], []
    for axis in (0, 1):
        first = kept[axis].start // size
        last = min(-(-kept[axis].stop // size), probabilities.shape[axis])
        places.append(slice(first, last))
        skipped = shown[axis].start // size
        own.append(slice(first - skipped, last - skipped))
    distribution = logits[:, own[0], own[1]].softmax(0).permute(1, 2, 0)
    probabilities[places[0], places[1]] = distribution.cpu().numpy()


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
