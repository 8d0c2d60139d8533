"""A dataset of any length: the blocks of a store, drawn with replacement."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torchvision

from av1part.data.serve.datamodule import BlockDataModule
from av1part.training import build as training


def prepare(folder: Path, counts: Mapping[str, int]) -> type[BlockDataModule]:
    """Have `av1part train` in this process run in a folder, on so many blocks.

    Args:
        folder: To work in; gets `start.pt`, weights to start from.
        counts: See `resampled`.

    Returns:
        The data module that it will use.
    """
    os.chdir(folder)
    torch.save(torchvision.models.resnet18().state_dict(), "start.pt")
    found = resampled(counts)
    training.BlockDataModule = found  # type: ignore[misc]
    return found


def resampled(counts: Mapping[str, int]) -> type[BlockDataModule]:
    """Make a data module whose splits have as many blocks as asked for.

    Args:
        counts: Blocks of each split that is to be drawn; others stay as they are.

    Returns:
        The class, to be used as `BlockDataModule` is.
    """

    class Resampled(BlockDataModule):
        """Splits of given lengths."""

        def setup(self, stage: str | None = None) -> None:
            """Draw the blocks once."""
            if self.readers:
                return
            super().setup(stage)
            rng = np.random.default_rng(0)
            for split, count in counts.items():
                nodes = self.readers[split].nodes
                self.readers[split] = self._reader(np.sort(rng.choice(nodes, count)))

    return Resampled
