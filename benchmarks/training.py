"""Training: an epoch of `av1part train` after the first, against a plain loop in memory.

The peer has its blocks and labels in tensors, draws a permutation, indexes batches out of it, and
computes no gradient below the first trained part: the same network, head, loss, optimizer, batch
and threads, without Lightning, checks, checkpoints and the cache; in PyTorch's usual memory format
(nchw), as such a loop is mostly written, and in the faster one (nhwc).
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eager import FORMATS, Eager
from measure import paired
from resampled import prepare

from av1part.cli.main import main
from av1part.data.serve.datamodule import BlockDataModule
from av1part.models.backbone import LEVELS
from av1part.models.classifier import Classifier
from av1part.models.freeze import thaw_epochs
from av1part.models.losses import build_loss

METHODS: dict[str, tuple[str, list[int]]] = {
    "frozen": ("method=frozen", []),
    "adapter {4}": ("adapter.layers=[4]", [4]),
    "adapter {3,4}": ("adapter.layers=[3,4]", [3, 4]),
    "adapter {1,2,3,4}": ("adapter.layers=[1,2,3,4]", [1, 2, 3, 4]),
}
TARGETS = {  # (floor, goal) by batch: see docs/performance.md
    "frozen": {128: (8, 12), 2048: (12, 30)},
    "adapter {4}": {128: (6, 8), 2048: (10, 15)},
    "adapter {3,4}": {128: (3, 4), 2048: (4.5, 6)},
    "adapter {1,2,3,4}": {128: (2.5, 3), 2048: (2.5, 3)},
}
BLOCKS = {"train": 32_768, "val": 2048}
"""Drawn from the embedded ones, so that an epoch has as many steps as one in use."""
MOST_BLOCKS = 4096
"""Of the plain loop: some seconds of it, its rate is even."""
HEAD = {"kind": "mlp", "dropout": 0.5, "hidden": [256, 128]}


def run(folder: Path, *, repeats: int = 3, batches: tuple[int, ...] = (128, 2048)) -> Iterator[Any]:
    """Yield a row a method, batch size and memory format of the peer.

    Args:
        folder: For runs and cache.
        repeats: Pairs of each.
        batches: Sizes of training batches.
    """
    data = prepare(folder, BLOCKS)(stage="stage2")
    train = data.reader("train")
    whole = train[np.arange(len(train))]
    for method, (word, layers) in METHODS.items():
        for batch in batches:
            rates: dict[str, list[float]] = {"ours": [], **{name: [] for name in FORMATS}}
            for _ in range(repeats):
                rates["ours"].append(ours(word, batch))
                for name in FORMATS:
                    rates[name].append(plain(whole, data, layers, batch, name, MOST_BLOCKS))
            floor, goal = TARGETS[method][batch]
            for name in FORMATS:
                yield {
                    "what": f"{method} against plain {name}",
                    "batch": batch,
                    **vars(paired(rates["ours"], rates[name])),
                    "floor": floor,
                    "goal": goal,
                }


def ours(word: str, batch: int) -> float:
    """Train for three epochs; return the median rate of all but the first.

    Raises:
        SystemExit: if the run failed.
    """
    name = f"run-{time.time_ns()}"
    words = ["train", "stage=stage2", word, "backbone.weights=start.pt", f"name={name}"]
    words += [f"data.batch_size={batch}", "trainer.max_epochs=3", "logger=none"]
    words += ["cache.folder=cache", "callbacks.plots=false", "callbacks.patience=null"]
    if main(words):
        raise SystemExit("the run failed, see above")
    return run_rate(Path("runs", name))


def run_rate(folder: Path) -> float:
    """Return blocks, or crops, a second of a run: the median of all epochs but the first."""
    timing = json.loads((folder / "timing.json").read_text())
    blocks = timing["epoch_blocks"]
    rates = [b / s for b, s in zip(blocks, timing["epoch_seconds"], strict=True)]
    return statistics.median(rates[1:])


def plain(
    whole: dict[str, torch.Tensor],
    data: BlockDataModule,
    layers: list[int],
    batch: int,
    memory_format: str,
    blocks: int | None = None,
) -> float:
    """Train an epoch (or so many blocks) in a plain loop; return its rate."""
    model = Classifier(
        classes=3,
        bit_depth=8,
        backbone={},
        head=HEAD,
        adapter={"layers": layers} if layers else None,
        thaw=thaw_epochs("frozen", {}),
    )
    network = Eager(model, FORMATS[memory_format]).train()
    loss_of = build_loss(data.class_counts(), kind="cb_focal")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-4, weight_decay=1e-4, fused=True)
    labels = torch.from_numpy(data.stage.labels)[whole["partition"]]
    cut = min(layers, default=LEVELS[-1])
    started = time.perf_counter()
    order = torch.randperm(len(labels))[:blocks]
    for index in order.split(batch):
        loss = loss_of(network(whole["block"][index], cut), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(order) / (time.perf_counter() - started)
