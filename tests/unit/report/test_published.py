"""A sweep in the form that a repository keeps: it says what the runs say, and cannot say more."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from av1part.errors import ReportError
from av1part.report import publish_sweep, write_report
from av1part.report.published import config_sha256
from av1part.report.sweep import load_sweep
from av1part.report.sweep_chapter import sweep_tables
from av1part.report.tables import to_csv

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def sweep(examples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps") / "exp"
    jobs = []
    for variant, skill in {"frozen": 0.8, "adapter": 1.6}.items():
        for seed in SEEDS:
            place = f"{variant}/seed-{seed}"
            config = {"data.path": "/home/someone/data", "adapter.bottleneck": 64}
            examples.write_stage_run(folder / place, seed=seed, skill=skill, config=config)
            jobs.append({"folder": place, "variant": variant, "member": f"seed-{seed}"})
    record = {"format": 1, "experiment": "exp", "baseline": "frozen", "jobs": jobs}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def published(sweep: Path, tmp_path: Path) -> Path:
    publish_sweep([sweep], tmp_path / "kept")
    return tmp_path / "kept"


def told(folder: Path) -> dict[str, str]:
    return {name: to_csv(table) for name, table in sweep_tables(load_sweep(folder)).items()}


def test_every_table_is_that_of_the_runs(sweep: Path, published: Path) -> None:
    assert told(published) == told(sweep)
    assert {"comparison", "criteria", "pictures", "course", "classes", "cost"} <= set(told(sweep))


def test_without_predictions_what_counts_say_is_left(sweep: Path, published: Path) -> None:
    publish_sweep([sweep], published, predictions=False)
    assert not (published / "predictions.parquet").exists()
    all_of_it = told(sweep)
    assert told(published) == {k: v for k, v in all_of_it.items() if k != "qindex"}


def test_a_page_is_made_of_it(published: Path, tmp_path: Path) -> None:
    files = write_report([published], tmp_path / "page")
    assert "Two variants side by side" in files.html.read_text()


def test_each_line_says_what_made_it_and_no_place_of_the_machine(published: Path) -> None:
    lines = [json.loads(line) for line in (published / "runs.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    for line in lines:
        assert re.fullmatch(r"[0-9a-f]{64}", line["config_sha256"])
        assert line["dataset_sha256"] == line["environment"]["dataset"]["manifest_sha256"]
        assert line["git_commit"] == line["environment"]["git_commit"]
    assert len({line["config_sha256"] for line in lines}) == len({str(x["config"]) for x in lines})
    text = (published / "runs.jsonl").read_text()
    assert "/home/" not in text
    assert str(published.parent.parent) not in text


def test_the_hash_of_a_configuration_is_of_what_matters() -> None:
    one = {"seed": 1, "name": "a", "data": {"path": "/x", "size": 16}}
    assert config_sha256(one) == config_sha256(
        {"data": {"size": 16, "path": "/y"}, "seed": 1, "name": "b"}
    )
    assert config_sha256(one) != config_sha256({**one, "seed": 2})


def change_a_prediction(folder: Path) -> None:
    table = pl.read_parquet(folder / "predictions.parquet")
    other = pl.when(pl.int_range(pl.len()) == 0).then(1 - pl.col("prediction").clip(0, 1))
    table.with_columns(
        other.otherwise("prediction").cast(pl.Int8).alias("prediction")
    ).write_parquet(folder / "predictions.parquet")


def change_a_score(folder: Path) -> None:
    text = (folder / "runs.jsonl").read_text()
    (folder / "runs.jsonl").write_text(
        re.sub(r'"macro_f1": 0\.\d', '"macro_f1": 0.9', text, count=1)
    )


def leave_out_predictions_of_a_run(folder: Path) -> None:
    table = pl.read_parquet(folder / "predictions.parquet").cast({"folder": pl.String})
    table.filter(pl.col("folder") != "frozen/seed-1").write_parquet(folder / "predictions.parquet")


def cut_a_line(folder: Path) -> None:
    file = folder / "runs.jsonl"
    file.write_text(file.read_text()[:-100])


def spoil_predictions(folder: Path) -> None:
    (folder / "predictions.parquet").write_bytes(b"nothing")


@pytest.mark.parametrize(
    "damage",
    [
        change_a_prediction,
        change_a_score,
        leave_out_predictions_of_a_run,
        cut_a_line,
        spoil_predictions,
    ],
)
def test_what_does_not_fit_is_refused(published: Path, damage: Callable[[Path], None]) -> None:
    damage(published)
    with pytest.raises(ReportError, match=re.escape(str(published))):
        load_sweep(published)


def test_only_a_sweep_is_published(sweep: Path, published: Path, tmp_path: Path) -> None:
    for folders in ([sweep, sweep], [sweep / "frozen/seed-0"], [published]):
        with pytest.raises(ReportError, match="publish"):
            publish_sweep(folders, tmp_path / "other")
    assert not (tmp_path / "other").exists()
