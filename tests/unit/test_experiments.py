"""What experiments/ claims follows from the files beside it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from av1part.intervals import bootstrap_difference
from av1part.metrics import from_predictions

ROOT = Path(__file__).resolve().parents[2] / "experiments"
MEMBERS = sorted(p.parent for p in ROOT.glob("*/*/metrics.json"))


@pytest.mark.parametrize("member", MEMBERS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_member_s_figures_follow_from_its_predictions(member: Path) -> None:
    metrics = json.loads((member / "metrics.json").read_text())
    table = pl.read_parquet(member / "predictions.parquet")
    scored = from_predictions(
        table["prediction"].to_numpy(), table["label"].to_numpy(), metrics["class_names"]
    )
    assert scored == {key: metrics[key] for key in scored}
    readme = (member.parent / "README.md").read_text()
    for key in ("macro_f1", "accuracy", "baselines.constant.macro_f1", "baselines.prior.macro_f1"):
        assert f"{100 * metrics[key]:.2f}" in readme, key
    low, high = (metrics[f"intervals.macro_f1.margin_prior.{k}"] for k in ("low", "high"))
    assert f"[{100 * low:+.2f}, {100 * high:+.2f}]" in readme


def test_the_difference_stated_for_exp11a() -> None:
    v1, frozen = (
        pl.read_parquet(ROOT / "exp11a" / m / "predictions.parquet") for m in ("v1", "frozen")
    )
    assert v1["node"].equals(frozen["node"])
    columns = (v1["prediction"], frozen["prediction"], v1["label"], v1["sequence"])
    found = bootstrap_difference(*(c.to_numpy() for c in columns), 3)
    readme = (ROOT / "exp11a" / "README.md").read_text()
    for name in ("macro_f1", "accuracy"):
        i = found[name]
        said = f"{100 * i.estimate:+.2f} [{100 * i.low:+.2f}, {100 * i.high:+.2f}]"
        assert said in readme
