"""Blocks cut on the device: all planes are in its memory, a batch brings positions only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from av1part.data.serve.augment import change_levels
from av1part.data.serve.blocks import Batch, BlockReader
from av1part.data.serve.crops import CropReader
from av1part.partition import SYMMETRIES


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
        self.samples: Tensor = (
            _flat(planes, reader.dtype, device) if shared is None else shared.samples
        )
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


class DeviceCrops:
    """The planes of a store in a device's memory, to cut a reader's crops there."""

    def __init__(self, reader: CropReader, device: torch.device) -> None:
        """Copy the planes to the device.

        Args:
            reader: The crops to cut, all of one side.
            device: The device.
        """
        assert reader.side is not None
        views, store = reader.views, reader.views.store
        planes = [store.plane(name) for name in store.sequences]
        starts = np.cumsum([0, *(plane.size for plane in planes)])
        self.samples: Tensor = _flat(planes, reader.dtype, device)
        base = starts[views.sequence] + views.frame * views.height * views.width
        self.base, self.width, self.top, self.bottom = (
            torch.from_numpy(np.ascontiguousarray(x, dtype=np.int64)).to(device)
            for x in (base, views.width, views.top, views.bottom)
        )
        self.bit_depth, self.levels = reader.bit_depth, reader.levels
        self.offsets = torch.arange(reader.side, device=device)
        flags = [(s.transpose, s.top_bottom, s.left_right) for s in SYMMETRIES]
        self.flags = torch.tensor(flags, device=device)

    def __call__(self, position: Tensor) -> Tensor:
        """Cut crops by their places, int64 (b, `PLACE`), on the device.

        The crops, (b, 1, s, s), are the same as `CropReader`'s.
        """
        view, row, col, turned, level = position.unbind(1)
        base, width, top, bottom = (
            x[view, None] for x in (self.base, self.width, self.top, self.bottom)
        )
        rows = torch.minimum(torch.maximum(row[:, None] + self.offsets, top), bottom - 1) * width
        cols = torch.minimum(col[:, None] + self.offsets, width - 1)
        transpose, top_bottom, left_right = (flag[:, None] for flag in self.flags[turned].T)
        first, second = torch.where(transpose, cols, rows), torch.where(transpose, rows, cols)
        first = torch.where(top_bottom, first.flip(1), first) + base
        second = torch.where(left_right, second.flip(1), second)
        crops = self.samples[first[:, :, None] + second[:, None, :]][:, None]
        return change_levels(crops, level, self.bit_depth) if self.levels else crops


def _flat(planes: Sequence[NDArray[Any]], dtype: np.dtype[Any], device: torch.device) -> Tensor:
    """Concatenate the samples of all planes, (n,)."""
    # Copies: a tensor cannot share a read-only map.
    flat = (torch.from_numpy(plane.reshape(-1).astype(dtype)) for plane in planes)
    return torch.cat([samples.to(device) for samples in flat])
