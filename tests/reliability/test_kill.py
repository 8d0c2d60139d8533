"""SIGKILL at any moment: nothing half-written has its final name, and the restart ends the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from av1part import embedded
from av1part.checkpoints.load import read_checkpoint
from av1part.runs.encodes import read_encodes
from av1part.runs.schema import sidecar_path
from av1part.system.files import sha256_file

from ..encoding import corner, write_clip
from .conftest import Reliability
from .killing import processes, start

pytestmark = pytest.mark.slow

STREAM = Path(__file__).parents[1] / "data" / "crops_72x56.y4m"
JOBS = ("training", "data build", "sweep")
COMPARISON = pytest.param("comparison of encodes", marks=pytest.mark.patched)

INSIDE = 10
"""Of the kills at full length, how many must fall inside a write."""

PLAN = """
# @package _global_
defaults:
  - override /stage: stage2
hydra:
  sweeper:
    baseline: frozen
    seeds: [0, 1]
    start: [stage=stage1, method=auto]
    variants:
      frozen: [method=frozen]
      finetune: [method=finetune]
"""


def said(folder: Path) -> str:
    return (folder / "out.txt").read_text()[-3000:]


@dataclass(frozen=True)
class Job:
    """A command that is killed."""

    words: Sequence[str]
    """After `av1part`, in a folder of its own."""

    result: Callable[[Path], object]
    """What a folder holds when it has ended, equal however often it was killed."""

    ends_with: str = ""
    """What is there only once it has ended, and is not made again."""

    def start(self, folder: Path, event: str = "none", at: int = 0) -> BaseProcess:
        return start(self.words, folder, event, at)

    def finish(self, folder: Path) -> None:
        if self.ends_with and (folder / self.ends_with).exists():
            return
        running = self.start(folder)
        running.join(timeout=600)
        assert running.exitcode == 0, said(folder)


def trained(folder: Path) -> object:
    assert not list(folder.rglob("*.part"))
    names = ("metrics.json", "history.csv", "confusion.csv")
    texts = {p.relative_to(folder): p.read_text() for name in names for p in folder.rglob(name)}
    tensors = {
        p.relative_to(folder): json.loads(sidecar_path(p).read_text())["sha256"]
        for p in folder.rglob("*.ckpt")
    }
    return texts, tensors


def built(folder: Path) -> object:
    files = {p.name: sha256_file(p) for p in (folder / "store").rglob("*") if p.is_file()}
    files.pop("recipe.json", None)  # the last to go, when the dataset has its name already
    return files


def encoded(folder: Path) -> object:
    encodes = read_encodes(folder / "out")
    assert encodes.rows.height == encodes.planned
    assert (folder / "out" / "report.html").is_file()
    rows = encodes.rows.sort("clip", "cq_level", "point", "repeat")
    return rows.drop("seconds", "inference_seconds").to_dicts(), (
        folder / "out/plan.json"
    ).read_text()


@pytest.fixture
def job(request: pytest.FixtureRequest, small_store: Path, tmp_path: Path) -> Job:
    """One of the four."""
    tiny = ("backbone.width=8", "logger=none", "data.batch_size=256", "trainer.max_epochs=3")
    tiny += ("callbacks.plots=false", "cache=off", "callbacks.progress_bar=false")
    tiny += (f"data.path={small_store}", f"data.split_list={embedded.SPLIT_LIST}")
    if request.param == "data build":
        words = ("data", "build", str(STREAM), "out=store", "cq_levels=[20,40,55]", "sizes=[16,8]")
        return Job(words, built, ends_with="store")
    if request.param == "comparison of encodes":
        clip = write_clip(tmp_path / "clip.y4m", [corner("coffee", 96, 120)])
        words = ("encode", str(clip), "out=out", "plan=demo", "plan.points.cpu1.cpu_used=3")
        words += ("~plan.points.cpu1_model_90", "plan.points.cpu2.cpu_used=5")
        words += ("+plan.points.oracle={cpu_used: 3, sb_size: 64, predictor: oracle}",)
        words += ("+plan.points.square={cpu_used: 3, sb_size: 64, types: [NONE, SPLIT]}",)
        return Job(words, encoded)
    if request.param == "training":
        return Job(("train", "stage=stage1", "name=run", "resume=true", *tiny), trained)
    plan = tmp_path / "conf" / "experiment" / "tiny.yaml"
    plan.parent.mkdir(parents=True)
    plan.write_text(PLAN)
    words = ("train", "-m", "--config-dir", str(tmp_path / "conf"), "experiment=tiny")
    return Job((*words, *tiny[:3], "trainer.max_epochs=1", *tiny[4:]), trained)


READ: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".csv": pl.read_csv,
    ".parquet": pl.read_parquet,
    ".npy": np.load,
    ".npz": lambda path: dict(np.load(path)),
    ".ckpt": read_checkpoint,  # with its verification record
}


def check_whole(folder: Path) -> int:
    """Read every file that has its final name; return how many have not."""
    inside = 0
    for path in folder.rglob("*"):
        if path.suffix == ".part":
            inside += 1
        elif path.suffix in READ and "store.partial/planes" not in path.as_posix():
            READ[path.suffix](path)
    return inside


def uninterrupted(job: Job, folder: Path) -> tuple[float, object]:
    """Return how many seconds a job takes that nothing stops, and what it leaves."""
    folder.mkdir()
    processes()  # once for all, and not in the time
    started = time.monotonic()
    job.finish(folder)
    return time.monotonic() - started, job.result(folder)


def moments() -> tuple[int, random.Random]:
    """Return a seed, AV1PART_KILL_SEED if that is set, and what draws from it."""
    seed = int(os.environ.get("AV1PART_KILL_SEED", time.time_ns() % 10_000))
    return seed, random.Random(seed)


@pytest.mark.libaom
@pytest.mark.parametrize("job", [*JOBS, COMPARISON], indirect=True)
def test_a_killed_process_leaves_nothing_half_written(
    job: Job, tmp_path: Path, reliability: Reliability, request: pytest.FixtureRequest
) -> None:
    """At moments uniform over the run, and at some aimed into its writes."""
    length, expected = uninterrupted(job, tmp_path / "whole")
    writes = json.loads((tmp_path / "whole" / "count").read_text())
    seed, drawn = moments()
    uniform, aimed = reliability.pick(3, 50), reliability.pick(2, 20)
    what = request.node.callspec.params["job"]
    print(f"AV1PART_KILL_SEED={seed}: {what} takes {length:.1f} s, {writes}")
    killed = inside = 0
    for number in range(uniform + aimed):
        folder = tmp_path / "killed"
        folder.mkdir()
        if number < uniform:
            running = job.start(folder)
            running.join(timeout=drawn.uniform(0, length))
            running.kill()
        else:
            event = "os.rename" if number % 4 else "open"
            running = job.start(folder, event, drawn.randint(1, writes[event]))
        running.join(timeout=600)
        assert running.exitcode in (0, -signal.SIGKILL), said(folder)
        killed += running.exitcode == -signal.SIGKILL
        inside += bool(check_whole(folder))
        job.finish(folder)
        assert job.result(folder) == expected, f"try {number}, AV1PART_KILL_SEED={seed}"
        shutil.rmtree(folder)
    assert killed > (uniform + aimed) // 2
    assert inside >= reliability.pick(1, INSIDE), f"{inside} kills fell inside a write"
    how = f"{killed} killed, {inside} of them inside a write, seed {seed}"
    reliability.record(f"SIGKILL of a {what}", uniform + aimed, 0, how)


@pytest.mark.parametrize("job", ["training"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_training_told_to_stop_at_any_moment_goes_on_to_the_same_result(
    job: Job, tmp_path: Path, reliability: Reliability, number: signal.Signals
) -> None:
    length, expected = uninterrupted(job, tmp_path / "whole")
    seed, drawn = moments()
    print(f"AV1PART_KILL_SEED={seed}: a training takes {length:.1f} s")
    saved, tries = 0, reliability.pick(4, 50)
    for attempt in range(tries):
        folder = tmp_path / "stopped"
        folder.mkdir()
        running = job.start(folder)
        running.join(timeout=drawn.uniform(0, length))
        asked = time.monotonic()
        if running.is_alive():
            os.kill(running.pid, number)
        running.join(timeout=60)
        assert time.monotonic() - asked < 30
        # Before and after the training itself nothing is there to be saved.
        assert running.exitcode in (75, 0, -number), said(folder)
        saved += running.exitcode == 75
        check_whole(folder)
        job.finish(folder)
        assert job.result(folder) == expected, f"try {attempt}, AV1PART_KILL_SEED={seed}"
        shutil.rmtree(folder)
    assert saved, "no signal came inside the training"
    how = f"{saved} saved inside the training, seed {seed}"
    reliability.record(f"{number.name} of a training", tries, 0, how)


@pytest.mark.parametrize("job", ["training"], indirect=True)
def test_of_two_processes_given_one_run_folder_one_wins(
    job: Job, tmp_path: Path, reliability: Reliability
) -> None:
    _, expected = uninterrupted(job, tmp_path / "whole")
    seed, drawn = moments()
    tries = reliability.pick(2, 20)
    for attempt in range(tries):
        folder = tmp_path / "shared"
        folder.mkdir()
        first = job.start(folder)
        time.sleep(drawn.uniform(0, 0.5))
        second = job.start(folder)
        for running in (first, second):
            running.join(timeout=600)
        assert sorted([first.exitcode, second.exitcode]) == [0, 2], said(folder)
        refused = [line for line in said(folder).splitlines() if line.startswith("av1part: ")]
        assert len(refused) == 1
        assert "runs/run is in use by " in refused[0]
        assert job.result(folder) == expected, f"try {attempt}, AV1PART_KILL_SEED={seed}"
        shutil.rmtree(folder)
    how = f"one wins, the other is refused in one line, seed {seed}"
    reliability.record("Two processes given one run folder", tries, 0, how)


@pytest.mark.parametrize("job", ["training"], indirect=True)
def test_the_lock_of_a_killed_run_holds_nobody_up(
    job: Job, tmp_path: Path, reliability: Reliability
) -> None:
    length, expected = uninterrupted(job, tmp_path / "whole")
    seed, drawn = moments()
    tries = reliability.pick(2, 20)
    for attempt in range(tries):
        folder = tmp_path / "stale"
        folder.mkdir()
        running = job.start(folder)
        while not (folder / "runs/run/.lock.json").exists():
            time.sleep(0.01)
        time.sleep(drawn.uniform(0, length / 2))
        running.kill()
        running.join()
        job.finish(folder)
        assert f"left behind by process {running.pid} on " in (folder / "out.txt").read_text()
        assert job.result(folder) == expected, f"try {attempt}, AV1PART_KILL_SEED={seed}"
        shutil.rmtree(folder)
    reliability.record("Lock of a killed run", tries, 0, f"recognised as stale, seed {seed}")
