"""`av1part train`: train one stage into one run folder."""

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
from av1part.defects import banner
from av1part.metrics.scores import Scores
from av1part.report import write_run_plots
from av1part.runs.schema import (
    BY_SIZE,
    CHECKPOINTS,
    LOG_LOSS,
    TRAIN_LOG,
    check_run_name,
    last_checkpoint,
    sidecar_path,
)
from av1part.runs.sweeps import JOB_FILE
from av1part.sweeps.state import record_failure
from av1part.system.errors import ConfigError
from av1part.system.files import no_empty_folder, read_json, remove_parts
from av1part.system.locks import folder_lock
from av1part.system.logs import run_log
from av1part.training.callbacks.verified import adopt_records
from av1part.training.run import TrainResult, train_stage

log = logging.getLogger(__name__)


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> float | None:
    """Train a stage; return for sweepers what chose its epoch: macro-F1 on val, or log loss."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        check_run_name(str(cfg.name))
        _check_launcher()
        result = train_in(cfg, folder)
    except Exception as error:
        record_failure(folder, error)  # of a sweep's job; the other jobs go on
        raise
    if result is None:
        return None
    chosen_by = LOG_LOSS if BY_SIZE in result.metrics else "macro_f1"
    return float(result.metrics[chosen_by])


def _check_launcher() -> None:
    """Refuse a launcher for a single run, which Hydra would ignore silently.

    Raises:
        ConfigError: naming the launcher.
    """
    launcher = HydraConfig.get().runtime.choices.get("hydra/launcher", "basic")
    if HydraConfig.get().mode == RunMode.RUN and launcher != "basic":
        raise ConfigError(f"hydra/launcher={launcher} is for sweeps: add -m, or leave it out")


def train_in(cfg: DictConfig, folder: Path) -> TrainResult | None:
    """Train a stage into a folder, with its configuration and log beside it.

    Args:
        cfg: The composed configuration.
        folder: The run folder; created, and removed if the configuration is refused.

    Returns:
        The result; None in processes of a distributed run other than the first.
    """

    def draw(metrics: Scores) -> None:
        if cfg.callbacks.plots:
            write_run_plots(folder, metrics)

    folder.mkdir(parents=True, exist_ok=True)
    # In a distributed run the first process locks the folder for all.
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]  # set by Lightning
    lock = folder_lock(folder, "choose another name=...") if rank == 0 else nullcontext()
    file = folder / (TRAIN_LOG if rank == 0 else f"train-rank{rank}.log")
    with (
        no_empty_folder(folder),
        lock,
        run_log(file, always=(folder / JOB_FILE).is_file()),
    ):
        if rank == 0 and cfg.resume:
            adopt_records(folder / CHECKPOINTS)
            remove_parts(folder, below=True)
        result = train_stage(plain(cfg), folder, draw)
        if result is not None:
            _log_result(result)
    return result


def _log_result(result: TrainResult) -> None:
    for path in (result.best, last_checkpoint(result.folder)):
        verification = read_json(sidecar_path(path)) or {}
        if "delta_pp" in verification:
            log.info(
                "%s verified: macro-F1 %.2f %% reloaded, %.2f %% live (%+.4f pp, tolerance %g pp)",
                path.name,
                *(100 * verification[f"macro_f1_{kind}"] for kind in ("reloaded", "live")),
                *(verification[key] for key in ("delta_pp", "tolerance_pp")),
            )
    scores = result.metrics
    if scores.get("defects"):
        log.warning("%s", banner(scores["defects"]))
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
    if "trees" in baselines:
        log.info(
            "trees on val: macro-F1 %.2f %%, accuracy %.2f %%",
            *(100 * baselines["trees"][metric] for metric in ("macro_f1", "accuracy")),
        )
    if LOG_LOSS in scores:
        sizes = {"": scores, **{f"{k}x{k} ": own for k, own in scores.get(BY_SIZE, {}).items()}}
        log.info("log loss on val: %s", ", ".join(f"{k}{_loss(own)}" for k, own in sizes.items()))


def _loss(scores: Scores) -> str:
    """Return a log loss beside the prior's and the trees', which may be missing of a size."""
    beside = {name: scores["baselines"].get(name, {}).get(LOG_LOSS) for name in ("prior", "trees")}
    others = (f"{name} {loss:.3f}" for name, loss in beside.items() if loss is not None)
    return f"{scores[LOG_LOSS]:.3f} ({', '.join(others)})"
