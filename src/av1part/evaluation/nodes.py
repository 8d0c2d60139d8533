"""Records of evaluated nodes in a run folder: their columns, sample blocks and one frame."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from av1part.data.serve.blocks import BlockReader
from av1part.data.store.store import Store

MOST_SAMPLES = 500
"""Largest number of blocks in samples.npz."""


def node_columns(store: Store, node: NDArray[np.int64]) -> pl.DataFrame:
    """Return `node`, `sequence` and `qindex` of these node numbers, in their order.

    `sequence` is the group where the store has groups: intervals resample, and reports count,
    clips and not the block sizes of a clip.
    """
    columns = store.nodes[node].select(pl.col("sequence").replace(store.groups), "qindex")
    return pl.DataFrame({"node": node}).hstack(columns)


def choose_samples(
    reader: BlockReader, label: NDArray[np.int64], prediction: NDArray[np.int64]
) -> dict[str, ArrayLike]:
    """Choose blocks spread over a split, and one frame with all of its nodes.

    The frame, at one qindex, is the one with the most nodes; of several, the first.

    Args:
        reader: The split that was evaluated, in node order.
        label: True class, or AV1 id, of each of its nodes, shape (n,).
        prediction: Predicted class or AV1 id, shape (n,).

    Returns:
        The arrays of samples.npz, see `runs.samples.write_samples`.
    """
    count = len(reader)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_SAMPLES)).astype(np.int64))
    batch = reader[chosen]
    table = reader.store.nodes[reader.nodes].with_columns(
        node=pl.Series(reader.nodes), label=pl.Series(label), prediction=pl.Series(prediction)
    )
    key = ["sequence", "frame", "qindex"]
    most = (
        table.group_by(key, maintain_order=True)
        .len()
        .sort("len", *key, descending=[True] + 3 * [False])
    )
    sequence, frame, qindex, _ = most.row(0)
    shown = table.filter(sequence=sequence, frame=frame, qindex=qindex)
    columns = ("row", "col", "size", "partition", "label", "prediction", "node")
    return {
        **{k: batch[k].numpy() for k in ("block", "node", "qindex", "partition")},
        "label": label[chosen],
        "prediction": prediction[chosen],
        "bit_depth": np.int64(reader.store.bit_depth()),
        "frame": np.asarray(reader.store.plane(sequence)[frame]),
        "frame_sequence": np.str_(sequence),
        "frame_qindex": np.int64(qindex),
        **{f"frame_{column}": shown[column].to_numpy() for column in columns},
    }
