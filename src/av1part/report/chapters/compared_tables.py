"""Tables of a comparison of predictors, for the page."""

from __future__ import annotations

from collections.abc import Sequence

from av1part.metrics.distributions import TAUS, coverage_key, set_size_key
from av1part.metrics.intervals import Interval
from av1part.report.render.tables import (
    EMPTY_CELL,
    Table,
    count,
    p_text,
    percent,
    points,
    span,
    table,
)
from av1part.runs.compared import Compared
from av1part.runs.fields import Fields

DECISION_NAMES = {"argmax": "argmax", "weighted": "weights"}


def decimals(value: float | None, *, signed: bool = False) -> str:
    """Return a number that is no fraction, such as nats, with four decimals.

    >>> decimals(1.36789), decimals(-0.01, signed=True)
    ('1.3679', '−0.0100')
    """
    if value is None:
        return EMPTY_CELL
    return f"{value:{'+' if signed else ''}.4f}".replace("-", "−")


def limits(interval: Interval | None, *, signed: bool = False) -> str:
    """Return the ends of an interval of numbers that are no fractions."""
    if interval is None or interval.low is None or interval.high is None:
        return EMPTY_CELL
    low, high = (decimals(end, signed=signed) for end in (interval.low, interval.high))
    return f"[{low}, {high}]"


def of_size(compared: Compared, size: str) -> dict[str, Fields]:
    """Return what each predictor that has a size scores there."""
    return compared.record.children("sizes", size, "predictors")


def _estimate(scores: Fields, name: str) -> float:
    return scores.number(name, "estimate")


def scores_table(compared: Compared, size: str) -> Table:
    """Put log loss, accuracy and the like side by side, a row a predictor."""
    rows = []
    for name, record in of_size(compared, size).items():
        scores = record.child("scores")
        rows.append(
            (
                name,
                decimals(_estimate(scores, "log_loss")),
                limits(scores.interval("log_loss")),
                percent(_estimate(scores, "accuracy")),
                span(scores.interval("accuracy")),
                percent(_estimate(scores, "macro_f1")),
                span(scores.interval("macro_f1")),
                *(percent(_estimate(scores, key)) for key in ("top_2", "top_3")),
                percent(_estimate(scores, "calibration_error")),
            )
        )
    constant = compared.record.child("sizes", size, "constant")
    rows.append(
        (
            f"always {constant.text('class')}",
            *(EMPTY_CELL, EMPTY_CELL),
            percent(_estimate(constant, "accuracy")),
            span(constant.interval("accuracy")),
            percent(_estimate(constant, "macro_f1")),
            span(constant.interval("macro_f1")),
            *(EMPTY_CELL, EMPTY_CELL, EMPTY_CELL),
        )
    )
    columns = (
        *("<Predictor", "Log loss", "95%", "Accuracy", "95%", "Macro-F1", "95%"),
        *("Top 2", "Top 3", "ECE"),
    )
    nodes, pictures = (compared.record.integer("sizes", size, key) for key in ("nodes", "pictures"))
    caption = (
        f"{count(nodes)} nodes of {size}x{size} in {count(pictures)} pictures: log loss in nats, "
        "the rest in percent. Top 2 and 3: the true type is among so many most probable ones. "
        "ECE: expected calibration error of the most probable type. Last row: the best constant "
        "answer. Intervals: bootstrap over pictures."
    )
    return _with_intervals(table(caption, columns, rows), pictures)


def differences_table(compared: Compared, size: str) -> Table | None:
    """Compare the predictors with one of them; None where that has no such size."""
    rows = []
    for name, record in of_size(compared, size).items():
        if record.get("difference") is not None:
            cells = [name]
            for score in ("log_loss", "accuracy", "macro_f1"):
                cells += _difference(record, score)
            rows.append(cells)
    if not rows:
        return None
    caption = (
        f"Each predictor less `{compared.against}` at {size}x{size}, on the same pictures and "
        "resamples: log loss in nats (below zero is better), the rest in percentage points. p: "
        "paired t test over pictures on jackknife pseudo-values, by Holm's correction for all "
        "rows of a column."
    )
    columns = [
        "<Predictor",
        *(c for title in ("Log loss", "Accuracy", "Macro-F1") for c in (title, "95%", "p")),
    ]
    return _with_intervals(table(caption, columns, rows), _pictures(compared, size), "p")


def _difference(record: Fields, score: str) -> list[str]:
    interval = record.interval("difference", score)
    estimate = record.number("difference", score, "estimate")
    p = p_text(record.optional("difference", score, "p_holm"))
    if score == "log_loss":
        return [decimals(estimate, signed=True), limits(interval, signed=True), p]
    return [points(estimate), span(interval, signed=True), p]


def sets_table(compared: Compared, size: str) -> Table:
    """Put coverage and mean size of sets side by side, a row a predictor."""
    rows = []
    for name, record in of_size(compared, size).items():
        cells = [name]
        for tau in TAUS:
            key = coverage_key(tau)
            cells += [
                percent(record.number("scores", key, "estimate")),
                span(record.interval("scores", key)),
                f"{record.number('scores', set_size_key(tau), 'estimate'):.2f}",
            ]
        rows.append(cells)
    columns = ["<Predictor", *(c for tau in TAUS for c in (f"{tau:.2f}", "95%", "Types"))]
    caption = (
        f"Sets of the most probable types whose probabilities add up to 0.80 ... 0.99, at "
        f"{size}x{size}: percent of nodes whose set holds the true type, which is at least that "
        "where probabilities are calibrated, and mean number of types in a set."
    )
    return _with_intervals(table(caption, columns, rows), _pictures(compared, size))


def qindex_table(compared: Compared, size: str) -> Table:
    """Put log losses by quantiser side by side, a row a predictor."""
    predictors = of_size(compared, size)
    qindexes = list(next(iter(predictors.values())).children("by_qindex"))
    rows = []
    for name, record in predictors.items():
        cells = [name]
        for qindex in qindexes:
            cells += [
                decimals(record.number("by_qindex", qindex, "log_loss")),
                percent(record.number("by_qindex", qindex, "accuracy")),
            ]
        rows.append(cells)
    columns = ["<Predictor", *(c for q in qindexes for c in (f"q{q}: log loss", "Accuracy"))]
    caption = f"Log loss in nats and accuracy in percent at {size}x{size}, by qindex."
    return table(caption, columns, rows)


def stage2_table(compared: Compared) -> Table:
    """Put the scores of Stage 2 side by side, two rows a predictor if there are class weights."""
    stage2 = compared.record.child("stage2")
    classes = list(stage2.child("classes").data)
    keys = ("macro_f1", "accuracy", *(f"f1_{name}" for name in classes))
    rows = []
    for name, decisions in stage2.children("predictors").items():
        for decision in decisions.data:
            scores = decisions.child(decision, "scores")
            cells = [name, DECISION_NAMES.get(decision, decision)]
            for key in keys:
                cells.append(percent(_estimate(scores, key)))
                cells += [span(scores.interval(key))] if key in keys[:2] else []
            rows.append((*cells, _weights(compared, name) if decision == "weighted" else ""))
    constant = stage2.child("constant")
    cells = [f"always {constant.text('class')}", ""]
    for key in keys[:2]:
        cells += [percent(_estimate(constant, key)), span(constant.interval(key))]
    rows.append((*cells, *[EMPTY_CELL] * len(classes), ""))
    columns = (
        *("<Predictor", "<Decision", "Macro-F1", "95%", "Accuracy", "95%"),
        *(f"F1 {name}" for name in classes),
        "Weights",
    )
    nodes, size, pictures = (stage2.integer(key) for key in ("nodes", "size", "pictures"))
    caption = (
        f"{', '.join(classes)} among the {count(nodes)} nodes of {size}x{size} that are one of "
        "these, from the sum of the probabilities of a class's types, in percent."
    )
    weighted = compared.record.get("weights") is not None
    if weighted:
        caption += f" Weights: factors on these sums, {' : '.join(classes)}, fitted on val."
    tab = _with_intervals(table(caption, columns, rows), pictures)
    return tab if weighted else tab.without("Weights")


def _weights(compared: Compared, name: str) -> str:
    fitted = compared.record.child("weights", "predictors", name, "weights")
    return " : ".join(f"{fitted.number(key):.3g}" for key in fitted.data)


def stage2_differences(compared: Compared) -> Table | None:
    """Compare Stage 2 of the predictors with that of one of them, decision by decision."""
    rows = []
    for name, decisions in compared.record.children("stage2", "predictors").items():
        for decision in decisions.data:
            record = decisions.child(decision)
            if record.get("difference") is not None:
                cells = [name, DECISION_NAMES.get(decision, decision)]
                for score in ("macro_f1", "accuracy"):
                    cells += _difference(record, score)
                rows.append(cells)
    if not rows:
        return None
    caption = (
        f"Stage 2 of each predictor less that of `{compared.against}` by the same decision, in "
        "percentage points; p as above."
    )
    columns = ("<Predictor", "<Decision", "Macro-F1", "95%", "p", "Accuracy", "95%", "p")
    pictures = compared.record.integer("stage2", "pictures")
    return _with_intervals(table(caption, columns, rows), pictures, "p")


def predictors_table(compared: Compared) -> Table:
    """List the predictors with their files, and what they took."""
    rows = []
    for name, facts in compared.record.children("predictors").items():
        sizes = ", ".join(f"{size:.0f}" for size in facts.numbers("domain", "sizes"))
        low, high = facts.numbers("domain", "qindexes")
        file = facts.get("file")
        rows.append(
            (
                name,
                facts.text("kind"),
                str(file) if file else "fitted here",
                f"`{facts.text('sha256')[:12]}`" if file else EMPTY_CELL,
                sizes,
                f"{low:.0f} to {high:.0f}",
                "yes" if facts.get("domain", "one_to_four") else "no",
                f"{facts.number('seconds'):.3f}",
            )
        )
    columns = (
        *("<Predictor", "<Kind", "<File", "<SHA-256", "<Sizes", "Qindex", "1:4"),
        "Seconds a frame",
    )
    caption = "The predictors: what they were trained on (sizes, qindex, whether 1:4 partitions)."
    return table(caption, columns, rows)


def _pictures(compared: Compared, size: str) -> int:
    return compared.record.integer("sizes", size, "pictures")


def _with_intervals(tab: Table, pictures: int, *more: str) -> Table:
    """Leave out intervals, and further columns, where there is one picture."""
    return tab if pictures > 1 else tab.without("95%", *more)


def list_texts(texts: Sequence[str]) -> str:
    """Join texts as a sentence does."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
