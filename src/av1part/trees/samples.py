"""Features of a dataset's nodes, a frame at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from av1part.data.store.store import Store
from av1part.trees.features import feature_names, node_features


def store_features(store: Store, nodes: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    """Compute the features of nodes of one size.

    Args:
        store: The dataset.
        nodes: Node numbers, rows of its table, all of nodes of `size`.
        size: Side of the nodes.

    Returns:
        Float32 `[n, F]`, in the order of `nodes`.
    """
    names = feature_names(size)
    found = np.empty((len(nodes), len(names)), np.float32)
    table = store.nodes[nodes].with_row_index("number")
    for (sequence, frame), of_frame in table.group_by("sequence", "frame", maintain_order=True):
        depth = int(store.manifest["sequences"][sequence]["bit_depth"])
        features = node_features(store.plane(str(sequence))[int(frame)], depth, size)
        for (qindex,), group in of_frame.group_by("qindex", maintain_order=True):
            at = group["row"].to_numpy() // size, group["col"].to_numpy() // size
            found[group["number"].to_numpy()] = features.at(int(qindex))[at]
    return found
