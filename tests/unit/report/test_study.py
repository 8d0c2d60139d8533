"""The study's figures agree with each other and with the constants beside them."""

from pathlib import Path

import numpy as np
import pytest

from av1part.metrics.scores import baselines, from_confusion
from av1part.partition import taxonomy
from av1part.report.study import STAGE2_CONFUSION, STUDY, figures

STAGE2 = ("SPLIT", "RECT", "AB")


def test_stage2_matrix_gives_the_golden_figures():
    metrics = from_confusion(STAGE2_CONFUSION, STAGE2)
    golden = {
        "macro_f1": 47.74,
        "weighted_f1": 50.43,
        "accuracy": 51.01,
        "macro_precision": 47.24,
        "macro_recall": 49.73,
        "balanced_accuracy": 49.73,
    }
    for score, row in {
        "precision": (35.65, 61.07, 45.01),
        "recall": (50.17, 65.93, 33.10),
        "f1": (41.68, 63.41, 38.15),
    }.items():
        found = [100 * metrics["per_class"][name][score] for name in STAGE2]
        assert found == pytest.approx(row, abs=0.01)
    assert {k: 100 * metrics[k] for k in golden} == pytest.approx(golden, abs=0.01)
    assert [metrics["per_class"][name]["support"] for name in STAGE2] == [5962, 17765, 14529]
    assert STUDY["stage2_adapter"].value == pytest.approx(100 * metrics["macro_f1"], abs=0.01)


def test_stage2_is_read_against_the_prior_of_its_own_supports():
    support = np.sum(STAGE2_CONFUSION, axis=1)
    guesses = baselines(support, np.repeat(np.arange(3), support), STAGE2)
    read_against = STUDY["stage2_adapter"].constant.value
    assert read_against == pytest.approx(100 * guesses["prior"]["macro_f1"], abs=0.01)
    assert 100 * guesses["constant"]["macro_f1"] == pytest.approx(21.14, abs=0.01)


def test_always_partition_and_always_none_tell_one_class_share():
    none = STUDY["pipeline"].constant.value / 100
    cut = 1 - none
    always = baselines([none, cut], np.repeat([0, 1], [5786, 4214]), ("NONE", "PARTITION"))
    expected = STUDY["stage1"].constant.value
    assert 100 * always["constant"]["f1_positive"] == pytest.approx(expected, abs=0.05)


def test_scopes_are_stages_or_the_pipeline():
    scopes = {f.scope for f in STUDY.values()}
    assert scopes == {"pipeline", *(s.name for s in taxonomy("v6").stages)}
    assert [f.value for f in figures("stage1")] == [72.28]
    assert figures("stage4") == ()


def test_what_the_study_could_not_see():
    below = {key for key, figure in STUDY.items() if figure.margin < 0}
    assert below == {k for k in STUDY if k.startswith(("stage3", "pipeline"))}


def test_the_table_in_the_docs_is_this_data():
    page = (Path(__file__).parents[3] / "docs" / "pipeline.md").read_text(encoding="utf-8")
    names = {"f1_positive": "F1", "macro_f1": "macro-F1", "accuracy": "accuracy"}
    for figure in STUDY.values():
        against = f"{figure.constant.name} {figure.constant.value:.2f}"
        value = f"{names[figure.metric]} {figure.value:.2f}"
        assert f"| {figure.name} | {value} | {against} | {figure.margin:+.2f} |" in page
