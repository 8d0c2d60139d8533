"""The schema of a dataset folder: columns, names, the form of the manifest, and their checks.

`store` reads and `writer` writes folders by these rules.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.data.store.splits import SPLITS
from av1part.options import PROTOCOLS
from av1part.partition import SIZES, Partition, Taxonomy, legal_partitions
from av1part.system.errors import StoreError, first_line
from av1part.system.files import leads_out, load_json, sha256_file
from av1part.system.formats import refusal
from av1part.system.terminal import printable

STORE_FORMAT = 1
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

NODES = "nodes.parquet"
"""Name of the table, beside the manifest."""

QINDEXES = 256
"""Number of quantiser indexes, 0 to 255."""

BIT_DEPTHS = range(8, 17)
"""Bits per sample that a plane may have."""

_LONGEST_NAME = 120
"""Characters; encrypted file systems take 143 bytes, and a work file's name gets 20 more."""

SEQUENCE_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""Names of sequences; they become file names."""


def sequence_name(stem: str) -> str:
    """Return the sequence name of a source's file stem: `[A-Za-z0-9_.-]`, others made `_`.

    A longer name than a file system takes with the endings it gets is shortened, and ends with a
    hash of all of it.

    >>> sequence_name("park joy (1080p)")
    'park_joy__1080p_'
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", stem)
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(stem.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9]}-{digest}"


def node_counts(nodes: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Count nodes per size and partition type, sizes and ids ascending."""
    table = nodes.group_by("size", "partition").len().sort("size", "partition")
    counts: dict[str, dict[str, int]] = {}
    for size, partition, count in table.iter_rows():
        counts.setdefault(str(size), {})[Partition(partition).name] = count
    return counts


def plane_dtype(bit_depth: int) -> np.dtype[Any]:
    """Return the dtype of stored luma: uint8 up to 8 bits, little-endian uint16 above."""
    return np.dtype("u1" if bit_depth <= 8 else "<u2")


def check_nodes(
    nodes: pl.DataFrame, shapes: Mapping[str, tuple[int, ...]], *, name: str, unique: bool
) -> None:
    """Check that nodes lie in their planes and have legal types.

    Args:
        nodes: Table with the columns of `NODE_SCHEMA`.
        shapes: `(frames, height, width)` of each sequence's plane.
        name: Name of the table in an error.
        unique: Also check that the node key is unique.

    Raises:
        StoreError: naming the first offending node.
    """
    unknown = set(nodes["sequence"].unique()) - set(shapes)
    if unknown:
        names = printable(str(sorted(unknown)), 300)
        raise StoreError(f"{name} has nodes of sequences without a plane: {names}")
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
        # Subtracted: the 32-bit sum of a damaged row and a size can overflow.
        & (pl.col("row") <= pl.col("height") - pl.col("size"))
        & (pl.col("col") <= pl.col("width") - pl.col("size"))
    )
    for fault, valid in (("is outside its plane", inside), ("has a type its size forbids", legal)):
        bad = placed.filter(~valid.fill_null(False))
        if bad.height:
            first = bad.select(list(NODE_SCHEMA)).row(0, named=True)
            raise StoreError(f"{name}: {bad.height} nodes, the first being {first}: it {fault}")
    if nodes["qindex"].min() is not None and not nodes["qindex"].is_between(0, QINDEXES - 1).all():
        raise StoreError(f"{name} has a qindex outside 0..255")
    if unique and nodes.select(NODE_KEY).is_duplicated().any():
        first = nodes.filter(nodes.select(NODE_KEY).is_duplicated()).row(0, named=True)
        raise StoreError(f"{name} holds a node more than once: {first}")


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and check the manifest.json of a dataset folder.

    Args:
        path: The dataset folder.

    Returns:
        The parsed manifest.

    Raises:
        StoreError: naming the file, if it is missing, damaged, foreign or of another format.
    """
    file = path / "manifest.json"
    if not path.is_dir():
        raise StoreError(f"{path} is not a dataset folder: make one with `av1part data build`")
    if not file.is_file():
        raise StoreError(f"{file} is missing: {path} is not a complete dataset")
    check_inside(file, path)
    try:
        manifest = load_json(file)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{file} cannot be read as JSON ({first_line(error)}): "
            "restore it or build the dataset again"
        ) from None
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise StoreError(f"{file} is not the manifest of an av1part dataset")
    if manifest.get("format") != STORE_FORMAT:
        made_by = manifest.get("made_by")
        wrote = made_by.get("av1part") if isinstance(made_by, dict) else None
        again = "build the dataset again"
        raise StoreError(refusal(str(file), manifest.get("format"), STORE_FORMAT, wrote, again))
    sequences, files = manifest.get("sequences"), manifest.get("files")
    if not isinstance(sequences, dict) or not isinstance(files, dict) or "nodes" not in manifest:
        raise StoreError(f"{file} lacks `sequences`, `nodes` or `files`")
    for name, facts in sequences.items():
        if not SEQUENCE_NAME.fullmatch(name):
            raise StoreError(f"{file} names a sequence {name!r}; names are [A-Za-z0-9_.-] only")
        keys = ("bit_depth", "frames", "height", "width")
        if not isinstance(facts, dict) or not all(isinstance(facts.get(k), int) for k in keys):
            raise StoreError(f"{file} lacks {', '.join(keys)} of sequence {name}")
        if facts["bit_depth"] not in BIT_DEPTHS:
            raise StoreError(f"{file} says {facts['bit_depth']} bits of {name}, not 8 to 16")
    _check_import_facts(file, manifest)
    if set(files) != {*(f"planes/{s}.npy" for s in sequences), NODES}:
        raise StoreError(f"{file} lists other files than its sequences' planes and nodes.parquet")
    return manifest


def _check_import_facts(file: Path, manifest: Mapping[str, Any]) -> None:
    """Check an import's entries on split protocols and left-out nodes.

    Raises:
        StoreError: naming the entry that is not valid.
    """
    protocols, given = manifest.get("protocols", ["given"]), manifest.get("given_split", {})
    if not isinstance(protocols, list) or not set(map(str, protocols)) <= PROTOCOLS.keys():
        raise StoreError(f"{file} offers protocols {protocols!r}; known are {', '.join(PROTOCOLS)}")
    if not isinstance(given, dict) or not set(map(str, given.values())) <= set(SPLITS):
        raise StoreError(f"{file} has a given_split with other values than {', '.join(SPLITS)}")
    left_out = manifest.get("left_out", {})
    if not isinstance(left_out, dict) or not all(isinstance(n, int) for n in left_out.values()):
        raise StoreError(f"{file} has a left_out that is not of counts")


def most_nodes(samples: int) -> int:
    """Return the largest number of nodes in planes of so many samples, over sizes and qindexes."""
    return sum(samples // (size * size) for size in SIZES) * QINDEXES


def check_inside(file: Path, folder: Path) -> None:
    """Check that a file is in its dataset folder, not linked from elsewhere.

    Args:
        file: The file, which need not exist.
        folder: The dataset folder, which may itself be reached by a link.

    Raises:
        StoreError: if the file is a link that leads out.
    """
    if leads_out(file, folder):
        raise StoreError(f"{file} is a link that leads out of its dataset: copy the file there")


def check_sha256(file: Path, digest: str) -> None:
    """Check that a file exists and has this SHA-256.

    Args:
        file: The file.
        digest: SHA-256 in lower-case hexadecimal.

    Raises:
        StoreError: if the file is missing or another.
    """
    if not file.is_file():
        raise StoreError(f"{file} is missing: restore it or build the dataset again")
    if sha256_file(file) != digest:
        raise StoreError(
            f"{file} does not have the SHA-256 its manifest records: "
            "restore the file or build the dataset again"
        )


def read_nodes(file: Path, most: int) -> pl.DataFrame:
    """Read the table of nodes.

    Args:
        file: The nodes.parquet.
        most: Limit on its rows.

    Returns:
        The table, with the columns of `NODE_SCHEMA`.

    Raises:
        StoreError: if it is not Parquet with the columns of `NODE_SCHEMA`, has empty cells, or has
            more rows.
    """
    limit = f"its planes have room for {most}: restore the file or build the dataset again"
    nodes = read_table(file, NODE_SCHEMA, most, limit)
    if sum(nodes.null_count().row(0)):
        raise StoreError(f"{file} has empty cells")
    return nodes


def read_table(file: Path, schema: Mapping[str, Any], most: int, limit: str) -> pl.DataFrame:
    """Read a table with a row a node, whoever wrote it.

    Args:
        file: The Parquet file.
        schema: Its columns.
        most: Limit on its rows; a few bytes of Parquet can encode any number of rows.
        limit: Why it has no more, for the error.

    Returns:
        The table.

    Raises:
        StoreError: if it cannot be read, or has other columns or more rows.
    """
    try:
        with file.open("rb") as handle:  # by name, polars would expand `*`, `[x]` and `key=value`
            found = pl.read_parquet_schema(handle)
            if found != schema:
                raise StoreError(f"{file} has columns {_shown(found)}, not {_shown(schema)}")
            rows = pl.scan_parquet(handle).select(pl.len()).collect().item()
            if rows > most:
                raise StoreError(f"{file} has {rows} nodes, {limit}")
            return pl.read_parquet(handle)
    # A panic of polars on a damaged file is no subclass of Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise StoreError(f"{file} is not a readable Parquet file ({first_line(error)})") from None


def _shown(schema: Mapping[str, Any]) -> str:
    """Return names and types of the columns of any table, for an error."""
    return printable(", ".join(f"{name} {kind}" for name, kind in schema.items()), 300)


def check_covered(partition: NDArray[Any], taxonomy: Taxonomy, name: str, path: Path) -> None:
    """Check that a taxonomy has a class for every node.

    Args:
        partition: AV1 ids of the nodes, integers, shape (n,).
        taxonomy: The taxonomy.
        name: Name of the taxonomy.
        path: The dataset folder, for the error.

    Raises:
        StoreError: counting the nodes it does not cover.
    """
    counts = np.bincount(partition.astype(np.int64), minlength=len(Partition))
    foreign = {p.name: int(counts[p]) for p in Partition if p not in taxonomy.partitions}
    listed = ", ".join(f"{count} {type_}" for type_, count in foreign.items() if count)
    if listed:
        raise StoreError(
            f"{path} has {listed} nodes, which taxonomy {name} does not cover: use "
            "taxonomy=v6_1to4, or build with one_to_four=false"
        )
