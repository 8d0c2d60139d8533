"""The first chapter of a report on several runs: all of them beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from av1part.report.chapters.scores import Score, read_scores
from av1part.report.draw.plots import margins_figure
from av1part.report.render.document import Chapter, Item, Prose, Section, picture
from av1part.report.render.tables import NOTHING, Table, count, percent, points, span, table
from av1part.runs.fields import Interval
from av1part.runs.read import PipelineRun, Run, StageRun

_NO_SETTING = ("seed", "name", "resume", "stage1", "data.path", "data.split_list")
"""Keys that tell runs apart without being a choice under study."""

_DATA = ("manifest_sha256", "split_sha256")
"""What a run records of its nodes: runs of other ones are no repetition of each other."""

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
            "Repeated runs, alike in settings, dataset, split and start but for the seed: mean and "
            "standard deviation of accuracy and macro-F1 over the seeds in percent, beside the "
            "guessers (mean over the same runs); several runs of one seed count as their mean. "
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
    return [
        _seed_row(said, alike)
        for said, alike in _repeated(runs, settings).items()
        if len({_seed(run) for run in alike}) > 1
    ]


def _seed(run: Run) -> str:
    return str(run.environment.get("seed"))


def _start(run: Run) -> str:
    return _shown(run.settings.get("stage1"))


def _repeated(runs: Sequence[StageRun], settings: Sequence[str]) -> dict[str, list[StageRun]]:
    """Group runs that differ in the seed alone, by what is said of them.

    A sweep trains a Stage 1 for each seed, so its path alone tells no runs apart. But where seeds
    share some of several, a difference may be theirs.
    """
    hashes = [(key, [str(run.environment.get("dataset", key)) for run in runs]) for key in _DATA]
    started = ["given" if _start(run) != NOTHING else NOTHING for run in runs]
    told = [(name, said) for name, said in (*hashes, ("stage1", started)) if len(set(said)) > 1]
    groups: dict[str, list[StageRun]] = {}
    for index, run in enumerate(runs):
        words = [f"{key.rpartition('.')[2]}={_shown(run.settings.get(key))}" for key in settings]
        words += [f"{name}={said[index][:12]}" for name, said in told]
        groups.setdefault(", ".join([_method(run), *words]), []).append(run)
    found: dict[str, list[StageRun]] = {}
    for said, alike in groups.items():
        starts, seeds = {_start(run) for run in alike}, {_seed(run) for run in alike}
        pairs = {(_seed(run), _start(run)) for run in alike}
        own = len(starts) == 1 or len(pairs) == len(starts) == len(seeds)
        for run in alike:
            found.setdefault(said if own else f"{said}, stage1={_start(run)}", []).append(run)
    return found


def _seed_row(said: str, runs: Sequence[StageRun]) -> tuple[str, ...]:
    seeds: dict[str, list[dict[str, Score]]] = {}
    for run in runs:
        seeds.setdefault(_seed(run), []).append(run_scores(run))
    cells = [said, str(len(seeds))]
    margin = 0.0
    for metric in ("accuracy", "macro_f1"):
        # Rows are seeds, columns the model and both guessers.
        of_seeds = np.array(
            [
                np.mean([(s[metric].value, s[metric].constant, s[metric].prior) for s in same], 0)
                for same in seeds.values()
            ]
        )
        value, constant, prior = map(float, of_seeds.mean(0))
        margin = value - max(constant, prior)
        cells += [percent(value), percent(float(of_seeds[:, 0].std(ddof=1)))]
        cells += [percent(constant), percent(prior)]
    return (*cells, points(margin))
