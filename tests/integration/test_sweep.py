"""Sweeps from the command line: what runs, what is kept, what is said, and what survives a kill."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from av1part.models.backbone import ResNet18
from av1part.runs.sweeps import read_record
from av1part.sweeps.state import begin

from .conftest import Command

EXPERIMENT = """# @package _global_
defaults:
  - override /stage: stage2
hydra:
  sweeper:
    variants:
      frozen: [method=frozen]
      adapter: [method=adapter]
      last: [method=adapter, "adapter.layers=[4]"]
    seeds: [0, 1]
    start: [stage=stage1, method=auto, trainer.max_epochs=1]
    baseline: frozen
"""


@pytest.fixture
def words(tmp_path: Path, on_small: tuple[str, ...]) -> tuple[str, ...]:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    return ("train", "-m", "--config-dir", str(tmp_path / "conf"), "experiment=tiny", *on_small)


def results(folder: Path) -> dict[str, dict]:
    """Return each job's metrics, without what a machine's clock makes of it."""
    return {
        file.parent.relative_to(folder).as_posix(): json.loads(file.read_text())
        for file in sorted(folder.rglob("metrics.json"))
        if ".outdated" not in file.parts
    }


def check_log(job: Path) -> None:
    """Check that a finished job has a log of its own, plain, and of nothing else."""
    text = (job / "train.log").read_text()
    epochs = len((job / "history.csv").read_text().splitlines()) - 1
    assert text.count(" INFO epoch ") == epochs
    assert text.count("best.ckpt verified") == 1
    assert text.splitlines()[-1].endswith(f"{job.name}/checkpoints/best.ckpt")
    assert "sweep:" not in text
    assert "\x1b" not in text


@pytest.fixture
def own_processes() -> Iterator[None]:
    """Leave no process of joblib's to the next test: it would work in this one's folder."""
    loky = pytest.importorskip("joblib.externals.loky")
    yield
    loky.get_reusable_executor().shutdown(wait=True, kill_workers=True)


@pytest.mark.slow
@pytest.mark.usefixtures("own_processes")
def test_jobs_of_several_processes_have_a_log_each(
    av1part: Command, on_small: tuple[str, ...]
) -> None:
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    ran = av1part("train", "-m", *joblib, "seed=1,2,3", *on_small, "name=ignored")
    assert ran.code == 0, ran.err
    jobs = [file.parent for file in Path("runs/sweep").glob("*/train.log")]
    assert len(jobs) == 3
    for job in jobs:
        check_log(job)
    assert "all 3 jobs are done" in (Path("runs/sweep") / "sweep.log").read_text()


def test_a_plan_is_run_once_and_what_changed_again(
    av1part: Command, words: tuple[str, ...]
) -> None:
    words = (*words, "~hydra.sweeper.variants.last", "trainer.max_epochs=1")
    ran = av1part(*words)
    assert ran.code == 0, ran.err
    sweep = Path("runs/tiny")
    members = [f"{v}/seed-{s}" for v in ("adapter", "frozen", "stage1") for s in (0, 1)]
    assert list(results(sweep)) == members
    record = json.loads((sweep / "sweep.json").read_text())
    assert record["baseline"] == "frozen"
    assert {job["folder"] for job in record["jobs"]} == set(members)
    # One backbone a seed: each run started from its own seed's, and from nothing else.
    starts = {
        member: json.loads((sweep / member / "job.json").read_text())["inputs"].get("stage1")
        for member in members
    }
    for seed in (0, 1):
        said = json.loads(
            (sweep / f"stage1/seed-{seed}/checkpoints/best.verified.json").read_text()
        )
        same = {starts[f"{v}/seed-{seed}"] for v in ("adapter", "frozen")}
        assert same == {said["sha256"]}
    assert starts["stage1/seed-0"] is None
    made = {m: (sweep / m / "metrics.json").stat().st_mtime_ns for m in members}
    for member in members:
        check_log(sweep / member)
    told = (sweep / "sweep.log").read_text()
    assert "2 done, 0 running, 0 failed, 0 left, 4 wait for these" in told
    assert "4 done, 0 running, 0 failed, 0 left\n" in told

    again = av1part(*words)
    assert again.code == 0, again.err
    assert "4 jobs, 4 of them done before" in again.out + again.err
    assert {m: (sweep / m / "metrics.json").stat().st_mtime_ns for m in members} == made

    (sweep / "adapter/seed-1/metrics.json").unlink()
    changed = av1part(*words, "head=linear")
    said = changed.out + changed.err
    assert changed.code == 0, changed.err
    assert "frozen/seed-0: outdated (other head." in said
    # Stage 1 has a head as well, so that all of it is trained anew.
    assert all((sweep / m / "metrics.json").stat().st_mtime_ns != made[m] for m in members)
    assert (sweep / ".outdated/frozen/seed-0/1/metrics.json").is_file()

    # The first words again: their results are copied from where they were put aside.
    back = av1part(*words)
    assert back.code == 0, back.err
    assert "frozen/seed-0: copied from" in back.out + back.err
    assert (sweep / "frozen/seed-0/metrics.json").stat().st_mtime_ns == made["frozen/seed-0"]
    some = av1part(*words, "hydra.sweeper.seeds=[0]")
    assert some.code == 0, some.err
    assert len(json.loads((sweep / "sweep.json").read_text())["jobs"]) == len(members)


def listed(sweep: Path) -> set[str]:
    """Return the folders that sweep.json names."""
    return {job["folder"] for job in json.loads((sweep / "sweep.json").read_text())["jobs"]}


def test_a_run_of_other_settings_is_no_member(
    av1part: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    """A first try of one epoch, with a seed of its own, and then the sweep."""
    frozen = '      adapter: [method=adapter]\n      last: [method=adapter, "adapter.layers=[4]"]\n'
    assert frozen in EXPERIMENT
    (tmp_path / "conf/experiment/tiny.yaml").write_text(EXPERIMENT.replace(frozen, ""))
    tried = av1part(*words, "trainer.max_epochs=1", "hydra.sweeper.seeds=[9]")
    assert tried.code == 0, tried.err
    sweep = Path("runs/tiny")
    assert listed(sweep) == {"stage1/seed-9", "frozen/seed-9"}
    ran = av1part(*words)
    assert ran.code == 0, ran.err
    members = {f"{v}/seed-{s}" for v in ("stage1", "frozen") for s in (0, 1)}
    # Its Stage 1 has the epochs that `start` says, and is what the sweep would make of that seed.
    assert listed(sweep) == {"stage1/seed-9", *members}
    left = "frozen/seed-9 is no longer in sweep.json: made from other trainer.max_epochs"
    assert ran.err.count("is no longer in sweep.json") == ran.err.count(left) == 1
    assert left in (sweep / "sweep.log").read_text()
    assert (sweep / "frozen/seed-9/metrics.json").is_file()

    record = sweep / "stage1/seed-9/job.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "code": "another"}))
    (sweep / "stage1/seed-1/metrics.json").unlink()
    some = av1part(*words, "hydra.sweeper.seeds=[0]")
    assert some.code == 0, some.err
    assert listed(sweep) == {"stage1/seed-0", "frozen/seed-0"}
    for name, why in (
        ("stage1/seed-9", "made from other code"),
        ("stage1/seed-1", "it has no result"),
        ("frozen/seed-1", "its Stage 1 is not done"),
    ):
        assert f"{name} is no longer in sweep.json: {why}\n" in some.err


@pytest.mark.slow
def test_what_a_seed_or_fold_says_itself_is_no_other_setting(
    av1part: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "conf/experiment/tiny.yaml").write_text(
        "# @package _global_\n"
        "hydra:\n"
        "  sweeper:\n"
        "    variants: {v: [stage=stage2, method=frozen, 'loss.gamma=${seed}']}\n"
        '    folds: {a: ["head.hidden=[8]"], b: ["head.hidden=[16]"]}\n'
        "    seeds: [0, 1]\n"
        "    start: [stage=stage1, method=auto]\n"
        "    start_per_variant: true\n"
    )
    given = (*words, "trainer.max_epochs=1")
    assert av1part(*given).code == 0
    sweep = Path("runs/tiny")
    places = ("v/", "stage1/v_")
    members = {f"{p}fold-{fold}_seed-{s}" for p in places for fold in "ab" for s in (0, 1)}
    assert listed(sweep) == members
    some = av1part(*given, "hydra.sweeper.seeds=[1]")
    assert some.code == 0, some.err
    assert listed(sweep) == members
    assert "is no longer in sweep.json" not in some.err
    one = av1part(*given, "hydra.sweeper.seeds=[1]", "~hydra.sweeper.folds.b")
    assert one.code == 0, one.err
    assert listed(sweep) == {f"{p}fold-a_seed-{s}" for p in places for s in (0, 1)}
    assert one.err.count("is no longer in sweep.json: the plan has no such run\n") == 4


@pytest.mark.slow
def test_without_a_plan_other_words_are_another_run(
    av1part: Command, on_small: tuple[str, ...]
) -> None:
    """All of them are called `run`, as long as one variant runs."""
    given = ("train", "-m", "stage=stage1", *on_small)
    assert av1part(*given, "trainer.max_epochs=1", "head=linear", "seed=1").code == 0
    assert av1part(*given, "trainer.max_epochs=1", "seed=1,2").code == 0
    sweep = Path("runs/sweep")
    assert len(listed(sweep)) == 2
    assert not any("linear" in folder for folder in listed(sweep))
    more = av1part(*given, "trainer.max_epochs=1", "seed=2,3")
    assert more.code == 0, more.err
    assert len(listed(sweep)) == 3


def test_a_job_that_is_done_has_its_plots(
    av1part: Command, on_small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise RuntimeError("pulled the plug")

    words = ("train", "-m", "stage=stage1", "seed=1", *on_small, "callbacks.plots=true")
    with monkeypatch.context() as patched:
        patched.setattr("av1part.cli.commands.train.write_run_plots", cut)
        assert av1part(*words).code == 2
    (job,) = (file.parent for file in Path("runs/sweep").glob("*/train.log"))
    assert not (job / "metrics.json").exists()
    again = av1part(*words)
    assert again.code == 0, again.err
    assert "1 jobs, 0 of them done before" in again.err
    plots = [job / f"plots/{name}.svg" for name in ("confusion", "learning")]
    done = (job / "metrics.json").stat().st_mtime_ns
    assert all(plot.stat().st_mtime_ns <= done for plot in plots)


@pytest.mark.slow
@pytest.mark.usefixtures("own_processes")
def test_a_killed_process_of_the_launcher_is_told(av1part: Command, words: tuple[str, ...]) -> None:
    """As where the system takes a process for want of memory."""
    killed = []

    def kill() -> None:
        holder = Path.cwd() / "runs/tiny/stage1/seed-0/.lock.json"
        while not holder.exists():
            time.sleep(0.05)
        killed.append(json.loads(holder.read_text())["process"])
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    ran = av1part(*words, *joblib, "trainer.max_epochs=100")
    assert killed[0] != os.getpid()
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "did not finish, first stage1/seed-" in ran.error_lines[0]
    assert "want of memory" in ran.err


def test_a_failed_job_does_not_stop_the_others(
    av1part: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "conf/experiment/tiny.yaml"
    bad = "last: [method=adapter, adapter=depthwise3x3]"
    file.write_text(
        EXPERIMENT.replace('last: [method=adapter, "adapter.layers=[4]"]', bad).replace(
            "seeds: [0, 1]", "seeds: [0]"
        )
    )
    ran = av1part(*words, "adapter.layers=[4]")
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "1 of 4 jobs" in ran.error_lines[0]
    assert "last/seed-0 (" in ran.error_lines[0]
    assert "adapter.kernel=3" in ran.error_lines[0]
    sweep = Path("runs/tiny")
    assert sorted(results(sweep)) == ["adapter/seed-0", "frozen/seed-0", "stage1/seed-0"]

    file.write_text(EXPERIMENT.replace("seeds: [0, 1]", "seeds: [0]"))
    mended = av1part(*words, "adapter.layers=[4]")
    assert mended.code == 0, mended.err
    assert "last/seed-0: outdated" in mended.out + mended.err
    assert "3 jobs, 2 of them done before" in mended.out + mended.err


def test_runs_wait_for_their_stage_1(
    av1part: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "conf/experiment/tiny.yaml"
    file.write_text(EXPERIMENT.replace("method=auto,", "method=frozen,"))  # of nothing
    ran = av1part(*words)
    assert ran.code == 2
    assert "2 of 2 jobs" in ran.error_lines[0]
    assert "6 more wait for their Stage 1" in ran.error_lines[0]
    record = json.loads(Path("runs/tiny/sweep.json").read_text())
    assert len(record["jobs"]) == 8  # so that a report names what is missing


def test_jobs_that_would_share_a_folder_are_refused(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.ckpt"
    shutil.copy(stage1, other)
    words = ("train", "-m", "stage=stage2", "method=frozen", f"stage1={stage1},{other}")
    ran = av1part(*words, *on_small)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "would share the folder runs/" in ran.error_lines[0]
    assert not list(Path("runs").rglob("config.yaml"))


@pytest.mark.parametrize("word", ["name=a/b", "name=."])
def test_a_name_that_no_run_may_have_is_refused_before_anything_runs(
    av1part: Command, on_small: tuple[str, ...], word: str
) -> None:
    ran = av1part("train", "-m", "stage=stage1", "seed=1,2", *on_small, word)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "run names are made of" in ran.error_lines[0]
    assert not Path("runs").exists()


def test_a_job_that_is_refused_at_once_says_why(
    av1part: Command, on_small: tuple[str, ...], tmp_path: Path
) -> None:
    begin(tmp_path / "job", {})
    ran = av1part("train", "stage=stage1", *on_small, "name=a/b", "hydra.run.dir=job")
    assert ran.code == 2
    assert "run names are made of" in (read_record(tmp_path / "job") or {})["error"]


def test_two_processes_do_not_run_one_sweep(av1part: Command, words: tuple[str, ...]) -> None:
    folder = Path("runs/tiny")
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        ran = av1part(*words)
    assert ran.code == 2
    assert ran.error_lines == [
        "av1part: runs/tiny is in use by another process: wait for it or end it, or choose another "
        "hydra.sweep.dir=..."
    ]
    assert not list(folder.glob("*/*"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[method=frozen]", "[method=frozzen]", "frozzen"),
        ("[method=frozen]", "method=frozen", "hydra.sweeper.variants.frozen must be a list"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "distinct"),
        ("baseline: frozen", "baseline: froze", "hydra.sweeper.baseline=froze"),
        ("baseline:", "basline:", "basline"),
        ("last: ", "stage1: ", "rename"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_anything_runs(
    av1part: Command, words: tuple[str, ...], tmp_path: Path, old: str, new: str, says: str
) -> None:
    file = tmp_path / "conf/experiment/tiny.yaml"
    assert old in EXPERIMENT
    file.write_text(EXPERIMENT.replace(old, new))
    ran = av1part(*words)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert says in ran.error_lines[0]
    assert not list(Path().glob("runs/*/*/*"))


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("{", "cannot be read"),
        ('{"format": 2, "versions": {"av1part": "99.0"}, "jobs": []}', "use that or a later one"),
        ('{"format": 1, "jobs": null}', "lacks `jobs`"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused_before_anything_runs(
    av1part: Command, words: tuple[str, ...], record: str, says: str
) -> None:
    file = Path("runs/tiny/sweep.json")
    file.parent.mkdir(parents=True)
    file.write_text(record)
    ran = av1part(*words)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert str(file) in ran.error_lines[0]
    assert says in ran.error_lines[0]
    assert "remove it and start the sweep again" in ran.error_lines[0]
    assert file.read_text() == record
    assert not list(Path().glob("runs/*/*/*"))


def start(words: tuple[str, ...], folder: Path) -> subprocess.Popen[bytes]:
    script = Path(sys.executable).with_name("av1part")
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen([script, *words], cwd=folder, stdout=out, stderr=out)


@pytest.mark.slow
def test_a_sweep_killed_at_random_ends_as_one_that_was_not(
    tmp_path: Path, words: tuple[str, ...], record_property: Callable[[str, object], None]
) -> None:
    """Three variants, three seeds; SIGKILL at moments uniform over the sweep's length."""
    file = tmp_path / "conf/experiment/tiny.yaml"
    file.write_text(EXPERIMENT.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    started = time.monotonic()
    assert start(words, whole).wait(timeout=600) == 0, (whole / "out.txt").read_text()[-3000:]
    length = time.monotonic() - started

    seed = int(os.environ.get("AV1PART_KILL_SEED", time.time_ns() % 10_000))
    moments = random.Random(seed)
    print(f"AV1PART_KILL_SEED={seed}, a sweep takes {length:.1f} s")
    record_property("kill_seed", seed)
    for _ in range(6):
        running = start(words, killed)
        try:
            running.wait(timeout=moments.uniform(0, length))
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
        for checkpoint in killed.rglob("*.ckpt"):
            assert checkpoint.stat().st_size > 0
    assert start(words, killed).wait(timeout=600) == 0, (killed / "out.txt").read_text()[-3000:]
    assert results(killed / "runs/tiny") == results(whole / "runs/tiny")
    histories = [
        {f.relative_to(folder): f.read_text() for f in folder.rglob("history.csv")}
        for folder in (whole, killed)
    ]
    assert histories[0] == histories[1]


def test_what_another_sweep_has_trained_is_copied(
    av1part: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "conf/experiment"
    few = EXPERIMENT.replace("seeds: [0, 1]", "seeds: [0]")
    (folder / "tiny.yaml").write_text(few.replace("      adapter: [method=adapter]\n", ""))
    (folder / "more.yaml").write_text(few)
    assert av1part(*words).code == 0
    more = av1part(*(word.replace("=tiny", "=more") for word in words))
    assert more.code == 0, more.err
    said = more.out + more.err
    for name in ("stage1", "frozen", "last"):
        assert f"{name}/seed-0: copied from" in said
    assert "3 jobs, 2 of them done before" in said
    assert list(results(Path("runs/more"))) == [
        f"{name}/seed-0" for name in ("adapter", "frozen", "last", "stage1")
    ]
    apart = results(Path("runs/tiny"))
    assert {k: v for k, v in results(Path("runs/more")).items() if k in apart} == apart


def test_the_test_split_is_opened_once_and_by_name(
    av1part: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "conf/experiment/tiny.yaml"
    file.write_text(EXPERIMENT.replace("seeds: [0, 1]", "seeds: [0]"))
    assert av1part(*words).code == 0
    sweep = Path("runs/tiny")

    refused = av1part("validate", sweep)
    assert refused.code == 2
    assert "split=test" in refused.error_lines[0]
    metrics = sweep / "last/seed-0/metrics.json"
    kept = metrics.read_text()
    metrics.unlink()
    early = av1part("validate", sweep, "split=test")
    assert early.code == 2
    assert "1 jobs" in early.error_lines[0]
    assert "last/seed-0" in early.error_lines[0]
    metrics.write_text(kept)
    for given in ("variants=[]", "variants=frozen"):
        assert "list of names" in av1part("validate", sweep, "split=test", given).error_lines[0]
    unknown = av1part("validate", sweep, "split=test", "variants=[frozn]")
    assert unknown.code == 2
    assert "frozn is none of adapter, frozen, last" in unknown.error_lines[0]
    assert not (sweep / "test.json").exists()

    opened = av1part("validate", sweep, "split=test", "variants=[frozen]")
    assert opened.code == 0, opened.err
    told = json.loads((sweep / "test.json").read_text())
    assert list(told["runs"]) == ["frozen/seed-0"]
    alone = av1part(
        "validate", sweep / "frozen/seed-0/checkpoints/best.ckpt", "split=test", "out=alone"
    )
    assert alone.code == 0, alone.err
    made_from = [
        told["runs"]["frozen/seed-0"].pop(f"{what}_sha256")
        for what in ("checkpoint", "config", "dataset")
    ]
    of = made_from[0]
    assert all(len(each) == 64 for each in made_from)
    metrics = json.loads(Path("alone/metrics.json").read_text())
    assert metrics.pop("format") == 2
    assert metrics == told["runs"]["frozen/seed-0"]
    record = json.loads((sweep / "frozen/seed-0/checkpoints/best.verified.json").read_text())
    assert of == record["sha256"]

    again = av1part("validate", sweep, "split=test")
    assert again.code == 2
    assert told["opened"][0]["at"] in again.error_lines[0]
    assert "reopen=true" in again.error_lines[0]
    assert av1part("validate", sweep, "split=test", "reopen=true").code == 0
    told = json.loads((sweep / "test.json").read_text())
    assert [each["variants"] for each in told["opened"]] == [
        ["frozen"],
        ["adapter", "frozen", "last"],
    ]
    page = av1part("report", sweep, "publish=kept")
    assert page.code == 0, page.err
    assert "The test split" in (sweep / "report/report.md").read_text()
    assert json.loads(Path("kept/test.json").read_text()) == told
    told["runs"]["last/seed-0"]["checkpoint_sha256"] = of  # as if it was trained again since
    (sweep / "test.json").write_text(json.dumps(told))
    assert av1part("report", sweep).code == 0
    assert "trained again after that: last/seed-0" in (sweep / "report/report.md").read_text()


def test_options_of_a_sweep_are_refused_for_a_checkpoint(av1part: Command) -> None:
    ran = av1part("validate", "some.ckpt", "reopen=true")
    assert ran.code == 2
    assert "are for the folder of a sweep" in ran.error_lines[0]


def test_a_variant_with_weights_of_its_own_takes_no_stage_1(
    av1part: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "conf/experiment/tiny.yaml").write_text(
        EXPERIMENT.replace("seeds: [0, 1]", "seeds: [0]")
    )
    backbone = ResNet18(width=4, se=False, attention=False)
    torch.save(backbone.state_dict(), "weights.pth")
    given = '+hydra.sweeper.variants.given=["method=finetune","backbone.weights=weights.pth"]'
    ran = av1part(*words, given)
    assert ran.code == 0, ran.err
    inputs = json.loads(Path("runs/tiny/given/seed-0/job.json").read_text())["inputs"]
    assert "backbone.weights" in inputs
    assert "stage1" not in inputs
    assert "stage1" in json.loads(Path("runs/tiny/frozen/seed-0/job.json").read_text())["inputs"]
