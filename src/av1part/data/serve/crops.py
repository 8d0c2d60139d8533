"""Crops of frames with a label map a node size: what a network over whole superblocks learns from.

    store -> views (a frame at a qindex) -> crop -> block [s, s], types of its nodes [s/8, s/8] ...

Shapes: b crops, h, w luma samples of a crop, v views, n nodes. A node's map cell is its place: row
and column in units of its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from av1part.data.serve.augment import change_levels
from av1part.data.serve.blocks import Batch
from av1part.data.serve.draws import NodeDraws
from av1part.data.store.store import Store
from av1part.partition import IGNORED, SUPERBLOCK, SYMMETRIES, Symmetry
from av1part.system.errors import StoreError

_TABLES = np.stack([np.append(s.table, IGNORED) for s in SYMMETRIES]).astype(np.int8)
"""Type after each symmetry, shape (8, 11); the last column is that of `IGNORED`, by index -1."""


PLACE = 5
"""Numbers of a crop's place: view, row, column, symmetry and change of levels."""


def partition_key(size: int) -> str:
    """Return the entry of a batch with the types of a size, int8 (b, rows, cols), or `IGNORED`."""
    return f"partition_{size}"


def node_key(size: int) -> str:
    """Return the entry of a batch with the node numbers of a size, int64, or `IGNORED`."""
    return f"node_{size}"


def weight_key(size: int) -> str:
    """Return the entry of a batch with the weights of a size's nodes, float32, or `IGNORED`."""
    return f"weight_{size}"


class Views:
    """The frames of some nodes, once a qindex, with the nodes of every size as dense maps.

    Attributes of the views, in the order of sequence, frame, qindex, each of shape (v,): `sequence`
    (number in the store), `frame`, `qindex`, `height` and `width` of the frame; samples above row
    `top` and from row `bottom` on are not shown, but replaced by the nearest row.
    """

    def __init__(
        self,
        store: Store,
        nodes: Mapping[int, NDArray[np.int64]],
        *,
        whole_frames: bool = True,
        weights: Mapping[int, NDArray[np.float32]] | None = None,
    ) -> None:
        """Find the views.

        Args:
            store: The dataset.
            nodes: Size to node numbers.
            whole_frames: Whether all of a frame is shown, or only the rows that have nodes.
            weights: Size to the weight of each of its nodes in the loss; None: there are none.

        Raises:
            StoreError: if a node does not lie on the grid of superblocks.
        """
        self.store = store
        self.nodes = nodes
        self._weights = weights
        table = store.nodes
        every = np.concatenate([nodes[size] for size in nodes])
        frame, qindex, row, size = (
            table[c].to_numpy()[every].astype(np.int64) for c in ("frame", "qindex", "row", "size")
        )
        col = table["col"].to_numpy()[every]
        if ((row % size) | (col % size)).any():
            raise StoreError(
                f"{store.path} has nodes that are not at multiples of their size, so that there "
                "are no superblocks: build a dataset from whole frames"
            )
        key = np.stack([store.sequence_codes[every].astype(np.int64), frame, qindex])
        views, of_node = np.unique(key, axis=1, return_inverse=True)
        self.sequence, self.frame, self.qindex = views
        of_node = of_node.reshape(-1)
        ends = np.cumsum([len(nodes[size]) for size in nodes])[:-1]
        self._of_node = dict(zip(nodes, np.split(of_node, ends), strict=True))
        shapes = np.array([store.plane(name).shape for name in store.sequences])
        self.height, self.width = shapes[self.sequence, 1], shapes[self.sequence, 2]
        self.top, self.bottom = np.zeros(len(self), np.int64), self.height.copy()
        if not whole_frames:
            self.top[:] = self.height
            self.bottom[:] = 0
            np.minimum.at(self.top, of_node, row)
            np.maximum.at(self.bottom, of_node, row + size)

    def __len__(self) -> int:
        """Return the number of views."""
        return len(self.sequence)

    @property
    def first_row(self) -> NDArray[np.int64]:
        """Row of the first superblock that is shown, shape (v,)."""
        first: NDArray[np.int64] = self.top // SUPERBLOCK * SUPERBLOCK
        return first

    def grid(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and columns of a size's maps, and where each view's begins, (v,) each."""
        rows, cols = self.height // size, self.width // size
        return rows, cols, np.cumsum(rows * cols) - rows * cols

    @cached_property
    def partitions(self) -> dict[int, NDArray[np.int8]]:
        """Types of all views' maps by size, flat; `IGNORED` where a view has no such node."""
        types = self.store.nodes["partition"].to_numpy()
        return {size: self._map(size, types[own], np.int8) for size, own in self.nodes.items()}

    @cached_property
    def numbers(self) -> dict[int, NDArray[np.int64]]:
        """Node numbers of all views' maps by size, likewise."""
        return {size: self._map(size, own, np.int64) for size, own in self.nodes.items()}

    @cached_property
    def weights(self) -> dict[int, NDArray[np.float32]]:
        """Weights of all views' maps by size, likewise; empty if the nodes have none."""
        given = self._weights or {}
        return {size: self._map(size, own, np.float32) for size, own in given.items()}

    def _map(self, size: int, values: NDArray[Any], dtype: Any) -> NDArray[Any]:
        rows, cols, start = self.grid(size)
        filled = np.full(int((rows * cols).sum()), IGNORED, dtype=dtype)
        table, own, view = self.store.nodes, self.nodes[size], self._of_node[size]
        row, col = (table[c].to_numpy()[own].astype(np.int64) // size for c in ("row", "col"))
        filled[start[view] + row * cols[view] + col] = values
        return filled

    def __getstate__(self) -> dict[str, Any]:
        """Leave out node numbers, which a worker process does not need."""
        return {key: value for key, value in self.__dict__.items() if key != "numbers"}


@dataclass(frozen=True)
class CropPlaces:
    """Where an epoch's crops lie: a function of seed, epoch and crop alone.

    An epoch has as many crops of each view as cover its area once, at places drawn again each
    epoch among the multiples of `SUPERBLOCK`; those at the right and lower edge may reach over it
    by less than a superblock, so that every node may be in a crop.

    Attributes:
        views: The views.
        side: Luma samples a side of a crop.
        seed: Seed of the run.
        symmetries: Whether each crop is transformed by one of the eight symmetries.
        levels: Whether each crop's luma is changed, see `augment.change_levels`.
    """

    views: Views
    side: int
    seed: int
    symmetries: bool
    levels: bool = False

    @cached_property
    def view(self) -> NDArray[np.int64]:
        """View of each crop of an epoch, shape (crops,)."""
        shown = (self.views.bottom - self.views.first_row) * self.views.width
        counts = np.maximum(1, np.round(shown / self.side**2)).astype(np.int64)
        return np.repeat(np.arange(len(self.views)), counts)

    def __call__(self, index: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Return the places of crops, int64 (b, `PLACE`), by their numbers (b,)."""
        draws, number = NodeDraws(len(self.view), self.seed, epoch), torch.from_numpy(index)
        view = self.view[index]
        first = self.views.first_row[view]
        places = []
        for axis, length in enumerate((self.views.bottom[view] - first, self.views.width[view])):
            choices = np.maximum(0, -(-(length - self.side) // SUPERBLOCK)) + 1
            share = draws.shares(axis, number).numpy()
            places.append((share * choices).astype(np.int64) * SUPERBLOCK)
        turned = draws.symmetries(number).numpy() if self.symmetries else np.zeros_like(view)
        level = draws.levels(number).numpy() if self.levels else np.zeros_like(view)
        return np.stack([view, first + places[0], places[1], turned, level], axis=1)


class CropReader(Dataset[Batch]):
    """Crops with label maps, indexed by arrays of places."""

    def __init__(
        self, views: Views, side: int | None, *, pixels: bool = True, levels: bool = False
    ) -> None:
        """Serve crops of views.

        Args:
            views: The views.
            side: Luma samples a side of a crop; None serves whole frames with node numbers, from
                `Views.first_row` on, the maps padded to whole superblocks.
            pixels: Whether batches have `block`; else `position`, the index, to cut it elsewhere.
            levels: Whether the luma is changed as the places say.

        Raises:
            StoreError: if samples have more than 15 bits.
        """
        depth = views.store.bit_depth()
        if depth > 15:
            raise StoreError(
                f"{views.store.path} has {depth}-bit samples; batches hold at most 15 bits"
            )
        self.views = views
        self.side = side
        self.pixels = pixels
        self.levels = levels
        self.bit_depth = depth
        self.dtype = np.dtype(np.uint8 if depth <= 8 else np.int16)

    def __len__(self) -> int:
        """Return the number of views."""
        return len(self.views)

    def __getitem__(self, index: NDArray[np.int64]) -> Batch:
        """Cut crops.

        Args:
            index: Places, int64 (b, `PLACE`): view, row, column, index into `SYMMETRIES` and
                change of levels of each crop; rows and columns are multiples of `SUPERBLOCK`. Of
                whole frames, all views must have the same shape.

        Returns:
            `block` [b, 1, h, w] as in a batch of blocks, `qindex` int64 [b], and for each size
            `partition_<size>`; of whole frames `node_<size>`, too, and of other crops
            `weight_<size>`, if the nodes have weights.
        """
        crops = [self._crop(*place[:-1]) for place in index.tolist()]
        stacked = {key: torch.from_numpy(np.stack([c[key] for c in crops])) for key in crops[0]}
        if self.pixels:
            block = stacked["block"][:, None]
            if self.levels:
                block = change_levels(block, torch.from_numpy(index[:, -1]), self.bit_depth)
            stacked["block"] = block
        else:
            stacked["position"] = torch.from_numpy(index)
        qindex = torch.from_numpy(self.views.qindex[index[:, 0]].astype(np.int64))
        return {**stacked, "qindex": qindex}

    def _crop(self, view: int, row: int, col: int, turned: int) -> dict[str, NDArray[Any]]:
        views, symmetry = self.views, SYMMETRIES[turned]
        bottom, width = int(views.bottom[view]), int(views.width[view])
        lengths = (bottom - row, width) if self.side is None else (self.side, self.side)
        rows = np.clip(np.arange(row, row + lengths[0]), views.top[view], bottom - 1)
        cols = np.minimum(np.arange(col, col + lengths[1]), width - 1)
        crop = {}
        if self.pixels:
            plane = views.store.plane(views.store.sequences[views.sequence[view]])
            frame = plane[views.frame[view]].reshape(-1)
            crop["block"] = frame[_places(rows * width, cols, symmetry)].astype(self.dtype)
        for size in views.nodes:
            rows_there, cols_there, start = (int(x[view]) for x in views.grid(size))
            cells = [-(-length // SUPERBLOCK) * SUPERBLOCK // size for length in lengths]
            rows, cols = row // size + np.arange(cells[0]), col // size + np.arange(cells[1])
            outside = np.where(rows < rows_there, 0, -1), np.where(cols < cols_there, 0, -1)
            place = _places(
                np.minimum(rows, rows_there - 1) * cols_there,
                np.minimum(cols, cols_there - 1),
                symmetry,
            )
            beyond = _places(*outside, symmetry) < 0
            types = _taken(views.partitions[size], start, place, beyond)
            crop[partition_key(size)] = _TABLES[turned][types]
            if self.side is None:
                crop[node_key(size)] = _taken(views.numbers[size], start, place, beyond)
            elif views.weights:
                crop[weight_key(size)] = _taken(views.weights[size], start, place, beyond)
        return crop


def _places(rows: NDArray[Any], cols: NDArray[Any], symmetry: Symmetry) -> NDArray[Any]:
    """Return row + col for every place of a map under a symmetry, (h, w) or its transpose."""
    first, second = (cols, rows) if symmetry.transpose else (rows, cols)
    first = first[::-1] if symmetry.top_bottom else first
    second = second[::-1] if symmetry.left_right else second
    places: NDArray[Any] = first[:, None] + second[None, :]
    return places


def _taken(
    values: NDArray[Any], start: int, place: NDArray[Any], beyond: NDArray[np.bool_]
) -> NDArray[Any]:
    """Return the values of a view's map at places; `IGNORED` beyond the frame's whole nodes."""
    if beyond.all():  # a frame smaller than a node has no map
        return np.full(place.shape, IGNORED, dtype=values.dtype)
    taken: NDArray[Any] = values[start + place]
    taken[beyond] = IGNORED
    return taken
