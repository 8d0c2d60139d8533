"""Full disks, folders that may not be written to, and data that changes under a running job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from av1part import embedded
from av1part.runs.encodes import read_encodes

from ..encoding import corner, write_clip
from .conftest import Reliability

pytestmark = pytest.mark.slow

STREAM = Path(__file__).parents[1] / "data" / "crops_72x56.y4m"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system in memory, or change its size or whether it may be written to."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        remount = "remount," if os.path.ismount(folder) else ""
        words = ["mount", "-t", "tmpfs", "-o", f"{remount}{options}", "tmpfs", folder]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"no mount: {error}")
        if done.returncode:
            pytest.skip(f"no file system in memory can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def tiny(small_store: Path) -> tuple[str, ...]:
    """Words that train in a second."""
    words = ("train", "stage=stage1", "name=run", "resume=true", "backbone.width=8")
    words += ("logger=none", "data.batch_size=256", "trainer.max_epochs=2", "callbacks.plots=false")
    words += (f"data.path={small_store}", f"data.split_list={embedded.SPLIT_LIST}")
    return words


def av1part(folder: Path, *words: str | Path) -> tuple[int, list[str]]:
    """Run a command line; return its code and its own lines on stderr."""
    script = Path(sys.executable).with_name("av1part")
    done = subprocess.run(
        [script, *words],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, [x for x in done.stderr.splitlines() if x.startswith("av1part: ")]


def refused(
    folder: Path, *words: str | Path, names: str | Path, remedy: str = "free space"
) -> None:
    """Run a command that must end with one line naming the thing and the remedy."""
    code, lines = av1part(folder, *words)
    assert code == 2, lines
    assert len(lines) == 1, lines
    assert str(names) in lines[0], lines
    assert remedy in lines[0], lines


def test_a_full_disk_during_a_checkpoint(
    small_disk: Callable[[str], Path], tiny: tuple[str, ...], reliability: Reliability
) -> None:
    disk = small_disk("size=64m")
    assert av1part(disk, *tiny, "name=whole")[0] == 0
    expected = (disk / "runs/whole/metrics.json").read_text()
    shutil.rmtree(disk / "runs")
    # The log fits, the checkpoint of some 3 MB does not.
    small_disk("size=1m")
    refused(disk, *tiny, names="best.ckpt")
    checkpoints = disk / "runs/run/checkpoints"
    assert not checkpoints.exists() or list(checkpoints.iterdir()) == []
    small_disk("size=64m")
    assert av1part(disk, *tiny)[0] == 0
    assert (disk / "runs/run/metrics.json").read_text() == expected
    reliability.record(
        "Disk full at a checkpoint", 1, 0, "one line, no file; goes on to the same result"
    )


def test_a_full_disk_during_the_cache(
    small_disk: Callable[[str], Path],
    tiny: tuple[str, ...],
    tmp_path: Path,
    reliability: Reliability,
) -> None:
    disk = small_disk("size=16k")
    assert av1part(tmp_path, *tiny, "name=s1")[0] == 0
    start = tmp_path / "runs/s1/checkpoints/best.ckpt"
    words = ("train", "stage=stage2", "method=frozen", f"stage1={start}", *tiny[3:])
    assert av1part(tmp_path, *words, f"cache.folder={disk}/cache", "name=without")[0] == 0
    said = (tmp_path / "runs/without/train.log").read_text()
    assert f"features are not cached: {disk}/cache (No space left on device)" in said
    assert [p for p in disk.rglob("*") if p.is_file() and p.suffix != ".lock"] == []
    small_disk("size=64m")
    assert av1part(tmp_path, *words, f"cache.folder={disk}/cache", "name=cached")[0] == 0
    assert list(disk.rglob("*.npy"))
    results = [
        (tmp_path / f"runs/{name}/metrics.json").read_text() for name in ("without", "cached")
    ]
    assert results[0] == results[1]
    how = "trains without it, with a warning, to the same result; no file in the cache"
    reliability.record("Disk full at the feature cache", 1, 0, how)


@pytest.mark.libaom
def test_a_full_disk_during_a_build(
    small_disk: Callable[[str], Path], tmp_path: Path, reliability: Reliability
) -> None:
    disk = small_disk("size=12k")
    words = ("data", "build", STREAM, "cq_levels=[20,40]", "sizes=[16,8]")
    refused(tmp_path, *words, f"out={disk}/store", names=f"{disk}/store")
    assert not (disk / "store").exists()
    small_disk("size=64m")
    assert av1part(tmp_path, *words, f"out={disk}/store")[0] == 0
    assert av1part(tmp_path, *words, "out=whole")[0] == 0
    for file in (tmp_path / "whole").rglob("*.*"):
        there = disk / "store" / file.relative_to(tmp_path / "whole")
        assert there.read_bytes() == file.read_bytes()
    reliability.record("Disk full at a data build", 1, 0, "one line; resumes to the same bytes")


def test_a_full_disk_during_a_report(
    small_disk: Callable[[str], Path],
    tiny: tuple[str, ...],
    tmp_path: Path,
    reliability: Reliability,
) -> None:
    assert av1part(tmp_path, *tiny)[0] == 0
    disk = small_disk("size=32k")
    words = ("report", "runs/run", f"out={disk}/page")
    refused(tmp_path, *words, names=f"{disk}/page")
    assert not list(disk.rglob("*.part"))
    assert not list(disk.rglob("*.html"))
    small_disk("size=64m")
    assert av1part(tmp_path, *words)[0] == 0
    reliability.record("Disk full at a report", 1, 0, "one line, no page")


def test_a_folder_that_may_not_be_written_to(
    small_disk: Callable[[str], Path],
    tiny: tuple[str, ...],
    tmp_path: Path,
    reliability: Reliability,
) -> None:
    disk = small_disk("size=16m,ro")
    refused(disk, *tiny, names="runs", remedy="choose another folder")
    assert av1part(tmp_path, *tiny)[0] == 0
    words = ("report", tmp_path / "runs/run", f"out={disk}/page")
    refused(tmp_path, *words, names=f"{disk}/page", remedy="choose another folder")
    reliability.record("Read-only folder for a run and a report", 2, 0, "one line each")


@pytest.mark.patched
def test_a_full_disk_during_a_comparison_of_encodes(
    small_disk: Callable[[str], Path], tmp_path: Path, reliability: Reliability
) -> None:
    disk = small_disk("size=24k")  # less than the clip as y4m
    clip = write_clip(tmp_path / "clip.y4m", [corner("coffee", 96, 120)])
    words = ("encode", clip, "plan=demo", "~plan.points.cpu1_model_90")
    words += ("plan.points.cpu1.cpu_used=5",)
    refused(tmp_path, *words, f"out={disk}/out", names=f"{disk}/out/work")
    assert read_encodes(disk / "out").rows.is_empty()
    small_disk("size=48k")  # less than the page
    refused(tmp_path, *words, f"out={disk}/out", names=f"{disk}/out")
    assert not (disk / "out" / "report.html").exists()
    small_disk("size=64m")
    assert av1part(tmp_path, *words, f"out={disk}/out")[0] == 0
    assert av1part(tmp_path, *words, "out=whole")[0] == 0
    times = ("seconds", "inference_seconds")
    tables = [
        read_encodes(out).rows.sort("cq_level", "point").drop(times)
        for out in (disk / "out", tmp_path / "whole")
    ]
    assert tables[0].equals(tables[1])
    how = "at the frames and at the page: one line, no page; goes on to the same table"
    reliability.record("Disk full at a comparison of encodes", 2, 0, how)


@pytest.mark.parametrize("change", ["written to", "replaced", "removed"])
def test_a_plane_that_changes_under_a_running_job(
    small_store: Path,
    tiny: tuple[str, ...],
    tmp_path: Path,
    change: str,
    reliability: Reliability,
) -> None:
    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    words = [w for w in tiny if not w.startswith(("data.path", "trainer.max_epochs"))]
    words += [f"data.path={store}", "trainer.max_epochs=1000", "callbacks.patience=null"]
    script = Path(sys.executable).with_name("av1part")
    with subprocess.Popen(
        [script, *words], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            until = time.monotonic() + 120
            while not (tmp_path / "runs/run/history.csv").exists():
                assert run.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
            plane = store / "planes" / "brick.npy"
            if change == "written to":
                mapped = np.lib.format.open_memmap(plane, mode="r+")
                mapped[0, :8, :8] ^= 1
                mapped.flush()
            elif change == "replaced":
                shutil.copy(plane, plane.with_suffix(".new"))
                plane.with_suffix(".new").replace(plane)
            else:
                plane.unlink()
            _, said = run.communicate(timeout=120)
        finally:
            run.kill()
    assert run.returncode == 2, said
    lines = [line for line in said.splitlines() if line.startswith("av1part: ")]
    assert len(lines) == 1
    assert f"{plane} has changed since it was opened" in lines[0]
    assert not (tmp_path / "runs/run/metrics.json").exists()
    reliability.record(f"Plane {change} under a running job", 1, 0, "one line, no result")
