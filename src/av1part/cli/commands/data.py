"""`av1part data build`, `data import`, `data costs` and `data info`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from av1part.config.check import plain
from av1part.data.build.build import build_dataset
from av1part.data.legacy.contents import LEFT_OUT
from av1part.data.store.store import Store
from av1part.encoder.regrets import write_dataset_costs
from av1part.partition import Partition
from av1part.system.errors import ConfigError
from av1part.system.files import expanded
from av1part.system.terminal import printable


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Build, import or verify a dataset, and print its counts.

    Args:
        verb: `data build`, `data import`, `data costs` or `data info`.
        cfg: The composed configuration of the verb.
        words: Sources to build from; layout and folder to import; a dataset and its sources; or
            the one dataset folder.

    Raises:
        ConfigError: if `out` is missing where something is made.
    """
    if verb == "data info":
        store = Store.open(words[0], verify="full")
    else:
        if OmegaConf.is_missing(cfg, "out"):
            kind = "FILE, the file" if verb == "data costs" else "DIR, the folder"
            raise ConfigError(f"av1part {verb} needs out={kind} to make")
        settings = plain(cfg)
        out = expanded(settings.pop("out"))
        if verb == "data costs":
            _print_regrets(write_dataset_costs(words[0], words[1:], out, **settings), out)
            return
        if verb == "data build":
            store = build_dataset(list(words), out, **settings)
        else:
            from av1part.data.legacy.importer import import_dataset  # imports torch

            store = import_dataset(words[0], words[1], out, **settings)
    _print_counts(store)
    if verb == "data info":
        _print_sequences(store.manifest)
    _print_import(store.manifest)


def _print_regrets(regrets: pl.DataFrame, out: Path) -> None:
    """Print how many regrets of each size are known, and what they are."""
    sums = regrets.group_by("size").agg(
        pl.len().alias("nodes"),
        pl.col("regret").is_not_null().mean().alias("known"),
        *(pl.col("regret").quantile(q).alias(f"q{q}") for q in (0.5, 0.9)),
        pl.col("regret").mean().alias("mean"),
    )
    table = Table(
        *("size", "nodes", "known", "median", "9 of 10 below", "mean"),
        title="regret of a node, millionths of its frame's cost",
        title_justify="left",
    )
    for size, nodes, known, *figures in sums.sort("size").iter_rows():
        shown = ("" if value is None else f"{1e6 * value:.3g}" for value in figures)
        table.add_row(str(size), f"{nodes:,}", f"{known:.1%}", *shown)
    Console().print(table)
    print(out)


def _print_import(manifest: Mapping[str, Any]) -> None:
    """Print the counts of what an import left out, and the protocols of its dataset."""
    for reason, count in manifest.get("left_out", {}).items():
        print(f"left out: {count:,} {LEFT_OUT.get(reason, reason)}")
    if "protocols" in manifest:
        print(f"train with data.protocol={' or data.protocol='.join(manifest['protocols'])}")


def _print_sequences(manifest: Mapping[str, Any]) -> None:
    """Print how each sequence's source codes its frames, as far as its manifest says."""
    facts = manifest["sequences"]
    rows = {name: entry for name, entry in facts.items() if isinstance(entry.get("coding"), dict)}
    if not rows:
        return
    columns = ("frames", "width", "height", "bit_depth", "conversion")
    coding = ("pixel_format", "range", "matrix", "scan", "orientation", "alpha", "end")
    table = Table("sequence", *columns, *coding, title="sources", title_justify="left")
    for name, entry in rows.items():
        values = [entry.get(key, "") for key in columns]
        values += [entry["coding"].get(key, "") for key in coding]
        table.add_row(name, *(printable(str(value), 40) for value in values))
    Console(width=160).print(table)


def _print_counts(store: Store) -> None:
    """Print nodes per size and type, then per sequence and qindex."""
    console = Console()
    console = Console(width=max(console.width, 110))  # room for ten types and two keys
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
