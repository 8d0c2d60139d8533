"""The study's protocol: 50 epochs of 152,600 training and 38,300 val blocks at batch 128.

The blocks are drawn with replacement from those of a store (Kodak's, or the embedded one), so that
an epoch is as long as the study's. Verification is as configured by default.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resampled import prepare

from av1part.cli.main import main

BLOCKS = {"train": 152_600, "val": 38_300}
"""Of the study's Stage 2."""
METHODS = {
    "frozen": (["method=frozen"], 9),
    "adapter": (["method=adapter", "adapter.layers=[1,2,3,4]"], 28),
}
"""Name to its words, and the minutes it may take on 2 cores."""


def run(
    folder: Path,
    *,
    store: str | None = None,
    epochs: int = 50,
    device: str = "cpu",
    methods: Sequence[str] = tuple(METHODS),
) -> Iterator[Any]:
    """Yield a row a method.

    Args:
        folder: For runs and cache.
        store: Dataset; None is the embedded one.
        epochs: Of the 50; minutes are scaled to 50, features and start apart.
        device: A config of the trainer group, `cpu` or `gpu`.
        methods: Which of `METHODS`.

    Raises:
        SystemExit: if a run failed.
    """
    store = None if store is None else str(Path(store).resolve())
    prepare(folder, BLOCKS)
    words = ["train", "stage=stage2", "backbone.weights=start.pt", f"trainer={device}"]
    words += ["callbacks.patience=null", f"trainer.max_epochs={epochs}", "logger=none"]
    words += [f"cache.folder={folder / 'cache'}", *([f"data.path={store}"] if store else [])]
    for method in methods:
        own, limit = METHODS[method]
        name = f"run-{time.time_ns()}"
        started = time.perf_counter()
        if main([*words, *own, f"name={name}"]):
            raise SystemExit("the run failed, see above")
        wall = time.perf_counter() - started
        timing = json.loads(Path(f"runs/{name}/timing.json").read_text())
        yield row(method, epochs, wall, timing, limit)


def row(
    method: str, epochs: int, wall: float, timing: Mapping[str, Any], limit: int
) -> dict[str, Any]:
    """Return what a run came to.

    Args:
        method: Its name.
        epochs: It had.
        wall: Seconds from the command to its end.
        timing: Its timing.json.
        limit: Minutes it may take.
    """
    once = wall - timing["seconds"]
    return {
        "what": method,
        "batch": 128,
        "epochs": epochs,
        "minutes": wall / 60,
        "minutes_of_50": (once + timing["seconds"] * 50 / epochs) / 60,
        "limit": limit,
        "blocks_per_second": timing["blocks_per_second"],
        "features_percent": 100 * timing["features_seconds"] / wall,
        "training_percent": 100 * sum(timing["epoch_seconds"]) / wall,
        "validation_percent": 100 * timing["validation_seconds"] / wall,
        "verification_percent": 100 * timing["verification_seconds"] / wall,
    }
