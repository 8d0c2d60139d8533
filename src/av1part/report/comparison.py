"""The first chapter of a report on several runs: all of them beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from av1part.report.document import Chapter, Item, Prose, Section, picture
from av1part.report.fields import Interval
from av1part.report.plots import margins_figure
from av1part.report.runs import PipelineRun, Run, StageRun
from av1part.report.scores import Score, read_scores
from av1part.report.tables import NOTHING, Table, count, percent, points, span, table

_NO_SETTING = ("seed", "name", "resume", "stage1", "data.path", "data.split_list")
"""Keys that tell runs apart without being a choice under study."""


_MOST_SETTINGS = 6
"""Columns of the table of settings; it must fit the page."""


def run_scores(run: Run) -> dict[str, Score]:
    """Return a run's scores by their flat keys."""
    beside = run.pipeline if isinstance(run, PipelineRun) else run.metrics
    return {score.key: score for score in read_scores(run.metrics, beside)}


def comparison_chapter(runs: Sequence[Run], unfinished: Sequence[str], note: str) -> Chapter:
    """Compare several runs.

    Args:
        runs: All of them.
        unfinished: Names of runs that were begun and left no result.
        note: What the chapters below leave out, or nothing.

    Returns:
        The chapter: all runs first, then the pipelines, then a section a stage.
    """
    pipelines = [run for run in runs if isinstance(run, PipelineRun)]
    stages = sorted({run.stage for run in runs if isinstance(run, StageRun)})
    items: list[Item] = []
    if unfinished:
        said = ", ".join(f"`{name}`" for name in unfinished)
        items.append(Prose(f"Begun but not finished, so without a result: {said}.", warns=True))
    if note:
        items.append(Prose(note))
    sections = [Section("All runs", (*items, _margins(runs)))]
    if pipelines:
        sections.append(Section("Pipelines", (comparison_table(pipelines, "Pipelines"),)))
    for stage in stages:
        of_stage = [run for run in runs if isinstance(run, StageRun) and run.stage == stage]
        sections.append(Section(f"Runs of {stage}", tuple(_stage_items(stage, of_stage))))
    return Chapter("comparison", "Comparison", tuple(sections))


def _margins(runs: Sequence[Run]) -> Item:
    margins: list[Interval] = [run_scores(run)["macro_f1"].stronger[2] for run in runs]
    caption = (
        "Macro-F1 above the stronger of the two guessers on the same nodes, a run a row, with its "
        "95% interval where it was recorded (bootstrap over whole sequences). Blue dots: the "
        "interval lies above zero; orange diamonds: it does not, or none was recorded. Stages "
        "differ in classes and nodes: compare rows of one stage."
    )
    names = [f"{run.stage} · {run.name}" if isinstance(run, StageRun) else run.name for run in runs]
    title = "Macro-F1 above the stronger guesser"
    return picture("margins", caption, margins_figure(names, margins, title))


_RUN_COLUMNS = (
    "<Run",
    "<Method",
    "Seed",
    "n",
    "Accuracy",
    "Constant",
    "Prior",
    "Macro-F1",
    "Constant",
    "Prior",
    "Margin",
    "95% interval",
)


def comparison_table(runs: Sequence[Run], what: str) -> Table:
    """Put accuracy and macro-F1 of several runs beside both guessers.

    Args:
        runs: Runs of one stage, or pipelines.
        what: What the caption calls them.

    Returns:
        The table, a row a run.
    """
    rows = []
    for run in runs:
        scores = run_scores(run)
        accuracy, macro = scores["accuracy"], scores["macro_f1"]
        rows.append(
            (
                run.name,
                _method(run),
                str(run.environment.get("seed") if run.environment.get("seed") is not None else ""),
                count(run.confusion.sum()),
                percent(accuracy.value),
                percent(accuracy.constant),
                percent(accuracy.prior),
                percent(macro.value),
                percent(macro.constant),
                percent(macro.prior),
                points(macro.stronger[2].estimate),
                span(macro.stronger[2], signed=True),
            )
        )
    caption = (
        f"{what} in percent: accuracy and macro-F1, each beside the best constant and the "
        "class-prior guesser; the margin of macro-F1 over the stronger of the two in percentage "
        "points, with its 95% interval."
    )
    return table(caption, _RUN_COLUMNS, rows)


def _method(run: Run) -> str:
    if isinstance(run, StageRun):
        return run.metrics.text("method")
    assert isinstance(run, PipelineRun)
    return run.pipeline.text("protocol")


def _stage_items(stage: str, runs: Sequence[StageRun]) -> list[Item]:
    items: list[Item] = [comparison_table(runs, f"Runs of {stage}")]
    settings = differing_settings(runs)
    if settings:
        shown = settings[:_MOST_SETTINGS]
        rows = [(run.name, *(_shown(run.settings.get(key)) for key in shown)) for run in runs]
        more = len(settings) - len(shown)
        caption = "Settings in which these runs differ, seeds and paths aside" + (
            f"; {more} more are in the configurations below." if more else "."
        )
        items.append(table(caption, ["<Run", *(f"<`{key}`" for key in shown)], rows))
    seeds = _seed_rows(runs, settings)
    if seeds:
        caption = (
            "Repeated runs, alike but for the seed: mean and standard deviation of accuracy and "
            "macro-F1 over the seeds in percent, beside the guessers (mean over the same runs). "
            "The margin is that of macro-F1 over the stronger guesser; the deviation is that of "
            "training, not of other pictures."
        )
        columns = (
            "<Settings",
            "Seeds",
            "Accuracy",
            "s.d.",
            "Constant",
            "Prior",
            "Macro-F1",
            "s.d.",
            "Constant",
            "Prior",
            "Margin",
        )
        items.append(table(caption, columns, seeds))
    return items


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """Return the configuration keys in which runs differ, seeds, names and paths aside."""
    keys = sorted({key for run in runs for key in run.settings})
    return [
        key
        for key in keys
        if key not in _NO_SETTING and len({_shown(run.settings.get(key)) for run in runs}) > 1
    ]


def _shown(value: Any) -> str:
    return NOTHING if value is None else str(value)


def _seed_rows(runs: Sequence[StageRun], settings: Sequence[str]) -> list[tuple[str, ...]]:
    groups: dict[tuple[str, ...], list[StageRun]] = {}
    for run in runs:
        key = (_method(run), *(_shown(run.settings.get(s)) for s in settings))
        groups.setdefault(key, []).append(run)
    return [
        _seed_row(key, settings, alike)
        for key, alike in groups.items()
        if len({str(run.environment.get("seed")) for run in alike}) > 1
    ]


def _seed_row(
    key: tuple[str, ...], settings: Sequence[str], runs: Sequence[StageRun]
) -> tuple[str, ...]:
    said = [
        key[0],
        *(f"{s.rsplit('.', 1)[-1]}={v}" for s, v in zip(settings, key[1:], strict=True)),
    ]
    cells = [", ".join(said), str(len(runs))]
    margin = 0.0
    for metric in ("accuracy", "macro_f1"):
        scores = [run_scores(run)[metric] for run in runs]
        values = np.array([s.value for s in scores])
        constant = float(np.mean([s.constant for s in scores]))
        prior = float(np.mean([s.prior for s in scores]))
        margin = float(values.mean()) - max(constant, prior)
        cells += [percent(float(values.mean())), percent(float(values.std(ddof=1)))]
        cells += [percent(constant), percent(prior)]
    return (*cells, points(margin))
