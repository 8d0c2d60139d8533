"""What a dataset folder must hold: columns, names, the manifest's form, and the checks of each.

`store` reads and writes folders; the rules they must meet are here.
"""

from __future__ import annotations

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

NODES = "nodes.parquet"
"""Name of the table, beside the manifest."""

QINDEXES = 256
"""Quantiser indexes there are, 0 to 255."""

BIT_DEPTHS = range(8, 17)
"""Bits a sample that a plane may have."""

SEQUENCE_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""What a sequence may be called; it becomes a file name."""


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
        said = printable(str(sorted(unknown)), 300)
        raise StoreError(f"{name} has nodes of sequences without a plane: {said}")
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
        # Subtracted, since the 32-bit sum of a damaged row and a size can wrap round.
        & (pl.col("row") <= pl.col("height") - pl.col("size"))
        & (pl.col("col") <= pl.col("width") - pl.col("size"))
    )
    for what, good in (("is outside its plane", inside), ("has a type its size forbids", legal)):
        bad = placed.filter(~good.fill_null(False))
        if bad.height:
            first = bad.select(list(NODE_SCHEMA)).row(0, named=True)
            raise StoreError(f"{name}: {bad.height} nodes, the first being {first}: it {what}")
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
    if manifest.get("format") != FORMAT:
        made_by = manifest.get("made_by")
        wrote = made_by.get("av1part") if isinstance(made_by, dict) else None
        again = "build the dataset again"
        raise StoreError(refusal(str(file), manifest.get("format"), FORMAT, wrote, again))
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
    """Check what an import says of what it left out and of how its dataset can be split.

    Raises:
        StoreError: naming the entry that cannot be.
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
    """Return how many nodes planes of that many samples have room for: all sizes and qindexes."""
    return sum(samples // (size * size) for size in SIZES) * QINDEXES


def check_inside(file: Path, folder: Path) -> None:
    """Check that a file of a dataset is in its folder, not linked in from elsewhere.

    Args:
        file: The file, there or not.
        folder: The dataset folder, which may itself be reached by a link.

    Raises:
        StoreError: naming the file, if not.
    """
    if leads_out(file, folder):
        raise StoreError(f"{file} is a link that leads out of its dataset: copy the file there")


def check_sha256(file: Path, digest: str) -> None:
    """Check that a file is there and has this SHA-256.

    Args:
        file: The file.
        digest: Lower-case hexadecimal.

    Raises:
        StoreError: naming the file, if not.
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
        file: Its nodes.parquet.
        most: Rows that it can have; a few bytes of Parquet can stand for any number of them.

    Returns:
        The table, with the columns of `NODE_SCHEMA`.

    Raises:
        StoreError: naming the file, if it is not Parquet with the columns of `NODE_SCHEMA`, all
            filled, or has more rows.
    """
    try:
        with file.open("rb") as handle:  # by name, polars would expand `*`, `[x]` and `key=value`
            schema = pl.read_parquet_schema(handle)
            if schema != NODE_SCHEMA:
                raise StoreError(f"{file} has columns {_shown(schema)}, not {_shown(NODE_SCHEMA)}")
            rows = pl.scan_parquet(handle).select(pl.len()).collect().item()
            if rows > most:
                raise StoreError(
                    f"{file} has {rows} nodes, its planes have room for {most}: restore the file "
                    "or build the dataset again"
                )
            nodes = pl.read_parquet(handle)
    # A panic of polars on a damaged file is an error like any other, though no Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise StoreError(f"{file} is not a readable Parquet file ({first_line(error)})") from None
    if sum(nodes.null_count().row(0)):
        raise StoreError(f"{file} has empty cells")
    return nodes


def _shown(schema: Mapping[str, Any]) -> str:
    """Return the columns of a table, which may be a foreign one, in a few words."""
    return printable(", ".join(f"{name} {kind}" for name, kind in schema.items()), 300)


def check_covered(partition: NDArray[Any], taxonomy: Taxonomy, name: str, path: Path) -> None:
    """Check that a taxonomy has a class for every node.

    Args:
        partition: AV1 ids of the nodes, integers, shape (n,).
        taxonomy: The taxonomy.
        name: What it is called.
        path: The dataset folder, for the error.

    Raises:
        StoreError: counting the types that it does not cover.
    """
    counts = np.bincount(partition.astype(np.int64), minlength=len(Partition))
    foreign = {p.name: int(counts[p]) for p in Partition if p not in taxonomy.partitions}
    foreign = {each: count for each, count in foreign.items() if count}
    if foreign:
        said = ", ".join(f"{count} {each}" for each, count in foreign.items())
        raise StoreError(
            f"{path} has {said} nodes, which taxonomy {name} does not cover: use "
            "taxonomy=v6_1to4, or build with one_to_four=false"
        )
