"""`av1part encode`, as a user gives its words: its rows, its refusals, and what a kill leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from av1part.data.build.libaom import Children, encode, find_aomenc, programs_folder
from av1part.data.build.yuv import write_y4m_frame, y4m_header
from av1part.encoder.points import read_points
from av1part.encoder.quality import measure
from av1part.runs.encodes import PLAN_FILE, ROWS_FILE, read_encodes

from ..encoding import corner, write_clip
from .conftest import Command, Ran

pytestmark = pytest.mark.patched

PLAN = """\
points:
  fast: {cpu_used: 5}
  faster: {cpu_used: 6}
  no_1to4: {cpu_used: 5, one_to_four: false}
  none_or_split: {cpu_used: 5, types: [NONE, SPLIT], keep: false}
  variance: {cpu_used: 5, predictor: variance, tau: 0.8}
  model: {cpu_used: 5, predictor: model, tau: 0.7, repeats: 2}
  model_wide: {cpu_used: 5, predictor: model, tau: 0.95}
  random: {cpu_used: 5, predictor: random, like: model}
  oracle: {cpu_used: 5, predictor: oracle}
anchors: [fast]
"""


@pytest.fixture
def begin(av1part: Command, small_store: Path, tmp_path: Path) -> Callable[..., Ran]:
    """Encode a clip of two small frames by the plan above, with a class prior as the model."""
    (tmp_path / "conf" / "plan").mkdir(parents=True)
    (tmp_path / "conf" / "plan" / "mine.yaml").write_text(PLAN)
    frames = [corner("coffee", 72, 96), corner("chelsea", 72, 96)]
    write_clip(tmp_path / "clip.y4m", frames)
    made = av1part("bundle", "kind=prior", f"data.path={small_store}", "out=prior.av1part")
    assert made.code == 0, made.err
    common = (
        "plan=mine",
        "--config-dir",
        "conf",
        "model=prior.av1part",
        f"data.path={small_store}",
    )

    def run(*words: str, sources: tuple[str, ...] = ("clip.y4m",)) -> Ran:
        return av1part("encode", *sources, *common, *words)

    return run


def rows_of(folder: Path) -> pl.DataFrame:
    return read_encodes(folder).rows.sort("clip", "cq_level", "point", "repeat")


def without_times(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.drop("seconds", "inference_seconds", "jobs")


def test_a_row_an_encode(begin: Callable[..., Ran], tmp_path: Path) -> None:
    ran = begin("out=out")
    assert ran.code == 0, ran.err
    assert "report.html" in ran.out
    encodes = read_encodes(tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == encodes.planned == 4 * 10
    assert not (tmp_path / "out" / "work").exists()
    kinds = {name: point.kind for name, point in encodes.points.items()}
    assert kinds == {
        **{"fast": "preset", "faster": "preset", "no_1to4": "switch", "oracle": "oracle"},
        **dict.fromkeys(("none_or_split", "variance", "random"), "baseline"),
        **dict.fromkeys(("model", "model_wide"), "baseline"),  # a prior is no training
    }
    assert (rows["jobs"] == 1).all()
    assert set(rows["qindex"]) == {80, 128, 172, 220}
    once = rows.filter(pl.col("repeat") == 0)
    work = dict(once.group_by("point").agg(pl.col("work").sum()).iter_rows())
    assert work["oracle"] < work["model"] < work["model_wide"] <= work["fast"]
    assert work["no_1to4"] < work["fast"]
    hinted = rows.filter(pl.col("point").is_in(["variance", "model", "random", "oracle"]))
    assert (hinted["inference_seconds"] > 0).all()
    assert (rows.filter(pl.col("point") == "fast")["inference_seconds"] == 0).all()
    twice = rows.filter(pl.col("point") == "model").group_by("cq_level").agg(pl.all())
    assert all(len(set(sizes)) == 1 for sizes in twice["bytes"].to_list())

    # The stock encoder makes the same stream, with these arguments.
    row = rows.filter((pl.col("point") == "fast") & (pl.col("cq_level") == 43)).row(0, named=True)
    ivf = tmp_path / "stock.ivf"
    arguments = read_points({"fast": {"cpu_used": 5}})["fast"].encoder_arguments(43, 8, ctc=False)
    encode(find_aomenc().path, tmp_path / "clip.y4m", ivf, arguments, Children())
    assert row["bytes"] == ivf.stat().st_size - 32 - 2 * 12
    quality = measure(tmp_path / "clip.y4m", ivf)
    assert (row["psnr_y"], row["ssim"]) == (quality.psnr_y, quality.ssim)


def test_two_at_a_time_and_started_again(begin: Callable[..., Ran], tmp_path: Path) -> None:
    """Rows that are there are kept, a line that a kill left unfinished is made again."""
    assert begin("out=one").code == 0
    assert begin("out=two", "jobs=2").code == 0
    assert without_times(rows_of(tmp_path / "two")).equals(without_times(rows_of(tmp_path / "one")))
    file = tmp_path / "one" / ROWS_FILE
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:13]) + lines[13][:40])
    (tmp_path / "one" / "work").mkdir()
    again = begin("out=one")
    assert again.code == 0, again.err
    assert file.read_text().splitlines(keepends=True)[:13] == lines[:13]
    assert without_times(rows_of(tmp_path / "one")).equals(without_times(rows_of(tmp_path / "two")))
    assert not (tmp_path / "one" / "work").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["cq_levels=[20,32,43]"], "at least four"),
        (["cq_levels=[20,32,43,43]"], "each once"),
        (["plan=presets"], "no point with predictor=model: leave out model="),
        (["model=null"], "give model=pretrained or model=BUNDLE"),
        (["jobs=0"], "jobs=0"),
        (["frames=0"], "frames=0"),
        (["screen=[ui_*]"], "screen has ui_*: no clip"),
        (["+plan.speed=1"], "plan has keys"),
        (["+plan.points.x={cpu_used: 1, tau: 0.5}"], "plan.points.x has a policy"),
        (["plan.anchors=[model]"], "an anchor has no hints"),
        (["model=missing.av1part"], "missing.av1part"),
        (["-m"], "leave out -m"),
        (["+plan.points.model.sizes=[8]"], "has no size 8, only 16"),
        (["+plan.points.fast.arguments=['--min-q=3']"], "--min-q=3, which"),
    ],
)
def test_words_that_are_not_valid(
    begin: Callable[..., Ran], tmp_path: Path, words: list[str], error: str
) -> None:
    ran = begin("out=out", *words)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert error in ran.err
    assert not (tmp_path / "out").exists()


def write_yuv(path: Path, width: int, height: int) -> None:
    planes = np.full((height, width), 128, np.uint8)
    with path.open("wb") as file:
        file.write(y4m_header(width, height, 8))
        chroma = planes[: (height + 1) // 2, : (width + 1) // 2]
        write_y4m_frame(file, (planes, chroma, chroma))


def test_sources_that_cannot_be_compared(begin: Callable[..., Ran], tmp_path: Path) -> None:
    write_yuv(tmp_path / "small.y4m", 96, 62)
    header = b"YUV4MPEG2 W96 H72 F30:1 Ip A1:1 C%s\nFRAME\n"
    (tmp_path / "grey.y4m").write_bytes(header % b"mono" + bytes(96 * 72))
    (tmp_path / "full.y4m").write_bytes(header % b"444" + bytes(3 * 96 * 72))
    for name, error in (
        ("small.y4m", "has frames of 96x62"),
        ("grey.y4m", "is not 4:2:0 (Cmono)"),
        ("full.y4m", "is not 4:2:0 (C444)"),
        ("missing.y4m", "does not exist"),
    ):
        ran = begin("out=out", sources=("clip.y4m", name))
        assert ran.code == 2
        assert len(ran.error_lines) == 1
        assert error in ran.err, name
    assert not (tmp_path / "out").exists()


def test_another_bit_depth_than_the_bundle_refuses(
    av1part: Command, small_store: Path, tmp_path: Path
) -> None:
    words = ("kind=prior", f"data.path={small_store}", "outside=refuse")
    assert av1part("bundle", *words, "out=strict.av1part").code == 0
    luma = corner("coffee", 64, 64).astype(np.uint16) * 4
    with (tmp_path / "deep.y4m").open("wb") as file:
        file.write(y4m_header(64, 64, 10))
        chroma = np.full((32, 32), 512, np.uint16)
        write_y4m_frame(file, (luma, chroma, chroma))
    ran = av1part("encode", "deep.y4m", "model=strict.av1part", "out=out")
    assert ran.code == 2
    assert "refuses what it was not trained on" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "read_as"),
    [("off", "plan.points.False: YAML reads this name as true or false"), ("1e3", "a number")],
)
def test_names_that_yaml_reads_as_something_else(
    begin: Callable[..., Ran], tmp_path: Path, name: str, read_as: str
) -> None:
    plan = tmp_path / "conf" / "plan" / "named.yaml"
    plan.write_text(f"points:\n  {name}: {{cpu_used: 5}}\n")
    ran = begin("out=out", "plan=named")
    assert ran.code == 2
    assert f"{read_as}: quote it" in ran.err
    assert ran.err.count("\n") == 1


def test_a_folder_of_something_else(begin: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").touch()
    assert "holds no comparison" in begin("out=out").err
    (tmp_path / "out" / "a.txt").rename(tmp_path / "out" / "plan.json.1.part")  # of a killed one
    points = [f"~plan.points.{name}" for name in ("variance", "random", "oracle", "model_wide")]
    assert begin("out=out", *points).code == 0
    before = (tmp_path / "out" / ROWS_FILE).read_bytes()
    for words, name in (
        (("cq_levels=[20,32,43,56]",), "cq_levels"),
        (("frames=1",), "clips: clip"),
        (("plan.points.model.tau=0.6",), "points: model"),
        (("ctc=true",), "points: fast"),
    ):
        ran = begin("out=out", *points, *words)
        assert ran.code == 2
        assert f"holds another plan ({name}" in ran.err, ran.err
    assert begin("out=out", *points, "plan.anchors=[no_1to4]").code == 0
    assert (tmp_path / "out" / ROWS_FILE).read_bytes() == before
    assert read_encodes(tmp_path / "out").anchors == ("no_1to4",)
    assert (tmp_path / "out/tables/no_1to4.tex").is_file()
    (tmp_path / "out" / PLAN_FILE).write_text("{")
    assert "plan.json is damaged" in begin("out=out", *points).err


def test_an_encoder_that_is_missing_stale_or_stock(
    begin: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "aomenc-av1part"
    built, inspect = programs_folder() / name, programs_folder() / "inspect"
    folder = tmp_path / "cache" / "libaom" / "bin"
    folder.mkdir(parents=True)
    shutil.copy(inspect, folder)
    monkeypatch.setenv("AV1PART_CACHE", str(tmp_path / "cache"))
    assert f"no {name} found: run `make libaom`" in begin("out=out").err
    shutil.copy(built, folder)
    (folder / f"{name}.json").write_text('{"patch": "1 2"}')
    assert "another patch" in begin("out=out").err
    shutil.copy(built.with_suffix(".json"), folder)
    shutil.copy(find_aomenc().path, folder / name)
    ran = begin("out=out")
    assert ran.code == 2
    assert "is not the patched aomenc" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["AV1PART_HINTS", "AV1PART_COUNTS", "AV1PART_COSTS"])
def test_variables_of_the_encoder(
    begin: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "a")
    ran = begin("out=out")
    assert ran.code == 2
    assert f"{name} is set" in ran.err


@pytest.mark.parametrize(
    ("bit_depth", "qindexes"), [(8, [20, 30, 46, 71, 99, 121]), (10, [27, 37, 52, 74, 99, 121])]
)
def test_common_test_conditions(
    av1part: Command, tmp_path: Path, bit_depth: int, qindexes: list[int]
) -> None:
    """Frames are coded at the quantisers of AOM's conditions, or the command would refuse."""
    write_clip(tmp_path / "clip.y4m", [corner("coffee", 64, 64)], bit_depth)
    points = ("plan=demo", "~plan.points.cpu1_model_90", "plan.points.cpu1.cpu_used=5")
    ran = av1part("encode", "clip.y4m", *points, "ctc=true", "out=out")
    assert ran.code == 0, ran.err
    rows = rows_of(tmp_path / "out")
    assert sorted(set(rows["qindex"])) == qindexes


def test_arguments_that_change_the_quantiser(av1part: Command, tmp_path: Path) -> None:
    """At the second point, whose stream is another than the first's."""
    write_clip(tmp_path / "clip.y4m", [corner("coffee", 64, 64)])
    points = ("plan=demo", "~plan.points.cpu1_model_90", "plan.points.cpu1.cpu_used=5")
    argument = "+plan.points.cpu2.arguments=['--use-fixed-qp-offsets=1']"
    ran = av1part("encode", "clip.y4m", *points, argument, "out=out")
    assert ran.code == 2
    assert "cpu2 on clip at cq 20 is coded at base_q_idx" in ran.err, ran.err


def test_sigkill_leaves_nothing_that_the_next_start_does_not_mend(
    begin: Callable[..., Ran], small_store: Path, tmp_path: Path
) -> None:
    """At one moment here, at many by `make reliability ARGS=kill`."""
    assert begin("out=whole").code == 0
    command = [Path(sys.executable).with_name("av1part"), "encode", "clip.y4m", "out=killed"]
    command += ["plan=mine", "--config-dir", "conf", "model=prior.av1part"]
    command += [f"data.path={small_store}"]
    kill_at(command, tmp_path / "killed" / ROWS_FILE, 17)
    assert begin("out=killed").code == 0
    killed, whole = rows_of(tmp_path / "killed"), rows_of(tmp_path / "whole")
    assert without_times(killed).equals(without_times(whole))


def kill_at(command: list[Any], rows: Path, lines: int) -> None:
    """Start a comparison and kill it, and not its encoder, once it has so many rows."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if rows.is_file() and rows.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it was killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
