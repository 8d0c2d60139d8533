"""Sweeps on a real SLURM of one node, and what is said where there is none."""

from __future__ import annotations

import logging
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf

from av1part.cli.main import config_folder
from av1part.runs.sweeps import read_record
from av1part.sweeps import slurm as jobs
from av1part.sweeps.state import begin
from hydra_plugins.av1part_slurm import SlurmLauncher

from .conftest import Command

EXPERIMENT = """# @package _global_
defaults:
  - override /stage: stage2
hydra:
  sweeper:
    variants:
      frozen: [method=frozen]
      adapter: [method=adapter]
    seeds: [0, 1]
    start: [stage=stage1, method=auto]
    baseline: frozen
"""

HANDED_OVER = """# @package _global_
defaults:
  - override /stage: stage2
hydra:
  sweeper:
    variants:
      good: [method=frozen, trainer.max_epochs=1]
      bad: [method=adapter, trainer.max_epochs=1, adapter=depthwise3x3, "adapter.layers=[4]"]
      long: [method=frozen, trainer.max_epochs=100000, callbacks.patience=null]
"""

SMALL_JOBS = ("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1")
CONF = config_folder()
SCRIPT = Path(sys.executable).with_name("av1part")


@pytest.fixture
def words(tmp_path: Path, on_small: tuple[str, ...]) -> tuple[str, ...]:
    """Words of the sweep `tiny`, to be written."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    given = ("--config-dir", str(tmp_path / "conf"), "experiment=tiny")
    return ("train", "-m", *given, *on_small, "trainer.max_epochs=1")


def eventually(condition: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.3)


def tables(report: Path) -> dict[str, str]:
    """Return a report's tables, without that of times."""
    files = (report / "tables").iterdir()
    return {file.name: file.read_text() for file in files if file.stem != "cost"}


@pytest.mark.slow
def test_a_sweep_on_slurm_reports_what_a_local_one_does(
    slurm: Any, av1part: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "conf/experiment/tiny.yaml").write_text(EXPERIMENT)
    places = tmp_path / "local", tmp_path / "cluster"
    for place in places:
        place.mkdir()
    os.chdir(places[0])
    assert av1part(*words).code == 0
    assert av1part("report", "runs/tiny").code == 0

    # Each job asks for a GPU, of which the cluster says that it has some.
    on_slurm = (*words, "hydra/launcher=slurm_gpu", *SMALL_JOBS)
    ran = slurm.run(SCRIPT, *on_slurm, cwd=places[1])
    assert "4 jobs given to SLURM" in ran.stderr
    assert "all 6 jobs are done" in ran.stderr
    assert "sacct" not in ran.stderr
    os.chdir(places[1])
    assert av1part("report", "runs/tiny").code == 0
    local, cluster = (tables(place / "runs/tiny/report") for place in places)
    assert "comparison.csv" in local
    assert cluster == local

    script = next(Path("runs/tiny/.submitit").glob("*/*_submission.sh")).read_text()
    assert "#SBATCH --gpus-per-node=1\n" in script
    assert "srun --unbuffered" in script
    assert " --cpus-per-task=1 " in script
    again = slurm.run(SCRIPT, *on_slurm, cwd=places[1])
    assert "4 jobs, 4 of them done before" in again.stderr
    assert "given to SLURM" not in again.stderr


@pytest.mark.slow
def test_a_sweep_outlives_its_jobs_and_they_outlive_it(
    slurm: Any,
    words: tuple[str, ...],
    stage1: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """One job is well, one fails, one is requeued and cancelled; the sweep's process is killed."""
    file = tmp_path / "conf/experiment/tiny.yaml"
    file.write_text(HANDED_OVER)
    launcher = ("hydra/launcher=slurm", *SMALL_JOBS)
    own = [word for word in words if not word.startswith("trainer.max_epochs")]
    command = [SCRIPT, *own, f"stage1={stage1}", *launcher]
    sweep, out = tmp_path / "runs/tiny", tmp_path / "out.txt"

    def start() -> subprocess.Popen[bytes]:
        with out.open("wb") as to:
            process = subprocess.Popen(
                list(map(str, command)), cwd=tmp_path, env=slurm.environment, stdout=to, stderr=to
            )
        request.addfinalizer(process.kill)
        return process

    def epochs() -> int:
        history = sweep / "long/run/history.csv"
        return len(history.read_text().splitlines()) if history.is_file() else 0

    def signal_long(*options: str) -> None:
        """Cancel the long job, or signal it, in an epoch of its present start."""
        before = epochs()
        eventually(lambda: epochs() > before)
        (job,) = slurm.jobs()
        slurm.run("scancel", *options, job)

    killed = start()
    eventually(lambda: len(slurm.jobs()) == 1 and (sweep / "good/run/metrics.json").is_file())
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    made = (sweep / "good/run/metrics.json").stat().st_mtime_ns
    running = start()
    eventually(lambda: "1 jobs of an earlier start are still with SLURM" in out.read_text())
    signal_long("--signal=USR2")  # what SLURM sends before a job's time ends
    eventually(lambda: list(slurm.jobs().values()) == ["PENDING"])
    signal_long()  # in a further epoch: it went on
    eventually(lambda: "2 jobs given to SLURM" in out.read_text())
    eventually(lambda: list(slurm.jobs().values()) == ["RUNNING"])
    signal_long()
    assert running.wait(timeout=600) == 2
    said = out.read_text()
    assert "3 jobs, 1 of them done before" in said
    assert "bad/run failed" in said
    assert "adapter.kernel=3" in said
    assert "long/run failed: SLURM's job" in said
    assert "CANCELLED, see /" in said
    (line,) = (line for line in said.splitlines() if line.startswith("av1part: "))
    assert "2 of 3 jobs" in line
    # Of three starts none began anew.
    assert (sweep / "long/run/train.log").read_text().count(" epoch 0: ") == 1

    file.write_text(
        HANDED_OVER.replace(', adapter=depthwise3x3, "adapter.layers=[4]"', "").replace(
            "00000", "0"
        )
    )
    slurm.run(*command, cwd=tmp_path)
    assert (sweep / "good/run/metrics.json").stat().st_mtime_ns == made
    assert (sweep / "long/run/metrics.json").is_file()


@pytest.mark.slow
def test_what_slurm_refuses_is_one_line(
    slurm: Any, words: tuple[str, ...], stage1: Path, tmp_path: Path
) -> None:
    given = (f"stage1={stage1}", "stage=stage2", "hydra/launcher=slurm")
    wanted = [word for word in words if word != "experiment=tiny"]
    ran = slurm.run(
        SCRIPT, *wanted, *given, "hydra.launcher.partition=none", cwd=tmp_path, check=False
    )
    assert ran.returncode == 2
    (line,) = (line for line in ran.stderr.splitlines() if line.startswith("av1part: "))
    assert "SLURM took no jobs: sbatch: error: invalid partition specified: none" in line


@pytest.fixture
def submitted(
    slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SimpleNamespace]:
    """A job of the sweep in `tmp_path` that sleeps, with the result it would leave."""
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    script = tmp_path / jobs.FOLDER / "job.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nsleep $1\ntest -z $2 || touch $2\n")

    def submit(*arguments: str | Path) -> str:
        words = ("sbatch", "--parsable", "--output=/dev/null", script, *arguments)
        return slurm.run(*words).stdout.strip()

    return SimpleNamespace(submit=submit, result=tmp_path / "result.pkl", sweep=tmp_path)


@pytest.mark.slow
def test_the_end_of_each_job_is_found(submitted: SimpleNamespace, slurm: Any) -> None:
    well, lost = submitted.submit("4", submitted.result), submitted.submit("600")
    slurm.run("sbatch", "--output=/dev/null", "--wrap=sleep 600")  # not of the sweep
    assert jobs.queued(submitted.sweep).keys() == {well, lost}
    slurm.run("scancel", lost)
    ended = dict(jobs.ended({well: submitted.result, lost: Path("no")}, submitted.sweep))
    assert ended == {well: None, lost: "CANCELLED"}


@pytest.mark.slow
def test_an_earlier_start_s_jobs_are_waited_for(
    submitted: SimpleNamespace, slurm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.wait_for_earlier(submitted.sweep)
    assert not caplog.messages
    job = submitted.submit("3", submitted.result)
    with caplog.at_level(logging.INFO):
        jobs.wait_for_earlier(submitted.sweep)
    assert submitted.result.exists()
    assert f"scancel {job}" in caplog.messages[0]


@pytest.mark.slow
def test_a_colleague_s_jobs_of_a_shared_sweep_are_waited_for(
    submitted: SimpleNamespace, slurm: Any
) -> None:
    """Whose they are is told by who owns what submitting left in the folder."""
    theirs = submitted.sweep / jobs.FOLDER / "job-of-nobody.sh"
    theirs.write_text("#!/bin/sh\nsleep 600\n")
    other = ("sbatch", "--parsable", "--output=/dev/null", "--hold", "--chdir=/", "--uid=nobody")
    job = slurm.run(*other, theirs).stdout.strip()
    elsewhere = submitted.sweep / "elsewhere.sh"
    elsewhere.write_text(theirs.read_text())
    slurm.run(*other, elsewhere)
    assert not jobs.queued(submitted.sweep)
    os.chown(theirs, pwd.getpwnam("nobody").pw_uid, -1)
    assert jobs.queued(submitted.sweep) == {job: "PENDING"}
    (theirs.parent / "left-by-one-who-is-gone").touch()
    os.chown(theirs.parent / "left-by-one-who-is-gone", 54321, -1)
    assert 54321 not in jobs._submitters(submitted.sweep)
    own = submitted.submit("600")
    assert jobs.queued(submitted.sweep).keys() == {job, own}


@pytest.mark.slow
def test_an_interrupted_sweep_takes_its_jobs_along(submitted: SimpleNamespace, slurm: Any) -> None:
    job = submitted.submit("600")
    with pytest.raises(KeyboardInterrupt), jobs.cancelled_if_interrupted([job]):
        raise KeyboardInterrupt
    slurm.wait_until_empty(10)


def test_a_job_that_fails_outside_of_the_training_is_told(tmp_path: Path) -> None:
    """Such as one whose node lacks a module; here submitit runs it without SLURM."""
    job = submitit.LocalExecutor(tmp_path / "%j").submit(int, "no number")
    job.wait()
    begin(tmp_path / "variant/run", {})
    launcher = SlurmLauncher()
    cfg = {"hydra": {"sweep": {"dir": str(tmp_path), "subdir": "variant/run"}}}
    compose = SimpleNamespace(load_sweep_config=lambda *_: OmegaConf.create(cfg))
    launcher.context, launcher.config = SimpleNamespace(config_loader=compose), None
    returned = launcher._returned(job, None, [])
    assert returned.status == JobStatus.FAILED
    error = read_record(tmp_path / "variant/run")["error"]
    assert error.startswith(f"SLURM's job {job.job_id}: ValueError: invalid literal for int()")
    assert error.endswith("_log.err")


def test_no_slurm_no_jobs_of_its(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / jobs.FOLDER).mkdir()
    assert jobs.queued(tmp_path) is None
    jobs.wait_for_earlier(tmp_path)


SWEEP = ("train", "-m", "stage=stage1", "seed=1,2", "hydra/launcher=slurm")


def test_without_sbatch_it_is_one_line(
    av1part: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = av1part(*SWEEP)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "no sbatch on PATH" in ran.error_lines[0]
    assert not Path("runs").exists()


@pytest.mark.parametrize("missing", ["submitit", "hydra_plugins.hydra_submitit_launcher"])
def test_without_the_extra_it_is_one_line(
    av1part: Command, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    find = jobs.importlib.util.find_spec
    monkeypatch.setattr(
        jobs.importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    ran = av1part(*SWEEP)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "av1part[cluster]" in ran.error_lines[0]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("hydra.launcher.timeout_min=soon", "soon"),
        ("hydra.launcher.timeout=5", "timeout"),
        ("+hydra.launcher.timeout=5", "timeout"),
    ],
)
def test_a_key_that_is_not_one_is_told(
    av1part: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, says: str
) -> None:
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = av1part(*SWEEP, word)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert says in ran.error_lines[0]
    assert not Path("runs").exists()


def test_a_launcher_is_for_sweeps(av1part: Command) -> None:
    ran = av1part("train", "stage=stage1", "hydra/launcher=slurm")
    assert ran.code == 2
    assert "hydra/launcher=slurm is for sweeps: add -m" in ran.error_lines[0]
    assert not Path("runs").exists()


def test_the_two_launchers_differ_by_the_gpu(av1part: Command) -> None:
    told = []
    for name in ("slurm", "slurm_gpu"):
        ran = av1part("train", "--cfg", "hydra", "-p", "hydra.launcher", f"hydra/launcher={name}")
        assert ran.code == 0, ran.err
        told.append(OmegaConf.to_container(OmegaConf.create(ran.out)))
    assert told[0]["gpus_per_node"] is None
    assert told[1] == {**told[0], "gpus_per_node": 1}


def test_the_file_says_what_each_key_is() -> None:
    lines = (CONF / "hydra/launcher/slurm.yaml").read_text().splitlines()
    keys = set(OmegaConf.load(CONF / "hydra/launcher/slurm.yaml"))
    asked = "partition account timeout_min gpus_per_node mem_gb array_parallelism setup"
    assert set(asked.split()) <= keys
    said = {line.partition(":")[0] for line in lines if "#" in line}
    assert keys - said - {"_target_", "setup", "additional_parameters"} == {
        "nodes",
        "tasks_per_node",
    }


def test_make_sweep_names_the_launcher(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    words = ["make", "-n", "-C", str(root), "sweep", "EXP=exp11a/all"]
    for more, expected in ((["LAUNCHER=slurm"], " hydra/launcher=slurm "), ([], "")):
        said = subprocess.run([*words, *more], capture_output=True, text=True, check=True).stdout
        assert expected in said
        assert ("hydra/launcher" in said) == bool(more)
