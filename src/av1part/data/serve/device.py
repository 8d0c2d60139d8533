"""Blocks cut on the device: all planes are in its memory, a batch brings positions only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from av1part.data.serve.blocks import Batch, BlockReader


class NodeReader(Dataset[Batch]):
    """The labels of a reader's blocks; a batch has `position` instead of `block`."""

    def __init__(self, reader: BlockReader) -> None:
        """Serve the nodes of a reader."""
        self.reader = reader

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.reader)

    def __getitem__(self, index: NDArray[np.int64]) -> Batch:
        """Gather a batch; see `BlockReader`."""
        return {"position": torch.from_numpy(index), **self.reader.labels(index)}


class DeviceBlocks:
    """The planes of a store and the places of a reader's nodes, in a device's memory.

    Needs the memory of all planes and 40 bytes per node.
    """

    def __init__(
        self, reader: BlockReader, device: torch.device, shared: DeviceBlocks | None = None
    ) -> None:
        """Copy planes and places to the device.

        Args:
            reader: The blocks to cut.
            device: The device.
            shared: Blocks of another split of the same store, whose copy of the planes is used.
        """
        self.offsets = torch.arange(-reader.context, reader.size + reader.context, device=device)
        planes = [reader.store.plane(name) for name in reader.store.sequences]
        starts = np.cumsum([0, *(plane.size for plane in planes)])
        shapes = np.array([plane.shape for plane in planes])
        self.samples: Tensor = _flat(planes, reader, device) if shared is None else shared.samples
        sequences, frames, rows, cols = reader.places()
        height, width = shapes[sequences, 1], shapes[sequences, 2]
        base = starts[sequences] + frames.astype(np.int64) * height * width
        self.base, self.width, self.height, self.row, self.col = (
            torch.from_numpy(np.ascontiguousarray(x, dtype=np.int64)).to(device)
            for x in (base, width, height, rows, cols)
        )

    def __call__(self, position: Tensor) -> Tensor:
        """Cut the blocks at positions in the reader, int64 (b,), on the device.

        A margin beyond the frame repeats its edge; the blocks, (b, 1, s, s), are the same as
        `BlockReader`'s.
        """
        base, width, height = (x[position] for x in (self.base, self.width, self.height))
        rows = (self.row[position, None] + self.offsets).clamp_min(0)
        cols = (self.col[position, None] + self.offsets).clamp_min(0)
        rows = torch.minimum(rows, height[:, None] - 1)
        cols = torch.minimum(cols, width[:, None] - 1)
        places = (base[:, None] + rows * width[:, None])[:, :, None] + cols[:, None, :]
        return self.samples[places][:, None]


def _flat(planes: Sequence[NDArray[Any]], reader: BlockReader, device: torch.device) -> Tensor:
    """Concatenate the samples of all planes, (n,)."""
    # Copies: a tensor cannot share a read-only map.
    flat = (torch.from_numpy(plane.reshape(-1).astype(reader.dtype)) for plane in planes)
    return torch.cat([samples.to(device) for samples in flat])
