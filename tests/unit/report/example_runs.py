"""Run folders as training and pipeline leave them, made in a moment from seeded noise.

Metrics, intervals and the cascade's figures come from the project's own code; only the logits
are invented: the truth plus noise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from av1part.cascade.analysis import analyse
from av1part.cascade.routing import Nodes
from av1part.metrics.intervals import intervals_json, metric_intervals
from av1part.metrics.scores import baselines, from_predictions
from av1part.partition import Taxonomy, taxonomy
from av1part.runs.schema import METRICS_FORMAT
from av1part.runs.write import write_confusion, write_predictions
from av1part.system.files import write_csv, write_json, write_text

SHARES = (0.50, 0.09, 0.11, 0.12, 0.05, 0.04, 0.05, 0.04)
QINDEXES = (80, 172)


@dataclass(frozen=True)
class World:
    """Nodes with the columns of a store's table, and one plane a sequence."""

    nodes: pl.DataFrame
    planes: dict[str, np.ndarray]
    bit_depth: int = 8


def noise_world(seed: int = 0, sequences: int = 4, height: int = 96, width: int = 128) -> World:
    """Return pictures of blurred noise, four fifths of their 16x16 cells nodes of random types."""
    rng = np.random.default_rng(seed)
    planes, rows = {}, []
    for name in (f"picture{i}" for i in range(sequences)):
        coarse = rng.integers(30, 220, (height // 8, width // 8))
        planes[name] = np.kron(coarse, np.ones((8, 8))).astype(np.uint8)
        for qindex in QINDEXES:
            for row in range(0, height, 16):
                for col in range(0, width, 16):
                    if rng.random() < 0.8:
                        type_ = int(rng.choice(8, p=SHARES))
                        rows.append((name, 0, row, col, 16, qindex, type_))
    columns = ["sequence", "frame", "row", "col", "size", "qindex", "partition"]
    return World(pl.DataFrame(rows, schema=columns, orient="row"), planes)


def _logits(rng: np.random.Generator, labels: np.ndarray, k: int, skill: float) -> np.ndarray:
    """Return logits that know the label with some skill; for label -1 they know nothing."""
    logits = rng.normal(size=(len(labels), k))
    known = labels >= 0
    logits[np.flatnonzero(known), labels[known]] += skill
    return logits


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits - logits.max(1, keepdims=True))
    return exponent / exponent.sum(1, keepdims=True)


def _write_samples(
    folder: Path, world: World, nodes: pl.DataFrame, label: np.ndarray, prediction: np.ndarray
) -> None:
    table = nodes.with_columns(label=pl.Series(label), prediction=pl.Series(prediction))
    spread = np.unique(np.linspace(0, table.height - 1, min(500, table.height)).astype(int))
    chosen = table[spread]
    blocks = [
        world.planes[s][r : r + size, c : c + size]
        for s, r, c, size in chosen.select("sequence", "row", "col", "size").iter_rows()
    ]
    own = table.row(-1, named=True)  # not of the first rows of predictions.parquet
    shown = table.filter(
        (pl.col("sequence") == own["sequence"]) & (pl.col("qindex") == own["qindex"])
    )
    np.savez_compressed(
        folder / "samples.npz",
        block=np.stack(blocks)[:, None],
        **{k: chosen[k].to_numpy() for k in ("node", "qindex", "partition", "label", "prediction")},
        bit_depth=np.int64(world.bit_depth),
        frame=world.planes[own["sequence"]],
        frame_sequence=np.str_(own["sequence"]),
        frame_qindex=np.int64(own["qindex"]),
        **{
            f"frame_{k}": shown[k].to_numpy()
            for k in ("row", "col", "size", "partition", "label", "prediction", "node")
        },
    )


def _write_surroundings(
    folder: Path, config: dict[str, Any], seed: int, dataset: dict[str, Any] | None = None
) -> None:
    lines = [f"{key}: {json.dumps(value)}" for key, value in {**config, "seed": seed}.items()]
    write_text(folder / "config.yaml", "\n".join(lines) + "\n")
    write_json(
        folder / "environment.json",
        {
            "versions": {"python": "3.11.9", "torch": "2.9.0", "av1part": "0.1.0"},
            "git_commit": "0123456789abcdef0123456789abcdef01234567",
            "seed": seed,
            "dataset": {
                "path": "/data/example",
                "manifest_sha256": "ab" * 32,
                "split_sha256": "cd" * 32,
                **(dataset or {}),
            },
            "hardware": {"machine": "x86_64", "processor": "a processor", "gpus": []},
        },
    )
    timing = {"seconds": 83.2, "blocks_per_second": 912.5, "fit_peak_memory_bytes": 2**30}
    write_json(folder / "timing.json", timing)


def write_stage_run(
    folder: Path,
    stage_name: str = "stage2",
    *,
    seed: int = 42,
    skill: float = 1.2,
    epochs: int = 6,
    world: World | None = None,
    config: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
) -> Path:
    """Write the folder of a stage run, `dataset` into its environment.json, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    world = world or noise_world()
    rng = np.random.default_rng(seed)
    stage = taxonomy("v6").stage(stage_name)
    names = stage.class_names
    nodes = world.nodes.with_row_index("node")
    labels = stage.labels[nodes["partition"].to_numpy()]
    nodes, labels = nodes.filter(pl.Series(labels >= 0)), labels[labels >= 0]
    probabilities = _softmax(_logits(rng, labels, len(names), skill))
    predictions = probabilities.argmax(1)
    train_counts = np.bincount(labels, minlength=len(names)) + 1
    metrics = _stage_metrics(predictions, labels, names, train_counts, nodes)
    best = _write_history(folder, metrics, names, epochs)
    write_json(
        folder / "metrics.json",
        {
            "stage": stage_name,
            "method": "adapter",
            "taxonomy": "v6",
            "class_names": list(names),
            **metrics,
            "split": "val",
            "protocol": "by_sequence",
            "epoch": best,
            "trainable_parameters": 288_707,
            "total_parameters": 11_502_565,
        },
    )
    write_confusion(folder, names, metrics["confusion_matrix"])
    columns = nodes.select("node", "sequence", "qindex")
    predicted = {"label": labels, "prediction": predictions}
    write_predictions(folder, columns, predicted, names, probabilities)
    _write_samples(folder, world, nodes, labels, predictions)
    _write_records(folder / "checkpoints", metrics["macro_f1"], best, epochs)
    counted = {"class_counts": train_counts.tolist(), **(dataset or {})}
    _write_surroundings(folder, {"stage": stage_name, **(config or {})}, seed, counted)
    return folder


def _stage_metrics(
    predictions: np.ndarray,
    labels: np.ndarray,
    names: tuple[str, ...],
    train_counts: np.ndarray,
    nodes: pl.DataFrame,
) -> dict[str, Any]:
    metrics = from_predictions(predictions, labels, names)
    sequences = nodes["sequence"].to_numpy()
    intervals = metric_intervals(predictions, labels, sequences, train_counts)
    return metrics | {
        "format": METRICS_FORMAT,
        "baselines": baselines(train_counts, labels, names),
        "intervals": intervals_json(intervals),
    }


def _write_history(
    folder: Path, metrics: dict[str, Any], names: tuple[str, ...], epochs: int
) -> int:
    best = max(0, epochs - 2)
    rows = []
    for epoch in range(epochs):
        reached = 1 - 0.5 * np.exp(-epoch) if epoch <= best else 0.95
        at_best = 1.0 if epoch == best else min(reached, 0.99)
        rows.append(
            {
                "epoch": epoch,
                "train_loss": 0.6 * np.exp(-epoch / 5) + 0.3,
                "val_loss": 0.5 * np.exp(-epoch / 4) + 0.42 + 0.01 * max(0, epoch - best),
                "macro_f1": metrics["macro_f1"] * at_best,
                "accuracy": metrics["accuracy"] * at_best,
                **{f"f1.{n}": metrics["per_class"][n]["f1"] * at_best for n in names},
                "lr.adapter": 1e-4 * np.cos(epoch / epochs * np.pi / 2),
                "lr.head": 5e-4 * np.cos(epoch / epochs * np.pi / 2),
            }
        )
    write_csv(folder / "history.csv", rows)
    return best


def _write_records(folder: Path, macro_f1: float, best: int, epochs: int) -> None:
    for stem, epoch in (("best", best), ("last", epochs - 1)):
        write_json(
            folder / f"{stem}.verified.json",
            {
                "file": f"{stem}.ckpt",
                "sha256": "cd" * 32,
                "file_sha256": "ef" * 32,
                "epoch": epoch,
                "level": "full",
                "macro_f1_live": macro_f1,
                "macro_f1_reloaded": macro_f1,
                "macro_f1_full": macro_f1,
                "delta_pp": 0.0,
                "tolerance_pp": 1.0,
                "batches": 100,
                "versions": {"torch": "2.9.0"},
            },
        )


def write_pipeline_run(
    folder: Path, *, seed: int = 42, skill: float = 1.2, world: World | None = None
) -> Path:
    """Write the folder of a pipeline result and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    world = world or noise_world()
    rng = np.random.default_rng(seed)
    tree: Taxonomy = taxonomy("v6")
    nodes = world.nodes.with_row_index("node")
    truth = nodes["partition"].to_numpy().astype(np.int64)
    logits = {
        stage.name: [
            _logits(rng, stage.labels[truth], len(stage.class_names), skill)
            for _ in range(3 if stage.name == "stage3_ab" else 1)
        ]
        for stage in tree.stages
    }
    columns = (nodes["sequence"].to_numpy().astype(str), nodes["qindex"].to_numpy())
    result = analyse(
        Nodes.build(tree, truth, *columns, logits),
        train_counts=np.bincount(truth, minlength=10) + 1,
        split="val",
        protocol="by_sequence",
    )
    report = result.to_json()
    checkpoints = {
        stage: [{"path": f"runs/{stage}/checkpoints/best.ckpt", "sha256": "cd" * 32}] * len(each)
        for stage, each in logits.items()
    }
    said = {"calibration": {"source": "fit"}, "checkpoints": checkpoints}
    write_json(folder / "pipeline.json", {**report, **said})
    write_json(folder / "metrics.json", report["overall"])
    write_confusion(folder, tree.names, report["overall"]["confusion_matrix"])
    predicted = {"partition": truth, "prediction": result.prediction}
    keys = nodes.select("node", "sequence", "qindex")
    write_predictions(folder, keys, predicted, tree.names, result.probabilities)
    _write_samples(folder, world, nodes, truth, result.prediction)
    _write_surroundings(folder, {"stage1": "runs/stage1/checkpoints/best.ckpt"}, seed)
    return folder
