"""A sweep in the form that a repository keeps: it says what the runs say, and cannot say more."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import f1_score

from av1part.report import publish_sweep, write_report
from av1part.report.chapters.sweep import sweep_tables
from av1part.report.render.csv import table_csv
from av1part.report.sweep import load_sweep
from av1part.runs.sweeps import config_sha256
from av1part.system.errors import ReportError

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def sweep(examples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps") / "exp"
    jobs = []
    for variant, skill in {"frozen": 0.8, "adapter": 1.6}.items():
        for seed in SEEDS:
            place = f"{variant}/seed-{seed}"
            config = {"data.path": "/home/someone/data", "adapter.bottleneck": 64 + seed}
            config |= {"cache.folder": "~/private/cache", "stage1": "../../home/x/best.ckpt"}
            examples.write_stage_run(folder / place, seed=seed, skill=skill, config=config)
            words = ["data.path='/home/someone/data'", f"seed={seed}"]
            jobs.append(
                {"folder": place, "variant": variant, "member": f"seed-{seed}", "words": words}
            )
    record = {"format": 1, "experiment": "exp", "baseline": "frozen", "jobs": jobs}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def published(sweep: Path, tmp_path: Path) -> Path:
    publish_sweep([sweep], tmp_path / "kept")
    return tmp_path / "kept"


def told(folder: Path) -> dict[str, str]:
    return {name: table_csv(table) for name, table in sweep_tables(load_sweep(folder)).items()}


def test_every_table_is_that_of_the_runs(sweep: Path, published: Path) -> None:
    assert told(published) == told(sweep)
    expected = {"comparison", "criteria", "pictures", "course", "classes", "cost"}
    assert expected | {"pictures-seeds", "fewer"} <= set(told(sweep))


def test_fewer_pictures_find_less(sweep: Path) -> None:
    (row,) = csv.DictReader(told(sweep)["pictures-seeds"].splitlines())
    (fewer,) = csv.DictReader(told(sweep)["fewer"].splitlines())
    assert fewer["As it is"] == row["Detectable"]
    assert (fewer["Pictures"], fewer["Seeds"]) == (row["Pictures"], row["Seeds"])
    half, quarter = float(fewer["Half the pictures"]), float(fewer["A quarter of them"])
    assert float(fewer["As it is"]) <= half <= quarter
    if int(fewer["Pictures"]) >= 8:
        assert half < quarter
    assert float(fewer["Twice the seeds"]) < float(fewer["Two seeds"])


def test_the_difference_over_pictures_and_seeds_is_that_of_the_predictions(sweep: Path) -> None:
    """Pseudo-values by scikit-learn's macro-F1, from the files of the runs."""
    (row,) = csv.DictReader(told(sweep)["pictures-seeds"].splitlines())
    values = []
    for seed in SEEDS:
        runs = [
            pl.read_parquet(sweep / variant / f"seed-{seed}" / "predictions.parquet")
            for variant in ("adapter", "frozen")
        ]
        pictures = sorted(runs[0]["sequence"].unique())
        whole, *without = (
            np.subtract(*(f1_score(r["label"], r["prediction"], average="macro") for r in kept))
            for kept in (
                [r.filter(pl.col("sequence") != picture) for r in runs]
                for picture in ["", *pictures]
            )
        )
        g = len(pictures)
        values.append([g * whole - (g - 1) * each for each in without])
    assert (row["Seeds"], row["Pictures"]) == ("3", "4")
    assert float(row["Difference"]) == pytest.approx(100 * np.mean(values), abs=0.0051)
    over_pictures = np.mean(values, axis=0)
    assert float(row["s.d. rest"]) == pytest.approx(
        100
        * np.std(
            np.array(values)
            - over_pictures
            - np.mean(values, axis=1, keepdims=True)
            + np.mean(values)
        )
        * (12 / 6) ** 0.5,
        abs=0.0051,
    )


def test_members_of_other_pictures_are_not_compared_over_pictures(
    sweep: Path, tmp_path: Path
) -> None:
    shutil.copytree(sweep, tmp_path / "exp")
    sample = tmp_path / "exp" / "adapter" / "seed-0" / "predictions.parquet"
    renamed = pl.col("sequence").str.replace("picture0", "another")
    pl.read_parquet(sample).with_columns(renamed).write_parquet(sample)
    assert "pictures-seeds" not in told(tmp_path / "exp")


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
    for file in (published / "runs.jsonl", published / "sweep.json"):
        assert not re.search(r"/home|~/|\.\./|someone", file.read_text()), file


def test_the_hash_of_a_configuration_is_of_what_matters(tmp_path: Path) -> None:
    one = {"seed": 1, "name": "a", "data": {"path": "/x", "size": 16}}
    alone = config_sha256(tmp_path, one)
    assert alone == config_sha256(
        tmp_path, {"data": {"size": 16, "path": "/y"}, "seed": 1, "name": "b"}
    )
    assert alone != config_sha256(tmp_path, {**one, "seed": 2})
    # Of a job its inputs count as well, such as the list of a fold's pictures.
    record = {"settings": {"seed": 1}, "inputs": {"data.split_list": "a"}, "code": "c"}
    (tmp_path / "job.json").write_text(json.dumps(record))
    first = config_sha256(tmp_path, one)
    (tmp_path / "job.json").write_text(
        json.dumps({**record, "inputs": {"data.split_list": "b"}, "error": None})
    )
    assert config_sha256(tmp_path, one) != first


def change_line(folder: Path, change: Callable[[dict], object]) -> None:
    file = folder / "runs.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines[0])
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def take_the_matrix(folder: Path) -> None:
    change_line(folder, lambda line: line["metrics"].pop("confusion_matrix"))


def spoil_the_matrix(folder: Path) -> None:
    change_line(folder, lambda line: line["metrics"]["confusion_matrix"][0].pop())


def take_the_scores_of_epochs(folder: Path) -> None:
    change_line(folder, lambda line: line["history"].pop("macro_f1"))


def take_the_record_of_reloading(folder: Path) -> None:
    change_line(folder, lambda line: line["verified"].clear())


def tell_a_run_twice(folder: Path) -> None:
    file = folder / "runs.jsonl"
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")


def write_no_text(folder: Path) -> None:
    (folder / "runs.jsonl").write_bytes(b"\xff\xfe\x00")


def name_a_class_that_is_none(folder: Path) -> None:
    table = pl.read_parquet(folder / "predictions.parquet")
    table.with_columns(pl.lit(9, pl.Int8).alias("label")).write_parquet(
        folder / "predictions.parquet"
    )


def take_a_column(folder: Path) -> None:
    table = pl.read_parquet(folder / "predictions.parquet")
    table.drop("node").write_parquet(folder / "predictions.parquet")


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
        take_the_matrix,
        spoil_the_matrix,
        take_the_scores_of_epochs,
        take_the_record_of_reloading,
        tell_a_run_twice,
        write_no_text,
        name_a_class_that_is_none,
        take_a_column,
    ],
)
def test_what_does_not_fit_is_refused(published: Path, damage: Callable[[Path], None]) -> None:
    damage(published)
    with pytest.raises(ReportError, match=re.escape(str(published))):
        load_sweep(published)


def test_only_a_sweep_is_published(sweep: Path, published: Path, tmp_path: Path) -> None:
    for folders in ([sweep, sweep], [sweep / "frozen/seed-0"], [published], [tmp_path / "no"]):
        with pytest.raises(ReportError, match="publish"):
            publish_sweep(folders, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_sweep_is_not_published_into_itself(sweep: Path) -> None:
    with pytest.raises(ReportError, match="lies in the sweep itself"):
        publish_sweep([sweep], sweep / "kept")


def test_what_is_no_longer_there_goes(sweep: Path, published: Path) -> None:
    (published / "test.json").write_text("{}")
    publish_sweep([sweep], published)
    assert not (published / "test.json").exists()
