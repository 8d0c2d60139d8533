"""`av1part data build` and `av1part data info`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from av1part.configuration import plain
from av1part.data.build import build_dataset
from av1part.data.store import Store
from av1part.errors import ConfigError
from av1part.partition import Partition


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Build a dataset, or verify one, and print its counts.

    Args:
        verb: `data build` or `data info`.
        cfg: The composed configuration of the verb.
        words: Sources to build from, or the one dataset folder.

    Raises:
        ConfigError: if `data build` is not told where to build.
    """
    if verb == "data build":
        if OmegaConf.is_missing(cfg, "out"):
            raise ConfigError("av1part data build needs out=DIR, the folder to make")
        settings = plain(cfg)
        out = Path(str(settings.pop("out"))).expanduser()
        store = build_dataset(list(words), out, **settings)
    else:
        store = Store.open(words[0], verify="full")
    _print_counts(store)


def _print_counts(store: Store) -> None:
    """Print nodes per size and type, then per sequence and qindex."""
    console = Console()
    console = Console(width=max(console.width, 110))  # ten types and two keys have room
    count = f"{store.nodes.height:,} nodes"
    console.print(f"{store.path}: {count}, every file as its manifest says", soft_wrap=True)
    for keys in (["size"], ["size", "qindex"], ["size", "sequence"]):
        table = Table(*keys, title=f"nodes per {' and '.join(keys)}", title_justify="left")
        types = sorted(store.nodes["partition"].unique())
        for name in (*(Partition(t).name for t in types), "all"):
            table.add_column(name, justify="right")
        counts = store.nodes.group_by(keys).agg(
            *((pl.col("partition") == t).sum().alias(Partition(t).name) for t in types),
            pl.len().alias("all"),
        )
        for row in counts.sort(keys).iter_rows():
            table.add_row(*map(str, row))
        console.print(table)
