"""Tables of a comparison whose predictors are several seeds of one training: means over seeds.

Predictors called NAME-SEED, such as `net-42` and `net-43`, are taken together as NAME. A score of
NAME is the mean of its seeds' scores, on all pictures, on each resample of them, and without each;
so intervals and paired tests are over pictures, as for one predictor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from av1part.metrics.paired import PairedDifference, Resampled, compare_with
from av1part.report.chapters.compared_tables import DECISION_NAMES, decimals, limits
from av1part.report.render.tables import EMPTY_CELL, Table, p_text, percent, points, span, table
from av1part.runs.compared import Compared
from av1part.runs.compared_scores import DECISIONS, STAGE2, resampled_at, resampled_stage2

_SEED = re.compile(r"(?P<name>.+)-(?P<seed>\d+)")

_LOSS = "log_loss"
_SIZE_SCORES = {_LOSS: "Log loss", "accuracy": "Accuracy", "macro_f1": "Macro-F1"}
_STAGE2_SCORES = {"macro_f1": "Macro-F1", "accuracy": "Accuracy"}


def seeds_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Group names of the form NAME-SEED by NAME.

    Args:
        names: Names of predictors.

    Returns:
        NAME to two or more of the names, in their order; a NAME that a predictor itself has, and
        one of a single seed, is no group.

    >>> seeds_of(["net-42", "net-43", "trees-42", "prior"])
    {'net': ['net-42', 'net-43']}
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        if (found := _SEED.fullmatch(name)) is not None:
            groups.setdefault(found["name"], []).append(name)
    return {name: own for name, own in groups.items() if len(own) > 1 and name not in names}


@dataclass(frozen=True)
class Averaged:
    """Scores of a size or of Stage 2, of groups of seeds and of predictors without seeds.

    Attributes:
        scores: Name of the group or predictor to its scores, groups first.
        members: Group to the scores of its seeds.
        against: The one that the others are compared with; None if it lacks the size.
    """

    scores: Mapping[str, Resampled]
    members: Mapping[str, Sequence[Resampled]]
    against: str | None

    @classmethod
    def of(cls, resampled: Mapping[str, Resampled], compared: Compared) -> Averaged:
        """Average the seeds of each group; those without the size are no members."""
        groups = seeds_of(compared.predictors)
        members = {
            name: [resampled[seed] for seed in seeds if seed in resampled]
            for name, seeds in groups.items()
        }
        members = {name: own for name, own in members.items() if own}
        grouped = {seed for seeds in groups.values() for seed in seeds}
        scores = {name: Resampled.mean(own) for name, own in members.items()}
        scores |= {name: own for name, own in resampled.items() if name not in grouped}
        own_group = (name for name, seeds in groups.items() if compared.against in seeds)
        against = next(own_group, compared.against)
        return cls(scores, members, against if against in scores else None)

    def differences(self) -> dict[str, dict[str, PairedDifference]]:
        """Compare all with `against`; empty if there is none."""
        return {} if self.against is None else compare_with(self.scores, self.against)


def sizes_table(compared: Compared) -> Table:
    """Put log loss and accuracy of all sizes side by side, of seeds their means."""
    sizes = list(compared.record.children("sizes"))
    by_size = {
        size: Averaged.of(resampled_at(compared.table, int(size)), compared).scores
        for size in sizes
    }
    names = dict.fromkeys(name for scores in by_size.values() for name in scores)
    rows = []
    for name in names:
        cells = [name]
        for size in sizes:
            own = by_size[size].get(name)
            cells += (
                [EMPTY_CELL, EMPTY_CELL]
                if own is None
                else [decimals(own.estimate[_LOSS]), percent(own.estimate["accuracy"])]
            )
        rows.append(cells)
    columns = [cell for size in sizes for cell in (f"{size}: log loss", f"{size}: accuracy")]
    caption = "Log loss in nats and accuracy in percent by node size; of seeds the mean over them."
    return table(caption, ["<Predictor", *columns], rows)


def seeds_tables(compared: Compared) -> dict[str, Table]:
    """Put means over seeds, and differences between them, into tables.

    Args:
        compared: The folder.

    Returns:
        By name: `seeds-SIZE` and `seeds-differences-SIZE` of each node size, and of Stage 2 by each
        decision, `stage2-argmax` and `stage2-weights` in place of the size; empty if no predictors
        are seeds of one training.
    """
    if not seeds_of(compared.predictors):
        return {}
    found = {}
    for size in compared.record.children("sizes"):
        averaged = Averaged.of(resampled_at(compared.table, int(size)), compared)
        place = f"at {size}x{size}"
        found[f"seeds-{size}"] = _scores(averaged, _SIZE_SCORES, place)
        if len(averaged.scores) > 1 and averaged.against is not None:
            found[f"seeds-differences-{size}"] = _differences(averaged, _SIZE_SCORES, place)
    for decision in DECISIONS if compared.record.get("stage2") is not None else ():
        averaged = Averaged.of(resampled_stage2(compared.table, decision), compared)
        if not averaged.scores:
            continue
        name, place = DECISION_NAMES[decision], f"in Stage 2 by {DECISION_NAMES[decision]}"
        classes = {f"f1_{each}": each for each in STAGE2.class_names}
        found[f"seeds-stage2-{name}"] = _scores(averaged, _STAGE2_SCORES | classes, place)
        if len(averaged.scores) > 1 and averaged.against is not None:
            found[f"seeds-differences-stage2-{name}"] = _differences(
                averaged, _STAGE2_SCORES, place
            )
    return found


def _scores(averaged: Averaged, titles: Mapping[str, str], place: str) -> Table:
    rows = []
    for name, own in averaged.scores.items():
        members = averaged.members.get(name, [])
        intervals = own.intervals()
        cells = [name, str(len(members)) if members else EMPTY_CELL]
        for score in titles:
            values = [member.estimate[score] for member in members]
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
            show, ends = (decimals, limits) if score == _LOSS else (percent, span)
            cells += [show(own.estimate[score]), show(deviation), ends(intervals[score])]
        rows.append(cells)
    columns = ["<Predictor", "Seeds"]
    columns += [cell for title in titles.values() for cell in (title, "s.d.", "95%")]
    caption = (
        f"Means over seeds {place}: {_units(titles)}. s.d.: standard "
        "deviation over seeds. Intervals: bootstrap over pictures of the mean over seeds."
    )
    return _as_pictures_allow(table(caption, columns, rows), averaged)


def _differences(averaged: Averaged, titles: Mapping[str, str], place: str) -> Table:
    rows = []
    for name, own in averaged.differences().items():
        cells = [name]
        for score in titles:
            found = own[score]
            if score == _LOSS:
                cells += [
                    decimals(found.interval.estimate, signed=True),
                    limits(found.interval, signed=True),
                ]
            else:
                cells += [points(found.interval.estimate), span(found.interval, signed=True)]
            cells.append(p_text(found.p_holm))
        rows.append(cells)
    columns = ["<Predictor", *(c for title in titles.values() for c in (title, "95%", "p"))]
    caption = (
        f"Mean over seeds of each less that of `{averaged.against}` {place}, on the same pictures "
        f"and resamples: {_units(titles, difference=True)}. "
        "p: paired t test over pictures on jackknife pseudo-values of the mean over seeds, by "
        "Holm's correction for all rows of a column."
    )
    return _as_pictures_allow(table(caption, columns, rows), averaged, "p")


def _units(titles: Mapping[str, str], *, difference: bool = False) -> str:
    """Say what the columns are in."""
    unit = "percentage points" if difference else "percent"
    if _LOSS in titles:
        better = " (below zero is better)" if difference else ""
        return f"log loss in nats{better}, the rest in {unit}"
    classes = [title for score, title in titles.items() if score.startswith("f1_")]
    return f"in {unit}" + (f"; {', '.join(classes)}: F1 of the class" if classes else "")


def _as_pictures_allow(tab: Table, averaged: Averaged, *more: str) -> Table:
    """Leave out intervals, and further columns, where there is one picture."""
    pictures = next(iter(averaged.scores.values())).pictures
    return tab if pictures > 1 else tab.without("95%", *more)
