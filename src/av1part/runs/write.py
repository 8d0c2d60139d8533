"""What a run leaves in its folder, so that a report needs neither dataset nor model.

`metrics.json` is written last: a folder that has it is complete.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from numpy.typing import ArrayLike, NDArray

from av1part.data.serve.blocks import BlockReader
from av1part.data.store.store import Store
from av1part.system.environment import git_commit, hardware, versions
from av1part.system.errors import ConfigError
from av1part.system.files import atomic_path, write_csv, write_json, write_text

MOST_SAMPLES = 500
"""Validation blocks that samples.npz holds at most."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def check_run_name(name: str) -> str:
    """Check that `name` may name a run.

    Args:
        name: As the user gave it.

    Returns:
        The name.

    Raises:
        ConfigError: if it holds anything but `[A-Za-z0-9_.-]`, or is a dot name.
    """
    if not _NAME.fullmatch(name) or set(name) == {"."}:
        raise ConfigError(f"name={name!r}: run names are made of [A-Za-z0-9_.-] only")
    return name


def write_config(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write config.yaml, the composed configuration; a run writes it before anything else."""
    write_text(folder / "config.yaml", yaml.safe_dump(dict(settings), sort_keys=False))


def changed_settings(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """List the keys that differ from a folder's config.yaml.

    Left out is what does not change a result: names, places of files (their hashes are compared),
    where checkpoints are read back, progress and loggers.

    Args:
        folder: The run folder.
        settings: The configuration now, plain values.

    Returns:
        Dotted keys, sorted.

    Raises:
        ConfigError: if the file is missing or damaged.
    """
    try:
        then = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        before, now = dict(_flat_settings(then)), dict(_flat_settings(dict(settings)))
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise ConfigError(f"{folder / 'config.yaml'} cannot be read ({error})") from None
    return sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))


_IRRELEVANT = (
    *(
        "name",
        "resume",
        "stage1",
        "data.path",
        "data.split_list",
        "data.num_workers",
        "data.planes",
    ),
    *("backbone.weights", "injection.stage2", "callbacks.verify", "callbacks.progress_bar"),
    *("callbacks.plots", "logger.names", "cache.mode", "cache.folder", "cache.limit_gb"),
)


def relevant_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that may change a result, as dotted keys to values."""
    return dict(_flat_settings(settings))


def _flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat_settings(value, f"{name}.")
        elif name not in _IRRELEVANT:
            yield name, value


def write_confusion(folder: Path, names: Sequence[str], matrix: ArrayLike) -> None:
    """Write confusion.csv: a row a true class, a column a predicted one."""
    counts = np.asarray(matrix).tolist()
    rows = [
        {"true": name, **dict(zip(names, row, strict=True))}
        for name, row in zip(names, counts, strict=True)
    ]
    write_csv(folder / "confusion.csv", rows)


def write_predictions(
    folder: Path,
    nodes: pl.DataFrame,
    columns: Mapping[str, NDArray[Any]],
    names: Sequence[str],
    probabilities: NDArray[Any],
) -> None:
    """Write predictions.parquet.

    Args:
        folder: Run folder.
        nodes: `node`, `sequence`, `qindex` of the nodes, in the order of the arrays.
        columns: Further columns: true and predicted classes.
        names: Classes of the probabilities.
        probabilities: Shape (n, k), stored as float32.
    """
    shares = {f"p.{n}": probabilities[:, i].astype(np.float32) for i, n in enumerate(names)}
    table = nodes.with_columns(**{k: pl.Series(v) for k, v in {**columns, **shares}.items()})
    with atomic_path(folder / "predictions.parquet") as part:
        table.write_parquet(part, compression="zstd")


def node_columns(store: Store, node: NDArray[np.int64]) -> pl.DataFrame:
    """Return `node`, `sequence` and `qindex` of these node numbers, in their order.

    `sequence` is the group where the store has groups: the clip, not one of its block sizes, is
    what intervals resample and reports count.
    """
    columns = store.nodes[node].select(pl.col("sequence").replace(store.groups), "qindex")
    return pl.DataFrame({"node": node}).hstack(columns)


def write_samples(
    folder: Path,
    reader: BlockReader,
    label: NDArray[np.int64],
    prediction: NDArray[np.int64],
) -> None:
    """Write samples.npz: blocks spread over the split, and one frame with all of its nodes.

    The frame is the one, at one qindex, with the most nodes; of equals the first.

    Args:
        folder: Run folder.
        reader: The split that was evaluated, in node order.
        label: Class or AV1 id of each of its nodes, shape (n,).
        prediction: Likewise, predicted.
    """
    count = len(reader)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_SAMPLES)).astype(np.int64))
    batch = reader[chosen]
    table = reader.store.nodes[reader.nodes].with_columns(
        at=pl.int_range(count), label=pl.Series(label), prediction=pl.Series(prediction)
    )
    key = ["sequence", "frame", "qindex"]
    most = (
        table.group_by(key, maintain_order=True)
        .len()
        .sort("len", *key, descending=[True] + 3 * [False])
    )
    sequence, frame, qindex, _ = most.row(0)
    shown = table.filter(sequence=sequence, frame=frame, qindex=qindex)
    arrays: dict[str, Any] = {
        **{k: batch[k].numpy() for k in ("block", "node", "qindex", "partition")},
        "label": label[chosen],
        "prediction": prediction[chosen],
        "bit_depth": np.int64(reader.store.bit_depth()),
        "frame": np.asarray(reader.store.plane(sequence)[frame]),
        "frame_sequence": np.str_(sequence),
        "frame_qindex": np.int64(qindex),
        **{f"frame_{c}": shown[c].to_numpy() for c in ("row", "col", "size", "partition")},
        **{f"frame_{c}": shown[c].to_numpy() for c in ("label", "prediction")},
    }
    packed = io.BytesIO()  # numpy 2.0 and 2.1 leave an archive open whose file takes no more
    np.savez_compressed(packed, **arrays)
    with atomic_path(folder / "samples.npz") as part, part.open("wb") as file:
        file.write(packed.getbuffer())


def write_environment(folder: Path, *, seed: int | None, dataset: Mapping[str, Any]) -> None:
    """Write environment.json: versions, commit, seed, dataset and hardware."""
    write_json(
        folder / "environment.json",
        {
            "versions": versions(),
            "git_commit": git_commit(),
            "seed": seed,
            "dataset": dict(dataset),
            "hardware": hardware(),
        },
    )
