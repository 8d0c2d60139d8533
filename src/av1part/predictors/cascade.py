"""Trained cascades as one predictor: a cascade a node size."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from av1part.cascade.members import Checkpoints
from av1part.cascade.predictor import CascadePredictor
from av1part.checkpoints.load import read_checkpoint
from av1part.evaluation.attach import CPU, Compute
from av1part.options import CalibrationSource, Ensemble
from av1part.partition import SIZES, Partition
from av1part.predictors.interface import TYPES, Distributions, Domain, at_depth, whole_nodes
from av1part.runs.schema import calibration_path
from av1part.system.errors import CheckpointError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cascades:
    """One cascade for each node size that is predicted, on its own device."""

    domain: Domain
    by_size: Mapping[int, CascadePredictor]
    name: str = "cascade"

    @classmethod
    def of(cls, predictors: list[CascadePredictor]) -> Cascades:
        """Join cascades of several sizes.

        Args:
            predictors: One or more, each of another size.

        Returns:
            The predictor; its domain is what the stages were trained on.

        Raises:
            CheckpointError: if two are of one size, or were trained on other bit depths, types or
                qindexes.
        """
        by_size: dict[int, CascadePredictor] = {}
        for predictor in predictors:
            if by_size.setdefault(predictor.size, predictor) is not predictor:
                raise CheckpointError(f"two cascades are of size {predictor.size}: give one a size")
        depths = {predictor.bit_depth for predictor in predictors}
        if len(depths) > 1:
            raise CheckpointError(f"the cascades are of {sorted(depths)} bits a sample: give one")
        # No 8x8 node has a 1:4 type.
        knows = {size: Partition.HORZ_4 in p.taxonomy.partitions for size, p in by_size.items()}
        if len({knows[size] for size in by_size if size > min(SIZES)}) > 1:
            raise CheckpointError(
                "only some of the cascades know HORZ_4 and VERT_4: give all of one taxonomy"
            )
        ranges = [predictor.qindexes for predictor in predictors]
        low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
        if low > high:
            raise CheckpointError(
                "there is no qindex that all cascades were trained on: give cascades of one dataset"
            )
        domain = Domain(
            sizes=tuple(sorted(by_size)),
            qindexes=(low, high),
            bit_depths=tuple(depths),
            one_to_four=any(knows.values()),
        )
        return cls(domain, dict(sorted(by_size.items())))

    def predict(self, plane: NDArray[Any], bit_depth: int, qindex: int) -> Distributions:
        """See `Predictor`; samples of another bit depth are shifted to that of the networks."""
        found = {}
        for size, predictor in self.by_size.items():
            rows, cols = whole_nodes(plane.shape, size)
            if rows and cols:
                scaled = at_depth(plane, bit_depth, predictor.bit_depth)
                found[size] = _predict(predictor, scaled, rows, cols, qindex)
        return found


def load_cascades(
    checkpoints: Checkpoints,
    *,
    calibration: CalibrationSource = "auto",
    ensemble: Ensemble = "mean",
    compute: Compute = CPU,
) -> Cascades:
    """Load the cascades of one or several sizes from their checkpoints.

    Args:
        checkpoints: Stage name to files; those of one size are one cascade, with ensembles.
        calibration: `stored` beside the checkpoints; `auto`, stored if there is one; `none`.
        ensemble: `mean` of the members' probabilities or `vote`.
        compute: Device and precision.

    Returns:
        The predictor.

    Raises:
        CheckpointError: if a file is refused, or the stages of a size do not fit together.
        CalibrationError: if a calibration is missing with `stored`, or of other files.
    """
    by_size: dict[int, dict[str, list[Path]]] = {}
    for stage, paths in checkpoints.items():
        for path in paths:
            size = int(read_checkpoint(path)["hyper_parameters"]["data"]["size"])
            by_size.setdefault(size, {}).setdefault(stage, []).append(path)
    predictors = []
    for files in by_size.values():
        has_any = any(
            calibration_path(path).is_file() for paths in files.values() for path in paths
        )
        if calibration == "auto" and not has_any:
            log.warning("no calibration is stored beside the checkpoints: probabilities are raw")
        calibrated = calibration == "stored" or (calibration == "auto" and has_any)
        predictors.append(
            CascadePredictor.load(files, calibrated=calibrated, ensemble=ensemble, compute=compute)
        )
    return Cascades.of(predictors)


def _predict(
    predictor: CascadePredictor, plane: NDArray[Any], rows: int, cols: int, qindex: int
) -> NDArray[np.float32]:
    """Predict the nodes of one size, a few rows of nodes at a time."""
    probabilities = np.zeros((rows * cols, TYPES), np.float32)
    columns = [int(type_) for type_ in predictor.taxonomy.partitions]
    for part, blocks in _blocks(plane, predictor, rows, cols):
        index = torch.full((len(blocks),), qindex, dtype=torch.int64)
        distribution = predictor.distribution(torch.from_numpy(blocks)[:, None], index)
        probabilities[part.start : part.stop, columns] = distribution
    return probabilities.reshape(rows, cols, TYPES)


def _blocks(
    plane: NDArray[Any], predictor: CascadePredictor, rows: int, cols: int
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Cut the blocks of all nodes, with their context, a batch at a time.

    A margin that leaves the frame repeats its edge, as in training (`BlockReader`).
    """
    size, context = predictor.size, predictor.context
    padded = np.pad(plane, context, mode="edge")
    side = size + 2 * context
    nodes = sliding_window_view(padded, (side, side))[::size, ::size][:rows, :cols]
    step = max(1, predictor.batch_size // cols)
    for row in range(0, rows, step):
        batch = np.ascontiguousarray(nodes[row : row + step].reshape(-1, side, side))
        yield slice(row * cols, row * cols + len(batch)), batch
