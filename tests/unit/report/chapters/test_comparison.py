from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from av1part.report import page
from av1part.report.chapters.comparison import (
    comparison_chapter,
    comparison_table,
    differing_settings,
)
from av1part.report.chapters.guessers import run_scores
from av1part.report.page import compose
from av1part.report.render.tables import Table
from av1part.runs.read import StageRun, load_run


@pytest.fixture(scope="module")
def runs(examples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[StageRun]:
    root = tmp_path_factory.mktemp("sweep")
    found = []
    for bottleneck in (64, 128):
        for seed in (1, 2):
            folder = root / f"b{bottleneck}-{seed}"
            config = {"adapter.bottleneck": bottleneck, "name": folder.name, "stage1": "x"}
            skill = bottleneck / 64
            examples.write_stage_run(folder, seed=seed, skill=skill, config=config, epochs=2)
            found.append(load_run(folder))
    return found


def tables(runs: list[StageRun]) -> list[Table]:
    chapter = comparison_chapter(runs, [], "")
    return [item for s in chapter.sections for item in s.items if isinstance(item, Table)]


def test_settings_that_differ_leave_out_seed_and_names(runs: list[StageRun]) -> None:
    assert differing_settings(runs) == ["adapter.bottleneck"]
    assert differing_settings(runs[:2]) == []


def test_comparison_prints_both_guessers_beside_both_metrics(runs: list[StageRun]) -> None:
    table = comparison_table(runs, "Runs")
    assert [title for title in table.columns if title in ("Constant", "Prior")] == [
        "Constant",
        "Prior",
    ] * 2
    macro = run_scores(runs[0])["macro_f1"]
    assert table.rows[0][7:10] == tuple(
        f"{100 * v:.2f}" for v in (macro.value, macro.constant, macro.prior)
    )


def test_seeds_are_pooled_per_setting(runs: list[StageRun]) -> None:
    compared, settings, seeds = tables(runs)
    assert settings.columns == ("<Run", "<`adapter.bottleneck`")
    assert {row[0]: row[1] for row in settings.rows} == {
        "b64-1": "64",
        "b64-2": "64",
        "b128-1": "128",
        "b128-2": "128",
    }
    assert len(compared.rows) == 4
    pooled = {row[0]: row for row in seeds.rows}
    assert set(pooled) == {"adapter, bottleneck=64", "adapter, bottleneck=128"}
    values = [100 * run_scores(run)["accuracy"].value for run in runs[:2]]
    row = pooled["adapter, bottleneck=64"]
    assert row[1] == "2"
    assert float(row[2]) == pytest.approx(np.mean(values), abs=0.00501)
    assert float(row[3]) == pytest.approx(np.std(values, ddof=1), abs=0.00501)


@pytest.fixture
def pooled(examples: ModuleType, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Runs by seed, start and what else they differ in; what is said of the seeds, and how many."""

    def make(*made: tuple[int, str | None, dict[str, Any]]) -> dict[str, str]:
        found = []
        for index, (seed, stage1, dataset) in enumerate(made):
            folder, config = tmp_path / str(index), {"stage1": stage1}
            examples.write_stage_run(
                folder, seed=seed, skill=1 + index / 4, config=config, epochs=2, dataset=dataset
            )
            found.append(load_run(folder))
        rows = [t.rows for t in tables(found) if t.caption.startswith("Repeated runs")]
        return {row[0]: row[1] for row in rows[0]} if rows else {}

    return make


def test_runs_of_other_costs_are_no_repetition(pooled: Callable[..., dict[str, str]]) -> None:
    one, other = {"costs_sha256": "aa" * 32}, {"costs_sha256": "ee" * 32}
    assert pooled((1, "x", one), (2, "x", other)) == {}
    assert pooled((1, "x", one), (2, "x", one)) == {"adapter": "2"}


@pytest.mark.parametrize("key", ["manifest_sha256", "split_sha256"])
def test_runs_of_other_nodes_are_no_repetition(
    pooled: Callable[..., dict[str, str]], key: str
) -> None:
    other = {key: "ee" * 32}
    assert pooled((1, "x", {}), (2, "x", other)) == {}
    assert pooled((1, "x", {}), (2, "x", {}), (1, "x", other), (2, "x", other)) == {
        f"adapter, {key}={'ab' * 6 if key == 'manifest_sha256' else 'cd' * 6}": "2",
        f"adapter, {key}={'ee' * 6}": "2",
    }


def test_runs_with_and_without_a_start_are_no_repetition(
    pooled: Callable[..., dict[str, str]],
) -> None:
    assert pooled((1, "x", {}), (2, None, {})) == {}
    assert pooled((1, "x", {}), (2, "x", {}), (1, None, {}), (2, None, {})) == {
        "adapter, stage1=given": "2",
        "adapter, stage1=–": "2",
    }


def test_starts_tell_runs_apart_unless_each_seed_has_its_own(
    pooled: Callable[..., dict[str, str]],
) -> None:
    assert pooled((1, "s-1", {}), (2, "s-2", {}), (3, "s-3", {})) == {"adapter": "3"}
    assert pooled((1, "x", {}), (2, "x", {}), (1, "y", {}), (2, "y", {})) == {
        "adapter, stage1=x": "2",
        "adapter, stage1=y": "2",
    }
    assert pooled((1, "x", {}), (1, "y", {}), (2, "z", {})) == {}


def test_a_seed_that_ran_twice_is_one_seed(
    pooled: Callable[..., dict[str, str]], examples: ModuleType, tmp_path: Path
) -> None:
    assert pooled((1, "x", {}), (1, "x", {}), (2, "x", {})) == {"adapter": "2"}
    found = [load_run(tmp_path / str(index)) for index in range(3)]
    row = tables(found)[-1].rows[0]
    first, second, other = (100 * run_scores(run)["macro_f1"].value for run in found)
    values = [(first + second) / 2, other]
    assert first != second
    assert float(row[6]) == pytest.approx(np.mean(values), abs=0.00501)
    assert float(row[7]) == pytest.approx(np.std(values, ddof=1), abs=0.00501)


def test_beyond_so_many_runs_only_the_best_of_a_stage_is_pictured(
    runs: list[StageRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = runs[0], runs[-1]
    assert run_scores(last)["macro_f1"].value > run_scores(first)["macro_f1"].value
    monkeypatch.setattr(page, "PICTURED", 1)
    document = compose([first, last], [])
    assert [chapter.title for chapter in document.chapters] == [
        "Comparison",
        "stage2: b128-2",
        "stage2: b64-1",
    ]
    assert [name for name in document.pictures if "frame" in name] == ["run-1-frame"]
    assert {"run-1-learning", "run-2-learning", "margins"} <= set(document.pictures)


def test_folders_of_equal_names_are_told_apart(stage_folder: Path) -> None:
    names = page.run_names([Path("/x/a/s2"), Path("/x/b/s2")])
    assert sorted(names.values()) == ["a/s2", "b/s2"]
    assert page.run_names([stage_folder]) == {stage_folder: "s2"}


def test_runs_of_several_datasets_name_them(
    runs: list[StageRun], examples: ModuleType, tmp_path: Path
) -> None:
    other = {"path": "/elsewhere/example", "manifest_sha256": "ef" * 32, "qindex": [80]}
    examples.write_stage_run(tmp_path / "other", epochs=2, dataset=other)
    both = [runs[0], load_run(tmp_path / "other")]
    chapter = comparison_chapter(both, [])
    assert "2 datasets (`example (abababab)`, `example (efefefef)`)" in str(chapter.sections[0])
    compared, data, *_ = tables(both)
    assert compared.columns[:2] == ("<Run", "<Dataset")
    assert [row[1] for row in compared.rows] == ["example (abababab)", "example (efefefef)"]
    assert data.columns == ("<Run", "<Dataset", "<qindex")
    assert data.rows[1] == ("other", "example (efefefef)", "80")
    assert "<Dataset" not in comparison_table(runs, "Runs").columns
    examples.write_stage_run(tmp_path / "alike", epochs=2, dataset={"manifest_sha256": "ef" * 32})
    assert len(tables([runs[0], load_run(tmp_path / "alike")])) == len(tables(both)) - 1


@pytest.mark.parametrize(
    ("dataset", "column", "value"),
    [
        ({"size": 32}, "<Block size", "32"),
        ({"taxonomy": "v6_1to4"}, "<Taxonomy", "v6_1to4"),
        ({"split": "random_blocks"}, "<Protocol", "random_blocks"),
        ({"split_sha256": "12" * 32}, "<Division", "12121212"),
        ({"costs_sha256": "34" * 32}, "<Costs", "34343434"),
    ],
)
def test_what_else_differs_in_the_data_is_shown(
    dataset: dict[str, Any],
    column: str,
    value: str,
    runs: list[StageRun],
    examples: ModuleType,
    tmp_path: Path,
) -> None:
    examples.write_stage_run(tmp_path / "other", epochs=2, dataset=dataset)
    data = tables([runs[0], load_run(tmp_path / "other")])[1]
    assert data.columns == ("<Run", column)
    assert data.rows[1] == ("other", value)
