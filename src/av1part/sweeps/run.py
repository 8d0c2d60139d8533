"""Running a sweep: find the jobs without a result, launch them, show the progress, sum up.

The jobs' folders are all the state there is. A sweep that was killed is started again by the same
command: finished jobs are kept, an interrupted one goes on from its last verified checkpoint.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from av1part.runs.schema import METRICS_FILE, TRAIN_LOG, check_run_name
from av1part.runs.sweeps import START, read_record
from av1part.sweeps.compose import Composed, Composer
from av1part.sweeps.plan import Job, expand, read_plan
from av1part.sweeps.record import recorded, write_record
from av1part.sweeps.reuse import OUTDATED, FinishedRuns
from av1part.sweeps.slurm import wait_for_earlier
from av1part.sweeps.state import begin
from av1part.sweeps.watch import Watch
from av1part.system.errors import ConfigError, SweepError, first_line
from av1part.system.files import remove_parts
from av1part.system.locks import folder_lock
from av1part.system.logs import run_log

log = logging.getLogger(__name__)


def run_sweep(
    options: Mapping[str, Any],
    arguments: Sequence[str],
    config: DictConfig,
    loader: Any,
    launcher: Launcher,
) -> list[Path]:
    """Run the jobs of a sweep that have no result yet.

    Args:
        options: The sweeper's configuration, the keys of conf/hydra/sweeper/plan.yaml, unresolved.
        arguments: Overrides of the command line.
        config: Hydra's configuration of the sweep.
        loader: Hydra's, which composes the jobs.
        launcher: Runs them.

    Returns:
        The folders of all jobs, finished.

    Raises:
        ConfigError: if the plan, a job's overrides or sweep.json are invalid, or another process
            runs the sweep; nothing has run then.
        SweepError: if jobs failed; the others have run.
    """
    plan = read_plan(options)
    compose = Composer(Path(config.hydra.sweep.dir), config, loader, plan)
    compose.configure_log()
    jobs = expand(plan, arguments, OverridesParser.create(config_loader=loader))
    for job in jobs:  # all of them, before the first runs
        settings = compose.settings(job.overrides)
        check_run_name(str(settings["name"]))  # its folder is not called so, but the job checks it
        _check_one_process(settings)
    compose.folder.mkdir(parents=True, exist_ok=True)
    lock = folder_lock(compose.folder, "choose another hydra.sweep.dir=...")
    with lock, run_log(compose.folder / "sweep.log", logger="av1part.sweeps", always=True):
        recorded(compose.folder)  # a damaged sweep.json is an error before hours of training
        wait_for_earlier(compose.folder)
        remove_parts(compose.folder, below=False)
        return _run_all(jobs, compose, launcher, arguments)


def _run_all(
    jobs: Sequence[Job], compose: Composer, launcher: Launcher, arguments: Sequence[str]
) -> list[Path]:
    starts = [compose(job) for job in jobs if job.variant == START]
    finished = FinishedRuns(compose.folder)
    _run(starts, launcher, 0, finished, waiting=len(jobs) - len(starts))
    compose.configure_log()
    for start in starts:
        if start.state.kind == "done" and not start.best.is_file():
            raise SweepError(
                f"{start.best} is gone, from which other jobs start: restore it, or remove "
                f"{start.folder} to train it again"
            )
    ready, orphans = [], []
    for job in jobs[len(starts) :]:
        composed = compose.with_start(job, starts)
        if composed is None:
            orphans.append(compose(job))
        else:
            ready.append(composed)
    planned = [*starts, *ready, *orphans]
    _check_folders(planned)
    write_record(compose, planned, recorded(compose.folder), arguments)
    _run(ready, launcher, len(starts), finished)
    compose.configure_log()
    return _summed_up([*starts, *ready], orphans, compose.folder)


def _run(
    jobs: Sequence[Composed],
    launcher: Launcher,
    index: int,
    finished: FinishedRuns,
    waiting: int = 0,
) -> None:
    """Launch the jobs that are not done and wait for them; `waiting` further jobs come later."""
    todo = [job for job in jobs if not _is_done(job, finished)]
    if not jobs:
        return
    log.info("%d jobs, %d of them done before", len(jobs), len(jobs) - len(todo))
    if todo:
        with Watch([job.folder for job in todo], waiting=waiting):
            try:
                launcher.launch([list(job.overrides) for job in todo], initial_job_idx=index)
            except BrokenProcessPool as error:
                log.warning(
                    "a process of the launcher was ended from outside, perhaps for want of memory: "
                    "fewer at once (hydra.launcher.n_jobs) need less (%s)",
                    first_line(error),
                )


def _is_done(job: Composed, finished: FinishedRuns) -> bool:
    """Return whether a job has its result, copied if need be; else make its folder ready."""
    state = job.state
    if state.kind == "done":
        return True
    if state.kind != "missing":
        why = f" ({state.why})" if state.why else ""
        log.info("%s: %s%s, to be run again", _name(job), state.kind, why)
    if state.kind == "outdated" or (read_record(job.folder) or {}).get("anew"):
        _put_aside(job.folder)
    if state.kind in ("missing", "outdated") and _copied(job, finished):
        return True
    begin(job.folder, job.wanted)
    return False


def _check_one_process(settings: Mapping[str, Any]) -> None:
    """Refuse a job of several processes: they would be started with the overrides of the sweep.

    Raises:
        ConfigError: naming the remedy.
    """
    trainer = settings["trainer"]
    alone = trainer["devices"] in (1, "1") or (
        isinstance(trainer["devices"], (list, tuple)) and len(trainer["devices"]) == 1
    )
    nodes, strategy = trainer.get("num_nodes") or 1, trainer.get("strategy") or "auto"
    if not alone or nodes != 1 or strategy != "auto":
        raise ConfigError(
            "a sweep's jobs have one process each: use trainer.devices=1 with trainer=cpu or "
            "trainer=gpu (several run at once by the launcher), or train one run without -m"
        )


def _check_folders(jobs: Sequence[Composed]) -> None:
    """Refuse jobs that Hydra would put into one folder: it names them without paths.

    Raises:
        ConfigError: naming the folder.
    """
    twice = [folder for folder, n in Counter(job.folder for job in jobs).items() if n > 1]
    if twice:
        raise ConfigError(
            f"two jobs of the sweep would share the folder {twice[0]}, which is named without "
            "paths: give them names as hydra.sweeper.variants of an experiment"
        )


def _put_aside(folder: Path) -> None:
    """Move a result into OUTDATED, under the next free number; remove what has no result."""
    if not (folder / METRICS_FILE).is_file():
        shutil.rmtree(folder)
        return
    folder = folder.resolve()
    place = folder.parents[1] / OUTDATED / folder.parent.name / folder.name
    place.mkdir(parents=True, exist_ok=True)
    folder.rename(next(path for n in count(1) if not (path := place / f"{n}").exists()))


def _copied(job: Composed, finished: FinishedRuns) -> bool:
    """Copy the result of the same run, if another sweep has it or this one has put it aside."""
    if job.folder.exists():  # with nothing in it but job.json: an earlier start did not get to it
        shutil.rmtree(job.folder)
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    source = finished.copy(job.wanted, job.folder)
    if source is not None:
        log.info("%s: copied from %s", _name(job), source)
    return source is not None


def _summed_up(jobs: Sequence[Composed], orphans: Sequence[Composed], folder: Path) -> list[Path]:
    """Return the folders of finished jobs.

    Raises:
        SweepError: if not all are.
    """
    states = {_name(job): job.state for job in jobs}
    failed = {name: state for name, state in states.items() if state.kind != "done"}
    for name, state in failed.items():
        log.error("%s %s: %s", name, state.kind, state.why or f"see its {TRAIN_LOG}")
    if failed or orphans:
        first = next(iter(failed))
        more = f"; {len(orphans)} more wait for their Stage 1" if orphans else ""
        why = failed[first].why or failed[first].kind
        raise SweepError(
            f"{len(failed)} of {len(states)} jobs in {folder} did not finish, first {first} "
            f"({why}){more}: mend it and start the sweep again, "
            "what is done stays"
        )
    log.info("all %d jobs are done, in %s", len(jobs), folder)
    return [job.folder for job in jobs]


def _name(job: Composed) -> str:
    return "/".join(job.folder.parts[-2:]) if job.job.variant else job.folder.name
