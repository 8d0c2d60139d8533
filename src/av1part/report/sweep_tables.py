"""The tables of a sweep: comparison, course of training, classes, cost."""

from __future__ import annotations

from collections import Counter

import numpy as np

from av1part.report.sweep import Sweep, Variant
from av1part.report.tables import NOTHING, Table, count, percent, points, table
from av1part.statistics import LEVEL, Difference, Mean


def comparison(sweep: Sweep) -> Table:
    """Put the variants side by side, and test each against the baseline."""
    rows = []
    for variant in sweep.variants:
        best, against = variant.best, sweep.differences.get(variant.name)
        tested = [NOTHING] * 6
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
                *(
                    percent(variant.number(f"baselines.{g}.macro_f1"))
                    for g in ("constant", "prior")
                ),
                *tested,
            ]
        )
    named = [variant.name for variant in sweep.variants]
    of = f"`{sweep.baseline}`" if sweep.baseline else "a baseline, of which there is none"
    return table(
        f"Macro-F1 on val of the kept checkpoints, percent, over seeds and folds: mean, standard "
        f"deviation and {LEVEL:.0%} interval (Student's t); the best constant and the class-prior "
        f"guesser; the difference to {of} in points over the runs that both have, its interval "
        "(of this row alone), the two-sided p of the paired t test, corrected by Holm for all "
        "rows, and whether that is below 0.05.",
        (
            *("<Variant", "n", "Macro-F1", "s.d.", "95% interval", "Constant", "Prior"),
            *("Pairs", "Difference", "95% interval", "p", "p (Holm)", "<Significant"),
        ),
        rows,
        named.index(sweep.baseline) if sweep.baseline else None,
    )


def course(sweep: Sweep) -> Table:
    """Tell how the trainings went: best, final, the drop between, and over the epochs."""
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
        "How training went, macro-F1 on val in percent: best and final epoch and the drop between "
        "them in points; mean, standard deviation, least and greatest over the epochs (means over "
        "runs, extremes of all); epochs trained; the best epochs, from 0, `e×n` where n runs share "
        "one.",
        (
            *("<Variant", "Best", "Final", "Drop", "Mean", "s.d.", "Min", "Max"),
            *("Epochs", "<Best epochs"),
        ),
        rows,
    )


def classes(sweep: Sweep) -> Table:
    """Give the F1 of each class, mean and standard deviation over members."""
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
        "F1 of each class on val in percent, mean ± standard deviation over seeds and folds.",
        ("<Variant", *sweep.class_names),
        rows,
    )


def cost(sweep: Sweep, full: str = "finetune") -> Table:
    """Give what each variant trains, what share of full fine-tuning it reaches, and its cost."""
    reached = {v.name: v.best.mean for v in sweep.variants}.get(full)
    rows = []
    for variant in sweep.variants:
        trained = variant.number("trainable_parameters")
        share = trained / variant.number("total_parameters")
        rows.append(
            [
                variant.name,
                count(trained),
                percent(share),
                NOTHING if reached is None else f"{100 * variant.best.mean / reached:.1f}",
                _median(variant, "seconds", 1),
                _median(variant, "blocks_per_second", 1),
                _median(variant, "peak_memory_bytes", 2**20),
                NOTHING if variant.reload_delta is None else f"{variant.reload_delta:.2f}",
            ]
        )
    return table(
        "Cost: trained parameters and their share in percent; macro-F1 in percent of "
        f"`{full}`'s; medians of seconds a training (without features and evaluation), blocks a "
        "second and peak memory in MiB; the largest difference of a checkpoint when it was read "
        "back, in points.",
        (
            *("<Variant", "Trained", "Share", "Of full", "Seconds", "Blocks/s", "MiB"),
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
    return count(float(np.median(values)) / unit) if values else NOTHING


def interval_text(mean: Mean, *, signed: bool = False) -> str:
    """Return the ends of an interval, in percent or as signed points."""
    if mean.low is None or mean.high is None:
        return NOTHING
    show = points if signed else percent
    return f"[{show(mean.low)}, {show(mean.high)}]"


def difference_cells(difference: Difference | None) -> list[str]:
    """Return a difference in points, its interval and its corrected p; dashes for none."""
    if difference is None:
        return [NOTHING] * 3
    interval = interval_text(difference, signed=True)
    return [points(difference.mean), interval, p_text(difference.p_holm)]


def p_text(value: float | None) -> str:
    """Return a p value with four decimals."""
    if value is None:
        return NOTHING
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
