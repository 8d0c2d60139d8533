"""`av1part train`: one stage, one run folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from av1part.configuration import plain
from av1part.files import write_text
from av1part.results import check_run_name
from av1part.training import TrainResult, train_stage

log = logging.getLogger(__name__)


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> float:
    """Train a stage; returns val macro-F1, for sweepers."""
    check_run_name(cfg.name)
    folder = Path(HydraConfig.get().runtime.output_dir)
    return float(train_in(cfg, folder).metrics["macro_f1"])


def train_in(cfg: DictConfig, folder: Path) -> TrainResult:
    """Train a stage into a folder, with its configuration and log beside it."""
    settings = plain(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    with _log_file(folder / "train.log"):
        result = train_stage(settings, folder)
        write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    scores = result.metrics
    log.info(
        "%s: val macro-F1 %.2f %%, accuracy %.2f %% (best constant %.2f %%), best epoch %d, in %s",
        scores["stage"],
        100 * scores["macro_f1"],
        100 * scores["accuracy"],
        100 * scores["baselines.constant.accuracy"],
        scores["epoch"],
        result.best,
    )
    return result


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Also log to a file; it is made with its first line."""
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
