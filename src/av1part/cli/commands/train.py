"""`av1part train`: one stage, one run folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only

from av1part.config.check import plain
from av1part.metrics.scores import Scores
from av1part.report import write_run_plots
from av1part.runs.schema import check_run_name, sidecar_path
from av1part.runs.sweeps import RECORD
from av1part.sweeps.state import record_failure
from av1part.system.errors import ConfigError
from av1part.system.files import no_empty_folder, read_json, remove_parts
from av1part.system.locks import folder_lock
from av1part.system.logs import run_log
from av1part.training.callbacks.verified import adopt_records
from av1part.training.run import TrainResult, train_stage

log = logging.getLogger(__name__)


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> float | None:
    """Train a stage; returns val macro-F1, for sweepers."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        check_run_name(str(cfg.name))
        _check_launcher()
        result = train_in(cfg, folder)
    except Exception as error:
        record_failure(folder, error)  # of a job; the others of the sweep go on
        raise
    return None if result is None else float(result.metrics["macro_f1"])


def _check_launcher() -> None:
    """Refuse a launcher for a single run, which Hydra would leave unused without a word.

    Raises:
        ConfigError: naming it.
    """
    launcher = HydraConfig.get().runtime.choices.get("hydra/launcher", "basic")
    if HydraConfig.get().mode == RunMode.RUN and launcher != "basic":
        raise ConfigError(f"hydra/launcher={launcher} is for sweeps: add -m, or leave it out")


def train_in(cfg: DictConfig, folder: Path) -> TrainResult | None:
    """Train a stage into a folder, with its configuration and log beside it.

    Args:
        cfg: The composed configuration.
        folder: The run folder; made, and removed again if the run is refused at once.

    Returns:
        The result, or None in the further processes of a distributed run.
    """

    def draw(metrics: Scores) -> None:
        if cfg.callbacks.plots:
            write_run_plots(folder, metrics)

    folder.mkdir(parents=True, exist_ok=True)
    # Of several processes the first holds the folder for all.
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]  # as Lightning has found it
    alone = folder_lock(folder, "choose another name=...") if rank == 0 else nullcontext()
    file = folder / ("train.log" if rank == 0 else f"train-rank{rank}.log")
    with (
        no_empty_folder(folder),
        alone,
        run_log(file, always=(folder / RECORD).is_file()),
    ):
        if rank == 0 and cfg.resume:
            adopt_records(folder / "checkpoints")
            remove_parts(folder, below=True)
        result = train_stage(plain(cfg), folder, draw)
        if result is not None:
            _log_result(result)
    return result


def _log_result(result: TrainResult) -> None:
    for path in (result.best, result.best.with_name("last.ckpt")):
        said = read_json(sidecar_path(path)) or {}
        if "delta_pp" in said:
            log.info(
                "%s verified: macro-F1 %.2f %% reloaded, %.2f %% live (%+.4f pp, tolerance %g pp)",
                path.name,
                *(100 * said[f"macro_f1_{kind}"] for kind in ("reloaded", "live")),
                *(said[key] for key in ("delta_pp", "tolerance_pp")),
            )
    scores = result.metrics
    baselines = scores["baselines"]
    log.info(
        "%s on val: macro-F1 %.2f %% (best constant %.2f %%, class prior %.2f %%), "
        "accuracy %.2f %% (%.2f %%, %.2f %%), best epoch %d, in %s",
        scores["stage"],
        *(
            100 * source[metric]
            for metric in ("macro_f1", "accuracy")
            for source in (scores, baselines["constant"], baselines["prior"])
        ),
        scores["epoch"],
        result.best,
    )
