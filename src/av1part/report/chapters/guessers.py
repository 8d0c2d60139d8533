"""Scores beside both guessers: read from a run, and written as the cells of a table.

Every table that shows a score beside the best constant and the class-prior guesser, on the page,
in Markdown, in LaTeX or on a terminal, takes its cells from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from av1part.metrics.intervals import Interval
from av1part.report.render.tables import EMPTY_CELL, Table, percent, points, span, table
from av1part.runs.fields import Fields
from av1part.runs.read import PipelineRun, Run

METRIC_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "weighted_f1": "weighted F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "balanced_accuracy": "balanced accuracy",
    "f1_positive": "F1 of the positive class",
}
"""What a table calls a metric; both guessers are recorded for these."""

ON_PAGE = ("accuracy", "macro_f1", "weighted_f1", "f1_positive")
"""Metrics that the page prints."""


class StrongerGuesser(NamedTuple):
    """The guesser that is harder to beat.

    Attributes:
        name: `best constant` or `class-prior guesser`.
        value: Its score, a fraction.
        margin: The model's score less its, with the interval where recorded.
    """

    name: str
    value: float
    margin: Interval


@dataclass(frozen=True)
class Score:
    """A metric beside what the two guessers get on the same nodes, all fractions.

    Attributes:
        key: Key of the metric.
        value: Of the model.
        constant: Of the best constant guess.
        prior: Of the guesser that draws from the training shares.
        interval: Of `value`, where recorded.
        margin_constant: `value - constant` with its interval, where recorded.
        margin_prior: `value - prior` with its interval, where recorded.
        trees: Of boosted trees, where `baselines=trees` was asked for.
        margin_trees: `value - trees` likewise.
    """

    key: str
    value: float
    constant: float
    prior: float
    interval: Interval | None
    margin_constant: Interval
    margin_prior: Interval
    trees: float | None = None
    margin_trees: Interval | None = None

    @property
    def stronger(self) -> StrongerGuesser:
        """The guesser to compare with; for macro-F1 this is hardly ever the constant.

        The constant scores 0 on all classes but one.
        """
        if self.constant >= self.prior:
            return StrongerGuesser("best constant", self.constant, self.margin_constant)
        return StrongerGuesser("class-prior guesser", self.prior, self.margin_prior)


def read_scores(metrics: Fields, beside: Fields, keys: Sequence[str] = ON_PAGE) -> dict[str, Score]:
    """Read those metrics that a run recorded for itself and both guessers.

    Args:
        metrics: Holds the metrics themselves.
        beside: Holds `baselines` and `intervals`.
        keys: The metrics; accuracy and macro-F1 must be there.

    Returns:
        The scores by key, in the order of `keys`.

    Raises:
        ReportError: if accuracy or macro-F1 or a guesser's score of them is missing.
    """
    return {
        key: read_score(key, metrics, beside)
        for key in keys
        if key in ("accuracy", "macro_f1")
        or (
            metrics.get(key) is not None
            and all(beside.get("baselines", g, key) is not None for g in ("constant", "prior"))
        )
    }


def read_score(key: str, metrics: Fields, beside: Fields) -> Score:
    """Read one metric; arguments and errors as for `read_scores`."""
    value = metrics.number(key)
    guesses = {g: beside.number("baselines", g, key) for g in ("constant", "prior")}
    margins = {
        g: beside.interval("intervals", key, f"margin_{g}") or Interval(value - guess)
        for g, guess in guesses.items()
    }
    trees = beside.optional("baselines", "trees", key)
    margin_trees = None
    if trees is not None:
        recorded = beside.interval("intervals", key, "margin_trees")
        margin_trees = recorded or Interval(value - trees)
    return Score(
        key=key,
        value=value,
        trees=trees,
        margin_trees=margin_trees,
        **guesses,
        interval=beside.interval("intervals", key, "value"),
        margin_constant=margins["constant"],
        margin_prior=margins["prior"],
    )


def run_scores(run: Run) -> dict[str, Score]:
    """Return the scores of a run that was read from its folder, by key."""
    return read_scores(run.metrics, run.pipeline if isinstance(run, PipelineRun) else run.metrics)


def scores_of(
    metrics: Mapping[str, Any],
    beside: Mapping[str, Any] | None = None,
    keys: Sequence[str] = tuple(METRIC_NAMES),
) -> dict[str, Score]:
    """Return the scores of a run that was just made; arguments as for `read_scores`."""
    file = Path("metrics.json")
    return read_scores(Fields(metrics, file), Fields(beside or metrics, file), keys)


def mean_score(scores: Sequence[Score]) -> Score:
    """Return the mean of one metric over several runs, without intervals.

    Trees are left out unless all runs have them.
    """
    value, constant, prior = (
        float(v) for v in np.mean([(s.value, s.constant, s.prior) for s in scores], 0)
    )
    margins = Interval(value - constant), Interval(value - prior)
    of_trees = [s.trees for s in scores if s.trees is not None]
    trees = float(np.mean(of_trees)) if len(of_trees) == len(scores) else None
    margin_trees = None if trees is None else Interval(value - trees)
    return Score(scores[0].key, value, constant, prior, None, *margins, trees, margin_trees)


_CELLS: Mapping[str, tuple[str, Callable[[Score], str]]] = {
    "value": ("Score", lambda s: percent(s.value)),
    "interval": ("95% interval", lambda s: span(s.interval)),
    "constant": ("Best constant", lambda s: percent(s.constant)),
    "over constant": ("Margin", lambda s: points(s.margin_constant.estimate)),
    "over constant, interval": ("95% interval", lambda s: span(s.margin_constant, signed=True)),
    "prior": ("Class prior", lambda s: percent(s.prior)),
    "over prior": ("Margin", lambda s: points(s.margin_prior.estimate)),
    "over prior, interval": ("95% interval", lambda s: span(s.margin_prior, signed=True)),
    "trees": ("Trees", lambda s: EMPTY_CELL if s.trees is None else percent(s.trees)),
    "over trees": (
        "Margin",
        lambda s: EMPTY_CELL if s.margin_trees is None else points(s.margin_trees.estimate),
    ),
    "over trees, interval": (
        "95% interval",
        lambda s: EMPTY_CELL if s.margin_trees is None else span(s.margin_trees, signed=True),
    ),
    "margin": ("Margin", lambda s: points(s.stronger.margin.estimate)),
    "margin, interval": ("95% interval", lambda s: span(s.stronger.margin, signed=True)),
}
"""Title and content of each cell; `margin` is that over the stronger guesser."""

OF_TREES = ("trees", "over trees", "over trees, interval")
EVERY_CELL = tuple(n for n in _CELLS if not n.startswith("margin") and n not in OF_TREES)
GUESSES = ("value", "constant", "prior")
BRIEF = (*GUESSES, "margin", "margin, interval")


def with_trees(cells: Sequence[str], scores: Iterable[Score]) -> tuple[str, ...]:
    """Return the cells of a table, with those of the trees if any of its scores has them."""
    has_trees = any(score.trees is not None for score in scores)
    return (*cells, *OF_TREES) if has_trees else tuple(cells)


def score_titles(cells: Iterable[str]) -> tuple[str, ...]:
    """Return the column titles of cells."""
    return tuple(_CELLS[name][0] for name in cells)


def score_cells(score: Score, cells: Iterable[str]) -> tuple[str, ...]:
    """Return the cells of a row that belong to one score, in percent and percentage points."""
    return tuple(_CELLS[name][1](score) for name in cells)


def score_table(
    caption: str, runs: Mapping[str, Mapping[str, Score]], cells: Sequence[str] = BRIEF
) -> Table:
    """Make the table of a terminal: a row a metric of each run.

    Args:
        caption: Of the table.
        runs: Name of a run to its scores.
        cells: What to print of a score.

    Returns:
        The table; a run's name stands in its first row.
    """
    rows = [
        (name if row == 0 else "", METRIC_NAMES[score.key], *score_cells(score, cells))
        for name, scores in runs.items()
        for row, score in enumerate(scores.values())
    ]
    return table(caption, ("<Run", "<Metric", *score_titles(cells)), rows)


def trees_table(caption: str, runs: Mapping[str, Mapping[str, Score]]) -> Table | None:
    """Make the table of a terminal that has boosted trees beside runs.

    Args:
        caption: Of the table.
        runs: As for `score_table`, which has no room for them.

    Returns:
        The table; None if no run has trees beside it.
    """
    if not with_trees((), (s for scores in runs.values() for s in scores.values())):
        return None
    return score_table(caption, runs, ("value", *OF_TREES))


TREES_NOTE = (
    " Trees: boosted trees on luma features, trained on the same nodes and scored on the same; the "
    "margin over them likewise."
)
"""What a caption adds where a table has the trees' cells."""

RUN_COLUMNS = (
    *("Accuracy", "Constant", "Prior"),
    *("Macro-F1", "Constant", "Prior", "Margin", "95% interval"),
)
"""Titles of `run_cells` without trees."""


def run_columns(runs: Iterable[Mapping[str, Score]]) -> tuple[str, ...]:
    """Return the titles of `run_cells`, those of the trees' macro-F1 if any run has it."""
    trees = with_trees((), (scores["macro_f1"] for scores in runs))
    return (*RUN_COLUMNS, *score_titles(trees))


def run_cells(scores: Mapping[str, Score], columns: Sequence[str]) -> tuple[str, ...]:
    """Return accuracy and macro-F1 of a run, each beside both guessers, as cells of one row.

    Args:
        scores: Of the run.
        columns: As `run_columns` returns them.

    Returns:
        A cell a column.
    """
    f1 = scores["macro_f1"]
    trees = score_cells(f1, OF_TREES) if len(columns) > len(RUN_COLUMNS) else ()
    return (*score_cells(scores["accuracy"], GUESSES), *score_cells(f1, BRIEF), *trees)


def run_table(caption: str, runs: Mapping[str, Mapping[str, Score]]) -> Table:
    """Make a table of a row a run, from names to scores."""
    columns = run_columns(runs.values())
    rows = [(name, *run_cells(scores, columns)) for name, scores in runs.items()]
    return table(caption, ("<Run", *columns), rows)
