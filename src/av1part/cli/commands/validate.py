"""`av1part validate`: a checkpoint's metrics, from the file alone; `--show`: its contents."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from av1part.checkpoints.load import load_stage
from av1part.cli.commands.pipeline import data_source
from av1part.cli.commands.show import show
from av1part.data.serve.datamodule import BlockDataModule
from av1part.defects import DEFECTS, banner
from av1part.evaluation.attach import RECORDED, attach_data, check_pixels, device_of
from av1part.evaluation.scores import split_scores
from av1part.evaluation.trees import Peers, train_peers
from av1part.report.chapters.guessers import GUESSES, Score, score_table, scores_of, trees_table
from av1part.report.chapters.log_loss import loss_table, read_loss, run_loss_table, size_table
from av1part.report.chapters.scores import class_table
from av1part.report.render.tables import Table as OwnTable
from av1part.report.render.tables import count, parts, table
from av1part.report.render.terminal import terminal_table
from av1part.runs.fields import Fields
from av1part.runs.read import read_metrics
from av1part.runs.schema import LOG_LOSS, METRICS_FILE, sidecar_path
from av1part.runs.sweeps import SWEEP_FILE, TEST_FILE
from av1part.runs.write import write_confusion, write_metrics
from av1part.stages.base import StageModule
from av1part.sweeps.final import open_test
from av1part.system.errors import Av1partError, CheckpointMismatchError, ConfigError
from av1part.system.files import expanded, load_json
from av1part.trees.boosting import Boosting, check_library


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Print a checkpoint's scores or contents, or open the test split of a sweep.

    Args:
        verb: `validate`.
        cfg: Its options.
        words: The checkpoint's path, or the sweep's.

    Raises:
        ConfigError: if an option does not apply.
    """
    path = Path(os.path.realpath(expanded(words[0])))  # resolve() raises for a loop of links
    if (path / SWEEP_FILE).is_file():
        _validate_sweep(expanded(words[0]), cfg)
        return
    if cfg.variants is not None or cfg.reopen:
        raise ConfigError("variants= and reopen= are for the folder of a sweep")
    if cfg.show:
        show(path, cfg.out)
        return
    module = load_stage(path, defects=DEFECTS).to(device_of(cfg.device))
    data = attach_data(module, data_source(cfg))
    check_pixels(module, data, cfg.split)
    peers = _peers(cfg, module, data)
    scores, _ = split_scores(module, data, cfg.split, precision=cfg.precision, peers=peers)
    console = Console(markup=False, emoji=False)  # a path may look like markup
    if module.defects:
        scores["defects"] = list(module.defects)
        console.print(banner(module.defects), soft_wrap=True, highlight=False)
    console.print(_scores_table(module.stage_name, scores, f"on {cfg.split} of {data.path}"))
    for tab in (*_trees_table({module.stage_name: scores_of(scores)}), *_size_tables(scores)):
        console.print(tab)
    train_counts = module.hparams["data"]["class_counts"]
    console.print(_class_table(scores, module.class_names, train_counts))
    console.print(_confusion_table(scores["confusion_matrix"], module.class_names))
    if cfg.out is not None:
        out = expanded(cfg.out)
        write_confusion(out, module.class_names, scores["confusion_matrix"])
        write_metrics(out, scores)
    if cfg.data.path is None and cfg.split == "val":
        console.print(_compare(path, scores), soft_wrap=True)


def _peers(cfg: DictConfig, module: StageModule, data: BlockDataModule) -> Peers | None:
    """Return trees that were trained on what the checkpoint was trained on, if asked for."""
    if cfg.baselines == "none":
        return None
    check_library()
    training = data if data_source(cfg) == RECORDED else attach_data(module)
    return train_peers(training, Boosting(**cfg.trees))


def _validate_sweep(folder: Path, cfg: DictConfig) -> None:
    """Open the test split of a sweep.

    Raises:
        ConfigError: if options of a single checkpoint are given; the runs of a sweep have
            validated their checkpoints on val.
    """
    inapplicable = (
        *(cfg.data.path, cfg.data.protocol, cfg.data.split_list),
        *(cfg.out, cfg.show or None, None if cfg.baselines == "none" else cfg.baselines),
    )
    if cfg.split != "test" or any(value is not None for value in inapplicable):
        raise ConfigError(
            f"{folder} is a sweep, whose runs are validated on val already: name a checkpoint, or "
            "open its test split by split=test [variants=[...]], once all choices are made (trees "
            "are beside a run that was trained with baselines=trees)"
        )
    if cfg.variants is not None and (not OmegaConf.is_list(cfg.variants) or not cfg.variants):
        raise ConfigError("variants must be a list of names, variants=[frozen,v1]")
    # A variant may be called 8, as a width is.
    variants = None if cfg.variants is None else [str(name) for name in cfg.variants]
    record = open_test(
        folder,
        variants,
        reopen=cfg.reopen,
        device=cfg.device,
        precision=cfg.precision,
    )
    console = Console(markup=False, emoji=False)
    console.print(_test_table(record["runs"], f"{folder} on test"))
    for tab in (*_trees_table(_test_scores(record["runs"])), *_test_losses(record["runs"])):
        console.print(tab)
    times = ", ".join(opening["at"] for opening in record["opened"])
    console.print(f"opened {times}, as {folder / TEST_FILE} says", soft_wrap=True)


def _test_scores(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Score]]:
    keys = ("macro_f1", "accuracy")
    return {place: scores_of(metrics, keys=keys) for place, metrics in runs.items()}


def _test_table(runs: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    return terminal_table(score_table(f"{title}, in percent", _test_scores(runs), GUESSES))


def _test_losses(runs: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Return the log loss of the runs on test, where all recorded one."""
    losses = {place: read_loss(Fields(own, Path(TEST_FILE))) for place, own in runs.items()}
    known = {place: ("", loss) for place, loss in losses.items() if loss is not None}
    if len(known) < len(runs):
        return []
    return _loss_tables(loss_table("", known, "Run").without("n", "95% interval"))


def _scores_table(name: str, metrics: Mapping[str, Any], title: str) -> Table:
    return terminal_table(score_table(f"{title}, in percent", {name: scores_of(metrics)}))


def _trees_table(runs: Mapping[str, Mapping[str, Score]]) -> list[Table]:
    """Return the table of boosted trees, where there are some."""
    found = trees_table("beside boosted trees, in percent", runs)
    return [] if found is None else [terminal_table(found)]


def _size_tables(scores: Mapping[str, Any]) -> list[Table]:
    """Return log loss, accuracy and macro-F1 by node size, where they were scored."""
    fields = Fields(scores, Path(METRICS_FILE))
    losses = run_loss_table(fields, int(np.asarray(scores["confusion_matrix"]).sum()))
    sizes = size_table(fields)
    title = "by node size, in percent"
    return [
        *([] if losses is None else _loss_tables(losses)),
        *([] if sizes is None else [terminal_table(part, title) for part in parts(sizes, "Trees")]),
    ]


def _loss_tables(losses: OwnTable) -> list[Table]:
    title = "log loss in nats, less is better"
    return [terminal_table(part, title) for part in parts(losses, "Trees")]


def _class_table(
    metrics: Mapping[str, Any], names: Sequence[str], train_counts: Sequence[int]
) -> Table:
    classes = class_table(np.asarray(metrics["confusion_matrix"]), names, train_counts)
    title = "per class, in percent; the F1 of guessers in the last two columns"
    return terminal_table(classes.without("Share", "Predicted share"), title)


def _confusion_table(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Table:
    rows = [(name, *map(count, row)) for name, row in zip(names, matrix, strict=True)]
    columns = ("<True class", *(f"as {name}" for name in names))
    return terminal_table(table("confusion matrix", columns, rows))


def _compare(path: Path, scores: Mapping[str, Any]) -> str:
    """Compare with what training recorded, if the checkpoint still lies in its run folder.

    Raises:
        CheckpointMismatchError: if the macro-F1 is not what was recorded.
    """
    recorded = path.parent.parent / METRICS_FILE
    if path.stem != "best" or not recorded.is_file():
        return "no record of training beside this checkpoint to compare with"
    try:
        trained = read_metrics(recorded)
        tolerance = load_json(sidecar_path(path))["tolerance_pp"]
        recorded_f1 = float(trained["macro_f1"])
    except (Av1partError, OSError, ValueError, KeyError, TypeError) as error:
        return f"the record of training beside this checkpoint cannot be read ({error})"
    if "trees" not in scores["baselines"]:
        beside = {"trees", "margin_trees"} | ({LOG_LOSS} - scores.keys())
        trained = _without(beside, trained)
    differing = [key for key in scores if trained.get(key) != scores[key]]
    if not differing:
        return f"equal to what training recorded in {recorded}, every figure"
    delta = 100 * (scores["macro_f1"] - recorded_f1)
    if not abs(delta) <= tolerance:
        raise CheckpointMismatchError(
            f"{path} scores macro-F1 {100 * scores['macro_f1']:.2f} %, training recorded "
            f"{100 * recorded_f1:.2f} % in {recorded}: {delta:+.2f} pp"
        )
    return f"macro-F1 differs from {recorded} by {delta:+.4f} pp (another machine or thread count)"


def _without(keys: Set[str], scores: Any) -> Any:
    """Return scores without these keys at any depth: those that `baselines=trees` adds."""
    if not isinstance(scores, Mapping):
        return scores
    return {key: _without(keys, value) for key, value in scores.items() if key not in keys}
