"""Further tables of a sweep: the criteria, early epochs, pictures, qindex, the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from av1part.metrics.power import CHANCE, detectable, pictures_needed, seeds_needed
from av1part.metrics.scores import (
    confusion_matrix,
    f1_from_confusion,
    macro_f1_from_confusion,
)
from av1part.metrics.statistics import LEVEL, mean_of
from av1part.report.chapters.guessers import TREES_NOTE, read_score, score_cells, with_trees
from av1part.report.chapters.sweep_tables import (
    guess_cells,
    guess_rows,
)
from av1part.report.render.tables import (
    EMPTY_CELL,
    Table,
    count,
    p_text,
    percent,
    points,
    table,
)
from av1part.report.study import CITATION
from av1part.report.sweep import TREES, Member, Sweep, Variant


@dataclass(frozen=True)
class Criteria:
    """The study's criteria of success for Stage 2.

    Attributes:
        macro_f1: Least macro-F1, a fraction.
        class_f1: Each class above this, a fraction.
        reload_pp: Every reloaded checkpoint within less than so many percentage points.
    """

    macro_f1: float
    class_f1: float
    reload_pp: float


CRITERIA = Criteria(macro_f1=0.50, class_f1=0.40, reload_pp=1.0)

SOUGHT = 0.015
"""A difference in macro-F1 that a comparison should be able to find, a fraction."""

EARLY = (1, 5, 10)
"""Epochs, counted from 1, whose scores are compared with the end, as in the study."""


def criteria(sweep: Sweep) -> Table | None:
    """Compare the variants of Stage 2 with the study's criteria of success."""
    if sweep.variants[0].members[0].run.stage != "stage2":
        return None
    rows = []
    for variant in sweep.variants:
        f1 = np.mean([member.class_f1 for member in variant.members], axis=0)
        weakest = int(f1.argmin())
        delta = variant.reload_delta
        passed = (
            variant.best.mean >= CRITERIA.macro_f1,
            delta is not None and delta < CRITERIA.reload_pp,
            bool(f1[weakest] > CRITERIA.class_f1),
        )
        runs = sum(_passes(member) for member in variant.members)
        rows.append(
            [
                variant.name,
                f"{percent(variant.best.mean)} {_pass_or_fail(passed[0])}",
                f"{EMPTY_CELL if delta is None else f'{delta:.2f}'} {_pass_or_fail(passed[1])}",
                f"{sweep.class_names[weakest]} {percent(f1[weakest])} {_pass_or_fail(passed[2])}",
                _pass_or_fail(all(passed)),
                f"{runs} of {len(variant.members)}",
            ]
        )
    return table(
        f"The success criteria of the study ({CITATION}), of means over seeds and folds: "
        f"macro-F1 of {100 * CRITERIA.macro_f1:.0f} % or more, every reloaded checkpoint within "
        f"{CRITERIA.reload_pp:.0f} point, every class above {100 * CRITERIA.class_f1:.0f} %; and "
        "how many runs pass all three. The guessers have no checkpoint to reload; the constant "
        "always predicts the most frequent class.",
        ("<Variant", "<Macro-F1", "<Reload delta", "<Weakest class", "<All", "Runs"),
        [*rows, *guess_rows(sweep, _guessed_criteria)],
    )


def _guessed_criteria(members: Sequence[Member], guesser: str) -> list[str]:
    macro = float(np.mean([member.guesser_macro_f1(guesser) for member in members]))
    if guesser == TREES:
        found = (member.guesser_class_f1_scores(guesser) for member in members)
        known = [f1 for f1 in found if f1 is not None]
    else:
        guesses = (m.guesser_confusion(guesser, m.run.confusion.sum(1)) for m in members)
        known = [f1_from_confusion(guess) for guess in guesses if guess is not None]
    passed, weakest_cell = [macro >= CRITERIA.macro_f1], EMPTY_CELL
    if known:
        f1 = np.mean(known, axis=0)
        weakest = int(f1.argmin())
        passed.append(bool(f1[weakest] > CRITERIA.class_f1))
        name = members[0].run.class_names[weakest]
        weakest_cell = f"{name} {percent(f1[weakest])} {_pass_or_fail(passed[1])}"
    first = f"{percent(macro)} {_pass_or_fail(passed[0])}"
    return [first, EMPTY_CELL, weakest_cell, _pass_or_fail(all(passed)), EMPTY_CELL]


def _passes(member: Member) -> bool:
    return bool(
        member.best >= CRITERIA.macro_f1
        and member.reload_delta is not None
        and member.reload_delta < CRITERIA.reload_pp
        and member.class_f1.min() > CRITERIA.class_f1
    )


def _pass_or_fail(passed: bool) -> str:
    return "pass" if passed else "fail"


def early(sweep: Sweep) -> Table | None:
    """Tabulate how well the first epochs predict the last one."""
    members = [member for variant in sweep.variants for member in variant.members]
    rows = []
    for epoch in EARLY:
        reached = [member for member in members if len(member.curve) > epoch]
        if len(reached) < 3:
            continue
        then = np.array([member.curve[epoch - 1] for member in reached])
        best, final = (
            np.array([getattr(member, key) for member in reached]) for key in ("best", "final")
        )
        rows.append(
            [
                str(epoch),
                str(len(reached)),
                percent(float(then.mean())),
                *guess_cells(reached),
                points(float((final - then).mean())),
                points(float((best - then).mean())),
                _correlation(_within_folds(then, reached), _within_folds(final, reached)),
                _correlation(_within_folds(then, reached), _within_folds(best, reached)),
            ]
        )
    if not rows:
        return None
    return table(
        "How well early epochs (counted from 1) predict the end, over the runs of all variants "
        "that had not stopped by then: macro-F1 at that epoch, beside the best constant and the "
        "class-prior guesser; how much higher the last and the best epoch are, in points; and "
        "Spearman's rank correlation with both, of differences to the mean of each fold: 1 means "
        "the same ranking of the runs as at the end, 0 no relation.",
        (
            *("<Epoch", "Runs", "Macro-F1", "Constant", "Prior"),
            *("To the last", "To the best", "ρ (last)", "ρ (best)"),
        ),
        rows,
    )


def first_best(sweep: Sweep) -> Table | None:
    """Compare runs whose first epoch was the best with the other runs."""
    rows = []
    for variant in sweep.variants:
        first = [m for m in variant.members if m.best_epoch == 0]
        later = [m for m in variant.members if m.best_epoch > 0]
        if first:
            rows.append(
                [
                    variant.name,
                    f"{len(first)} of {len(variant.members)}",
                    percent(mean_of([m.best for m in first]).mean),
                    percent(mean_of([m.best for m in later]).mean) if later else EMPTY_CELL,
                    *guess_cells(variant.members),
                ]
            )
    if not rows:
        return None
    return table(
        "Variants with runs whose first epoch was the best, which the study took as a warning: "
        "the number of these runs, their macro-F1, that of the variant's other runs, and that of "
        "the best constant and the class-prior guesser, in percent.",
        ("<Variant", "Runs", "Best first", "Best later", "Constant", "Prior"),
        rows,
    )


def _within_folds(values: NDArray[np.float64], members: Sequence[Member]) -> NDArray[np.float64]:
    """Subtract the mean of each fold, a measure of how hard its pictures are."""
    folds = np.array([member.name.partition("_seed-")[0] for member in members])
    if not any(fold.startswith("fold-") for fold in folds):
        return values
    means = {fold: values[folds == fold].mean() for fold in np.unique(folds)}
    centred = np.array([value - means[fold] for value, fold in zip(values, folds, strict=True)])
    return centred.round(9)  # so that equal ones share a rank


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> str:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return EMPTY_CELL
    return f"{float(stats.spearmanr(a, b).statistic):+.2f}".replace("-", "−")


_BY_PICTURE = (
    *("value", "interval"),
    *("over constant", "over constant, interval", "over prior", "over prior, interval"),
)


def by_picture(sweep: Sweep) -> Table:
    """Tabulate the bootstrap interval over pictures of each variant's middle run."""
    members = {variant.name: middle_member(variant) for variant in sweep.variants}
    scores = {
        name: read_score("macro_f1", member.run.metrics, member.run.metrics)
        for name, member in members.items()
    }
    columns = with_trees(_BY_PICTURE, scores.values())
    trees = ("Trees", "Over trees", "95% interval") if columns != _BY_PICTURE else ()
    rows = [
        [
            *(name, member.name, *score_cells(scores[name], columns)),
            str(member.run.predictions.sequences),
        ]
        for name, member in members.items()
    ]
    by = "log loss, macro-F1 of 16x16 nodes" if sweep.by_log_loss else "macro-F1"
    return table(
        f"One run of each variant, the middle one by {by}, with {LEVEL:.0%} intervals "
        "from a bootstrap over the val pictures, whose number is in the last column (fewer than "
        "ten make the intervals too narrow); its margins over the best constant and over the "
        f"class-prior guesser in points.{TREES_NOTE if trees else ''}",
        (
            *("<Variant", "<Run", "Macro-F1", "95% interval"),
            *("Over constant", "95% interval", "Over prior", "95% interval", *trees, "Pictures"),
        ),
        rows,
    )


def over_both(sweep: Sweep) -> Table | None:
    """Tabulate the differences to the baseline over pictures and seeds; None if there are none."""
    found = {} if sweep.by_log_loss else sweep.over_both
    if not found:
        return None
    rows = []
    for name, result in found.items():
        test, of = result.test, result.components
        least = detectable(of, pictures=result.pictures, seeds=result.seeds)
        needed = (
            pictures_needed(SOUGHT, of, seeds=result.seeds),
            seeds_needed(SOUGHT, of, pictures=result.pictures),
        )
        rows.append(
            [
                name,
                str(result.seeds),
                str(result.pictures),
                points(test.mean),
                f"[{points(test.low)}, {points(test.high)}]",
                p_text(test.p),
                p_text(result.p_holm),
                *(percent(variance**0.5) for variance in (of.picture, of.seed, of.rest)),
                percent(least),
                *(EMPTY_CELL if number is None else count(number) for number in needed),
            ]
        )
    sought = percent(SOUGHT)
    return table(
        f"Differences to `{sweep.baseline}` in macro-F1, with pictures and seeds both taken as "
        "samples: mean of the jackknife's pseudo-values in points, its interval, and the p of "
        "Satterthwaite's test, corrected by Holm for all rows; standard deviations between "
        "pictures, between seeds and of the rest, in points. Detectable: the least true difference "
        f"that such a test finds with a chance of {CHANCE:.0%}. For {sought}: how many pictures, "
        f"with these seeds, and how many seeds, with these pictures, would find {sought} points; "
        f"{EMPTY_CELL}: no number of them.",
        (
            *("<Variant", "Seeds", "Pictures", "Difference", "95% interval", "p", "p (Holm)"),
            *("s.d. pictures", "s.d. seeds", "s.d. rest", "Detectable"),
            *(f"Pictures for {sought}", f"Seeds for {sought}"),
        ),
        rows,
    )


def with_fewer(sweep: Sweep) -> Table | None:
    """Tabulate what fewer pictures or seeds would have found; None if there are no differences."""
    found = {} if sweep.by_log_loss else sweep.over_both
    if not found:
        return None
    rows = []
    for name, result in found.items():
        g, s = result.pictures, result.seeds
        shapes = ((g, s), (max(2, g // 2), s), (max(2, g // 4), s), (g, 2), (g, 2 * s))
        least = [detectable(result.components, pictures=p, seeds=n) for p, n in shapes]
        rows.append([name, count(g), count(s), *(percent(each) for each in least)])
    return table(
        f"The least true difference to `{sweep.baseline}`, in points, that a test over pictures "
        f"and seeds finds with a chance of {CHANCE:.0%}, by the variances of this sweep: with its "
        "pictures and seeds, and with fewer pictures (at least two), with two seeds, and with "
        "twice as many seeds.",
        (
            *("<Variant", "Pictures", "Seeds", "As it is", "Half the pictures"),
            *("A quarter of them", "Two seeds", "Twice the seeds"),
        ),
        rows,
    )


def middle_member(variant: Variant) -> Member:
    """Return the run with the median of what chose them, of two middle ones the lower."""
    ranked = sorted(variant.members, key=lambda m: (m.score, m.name))
    return ranked[(len(ranked) - 1) // 2]


def by_qindex(sweep: Sweep) -> Table | None:
    """Tabulate macro-F1 at each qindex; None if nodes are not known or of one qindex."""
    members = [member for variant in sweep.variants for member in variant.members]
    levels = sorted({int(q) for m in members for q in np.unique(m.run.predictions.qindex)})
    if len(levels) < 2 or levels[0] < 0:
        return None
    rows = []
    for variant in sweep.variants:
        cells = []
        for level in levels:
            values = [f1 for m in variant.members if (f1 := _f1_at(m, level)) is not None]
            mean = mean_of(values) if values else None
            cells.append(
                EMPTY_CELL if mean is None else f"{percent(mean.mean)} ± {percent(mean.sd)}"
            )
        rows.append([variant.name, *cells])

    def guessed(members: Sequence[Member], guesser: str) -> list[str]:
        at_levels = ([_guess_at(m, level, guesser) for m in members] for level in levels)
        known = [[f1 for f1 in at if f1 is not None] for at in at_levels]
        return [percent(float(np.mean(at))) if at else EMPTY_CELL for at in known]

    return table(
        "Macro-F1 on val at each qindex in percent, mean ± standard deviation over seeds and "
        "folds, and that of the best constant at each qindex and of the class-prior guesser.",
        ("<Variant", *(f"qindex {level}" for level in levels)),
        [*rows, *guess_rows(sweep, guessed, trees=False)],
    )


def _f1_at(member: Member, level: int) -> float | None:
    predictions = member.run.predictions
    here = predictions.qindex == level
    if not here.any():
        return None
    k = len(member.run.class_names)
    return float(
        macro_f1_from_confusion(
            confusion_matrix(predictions.prediction[here], predictions.label[here], k)
        )
    )


def _guess_at(member: Member, level: int, guesser: str) -> float | None:
    here = member.run.predictions.qindex == level
    if not here.any():
        return None
    support = np.bincount(member.run.predictions.label[here], minlength=len(member.run.class_names))
    guesses = member.guesser_confusion(guesser, support)
    return None if guesses is None else float(macro_f1_from_confusion(guesses))
