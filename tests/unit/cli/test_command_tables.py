"""What the commands print of scores stands beside both guessers, and fits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from av1part.cli.commands import demo, pipeline, validate
from av1part.metrics.scores import baselines, from_predictions
from av1part.report.chapters.guessers import RUN_COLUMNS, run_table, scores_of
from av1part.report.render.terminal import terminal_table

NAMES = ("HORZ_A", "HORZ_B", "VERT_A", "VERT_B")
LABELS = np.repeat(np.arange(4), (1000, 2000, 3000, 4000))
TRAIN = (30_000, 10_000, 30_000, 30_000)


@pytest.fixture(scope="module")
def scores() -> dict[str, Any]:
    """Of a stage that says the last class alone."""
    found = from_predictions(np.full(len(LABELS), 3), LABELS, NAMES)
    ends = {"estimate": 0.3257, "low": -0.1234, "high": 0.4568}
    margins = {f"margin_{guesser}": ends for guesser in ("constant", "prior")}
    return found | {
        "baselines": baselines(TRAIN, LABELS, NAMES),
        "intervals": {"macro_f1": margins},
    }


def rows(table: Table) -> list[dict[str, str]]:
    columns = {
        str(column.header).replace("\n", " "): list(map(str, column.cells))
        for column in table.columns
    }
    return [
        {name: cells[index] for name, cells in columns.items()} for index in range(table.row_count)
    ]


def printed(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_validate_prints_guessers_beside_each_class(scores: dict[str, Any]) -> None:
    table = validate._class_table(scores, NAMES, TRAIN)
    last = rows(table)[3]
    # Of 10,000 nodes 4,000 are of this class, which 30 % of training are.
    assert last["F1"] == last["F1, always it"] == f"{100 * 2 * 4 / 14:.2f}"
    assert last["F1, class prior"] == f"{100 * 2 * 0.4 * 0.3 / 0.7:.2f}"
    assert last["n"] == "4,000"
    assert "…" not in printed(table, 80)


def test_a_sweep_on_test_prints_guessers_beside_both_metrics(scores: dict[str, Any]) -> None:
    table = validate._test_table({"depthwise3x3_small/seed-0": scores}, "runs/s on test")
    macro, accuracy = rows(table)
    assert (accuracy["Metric"], accuracy["Score"]) == ("accuracy", "40.00")
    assert (accuracy["Best constant"], accuracy["Class prior"]) == ("40.00", "26.00")
    assert macro["Run"] == "depthwise3x3_small/seed-0"
    assert macro["Best constant"] == f"{100 * 2 * 4 / 14 / 4:.2f}"
    assert "…" not in printed(table, 80)


def test_the_cascade_prints_the_margin_over_the_stronger_guesser(scores: dict[str, Any]) -> None:
    report = {"overall": scores, "split": "val", "protocol": "by_sequence", **scores}
    table = pipeline.cascade_table(report)
    accuracy, macro = rows(table)
    assert (accuracy["Run"], macro["Run"]) == ("cascade", "")
    assert (accuracy["Margin"], accuracy["95% interval"]) == ("0.00", "–")
    assert (macro["Margin"], macro["95% interval"]) == ("+32.57", "[−12.34, +45.68]")
    assert "…" not in printed(table, 80)


def test_validate_prints_every_metric_beside_both_guessers(scores: dict[str, Any]) -> None:
    table = validate._scores_table("stage3_ab", scores, "on val of data/[red]")
    names = ["accuracy", "macro-F1", "weighted F1", "macro precision", "macro recall"]
    assert [row["Metric"] for row in rows(table)] == [*names, "balanced accuracy"]
    assert rows(table)[0]["Score"] == "40.00"
    text = printed(table, 80)
    assert "…" not in text
    assert "data/[red]" in text  # no markup


def test_the_demo_prints_both_guessers_beside_accuracy(scores: dict[str, Any]) -> None:
    cascade = {
        "overall": scores,
        "baselines": baselines(TRAIN, LABELS, NAMES),
        "intervals": {"macro_f1": {}},
    }
    table = demo.summary_table({"stage2-adapter": scores}, cascade)
    accuracy, constant, prior = (list(map(str, c.cells)) for c in table.columns[1:4])
    assert (accuracy, constant, prior) == (["40.00"] * 2, ["40.00"] * 2, ["26.00"] * 2)
    assert "…" not in printed(table, demo.NARROWEST)
    both = {"net": {**scores, "stage": "superblock"}, "stage1": {**scores, "stage": "stage1"}}
    named = demo.summary_table(both, cascade).columns[0].cells
    assert [str(cell) for cell in named] == ["net 16x16", "stage1", "cascade"]


def test_a_summary_of_runs_has_accuracy_and_macro_f1_beside_both_guessers(
    scores: dict[str, Any],
) -> None:
    summary = run_table("in percent", {"stage2-adapter": scores_of(scores)})
    assert summary.columns == ("<Run", *RUN_COLUMNS)
    assert summary.rows[0][:4] == ("stage2-adapter", "40.00", "40.00", "26.00")
    assert summary.rows[0][-2:] == ("+32.57", "[−12.34, +45.68]")
    assert "…" not in printed(terminal_table(summary), demo.NARROWEST)


def test_the_demo_ends_with_results_beside_the_stronger_guesser(scores: dict[str, Any]) -> None:
    line = demo._beside_guess("SPLIT or not", "macro_f1", scores, scores)
    macro, guess = (100 * s["macro_f1"] for s in (scores, scores["baselines"]["prior"]))
    assert line == (
        f"SPLIT or not: macro-F1 {macro:.2f} %, the class-prior guesser {guess:.2f} %, "
        "margin +32.57 [−12.34, +45.68]"
    )


def test_the_demo_says_which_network_it_uses() -> None:
    settings = {"data.size": 16, "data.context": 8, "conditioning": "qindex"}
    settings |= {"backbone.width": 24, "backbone.stem": "imagenet"}
    text = demo.network_text(settings)
    assert "width 24, imagenet stem, conditioning qindex" in text
    assert "16x16 blocks with 8 samples around them" in text
    assert "around" not in demo.network_text({**settings, "data.context": 0})
    del settings["backbone.stem"]
    settings |= {"backbone.kind": "superblock", "backbone.depth": 2}
    assert "trunk of width 24, depth 2, conditioning" in demo.network_text(settings)


def test_the_demo_says_what_was_trained_and_chosen() -> None:
    runs = {"stage1": {"trainable_parameters": 1234, "total_parameters": 5678}}
    assert demo.parameters_text(runs) == "parameters trained: stage1 1,234 of 5,678"
    intervals = {"macro_f1": {"value": {"clusters": 3}}}
    several = demo.choices_text({"nodes": 5552, "intervals": intervals})
    assert "5,552 blocks of 3 sequences; epochs, the threshold" in several
    assert "70 blocks of 1 sequence;" in demo.choices_text({"nodes": 70, "intervals": {}})


def test_trees_have_tables_of_their_own_that_fit(scores: dict[str, Any]) -> None:
    ends = {"estimate": -0.1234, "low": -0.1234, "high": -0.0123}
    trees = {**scores["baselines"]["prior"], "log_loss": 1.234}
    beside = {
        **scores,
        "log_loss": 1.1,
        "baselines": {
            **scores["baselines"],
            "prior": {**scores["baselines"]["prior"], "log_loss": 1.5},
            "trees": trees,
        },
        "intervals": {
            "macro_f1": {f"margin_{name}": ends for name in ("constant", "prior", "trees")},
            "log_loss": {"value": ends, "margin_prior": ends, "margin_trees": ends},
        },
    }
    beside["by_size"] = {size: {**beside, "nodes": 10**7} for size in ("8", "16", "32", "64")}
    tables = [
        validate._scores_table("superblock", beside, "on val"),
        *validate._trees_table({"superblock": scores_of(beside)}),
        *validate._size_tables(beside),
        *validate._test_losses({"depthwise3x3_small/seed-0": beside}),
    ]
    assert len(tables) == 8
    assert "Trees" not in rows(tables[0])[0]
    assert rows(tables[1])[1]["95% interval"] == "[−12.34, −1.23]"
    losses, of_trees = rows(tables[2]), rows(tables[3])
    assert [row["Nodes"] for row in losses] == [
        *("64x64", "32x32", "16x16", "8x8", "mean of the sizes")
    ]
    assert losses[0]["Difference"] == "−0.123"
    assert of_trees[0]["Trees"] == "1.234"
    for table in tables:
        assert "…" not in printed(table, 80), printed(table, 80)
