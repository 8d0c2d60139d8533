"""Running a sweep: see what its folders lack, launch that, tell how far it is, sum up.

The jobs' folders are all the state there is. A sweep that was killed is started again by the same
words: finished jobs are kept, an interrupted one goes on from its last verified checkpoint.
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

from av1part.runs.schema import check_run_name
from av1part.runs.sweeps import START, read_record
from av1part.sweeps.compose import Composed, Composer
from av1part.sweeps.plan import Job, Plan, expand, read_plan
from av1part.sweeps.record import recorded, write_record
from av1part.sweeps.reuse import Neighbours
from av1part.sweeps.slurm import wait_for_earlier
from av1part.sweeps.state import begin, state_of
from av1part.sweeps.watch import Watch
from av1part.system.errors import ConfigError, SweepError, first_line
from av1part.system.files import remove_parts
from av1part.system.locks import folder_lock
from av1part.system.logs import run_log

log = logging.getLogger(__name__)

OUTDATED = ".outdated"
"""Folder, hidden from reports, of results that the plan has made obsolete; the latest of each."""


def run_sweep(
    given: Mapping[str, Any],
    arguments: Sequence[str],
    config: DictConfig,
    loader: Any,
    launcher: Launcher,
) -> list[Path]:
    """Run what a sweep lacks.

    Args:
        given: The sweeper's configuration, the keys of conf/hydra/sweeper/plan.yaml, unresolved.
        arguments: Overrides of the command line.
        config: Hydra's configuration of the sweep.
        loader: Hydra's, which composes the jobs.
        launcher: What runs them.

    Returns:
        The folders of all jobs, finished.

    Raises:
        ConfigError: if the plan, a job's words or sweep.json are not what they must be, or another
            process runs the sweep; nothing has run then.
        SweepError: if jobs failed, of which the others have run.
    """
    plan = read_plan(given)
    compose = Composer(Path(config.hydra.sweep.dir), config, loader, named=plan.names_folders)
    compose.log()
    jobs = expand(plan, arguments, OverridesParser.create(config_loader=loader))
    for job in jobs:  # all of them, before the first runs
        settings = compose.settings(job.words)
        check_run_name(str(settings["name"]))  # its folder is not called so, but the job checks it
        _check_one_process(settings)
    compose.folder.mkdir(parents=True, exist_ok=True)
    lock = folder_lock(compose.folder, "choose another hydra.sweep.dir=...")
    with lock, run_log(compose.folder / "sweep.log", logger="av1part.sweeps", always=True):
        earlier = recorded(compose.folder)  # before hours of training, not after
        wait_for_earlier(compose.folder)
        remove_parts(compose.folder, below=False)
        return _run_all(plan, jobs, earlier, compose, launcher)


def _run_all(
    plan: Plan,
    jobs: Sequence[Job],
    earlier: Sequence[dict[str, Any]],
    compose: Composer,
    launcher: Launcher,
) -> list[Path]:
    starts = [compose(job, None) for job in jobs if job.variant == START and plan.start]
    neighbours = Neighbours(compose.folder)
    _run(starts, launcher, 0, neighbours, waiting=len(jobs) - len(starts))
    compose.log()
    for each in starts:
        if each.state.kind == "done" and not each.best.is_file():
            raise SweepError(
                f"{each.best} is gone, from which other jobs start: restore it, or remove "
                f"{each.folder} to train it again"
            )
    best = {
        (each.job.of, each.job.fold, each.job.seed): each.best
        for each in starts
        if each.state.kind == "done"
    }
    others, orphans = [], []
    for job in jobs[len(starts) :]:
        of = job.variant if plan.start_per_variant else None
        start = best.get((of, job.fold, job.seed))
        if plan.start is not None and start is None and compose.starts_elsewhere(job):
            orphans.append(compose(job, None))
        else:
            others.append(compose(job, start))
    planned = [*starts, *others, *orphans]
    _check_folders(planned)
    write_record(compose, plan, planned, earlier)
    _run(others, launcher, len(starts), neighbours)
    compose.log()
    return _summed_up([*starts, *others], orphans, compose.folder)


def _run(
    jobs: Sequence[Composed],
    launcher: Launcher,
    index: int,
    neighbours: Neighbours,
    waiting: int = 0,
) -> None:
    """Launch those that are not done, and wait for them, as `waiting` further jobs do."""
    todo = []
    for each in jobs:
        state = each.state
        if state.kind == "done" or _brought_back(each):
            continue
        if state.kind != "missing":
            why = f" ({state.why})" if state.why else ""
            log.info("%s: %s%s, to be run again", _name(each), state.kind, why)
        if state.kind == "outdated" or (read_record(each.folder) or {}).get("anew"):
            _put_aside(each.folder)
        if state.kind in ("missing", "outdated") and _taken_over(each, neighbours):
            continue
        begin(each.folder, each.wanted)
        todo.append(each)
    if not jobs:
        return
    log.info("%d jobs, %d of them done before", len(jobs), len(jobs) - len(todo))
    if todo:
        with Watch([each.folder for each in todo], waiting=waiting):
            try:
                launcher.launch([list(each.words) for each in todo], initial_job_idx=index)
            except BrokenProcessPool as error:
                log.warning(
                    "a process of the launcher was ended from outside, perhaps for want of memory: "
                    "fewer at once (hydra.launcher.n_jobs) need less (%s)",
                    first_line(error),
                )


def _check_one_process(settings: Mapping[str, Any]) -> None:
    """Refuse a job of several processes: they would be started with the words of the sweep.

    Raises:
        ConfigError: naming the remedy.
    """
    trainer = settings["trainer"]
    alone = trainer["devices"] in (1, "1") or (
        isinstance(trainer["devices"], (list, tuple)) and len(trainer["devices"]) == 1
    )
    if not alone or trainer.get("num_nodes", 1) != 1 or trainer.get("strategy", "auto") != "auto":
        raise ConfigError(
            "a sweep's jobs have one process each: use trainer.devices=1 with trainer=cpu or "
            "trainer=gpu (several run at once by the launcher), or train one run without -m"
        )


def _check_folders(jobs: Sequence[Composed]) -> None:
    """Refuse jobs that Hydra would put into one folder: it names them without paths.

    Raises:
        ConfigError: naming the folder.
    """
    twice = [folder for folder, n in Counter(each.folder for each in jobs).items() if n > 1]
    if twice:
        raise ConfigError(
            f"two jobs of the sweep would share the folder {twice[0]}, which is named without "
            "paths: give them names as hydra.sweeper.variants of an experiment"
        )


def _put_aside(folder: Path) -> None:
    if not (folder / "metrics.json").is_file():
        shutil.rmtree(folder)
        return
    place = _aside(folder)
    place.mkdir(parents=True, exist_ok=True)
    folder.rename(next(p for n in count(1) if not (p := place / f"{n}").exists()))


def _aside(folder: Path) -> Path:
    """Return where a job's results go that are out of date; each under a number."""
    folder = folder.resolve()
    return folder.parents[1] / OUTDATED / folder.parent.name / folder.name


def _brought_back(each: Composed) -> bool:
    """Take back a result that was put aside, if the plan asks for just that again."""
    for kept in sorted(_aside(each.folder).glob("*")):
        if state_of(kept, each.wanted).kind == "done":
            if each.folder.is_dir():
                _put_aside(each.folder)
            kept.rename(each.folder)
            log.info("%s: brought back from %s", _name(each), kept)
            return True
    return False


def _taken_over(each: Composed, neighbours: Neighbours) -> bool:
    """Take a copy of what another sweep has trained already."""
    if each.folder.exists():  # with nothing in it but job.json: an earlier start did not get to it
        shutil.rmtree(each.folder)
    each.folder.parent.mkdir(parents=True, exist_ok=True)
    copied = neighbours.copy(each.wanted, each.folder)
    if copied is not None:
        log.info("%s: copied from %s", _name(each), copied)
    return copied is not None


def _summed_up(jobs: Sequence[Composed], orphans: Sequence[Composed], folder: Path) -> list[Path]:
    """Return the folders of finished jobs.

    Raises:
        SweepError: if not all are.
    """
    states = {_name(each): each.state for each in jobs}
    wrong = {name: state for name, state in states.items() if state.kind != "done"}
    for name, state in wrong.items():
        log.error("%s %s: %s", name, state.kind, state.why or "see its train.log")
    if wrong or orphans:
        first = next(iter(wrong))
        more = f"; {len(orphans)} more wait for their Stage 1" if orphans else ""
        raise SweepError(
            f"{len(wrong)} of {len(states)} jobs in {folder} did not finish, first {first} "
            f"({wrong[first].why or wrong[first].kind}){more}: mend it and start the sweep again, "
            "what is done stays"
        )
    log.info("all %d jobs are done, in %s", len(jobs), folder)
    return [each.folder for each in jobs]


def _name(each: Composed) -> str:
    return "/".join(each.folder.parts[-2:]) if each.job.variant else each.folder.name
