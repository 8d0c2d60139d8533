from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from av1part.options import PROTOCOLS
from av1part.report.chapters.common import class_section, environment_facts, protocol_facts
from av1part.report.chapters.guessers import Score, read_scores
from av1part.report.chapters.scores import (
    class_table,
    headline,
    headline_table,
    result_text,
    sampling_note,
    study_table,
)
from av1part.report.chapters.stage import stage_chapter, verification_table
from av1part.report.render.document import Prose
from av1part.report.study import STUDY
from av1part.runs.fields import Fields
from av1part.runs.read import StageRun, load_run
from av1part.runs.schema import nested

METRICS = {
    "accuracy": 0.5,
    "macro_f1": 0.4,
    "weighted_f1": 0.45,
    "baselines.constant.accuracy": 0.55,
    "baselines.constant.macro_f1": 0.2,
    "baselines.prior.accuracy": 0.3,
    "baselines.prior.macro_f1": 0.33,
    "intervals.accuracy.margin_constant.estimate": -0.05,
    "intervals.accuracy.margin_constant.low": -0.09,
    "intervals.accuracy.margin_constant.high": -0.01,
    "intervals.macro_f1.margin_prior.estimate": 0.07,
    "intervals.macro_f1.margin_prior.low": -0.02,
    "intervals.macro_f1.margin_prior.high": 0.11,
}


def scores(**changed: object) -> dict[str, Score]:
    fields = Fields(nested({**METRICS, **changed}), Path("metrics.json"))
    return read_scores(fields, fields)


def test_only_metrics_with_both_guessers_are_scores() -> None:
    assert list(scores()) == ["accuracy", "macro_f1"]
    more = {"baselines.constant.weighted_f1": 0.3, "baselines.prior.weighted_f1": 0.31}
    assert list(scores(**more)) == ["accuracy", "macro_f1", "weighted_f1"]


def test_each_metric_is_read_against_the_stronger_guesser() -> None:
    accuracy, macro = scores().values()
    assert accuracy.stronger[:2] == ("best constant", 0.55)
    assert macro.stronger[:2] == ("class-prior guesser", 0.33)
    assert macro.margin_constant.estimate == pytest.approx(0.2)  # not recorded: the difference


def test_the_result_is_below_a_guesser_or_not_significant() -> None:
    assert result_text(scores(), 4) == (
        "On 4 sequences accuracy is 50.00%, 5.00 points below the best constant's 55.00% "
        "(95% interval [−9.00, −1.00]), and macro-F1 is 40.00%, 7.00 points above the class-prior "
        "guesser's 33.00% (95% interval [−2.00, +11.00], which contains zero: not significant)."
    )
    alone = {f"intervals.accuracy.margin_constant.{end}": None for end in ("low", "high")}
    assert "no interval" in result_text(scores(**alone), 1)


def test_the_headline_is_one_sentence_on_one_metric() -> None:
    assert headline(scores()["accuracy"], 1234, 4) == (
        "Accuracy is 50.00%, 5.00 points below the best constant's 55.00% (95% interval "
        "[−9.00, −1.00]), on 1,234 nodes of 4 sequences."
    )


def test_headline_table_prints_score_guesses_and_margins() -> None:
    row = headline_table(scores(), 1234, 4, "NONE").rows[0]
    assert row[:3] == ("accuracy", "1,234", "50.00")
    assert row[4:7] == ("55.00", "−5.00", "[−9.00, −1.00]")
    assert row[7:9] == ("30.00", "+20.00")


def test_class_table_agrees_with_scikit_learn(stage_folder: Path) -> None:
    run = load_run(stage_folder)
    true, said = run.predictions.label, run.predictions.prediction
    rows = class_table(run.confusion, run.class_names).rows
    for column, score in ((4, precision_score), (5, recall_score), (6, f1_score)):
        expected = 100 * score(true, said, average=None)
        np.testing.assert_allclose([float(row[column]) for row in rows], expected, atol=0.00501)
    always = [100 * f1_score(true == i, np.ones(len(true), dtype=bool)) for i in range(3)]
    np.testing.assert_allclose([float(row[7]) for row in rows], always, atol=0.00501)
    assert [row[8] for row in rows] == [row[2] for row in rows]


def test_class_that_never_occurs_has_no_recall() -> None:
    row = class_table(np.array([[3, 1], [0, 0]]), ["A", "B"]).rows[1]
    assert row[1] == "0"
    assert row[5] == "–"


@pytest.mark.parametrize("scope", sorted({figure.scope for figure in STUDY.values()}))
def test_study_figures_stand_beside_their_constants(scope: str) -> None:
    both = {f"baselines.{g}.f1_positive": v for g, v in (("constant", 0.6), ("prior", 0.5))}
    found = study_table(scope, scores(f1_positive=0.62, **both))
    assert found is not None
    published = [figure for figure in STUDY.values() if figure.scope == scope]
    for figure, row in zip(published, found.rows, strict=False):
        assert row[2:5] == (
            f"{figure.value:.2f}",
            figure.constant.name,
            f"{figure.constant.value:.2f}",
        )
    assert found.rows[-1][0] == "this run"
    assert found.strong == len(found.rows) - 1


def test_a_scope_the_study_has_not_gets_no_table() -> None:
    assert study_table("stage3_1to4", scores()) is None


def test_limits_warn_of_the_protocols_that_mix_pictures() -> None:
    assert "optimistic" in sampling_note(4, "by_sequence")
    for protocol in PROTOCOLS:
        assert ("flatter" in sampling_note(4, protocol)) == (protocol != "by_sequence")


def test_a_run_tells_its_own_memory_not_that_of_the_process(stage_folder: Path) -> None:
    run = load_run(stage_folder)
    assert (
        dict(environment_facts(run))["Time"] == "1 min 23 s, 912 blocks a second, 1.00 GiB at most"
    )
    older = Fields({"seconds": 2, "peak_memory_bytes": 2**40}, stage_folder / "timing.json")
    assert dict(environment_facts(dataclasses.replace(run, timing=older)))["Time"] == "2.0 s"


def test_a_report_says_of_a_protocol_what_the_split_does() -> None:
    for protocol, said in PROTOCOLS.items():
        assert protocol_facts("val", protocol)[0] == ("Protocol", f"{protocol}: {said}")
    assert protocol_facts("val", "by_hand")[0] == ("Protocol", "by_hand")


def test_class_that_is_never_predicted_is_called_out(stage_folder: Path) -> None:
    run = load_run(stage_folder)
    assert not any("Never" in getattr(i, "text", "") for i in class_section(run, "").items)
    matrix = run.confusion.copy()
    matrix[:, 0] += matrix[:, 2]
    matrix[:, 2] = 0
    items = class_section(dataclasses.replace(run, confusion=matrix), "").items
    assert items[0] == Prose("Never predicted: AB.", warns=True)


def test_checkpoint_verdicts(stage_folder: Path) -> None:
    run = load_run(stage_folder)
    assert isinstance(run, StageRun)
    guesses = {"best constant": 0.2, "class prior": 0.3}
    good = run.verified["best"]
    bad = Fields({**good.data, "delta_pp": -1.5}, good.file)
    tensors = Fields({"epoch": 3, "level": "tensors"}, good.file)
    assert [row[-1] for row in verification_table({"best": good, "last": bad}, guesses).rows] == [
        "verified",
        "DIFFERS",
    ]
    assert verification_table({"best": tensors}, guesses).rows[0][-1] == "tensors equal"
    assert verification_table({}, guesses).rows[1][-1] == "NOT VERIFIED: no record"


def test_first_epoch_as_best_and_refused_files_are_warned_of(
    examples: ModuleType, tmp_path: Path
) -> None:
    folder = examples.write_stage_run(tmp_path / "s", epochs=2)  # best is the first of two
    (folder / "checkpoints" / "best.corrupt").write_bytes(b"")
    run = load_run(folder)
    assert isinstance(run, StageRun)
    chapter = stage_chapter(run, "run", pictures=False)
    warnings = [
        i.text for s in chapter.sections for i in s.items if isinstance(i, Prose) and i.warns
    ]
    assert any("first" in text for text in warnings)
    assert any("best.corrupt" in text for text in warnings)
