"""`av1part predict`: the probabilities of every node of a source, and hint files of a policy."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from av1part import __version__
from av1part.cli.commands.pipeline import given_checkpoints
from av1part.config.check import plain
from av1part.data.build.settings import check_count, check_list, raw_format
from av1part.data.build.sources import Source, find_sources, open_sources
from av1part.encoder.hints import HintsWriter
from av1part.encoder.policies import Policy
from av1part.evaluation.attach import Compute
from av1part.options import PRETRAINED
from av1part.predictors.bundle import bundle_path, check_domain, read_bundle
from av1part.predictors.cascade import load_cascades
from av1part.predictors.interface import Domain, Predictor
from av1part.predictors.run import Prediction, predict_source, qindex_of
from av1part.predictors.superblock import load_superblock
from av1part.predictors.table import TableWriter, to_table
from av1part.report.draw.packed import pack_frame
from av1part.report.render.viewer import FrameChoice, predictions_page
from av1part.system.errors import ConfigError
from av1part.system.files import expanded, sha256_file, slug, write_json, write_text

log = logging.getLogger(__name__)

FACTS_FILE = "predictions.json"
"""What predicted, and from which files."""

PAGE_FILE = "predictions.html"
"""The page of frames."""


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Predict all nodes of the sources, and write a table a source, hint files and a page.

    Args:
        verb: `predict`.
        cfg: The predictor, qindexes, the policy and the folder to make.
        words: Sources, as of `data build`.

    Raises:
        ConfigError: if `out` is missing, there is more than one predictor, or a setting is not
            valid.
    """
    if OmegaConf.is_missing(cfg, "out"):
        raise ConfigError("av1part predict needs out=DIR, the folder to make")
    given = (bool(given_checkpoints(cfg)), cfg.superblock is not None, cfg.model is not None)
    if sum(given) > 1:
        raise ConfigError(
            "av1part predict takes one predictor: stage1=CKPT stage2=CKPT ..., superblock=CKPT, or "
            "model=BUNDLE; pretrained, which comes with av1part, if none is given"
        )
    if not any(given):
        cfg.model = PRETRAINED
    if cfg.model is not None and (cfg.ensemble, cfg.calibration) != ("mean", "auto"):
        raise ConfigError(
            "ensemble= and calibration= are for checkpoints, a bundle has its own: leave them out, "
            "or give stage1=CKPT"
        )
    settings = plain(cfg)
    qindexes = _qindexes(settings)
    policy = Policy(**settings["policy"])
    for name in ("frames", "every"):
        if settings[name] is not None:
            check_count(name, settings[name])
    raw = raw_format(*(settings[key] for key in ("width", "height", "bit_depth", "layout")))
    sources = open_sources(find_sources(words), raw, interlaced=settings["interlaced"])
    out = _folder(expanded(settings["out"]))
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty: choose another out=")
    if not any(given):
        print(f"predictor: none is given, so {PRETRAINED}, which comes with av1part")
    predictor = _predictor(cfg)
    if settings["hints"]:
        _check_policy(policy, predictor.domain)
    check_domain(predictor, (s.reader.bit_depth for s in sources), qindexes)
    out.mkdir(parents=True, exist_ok=True)
    shown = FrameChoice() if settings["page"] else None
    for source in sources:
        hinted = policy if settings["hints"] else None
        _predict(source, predictor, qindexes, out, hinted, settings, shown)
    facts = {
        "made_by": {"av1part": __version__},
        "predictor": predictor.name,
        "predictor_files": [
            {"file": path.name, "sha256": sha256_file(path)} for path in _files(cfg)
        ],
        "domain": asdict(predictor.domain),
        "sources": {s.sequence: {"file": s.path.name, "sha256": s.sha256} for s in sources},
        "settings": settings,
    }
    write_json(out / FACTS_FILE, facts)
    if shown is not None:
        write_text(out / PAGE_FILE, predictions_page(shown, predictor.name))
        print("page:", out / PAGE_FILE)


def _folder(out: Path) -> Path:
    """Return the folder of this job, which in a sweep is one in `out`."""
    job = HydraConfig.get()
    if job.mode != RunMode.MULTIRUN:
        return out
    return out / slug(job.job.override_dirname)


def _qindexes(settings: Mapping[str, Any]) -> list[int]:
    """Return the qindexes to predict at, from either key.

    Raises:
        ConfigError: if the list is not valid.
    """
    if settings["qindex"] is not None:
        check_list("qindex", settings["qindex"], range(256), "0 to 255")
        return list(settings["qindex"])
    check_list("cq_levels", settings["cq_levels"], range(64), "0 to 63")
    return [qindex_of(level) for level in settings["cq_levels"]]


def _predictor(cfg: DictConfig) -> Predictor:
    """Open the bundle or load the checkpoints that the options name."""
    compute = Compute(cfg.device, cfg.precision)
    if cfg.model is not None:
        return read_bundle(cfg.model, compute)
    if cfg.superblock is not None:
        return load_superblock(cfg.superblock, calibration=cfg.calibration, compute=compute)
    return load_cascades(
        given_checkpoints(cfg),
        calibration=cfg.calibration,
        ensemble=cfg.ensemble,
        compute=compute,
    )


def _check_policy(policy: Policy, domain: Domain) -> None:
    policy.check_sizes(domain)
    if warning := policy.pruned_anyway(domain):
        log.warning("policy.%s", warning)


def _files(cfg: DictConfig) -> list[Path]:
    """Return the files that the predictor was read from."""
    if cfg.model is not None:
        return [bundle_path(cfg.model)]
    if cfg.superblock is not None:
        return [expanded(cfg.superblock)]
    return [path for paths in given_checkpoints(cfg).values() for path in paths]


def _predict(
    source: Source,
    predictor: Predictor,
    qindexes: list[int],
    out: Path,
    policy: Policy | None,
    settings: Mapping[str, Any],
    shown: FrameChoice | None,
) -> None:
    """Write the table and the hint files of one source, choose frames, and print its speed."""
    frames, nodes, seconds = 0, 0, 0.0
    reader = source.reader
    pending: dict[int, pl.DataFrame] = {}
    if shown is not None:
        shown.start(source.sequence)
    sizes = () if policy is None else policy.hinted_sizes(predictor.domain)
    with ExitStack() as stack:
        table = stack.enter_context(TableWriter(out / f"{source.sequence}.parquet"))
        writers = {
            qindex: stack.enter_context(
                HintsWriter(
                    out / f"{source.sequence}.q{qindex}.hints",
                    reader.width,
                    reader.height,
                    sizes,
                )
            )
            for qindex in (qindexes if sizes else [])
        }
        limits = {"frames": settings["frames"], "every": settings["every"]}
        for prediction in predict_source(source, predictor, qindexes, **limits):
            rows = to_table(
                prediction.distributions,
                sequence=source.sequence,
                frame=prediction.frame,
                qindex=prediction.qindex,
            )
            table.add(rows)
            if policy is not None and sizes:
                masks = policy.frame_masks(
                    prediction.distributions, prediction.shape, predictor.domain
                )
                writers[prediction.qindex].add(masks)
            if shown is not None:
                _show(shown, prediction, rows, qindexes, pending, reader.bit_depth)
            frames = prediction.frame + 1
            nodes += rows.height
            seconds += prediction.seconds
    print(
        f"{source.sequence}: {frames} frames at {len(qindexes)} qindexes, {nodes:,} nodes, "
        f"{seconds / max(1, frames * len(qindexes)):.3f} s a frame and qindex"
    )


def _show(
    shown: FrameChoice,
    prediction: Prediction,
    rows: pl.DataFrame,
    qindexes: Sequence[int],
    pending: dict[int, pl.DataFrame],
    bit_depth: int,
) -> None:
    """Collect the tables of a frame that the page shows, and add it with the last of them."""
    if not shown.wants(prediction.frame):
        return
    pending[prediction.qindex] = rows
    if len(pending) == len(qindexes):
        luma = (prediction.luma >> max(0, bit_depth - 8)).astype(np.uint8)
        shown.add(pack_frame(prediction.frame, luma, pending))
        pending.clear()
