"""Blocks cut on the device: the planes lie there whole, and only node numbers travel."""

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
    """The blocks of a reader by their positions: a batch has `position` instead of `block`."""

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
    """The planes of a store, and where the nodes of a reader lie, in a device's memory.

    Takes the memory of all planes and 40 bytes a node.
    """

    def __init__(
        self, reader: BlockReader, device: torch.device, other: DeviceBlocks | None = None
    ) -> None:
        """Copy what is needed to the device.

        Args:
            reader: Whose blocks.
            device: Where they will be cut.
            other: Of another split of the same store, whose planes are there already.
        """
        self.reach = torch.arange(-reader.context, reader.size + reader.context, device=device)
        planes = [reader.store.plane(name) for name in reader.store.sequences]
        starts = np.cumsum([0, *(plane.size for plane in planes)])
        shapes = np.array([plane.shape for plane in planes])
        self.samples: Tensor = _flat(planes, reader, device) if other is None else other.samples
        sequences, frames, rows, cols = reader.places()
        height, width = shapes[sequences, 1], shapes[sequences, 2]
        base = starts[sequences] + frames.astype(np.int64) * height * width
        self.base, self.width, self.height, self.row, self.col = (
            torch.from_numpy(np.ascontiguousarray(x, dtype=np.int64)).to(device)
            for x in (base, width, height, rows, cols)
        )

    def __call__(self, position: Tensor) -> Tensor:
        """Cut blocks; a margin over the frame's edge repeats the edge.

        Args:
            position: Positions in the reader, int64 (b,), on the device.

        Returns:
            As `BlockReader` gives them, (b, 1, s, s), on the device.
        """
        base, width, height = (x[position] for x in (self.base, self.width, self.height))
        rows = (self.row[position, None] + self.reach).clamp_min(0)
        cols = (self.col[position, None] + self.reach).clamp_min(0)
        rows = torch.minimum(rows, height[:, None] - 1)
        cols = torch.minimum(cols, width[:, None] - 1)
        places = (base[:, None] + rows * width[:, None])[:, :, None] + cols[:, None, :]
        return self.samples[places][:, None]


def _flat(planes: Sequence[NDArray[Any]], reader: BlockReader, device: torch.device) -> Tensor:
    """Return the samples of all planes one after the other, (n,)."""
    # Copies, since a tensor cannot be of a map that is read-only.
    flat = (torch.from_numpy(plane.reshape(-1).astype(reader.dtype)) for plane in planes)
    return torch.cat([samples.to(device) for samples in flat])
