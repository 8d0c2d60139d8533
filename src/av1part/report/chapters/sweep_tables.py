"""The tables of a sweep: comparison, course of training, classes, cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from av1part.metrics.statistics import LEVEL, Difference, Mean
from av1part.report.render.tables import (
    EMPTY_CELL,
    Table,
    count,
    p_text,
    percent,
    points,
    table,
)
from av1part.report.sweep import TREES, Member, Sweep, Variant

GUESSERS = {"constant": "(best constant)", "prior": "(class prior)"}
"""The guessers' keys in metrics.json, and the names of their rows."""

_TREES_ROW = {TREES: "(boosted trees)"}

_MOST_NAMED = 3
"""Variants that a guesser's row names, where it needs one for each set of nodes."""


def guess_rows(
    sweep: Sweep, cells: Callable[[Sequence[Member], str], Sequence[str]], *, trees: bool = True
) -> list[list[str]]:
    """Return the rows of both guessers, and of trees if there are some, below the variants'.

    Args:
        sweep: Whose variants.
        cells: Return the cells of a guesser's row for a variant's members, without its name.
        trees: Whether `cells` knows trees.

    Returns:
        A row a guesser; several, with the variants they are of, where variants were validated on
        different nodes, of which a mean would be that of none.
    """
    rows = []
    named_rows = {**GUESSERS, **(_TREES_ROW if trees and sweep.has_trees else {})}
    for guesser, name in named_rows.items():
        groups: dict[tuple[str, ...], list[str]] = {}
        for variant in sweep.variants:
            groups.setdefault(tuple(cells(variant.members, guesser)), []).append(variant.name)
        for row, variants in groups.items():
            more = len(variants) - _MOST_NAMED
            named = [*variants[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])]
            of = f" for {', '.join(named)}" if len(groups) > 1 else ""
            rows.append([f"{name}{of}", *row])
    return rows


def comparison(sweep: Sweep) -> Table:
    """Put the variants side by side, and test each against the baseline."""
    rows = []
    for variant in sweep.variants:
        best, against = variant.best, sweep.f1_differences.get(variant.name)
        tested = [EMPTY_CELL] * 6
        if against is not None:
            tested = [
                str(against.n),
                points(against.mean),
                interval_text(against, signed=True),
                *(p_text(p) for p in (against.p, against.p_holm)),
                "yes" if against.significant else "no",
            ]
        rows.append(
            [
                variant.name,
                str(best.n),
                percent(best.mean),
                percent(best.sd),
                interval_text(best),
                *guess_cells(variant.members),
                *(_tree_cells(variant.members) if sweep.has_trees else ()),
                *tested,
            ]
        )
    named = [variant.name for variant in sweep.variants]
    of = f"`{sweep.baseline}`" if sweep.baseline else "the baseline (here none)"
    nodes = " of the 16x16 nodes" if sweep.by_log_loss else ""
    trees = " Trees: boosted trees on the same nodes, and the margin over them."
    return table(
        f"Macro-F1{nodes} on val of the kept checkpoints, percent, over seeds and folds: mean, "
        f"standard deviation and {LEVEL:.0%} interval (Student's t); the best constant and the "
        f"class-prior guesser; the difference to {of} in points over the runs that both have, its "
        "interval (of this row alone), the two-sided p of the paired t test, corrected by Holm for "
        "all "
        f"rows, and whether that is below 0.05.{trees if sweep.has_trees else ''}",
        (
            *("<Variant", "n", "Macro-F1", "s.d.", "95% interval", "Constant", "Prior"),
            *(("Trees", "Over trees") if sweep.has_trees else ()),
            *("Pairs", "Difference", "95% interval", "p", "p (Holm)", "<Significant"),
        ),
        rows,
        named.index(sweep.baseline) if sweep.baseline else None,
    )


def guess_cells(members: Sequence[Member]) -> list[str]:
    """Return the mean macro-F1 of both guessers on the same nodes, in percent."""
    return [
        percent(float(np.mean([m.guesser_macro_f1(guesser) for m in members])))
        for guesser in GUESSERS
    ]


def _tree_cells(members: Sequence[Member]) -> list[str]:
    """Return the mean macro-F1 of boosted trees, and the margin over it."""
    trees = float(np.mean([m.guesser_macro_f1(TREES) for m in members]))
    return [percent(trees), points(float(np.mean([m.best for m in members])) - trees)]


def course(sweep: Sweep) -> Table:
    """Tabulate the course of training: best, final, the drop between, and over the epochs."""
    rows = []
    for variant in sweep.variants:
        members = variant.members
        curves = [member.curve for member in members]
        epochs = Counter(member.best_epoch for member in members)
        rows.append(
            [
                variant.name,
                percent(variant.best.mean),
                percent(float(np.mean([member.final for member in members]))),
                points(float(np.mean([member.final - member.best for member in members]))),
                percent(float(np.mean([curve.mean() for curve in curves]))),
                percent(float(np.mean([curve.std() for curve in curves]))),
                percent(float(np.min([curve.min() for curve in curves]))),
                percent(float(np.max([curve.max() for curve in curves]))),
                f"{np.mean([len(curve) for curve in curves]):.1f}",
                ", ".join(f"{e}×{n}" if n > 1 else str(e) for e, n in sorted(epochs.items())),
            ]
        )
    return table(
        "Course of training, macro-F1 on val in percent: best and final epoch and the drop between "
        "them in points; mean, standard deviation, least and greatest over the epochs (means over "
        "runs, extremes of all); epochs trained; the best epochs, from 0, `e×n` where n runs share "
        "one. The guessers are the same in every epoch.",
        (
            *("<Variant", "Best", "Final", "Drop", "Mean", "s.d.", "Min", "Max"),
            *("Epochs", "<Best epochs"),
        ),
        [*rows, *guess_rows(sweep, _guessed_course)],
    )


def _guessed_course(members: Sequence[Member], guesser: str) -> list[str]:
    scores = [member.guesser_macro_f1(guesser) for member in members]
    mean, least, most = (percent(float(of(scores))) for of in (np.mean, np.min, np.max))
    return [mean, mean, EMPTY_CELL, mean, EMPTY_CELL, least, most, EMPTY_CELL, EMPTY_CELL]


def classes(sweep: Sweep) -> Table:
    """Tabulate the F1 of each class, mean and standard deviation over members."""
    rows = []
    for variant in sweep.variants:
        f1 = np.array([member.class_f1 for member in variant.members])
        spread = f1.std(0, ddof=1) if len(f1) > 1 else [None] * f1.shape[1]
        rows.append(
            [
                variant.name,
                *(f"{percent(m)} ± {percent(s)}" for m, s in zip(f1.mean(0), spread, strict=True)),
            ]
        )
    return table(
        "F1 of each class on val in percent, mean ± standard deviation over seeds and folds, and "
        "that of the guessers; the best constant for a class always predicts that class.",
        ("<Variant", *sweep.class_names),
        [*rows, *guess_rows(sweep, _guessed_classes)],
    )


def _guessed_classes(members: Sequence[Member], guesser: str) -> list[str]:
    scores = [member.guesser_class_f1_scores(guesser) for member in members]
    known = [f1 for f1 in scores if f1 is not None]
    if not known:
        return [EMPTY_CELL] * len(members[0].run.class_names)
    return [percent(float(mean)) for mean in np.mean(known, axis=0)]


def cost(sweep: Sweep, full: str = "finetune") -> Table:
    """Tabulate trained parameters, macro-F1 relative to full fine-tuning, and cost."""
    reached = {v.name: v.best.mean for v in sweep.variants}.get(full)
    # Older runs recorded the peak of their process, which may be that of an earlier job.
    memory = [_median(variant, "fit_peak_memory_bytes", 2**20) for variant in sweep.variants]
    measured = any(cell != EMPTY_CELL for cell in memory)
    rows = []
    for variant, peak in zip(sweep.variants, memory, strict=True):
        trained = variant.number("trainable_parameters")
        share = trained / variant.number("total_parameters")
        rows.append(
            [
                variant.name,
                count(trained),
                percent(share),
                EMPTY_CELL if reached is None else f"{100 * variant.best.mean / reached:.1f}",
                _median(variant, "seconds", 1),
                _median(variant, "blocks_per_second", 1),
                *([peak] if measured else []),
                EMPTY_CELL if variant.reload_delta is None else f"{variant.reload_delta:.2f}",
            ]
        )
    return table(
        "Cost: trained parameters and their share in percent; macro-F1 in percent of "
        f"`{full}`'s; medians of seconds a training (with its evaluation, without features), of "
        f"blocks a second{' and of peak memory in MiB' if measured else ''}; the largest "
        "difference of a checkpoint when it was read back, in points.",
        (
            *("<Variant", "Trained", "Share", "Of full", "Seconds", "Blocks/s"),
            *(["MiB"] if measured else []),
            "Reload delta",
        ),
        rows,
    )


def _median(variant: Variant, key: str, unit: float) -> str:
    known = [
        member.run.timing.optional(key)
        for member in variant.members
        if member.run.timing is not None
    ]
    values = [value for value in known if value is not None]
    return count(float(np.median(values)) / unit) if values else EMPTY_CELL


def interval_text(mean: Mean, *, signed: bool = False) -> str:
    """Return the ends of an interval, in percent or as signed points."""
    if mean.low is None or mean.high is None:
        return EMPTY_CELL
    show = points if signed else percent
    return f"[{show(mean.low)}, {show(mean.high)}]"


def difference_cells(difference: Difference | None) -> list[str]:
    """Return a difference in points, its interval and its corrected p; dashes for none."""
    if difference is None:
        return [EMPTY_CELL] * 3
    interval = interval_text(difference, signed=True)
    return [points(difference.mean), interval, p_text(difference.p_holm)]
