"""tools/near_ties.py with the real encoder: its nodes are those of the stream."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from av1part.data.build.libaom import Children, encoder_arguments
from av1part.encoder.patched import find_patched, run_encode
from av1part.encoder.ties import stream_nodes
from av1part.evaluation.attach import DataSource
from av1part.partition import SIZES
from av1part.predictors.bundle import write_bundle
from av1part.predictors.fit import fit_bundle
from av1part.runs.ties import read_ties

from ..encoding import corner, trees, write_clip

TOOL = Path(__file__).parents[2] / "tools" / "near_ties.py"

pytestmark = pytest.mark.patched


@pytest.mark.parametrize("shape", [(128, 128), (140, 90)])
def test_the_nodes_are_those_of_the_stream(shape: tuple[int, int], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.y4m", [corner("coffee", *shape)])
    arguments = encoder_arguments(20, bit_depth=8, cpu_used=2, one_to_four=True)
    done = run_encode(find_patched().path, clip, arguments, Children(), costs=True)
    assert done.costs is not None
    found = {
        (1 << int(r["size_log2"]), int(r["mi_row"]) * 4, int(r["mi_col"]) * 4): int(r["chosen"])
        for r in stream_nodes(done.costs)
    }
    (levels,) = trees(done.stream)
    nodes = 0
    for size, rows, cols, types in levels:
        for row, col, type_ in zip(rows.tolist(), cols.tolist(), types.tolist(), strict=True):
            if size in SIZES and row + size <= shape[0] and col + size <= shape[1]:
                nodes += 1
                assert found.pop((size, row, col)) == type_
    assert nodes > 60
    assert not [
        place
        for place in found
        if place[0] in SIZES and place[1] + place[0] <= shape[0] and place[2] + place[0] <= shape[1]
    ]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TOOL, *map(str, words)], capture_output=True, text=True, check=False
    )


def test_a_row_a_band_with_the_answers_of_a_predictor(tmp_path: Path) -> None:
    for name in ("coffee", "chelsea"):
        Image.fromarray(corner(name, 96, 96)).save(tmp_path / f"{name}.png")
    pictures = [tmp_path / "coffee.png", tmp_path / "chelsea.png"]
    prior = write_bundle(tmp_path / "prior.av1part", fit_bundle("prior", DataSource()))
    out = tmp_path / "ties.csv"
    words = ["--out", out, "--cpu-used", 4, "--cq-levels", 20, 43, "--predictor", f"prior={prior}"]
    done = run(*pictures, *words)
    assert done.returncode == 0, done.stderr
    rows = read_ties(out)
    assert rows["picture"].unique().sort().to_list() == ["chelsea", "coffee"]
    assert rows["qindex"].unique().sort().to_list() == [80, 172]
    # A corner of 96x96 has one whole node of 64x64.
    assert (
        rows.filter(size=64).group_by("picture", "qindex").agg(pl.sum("nodes"))["nodes"].to_list()
        == [1] * 4
    )
    assert 0 < rows["right_prior"].sum() < rows["nodes"].sum()
    assert (rows["right_prior"] <= rows["nodes"]).all()
    again = run(*pictures, *words)
    assert again.returncode == 2
    assert f"{out} exists" in again.stderr


def test_bad_words_are_one_line(small_store: Path, tmp_path: Path) -> None:
    Image.fromarray(corner("coffee", 96, 96)).save(tmp_path / "coffee.png")
    small = fit_bundle("prior", DataSource(str(small_store)))
    of_16 = write_bundle(tmp_path / "p.av1part", small)
    for word, reason in (("net", "give NAME=FILE"), (f"p={of_16}", "p predicts nodes of 16 alone")):
        done = run(tmp_path / "coffee.png", "--out", tmp_path / "t.csv", "--predictor", word)
        assert done.returncode == 2
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "t.csv").exists()
