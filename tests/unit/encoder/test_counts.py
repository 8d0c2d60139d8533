"""Counts and costs are read as the patched encoder writes them, and refused when damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from av1part.encoder.counts import (
    COSTS_DTYPE,
    COSTS_MAGIC,
    NOT_TRIED,
    costs_table,
    read_costs,
    read_counts,
)
from av1part.system.errors import HintsError

CALLS = [
    {"width": 16, "height": 4, "partition": 8, "calls": 3, "samples": 192},
    {"width": 64, "height": 64, "partition": 0, "calls": 2, "samples": 8192},
]


def test_work_is_the_sum_of_samples(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({"version": 1, "calls": CALLS}))
    counts = read_counts(path)
    assert counts.work == 8384
    assert counts.calls.to_dicts() == CALLS


def changed(**new: Any) -> str:
    return json.dumps({"version": 1, "calls": [CALLS[0] | new]})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not a file of counts"),
        ("[]", "is not a file of counts"),
        ("[" * 100_000, "is not a file of counts"),
        ('{"version": 1}', "is not a file of counts"),
        ('{"version": 2, "calls": []}', "another version than 1"),
        ('{"version": 1, "calls": [3]}', "not valid"),
        (changed(samples=191), "not valid"),
        (changed(calls=True), "not valid"),
        (changed(calls=10**30, samples=64 * 10**30), "not valid"),
        (changed(width=5, samples=60), "not valid"),
        (changed(partition=10), "not valid"),
        (changed(more=1), "not valid"),
    ],
)
def test_damaged_counts_are_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "counts.json"
    path.write_text(text)
    with pytest.raises(HintsError, match=reason) as caught:
        read_counts(path)
    assert "counts.json" in str(caught.value)


def test_missing_files_are_one_line(tmp_path: Path) -> None:
    for read in (read_counts, read_costs):
        with pytest.raises(HintsError, match=r"gone cannot be read"):
            read(tmp_path / "gone")


def a_record() -> np.ndarray[Any, Any]:
    record = np.zeros(1, COSTS_DTYPE)
    record["cost"] = NOT_TRIED
    record["cost"][0, [0, 3]] = 700, 650
    record[["frame", "mi_row", "mi_col", "size_log2", "depth"]] = (2, 4, 8, 4, 2)
    record[["above_log2", "left_log2", "chosen", "flags", "tried"]] = (0, 3, 3, 5, 0b1001)
    return record


def test_records_of_costs_become_rows(tmp_path: Path) -> None:
    path = tmp_path / "costs"
    path.write_bytes(COSTS_MAGIC + a_record().tobytes() * 2)
    assert path.stat().st_size == 8 + 2 * 96
    records = read_costs(path)
    assert len(records) == 2
    row = costs_table(records).row(1, named=True)
    where = {"frame": 2, "row": 16, "col": 32, "size": 16, "depth": 2, "above": 0, "left": 8}
    flags = {"chosen": 3, "found": True, "retried": False, "hinted": True, "tried": 9}
    costs: dict[str, Any] = {f"c{k}": None for k in range(10)} | {"c0": 700, "c3": 650}
    assert row == where | flags | costs


def put(name: str, value: int) -> Callable[[bytes], bytes]:
    record = a_record()
    record[name] = value
    return lambda _: COSTS_MAGIC + record.tobytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-1], "not a whole file"),
        (lambda data: data + b"\0", "not a whole file"),
        (lambda data: data[:5], "not a whole file"),
        (lambda data: b"A1PC\2" + data[5:], "not a whole file"),
        (put("size_log2", 8), "not valid"),
        (put("size_log2", 255), "not valid"),
        (put("mi_row", 5), "not valid"),
        (put("chosen", 10), "not valid"),
        (put("flags", 8), "not valid"),
        (put("tried", 1 << 10), "not valid"),
    ],
)
def test_damaged_costs_are_one_line(
    tmp_path: Path, change: Callable[[bytes], bytes], reason: str
) -> None:
    path = tmp_path / "costs"
    path.write_bytes(change(COSTS_MAGIC + a_record().tobytes()))
    with pytest.raises(HintsError, match=reason):
        read_costs(path)
