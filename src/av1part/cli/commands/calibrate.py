"""`av1part calibrate`: temperatures and threshold, fitted on val and stored beside checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from av1part.cascade.calibrate import calibrate_alone, calibrate_cascade
from av1part.checkpoints.calibration import Calibration
from av1part.cli.commands.pipeline import data_source, given_checkpoints
from av1part.evaluation.attach import Compute
from av1part.report.render.tables import count, percent, table
from av1part.report.render.terminal import terminal_table
from av1part.runs.schema import calibration_path
from av1part.system.errors import ConfigError
from av1part.system.files import expanded


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Calibrate checkpoints one by one, or a cascade as a whole.

    Args:
        verb: `calibrate`.
        cfg: Data, objective, and the stages of a cascade if that is what is given.
        words: Checkpoints that are calibrated separately.

    Raises:
        ConfigError: if neither or both are given, or an option does not apply.
    """
    cascade = given_checkpoints(cfg)
    if bool(words) == bool(cascade):
        raise ConfigError(
            "av1part calibrate takes either CKPT..., each calibrated by itself, or the stages of "
            "one cascade, stage1=CKPT stage2=CKPT ..."
        )
    source, compute = data_source(cfg), Compute(cfg.device)
    if cascade:
        stored = calibrate_cascade(
            cascade,
            objective=cfg.objective,
            ensemble=cfg.ensemble,
            source=source,
            compute=compute,
        )
        paths = [path for ensemble in cascade.values() for path in ensemble]
    else:
        if cfg.ensemble != "mean":
            raise ConfigError(
                "av1part calibrate CKPT... is of each by itself, where ensemble= says nothing: "
                "give the stages of a cascade, stage1=CKPT stage2=CKPT ..., or leave it out"
            )
        paths = [expanded(word) for word in words]
        stored = [
            calibrate_alone(path, objective=cfg.objective, source=source, compute=compute)
            for path in paths
        ]
    console = Console(markup=False, emoji=False)
    console.print(_table(stored))
    for calibration in stored:
        if calibration.threshold is not None:
            of = " and ".join(calibration.threshold.checkpoints)
            console.print(
                f"threshold {calibration.threshold.fitted:.4f}, best for "
                f"{calibration.threshold.objective} of {of}",
                soft_wrap=True,
            )
    for path in paths:
        console.print(f"stored: {calibration_path(path)}", soft_wrap=True)


def _table(calibrations: Sequence[Calibration]) -> Table:
    rows = [
        (
            c.stage,
            count(c.nodes),
            f"{c.temperature.fitted:.3f}",
            *(f"{value:.4f}" for value in (c.nll.before, c.nll.after)),
            *(f"{percent(value)} %" for value in (c.ece.before, c.ece.after)),
        )
        for c in calibrations
    ]
    columns = ("<Stage", "Nodes", "Temperature", "NLL", "-> NLL", "ECE", "-> ECE")
    title = "on val, before and after; cross-fitted by sequence"
    return terminal_table(table(title, columns, rows))
