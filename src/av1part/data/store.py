"""The dataset on disk: memory-mapped luma planes, a table of nodes, and where both came from.

    <dataset>/planes/<sequence>.npy   luma [frames, height, width], uint8 or uint16, never scaled
    <dataset>/nodes.parquet           one row a node, see `NODE_SCHEMA`
    <dataset>/manifest.json           format, bit depths, provenance, counts, SHA-256 of each file

A block is a view into a plane, so one copy of the pixels serves every qindex, size and margin.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.errors import StoreError
from av1part.files import atomic_path, sha256_file, write_json
from av1part.partition import SIZES, Partition, legal_partitions

FORMAT = 1
KIND = "av1part-store"

NODE_SCHEMA: Mapping[str, Any] = {
    "sequence": pl.String,
    "frame": pl.Int32,
    "row": pl.Int32,
    "col": pl.Int32,
    "size": pl.Int16,
    "qindex": pl.Int16,
    "partition": pl.Int8,
}
"""Columns of nodes.parquet; `row` and `col` are luma samples, `frame` indexes the plane file."""

NODE_KEY = ("sequence", "frame", "qindex", "size", "row", "col")
"""The columns that identify a node."""

_SEQUENCE_NAME = re.compile(r"[A-Za-z0-9_.-]+")

Verify = Literal["quick", "full"]


def sequence_name(stem: str) -> str:
    """Return the sequence name of a source's file stem: `[A-Za-z0-9_.-]`, others made `_`.

    >>> sequence_name("park joy (1080p)")
    'park_joy__1080p_'
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "_", stem)


def node_counts(nodes: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Count nodes per size and partition type, sizes and ids ascending."""
    table = nodes.group_by("size", "partition").len().sort("size", "partition")
    counts: dict[str, dict[str, int]] = {}
    for size, partition, count in table.iter_rows():
        counts.setdefault(str(size), {})[Partition(partition).name] = count
    return counts


class Store:
    """An opened dataset folder. Planes are mapped read-only; nodes are a table in memory.

    Attributes:
        path: The folder.
        manifest: The parsed manifest.json.
        nodes: Table with the columns of `NODE_SCHEMA`; a node's row number is its `node` id.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], nodes: pl.DataFrame) -> None:
        self.path = path
        self.manifest = manifest
        self.nodes = nodes
        self._planes: dict[str, NDArray[Any]] = {}

    @classmethod
    def open(cls, path: str | Path, verify: Verify = "quick") -> Store:
        """Open a dataset and check it against its manifest.

        Args:
            path: The dataset folder.
            verify: `quick` checks version, counts, shapes and that every node lies in its plane;
                `full` also checks the SHA-256 of every file and that no node occurs twice.

        Raises:
            StoreError: naming the file, if anything is missing, foreign or does not match.
        """
        path = Path(path).expanduser()
        manifest = _read_manifest(path)
        if verify == "full":
            for name, digest in manifest["files"].items():
                if not (path / name).is_file():
                    raise StoreError(f"{path / name} is missing: build or import the dataset again")
                if sha256_file(path / name) != digest:
                    raise StoreError(
                        f"{path / name} does not have the SHA-256 its manifest records: "
                        "restore the file or build the dataset again"
                    )
        store = cls(path, manifest, _read_nodes(path / "nodes.parquet"))
        for sequence in store.sequences:
            store.plane(sequence)
        store._check_nodes(unique=verify == "full")
        return store

    @cached_property
    def sequences(self) -> tuple[str, ...]:
        """Names of the sequences, in the manifest's order."""
        return tuple(self.manifest["sequences"])

    @cached_property
    def manifest_sha256(self) -> str:
        """SHA-256 of manifest.json, which pins every file; the identity of the dataset."""
        return sha256_file(self.path / "manifest.json")

    def bit_depth(self) -> int:
        """Return the one bit depth of all sequences.

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
        """Return the mapped luma of a sequence, uint8 or uint16 `[frames, height, width]`.

        Raises:
            StoreError: if the file is missing, not an array, or not as the manifest says.
        """
        plane = self._planes.get(sequence)
        if plane is None:
            plane = self._planes[sequence] = self._open_plane(sequence)
        return plane

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind when sent to a worker process; it maps the files itself."""
        return {**self.__dict__, "_planes": {}}

    def _open_plane(self, sequence: str) -> NDArray[Any]:
        file = self.path / "planes" / f"{sequence}.npy"
        said = self.manifest["sequences"][sequence]
        if not file.is_file():
            raise StoreError(f"{file} is missing: restore it or build the dataset again")
        try:
            plane = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise StoreError(f"{file} is not a complete .npy array ({error})") from None
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
            name=str(self.path / "nodes.parquet"),
            unique=unique,
        )
        if node_counts(self.nodes) != self.manifest["nodes"]:
            raise StoreError(
                f"{self.path / 'nodes.parquet'} does not have the node counts of its manifest: "
                "restore the file or build the dataset again"
            )


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
            StoreError: if `out` exists, or `<out>.partial` belongs to another recipe.
        """
        self.out = Path(out).expanduser()
        self.partial = self.out.with_name(f"{self.out.name}.partial")
        if self.out.exists():
            raise StoreError(f"{self.out} exists: choose another out=DIR or remove it")
        recipe_file = self.partial / "recipe.json"
        if self.partial.exists():
            if not recipe_file.is_file() or json.loads(recipe_file.read_text()) != recipe:
                raise StoreError(
                    f"{self.partial} is left from another build: repeat that build's command to "
                    "finish it, or remove the folder"
                )
        else:
            self.work.mkdir(parents=True)
            (self.partial / "planes").mkdir()
            write_json(recipe_file, recipe)

    @property
    def work(self) -> Path:
        """Folder for the build's own intermediate files; gone when the dataset is complete."""
        return self.partial / "work"

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
            StoreError: if the array is not of integers, not three-dimensional, or holds a value
                that does not fit the bit depth.
        """
        if luma.ndim != 3 or luma.dtype.kind not in "ui":
            raise StoreError(
                f"luma of {sequence} must be integers [frames, height, width], "
                f"not {luma.dtype} {luma.shape}"
            )
        if luma.size and (int(luma.min()) < 0 or int(luma.max()) >= 1 << bit_depth):
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

        Raises:
            StoreError: if a node is outside its plane, occurs twice or has an illegal type.
        """
        shutil.rmtree(self.work, ignore_errors=True)
        nodes = nodes.select(pl.col(c).cast(t) for c, t in NODE_SCHEMA.items()).sort(NODE_KEY)
        with atomic_path(self.partial / "nodes.parquet") as part:
            nodes.write_parquet(part, compression="zstd", compression_level=19)
        entries = {}
        for sequence, facts in sequences.items():
            frames, height, width = np.load(self._plane_file(sequence), mmap_mode="r").shape
            shape = {"frames": frames, "height": height, "width": width}
            entries[sequence] = {**facts, **shape}
        files = [*(f"planes/{s}.npy" for s in entries), "nodes.parquet"]
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
        (self.partial / "recipe.json").unlink(missing_ok=True)
        self.partial.rename(self.out)
        return Store.open(self.out)

    def discard(self) -> None:
        """Remove `<out>.partial`: the input was refused, so nothing of it stays."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def _plane_file(self, sequence: str) -> Path:
        return self.partial / "planes" / f"{sequence}.npy"


def plane_dtype(bit_depth: int) -> np.dtype[Any]:
    """Return the dtype of stored luma: uint8 up to 8 bits, little-endian uint16 above."""
    return np.dtype("u1" if bit_depth <= 8 else "<u2")


def check_nodes(
    nodes: pl.DataFrame, shapes: Mapping[str, tuple[int, ...]], *, name: str, unique: bool
) -> None:
    """Check that nodes lie in their planes, have legal types and, if asked, occur once.

    Args:
        nodes: Table with the columns of `NODE_SCHEMA`.
        shapes: `(frames, height, width)` of each sequence's plane.
        name: What to call the table in an error.
        unique: Also look for duplicates of the node key.

    Raises:
        StoreError: naming the first offending node.
    """
    unknown = set(nodes["sequence"].unique()) - set(shapes)
    if unknown:
        raise StoreError(f"{name} has nodes of sequences without a plane: {sorted(unknown)}")
    planes = pl.DataFrame(
        [(s, *map(int, shape)) for s, shape in shapes.items()],
        schema={"sequence": pl.String, "frames": pl.Int64, "height": pl.Int64, "width": pl.Int64},
        orient="row",
    )
    legal = pl.any_horizontal(
        [
            (pl.col("size") == size) & pl.col("partition").is_in(list(legal_partitions(size)))
            for size in SIZES
        ]
    )
    placed = nodes.join(planes, on="sequence", how="left", maintain_order="left")
    inside = (
        pl.col("frame").is_between(0, pl.col("frames") - 1)
        & (pl.min_horizontal("row", "col") >= 0)
        & (pl.col("row") + pl.col("size") <= pl.col("height"))
        & (pl.col("col") + pl.col("size") <= pl.col("width"))
    )
    for what, good in (("is outside its plane", inside), ("has a type its size forbids", legal)):
        bad = placed.filter(~good)
        if bad.height:
            first = bad.select(NODE_SCHEMA).row(0, named=True)
            raise StoreError(f"{name}: {bad.height} nodes, the first being {first}: it {what}")
    if nodes["qindex"].min() is not None and not nodes["qindex"].is_between(0, 255).all():
        raise StoreError(f"{name} has a qindex outside 0..255")
    if unique and nodes.select(NODE_KEY).is_duplicated().any():
        first = nodes.filter(nodes.select(NODE_KEY).is_duplicated()).row(0, named=True)
        raise StoreError(f"{name} holds a node more than once: {first}")


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / "manifest.json"
    if not path.is_dir():
        raise StoreError(f"{path} is not a dataset folder: make one with `av1part data build`")
    if not file.is_file():
        raise StoreError(f"{file} is missing: {path} is not a complete dataset")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file} is not valid JSON ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise StoreError(f"{file} is not the manifest of an av1part dataset")
    if manifest.get("format") != FORMAT:
        raise StoreError(
            f"{file} has format {manifest.get('format')!r}, this release reads {FORMAT}: "
            "build the dataset again"
        )
    sequences, files = manifest.get("sequences"), manifest.get("files")
    if not isinstance(sequences, dict) or not isinstance(files, dict) or "nodes" not in manifest:
        raise StoreError(f"{file} lacks `sequences`, `nodes` or `files`")
    for name, facts in sequences.items():
        if not _SEQUENCE_NAME.fullmatch(name):
            raise StoreError(f"{file} names a sequence {name!r}; names are [A-Za-z0-9_.-] only")
        keys = ("bit_depth", "frames", "height", "width")
        if not isinstance(facts, dict) or not all(isinstance(facts.get(k), int) for k in keys):
            raise StoreError(f"{file} lacks {', '.join(keys)} of sequence {name}")
    if set(files) != {*(f"planes/{s}.npy" for s in sequences), "nodes.parquet"}:
        raise StoreError(f"{file} lists other files than its sequences' planes and nodes.parquet")
    return manifest


def _read_nodes(file: Path) -> pl.DataFrame:
    if not file.is_file():
        raise StoreError(f"{file} is missing: restore it or build the dataset again")
    try:
        nodes = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).splitlines()[0]
        raise StoreError(f"{file} is not a readable Parquet file ({first})") from None
    if dict(nodes.schema) != dict(NODE_SCHEMA):
        raise StoreError(f"{file} has columns {dict(nodes.schema)}, expected {dict(NODE_SCHEMA)}")
    if sum(nodes.null_count().row(0)):
        raise StoreError(f"{file} has empty cells")
    return nodes
