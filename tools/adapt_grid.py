"""What steps and prior of `av1part adapt` are worth, on the pictures of the embedded dataset.

    .venv/bin/python tools/adapt_grid.py [--bundle pretrained] [--steps 5 10] [--prior 300 1000]

Each picture is adapted to on the superblocks of its upper half, and scored on those of its lower
half behind a superblock. Its labels have no 1:4 partitions, so these are left out of the network's
answers too: that there are none is not counted as something learnt. Printed is the change in log
loss, nats, of each node size: the mean over pictures, and how many pictures got worse.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
import torch

from av1part import embedded
from av1part.data.store.store import Store
from av1part.metrics.calibration import negative_log_likelihood
from av1part.partition import SIZES, SUPERBLOCK, Partition
from av1part.predictors.adapted import NodeHead
from av1part.predictors.adapting import NodeFeatures, Steps, node_features, preconditioned_steps
from av1part.predictors.bundle import read_bundle
from av1part.predictors.clip import ClipPart
from av1part.predictors.superblock import SuperblockPredictor

LEAST_NODES = 20
"""Nodes of a size that both halves of a picture must have."""


def halves(
    network: SuperblockPredictor, store: Store, picture: str
) -> dict[int, list[NodeFeatures]]:
    """Return the nodes of both halves by size; node rows are told from the views' maps."""
    part = ClipPart(store, picture, {0: 0})
    half = store.plane(picture).shape[1] // 2 // SUPERBLOCK * SUPERBLOCK
    found: dict[int, list[NodeFeatures]] = {}
    for upper in (True, False):
        views = []
        for view in part:
            types = {}
            for size, own in view.types.items():
                row = np.arange(len(own)) * size
                kept = row + size <= half if upper else row >= half + SUPERBLOCK
                types[size] = np.where(kept[:, None], own, -1)
            views.append(type(view)(**{**vars(view), "types": types}))
        for size, nodes in node_features(network, views).items():
            found.setdefault(size, []).append(nodes)
    return {
        size: both
        for size, both in found.items()
        if len(both) == 2 and min(len(nodes.labels) for nodes in both) >= LEAST_NODES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="pretrained")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--prior", type=float, nargs="+", default=[100, 300, 1000, 3000])
    args = parser.parse_args()
    torch.set_num_threads(1)
    network, store = read_bundle(args.bundle).predictor, Store.open(embedded.STORE)
    assert isinstance(network, SuperblockPredictor)
    pictures = [halves(network, store, picture) for picture in store.sequences]
    print("steps  prior     mean  " + "  ".join(f"{size:>2}x{size:<2} worse" for size in SIZES))
    for steps, prior in product(args.steps, args.prior):
        means, cells = [], []
        for size in SIZES:
            changes = []
            known = [t < Partition.HORZ_4 for t in network.module.classifier.types[size]]
            start = NodeHead.of(network.module.classifier.head[str(size)]).matrix()[known]
            for upper, lower in (own[size] for own in pictures if size in own):
                head = preconditioned_steps(upper, start, Steps(steps, 1.0, prior))
                after, before = (
                    negative_log_likelihood(lower.design @ h.T, lower.labels) for h in (head, start)
                )
                changes.append(after - before)
            means.append(np.mean(changes))
            cells.append(f"{means[-1]:+.4f} {sum(c > 0 for c in changes)}/{len(changes)}")
        print(f"{steps:5d} {prior:6g}  {np.mean(means):+.4f}  " + "  ".join(cells))


if __name__ == "__main__":
    main()
