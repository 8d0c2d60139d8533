"""Write what a store holds in the study's layouts, by code that shares nothing with the importers.

And read partition frames independently: who is in the tree is found by walking up, node by node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter

BLOCK_SIZE = {8: 3, 16: 6, 32: 9, 64: 12}
# Partition id to the labels of stage 1, 2, 3 RECT and 3 AB, typed out on purpose.
V6_LABELS = {
    0: (0, -1, -1, -1),
    1: (1, 1, 0, -1),
    2: (1, 1, 1, -1),
    3: (1, 0, -1, -1),
    4: (1, 2, -1, 0),
    5: (1, 2, -1, 1),
    6: (1, 2, -1, 2),
    7: (1, 2, -1, 3),
}
STAGE_KEYS = ("labels_stage1", "labels_stage2", "labels_stage3_RECT", "labels_stage3_AB")
NODE = ["frame", "qindex", "size", "row", "col", "partition"]


def ten_bit(
    store: Store, out: Path, *, side: int, qindex: int | None = None, most: int = 99
) -> Store:
    """Return a corner of a store's pictures in 10 bits, with the nodes that lie in it."""
    writer = StoreWriter(out, {"made": "by the tests"})
    sequences = [s for s in store.sequences if min(store.plane(s).shape[1:]) >= side][:most]
    for name in sequences:
        luma = store.plane(name)[:, :side, :side].astype(np.uint16) << 2
        writer.add_plane(name, luma, 10)
    inside = (pl.col("row") + pl.col("size") <= side) & (pl.col("col") + pl.col("size") <= side)
    nodes = store.nodes.filter(inside & pl.col("sequence").is_in(sequences))
    if qindex is not None:
        nodes = nodes.filter(qindex=qindex)
    return writer.finish(nodes, {s: {"bit_depth": 10} for s in sequences}, {})


def cut(store: Store, nodes: pl.DataFrame) -> np.ndarray:
    """Return the blocks of nodes of one size, uint16 `[n, size, size]`, one by one."""
    return np.stack(
        [
            store.plane(s)[f, r : r + z, c : c + z].astype(np.uint16)
            for s, f, r, c, z in nodes.select("sequence", "frame", "row", "col", "size").iter_rows()
        ]
    )


def write_raw_blocks(folder: Path, seq: str, blocks: Any, labels: Any, qps: Any) -> None:
    """Write one clip and size in the layout raw-blocks."""
    size = blocks.shape[1]
    for side in ("intra_raw_blocks", "labels", "qps"):
        (folder / side).mkdir(parents=True, exist_ok=True)
    data = blocks.astype("<u2").tobytes()
    (folder / "intra_raw_blocks" / f"{seq}_sample_{size}.txt").write_bytes(data)
    for side, values in (("labels", labels), ("qps", qps)):
        text = " ".join(str(int(v)) for v in values) + " "
        (folder / side / f"{seq}_{side}_{size}_intra.txt").write_text(text)


def v6_tensors(blocks: Any, labels: Any, qps: Any) -> dict[str, torch.Tensor]:
    """Return what a file of the layout v6-pt holds, as the study made it."""
    stages = np.array([V6_LABELS[int(p)] for p in labels]).T
    return {
        "samples": torch.from_numpy(blocks.astype(np.float32))[:, None] / 1023.0,
        "labels_stage0": torch.tensor([int(p) for p in labels]),
        **{key: torch.from_numpy(row.copy()) for key, row in zip(STAGE_KEYS, stages, strict=True)},
        "qps": torch.tensor([int(q) for q in qps]),
    }


def write_yuv(file: Path, luma: Any) -> None:
    """Write luma `[frames, height, width]` as 10-bit planar 4:2:0 with grey chroma."""
    chroma = np.full(2 * ((luma.shape[1] + 1) // 2) * ((luma.shape[2] + 1) // 2), 512, "<u2")
    with file.open("wb") as out:
        for frame in luma:
            out.write(frame.astype("<u2").tobytes() + chroma.tobytes())


def frame_lines(nodes: pl.DataFrame, hint: int = 0, kind: int = 0) -> list[str]:
    """Return a line a node of the layout partition-frames."""
    columns = ("size", "row", "col", "partition", "qindex")
    return [
        f"{hint} {kind} {BLOCK_SIZE[s]} {r // 4} {c // 4} {p} {q}"
        for s, r, c, p, q in nodes.select(columns).iter_rows()
    ]


def in_tree(lines: Iterable[Mapping[str, int]], height: int, width: int) -> set[tuple[int, ...]]:
    """Return `(qindex, size, row, col, partition)` of the nodes to keep, found one by one."""
    found = {(n["qindex"], n["size"], n["row"], n["col"]): n["partition"] for n in lines}
    largest = max((key[1] for key in found), default=0)

    def belongs(qindex: int, size: int, row: int, col: int) -> bool:
        up = 2 * size
        parent = (qindex, up, row - row % up, col - col % up)
        if parent in found:
            return found[parent] == 3 and belongs(*parent)
        over = parent[2] + up > height or parent[3] + up > width
        return size == largest or (over and (up > largest or belongs(*parent)))

    return {
        (*key, partition)
        for key, partition in found.items()
        if belongs(*key) and key[2] + key[1] <= height and key[3] + key[1] <= width
    }
