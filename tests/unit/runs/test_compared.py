"""The folder of `av1part compare`: scores by hand, and each kind of damage in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from av1part.metrics.statistics import holm
from av1part.runs.compared import PICTURES_FILE, SCORES_FILE, is_compared, read_compared
from av1part.runs.compared_scores import PICTURE_SCHEMA
from av1part.system.errors import ReportError


@pytest.fixture(scope="module")
def made(compared_examples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(compared_examples.write_compared_example(tmp_path_factory.mktemp("c") / "compared"))


def test_scores_are_of_all_pictures_and_differences_paired(made: Path) -> None:
    compared = read_compared(made)
    assert is_compared(made)
    assert compared.predictors == ("net", "trees", "prior")
    assert compared.against == "net"
    own = compared.table.filter(size=16, predictor="net")
    record = compared.record.child("sizes", "16", "predictors", "net")
    assert record.number("scores", "log_loss", "estimate") == pytest.approx(
        own["log_loss"].sum() / own["nodes"].sum()
    )
    hits = np.trace(np.sum([np.reshape(m, (10, 10)) for m in own["confusion"].to_list()], 0))
    assert record.number("scores", "accuracy", "estimate") == hits / own["nodes"].sum()
    assert record.get("difference") is None
    other = compared.record.child("sizes", "16", "predictors", "trees")
    assert other.number("difference", "log_loss", "estimate") == pytest.approx(
        other.number("scores", "log_loss", "estimate")
        - record.number("scores", "log_loss", "estimate")
    )
    tests = [
        compared.record.child("sizes", "16", "predictors", name, "difference", "log_loss")
        for name in ("trees", "prior")
    ]
    p = [test.number("p") for test in tests]
    assert [test.number("p_holm") for test in tests] == pytest.approx(holm(p))
    by_qindex = record.children("by_qindex")
    assert sum(q.integer("nodes") for q in by_qindex.values()) == own["nodes"].sum()
    # Stage 2 counts the nodes of its classes.
    stage2 = compared.record.child("stage2")
    matrix = np.array(stage2.get("predictors", "net", "argmax", "confusion_matrix"))
    assert matrix.sum() == stage2.integer("nodes")
    assert matrix.sum(1).tolist() == list(stage2.child("classes").data.values())


def test_nothing_but_numbers_is_in_the_table(made: Path) -> None:
    table = pl.read_parquet(made / PICTURES_FILE)
    assert dict(table.schema) == dict(PICTURE_SCHEMA)


def change(key: str, value: object) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        record = json.loads((folder / SCORES_FILE).read_text())
        at = record
        *parts, last = key.split("/")
        for part in parts:
            at = at[part]
        at[last] = value
        (folder / SCORES_FILE).write_text(json.dumps(record))

    return act


def no_sums(folder: Path) -> None:
    table = pl.read_parquet(folder / PICTURES_FILE)
    short = table.with_columns(ranks=pl.lit([1], pl.List(pl.Int64)))
    short.write_parquet(folder / PICTURES_FILE)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda f: (f / PICTURES_FILE).unlink(), "pictures.parquet is missing"),
        (lambda f: (f / PICTURES_FILE).write_bytes(b"x" * 99), "pictures.parquet cannot be read"),
        (
            lambda f: pl.DataFrame({"a": [1]}).write_parquet(f / PICTURES_FILE),
            "does not have the columns",
        ),
        (no_sums, "pictures.parquet holds no sums"),
        (lambda f: (f / SCORES_FILE).write_text("{"), "scores.json is not readable JSON"),
        (change("format", 2), "has format 2"),
        (change("against", "nobody"), "contradict"),
        (
            change("sizes/16/predictors/net/scores/log_loss/estimate", 1.0),
            r"contradict each other \(sizes.16.predictors.net.scores.log_loss.estimate\)",
        ),
        (
            change("sizes/64/predictors/net/reliability/confidence", [None] * 14),
            r"contradict each other \(sizes.64.predictors.net.reliability.confidence\)",
        ),
        (change("stage2/nodes", 1), r"contradict each other \(stage2.nodes\)"),
    ],
)
def test_damage_is_one_line(
    made: Path, copy: Callable[[Path], Path], damage: Callable[[Path], None], error: str
) -> None:
    folder = copy(made)
    damage(folder)
    with pytest.raises(ReportError, match=error):
        read_compared(folder)
