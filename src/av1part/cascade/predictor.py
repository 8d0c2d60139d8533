"""A calibrated cascade that answers about any blocks, as an encoder would ask it.

    checkpoints + stored choices -> CascadePredictor -> distribution over AV1 types, or one type

Probabilities, routing and products are those of `av1part pipeline` (`routing`, `ensembles`).

Shapes: n blocks, s luma samples a side, m members of a stage, k its classes, t types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av1part.cascade.choices import Choices
from av1part.cascade.ensembles import join
from av1part.cascade.routing import flat_distribution, route_by, tempered
from av1part.cascade.run import load_members
from av1part.cascade.stored import fitted_choices
from av1part.evaluation.trunk import SharedBlocks, SharedTrunk
from av1part.models.precision import computing_in
from av1part.options import Ensemble
from av1part.partition import Stage
from av1part.stages.base import StageModule


class CascadePredictor:
    """A cascade with its calibration; `taxonomy.partitions` are the columns of a distribution."""

    def __init__(
        self,
        members: Mapping[str, Sequence[StageModule]],
        choices: Choices,
        *,
        ensemble: Ensemble = "mean",
        precision: str = "32-true",
        batch_size: int = 2048,
    ) -> None:
        """Take the stages.

        Args:
            members: Stage name to its ensemble, as `load_members` returns it, on one device.
            choices: Threshold and temperatures, see `Choices.without_fit` for none.
            ensemble: How the members of a stage are joined for a decision.
            precision: To compute in, a key of `AUTOCASTS`.
            batch_size: Blocks at a time.
        """
        self.members = members
        # Frozen, so that their layers are folded once and not in each call.
        modules = [m.eval().requires_grad_(False) for ms in members.values() for m in ms]
        self.taxonomy = modules[0].taxonomy
        self.choices = choices
        self._device = modules[0].device
        self._ensemble = ensemble
        self._precision = precision
        self._batch_size = batch_size
        self._trunk = SharedTrunk([module.classifier for module in modules])
        self._index = {id(module): i for i, module in enumerate(modules)}

    @classmethod
    def load(
        cls,
        checkpoints: Mapping[str, Sequence[Path]],
        *,
        calibrated: bool = True,
        ensemble: Ensemble = "mean",
        device: torch.device | str = "cpu",
        precision: str = "32-true",
        batch_size: int = 2048,
    ) -> CascadePredictor:
        """Load a cascade with the choices that `av1part calibrate` stored beside its checkpoints.

        Args:
            checkpoints: Stage name to the files of its ensemble.
            calibrated: Whether to use the stored choices; else threshold 0.5, temperatures 1.
            ensemble: How the members of a stage are joined for a decision.
            device: Where to run.
            precision: To compute in, a key of `AUTOCASTS`.
            batch_size: Blocks at a time.

        Returns:
            The predictor.

        Raises:
            CheckpointError: if a file is refused or the stages do not belong together.
            CalibrationError: if a checkpoint has no stored choices, or those of another cascade.
        """
        members = load_members(checkpoints)
        paths = {stage: checkpoints[stage] for stage in members}
        root = next(iter(members))
        if calibrated:
            choices = fitted_choices(paths, root, ensemble)
        else:
            choices = Choices.without_fit({stage: len(files) for stage, files in paths.items()})
        placed = {stage: [m.to(device) for m in modules] for stage, modules in members.items()}
        options = {"precision": precision, "batch_size": batch_size}
        return cls(placed, choices, ensemble=ensemble, **options)  # type: ignore[arg-type]

    def distribution(self, block: Tensor, qindex: Tensor) -> NDArray[np.float64]:
        """Return the probability of each AV1 type; every stage is asked about every block.

        Args:
            block: Integer samples, shape (n, 1, s, s), context included.
            qindex: int64 0..255, shape (n,).

        Returns:
            Shape (n, t), types in the order of `taxonomy.partitions`; rows sum to 1.
        """
        parts = [
            flat_distribution(
                self.taxonomy,
                {s.name: self._ask(s, blocks, q).mean(0) for s in self.taxonomy.stages},
            )
            for blocks, q in self._batches(block, qindex)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.taxonomy.partitions)))

    def predict(self, block: Tensor, qindex: Tensor) -> NDArray[np.int64]:
        """Decide one type for each block; a stage is asked about the blocks that reach it alone.

        Args:
            block: Integer samples, shape (n, 1, s, s), context included.
            qindex: int64 0..255, shape (n,).

        Returns:
            AV1 ids, shape (n,).
        """
        parts = [self._route(blocks, q) for blocks, q in self._batches(block, qindex)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _batches(self, block: Tensor, qindex: Tensor) -> Iterator[tuple[SharedBlocks, Tensor]]:
        with torch.inference_mode(), computing_in(self._precision, self._device):
            for start in range(0, len(block), self._batch_size):
                here = slice(start, start + self._batch_size)
                blocks = self._trunk.blocks(block[here].to(self._device))
                yield blocks, qindex[here].to(self._device)

    def _route(self, blocks: SharedBlocks, qindex: Tensor) -> NDArray[np.int64]:
        n = len(qindex)
        # Those asked so far, the widest first; features of a parent's blocks serve its children.
        known = [(np.ones(n, dtype=bool), blocks)]

        def ask(stage: Stage, here: NDArray[np.bool_]) -> NDArray[np.float64]:
            mask, parent = next(pair for pair in reversed(known) if not (here & ~pair[0]).any())
            inside = torch.from_numpy(np.flatnonzero(here[mask])).to(self._device)
            chosen = parent.select(inside)
            known.append((here, chosen))
            at = torch.from_numpy(np.flatnonzero(here)).to(self._device)
            probabilities = self._ask(stage, chosen, qindex[at])
            scores = np.zeros((n, len(stage.class_names)))
            scores[here] = join(self.taxonomy, stage, probabilities, self._ensemble)
            return scores

        return route_by(self.taxonomy, n, ask, self.choices.threshold).prediction

    def _ask(self, stage: Stage, blocks: SharedBlocks, qindex: Tensor) -> NDArray[np.float64]:
        """Return the members' probabilities, shape (m, n, k)."""
        logits = [
            blocks.logits(self._index[id(module)], qindex).float().cpu().numpy()
            for module in self.members[stage.name]
        ]
        return tempered(logits, self.choices.temperatures[stage.name])
