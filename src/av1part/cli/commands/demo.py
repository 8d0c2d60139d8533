"""`av1part demo`: every stage, the cascade and the report, on the embedded data."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from av1part.cascade.calibrate import calibrate_alone, calibrate_cascade
from av1part.cascade.run import run_pipeline
from av1part.cli.commands.demo_encode import bundle_cascade, compare_in_encoder
from av1part.cli.commands.demo_superblock import (
    bundle_superblock,
    compare_with_cascade,
    shared_words,
)
from av1part.cli.commands.train import train_in
from av1part.config.check import check_values, plain
from av1part.data.serve.superblocks import REFERENCE_SIZE
from av1part.options import SUPERBLOCK_BACKBONE
from av1part.partition import SUPERBLOCK_STAGE, taxonomy
from av1part.report import write_report
from av1part.report.chapters.guessers import METRIC_NAMES, run_table, scores_of
from av1part.report.render.tables import percent, points, span
from av1part.report.render.terminal import terminal_table
from av1part.runs.schema import CONFIG_FILE, check_run_name
from av1part.runs.settings import flat_settings, read_text
from av1part.system.errors import ConfigError, StoreError
from av1part.system.logs import run_log
from av1part.training.build import build_datamodule, check_splits
from av1part.training.run import TrainResult

log = logging.getLogger(__name__)

_FIXED = {"stage", "method", "experiment", "seed", "stage1", "resume"}
"""Keys that tell the runs of the plan apart."""

NARROWEST = 120
"""Columns that the table at the end needs."""


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Run the plan.

    Args:
        verb: `demo`.
        cfg: The plan, the cascade and a name.
        words: Further overrides for every training.

    Raises:
        SystemExit: with 1 if Stage 1 does not beat both guessers.
    """
    started = time.perf_counter()
    # On a network so narrow, threads cost more than they save; OMP_NUM_THREADS asks for them.
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    settings = plain(cfg)
    folder = Path("runs") / check_run_name(str(cfg.name))
    results = train_plan(settings["plan"], words, folder)
    checkpoints = {
        stage: [results[name].best for name in names if name in results]
        for stage, names in settings["cascade"].items()
    }
    calibrate_cascade(checkpoints)
    network = superblock_of(results)
    if network is not None:
        calibrate_alone(network.best)
    with run_log(folder / "pipeline" / "pipeline.log"):
        config = {**settings, "train": list(words)}
        cascade = run_pipeline(checkpoints, folder / "pipeline", config=config)
    files = write_report([folder], folder / "report")
    console = Console()
    console = Console(width=max(console.width, NARROWEST))  # no narrower for being a file
    rows = {name: result.metrics for name, result in results.items()}
    console.print(summary_table(rows, cascade.report))
    first = next(iter(results.values()))
    trained = flat_settings(read_text(first.folder / CONFIG_FILE), first.folder / CONFIG_FILE)
    for line in (
        network_text(trained),
        parameters_text(rows),
        choices_text(cascade.report),
        *last_lines(rows, cascade.report),
    ):
        console.print(line, soft_wrap=True, highlight=False)
    bundle = bundle_cascade(checkpoints, folder)
    if network is not None:
        cascade_bundle, bundle = bundle, bundle_superblock(network.best, folder)
        size, out = trained["data.size"], folder / "compare"
        for line in compare_with_cascade(bundle, cascade_bundle, network.folder, size, out):
            console.print(line, soft_wrap=True, highlight=False)
    for line in compare_in_encoder(bundle, first.best, folder / "encode"):
        console.print(line, soft_wrap=True, highlight=False)
    seconds = time.perf_counter() - started
    console.print(f"report, after {seconds:.0f} s: {files.html}", soft_wrap=True, highlight=False)
    behind = lost_against_guessers(rows[next(iter(rows))])
    if behind:
        log.error("Stage 1 does not beat both guessers (%s): train longer or on more", behind)
        raise SystemExit(1)


def last_lines(runs: Mapping[str, Mapping[str, Any]], cascade: Mapping[str, Any]) -> list[str]:
    """Return three results, a line each, beside the stronger guesser.

    Args:
        runs: metrics.json of each run of the plan.
        cascade: pipeline.json.

    Returns:
        The lines; Stage 2's result is that of its better run.
    """
    stages: dict[str, Mapping[str, Any]] = {}
    for metrics in runs.values():
        best = stages.setdefault(metrics["stage"], metrics)
        if metrics["macro_f1"] > best["macro_f1"]:
            stages[metrics["stage"]] = metrics
    lines = []
    for stage, title in (("stage1", "NONE or PARTITION"), ("stage2", "SPLIT, RECT or AB")):
        if stage in stages:
            lines.append(_beside_guess(title, "macro_f1", stages[stage], stages[stage]))
    types = f"cascade, {len(cascade['class_names'])} types"
    lines.append(_beside_guess(types, "macro_f1", cascade["overall"], cascade))
    return lines


def network_text(settings: Mapping[str, Any]) -> str:
    """Return what a run's settings, by dotted keys, say of its network and input."""
    size, context = settings["data.size"], settings["data.context"]
    around = f" with {context} samples around them" if context else ""
    if settings.get("backbone.kind") == SUPERBLOCK_BACKBONE:
        name, own = "the superblock network's trunk", f"depth {settings['backbone.depth']}"
    else:
        name, own = "ResNet-18", f"{settings['backbone.stem']} stem"
    return (
        f"network: {name} of width {settings['backbone.width']}, "
        f"{own}, conditioning {settings['conditioning']}, "
        f"on {size}x{size} blocks{around}; the study's is that of experiment=exp11a/v1"
    )


def parameters_text(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how many of its parameters each run trains, from its metrics.json."""
    counts = [
        f"{name} {metrics['trainable_parameters']:,} of {metrics['total_parameters']:,}"
        for name, metrics in runs.items()
    ]
    return f"parameters trained: {', '.join(counts)}"


def choices_text(cascade: Mapping[str, Any]) -> str:
    """Return what pipeline.json says of the val data, and that choices were made on it."""
    value = cascade["intervals"].get("macro_f1", {}).get("value", {})
    count = value.get("clusters", 1)  # one sequence has no interval
    return (
        f"val: {cascade['nodes']:,} blocks of {count} sequence{'s' * (count > 1)}; epochs, the "
        "threshold and temperatures were chosen on them"
    )


def _beside_guess(
    title: str, metric: str, scores: Mapping[str, Any], beside: Mapping[str, Any]
) -> str:
    score = scores_of(scores, beside, ("accuracy", "macro_f1"))[metric]
    guess = score.stronger
    line = (
        f"{title}: {METRIC_NAMES[metric]} {percent(score.value)} %, "
        f"the {guess.name} {percent(guess.value)} %"
    )
    if guess.margin.low is None:
        return line
    return f"{line}, margin {points(guess.margin.estimate)} {span(guess.margin, signed=True)}"


def train_plan(
    plan: Mapping[str, Sequence[str]], common: Sequence[str], folder: Path
) -> dict[str, TrainResult]:
    """Train the runs of a plan in order; stages after the first start from the first's backbone.

    A superblock network is trained last, wherever it stands in the plan.

    Args:
        plan: Run name to overrides of `av1part train`; runs of a stage that the taxonomy has
            not, at the size of the nodes, are left out, as is a superblock network that the
            dataset has no superblocks or no nodes for.
        common: Overrides for all; a superblock network gets those of `shared_words`.
        folder: Where the run folders go; finished ones are kept.

    Returns:
        Run name to its result, in the order of the trainings.

    Raises:
        ConfigError: if `common` sets what the plan sets.
        StoreError: if a stage has no nodes in train or val.
    """
    results: dict[str, TrainResult] = {}
    configs = plan_configs(plan, common)
    for name, cfg in list(configs.items()):  # before minutes of training
        settings = {**plain(cfg), "injection": {"source": "none", "stage2": None}}
        try:
            check_splits(build_datamodule(settings))
        except StoreError as error:
            if cfg.stage.name != SUPERBLOCK_STAGE:
                raise
            log.warning("%s is left out: %s", name, error)
            del configs[name]
    for name, cfg in configs.items():
        if results and cfg.stage.name != SUPERBLOCK_STAGE:
            cfg.stage1 = str(next(iter(results.values())).best)
        log.info("\n%s: %s", name, " ".join(plan[name]))
        result = train_in(cfg, folder / name)
        assert result is not None  # one process
        results[name] = result
    return results


def plan_configs(plan: Mapping[str, Sequence[str]], common: Sequence[str]) -> dict[str, DictConfig]:
    """Compose the runs of a plan that the taxonomy has.

    Args:
        plan: As that of `train_plan`.
        common: Likewise.

    Returns:
        Run name to configuration, in the order of training: a superblock network comes last.

    Raises:
        ConfigError: if `common` sets what the plan sets.
    """
    fixed = sorted({word.partition("=")[0] for word in common} & _FIXED)
    if fixed:
        raise ConfigError(f"the demo's plan sets {', '.join(fixed)}: change plan= instead")
    configs = {}
    for name, overrides in plan.items():
        own = [f"name={check_run_name(name)}", "resume=true"]
        cfg = compose("train", [*overrides, *own])
        if common:
            superblock = cfg.stage.name == SUPERBLOCK_STAGE
            words = shared_words(common) if superblock else common
            cfg = compose("train", [*overrides, *words, *own])
        check_values(cfg, "train")
        if cfg.defects:
            raise ConfigError(
                "av1part demo bundles what it trains, which nothing defective may be: leave out "
                "defects="
            )
        tree = taxonomy(cfg.taxonomy).at(cfg.data.size)
        if cfg.stage.name in [SUPERBLOCK_STAGE, *(stage.name for stage in tree.stages)]:
            configs[name] = cfg
    # Sorted, since the stages start from the first of them.
    last = {name: cfg.stage.name == SUPERBLOCK_STAGE for name, cfg in configs.items()}
    return {name: configs[name] for name in sorted(configs, key=last.__getitem__)}


def superblock_of(results: Mapping[str, TrainResult]) -> TrainResult | None:
    """Return the result of the plan's superblock network, if it has one."""
    of_stage = (r for r in results.values() if r.metrics["stage"] == SUPERBLOCK_STAGE)
    return next(of_stage, None)


def lost_against_guessers(metrics: Mapping[str, Any]) -> str:
    """Name what a guesser that never looks does at least as well; empty if nothing."""
    return ", ".join(
        f"{name} {100 * metrics[name]:.2f} % against {100 * guess:.2f} % of the {guesser}"
        for name in ("macro_f1", "accuracy", "f1_positive")
        for guesser in ("constant", "prior")
        if metrics[name] <= (guess := metrics["baselines"][guesser][name])
    )


def summary_table(runs: Mapping[str, Mapping[str, Any]], cascade: Mapping[str, Any]) -> Table:
    """Return accuracy and macro-F1 of each run and the cascade beside both guessers.

    The row of a superblock network names the size of its nodes, which the stages' may not be.
    """
    scores = {}
    for name, metrics in runs.items():
        sized = metrics.get("stage") == SUPERBLOCK_STAGE
        title = f"{name} {REFERENCE_SIZE}x{REFERENCE_SIZE}" if sized else name
        scores[title] = scores_of(metrics)
    scores["cascade"] = scores_of(cascade["overall"], cascade)
    caption = (
        "on val, in percent; the margin of macro-F1 over the stronger guesser in points, with its "
        "95% interval by picture"
    )
    return terminal_table(run_table(caption, scores))
