"""The first chapter of a report on several runs: all of them beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from av1part.defects import banner
from av1part.options import INPUT_KEYS
from av1part.report.chapters.common import joined, marked
from av1part.report.chapters.datasets import data_table, dataset_names, datasets_caveat
from av1part.report.chapters.frame import frame_viewer
from av1part.report.chapters.guessers import (
    RUN_COLUMNS,
    TREES_NOTE,
    Score,
    mean_score,
    run_cells,
    run_columns,
    run_scores,
    score_cells,
    score_titles,
)
from av1part.report.chapters.log_loss import loss_table, read_loss, sizes_of
from av1part.report.chapters.scores import headline, margins_picture
from av1part.report.render.document import Chapter, Headline, Item, Picture, Prose, Section
from av1part.report.render.tables import EMPTY_CELL, Table, count, nats, percent, table
from av1part.runs.read import PipelineRun, Run, StageRun
from av1part.runs.schema import LOG_LOSS

_NO_SETTING = ("seed", "name", "resume", *INPUT_KEYS)
"""Keys that tell runs apart without being a choice under study."""

_DATA = ("manifest_sha256", "split_sha256", "costs_sha256")
"""What a run records of its nodes: runs of other ones are no repetition of each other."""

_MOST_SETTINGS = 6
"""Columns of the table of settings; it must fit the page."""


def comparison_chapter(
    runs: Sequence[Run],
    unfinished: Sequence[str],
    note: str = "",
    shown: Run | None = None,
    frame: Picture | None = None,
) -> Chapter:
    """Compare several runs.

    Args:
        runs: All of them.
        unfinished: Names of runs that were begun and left no result.
        note: What the chapters below leave out, or nothing.
        shown: The run whose result stands first.
        frame: Its frame, if any.

    Returns:
        The chapter: one run's frame and result, all margins, the pipelines, a section a stage.
    """
    pipelines = [run for run in runs if isinstance(run, PipelineRun)]
    stages = sorted({run.stage for run in runs if isinstance(run, StageRun)})
    notes: list[Item] = [
        Prose(f"`{run.name}`: {banner(run.defects)}", warns=True) for run in runs if run.defects
    ]
    if caveat := datasets_caveat(runs):
        notes.append(Prose(caveat, warns=True))
    if unfinished:
        names = ", ".join(f"`{name}`" for name in unfinished)
        notes.append(Prose(f"Begun but not finished, so without a result: {names}.", warns=True))
    if note:
        notes.append(Prose(note))
    sections = [Section("All runs", tuple(notes))] if notes else []
    if pipelines:
        items = joined(comparison_table(pipelines, "Pipelines"), data_table(pipelines))
        sections.append(Section("Pipelines", items))
    for stage in stages:
        of_stage = [run for run in runs if isinstance(run, StageRun) and run.stage == stage]
        sections.append(Section(f"Runs of {stage}", tuple(_stage_items(stage, of_stage))))
    first: tuple[Item, ...] = ()
    if shown is not None:
        first = joined(frame, frame_viewer(shown), Headline(_headline(shown)))
    return Chapter("comparison", "Comparison", tuple(sections), (*first, _margins(runs)))


def _headline(run: Run) -> str:
    nodes, sequences = int(run.confusion.sum()), run.predictions.sequences
    of = f"{run.stage} in `{run.name}`" if isinstance(run, StageRun) else f"`{run.name}`"
    return headline(run_scores(run)["macro_f1"], nodes, sequences, of)


def _title(run: Run) -> str:
    return marked(f"{run.stage} · {run.name}" if isinstance(run, StageRun) else run.name, run)


def _margins(runs: Sequence[Run]) -> Picture:
    margins = {_title(run): run_scores(run)["macro_f1"].stronger.margin for run in runs}
    what = "Macro-F1 above the stronger of the two guessers on the same nodes, one row for each run"
    note = (
        "Intervals by bootstrap over whole sequences. Stages differ in classes and nodes: compare "
        "rows of one stage."
    )
    return margins_picture("margins", margins, what, note, "Macro-F1 above the stronger guesser")


_COLUMNS = ("<Run", "<Method", "Seed", "n")


def comparison_table(runs: Sequence[Run], what: str) -> Table:
    """Put accuracy and macro-F1 of several runs beside both guessers.

    Args:
        runs: Runs of one stage, or pipelines.
        what: What the caption calls them.

    Returns:
        The table, a row a run; with a column for the dataset if there are several.
    """
    names = dataset_names(runs)
    several = len(set(names)) > 1
    scores = [run_scores(run) for run in runs]
    of_scores = run_columns(scores)
    rows = [
        (
            run.name,
            *([name] if several else []),
            _method(run),
            _seed(run),
            count(run.confusion.sum()),
            *run_cells(of_run, of_scores),
        )
        for run, name, of_run in zip(runs, names, scores, strict=True)
    ]
    columns = (_COLUMNS[0], *(["<Dataset"] if several else []), *_COLUMNS[1:], *of_scores)
    caption = (
        f"{what} in percent: accuracy and macro-F1, each beside the best constant and the "
        "class-prior guesser; the margin of macro-F1 over the stronger of the two in percentage "
        "points, with its 95% interval."
    )
    if len(of_scores) > len(RUN_COLUMNS):
        caption += TREES_NOTE
    return table(caption, columns, rows)


def loss_comparison(runs: Sequence[StageRun]) -> Table | None:
    """Put the log loss of several runs beside the class prior's; None where one has none.

    Args:
        runs: Runs of one stage.

    Returns:
        The table, a row a run, with a column for each node size that all have.
    """
    losses = {run.name: read_loss(run.metrics) for run in runs}
    known = {name: ("", loss) for name, loss in losses.items() if loss is not None}
    if len(known) < len(runs):
        return None
    of_sizes = [sizes_of(run.metrics) for run in runs]
    sizes = [size for size in of_sizes[0] if all(size in own for own in of_sizes)]
    whole = loss_table("Log loss of these runs.", known, "Run").without("n")
    rows = [
        (*row, *(nats(own[size].number(LOG_LOSS)) for size in sizes))
        for row, own in zip(whole.rows, of_sizes, strict=True)
    ]
    note = " The last columns are of the nodes of each size, of which the first is the mean."
    return table(whole.caption + note * bool(sizes), (*whole.columns, *sizes), rows)


def _method(run: Run) -> str:
    if isinstance(run, StageRun):
        return run.metrics.text("method")
    assert isinstance(run, PipelineRun)
    return run.pipeline.text("protocol")


def _stage_items(stage: str, runs: Sequence[StageRun]) -> list[Item]:
    tables = loss_comparison(runs), comparison_table(runs, f"Runs of {stage}"), data_table(runs)
    items: list[Item] = [*joined(*tables)]
    settings = differing_settings(runs)
    if settings:
        shown = settings[:_MOST_SETTINGS]
        rows = [(run.name, *(_shown(run.settings.get(key)) for key in shown)) for run in runs]
        more = len(settings) - len(shown)
        caption = "Settings in which these runs differ, seeds and paths aside" + (
            f"; {more} more are in the configurations below." if more else "."
        )
        items.append(table(caption, ["<Run", *(f"<`{key}`" for key in shown)], rows))
    trees = any(run_scores(run)["macro_f1"].trees is not None for run in runs)
    seeds = _seed_rows(runs, settings, trees=trees)
    if seeds:
        caption = (
            "Repeated runs, alike in settings, dataset, split and start but for the seed: mean and "
            "standard deviation of accuracy and macro-F1 over the seeds in percent, beside the "
            "guessers (mean over the same runs); several runs of one seed count as their mean. "
            "The margin is that of macro-F1 over the stronger guesser; the deviation is that of "
            "training, not of other pictures."
        )
        if trees:
            caption += TREES_NOTE
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
            *(score_titles(("trees", "over trees")) if trees else ()),
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
    return EMPTY_CELL if value is None else str(value)


def _seed_rows(
    runs: Sequence[StageRun], settings: Sequence[str], *, trees: bool
) -> list[tuple[str, ...]]:
    return [
        _seed_row(description, repeated, trees=trees)
        for description, repeated in _repeated(runs, settings).items()
        if len({_seed(run) for run in repeated}) > 1
    ]


def _seed(run: Run) -> str:
    seed = run.environment.get("seed")
    return "" if seed is None else str(seed)


def _start(run: Run) -> str:
    return _shown(run.settings.get("stage1"))


def _repeated(runs: Sequence[StageRun], settings: Sequence[str]) -> dict[str, list[StageRun]]:
    """Group runs that differ in the seed alone, by a description of the group.

    In a sweep every seed has its own Stage 1, so different paths of Stage 1 alone do not separate
    runs. But where several seeds share one of several Stage 1, the start may explain a difference.
    """
    hashes = [(key, [str(run.environment.get("dataset", key)) for run in runs]) for key in _DATA]
    starts = ["given" if _start(run) != EMPTY_CELL else EMPTY_CELL for run in runs]
    differing = [
        (name, values) for name, values in (*hashes, ("stage1", starts)) if len(set(values)) > 1
    ]
    alike: dict[str, list[StageRun]] = {}
    for index, run in enumerate(runs):
        words = [f"{key.rpartition('.')[2]}={_shown(run.settings.get(key))}" for key in settings]
        words += [f"{name}={values[index][:12]}" for name, values in differing]
        alike.setdefault(", ".join([_method(run), *words]), []).append(run)
    groups: dict[str, list[StageRun]] = {}
    for description, members in alike.items():
        paths, seeds = {_start(run) for run in members}, {_seed(run) for run in members}
        pairs = {(_seed(run), _start(run)) for run in members}
        own = len(paths) == 1 or len(pairs) == len(paths) == len(seeds)
        for run in members:
            key = description if own else f"{description}, stage1={_start(run)}"
            groups.setdefault(key, []).append(run)
    return groups


def _seed_row(description: str, runs: Sequence[StageRun], *, trees: bool) -> tuple[str, ...]:
    seeds: dict[str, list[dict[str, Score]]] = {}
    for run in runs:
        seeds.setdefault(_seed(run), []).append(run_scores(run))
    cells = [description, str(len(seeds))]
    for metric in ("accuracy", "macro_f1"):
        of_seeds = [mean_score([scores[metric] for scores in same]) for same in seeds.values()]
        deviation = float(np.std([score.value for score in of_seeds], ddof=1))
        value, *guesses = score_cells(mean_score(of_seeds), ("value", "constant", "prior"))
        cells += [value, percent(deviation), *guesses]
    mean = mean_score(of_seeds)
    of_trees = score_cells(mean, ("trees", "over trees")) if trees else ()
    return (*cells, *score_cells(mean, ("margin",)), *of_trees)
