"""Compute the worth of types that `policy=worth` goes by.

    .venv/bin/python experiments/encoder/worth.py times AOMENC PICTURE...
    .venv/bin/python experiments/encoder/worth.py table DATASET COSTS

The first encodes pictures with an aomenc that was built with worth/times.patch, and writes
worth/times.csv: how often libaom's leaf search was called for each block size and type, and the
time stamps that it took. The second reads it and the regrets of `av1part data costs`, and writes
worth/table.csv: for each node size and type the mean regret, the time of trying it in units of HORZ
at 16x16, and the worth, which is the square root of the one over the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from av1part.data.build.libaom import encoder_arguments
from av1part.data.build.sources import find_sources, open_sources
from av1part.data.build.yuv import write_y4m
from av1part.data.store.costs import read_regrets
from av1part.data.store.store import Store
from av1part.partition import SIZES, Partition, legal_partitions
from av1part.system.files import write_csv

HERE = Path(__file__).parent / "worth"
CQ_LEVELS = (20, 32, 43, 55)
CPU_USED = 1


def leaf_times(aomenc: str, pictures: list[str]) -> pl.DataFrame:
    """Encode the first frame of pictures, and add up the times of all encodes."""
    tables = []
    for source in open_sources(find_sources(pictures)):
        planes = next(iter(source.frames(1)))
        depth = source.reader.bit_depth
        with tempfile.TemporaryDirectory() as folder:
            y4m, times = Path(folder) / "frame.y4m", Path(folder) / "times.csv"
            write_y4m(y4m, [planes], depth)
            for cq_level in CQ_LEVELS:
                arguments = encoder_arguments(
                    cq_level, bit_depth=depth, cpu_used=CPU_USED, one_to_four=True
                )
                subprocess.run(
                    [aomenc, *arguments, "--sb-size=64", "-o", f"{folder}/frame.ivf", str(y4m)],
                    env={**os.environ, "AV1PART_TIMES": str(times)},
                    check=True,
                    capture_output=True,
                )
                tables.append(pl.read_csv(times))
    key = ["width", "height", "type"]
    return pl.concat(tables).group_by(key).agg(pl.sum("calls", "cycles")).sort(key)


def node_size(width: int, height: int, type_: Partition) -> int:
    """Return the size of the node that a block of the leaf search belongs to."""
    ab = type_ in (Partition.HORZ_A, Partition.HORZ_B, Partition.VERT_A, Partition.VERT_B)
    # An AB type has two squares of half the side, and a rectangle as long as the side.
    return 2 * width if ab and width == height else max(width, height)


def times_of_types(times: pl.DataFrame) -> dict[tuple[int, int], float]:
    """Return the time stamps of trying each type at a node of each size.

    That of SPLIT is the time of all that was searched below a node that was split.
    """
    samples: dict[tuple[int, int], int] = {}
    cycles: dict[tuple[int, int], int] = {}
    for width, height, type_, calls, spent in times.iter_rows():
        key = node_size(width, height, Partition(type_)), type_
        samples[key] = samples.get(key, 0) + calls * width * height
        cycles[key] = cycles.get(key, 0) + spent
    time = {key: cycles[key] / (samples[key] / key[0] ** 2) for key in samples}
    for size in SIZES:
        below = sum(spent for (side, _), spent in cycles.items() if side < size)
        time[size, Partition.SPLIT] = below / (samples[size // 2, Partition.NONE] / size**2)
    return time


def table_of(dataset: str, costs: str, times: pl.DataFrame) -> list[dict[str, Any]]:
    """Return a row for each node size and type, from large to small."""
    store = Store.open(dataset)
    nodes = np.flatnonzero(
        store.nodes["sequence"].is_in(pl.read_parquet(costs)["sequence"].implode())
    )
    regrets = store.nodes[nodes].with_columns(regret=read_regrets(Path(costs), store, nodes))
    regrets = regrets.with_columns(pl.col("regret").fill_nan(None))
    means = {
        (size, type_): (nodes, mean)
        for size, type_, nodes, mean in regrets.group_by("size", "partition")
        .agg(pl.len(), pl.mean("regret"))
        .iter_rows()
    }
    time = times_of_types(times)
    unit = 16, Partition.HORZ
    rows = []
    for size in sorted(SIZES, reverse=True):
        for type_ in sorted(legal_partitions(size)):
            nodes, mean = means[size, type_]
            relative = time[size, type_] / time[unit]
            rows.append(
                {
                    "size": size,
                    "type": Partition(type_).name,
                    "nodes": nodes,
                    "regret_ppm": round(1e6 * mean, 1),
                    "time": round(relative, 2),
                    "worth": float(f"{(mean / means[unit][1]) ** 0.5 / relative:.2g}"),
                }
            )
    return rows


def main(words: list[str]) -> None:
    """Run the part that the first word names."""
    times = HERE / "times.csv"
    match words:
        case ["times", aomenc, *pictures] if pictures:
            write_csv(times, leaf_times(aomenc, pictures).to_dicts())
        case ["table", dataset, costs]:
            write_csv(HERE / "table.csv", table_of(dataset, costs, pl.read_csv(times)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
