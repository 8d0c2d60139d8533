"""Writing a dataset: planes, then nodes and manifest, then the folder's final name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.data.store.schema import (
    BIT_DEPTHS,
    KIND,
    NODE_KEY,
    NODE_SCHEMA,
    NODES,
    SEQUENCE_NAME,
    STORE_FORMAT,
    check_nodes,
    node_counts,
    plane_dtype,
)
from av1part.data.store.store import Store
from av1part.system.errors import StoreError
from av1part.system.files import (
    PART_SUFFIX,
    atomic_path,
    expanded,
    load_json,
    sha256_file,
    write_json,
)
from av1part.system.locks import HOLDER, LOCK, folder_lock

_RECIPE = "recipe.json"


class StoreWriter:
    """Writes a dataset to `<out>.partial` and renames it to `<out>` when it is complete.

    A build that is killed leaves `<out>.partial`; a writer with the same `recipe` resumes it, with
    its planes and the files in `work`.
    """

    def __init__(self, out: str | Path, recipe: Mapping[str, Any]) -> None:
        """Create or resume `<out>.partial`.

        Args:
            out: The dataset folder to make; must not exist.
            recipe: Identity of this build (hashes of sources, settings); JSON values only.

        Raises:
            StoreError: if `out` exists, `<out>.partial` belongs to another recipe, or cannot be
                created.
            ConfigError: if a build of another recipe is running there.
        """
        self.out = expanded(out)
        if self.out.exists():
            raise StoreError(f"{self.out} exists: choose another out=DIR or remove it")
        self.partial = partial_folder(self.out)
        self._created_parents = [parent for parent in self.partial.parents if not parent.exists()]
        recipe_file = self.partial / _RECIPE
        try:
            if self.partial.exists() and not all(_is_leftover(f) for f in self.partial.iterdir()):
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
        """Folder for the build's intermediate files; removed when the dataset is complete."""
        return self.partial / "work"

    def alone(self) -> AbstractContextManager[None]:
        """Lock the folder for a build; a ConfigError names the process that already holds it."""
        return folder_lock(self.partial, "choose another out=DIR")

    def has_plane(self, sequence: str) -> bool:
        """Return whether the plane of this sequence is complete."""
        return self._plane_file(sequence).is_file()

    def add_plane(self, sequence: str, luma: NDArray[Any], bit_depth: int) -> None:
        """Store the luma of a sequence.

        Args:
            sequence: Its name, as `sequence_name` gives it.
            luma: Integers `[frames, height, width]`.
            bit_depth: Bits per sample, 8 to 16.

        Raises:
            StoreError: if the name or the bit depth is not allowed, or the array is not of
                integers, not three-dimensional, empty, or exceeds the bit depth.
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
            nodes: Table with the columns of `NODE_SCHEMA`; it is sorted by the node key.
            sequences: Per sequence, in the manifest's order: `bit_depth` and facts of its origin.
            provenance: Further entries of the manifest: how the dataset was made.

        Returns:
            The finished dataset, opened.

        Raises:
            StoreError: if a node is outside its plane, is not unique or has an illegal type.
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
            "format": STORE_FORMAT,
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
        """Remove `<out>.partial` and the parent folders created for it."""
        shutil.rmtree(self.partial, ignore_errors=True)
        for folder in self._created_parents:
            with suppress(OSError):  # not empty: another process uses it, too
                folder.rmdir()

    @property
    def _planes(self) -> Path:
        return self.partial / "planes"

    def _plane_file(self, sequence: str) -> Path:
        return self._planes / f"{sequence}.npy"


def partial_folder(out: Path) -> Path:
    """Return the folder in which a dataset is built until it is complete."""
    return out.with_name(f"{out.name}.partial")


def _is_leftover(file: Path) -> bool:
    """Return whether a file can precede the recipe: incomplete, or one of the lock."""
    return _is_part(file) or file.name in (LOCK, HOLDER)


def _is_part(file: Path) -> bool:
    """Return whether a file is incomplete: a build was killed while it wrote it."""
    return file.suffix == PART_SUFFIX


def _read_recipe(file: Path) -> Any:
    """Return the recipe of a build that was killed, None if it was not written yet."""
    try:
        return load_json(file)
    except (FileNotFoundError, ValueError):
        return None
