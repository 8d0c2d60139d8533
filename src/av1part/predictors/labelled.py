"""A labelled dataset as predictors are scored on it: frames at a qindex, with the true types.

dataset, split -> nodes by size -> views -> luma plane, qindex, map of true types of each size
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part import embedded
from av1part.data.serve.crops import Views
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.data.store.store import Store
from av1part.evaluation.attach import DataSource
from av1part.options import PROTOCOLS, ScoredSplit
from av1part.predictors.fit import open_splits
from av1part.system.errors import StoreError


@dataclass(frozen=True)
class View:
    """A frame at a qindex.

    Attributes:
        picture: Name of the picture or clip, which intervals resample.
        sequence: Name of its sequence in the dataset.
        frame: Number of the frame.
        qindex: Base quantiser index.
        plane: Luma samples, integers `[h, w]`.
        bit_depth: Bits per sample.
        types: Node size to the AV1 ids of its whole nodes, int8 `[rows, cols]`, or `IGNORED`.
    """

    picture: str
    sequence: str
    frame: int
    qindex: int
    plane: NDArray[Any]
    bit_depth: int
    types: Mapping[int, NDArray[np.int8]]


class LabelledNodes:
    """Labelled nodes of a dataset, a view at a time."""

    def __init__(self, store: Store, nodes: Mapping[int, NDArray[np.int64]]) -> None:
        """Find the views.

        Args:
            store: The dataset.
            nodes: Node size to node numbers, at least one.

        Raises:
            StoreError: if the dataset is not of whole frames.
        """
        self.store = store
        self.views = Views(store, nodes)

    @property
    def qindexes(self) -> list[int]:
        """The base quantiser indexes, ascending."""
        found: list[int] = np.unique(self.views.qindex).tolist()
        return found

    @property
    def bit_depths(self) -> set[int]:
        """Bits per sample of the dataset's sequences."""
        return {int(facts["bit_depth"]) for facts in self.store.manifest["sequences"].values()}

    def type_counts(self) -> dict[int, NDArray[np.int64]]:
        """Count the nodes of each AV1 id by size, shape (10,) each."""
        types = self.store.nodes["partition"].to_numpy()
        return {
            size: np.bincount(types[own].astype(np.int64), minlength=10)
            for size, own in self.views.nodes.items()
        }

    def picture(self, sequence: str, frame: int) -> str:
        """Return the name of what intervals resample, of a frame of a sequence."""
        return self.store.groups[sequence]

    def __len__(self) -> int:
        """Return the number of views."""
        return len(self.views)

    def __iter__(self) -> Iterator[View]:
        """Yield the views, in the order of sequence, frame, qindex."""
        views, store = self.views, self.store
        grids = {size: views.grid(size) for size in views.nodes}
        for index in range(len(views)):
            name = store.sequences[views.sequence[index]]
            types = {}
            for size, (rows, cols, start) in grids.items():
                shape = int(rows[index]), int(cols[index])
                first = int(start[index])
                flat = views.partitions[size][first : first + shape[0] * shape[1]]
                types[size] = flat.reshape(shape)
            frame = int(views.frame[index])
            yield View(
                picture=self.picture(name, frame),
                sequence=name,
                frame=frame,
                qindex=int(views.qindex[index]),
                plane=store.plane(name)[frame],
                bit_depth=int(store.manifest["sequences"][name]["bit_depth"]),
                types=types,
            )


class LabelledData(LabelledNodes):
    """A split of a dataset, or all of it."""

    def __init__(self, source: DataSource, split: ScoredSplit, *, split_seed: int = 42) -> None:
        """Open a dataset and find the nodes of a split.

        Args:
            source: The dataset, None for the embedded one, with its split.
            split: `val`, `test`, or `all` for every node whatever its split.
            split_seed: Seed of the split.

        Raises:
            StoreError: if the dataset cannot be opened, is not of whole frames, or has no nodes in
                the split.
            ConfigError: if the protocol does not fit the split list.
        """
        self.source, self.split, self.split_seed = source, split, split_seed
        self._of_size: dict[int, BlockDataModule] = {}
        if split == "all":
            store = Store.open(embedded.STORE if source.path is None else source.path)
            size = store.nodes["size"].to_numpy()
            nodes = {int(s): np.flatnonzero(size == s) for s in np.unique(size)}
        else:
            store, self._of_size = open_splits(source, split_seed)
            for data in self._of_size.values():
                data.setup()
            found = {size: data.readers[split].nodes for size, data in self._of_size.items()}
            nodes = {size: own for size, own in found.items() if len(own)}
        if not nodes:
            raise StoreError(
                f"{store.path} has no nodes in the {split} split: choose another split="
            )
        super().__init__(store, nodes)

    def facts(self) -> dict[str, Any]:
        """Return what a result records of the data, as plain values."""
        split_list = self.source.split_list
        divided = next(iter(self._of_size.values()), None)
        return {
            "dataset": self.store.path.resolve().name,
            "manifest_sha256": self.store.manifest_sha256,
            "split": self.split,
            "protocol": None if divided is None else divided.protocol,
            "split_seed": None if divided is None else self.split_seed,
            "split_list": None if split_list is None else Path(split_list).name,
            "pictures": len({self.store.groups[self.store.sequences[s]] for s in self._sequences}),
            "views": len(self),
            "qindexes": self.qindexes,
        }

    @property
    def _sequences(self) -> list[int]:
        found: list[int] = np.unique(self.views.sequence).tolist()
        return found

    def shares_nodes(self, other: LabelledData) -> bool:
        """Return whether a node of this data is one of other data of the same dataset."""
        if self.store.manifest_sha256 != other.store.manifest_sha256:
            return False
        own, theirs = (np.concatenate([*d.views.nodes.values()]) for d in (self, other))
        return bool(np.isin(own, theirs).any())

    def check_unseen(self, name: str, sources: Iterable[Mapping[str, Any]]) -> None:
        """Check that a predictor was not trained on nodes that it is scored on.

        Args:
            name: The predictor's name, for the error.
            sources: The datasets that it was trained on, as a bundle names them.

        Raises:
            StoreError: if it was trained on this dataset, and all of it is scored, or it was
                trained with another split of it.
        """
        for source in sources:
            if source.get("manifest_sha256") != self.store.manifest_sha256:
                continue
            if self.split == "all":
                raise StoreError(
                    f"{name} was trained on a part of {self.store.path}: score it on split=val or "
                    "split=test"
                )
            if source.get("split_sha256") not in self._split_hashes:
                raise StoreError(
                    f"{name} was trained with another split of {self.store.path}, so its training "
                    "nodes would be scored: give the data.protocol, data.split_seed or "
                    "data.split_list that it was trained with"
                )

    @cached_property
    def _split_hashes(self) -> Sequence[str]:
        """Hashes of the split of each size, and of that of all sizes together."""
        return [
            *(data.split_sha256 for data in self._of_size.values()),
            _split_sha256_together(next(iter(self._of_size.values()))),
        ]


def training_nodes(
    path: Path, source: Mapping[str, Any], *, split_seed: int = 42
) -> NDArray[np.int64] | None:
    """Find the nodes of a dataset that a superblock network was trained on.

    Args:
        path: The dataset.
        source: What its bundle says of it: the hash of the split, and the protocol alone.
        split_seed: Seed of the split, which a bundle does not say.

    Returns:
        Numbers of nodes; None if the split is of another seed or a list.

    Raises:
        StoreError: if the dataset cannot be opened.
    """
    if source.get("protocol") not in PROTOCOLS:
        return None
    _, of_size = open_splits(DataSource(str(path), source["protocol"]), split_seed)
    try:
        nodes = [data.reader("train").nodes for data in of_size.values()]
        found = _split_sha256_together(next(iter(of_size.values())))
    except StoreError:  # without the list that it was split by, the protocol does not suit it
        return None
    return np.concatenate(nodes) if found == source.get("split_sha256") else None


def _split_sha256_together(data: BlockDataModule) -> str:
    """Return the hash of the split of all sizes together, given the data of one."""
    together = SuperblockDataModule(
        data.path,
        taxonomy="v6_1to4",
        protocol=data.protocol,
        split_seed=data.split_seed,
        split_list=data.split_list,
    )
    together.setup()
    return together.split_sha256
