"""The table of a sweep's test split, once it was opened."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from av1part.metrics.statistics import against_baseline, mean_of
from av1part.report.chapters.log_loss import mean_loss, read_loss
from av1part.report.chapters.sweep_tables import difference_cells, interval_text
from av1part.report.render.tables import Table, nats, percent, points, table
from av1part.report.sweep import TREES, Sweep
from av1part.runs.fields import Fields


def on_test(sweep: Sweep) -> Table | None:
    """Tabulate the scores of the kept checkpoints on test, if it was opened."""
    if sweep.test is None:
        return None
    rows, stale = [], []
    by_loss, trees = sweep.by_log_loss, _test_has_trees(sweep)
    by_variant: dict[str, dict[str, float]] = {}
    for variant in sweep.variants:
        scores: list[tuple[float, Fields]] = []
        for member in variant.members:
            if sweep.test.get("runs", member.run.name) is None:
                continue
            test = sweep.test.child("runs", member.run.name)
            kept = member.run.verified.get("best")
            if kept is None or test.text("checkpoint_sha256") != kept.text("sha256"):
                stale.append(member.run.name)
            else:
                scores.append((member.best, test))
                by_variant.setdefault(variant.name, {})[member.name] = test.number("macro_f1")
        if scores:
            own = [*_test_cells(scores), *(_test_trees(scores) if trees else ())]
            rows.append([variant.name, *own, *(_test_losses(scores) if by_loss else ())])
    tested = against_baseline(by_variant, sweep.baseline) if sweep.baseline in by_variant else {}
    for row in rows:
        row += difference_cells(tested.get(row[0]))
    times = ", ".join(opening.text("at") for opening in sweep.test.items("opened"))
    since = (
        f" Left out, since they were trained again after that: {', '.join(stale)}." if stale else ""
    )
    return table(
        f"The test split, opened {times}: macro-F1 of the kept checkpoints in percent beside that "
        "on val, standard deviation and interval over seeds and folds, and the best constant and "
        "the class-prior guesser; accuracy beside both guessers; of macro-F1 the paired difference "
        f"to `{sweep.baseline}` in points, its interval, and p (Holm) over these rows."
        f"{_TEST_TREES if trees else ''}{_TEST_LOSSES if by_loss else ''}{since}",
        (
            *("<Variant", "n", "Val", "Test", "s.d.", "95% interval", "Constant", "Prior"),
            *("Accuracy", "Constant", "Prior"),
            *(("Trees", "Over trees") if trees else ()),
            *(("Log loss", "s.d.", "Prior") if by_loss else ()),
            *(("Trees", "Over trees") if trees and by_loss else ()),
            *("Difference", "95% interval", "p (Holm)"),
        ),
        rows,
    )


def _test_cells(scores: Sequence[tuple[float, Fields]]) -> list[str]:
    macro = mean_of([test.number("macro_f1") for _, test in scores])
    return [
        str(macro.n),
        percent(mean_of([val for val, _ in scores]).mean),
        percent(macro.mean),
        percent(macro.sd),
        interval_text(macro),
        *(_mean(scores, "baselines", guesser, "macro_f1") for guesser in ("constant", "prior")),
        _mean(scores, "accuracy"),
        *(_mean(scores, "baselines", guesser, "accuracy") for guesser in ("constant", "prior")),
    ]


def _mean(scores: Sequence[tuple[float, Fields]], *path: str) -> str:
    return percent(float(np.mean([test.number(*path) for _, test in scores])))


_TEST_TREES = (
    " Trees: macro-F1 of boosted trees, trained on the training nodes and stopped by val, and the "
    "margin over them."
)
_TEST_LOSSES = (
    " The scores in percent are of the 16x16 nodes; log loss in nats, the mean of the node sizes' "
    "own, less is better, beside the class prior's and, where there are some, the trees'."
)


def _test_has_trees(sweep: Sweep) -> bool:
    """Return whether trees stand beside all runs whose test scores are known."""
    assert sweep.test is not None
    tests = sweep.test.children("runs").values()
    return bool(tests) and all(test.get("baselines", TREES) is not None for test in tests)


def _test_trees(scores: Sequence[tuple[float, Fields]]) -> list[str]:
    margins = [t.number("macro_f1") - t.number("baselines", TREES, "macro_f1") for _, t in scores]
    return [_mean(scores, "baselines", TREES, "macro_f1"), points(float(np.mean(margins)))]


def _test_losses(scores: Sequence[tuple[float, Fields]]) -> list[str]:
    losses = [loss for _, test in scores if (loss := read_loss(test)) is not None]
    spread, mean = mean_of([loss.value for loss in losses]), mean_loss(losses)
    cells = [nats(mean.value), nats(spread.sd), nats(mean.prior)]
    if mean.trees is None or mean.margin_trees is None:
        return cells
    return [*cells, nats(mean.trees), nats(mean.margin_trees.estimate, signed=True)]
