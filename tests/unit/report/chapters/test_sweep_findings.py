"""The further tables of a sweep, on runs made by hand whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from av1part.report.chapters import sweep_findings as findings
from av1part.report.chapters import sweep_tables as tables
from av1part.report.chapters.sweep_final import on_test
from av1part.report.sweep import Member, Sweep, Variant
from av1part.runs.fields import Fields
from av1part.runs.schema import nested
from av1part.system.errors import ReportError

NAMES = ("SPLIT", "RECT", "AB")
GOOD = [[9, 1, 0], [1, 9, 0], [0, 1, 9]]
NO_AB = [[9, 1, 0], [1, 9, 0], [5, 5, 0]]


@dataclass
class Run:
    """As much of a run as the tables ask for."""

    name: str
    curve: list[float]
    best_epoch: int
    confusion: Any
    delta: float | None = 0.0
    predictions: Any = None
    stage: str = "stage2"
    class_names: tuple[str, ...] = NAMES
    extra: dict[str, Any] = field(default_factory=dict)
    trained: Any = (2, 1, 1)
    times: dict[str, Any] = field(default_factory=dict)

    @property
    def history(self) -> pl.DataFrame:
        return pl.DataFrame({"epoch": range(len(self.curve)), "macro_f1": self.curve})

    @property
    def timing(self) -> Fields:
        return Fields(self.times, Path("timing.json"))

    @property
    def metrics(self) -> Fields:
        best = {"macro_f1": self.curve[self.best_epoch], "epoch": self.best_epoch}
        guesses = {"baselines.constant.macro_f1": 0.2, "baselines.prior.macro_f1": 0.3}
        return Fields(nested({**best, **guesses, **self.extra}), Path("metrics.json"))

    @property
    def environment(self) -> Fields:
        counts = None if self.trained is None else list(self.trained)
        return Fields({"dataset": {"class_counts": counts}}, Path("environment.json"))

    @property
    def verified(self) -> dict[str, Fields]:
        record = {"sha256": f"of {self.name}", "delta_pp": self.delta}
        return {"best": Fields(record, Path("best.verified.json"))}


def run(name: str, curve: list[float], best: int, confusion: Any = None, **more: Any) -> Run:
    matrix = np.array(GOOD if confusion is None else confusion)
    more.setdefault("predictions", SimpleNamespace(sequences=4, qindex=np.array([80])))
    return Run(name, curve, best, matrix, **more)


def sweep(test: dict[str, Any] | None = None, **variants: list[Run]) -> Sweep:
    made = tuple(
        Variant(name, tuple(Member(each.name.rpartition("/")[2], each) for each in runs))  # type: ignore[arg-type]
        for name, runs in variants.items()
    )
    told = None if test is None else Fields(test, Path("test.json"))
    return Sweep(Path("s"), "s", None, made, (), None, told)


def cells(told: Any) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in told.rows}


def test_criteria_pass_and_fail_one_by_one() -> None:
    told = findings.criteria(
        sweep(
            all=[run("a/seed-0", [0.9], 0), run("a/seed-1", [0.9], 0)],
            low=[run("b/seed-0", [0.49], 0)],
            drifts=[run("c/seed-0", [0.9], 0, delta=-1.2)],
            unknown=[run("d/seed-0", [0.9], 0, delta=None)],
            no_ab=[run("e/seed-0", [0.9], 0, NO_AB)],
        )
    )
    said = cells(told)
    assert said["all"][-2:] == ("pass", "2 of 2")
    assert said["low"][0] == "49.00 fail"
    assert said["drifts"][1] == "1.20 fail"
    assert said["unknown"][1] == "– fail"
    assert said["no_ab"][2] == "AB 0.00 fail"
    assert {said.pop(name)[-2:] for name in ("low", "drifts", "unknown", "no_ab")} == {
        ("fail", "0 of 1")
    }
    # A third of each class, guessed 2 : 1 : 1: F1 of 0.4, 2/7 and 2/7, the first of which is RECT.
    assert said["(best constant)"] == ("20.00 fail", "–", "RECT 0.00 fail", "fail", "–")
    assert said["(class prior)"] == ("30.00 fail", "–", "RECT 28.57 fail", "fail", "–")


def test_criteria_are_of_stage_2_alone() -> None:
    assert findings.criteria(sweep(a=[run("a/seed-0", [0.9], 0, stage="stage3_ab")])) is None


def test_early_epochs_rank_the_runs_as_the_end_does() -> None:
    # After the first epoch in the order of the end; after the fifth reversed.
    ends = [0.1, 0.2, 0.3, 0.4]
    runs = [run(f"a/seed-{i}", [e, 0, 0, 0, 0.5 - e, e], 5) for i, e in enumerate(ends)]
    told = cells(findings.early(sweep(a=runs)))
    guesses = ("20.00", "30.00")
    assert told["1"] == ("4", "25.00", *guesses, "0.00", "0.00", "+1.00", "+1.00")
    assert told["5"] == ("4", "25.00", *guesses, "0.00", "0.00", "−1.00", "−1.00")
    assert "10" not in told


def test_early_epochs_are_ranked_within_folds() -> None:
    """Easy pictures make early and late epochs high alike, which tells nothing of the runs."""
    order = {"a": [1, 2, 3], "b": [3, 2, 1], "c": [2, 1, 3], "d": [2, 3, 1]}
    runs = [
        run(f"v/fold-{fold}_seed-{i}", [base + (i + 1) / 100, base + late / 100], 1)
        for base, (fold, lates) in zip((0.1, 0.3, 0.5, 0.7), order.items(), strict=True)
        for i, late in enumerate(lates)
    ]
    told = cells(findings.early(sweep(v=runs)))
    # Products of deviations from the folds' means add up to 2, -2, 1 and -1.
    assert told["1"][6] in ("0.00", "+0.00", "−0.00")


def test_first_epochs_that_were_best() -> None:
    told = findings.first_best(
        sweep(
            some=[run("a/seed-0", [0.5, 0.4], 0), run("a/seed-1", [0.3, 0.6], 1)],
            none=[run("b/seed-0", [0.3, 0.6], 1)],
        )
    )
    assert cells(told) == {"some": ("1 of 2", "50.00", "60.00", "20.00", "30.00")}
    assert findings.first_best(sweep(none=[run("b/seed-0", [0.3, 0.6], 1)])) is None


def test_the_course_stands_beside_the_guessers() -> None:
    said = cells(tables.course(sweep(a=[run("a/seed-0", [0.4, 0.5, 0.3], 1)])))
    assert said["a"][:3] == ("50.00", "30.00", "−20.00")
    for name, score in (("(best constant)", "20.00"), ("(class prior)", "30.00")):
        assert said[name] == (score, score, "–", score, "–", score, score, "–", "–")


def test_each_class_stands_beside_the_guessers() -> None:
    said = cells(tables.classes(sweep(a=[run("a/seed-0", [0.5], 0, NO_AB)])))
    assert said["a"][2].startswith("0.00")
    # Always one of three equal classes: 2 * 10 / (10 + 30); drawn 2 : 1 : 1, as above.
    assert said["(best constant)"] == ("50.00", "50.00", "50.00")
    assert said["(class prior)"] == ("40.00", "28.57", "28.57")
    unknown = cells(tables.classes(sweep(a=[run("a/seed-0", [0.5], 0, NO_AB, trained=None)])))
    assert unknown["(best constant)"] == ("50.00", "50.00", "50.00")
    assert unknown["(class prior)"] == ("–", "–", "–")


def test_memory_is_told_where_a_run_measured_its_own() -> None:
    """The peak of a process, which older runs recorded, may be that of an earlier job in it."""

    def made(*times: dict[str, Any]) -> dict[str, list[Run]]:
        counted = {"trainable_parameters": 5, "total_parameters": 10}
        known = {"seconds": 60.0, "blocks_per_second": 900.0}
        return {
            name: [run(f"{name}/seed-0", [0.5], 0, extra=counted, times={**known, **each})]
            for name, each in zip("ab", times, strict=False)
        }

    own = {"fit_peak_memory_bytes": 300 * 2**20, "peak_memory_bytes": 2**40}
    told = tables.cost(sweep(**made(own, {"fit_peak_memory_bytes": None})))
    assert told.columns[4:] == ("Seconds", "Blocks/s", "MiB", "Reload delta")
    assert [row[4:] for row in told.rows] == [
        ("60", "900", "300", "0.00"),
        ("60", "900", "–", "0.00"),
    ]
    assert "MiB" in told.caption
    told = tables.cost(sweep(**made({"peak_memory_bytes": 2**40})))
    assert told.columns[4:] == ("Seconds", "Blocks/s", "Reload delta")
    assert told.rows[0][4:] == ("60", "900", "0.00")
    assert "memory" not in told.caption
    assert "with its evaluation, without features" in told.caption


def test_guessers_of_other_nodes_are_not_averaged() -> None:
    """Protocols compared in one sweep are validated on other nodes, with other guesses."""
    other = {"baselines.constant.macro_f1": 0.1}
    made = {v: [run(f"{v}/seed-0", [0.5], 0)] for v in ("a", "b", "c", "d")}
    told = tables.course(sweep(**made, e=[run("e/seed-0", [0.5], 0, extra=other)]))
    assert [(row[0], row[1]) for row in told.rows[5:]] == [
        ("(best constant) for a, b, c, 1 more", "20.00"),
        ("(best constant) for e", "10.00"),
        ("(class prior)", "30.00"),
    ]


@pytest.mark.parametrize("trained", [[1, 2], [1, 2, -3], [0, 0, 0], [1, "2", 3]])
def test_training_counts_of_other_classes_are_refused(trained: Any) -> None:
    damaged = run("a/seed-0", [0.5], 0)
    damaged.trained = trained
    with pytest.raises(ReportError, match=r"environment\.json"):
        tables.classes(sweep(a=[damaged]))


def test_by_picture_takes_the_middle_run() -> None:
    ends = {"estimate": 0.5, "low": 0.4, "high": 0.6}
    interval = {f"intervals.macro_f1.value.{end}": value for end, value in ends.items()}
    runs = [
        run(f"a/seed-{i}", [score], 0, extra=interval) for i, score in enumerate((0.7, 0.5, 0.1))
    ]
    said = cells(findings.by_picture(sweep(a=runs)))["a"]
    assert said[:3] == ("seed-1", "50.00", "[40.00, 60.00]")
    assert said[3] == "+30.00"
    assert said[5] == "+20.00"
    assert said[-1] == "4"


def test_macro_f1_at_each_qindex() -> None:
    predictions = SimpleNamespace(
        sequences=2,
        qindex=np.array([80, 80, 80, 220, 220, 220]),
        label=np.array([0, 1, 2, 0, 1, 2]),
        prediction=np.array([0, 1, 2, 0, 0, 0]),
    )
    runs = [run(f"a/seed-{i}", [0.5], 0, predictions=predictions) for i in (0, 1)]
    said = cells(findings.by_qindex(sweep(a=runs)))
    assert said["a"] == ("100.00 ± 0.00", "16.67 ± 0.00")  # F1 of one class 2 * 1 / (3 + 1)
    assert said["(best constant)"] == ("16.67", "16.67")
    # A third of each class, guessed 2 : 1 : 1: F1 of 0.4, and twice 2/7.
    expected = 100 * (0.4 + 2 * (2 / 7)) / 3
    assert float(said["(class prior)"][0]) == pytest.approx(expected, abs=0.005)
    one = SimpleNamespace(sequences=2, qindex=np.array([80]))
    assert findings.by_qindex(sweep(a=[run("a/seed-0", [0.5], 0, predictions=one)])) is None


def test_the_test_split_and_what_was_trained_again_since() -> None:
    def scores(macro: float, of: str) -> dict[str, Any]:
        guesses = {f"baselines.{g}.{m}": 0.2 for g in ("constant", "prior") for m in ("accuracy",)}
        guesses |= {f"baselines.{g}.macro_f1": 0.1 for g in ("constant", "prior")}
        return nested({"checkpoint_sha256": of, "macro_f1": macro, "accuracy": 0.5, **guesses})

    test = {
        "opened": [{"at": "2026-11-24 10:00 UTC"}],
        "runs": {
            "a/seed-0": scores(0.40, "of a/seed-0"),
            "a/seed-1": scores(0.50, "of a/seed-1"),
            "b/seed-0": scores(0.60, "of an earlier one"),
        },
    }
    runs = {v: [run(f"{v}/seed-{i}", [0.5], 0) for i in (0, 1)] for v in ("a", "b")}
    told = on_test(sweep(test, **runs))
    assert told is not None
    said = cells(told)
    assert said.keys() == {"a"}
    assert said["a"][:4] == ("2", "50.00", "45.00", "7.07")
    assert said["a"][5:10] == ("10.00", "10.00", "50.00", "20.00", "20.00")
    assert said["a"][10:] == ("–", "–", "–")  # there is no baseline
    assert "2026-11-24 10:00 UTC" in told.caption
    assert told.caption.endswith("trained again after that: b/seed-0.")
    assert on_test(sweep(**runs)) is None
