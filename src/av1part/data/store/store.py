"""The dataset on disk: memory-mapped luma planes, a table of nodes, and where both came from.

    <dataset>/planes/<sequence>.npy   luma [frames, height, width], uint8 or uint16, never scaled
    <dataset>/nodes.parquet           one row a node, see `NODE_SCHEMA`
    <dataset>/manifest.json           format, bit depths, provenance, counts, SHA-256 of each file

A block is a view into a plane, so one copy of the pixels serves every qindex, size and margin.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.data.store.schema import (
    BIT_DEPTHS,
    FORMAT,
    KIND,
    NODE_KEY,
    NODE_SCHEMA,
    NODES,
    SEQUENCE_NAME,
    check_inside,
    check_nodes,
    check_sha256,
    most_nodes,
    node_counts,
    plane_dtype,
    read_manifest,
    read_nodes,
    sequence_name,
)
from av1part.data.store.splits import sequence_codes
from av1part.system.errors import StoreError, first_line
from av1part.system.files import (
    PART_SUFFIX,
    atomic_path,
    expanded,
    load_json,
    sha256_file,
    write_json,
)
from av1part.system.locks import HOLDER, LOCK, folder_lock

__all__ = [
    "NODE_KEY",
    "NODE_SCHEMA",
    "Store",
    "StoreWriter",
    "check_nodes",
    "node_counts",
    "plane_dtype",
    "sequence_name",
]

_RECIPE = "recipe.json"

Verify = Literal["quick", "full"]


class Store:
    """An opened dataset folder. Planes are mapped read-only; nodes are a table in memory.

    Made by `Store.open`; its arguments are its attributes.

    Args:
        path: The folder.
        manifest: The parsed manifest.json.
        nodes: Table with the columns of `NODE_SCHEMA`; a node's row number is its `node` id.
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
                every node lies in its plane; `full` also checks the SHA-256 of every plane and
                that no node occurs twice.

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
        """Sequence to the group it belongs to: what shows the same clip is one group.

        Only some imports have groups of several; else a sequence is its own.
        """
        facts = self.manifest["sequences"]
        return {name: str(facts[name].get("group", name)) for name in self.sequences}

    @cached_property
    def manifest_sha256(self) -> str:
        """SHA-256 of manifest.json, which pins every file; the identity of the dataset."""
        return sha256_file(self.path / "manifest.json")

    def bit_depth(self) -> int:
        """Tell the one bit depth of all sequences.

        Returns:
            Bits a sample, 8 to 16.

        Raises:
            StoreError: if sequences differ, since one model scales by one bit depth.
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
        """Check that the planes are the files that were mapped, by size, time and inode.

        Raises:
            StoreError: naming the first that is not; what was computed of it is worth nothing.
        """
        for file, stamp in self._stamps.items():
            if _stamp(file) != stamp:
                raise StoreError(
                    f"{file} has changed since it was opened: leave a dataset alone while it is in "
                    "use; restore the file or build the dataset again, and start anew"
                )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind when sent to a worker process; it maps the files itself."""
        return {**self.__dict__, "_planes": {}}

    def _open_plane(self, sequence: str) -> NDArray[Any]:
        file = self.path / "planes" / f"{sequence}.npy"
        said = self.manifest["sequences"][sequence]
        if not file.is_file():
            raise StoreError(f"{file} is missing: restore it or build the dataset again")
        self._stamps.setdefault(file, _stamp(file))
        try:
            with np.errstate(over="ignore"):  # of a header that claims more than there can be
                plane = np.lib.format.open_memmap(file, mode="r")
        except Exception as error:  # whatever numpy's parser makes of a damaged header
            raise StoreError(
                f"{file} is not a complete .npy array ({first_line(error)}): "
                "restore it or build the dataset again"
            ) from None
        dtype = plane_dtype(said["bit_depth"])
        shape = (said["frames"], said["height"], said["width"])
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
    """Return what changes when a file is written to or replaced; nothing of one that is gone."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return (found.st_size, found.st_mtime_ns, found.st_ino)


class StoreWriter:
    """Writes a dataset to `<out>.partial` and renames it to `<out>` when it is complete.

    A build that is killed leaves `<out>.partial`; a writer made with the same `recipe` goes on
    from it: `planes` that are there stay, and `work` keeps whatever the build put there.
    """

    def __init__(self, out: str | Path, recipe: Mapping[str, Any]) -> None:
        """Create or resume `<out>.partial`.

        Args:
            out: The dataset folder to make; must not exist.
            recipe: What identifies this build (sources by hash, settings); JSON values only.

        Raises:
            StoreError: if `out` exists, `<out>.partial` belongs to another recipe, or neither can
                be made.
            ConfigError: if another recipe's build is running there.
        """
        self.out = expanded(out)
        if self.out.exists():
            raise StoreError(f"{self.out} exists: choose another out=DIR or remove it")
        self.partial = self.out.with_name(f"{self.out.name}.partial")
        self._made_for = [parent for parent in self.partial.parents if not parent.exists()]
        recipe_file = self.partial / _RECIPE
        try:
            if self.partial.exists() and any(not _passes(f) for f in self.partial.iterdir()):
                if _read_recipe(recipe_file) != json.loads(json.dumps(recipe)):
                    with self.alone():
                        raise StoreError(
                            f"{self.partial} is left from another build: repeat that build's "
                            "command to finish it, or remove the folder"
                        )
            else:
                write_json(recipe_file, recipe)
            self.work.mkdir(exist_ok=True)
            self._planes.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.partial} cannot be written ({error.strerror}): choose another out=DIR"
            ) from None

    @property
    def work(self) -> Path:
        """Folder for the build's own intermediate files; gone when the dataset is complete."""
        return self.partial / "work"

    def alone(self) -> AbstractContextManager[None]:
        """Keep others out while a block builds; a ConfigError says which one is already there."""
        return folder_lock(self.partial, "choose another out=DIR")

    def has_plane(self, sequence: str) -> bool:
        """Return whether the plane of this sequence is already there, whole."""
        return self._plane_file(sequence).is_file()

    def add_plane(self, sequence: str, luma: NDArray[Any], bit_depth: int) -> None:
        """Store the luma of a sequence.

        Args:
            sequence: Its name, as `sequence_name` gives it.
            luma: Integers `[frames, height, width]`.
            bit_depth: Bits a sample, 8 to 16.

        Raises:
            StoreError: if the name or the bit depth is not one a dataset may have, or the array is
                not of integers, not three-dimensional, empty, or holds a value that does not fit
                the bit depth.
        """
        if not SEQUENCE_NAME.fullmatch(sequence):
            raise StoreError(f"no sequence can be named {sequence!r}: use [A-Za-z0-9_.-] only")
        if bit_depth not in BIT_DEPTHS:
            raise StoreError(f"luma of {sequence} has {bit_depth} bits; a dataset takes 8 to 16")
        if luma.ndim != 3 or luma.dtype.kind not in "ui" or not luma.size:
            raise StoreError(
                f"luma of {sequence} must be integers [frames, height, width], "
                f"not {luma.dtype} {luma.shape}"
            )
        if int(luma.min()) < 0 or int(luma.max()) >= 1 << bit_depth:
            raise StoreError(f"luma of {sequence} holds values outside {bit_depth} bits")
        with atomic_path(self._plane_file(sequence)) as part, part.open("wb") as file:
            np.save(file, np.ascontiguousarray(luma, dtype=plane_dtype(bit_depth)))

    def finish(
        self,
        nodes: pl.DataFrame,
        sequences: Mapping[str, Mapping[str, Any]],
        provenance: Mapping[str, Any],
    ) -> Store:
        """Write nodes and manifest, verify everything, and give the folder its name.

        Args:
            nodes: The columns of `NODE_SCHEMA`, in any order; they are sorted by the node key.
            sequences: Per sequence, in the manifest's order: `bit_depth` and whatever else is
                known of its origin.
            provenance: Further manifest entries: how the dataset was made.

        Returns:
            The finished dataset, opened.

        Raises:
            StoreError: if a node is outside its plane, occurs twice or has an illegal type.
        """
        nodes = nodes.select(pl.col(c).cast(t) for c, t in NODE_SCHEMA.items()).sort(NODE_KEY)
        shapes = {s: np.load(self._plane_file(s), mmap_mode="r").shape for s in sequences}
        check_nodes(nodes, shapes, name=str(self.partial / NODES), unique=True)
        with atomic_path(self.partial / NODES) as part:
            nodes.write_parquet(part, compression="zstd", compression_level=19)
        entries = {
            sequence: {**facts, **dict(zip(("frames", "height", "width"), shape, strict=True))}
            for (sequence, facts), shape in zip(sequences.items(), shapes.values(), strict=True)
        }
        files = [*(f"planes/{s}.npy" for s in entries), NODES]
        manifest = {
            "kind": KIND,
            "format": FORMAT,
            **provenance,
            "sequences": entries,
            "nodes": node_counts(nodes),
            "files": {name: sha256_file(self.partial / name) for name in files},
        }
        write_json(self.partial / "manifest.json", manifest)
        Store.open(self.partial, verify="full")
        for leftover in filter(_is_part, (*self.partial.iterdir(), *self._planes.iterdir())):
            leftover.unlink()  # of a build that was killed while it wrote
        shutil.rmtree(self.work)
        self.partial.rename(self.out)
        # Last, so that a build killed before the rename still resumes.
        for name in (_RECIPE, HOLDER, LOCK):
            (self.out / name).unlink(missing_ok=True)
        return Store.open(self.out)

    def discard(self) -> None:
        """Remove `<out>.partial`, and the folders made for it: nothing of refused input stays."""
        shutil.rmtree(self.partial, ignore_errors=True)
        for folder in self._made_for:
            with suppress(OSError):  # no longer empty, so no longer ours alone
                folder.rmdir()

    @property
    def _planes(self) -> Path:
        return self.partial / "planes"

    def _plane_file(self, sequence: str) -> Path:
        return self._planes / f"{sequence}.npy"


def _passes(file: Path) -> bool:
    """Return whether it is no build's own: left by any that was killed, or of its lock."""
    return _is_part(file) or file.name in (LOCK, HOLDER)


def _is_part(file: Path) -> bool:
    """Return whether it is a file that was being written when a build was killed."""
    return file.suffix == PART_SUFFIX


def _read_recipe(file: Path) -> Any:
    """Return what a build that was left said of itself, or None if it said nothing."""
    try:
        return load_json(file)
    except (FileNotFoundError, ValueError):
        return None
