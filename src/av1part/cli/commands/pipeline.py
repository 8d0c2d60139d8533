"""`av1part pipeline`: the cascade of trained stages on a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from av1part.cascade.run import run_pipeline
from av1part.config.check import plain
from av1part.config.defects import check_cascade
from av1part.defects import banner
from av1part.evaluation.attach import Compute, DataSource
from av1part.report.chapters.guessers import score_table, scores_of, trees_table
from av1part.report.render.terminal import terminal_table
from av1part.runs.schema import CHECKPOINTS, METRICS_FILE, TRAIN_LOG, check_run_name
from av1part.stages.choice import CASCADE
from av1part.system.errors import ConfigError
from av1part.system.files import expanded, no_empty_folder
from av1part.system.locks import folder_lock
from av1part.system.logs import run_log
from av1part.trees.boosting import Boosting


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Evaluate the cascade and print its scores beside both guessers.

    Args:
        verb: `pipeline`.
        cfg: Checkpoints, data and a name.
        words: None are taken.

    Raises:
        ConfigError: if Stage 1 has no checkpoint, the split cannot be, or the folder already holds
            a result.
    """
    if "stage1" not in given_checkpoints(cfg):
        raise ConfigError("av1part pipeline needs stage1=CKPT, and one of each further stage")
    if cfg.split not in ("val", "test"):
        raise ConfigError(f"split must be val or test, got {cfg.split!r}: train is what was learnt")
    checkpoints, defects = given_checkpoints(cfg), list(cfg.defects)
    check_cascade(defects, split=cfg.split, calibration=cfg.calibration)
    folder = Path("runs") / check_run_name(str(cfg.name))
    if (folder / METRICS_FILE).exists():
        raise ConfigError(f"{folder} already holds a result: choose another name=...")
    if any((folder / trace).exists() for trace in (TRAIN_LOG, CHECKPOINTS)):
        raise ConfigError(f"{folder} holds an unfinished training: choose another name=...")
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder_lock(folder, "choose another name=...")
    with no_empty_folder(folder), lock, run_log(folder / "pipeline.log"):
        result = run_pipeline(
            checkpoints,
            folder,
            config=plain(cfg),
            source=data_source(cfg),
            split=cfg.split,
            ensemble=cfg.ensemble,
            calibration=cfg.calibration,
            compute=Compute(cfg.device, cfg.precision),
            trees=Boosting(**cfg.trees) if cfg.baselines == "trees" else None,
            defects=defects,
        )
    console = Console(markup=False)
    if defects:
        console.print(banner(defects), soft_wrap=True, highlight=False)
    console.print(cascade_table(result.report))
    scores = scores_of(result.report["overall"], result.report, ("accuracy", "macro_f1"))
    if (trees := trees_table("beside boosted trees, in percent", {"cascade": scores})) is not None:
        console.print(terminal_table(trees))
    console.print(f"result: {folder}; a page of it: av1part report {folder}", soft_wrap=True)


def data_source(cfg: DictConfig) -> DataSource:
    """Return the dataset that the keys `data.*` name."""
    return DataSource(cfg.data.path, cfg.data.protocol, cfg.data.split_list)


def given_checkpoints(cfg: DictConfig) -> dict[str, list[Path]]:
    """Return the checkpoints of each stage that has any, from one path or a list of paths."""
    checkpoints = {}
    for stage in CASCADE:
        if not OmegaConf.is_missing(cfg, stage) and cfg[stage] is not None:
            values = cfg[stage] if OmegaConf.is_list(cfg[stage]) else [cfg[stage]]
            checkpoints[stage] = [expanded(value) for value in values]
    return {stage: paths for stage, paths in checkpoints.items() if paths}


def cascade_table(report: Mapping[str, Any]) -> Table:
    """Return accuracy and macro-F1 of the cascade beside both guessers, for a terminal."""
    scores = scores_of(report["overall"], report, ("accuracy", "macro_f1"))
    title = (
        f"on {report['split']}, {report['protocol']}, in percent; the margin over the stronger "
        "guesser in points"
    )
    return terminal_table(score_table(title, {"cascade": scores}))
