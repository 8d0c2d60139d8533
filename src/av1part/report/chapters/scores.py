"""The parts every chapter has: scores, classes, the study's figures, the result in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av1part.metrics.intervals import Interval
from av1part.metrics.scores import f1_from_confusion, guesser_class_f1
from av1part.options import MIXED
from av1part.report.chapters.guessers import (
    EVERY_CELL,
    METRIC_NAMES,
    TREES_NOTE,
    Score,
    score_cells,
    score_titles,
    with_trees,
)
from av1part.report.draw.plots import margins_figure
from av1part.report.render.document import Picture, picture
from av1part.report.render.tables import EMPTY_CELL, Table, count, percent, points, span, table
from av1part.report.study import CITATION, figures


def headline_table(
    scores: Mapping[str, Score], nodes: int, sequences: int, constant: str, kind: str = ""
) -> Table:
    """Make the table of a run's scores beside both guessers.

    Args:
        scores: One a row.
        nodes: Nodes evaluated.
        sequences: Pictures or clips they come from.
        constant: The class that is best to guess always.
        kind: What to call the nodes where a run has others too.

    Returns:
        The table, a row a score.
    """
    cells = with_trees(EVERY_CELL, scores.values())
    rows = [(METRIC_NAMES[s.key], count(nodes), *score_cells(s, cells)) for s in scores.values()]
    note = (
        " For the F1 of one class the best constant always predicts that class."
        if "f1_positive" in scores
        else ""
    )
    caption = (
        f"Scores on {count(nodes)} {kind or 'nodes'} of {_sequences(sequences)}, in percent, "
        "beside two guessers that never look at a block: the best constant (always "
        f"{constant}) and one that "
        "draws from the class shares of the training set; margins in percentage points. Intervals: "
        f"95%, bootstrap over whole sequences.{note}"
    )
    if cells != EVERY_CELL:
        caption += TREES_NOTE
    return table(caption, ("<Metric", "n", *score_titles(cells)), rows)


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


def class_table(
    confusion: NDArray[np.int64],
    class_names: Sequence[str],
    train_counts: ArrayLike | None = None,
) -> Table:
    """Put precision, recall and F1 of each class beside both guessers.

    Args:
        confusion: Counts of shape (k, k), rows true, columns predicted.
        class_names: Names in class-index order.
        train_counts: Nodes of each class in training, shape (k,), for the class-prior guesser;
            without them it draws from the shares of the evaluated nodes.

    Returns:
        The table, a row a class.
    """
    support, predicted = confusion.sum(1), confusion.sum(0)
    hits = np.diagonal(confusion)
    f1 = f1_from_confusion(confusion)
    known = support if train_counts is None else train_counts
    always, prior = (guesser_class_f1(g, support, known) for g in ("constant", "prior"))
    rows = []
    for i, name in enumerate(class_names):
        rows.append(
            (
                name,
                count(support[i]),
                percent(support[i] / support.sum()),
                percent(predicted[i] / support.sum()),
                percent(hits[i] / predicted[i]) if predicted[i] else EMPTY_CELL,
                percent(hits[i] / support[i]) if support[i] else EMPTY_CELL,
                percent(float(f1[i])),
                percent(float(always[i])),
                percent(float(prior[i])),
            )
        )
    caption = (
        "Each class in percent, counted from `predictions.parquet`. The last two columns are the "
        "F1 of guessers: one that always predicts this class, and one that draws from the class "
        "shares of the evaluated nodes (its F1 is the share)."
    )
    return table(caption, _CLASS_COLUMNS, rows)


_STUDY_CAPTION = (
    "The study's published figures, each beside the guess to compare it with, in percent; "
    "margins in percentage points. They are of other pictures, one seed, and blocks of the "
    "same frames in training and validation: compare margins, not scores."
)


def study_table(scope: str, scores: Mapping[str, Score]) -> Table | None:
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
        if key in scores:
            guesser = scores[key].stronger
            rows.append(
                (
                    "this run",
                    METRIC_NAMES[key],
                    percent(scores[key].value),
                    guesser.name,
                    percent(guesser.value),
                    points(guesser.margin.estimate),
                )
            )
    columns = ("<Figure", "<Metric", "Score", "<Guess", "Guess scores", "Margin")
    return table(
        _STUDY_CAPTION, columns, rows, strong=len(rows) - 1 if len(rows) > len(published) else None
    )


def headline(score: Score, nodes: int, sequences: int, of: str = "") -> str:
    """Return one line: a score beside the stronger guesser, the margin and its interval."""
    name = METRIC_NAMES[score.key]
    return (
        f"{name[0].upper()}{name[1:]}{of and f' of {of}'} is {percent(score.value)}%, "
        f"{_standing(score)}, on {count(nodes)} nodes of {_sequences(sequences)}."
    )


def result_text(scores: Mapping[str, Score], sequences: int, kind: str = "") -> str:
    """Return a sentence that compares accuracy and macro-F1 with the stronger guesser."""
    parts = [
        f"{METRIC_NAMES[key]} is {percent(scores[key].value)}%, {_standing(scores[key])}"
        for key in ("accuracy", "macro_f1")
    ]
    of = f" {kind} of" if kind else ""
    return f"On{of} {_sequences(sequences)} {', and '.join(parts)}."


def _sequences(number: int) -> str:
    return f"{count(number)} sequence{'' if number == 1 else 's'}"


def _standing(score: Score) -> str:
    name, guess, margin = score.stronger
    side = "above" if margin.estimate >= 0 else "below"
    text = f"{percent(abs(margin.estimate))} points {side} the {name}'s {percent(guess)}%"
    if margin.sign == "unknown":
        return f"{text} (no interval: that needs several sequences)"
    zero = ", which contains zero: not significant" if margin.sign == "zero" else ""
    return f"{text} (95% interval {span(margin, signed=True)}{zero})"


def margins_picture(
    name: str,
    margins: Mapping[str, Interval],
    what: str,
    note: str,
    title: str,
    *,
    nats: bool = False,
) -> Picture:
    """Draw margins over the stronger guesser, a row each.

    Args:
        name: Of the picture.
        margins: By the names of the rows.
        what: What the caption calls the margins and rows.
        note: A further sentence of the caption, or nothing.
        title: Of the drawing.
        nats: Whether the margins are of log losses, and not fractions.

    Returns:
        The picture.
    """
    caption = (
        f"{what}, with its 95% interval where there is one. Blue dots: the interval lies above "
        f"zero; orange diamonds: it does not, or there is none. {note}"
    )
    units: dict[str, Any] = {"scale": 1, "unit": "nats"} if nats else {}
    drawing = margins_figure(list(margins), list(margins.values()), title, **units)
    return picture(name, caption.rstrip(), drawing)


def run_margins(scores: Mapping[str, Score], prefix: str) -> Picture:
    """Draw the margins of one run's accuracy and macro-F1 over both guessers."""
    margins = {
        f"{METRIC_NAMES[key]} over the {guesser}": margin
        for key in ("accuracy", "macro_f1")
        for guesser, margin in (
            ("best constant", scores[key].margin_constant),
            ("class-prior guesser", scores[key].margin_prior),
            ("boosted trees", scores[key].margin_trees),
        )
        if margin is not None
    }
    what = "Margin over each guesser on the same nodes, in percentage points"
    note = "Intervals by bootstrap over whole sequences."
    return margins_picture(f"{prefix}margins", margins, what, note, "Margin over the guessers")


def sampling_note(sequences: int, protocol: str) -> str:
    """Return what the intervals do not cover."""
    text = (
        f"The nodes come from {_sequences(sequences)}. Blocks of one picture resemble each "
        "other, so the picture is the unit that is resampled; with few of them the intervals are "
        "optimistic (too narrow), and none covers other kinds of content, encoders or speeds."
    )
    caveat = mixing_caveat(protocol)
    return f"{text} {caveat}" if caveat else text


def mixing_caveat(protocol: str) -> str:
    """Return a warning if the protocol puts parts of a picture on both sides, else nothing."""
    if protocol not in MIXED:
        return ""
    return (
        f"Under `{protocol}` blocks of one picture or clip may lie in both training and "
        "validation: scores flatter the model."
    )
