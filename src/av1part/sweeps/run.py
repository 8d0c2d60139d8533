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
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import configure_log
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from av1part.configuration import check_values, plain
from av1part.environment import git_commit, versions
from av1part.errors import ConfigError, SweepError, first_line
from av1part.files import remove_parts, write_json
from av1part.folder_lock import folder_lock
from av1part.logs import run_log
from av1part.sweeps.plan import START, Job, Plan, expand, read_plan
from av1part.sweeps.reuse import Neighbours
from av1part.sweeps.slurm import wait_for_earlier
from av1part.sweeps.state import (
    SWEEP,
    SWEEP_FORMAT,
    State,
    begin,
    depends_on,
    read_json,
    read_record,
    state_of,
)
from av1part.sweeps.watch import Watch

log = logging.getLogger(__name__)

OUTDATED = ".outdated"
"""Folder, hidden from reports, of results that the plan has made obsolete; the latest of each."""


@dataclass(frozen=True)
class _Composed:
    """A job with its folder and what it depends on."""

    job: Job
    words: tuple[str, ...]
    folder: Path
    wanted: dict[str, Any]

    @property
    def state(self) -> State:
        return state_of(self.folder, self.wanted)


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
        ConfigError: if the plan or a job's words are not what they must be, or another process
            runs the sweep; nothing has run then.
        SweepError: if jobs failed, of which the others have run.
    """
    plan = read_plan(given)
    compose = _Composer(Path(config.hydra.sweep.dir), config, loader, named=plan.names_folders)
    compose.log()
    jobs = expand(plan, arguments, OverridesParser.create(config_loader=loader))
    for job in jobs:  # all of them, before the first runs
        _check_one_process(compose.settings(job.words))
    compose.folder.mkdir(parents=True, exist_ok=True)
    lock = folder_lock(compose.folder, "choose another hydra.sweep.dir=...")
    with lock, run_log(compose.folder / "sweep.log", logger="av1part.sweeps", always=True):
        wait_for_earlier(compose.folder)
        remove_parts(compose.folder, below=False)
        return _run_all(plan, jobs, compose, launcher)


def _run_all(plan: Plan, jobs: Sequence[Job], compose: _Composer, launcher: Launcher) -> list[Path]:
    starts = [compose(job, None) for job in jobs if job.variant == START and plan.start]
    neighbours = Neighbours(compose.folder)
    _run(starts, launcher, 0, neighbours, waiting=len(jobs) - len(starts))
    compose.log()
    for each in starts:
        if each.state.kind == "done" and not _best(each).is_file():
            raise SweepError(
                f"{_best(each)} is gone, from which other jobs start: restore it, or remove "
                f"{each.folder} to train it again"
            )
    best = {
        (each.job.of, each.job.fold, each.job.seed): _best(each)
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
    _write_record(compose.folder, plan, compose.config, planned)
    _run(others, launcher, len(starts), neighbours)
    compose.log()
    return _summed_up([*starts, *others], orphans, compose.folder)


class _Composer:
    """Makes jobs ready to be launched."""

    def __init__(self, folder: Path, config: DictConfig, loader: Any, *, named: bool) -> None:
        self.folder = folder
        self.config = config
        self.loader = loader
        self.named = named
        self._known: dict[tuple[str, ...], dict[str, Any]] = {}

    def __call__(self, job: Job, start: Path | None) -> _Composed:
        words = self.words(job, start)
        cfg = self.loader.load_sweep_config(self.config, list(words))
        folder = Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir
        return _Composed(job, words, folder, depends_on(self._plain(cfg)))

    def words(self, job: Job, start: Path | None) -> tuple[str, ...]:
        """Return the words of a job, with those that say where it is and that it may go on."""
        words = [*job.words, "resume=true"]
        if self.named:
            words += [f"hydra.sweep.dir={_quoted(self.folder)}"]
            words += [f"hydra.sweep.subdir={job.variant or 'run'}/{job.member}"]
        if start is not None and self.starts_elsewhere(job):
            words.append(f"stage1={_quoted(start)}")
        return tuple(words)

    def starts_elsewhere(self, job: Job) -> bool:
        """Return whether a job needs a start: not if it starts at random or has weights given."""
        own_weights = any(word.startswith("backbone.weights=") for word in job.words)
        return bool(self.settings(job.words)["method"]["name"] != "scratch" and not own_weights)

    def settings(self, words: tuple[str, ...]) -> dict[str, Any]:
        """Compose a job's settings and check them.

        Args:
            words: The job's.

        Returns:
            The settings, plain values.

        Raises:
            ConfigError: naming the key.
        """
        if words not in self._known:
            cfg = self.loader.load_sweep_config(self.config, list(words))
            self._known[words] = self._plain(cfg)
        return self._known[words]

    def log(self) -> None:
        """Have the log lines of this process shown as a job's are; launchers end that."""
        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)

    def _plain(self, cfg: DictConfig) -> dict[str, Any]:
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        check_values(own, "train")
        return plain(own)


def _run(
    jobs: Sequence[_Composed],
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


def _check_folders(jobs: Sequence[_Composed]) -> None:
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


def _brought_back(each: _Composed) -> bool:
    """Take back a result that was put aside, if the plan asks for just that again."""
    for kept in sorted(_aside(each.folder).glob("*")):
        if state_of(kept, each.wanted).kind == "done":
            if each.folder.is_dir():
                _put_aside(each.folder)
            kept.rename(each.folder)
            log.info("%s: brought back from %s", _name(each), kept)
            return True
    return False


def _taken_over(each: _Composed, neighbours: Neighbours) -> bool:
    """Take a copy of what another sweep has trained already."""
    if each.folder.exists():  # with nothing in it but job.json: an earlier start did not get to it
        shutil.rmtree(each.folder)
    each.folder.parent.mkdir(parents=True, exist_ok=True)
    copied = neighbours.copy(each.wanted, each.folder)
    if copied is not None:
        log.info("%s: copied from %s", _name(each), copied)
    return copied is not None


def _best(each: _Composed) -> Path:
    return each.folder / "checkpoints" / "best.ckpt"


def _summed_up(jobs: Sequence[_Composed], orphans: Sequence[_Composed], folder: Path) -> list[Path]:
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


def _write_record(folder: Path, plan: Plan, config: DictConfig, jobs: Sequence[_Composed]) -> None:
    """Write sweep.json: which folder is of which variant, fold and seed.

    Runs of the same variants that an earlier start recorded, such as other seeds, stay in it.
    Jobs of several stages are no sweep, since no table holds them.
    """
    if len({each.wanted["settings"]["stage.name"] for each in jobs if not _is_start(each)}) > 1:
        return
    told = [
        {
            "folder": each.folder.relative_to(folder).as_posix(),
            "variant": variant,
            "member": member,
            "words": list(each.job.words),
        }
        for each, (variant, member) in zip(jobs, _labels(jobs), strict=True)
    ]
    variants, folders = ({job[key] for job in told} for key in ("variant", "folder"))
    earlier = (read_json(folder / SWEEP) or {}).get("jobs", [])
    told += [
        job
        for job in earlier
        if job["variant"] in variants
        and job["folder"] not in folders
        and (folder / job["folder"] / "metrics.json").is_file()
    ]
    write_json(
        folder / SWEEP,
        {
            "format": SWEEP_FORMAT,
            "experiment": OmegaConf.select(config, "hydra.runtime.choices.experiment"),
            "baseline": plan.baseline,
            "git_commit": git_commit(),
            "versions": versions(),
            "jobs": told,
        },
    )


def _is_start(each: _Composed) -> bool:
    return each.job.variant == START


def _labels(jobs: Sequence[_Composed]) -> list[tuple[str, str]]:
    """Return variant and member of each; where the plan names none, by the words that differ."""
    shared = set.intersection(*(set(each.job.words) for each in jobs)) if jobs else set()
    found = []
    for each in jobs:
        own = [word for word in each.job.words if word not in shared]
        seeds = [word.replace("=", "-") for word in own if word.startswith("seed=")]
        others = " ".join(word for word in own if not word.startswith("seed="))
        member = each.job.member if each.job.variant else "_".join(seeds) or "run"
        found.append((each.job.variant or others or "run", member))
    return found


def _name(each: _Composed) -> str:
    return "/".join(each.folder.parts[-2:]) if each.job.variant else each.folder.name


def _quoted(path: Path) -> str:
    from av1part.cli import quote_paths

    return quote_paths([f"out={path}"])[0].removeprefix("out=")
