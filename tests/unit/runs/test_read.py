from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from av1part.report.page import run_names, write_report
from av1part.runs.read import PipelineRun, StageRun, find_runs, load_run
from av1part.runs.schema import HISTORY_COLUMNS
from av1part.runs.tables import by_epoch, check_history
from av1part.system.errors import ReportError

Copy = Callable[[Path], Path]
Damage = Callable[[Path], None]


def test_stage_run_is_read_as_it_was_written(stage_folder: Path) -> None:
    run = load_run(stage_folder)
    assert isinstance(run, StageRun)
    assert (run.name, run.stage) == ("s2", "stage2")
    assert run.class_names == ("SPLIT", "RECT", "AB")
    table = pl.read_parquet(stage_folder / "predictions.parquet")
    assert run.confusion.sum() == len(run.predictions.label) == table.height
    np.testing.assert_array_equal(run.predictions.label, table["label"])
    assert run.predictions.sequences == table["sequence"].n_unique() == 4
    assert run.history.height == 6
    assert set(run.verified) == {"best", "last"}
    assert run.settings["seed"] == 42


def test_pipeline_ids_become_class_indices(pipeline_folder: Path) -> None:
    run = load_run(pipeline_folder)
    assert isinstance(run, PipelineRun)
    assert run.class_names[3] == "SPLIT"
    table = pl.read_parquet(pipeline_folder / "predictions.parquet")
    np.testing.assert_array_equal(run.predictions.label, table["partition"])
    assert run.predictions.probability.shape == (table.height, 8)


def test_rows_of_nodes_are_found_in_any_order(stage_folder: Path) -> None:
    predictions = load_run(stage_folder).predictions
    shuffled = np.random.default_rng(0).permutation(len(predictions.node))
    mixed = replace(predictions, node=predictions.node[shuffled])
    asked = np.array([*predictions.node[[5, 0, -1]], predictions.node.max() + 1, -1])
    rows = mixed.rows_of(asked)
    assert (mixed.node[rows[:3]] == asked[:3]).all()
    assert rows[3:].tolist() == [-1, -1]


def truncate(name: str) -> Damage:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def edit_json(name: str, key: str, value: Any) -> Damage:
    def damage(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        here = data
        *path, last = key.split(".")
        for part in path:
            here = here[part]
        if value is None:
            del here[last]
        else:
            here[last] = value
        (folder / name).write_text(json.dumps(data))

    return damage


def edit_predictions(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / "predictions.parquet"
        change(pl.read_parquet(file)).write_parquet(file)

    return damage


def edit_text(name: str, old: str, new: str) -> Damage:
    def damage(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return damage


def edit_samples(**changed: Any) -> Damage:
    return edit_samples_with(lambda _: changed)


def edit_samples_with(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Damage:
    """Replace arrays by what a function makes of all, and drop those that it makes None."""

    def damage(folder: Path) -> None:
        file = folder / "samples.npz"
        with np.load(file) as archive:
            data = dict(archive)
        data |= change(data)
        np.savez(file, **{key: value for key, value in data.items() if value is not None})

    return damage


BROKEN: dict[str, tuple[Damage, str]] = {
    "metrics truncated": (truncate("metrics.json"), "metrics.json is not readable JSON"),
    "metrics without accuracy": (edit_json("metrics.json", "accuracy", None), "`accuracy`"),
    "accuracy not a number": (edit_json("metrics.json", "accuracy", "high"), "`accuracy`"),
    "accuracy of another model": (edit_json("metrics.json", "accuracy", 0.99), "says accuracy"),
    "macro-F1 of another model": (edit_json("metrics.json", "macro_f1", 0.99), "says macro_f1"),
    "ragged matrix": (
        edit_json("metrics.json", "confusion_matrix", [None, [1]]),
        "metrics.json does not have the counts",
    ),
    "no constant guesser": (
        edit_json("metrics.json", "baselines.constant.macro_f1", None),
        "`baselines.constant.macro_f1`",
    ),
    "no prior guesser": (
        edit_json("metrics.json", "baselines.prior.accuracy", None),
        "`baselines.prior.accuracy`",
    ),
    "no history": (remove("history.csv"), "history.csv is missing"),
    "history is text": (edit_text("history.csv", "\n0,", "\nnought,"), "history.csv holds text"),
    "history lacks a column": (edit_text("history.csv", "val_loss", "loss"), "lacks val_loss"),
    "confusion of other classes": (edit_text("confusion.csv", "RECT", "REST"), "confusion.csv"),
    "confusion is text": (edit_text("confusion.csv", "SPLIT,", "SPLIT,x"), "confusion.csv"),
    "another confusion": (
        lambda f: (f / "confusion.csv").write_text(
            "true,SPLIT,RECT,AB\nSPLIT,1,2,3\nRECT,1,2,3\nAB,1,2,3\n"
        ),
        "confusion.csv does not have the counts",
    ),
    "no predictions": (remove("predictions.parquet"), "predictions.parquet is missing"),
    "predictions truncated": (truncate("predictions.parquet"), "predictions.parquet is not"),
    "predictions without p.AB": (
        edit_predictions(lambda t: t.drop("p.AB")),
        "predictions.parquet lacks column p.AB",
    ),
    "a class that is none": (
        edit_predictions(lambda t: t.with_columns(prediction=pl.lit(7))),
        "predictions.parquet has a class",
    ),
    "no probabilities": (
        edit_predictions(lambda t: t.with_columns(pl.lit(0.9).alias("p.AB"))),
        "do not sum to 1",
    ),
    "a row less": (edit_predictions(lambda t: t.head(-1)), "does not have the counts"),
    "samples truncated": (truncate("samples.npz"), "samples.npz is not a readable"),
    "samples lack the frame": (edit_samples(frame=None), "samples.npz lacks `frame`"),
    "samples are floats": (edit_samples(frame=np.zeros((96, 128))), "samples.npz holds arrays"),
    "a node outside": (
        edit_samples(frame=np.zeros((32, 32), dtype=np.uint8)),
        "samples.npz has a node outside",
    ),
    "a node of the frame that was not predicted": (
        edit_samples_with(lambda s: {"frame_node": s["frame_node"] + 10_000}),
        "samples.npz has a node that predictions.parquet beside it lacks",
    ),
    "a node of the frame of another class": (
        edit_samples_with(lambda s: {"frame_prediction": (s["frame_prediction"] + 1) % 3}),
        "or has with other classes",
    ),
    "numbers of nodes are text": (
        edit_samples_with(lambda s: {"frame_node": s["frame_node"].astype(str)}),
        "samples.npz holds arrays",
    ),
    "a number too few": (
        edit_samples_with(lambda s: {"frame_node": s["frame_node"][1:]}),
        "samples.npz holds arrays",
    ),
    "no environment": (remove("environment.json"), "environment.json is missing"),
    "no configuration": (remove("config.yaml"), "config.yaml is missing"),
    "record damaged": (truncate("checkpoints/best.verified.json"), "best.verified.json"),
}


@pytest.mark.parametrize(("damage", "expected"), BROKEN.values(), ids=BROKEN)
def test_damage_is_one_line_that_names_the_file(
    stage_folder: Path, copy: Copy, tmp_path: Path, damage: Damage, expected: str
) -> None:
    folder = copy(stage_folder)
    damage(folder)
    with pytest.raises(ReportError) as error:
        write_report([folder], tmp_path / "out")
    message = str(error.value)
    assert expected in message
    assert "\n" not in message
    assert str(folder) in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "key", ["overall", "baselines", "stages", "oracles", "flat", "per_qindex", "threshold"]
)
def test_pipeline_without_a_part_is_one_line(
    pipeline_folder: Path, copy: Copy, tmp_path: Path, key: str
) -> None:
    folder = copy(pipeline_folder)
    edit_json("pipeline.json", key, None)(folder)
    if key == "overall":  # metrics.json holds the same and is what is read
        write_report([folder], tmp_path / "out")
        return
    with pytest.raises(ReportError, match=rf"pipeline\.json lacks `{key}") as error:
        write_report([folder], tmp_path / "out")
    assert "\n" not in str(error.value)


def test_runs_are_found_at_any_depth_once_and_hidden_ones_not(
    stage_folder: Path, pipeline_folder: Path, copy: Copy, tmp_path: Path
) -> None:
    copy(stage_folder).rename(tmp_path / "a")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    copy(pipeline_folder).rename(tmp_path / "deep" / "er" / "b")
    copy(stage_folder).rename(tmp_path / ".hidden")
    copy(stage_folder).rename(tmp_path / "c.partial")
    found = find_runs([tmp_path, tmp_path / "a"])
    assert found.runs == (tmp_path / "a", tmp_path / "deep" / "er" / "b")
    assert run_names(found.runs) == {tmp_path / "a": "a", tmp_path / "deep/er/b": "deep/er/b"}


def test_unfinished_runs_are_told_not_dropped(
    stage_folder: Path, copy: Copy, tmp_path: Path
) -> None:
    copy(stage_folder).rename(tmp_path / "done")
    begun = copy(stage_folder)
    (begun / "metrics.json").unlink()
    assert find_runs([tmp_path]).unfinished == (begun,)
    page = write_report([tmp_path], tmp_path / "out").markdown.read_text()
    assert "Begun but not finished, so without a result: `s2`." in page
    with pytest.raises(ReportError, match="is unfinished"):
        find_runs([begun])


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="holds no run"):
        find_runs([tmp_path])
    with pytest.raises(ReportError, match="is not a folder"):
        find_runs([tmp_path / "nowhere"])


def test_a_column_of_history_by_epoch() -> None:
    """The last row of an epoch counts; one without a row has the value that was known then."""
    rows = {"epoch": [1, 1, 3], "macro_f1": [0.1, 0.2, 0.3]}
    history = check_history(Path("history.csv"), pl.DataFrame(_with_columns(rows)))
    assert by_epoch(history, "macro_f1").tolist() == [0.2, 0.2, 0.2, 0.3]
    for epochs in ([1, 0, 3], [0, 0.5, 1], [-1, 0, 1], [0, 1, float("nan")], [0, 1, 1e12]):
        damaged = pl.DataFrame(_with_columns({**rows, "epoch": epochs}), strict=False)
        with pytest.raises(ReportError, match="do not ascend"):
            check_history(Path("history.csv"), damaged)


def _with_columns(rows: dict[str, list[float]]) -> dict[str, list[float]]:
    return {**{name: [0.0] * 3 for name in HISTORY_COLUMNS}, **rows}
