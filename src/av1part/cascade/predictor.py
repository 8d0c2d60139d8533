"""A cascade as an encoder would run it: each stage asked only about the blocks that reach it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from av1part.evaluation.trunk import SharedBlocks, SharedTrunk
from av1part.models.precision import computing_in
from av1part.partition import IGNORED
from av1part.stages.base import StageModule


class CascadePredictor:
    """A cascade that says how a block is cut, each stage asked only about what reaches it.

    Where `pipeline` asks every stage about every node, to analyse what each costs, this is what an
    encoder would run: Stage 1 on all blocks, Stage 2 on those to be cut, Stage 3 by route.
    """

    def __init__(
        self,
        members: Mapping[str, Sequence[StageModule]],
        *,
        threshold: float = 0.5,
        precision: str = "32-true",
        batch_size: int = 2048,
    ) -> None:
        """Take the stages.

        Args:
            members: Stage name to its ensemble, as `pipeline.load_members` returns it, on one
                device. Several answer by the mean of their probabilities.
            threshold: Of Stage 1's second class, a probability.
            precision: To compute in, a key of `AUTOCASTS`.
            batch_size: Blocks at a time.
        """
        self.members = members
        # Frozen, so that their layers are folded once and not in each call.
        self.modules = [m.eval().requires_grad_(False) for each in members.values() for m in each]
        self.taxonomy = self.modules[0].taxonomy
        self.device = self.modules[0].device
        self.threshold = threshold
        self.precision = precision
        self.batch_size = batch_size
        self.trunk = SharedTrunk([module.classifier for module in self.modules])
        self._index = {id(module): i for i, module in enumerate(self.modules)}

    def __call__(self, block: Tensor, qindex: Tensor) -> Tensor:
        """Predict partition types.

        Args:
            block: Integer samples, shape (n, 1, s, s), context included.
            qindex: int64 0..255, shape (n,).

        Returns:
            AV1 ids, int64, shape (n,), on the CPU.
        """
        prediction = torch.empty(len(block), dtype=torch.int64)
        with torch.inference_mode(), computing_in(self.precision, self.device):
            for start in range(0, len(block), self.batch_size):
                here = slice(start, start + self.batch_size)
                part = (block[here].to(self.device), qindex[here].to(self.device))
                prediction[here] = self._predict(*part).cpu()
        return prediction

    def _predict(self, block: Tensor, qindex: Tensor) -> Tensor:
        prediction = torch.full((len(block),), IGNORED, device=self.device)
        every = torch.arange(len(block), device=self.device)
        waiting = [(self.taxonomy.root, self.trunk.blocks(block), every)]
        while waiting:
            stage, blocks, at = waiting.pop()
            answer = self._decide(stage.name, blocks, qindex[at])
            for index, name in enumerate(stage.class_names):
                here = (answer == index).nonzero()[:, 0]
                child = self.taxonomy.child(stage, name)
                if child is None:
                    prediction[at[here]] = int(stage.partitions[index])
                elif len(here):
                    waiting.append((child, blocks.select(here), at[here]))
        return prediction

    def _decide(self, stage: str, blocks: SharedBlocks, qindex: Tensor) -> Tensor:
        probabilities = torch.stack(list(self._ask(stage, blocks, qindex))).mean(0)
        if stage == self.taxonomy.root.name:
            return (probabilities[:, 1] > self.threshold).long()
        return probabilities.argmax(1)

    def _ask(self, stage: str, blocks: SharedBlocks, qindex: Tensor) -> Iterator[Tensor]:
        for module in self.members[stage]:
            yield blocks.logits(self._index[id(module)], qindex).float().softmax(1)
