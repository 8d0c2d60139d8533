"""The tables every chapter has: scores beside both guessers, per class, and the study's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from av1part.metrics.scores import f1_from_confusion, guesser_class_f1
from av1part.options import MIXED
from av1part.report.render.tables import NOTHING, Table, count, percent, points, span, table
from av1part.report.study import CITATION, figures
from av1part.runs.fields import Fields, Interval

METRIC_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "weighted_f1": "weighted F1",
    "f1_positive": "F1 of the positive class",
}
"""What a table calls a flat key; these are the metrics both guessers are recorded for."""


@dataclass(frozen=True)
class Score:
    """A metric beside what the two guessers get on the same nodes, all fractions.

    Attributes:
        key: Flat key of the metric.
        value: Of the model.
        constant: Of the best constant guess.
        prior: Of the guesser that draws from the training shares.
        interval: Of `value`, where recorded.
        margin_constant: `value - constant` with its interval, where recorded.
        margin_prior: `value - prior` with its interval, where recorded.
    """

    key: str
    value: float
    constant: float
    prior: float
    interval: Interval | None
    margin_constant: Interval
    margin_prior: Interval

    @property
    def stronger(self) -> tuple[str, float, Interval]:
        """The guesser that is harder to beat: its name, its score, and the margin over it.

        For macro-F1 that is hardly ever the constant, which scores nothing on all classes but one.
        """
        if self.constant >= self.prior:
            return "best constant", self.constant, self.margin_constant
        return "class-prior guesser", self.prior, self.margin_prior


def read_scores(metrics: Fields, beside: Fields) -> list[Score]:
    """Read every metric of `METRIC_NAMES` that a run recorded, accuracy and macro-F1 always.

    Args:
        metrics: Holds the metrics themselves.
        beside: Holds `baselines` and `intervals`.

    Returns:
        The scores, in the order of `METRIC_NAMES`.

    Raises:
        ReportError: if accuracy or macro-F1 or a guesser's score of them is missing.
    """
    keys = [
        key
        for key in METRIC_NAMES
        if key in ("accuracy", "macro_f1")
        or (metrics.get(key) is not None and beside.get("baselines", "constant", key) is not None)
    ]
    return [_read_score(key, metrics, beside) for key in keys]


def _read_score(key: str, metrics: Fields, beside: Fields) -> Score:
    value = metrics.number(key)
    guesses = {g: beside.number("baselines", g, key) for g in ("constant", "prior")}
    margins = {
        g: beside.interval("intervals", key, f"margin_{g}") or Interval(value - guess, None, None)
        for g, guess in guesses.items()
    }
    return Score(
        key=key,
        value=value,
        **guesses,
        interval=beside.interval("intervals", key, "value"),
        margin_constant=margins["constant"],
        margin_prior=margins["prior"],
    )


_SCORE_COLUMNS = (
    "<Metric",
    "n",
    "Score",
    "95% interval",
    "Best constant",
    "Margin",
    "95% interval",
    "Class prior",
    "Margin",
    "95% interval",
)


def score_table(scores: Sequence[Score], nodes: int, sequences: int, constant: str) -> Table:
    """Make the headline table.

    Args:
        scores: One a row.
        nodes: Nodes evaluated.
        sequences: Pictures or clips they come from.
        constant: The class that is best to guess always.

    Returns:
        The table, a row a score.
    """
    rows = [
        (
            METRIC_NAMES[s.key],
            count(nodes),
            percent(s.value),
            span(s.interval),
            percent(s.constant),
            points(s.margin_constant.estimate),
            span(s.margin_constant, signed=True),
            percent(s.prior),
            points(s.margin_prior.estimate),
            span(s.margin_prior, signed=True),
        )
        for s in scores
    ]
    note = (
        " For the F1 of one class the best constant always says that class."
        if any(s.key == "f1_positive" for s in scores)
        else ""
    )
    caption = (
        f"Scores on {count(nodes)} nodes of {_sequences(sequences)}, in percent, beside two "
        f"guessers that never look at a block: the best constant (always {constant}) and one that "
        "draws from the class shares of the training set; margins in percentage points. Intervals: "
        f"95%, bootstrap over whole sequences.{note}"
    )
    return table(caption, _SCORE_COLUMNS, rows)


_CLASS_COLUMNS = (
    "<Class",
    "n",
    "Share",
    "Predicted share",
    "Precision",
    "Recall",
    "F1",
    "F1, always it",
    "F1, class prior",
)


def class_table(confusion: NDArray[np.int64], class_names: Sequence[str]) -> Table:
    """Put precision, recall and F1 of each class beside both guessers.

    Args:
        confusion: Counts of shape (k, k), rows true, columns predicted.
        class_names: Names in class-index order.

    Returns:
        The table, a row a class.
    """
    support, predicted = confusion.sum(1), confusion.sum(0)
    hits = np.diagonal(confusion)
    f1 = f1_from_confusion(confusion)
    always, prior = (guesser_class_f1(g, support, support) for g in ("constant", "prior"))
    rows = []
    for i, name in enumerate(class_names):
        rows.append(
            (
                name,
                count(support[i]),
                percent(support[i] / support.sum()),
                percent(predicted[i] / support.sum()),
                percent(hits[i] / predicted[i]) if predicted[i] else NOTHING,
                percent(hits[i] / support[i]) if support[i] else NOTHING,
                percent(float(f1[i])),
                percent(float(always[i])),
                percent(float(prior[i])),
            )
        )
    caption = (
        "Each class in percent, counted from `predictions.parquet`. The last two columns are the "
        "F1 of guessers: one that always says this class, and one that draws from the classes' "
        "shares of the evaluated nodes (its F1 is the share)."
    )
    return table(caption, _CLASS_COLUMNS, rows)


_STUDY_CAPTION = (
    "The study's published figures, each beside the guess it must be read against, in percent; "
    "margins in percentage points. They are of other pictures, one seed, and blocks of the "
    "same frames in training and validation: compare margins, not scores."
)


def study_table(scope: str, scores: Sequence[Score]) -> Table | None:
    """Put the study's figures of a stage or of the pipeline beside ours.

    Args:
        scope: `pipeline` or the name of a stage.
        scores: Ours.

    Returns:
        The table, or None where the study has no figure.
    """
    published = figures(scope)
    if not published:
        return None
    ours = {s.key: s for s in scores}
    rows = [
        (
            f"{figure.name} ({CITATION})",
            METRIC_NAMES[figure.metric],
            f"{figure.value:.2f}",
            figure.constant.name,
            f"{figure.constant.value:.2f}",
            points(figure.margin, scale=1),
        )
        for figure in published
    ]
    for key in dict.fromkeys(figure.metric for figure in published):
        if key in ours:
            name, guess, margin = ours[key].stronger
            rows.append(
                (
                    "this run",
                    METRIC_NAMES[key],
                    percent(ours[key].value),
                    name,
                    percent(guess),
                    points(margin.estimate),
                )
            )
    columns = ("<Figure", "<Metric", "Score", "<Guess", "Guess scores", "Margin")
    return table(
        _STUDY_CAPTION, columns, rows, strong=len(rows) - 1 if len(rows) > len(published) else None
    )


def verdict(scores: Sequence[Score], sequences: int) -> str:
    """Say in words where accuracy and macro-F1 stand against the stronger guesser."""
    said = [
        f"{METRIC_NAMES[s.key]} is {percent(s.value)}%, {_standing(*s.stronger)}"
        for s in scores
        if s.key in ("accuracy", "macro_f1")
    ]
    return f"On {_sequences(sequences)} {', and '.join(said)}."


def _sequences(number: int) -> str:
    return f"{count(number)} sequence{'' if number == 1 else 's'}"


def _standing(name: str, guess: float, margin: Interval) -> str:
    side = "above" if margin.estimate >= 0 else "below"
    where = f"{percent(abs(margin.estimate))} points {side} the {name}'s {percent(guess)}"
    if margin.verdict == "unknown":
        return f"{where} (no interval: it takes several sequences)"
    where += f" (95% interval {span(margin, signed=True)})"
    return f"{where}, which does not tell them apart" if margin.verdict == "within" else where


def limits(sequences: int, protocol: str) -> str:
    """Say what the intervals do not cover."""
    text = (
        f"The nodes come from {_sequences(sequences)}. Blocks of one picture resemble each "
        "other, so the picture is the unit that is resampled; with few of them the intervals are "
        "optimistic (too narrow), and none says anything of other kinds of content, encoders or "
        "speeds."
    )
    caveat = mixing_caveat(protocol)
    return f"{text} {caveat}" if caveat else text


def mixing_caveat(protocol: str) -> str:
    """Say that the protocol puts parts of a picture on both sides; nothing if it does not."""
    if protocol not in MIXED:
        return ""
    return (
        f"Under `{protocol}` blocks of one picture or clip may lie in both training and "
        "validation: scores flatter the model."
    )
