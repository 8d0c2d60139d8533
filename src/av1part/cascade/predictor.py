"""The cascade as one calibrated predictor: blocks in, distributions and partition types out.

    checkpoints + stored choices -> CascadePredictor -> distribution over AV1 types, or one type

Probabilities, joining and routing are those of `av1part pipeline` (`ensembles`, `routing`).

Shapes: n blocks, s luma samples a side, m members of a stage, k its classes, t types.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from av1part.cascade.choices import Choices
from av1part.cascade.ensembles import join, member_probabilities, stage_probabilities
from av1part.cascade.members import Checkpoints, Members, load_members
from av1part.cascade.routing import decide, descend, flat_distribution
from av1part.cascade.stored import read_calibrations
from av1part.evaluation.attach import CPU, Compute, device_of
from av1part.evaluation.evaluate import inference
from av1part.evaluation.trunk import SharedBlocks, SharedTrunk
from av1part.options import Ensemble
from av1part.partition import Stage


class CascadePredictor:
    """A cascade of trained stages with its threshold and temperatures.

    It joins and routes by the functions that `pipeline` evaluates, so its predictions are those
    that `pipeline` scores with the same choices: on a split on which they were not fitted, since
    on val `pipeline` applies cross-fitted ones. `taxonomy.partitions` are the columns of a
    distribution, `choices` the threshold and temperatures.
    """

    def __init__(
        self,
        members: Members,
        choices: Choices | None = None,
        *,
        ensemble: Ensemble = "mean",
        precision: str = "32-true",
        batch_size: int = 2048,
    ) -> None:
        """Freeze the stages and compare what they share.

        Args:
            members: Stage name to its modules, as `load_members` returns them, on one device.
            choices: Threshold and temperatures; None is threshold 0.5 and temperatures 1.
            ensemble: `mean` of the members' probabilities or `vote`.
            precision: To compute in, a key of `AUTOCASTS`.
            batch_size: Blocks at a time.
        """
        modules = [module for stage in members.values() for module in stage]
        for module in modules:  # frozen layers are folded once, not in each call
            module.eval().requires_grad_(False)
        self.taxonomy = modules[0].taxonomy
        self.choices = Choices.neutral(members) if choices is None else choices
        self.members = members
        self.ensemble = ensemble
        self._device = modules[0].device
        self._precision = precision
        self.batch_size = batch_size
        data = modules[0].hparams["data"]
        self.size, self.context = int(data["size"]), int(data["context"])
        self.bit_depth = int(data["bit_depth"])
        trained = data.get("qindex") or [0, 255]
        self.qindexes = int(min(trained)), int(max(trained))
        self._trunk = SharedTrunk([module.classifier for module in modules])
        index = iter(range(len(modules)))
        self._indices = {name: [next(index) for _ in stage] for name, stage in members.items()}

    @classmethod
    def load(
        cls,
        checkpoints: Checkpoints,
        *,
        calibrated: bool = True,
        ensemble: Ensemble = "mean",
        compute: Compute = CPU,
        batch_size: int = 2048,
    ) -> CascadePredictor:
        """Load the stages from checkpoints, with the calibration stored beside them.

        Args:
            checkpoints: Stage name to the files of its ensemble.
            calibrated: Whether to use the stored choices; else threshold 0.5, temperatures 1.
            ensemble: `mean` of the members' probabilities or `vote`.
            compute: Device and precision.
            batch_size: Blocks at a time.

        Returns:
            The predictor.

        Raises:
            CheckpointError: as `load_members`, or if a stored calibration is damaged.
            CalibrationError: if a calibration is missing, or was fitted for other files or another
                rule of the ensemble.
            ConfigError: if there is no such device.
        """
        device = device_of(compute.device)
        members = load_members(checkpoints)
        choices = None
        if calibrated:
            files = {stage: checkpoints[stage] for stage in members}
            choices = read_calibrations(files, next(iter(members)), ensemble).fitted
        for stage in members.values():
            for module in stage:
                module.to(device)
        return cls(
            members,
            choices,
            ensemble=ensemble,
            precision=compute.precision,
            batch_size=batch_size,
        )

    def distribution(self, block: Tensor, qindex: Tensor) -> NDArray[np.float64]:
        """Compute the probability of each type, from every stage for every block.

        Args:
            block: Integer samples, shape (n, 1, s, s), context included.
            qindex: Base quantiser index, int64 0..255, shape (n,).

        Returns:
            Float64 of shape (n, t), types in the order of `taxonomy.partitions`; rows sum to 1.
        """
        tree = self.taxonomy
        probabilities = np.empty((len(block), len(tree.partitions)))
        with inference(self._device, self._precision):
            for rows, blocks in self._batches(block, qindex):
                logits = {s.name: self._logits(s.name, blocks) for s in tree.stages}
                temperatures = self.choices.temperatures
                stages = stage_probabilities(tree, logits, temperatures, self.ensemble)
                probabilities[rows] = flat_distribution(tree, stages.mean)
        return probabilities

    def predict(self, block: Tensor, qindex: Tensor) -> NDArray[np.int64]:
        """Predict one type for each block, each stage computed only for the blocks that reach it.

        Args:
            block: Integer samples, shape (n, 1, s, s), context included.
            qindex: Base quantiser index, int64 0..255, shape (n,).

        Returns:
            AV1 ids by hard routing, int64 of shape (n,). Logits may differ in their last bits with
            the number of blocks that a stage is computed for.
        """
        prediction = np.empty(len(block), dtype=np.int64)
        with inference(self._device, self._precision):
            for rows, blocks in self._batches(block, qindex):
                prediction[rows] = self._route(blocks)
        return prediction

    def _route(self, blocks: SharedBlocks) -> NDArray[np.int64]:
        # Blocks and their numbers by stage: a stage selects from those of the stage above it,
        # with the features that they share.
        selected: dict[str, tuple[SharedBlocks, NDArray[np.int64]]] = {}

        def decision(stage: Stage, reached: NDArray[np.int64]) -> NDArray[np.int64]:
            here = blocks
            parent = self.taxonomy.parent(stage)
            if parent is not None:
                upper, numbers = selected[parent[0].name]
                rows = np.searchsorted(numbers, reached)
                here = upper.select(from_numpy(rows).to(self._device))
            selected[stage.name] = (here, reached)
            logits = self._logits(stage.name, here)
            members = member_probabilities(logits, self.choices.temperatures[stage.name])
            scores = join(self.taxonomy, stage, members, self.ensemble)
            return decide(self.taxonomy, stage, scores, self.choices.threshold)

        return descend(self.taxonomy, len(blocks.qindex), decision).prediction

    def _batches(self, block: Tensor, qindex: Tensor) -> Iterator[tuple[slice, SharedBlocks]]:
        for start in range(0, len(block), self.batch_size):
            rows = slice(start, start + self.batch_size)
            here = (tensor[rows].to(self._device) for tensor in (block, qindex))
            yield rows, self._trunk.blocks(*here)

    def _logits(self, stage: str, blocks: SharedBlocks) -> NDArray[np.float32]:
        """Return the logits of a stage's members, float32 of shape (m, n, k)."""
        members = (blocks.logits(index) for index in self._indices[stage])
        return np.stack([logits.float().cpu().numpy() for logits in members])
