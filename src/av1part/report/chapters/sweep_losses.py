"""The tables of a sweep that is judged by log loss: superblock networks, over all node sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from av1part.metrics.intervals import Interval
from av1part.metrics.statistics import LEVEL, Difference, Mean, mean_of
from av1part.report.chapters.guessers import mean_score, read_score, score_cells
from av1part.report.chapters.log_loss import (
    ALL_SIZES,
    Loss,
    beside_text,
    loss_table,
    mean_loss,
    size_loss,
    sizes_of,
    turned,
)
from av1part.report.chapters.sweep_findings import middle_member
from av1part.report.render.tables import EMPTY_CELL, Table, nats, nats_span, p_text, table
from av1part.report.sweep import Member, Sweep, Variant


def log_losses(sweep: Sweep) -> Table | None:
    """Put the variants side by side by log loss, and test each against the baseline.

    Args:
        sweep: The sweep.

    Returns:
        The table; None unless all runs were chosen by log loss.
    """
    if not sweep.by_log_loss:
        return None
    means = {variant.name: mean_loss(losses_of(variant.members)) for variant in sweep.variants}
    trees = any(loss.trees is not None for loss in means.values())
    rows = []
    for variant in sweep.variants:
        own, against = means[variant.name], sweep.differences.get(variant.name)
        beside = (nats(own.trees), nats_or_dash(own.margin_trees)) if trees else ()
        rows.append([variant.name, *mean_cells(variant.score), nats(own.prior), *beside])
        rows[-1] += _tested(against)
    named = [variant.name for variant in sweep.variants]
    of = f"`{sweep.baseline}`" if sweep.baseline else "the baseline (here none)"
    note = " Trees: boosted trees on the same nodes, and the difference to them." if trees else ""
    return table(
        "Log loss on val of the kept checkpoints in nats, the mean of the node sizes' own, less is "
        f"better; over seeds and folds: mean, standard deviation and {LEVEL:.0%} interval "
        f"(Student's t); that of the class prior; the difference to {of}, below zero where the "
        "variant is better, over the runs that both have, its interval (of this row alone), the "
        "two-sided p of the paired t test, corrected by Holm for all rows, and whether that is "
        f"below 0.05.{note}",
        (
            *("<Variant", "n", "Log loss", "s.d.", "95% interval", "Prior"),
            *(("Trees", "Over trees") if trees else ()),
            *("Pairs", "Difference", "95% interval", "p", "p (Holm)", "<Significant"),
        ),
        rows,
        named.index(sweep.baseline) if sweep.baseline else None,
    )


def by_size(sweep: Sweep) -> Table | None:
    """Tabulate log loss, accuracy and macro-F1 of each node size, means over seeds and folds.

    Args:
        sweep: The sweep.

    Returns:
        The table; None unless all runs were chosen by log loss.
    """
    if not sweep.by_log_loss:
        return None
    rows = [row for variant in sweep.variants for row in _size_rows(variant)]
    trees = any(row[4] != EMPTY_CELL for row in rows)
    kept = tuple(range(len(_SIZE_COLUMNS))) if trees else _SIZES_WITHOUT_TREES
    note = " and boosted trees" if trees else ""
    return table(
        "By node size, means over seeds and folds: log loss in nats (less is better) beside the "
        f"class prior{note}; accuracy in percent beside the best constant; macro-F1 over all types "
        f"of the size in percent beside the class-prior guesser{note}.",
        [_SIZE_COLUMNS[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
    )


_SIZE_COLUMNS = (
    *("<Variant", "<Nodes", "Log loss", "Prior", "Trees", "Accuracy", "Constant"),
    *("Macro-F1", "Prior", "Trees"),
)
_SIZES_WITHOUT_TREES = tuple(i for i, title in enumerate(_SIZE_COLUMNS) if title != "Trees")


def _size_rows(variant: Variant) -> list[list[str]]:
    of_members = [sizes_of(member.run.metrics) for member in variant.members]
    rows: list[list[str]] = []
    for size in of_members[0]:
        found = [own[size] for own in of_members if size in own]
        loss = mean_loss([size_loss(own) for own in found])
        accuracy, macro = (
            mean_score([read_score(key, own, own) for own in found])
            for key in ("accuracy", "macro_f1")
        )
        rows.append(
            [
                *(variant.name if not rows else "", size),
                *(nats(loss.value), nats(loss.prior), nats(loss.trees)),
                *score_cells(accuracy, ("value", "constant")),
                *score_cells(macro, ("value", "prior", "trees")),
            ]
        )
    whole = mean_loss(losses_of(variant.members))
    losses = (nats(whole.value), nats(whole.prior), nats(whole.trees))
    return [*rows, ["", ALL_SIZES, *losses, *[EMPTY_CELL] * 5]]


def losses_of(members: Sequence[Member]) -> list[Loss]:
    """Return the log losses of members that were chosen by them."""
    return [size_loss(member.run.metrics) for member in members]


def margin_below_prior(variant: Variant) -> Interval:
    """Return how far the mean log loss is below the class prior's, with its t interval."""
    mean = mean_of([-loss.margin_prior.estimate for loss in losses_of(variant.members)])
    return Interval(mean.mean, mean.low, mean.high)


def loss_sentence(variant: Variant) -> str:
    """Return one line about the log loss of the best variant."""
    mean, runs = mean_loss(losses_of(variant.members)), len(variant.members)
    beside = [beside_text(turned(margin_below_prior(variant)), "class prior", mean.prior)]
    if mean.trees is not None and mean.margin_trees is not None:
        beside.append(beside_text(mean.margin_trees, "boosted trees", mean.trees))
    return (
        f"Best variant `{variant.name}`: log loss is {nats(mean.value)} nats (less is better), the "
        f"mean of {runs} run{'' if runs == 1 else 's'}, {' and '.join(beside)}."
    )


def by_picture(sweep: Sweep) -> Table | None:
    """Tabulate the bootstrap interval over pictures of the middle run of each variant.

    Args:
        sweep: The sweep.

    Returns:
        The table; None unless all runs were chosen by log loss.
    """
    if not sweep.by_log_loss:
        return None
    rows = {}
    for variant in sweep.variants:
        member = middle_member(variant)
        loss = size_loss(member.run.metrics)
        rows[f"{variant.name} ({member.name})"] = str(member.run.predictions.sequences), loss
    caption = (
        "One run of each variant, the middle one by log loss, over all sizes; n val pictures, of "
        "which fewer than ten make the intervals too narrow."
    )
    return loss_table(caption, rows, "Variant")


def course(sweep: Sweep) -> Table | None:
    """Tabulate the course of training by log loss, as `sweep_tables.course` does by macro-F1.

    Args:
        sweep: The sweep.

    Returns:
        The table; None unless all runs were chosen by log loss.
    """
    if not sweep.by_log_loss:
        return None
    rows = []
    for variant in sweep.variants:
        curves = [member.score_curve for member in variant.members]
        final = float(np.mean([curve[-1] for curve in curves]))
        epochs = Counter(member.best_epoch for member in variant.members)
        prior = mean_loss(losses_of(variant.members)).prior
        rows.append(
            [
                *(variant.name, nats(variant.score.mean), nats(final)),
                nats(final - variant.score.mean, signed=True),
                *(nats(float(np.mean([c[0] for c in curves]))), nats(prior)),
                f"{np.mean([len(curve) for curve in curves]):.1f}",
                ", ".join(f"{e}×{n}" if n > 1 else str(e) for e, n in sorted(epochs.items())),
            ]
        )
    return table(
        "Course of training, log loss on val in nats (less is better), means over runs: of the "
        "best and the final epoch and the rise between them; of the first epoch; of the class "
        "prior; epochs trained; the best epochs, from 0, `e×n` where n runs share one.",
        ("<Variant", "Best", "Final", "Rise", "First", "Prior", "Epochs", "<Best epochs"),
        rows,
    )


def mean_cells(mean: Mean) -> list[str]:
    """Return n, mean, standard deviation and interval of log losses."""
    return [str(mean.n), nats(mean.mean), nats(mean.sd), _interval(mean)]


def nats_or_dash(margin: Interval | None) -> str:
    """Return a difference of log losses, or a dash where there is none."""
    return EMPTY_CELL if margin is None else nats(margin.estimate, signed=True)


def _interval(mean: Mean, *, signed: bool = False) -> str:
    return nats_span(Interval(mean.mean, mean.low, mean.high), signed=signed)


def _tested(against: Difference | None) -> list[str]:
    if against is None:
        return [EMPTY_CELL] * 6
    return [
        str(against.n),
        nats(against.mean, signed=True),
        _interval(against, signed=True),
        *(p_text(p) for p in (against.p, against.p_holm)),
        "yes" if against.significant else "no",
    ]
