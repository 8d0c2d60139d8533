"""Log loss beside the class prior's and trees', and the superblock network's scores by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from av1part.metrics.intervals import Interval
from av1part.report.chapters.guessers import (
    RUN_COLUMNS,
    TREES_NOTE,
    read_scores,
    run_cells,
    run_columns,
)
from av1part.report.chapters.scores import margins_picture
from av1part.report.render.document import Picture
from av1part.report.render.tables import EMPTY_CELL, Table, count, nats, nats_span, table
from av1part.report.sweep import by_log_loss
from av1part.runs.fields import Fields
from av1part.runs.schema import BY_SIZE, LOG_LOSS

ALL_SIZES = "mean of the sizes"


@dataclass(frozen=True)
class Loss:
    """A log loss beside what others have on the same nodes, all in nats; less is better.

    Attributes:
        value: Of the model.
        prior: Of the shares of classes in training as probabilities.
        margin_prior: `value - prior` with its interval, where recorded; below zero is better.
        interval: Of `value`, where recorded.
        trees: Of boosted trees, where `baselines=trees` was asked for.
        margin_trees: `value - trees` likewise.
    """

    value: float
    prior: float
    margin_prior: Interval
    interval: Interval | None = None
    trees: float | None = None
    margin_trees: Interval | None = None


def read_loss(metrics: Fields) -> Loss | None:
    """Read a log loss with what stands beside it.

    Args:
        metrics: Of a run, or of one of its sizes.

    Returns:
        The log loss; None if it was not recorded, or not the class prior's.
    """
    value, prior = metrics.optional(LOG_LOSS), metrics.optional("baselines", "prior", LOG_LOSS)
    return None if value is None or prior is None else _loss(metrics, value, prior)


def size_loss(metrics: Fields) -> Loss:
    """Return the log loss of a run of all sizes, or of one of its sizes; ReportError if missing."""
    prior = metrics.number("baselines", "prior", LOG_LOSS)
    return _loss(metrics, metrics.number(LOG_LOSS), prior)


def _loss(metrics: Fields, value: float, prior: float) -> Loss:
    trees = metrics.optional("baselines", "trees", LOG_LOSS)

    def margin(name: str, other: float) -> Interval:
        recorded = metrics.interval("intervals", LOG_LOSS, f"margin_{name}")
        return recorded or Interval(value - other)

    return Loss(
        value,
        prior,
        margin("prior", prior),
        metrics.interval("intervals", LOG_LOSS, "value"),
        trees,
        None if trees is None else margin("trees", trees),
    )


def mean_loss(losses: Sequence[Loss]) -> Loss:
    """Return the mean of several runs' losses, without intervals; trees if all have them."""
    value, prior = (float(v) for v in np.mean([(loss.value, loss.prior) for loss in losses], 0))
    of_trees = [loss.trees for loss in losses if loss.trees is not None]
    trees = float(np.mean(of_trees)) if len(of_trees) == len(losses) else None
    margin_trees = None if trees is None else Interval(value - trees)
    return Loss(value, prior, Interval(value - prior), None, trees, margin_trees)


def sizes_of(metrics: Fields) -> dict[str, Fields]:
    """Return the scores of each node size, largest first; empty unless judged by log loss."""
    if not by_log_loss(metrics):
        return {}
    children = metrics.children(BY_SIZE)
    sizes = sorted(children, key=lambda size: (len(size), size), reverse=True)
    return {f"{size}x{size}": children[size] for size in sizes}


def loss_headline(loss: Loss, pictures: int) -> str:
    """Return one line: the log loss beside the class prior's, and the trees' where there are."""
    beside = [beside_text(loss.margin_prior, "class prior", loss.prior)]
    if loss.trees is not None and loss.margin_trees is not None:
        beside.append(beside_text(loss.margin_trees, "boosted trees", loss.trees))
    return (
        f"Log loss is {nats(loss.value)} nats (less is better), the mean of the node sizes' own, "
        f"{' and '.join(beside)}, on {pictures} sequence{'' if pictures == 1 else 's'}."
    )


def beside_text(margin: Interval, name: str, other: float) -> str:
    """Return how far a log loss is from another one.

    Args:
        margin: The loss less the other.
        name: Whose the other is.
        other: The other.

    Returns:
        Such as "0.410 below the class prior's 1.507", with the interval where there is one.
    """
    owner = f"{name}'" if name.endswith("s") else f"{name}'s"
    side = "below" if margin.estimate <= 0 else "above"
    text = f"{nats(abs(margin.estimate))} {side} the {owner} {nats(other)}"
    if margin.sign == "unknown":
        return text
    zero = ", which contains zero: not significant" if margin.sign == "zero" else ""
    return f"{text} (95% interval of the difference {nats_span(margin, signed=True)}{zero})"


def turned(margin: Interval) -> Interval:
    """Return a margin of log losses as how far below the other it is: positive is better."""
    low = None if margin.high is None else -margin.high
    high = None if margin.low is None else -margin.low
    return Interval(-margin.estimate, low, high, margin.level, margin.clusters)


def loss_margins(metrics: Fields, name: str) -> Picture:
    """Draw how far the log loss of a run of all sizes is below the prior's and the trees'.

    Args:
        metrics: Of the run.
        name: Of the picture.

    Returns:
        The picture: a row a size and one for all, for each of the two.
    """
    of_all = {**sizes_of(metrics), ALL_SIZES: metrics}
    margins = {}
    for size, own in of_all.items():
        loss = size_loss(own)
        for other, margin in (("class prior", loss.margin_prior), ("trees", loss.margin_trees)):
            if margin is not None:
                margins[f"{size}, {other}"] = turned(margin)
    what = "How far the log loss of the nodes of each size is below that of others on the same"
    note = "Intervals by bootstrap over whole sequences."
    return margins_picture(name, margins, what, note, "Log loss below that of others", nats=True)


_COLUMNS = ("Log loss", "95% interval", "Class prior", "Difference", "95% interval")
_TREES = ("Trees", "Difference", "95% interval")
_LOSS_NOTE = (
    "Log loss in nats, the mean of -log of the probability that the true class had; less is better."
    " Beside it that of the class shares of training, and the difference, below zero where the "
    "model is better. Intervals: 95%, bootstrap over whole sequences."
)


def loss_table(caption: str, losses: Mapping[str, tuple[str, Loss]], first: str) -> Table:
    """Tabulate log losses.

    Args:
        caption: Begins the caption.
        losses: Name of a row to its number of nodes and its loss.
        first: Title of the names.

    Returns:
        The table; with columns for trees if a row has them.
    """
    trees = any(loss.trees is not None for _, loss in losses.values())
    rows = [
        [name, nodes, *_loss_cells(loss), *(_trees_cells(loss) if trees else ())]
        for name, (nodes, loss) in losses.items()
    ]
    columns = (f"<{first}", "n", *_COLUMNS, *(_TREES if trees else ()))
    note = " Trees: boosted trees, trained and scored on the same nodes." if trees else ""
    return table(f"{caption} {_LOSS_NOTE}{note}".lstrip(), columns, rows)


def _loss_cells(loss: Loss) -> tuple[str, ...]:
    return (
        nats(loss.value),
        nats_span(loss.interval),
        nats(loss.prior),
        nats(loss.margin_prior.estimate, signed=True),
        nats_span(loss.margin_prior, signed=True),
    )


def _trees_cells(loss: Loss) -> tuple[str, ...]:
    if loss.trees is None or loss.margin_trees is None:
        return (EMPTY_CELL,) * len(_TREES)
    margin = loss.margin_trees
    return nats(loss.trees), nats(margin.estimate, signed=True), nats_span(margin, signed=True)


def run_loss_table(metrics: Fields, nodes: int) -> Table | None:
    """Tabulate the log loss of a run: of each size, if it has several, and of all.

    Args:
        metrics: Of the run.
        nodes: That it was evaluated on, where it is of one size.

    Returns:
        The table; None if no log loss was recorded.
    """
    whole = read_loss(metrics)
    if whole is None:
        return None
    rows = {
        name: (count(own.number("nodes")), size_loss(own))
        for name, own in sizes_of(metrics).items()
    }
    if not rows:
        return loss_table("", {"all": (count(nodes), whole)}, "Nodes")
    rows[ALL_SIZES] = ("", whole)
    return loss_table("By node size.", rows, "Nodes")


def size_table(metrics: Fields) -> Table | None:
    """Tabulate accuracy and macro-F1 of each node size; None unless a run has all sizes."""
    scores = {
        name: read_scores(own, own, ("accuracy", "macro_f1"))
        for name, own in sizes_of(metrics).items()
    }
    if not scores:
        return None
    columns = run_columns(scores.values())
    trees = TREES_NOTE if len(columns) > len(RUN_COLUMNS) else ""
    return table(
        "By node size, in percent: accuracy and macro-F1 over all types of the size, each beside "
        "the best constant and the class-prior guesser; the margin of macro-F1 over the stronger "
        f"of the two in percentage points, with its 95% interval.{trees}",
        ("<Nodes", *columns),
        [(name, *run_cells(own, columns)) for name, own in scores.items()],
    )
