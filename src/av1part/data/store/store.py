"""Reading a dataset: memory-mapped luma planes, a table of nodes, and their provenance.

    <dataset>/planes/<sequence>.npy   luma [frames, height, width], uint8 or uint16, never scaled
    <dataset>/nodes.parquet           one row per node, see `NODE_SCHEMA`
    <dataset>/manifest.json           format, bit depths, provenance, counts, SHA-256 of each file

A block is a view into a plane, so one copy of the pixels serves every qindex, size and margin.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.data.store.schema import (
    NODE_SCHEMA,
    NODES,
    check_inside,
    check_nodes,
    check_sha256,
    most_nodes,
    node_counts,
    plane_dtype,
    read_manifest,
    read_nodes,
)
from av1part.data.store.splits import sequence_codes
from av1part.system.errors import StoreError, first_line
from av1part.system.files import expanded, sha256_file

Verify = Literal["quick", "full"]


class Store:
    """An opened dataset folder. Planes are mapped read-only; nodes are a table in memory.

    Made by `Store.open`; its arguments are its attributes.

    Args:
        path: The folder.
        manifest: The parsed manifest.json.
        nodes: Table with the columns of `NODE_SCHEMA`; a node's row number is its node number.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], nodes: pl.DataFrame) -> None:
        self.path = path
        self.manifest = manifest
        self.nodes = nodes
        self._planes: dict[str, NDArray[Any]] = {}
        self._stamps: dict[Path, tuple[int, ...]] = {}

    @classmethod
    def open(cls, path: str | Path, verify: Verify = "quick") -> Store:
        """Open a dataset and check it against its manifest.

        Args:
            path: The dataset folder.
            verify: `quick` checks version, counts, shapes, the SHA-256 of nodes.parquet and that
                every node lies in its plane; `full` also the SHA-256 of every plane and that nodes
                are unique.

        Returns:
            The dataset, all its planes mapped.

        Raises:
            StoreError: naming the file, if anything is missing, foreign or does not match.
        """
        path = expanded(path)
        try:
            return cls._open(path, verify)
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}): restore it") from None

    @classmethod
    def _open(cls, path: Path, verify: Verify) -> Store:
        manifest = read_manifest(path)
        for name in manifest["files"]:
            check_inside(path / name, path)
        # The table is read whole in any case.
        for name in manifest["files"] if verify == "full" else [NODES]:
            check_sha256(path / name, manifest["files"][name])
        store = cls(path, manifest, pl.DataFrame(schema=dict(NODE_SCHEMA)))
        samples = sum(store.plane(sequence).size for sequence in store.sequences)
        store.nodes = read_nodes(path / NODES, most_nodes(samples))
        store._check_nodes(unique=verify == "full")
        return store

    @cached_property
    def sequences(self) -> tuple[str, ...]:
        """Names of the sequences, in the manifest's order."""
        return tuple(self.manifest["sequences"])

    @cached_property
    def sequence_codes(self) -> NDArray[np.uint16]:
        """Number of each node's sequence in `sequences`, in the order of the table."""
        return sequence_codes(self.nodes, self.sequences).astype(np.uint16)

    @cached_property
    def groups(self) -> dict[str, str]:
        """Sequence to the name of its group; sequences of one clip form a group.

        Only some imports have groups of several sequences.
        """
        facts = self.manifest["sequences"]
        return {name: str(facts[name].get("group", name)) for name in self.sequences}

    def origins(self, sequence: str) -> frozenset[str]:
        """Return what tells that sequences of two datasets are the same pictures.

        Args:
            sequence: Its name.

        Returns:
            SHA-256 of its plane's file, and of its source's if the manifest names one.
        """
        facts = self.manifest["sequences"][sequence]
        source = {str(facts["source_sha256"])} if "source_sha256" in facts else set()
        return frozenset({str(self.manifest["files"][f"planes/{sequence}.npy"]), *source})

    @cached_property
    def manifest_sha256(self) -> str:
        """SHA-256 of manifest.json, which pins every file; the identity of the dataset."""
        return sha256_file(self.path / "manifest.json")

    def bit_depth(self) -> int:
        """Return the bit depth that all sequences share.

        Returns:
            Bits per sample, 8 to 16.

        Raises:
            StoreError: if sequences differ, since a model scales by one bit depth.
        """
        depths = {s["bit_depth"] for s in self.manifest["sequences"].values()}
        if len(depths) != 1:
            raise StoreError(
                f"{self.path} mixes bit depths {sorted(depths)}: build one dataset per bit depth"
            )
        return int(depths.pop())

    def plane(self, sequence: str) -> NDArray[Any]:
        """Map the luma of a sequence.

        Args:
            sequence: Its name.

        Returns:
            Read-only samples, uint8 or uint16 `[frames, height, width]`.

        Raises:
            StoreError: if the file is missing, not an array, or not as the manifest says.
        """
        plane = self._planes.get(sequence)
        if plane is None:
            plane = self._planes[sequence] = self._open_plane(sequence)
        return plane

    def check_unchanged(self) -> None:
        """Check by size, time and inode that the planes are still the files that were mapped.

        Raises:
            StoreError: naming the first that has changed; results computed from it are invalid.
        """
        for file, stamp in self._stamps.items():
            if _stamp(file) != stamp:
                raise StoreError(
                    f"{file} has changed since it was opened: leave a dataset alone while it is in "
                    "use; restore the file or build the dataset again, and start anew"
                )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out memory maps: a worker process maps the files itself."""
        return {**self.__dict__, "_planes": {}}

    def _open_plane(self, sequence: str) -> NDArray[Any]:
        file = self.path / "planes" / f"{sequence}.npy"
        facts = self.manifest["sequences"][sequence]
        if not file.is_file():
            raise StoreError(f"{file} is missing: restore it or build the dataset again")
        self._stamps.setdefault(file, _stamp(file))
        try:
            with np.errstate(over="ignore"):  # a damaged header may claim any shape
                plane = np.lib.format.open_memmap(file, mode="r")
        except Exception as error:  # numpy's parser raises any kind for a damaged header
            raise StoreError(
                f"{file} is not a complete .npy array ({first_line(error)}): "
                "restore it or build the dataset again"
            ) from None
        dtype = plane_dtype(facts["bit_depth"])
        shape = (facts["frames"], facts["height"], facts["width"])
        if plane.dtype != dtype or plane.shape != shape:
            raise StoreError(
                f"{file} holds {plane.dtype} {plane.shape}, its manifest says {dtype} {shape}: "
                "pixels are stored as unscaled integers; build the dataset again"
            )
        checked: NDArray[Any] = plane
        return checked

    def _check_nodes(self, *, unique: bool) -> None:
        check_nodes(
            self.nodes,
            {s: self.plane(s).shape for s in self.sequences},
            name=str(self.path / NODES),
            unique=unique,
        )
        if node_counts(self.nodes) != self.manifest["nodes"]:
            raise StoreError(
                f"{self.path / NODES} does not have the node counts of its manifest: "
                "restore the file or build the dataset again"
            )


def _stamp(file: Path) -> tuple[int, ...]:
    """Return size, time and inode of a file, which a change alters; empty if it is missing."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return (status.st_size, status.st_mtime_ns, status.st_ino)
