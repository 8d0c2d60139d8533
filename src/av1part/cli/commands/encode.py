"""`av1part encode`: what presets, switches and predictions save in an encoder, and at what loss."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from av1part.cli.commands.pipeline import data_source
from av1part.config.check import plain
from av1part.data.build.libaom import PATCHED_VARIABLES
from av1part.data.build.settings import check_count, raw_format
from av1part.data.build.sources import Source, find_sources, open_sources
from av1part.encoder.compare import compare
from av1part.encoder.comparison import Comparison, check_clips
from av1part.encoder.hinting import predictors_of
from av1part.encoder.patched import find_patched
from av1part.encoder.points import (
    MODEL,
    PlannedPoint,
    check_anchors,
    check_cq_levels,
    read_points,
)
from av1part.encoder.quality import find_vmaf
from av1part.predictors.bundle import Bundle, bundle_path, check_domain, read_bundle
from av1part.predictors.fit import FITTED, fit_bundle
from av1part.report import write_encodes_report
from av1part.system.errors import ConfigError
from av1part.system.files import expanded, sha256_file


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Encode the sources at all points of the plan, and write a table and a page.

    Args:
        verb: `encode`.
        cfg: The plan, the predictor and the folder.
        words: Sources, as of `data build`.

    Raises:
        ConfigError: if `out` is missing, or a setting is not valid.
    """
    if OmegaConf.is_missing(cfg, "out"):
        raise ConfigError("av1part encode needs out=DIR, the folder of the comparison")
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ConfigError("av1part encode compares the points of one plan: leave out -m")
    for name in PATCHED_VARIABLES:
        if name in os.environ:
            raise ConfigError(f"{name} is set, which the encoder would read: unset it")
    settings = plain(cfg)
    jobs, repeats = (check_count(name, settings[name]) for name in ("jobs", "repeats"))
    if settings["frames"] is not None:
        check_count("frames", settings["frames"])
    if settings["vmaf"]:
        find_vmaf()
    plan = _plan(settings)
    points = read_points(plan["points"], repeats)
    cq_levels = check_cq_levels(settings["cq_levels"], ctc=settings["ctc"])
    find_patched()
    raw = raw_format(*(settings[key] for key in ("width", "height", "bit_depth", "layout")))
    sources = open_sources(find_sources(words), raw, interlaced=settings["interlaced"])
    check_clips(sources)
    bundles, identities = _predictors(cfg, points)
    comparison = Comparison(
        points,
        check_anchors(plan["anchors"], points),
        cq_levels,
        bundles,
        identities,
        ctc=settings["ctc"],
        frames=settings["frames"],
        vmaf=settings["vmaf"],
        screen=_patterns(settings["screen"], sources),
    )
    depths = {source.reader.bit_depth for source in sources}
    qindexes = {comparison.qindex(level, depth) for level in cq_levels for depth in depths}
    for bundle in bundles.values():
        check_domain(bundle, depths, qindexes)
    torch.set_num_threads(1)  # what inference takes is counted, as the encoder's is, on one
    out = expanded(settings["out"])
    compare(sources, comparison, out, jobs=jobs)
    files = write_encodes_report(out)
    print(files.headline.replace("`", ""))
    print("report:", files.html)


def _plan(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan; `auto` is one that suits what was given.

    Raises:
        ConfigError: if it has another key.
    """
    plan = dict(settings["plan"])
    if set(plan) - {"points", "anchors"}:
        raise ConfigError(f"plan has keys {', '.join(plan)}: it has points and anchors alone")
    if not plan.get("points"):
        name = "presets" if settings["model"] is None else "model"
        plan["points"] = plain(compose("encode", [f"plan={name}", "out=."]))["plan"]["points"]
    return {"anchors": None, **plan}


def _predictors(
    cfg: DictConfig, points: Mapping[str, PlannedPoint]
) -> tuple[dict[str, Bundle], dict[str, dict[str, Any]]]:
    """Open or fit the predictors of the points; return them, and what plan.json says of them.

    Raises:
        ConfigError: if points and the predictor given do not belong together.
    """
    needed = predictors_of(points)
    if (cfg.model is not None) != (MODEL in needed):
        raise ConfigError(
            f"the plan has no point with predictor=model: leave out model={cfg.model}"
            if cfg.model is not None
            else "the plan has points with predictor=model: give model=pretrained or model=BUNDLE"
        )
    bundles, identities = {}, {}
    for name in sorted(needed):
        if name == MODEL:
            path = bundle_path(cfg.model)
            bundle = read_bundle(path)
            facts: dict[str, Any] = {"file": path.name, "sha256": sha256_file(path)}
        else:
            bundle = fit_bundle(name, data_source(cfg), split_seed=cfg.data.split_seed)
            facts = {"fitted_on": [dict(source) for source in bundle.sources]}
        trained = not isinstance(bundle.predictor, tuple(FITTED.values()))
        bundles[name] = bundle
        identities[name] = {"name": bundle.name, "trained": trained, **facts}
    return bundles, identities


def _patterns(patterns: Any, sources: Sequence[Source]) -> list[str]:
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise ConfigError(f"screen={patterns}: give a list of names or patterns, such as [ui_*]")
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(source.sequence, pattern) for source in sources):
            raise ConfigError(f"screen has {pattern}: no clip is called so")
    return patterns
