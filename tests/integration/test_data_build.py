"""`build_dataset` with the real aomenc and inspect, on tiny clips."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from av1part import embedded
from av1part.data.build.build import build_dataset
from av1part.data.build.libaom import find_aomenc
from av1part.data.build.sources import open_source
from av1part.data.store.splits import read_split_list
from av1part.data.store.store import Store
from av1part.encoder.hints import HintsWriter, grid_shape
from av1part.encoder.patched import NAME as PATCHED
from av1part.encoder.patched import find_patched
from av1part.partition import SIZES
from av1part.system.errors import ConfigError, SourceError
from av1part.system.files import sha256_file

DATA = Path(__file__).parents[1] / "data"
EIGHT, TEN = DATA / "crops_72x56.y4m", DATA / "crop_67x51_10le.yuv"
ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"

QUICK: dict[str, Any] = {"cq_levels": (32, 55), "progress": False}


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return build_dataset([EIGHT, TEN], tmp_path_factory.mktemp("built") / "store", **QUICK)


@pytest.mark.libaom
def test_a_build_holds_the_sources_luma_and_whole_nodes(built: Store) -> None:
    store = Store.open(built.path, verify="full")
    assert store.sequences == ("crop_67x51_10le", "crops_72x56")
    for path, depth in ((EIGHT, 8), (TEN, 10)):
        frames = list(open_source(path).frames())
        assert (store.plane(path.stem) == np.stack([planes[0] for planes in frames])).all()
        assert store.manifest["sequences"][path.stem]["bit_depth"] == depth
    # cq levels 32 and 55 are base_q_idx 128 and 220.
    assert set(store.nodes["qindex"]) == {128, 220}
    per_frame = store.nodes.group_by("sequence", "frame", "qindex").len()
    assert per_frame.height == (2 + 1) * 2


@pytest.mark.libaom
def test_children_exist_exactly_where_the_parent_is_split(built: Store) -> None:
    nodes = built.nodes.filter(sequence="crops_72x56")
    frame = ["frame", "qindex"]
    for size in (32, 16, 8):
        # Parents that reach over the edge are not stored: look at children whose parent is.
        children = nodes.filter(size=size).with_columns(
            row=pl.col("row") // (2 * size) * 2 * size, col=pl.col("col") // (2 * size) * 2 * size
        )
        parents = nodes.filter(size=2 * size)
        joined = parents.join(children, on=[*frame, "row", "col"], how="left", suffix="_child")
        counts = joined.group_by(*frame, "row", "col", "partition").agg(
            pl.col("size_child").count().alias("children")
        )
        wanted = pl.when(pl.col("partition") == 3).then(4).otherwise(0)
        assert counts.filter(pl.col("children") != wanted).is_empty()


@pytest.mark.libaom
def test_the_manifest_says_how_and_nothing_of_where_or_when(built: Store) -> None:
    manifest = built.manifest
    assert manifest["made_by"]["aomenc"].startswith("v")
    assert manifest["encoder_arguments"]["10 bit, cq 55"][3] == "--cq-level=55"
    facts = manifest["sequences"]["crops_72x56"]
    assert facts["source"] == "crops_72x56.y4m"
    assert facts["source_sha256"] == sha256_file(EIGHT)
    assert facts["conversion"] in manifest["conversions"]
    text = json.dumps(manifest)
    assert str(DATA) not in text
    assert str(built.path.parent) not in text


@pytest.mark.libaom
def test_jobs_and_place_do_not_change_a_bit(built: Store, tmp_path: Path) -> None:
    copies = tmp_path / "elsewhere"
    copies.mkdir()
    for path in (EIGHT, TEN):
        (copies / path.name).write_bytes(path.read_bytes())
    again = build_dataset([copies], tmp_path / "again", jobs=1, **QUICK)
    assert hashes(again.path) == hashes(built.path)


@pytest.mark.patched
def test_variables_of_the_patched_encoder_change_nothing(
    built: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_aomenc().path.name != PATCHED
    hints = tmp_path / "none.hints"
    with HintsWriter(hints, 72, 56, SIZES) as writer:
        for _ in range(2):
            writer.add({n: np.ones(grid_shape(72, 56, n), np.uint16) for n in SIZES})
    monkeypatch.setenv("AV1PART_HINTS", str(hints))
    for name in ("counts", "costs"):
        monkeypatch.setenv(f"AV1PART_{name.upper()}", str(tmp_path / "written" / name))
    (tmp_path / "written").mkdir()
    stock = build_dataset([EIGHT], tmp_path / "stock", **QUICK)
    patched = find_patched()
    same_version = patched.version == find_aomenc().version
    monkeypatch.setenv("AV1PART_AOMENC", str(patched.path))
    again = build_dataset([EIGHT], tmp_path / "patched", **QUICK)
    alone = built.nodes.filter(sequence=EIGHT.stem)
    assert stock.nodes.equals(alone)
    # Of another version of libaom the nodes are others, but not those of the hints.
    assert again.nodes.equals(alone) if same_version else set(again.nodes["partition"]) != {0}
    assert not list((tmp_path / "written").iterdir())


@pytest.mark.libaom
def test_one_to_four_sizes_frames_and_every(tmp_path: Path) -> None:
    store = build_dataset(
        [EIGHT],
        tmp_path / "store",
        cq_levels=[20],
        sizes=[16],
        one_to_four=True,
        frames=1,
        every=2,
        progress=False,
    )
    assert set(store.nodes["size"]) == {16}
    assert store.plane("crops_72x56").shape == (1, 56, 72)
    assert not any("1to4" in a for a in store.manifest["encoder_arguments"]["8 bit, cq 20"])
    assert store.nodes["partition"].max() >= 8, "this crop has 1:4 partitions when allowed"


@pytest.mark.libaom
def test_frames_too_small_for_the_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no source has a whole node of sizes=\[64\]"):
        build_dataset([EIGHT], tmp_path / "store", **{**QUICK, "sizes": [64]})
    assert list(tmp_path.iterdir()) == []


# --- interrupted builds

STEPS: dict[str, Any] = {"cq_levels": (10, 25, 40, 55), "jobs": 2}
JOBS = 8
"""Two sources at four levels."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("whole") / "store"
    return build_dataset([EIGHT, TEN], out, progress=False, **STEPS)


def start(sources: list[Path], out: Path) -> subprocess.Popen[bytes]:
    code = (
        "import json, sys; from av1part.data.build.build import build_dataset;"
        "build_dataset(json.loads(sys.argv[1]), sys.argv[2], **json.loads(sys.argv[3]))"
    )
    arguments = [json.dumps([str(s) for s in sources]), str(out), json.dumps(STEPS)]
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE)


def wait_for_tables(partial: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while len(list(partial.glob("work/*.parquet"))) < count:
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def programs_of(out: Path) -> list[str]:
    """Commands of running processes that name this dataset's folder."""
    commands = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(out) in command:
            commands.append(command)
    return commands


def assert_none_left(out: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while programs_of(out):
        assert time.monotonic() < deadline, programs_of(out)
        time.sleep(0.02)


@pytest.mark.libaom
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_resumes_to_the_same_bits(
    tmp_path: Path, whole: Store, number: signal.Signals
) -> None:
    out = tmp_path / "store"
    process = start([EIGHT, TEN], out)
    partial = tmp_path / "store.partial"
    wait_for_tables(partial, 2, process)
    with pytest.raises(ConfigError, match=f"store.partial is in use by process {process.pid} "):
        build_dataset([EIGHT, TEN], out, **QUICK)
    process.send_signal(number)
    assert process.wait(60) != 0
    assert process.stderr is not None
    process.stderr.close()
    assert_none_left(out, seconds=20)
    assert partial.is_dir()
    assert not out.exists()
    kept = {p: p.stat().st_mtime_ns for p in partial.glob("work/*.parquet")}
    assert 2 <= len(kept) < JOBS

    again = start([EIGHT, TEN], out)
    wait_for_tables(partial, len(kept) + 1, again)
    touched = [p.name for p, when in kept.items() if p.exists() and p.stat().st_mtime_ns != when]
    assert touched == [], "what was complete is not done again"
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said.decode()
    assert f"resumed with {len(kept)} of {JOBS}" in said.decode()
    assert hashes(out) == hashes(whole.path)
    assert not partial.exists()


# --- the embedded dataset


def test_the_embedded_dataset_is_whole_and_small() -> None:
    store = Store.open(embedded.STORE, verify="full")
    assert sum(p.stat().st_size for p in embedded.STORE.rglob("*")) < 8 << 20
    assert store.bit_depth() == 8
    assert set(store.nodes["qindex"]) == {80, 128, 172, 220}
    licences = (embedded.STORE.parent / "LICENCES.md").read_text(encoding="utf-8")
    rows = [line for line in licences.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == sorted(store.sequences)
    assert all(row.rstrip(" |").endswith(("CC0", "CC0 1.0", "public domain")) for row in rows)


def test_the_embedded_split_covers_each_sequence_with_three_pictures_a_part() -> None:
    store = Store.open(embedded.STORE)
    split = read_split_list(embedded.SPLIT_LIST)
    assert set(split) == set(store.sequences)
    pictures = pl.DataFrame({"sequence": list(split), "split": list(split.values())})
    assert pictures.group_by("split").len()["len"].min() >= 3
    nodes = store.nodes.filter(size=16).join(pictures, on="sequence")
    shares = dict(nodes.group_by("split").agg(pl.len() / nodes.height).rows())
    assert shares["train"] == pytest.approx(0.70, abs=0.05)
    assert shares["val"] == pytest.approx(0.15, abs=0.05)
    assert shares["test"] == pytest.approx(0.15, abs=0.05)
    classes = nodes.group_by("split").agg(pl.col("partition").n_unique())
    assert (classes["partition"] == 8).all()


@pytest.mark.slow
@pytest.mark.libaom
def test_the_recipe_gives_the_embedded_dataset_bit_for_bit(tmp_path: Path) -> None:
    out = tmp_path / "again"
    recipe = ROOT / "tools" / "embedded_data.py"
    subprocess.run([sys.executable, recipe, out, "--jobs", str(os.cpu_count() or 2)], check=True)
    # Its manifest says more than at 0.1; planes and nodes are the same.
    assert Store.open(out).manifest["files"] == Store.open(embedded.STORE).manifest["files"]


# --- pictures and a clip that may not be committed


@pytest.mark.libaom
@pytest.mark.parametrize(
    "name",
    ["kodak/kodim01.png", "clips/src01_hrc00_576x324_10le.yuv", "clips/park_joy_480x270.y4m"],
)
def test_real_material_is_read_back_exactly(name: str, tmp_path: Path) -> None:
    source = SHARED / name
    if not source.is_file():
        pytest.skip(f"{source} is not here")
    # The build itself compares every grid with what its tree gives back.
    store = build_dataset(
        [source], tmp_path / "store", cq_levels=[55], cpu_used=6, frames=1, progress=False
    )
    assert store.nodes.height > 300
