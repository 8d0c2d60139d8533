"""Lightning's share of a step: `av1part train` on cached features against the bare step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import compare
from resampled import prepare
from training import BLOCKS, HEAD, ours

from av1part.data.serve.blocks import EpochBatches, FeatureReader
from av1part.data.serve.datamodule import BlockDataModule
from av1part.models.classifier import POOLED, Classifier
from av1part.models.freeze import thaw_epochs
from av1part.models.losses import build_loss


def run(folder: Path, *, repeats: int = 3) -> Iterator[Any]:
    """Yield a row: a frozen trunk and a head, batch 128.

    Args:
        folder: For runs and cache.
        repeats: Pairs.
    """
    data = prepare(folder, BLOCKS)(stage="stage2")
    batch = 128
    found = compare(
        lambda: ours("method=frozen", batch), lambda: bare(data, batch), repeats=repeats
    )
    per_step = 1e3 * batch * (1 / found.ours - 1 / found.theirs)
    row = {"what": "av1part train against the bare step, frozen", "batch": batch, **vars(found)}
    yield {**row, "milliseconds_a_step": per_step}


def bare(data: BlockDataModule, batch: int) -> float:
    """Train an epoch on features in memory, with nothing around the step; return its rate."""
    model = Classifier(
        classes=3, bit_depth=8, backbone={}, head=HEAD, thaw=thaw_epochs("frozen", {})
    ).train()
    reader = data.reader("train")
    features = FeatureReader(reader, torch.randn(1, len(reader), model.backbone.channels[-1]))
    loss_of = build_loss(data.class_counts(), kind="cb_focal")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-4, weight_decay=1e-4, fused=True)
    labels = torch.from_numpy(data.stage.labels)
    started = time.perf_counter()
    for index in EpochBatches(len(reader), batch, shuffle=True):
        given = features[np.asarray(index)]
        logits = model.from_cut(given["features"], given["qindex"], POOLED)
        loss = loss_of(logits, labels[given["partition"]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(reader) / (time.perf_counter() - started)
