"""sweep.json, which tells reports what each folder is: its variant, fold and seed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from av1part.runs.sweeps import START, SWEEP, SWEEP_FORMAT, read_record, read_sweep
from av1part.sweeps.compose import Composed, Composer
from av1part.sweeps.plan import Job, Plan
from av1part.system.environment import git_commit, versions
from av1part.system.errors import ConfigError
from av1part.system.files import write_json

log = logging.getLogger(__name__)


def recorded(folder: Path) -> list[dict[str, Any]]:
    """Return the jobs that sweep.json names; none where there is no such file.

    Args:
        folder: The sweep's.

    Returns:
        Each with `folder`, `variant` and `member`.

    Raises:
        ConfigError: if the file cannot be read; it is not to be written over then.
    """
    if not (folder / SWEEP).exists():
        return []
    jobs: list[dict[str, Any]] = read_sweep(folder)["jobs"]
    return jobs


def write_record(
    compose: Composer, plan: Plan, jobs: Sequence[Composed], earlier: Sequence[dict[str, Any]]
) -> None:
    """Write sweep.json.

    Runs that an earlier start recorded, such as other seeds, stay in it as long as the plan would
    make the same of them today: means and tests are over them all. A line tells which do not.
    Jobs of several stages are no sweep, since no table holds them.

    Args:
        compose: What makes the sweep's jobs ready.
        plan: Its plan.
        jobs: All of the plan's.
        earlier: What it named before, as `recorded` has it.
    """
    if len({each.wanted["settings"]["stage.name"] for each in jobs if not _is_start(each)}) > 1:
        return
    labels, folder = _labels(jobs), compose.folder
    told = [
        {
            "folder": each.folder.relative_to(folder).as_posix(),
            "variant": variant,
            "member": member,
            "words": list(each.job.words),
        }
        for each, (variant, member) in zip(jobs, labels, strict=True)
    ]
    folders = {job["folder"] for job in told}
    others = _OtherSeeds(compose, plan, jobs, [variant for variant, _ in labels])
    for job in earlier:
        if job["folder"] in folders:
            continue
        if why := others.why_not(job):
            log.info("%s is no longer in sweep.json: %s", job["folder"], why)
        else:
            told.append(job)
    write_json(
        folder / SWEEP,
        {
            "format": SWEEP_FORMAT,
            "experiment": OmegaConf.select(compose.config, "hydra.runtime.choices.experiment"),
            "baseline": plan.baseline,
            "git_commit": git_commit(),
            "versions": versions(),
            "jobs": told,
        },
    )


class _OtherSeeds:
    """What the plan would come to with seeds that it does not name."""

    def __init__(
        self, compose: Composer, plan: Plan, jobs: Sequence[Composed], variants: Sequence[str]
    ) -> None:
        self._compose = compose
        self._own_starts = plan.start_per_variant
        self._jobs: dict[str, list[Job]] = {}
        for each, variant in zip(jobs, variants, strict=True):
            self._jobs.setdefault(variant, []).append(each.job)
        self._starts = {(e.job.of, e.job.fold): e.job for e in jobs if _is_start(e)}

    def why_not(self, recorded: Mapping[str, Any]) -> str | None:
        """Say why a run is not what the plan would make with its seed; None if it is."""
        folder = self._compose.folder / recorded["folder"]
        if recorded["variant"] not in self._jobs:
            return "the plan has no such variant"
        if not (folder / "metrics.json").is_file():
            return "it has no result"
        seed = _seed_of(folder)
        if seed is None:
            return "it does not say what it was made from"
        named = self._compose.named
        for job in dict.fromkeys(_with_seed(job, seed) for job in self._jobs[recorded["variant"]]):
            if named and job.member != recorded["member"]:
                continue
            try:
                found = self._compose(job, self._start(job, seed))
            except ConfigError as error:  # such as a file that is gone
                return str(error)
            if found.folder == folder:
                state = found.state
                return None if state.kind == "done" else f"made from {state.why}"
        return "the plan has no such run"

    def _start(self, job: Job, seed: int) -> Path | None:
        """Return the checkpoint that a job would start from.

        Raises:
            ConfigError: if it is not there, or of other settings, data or code.
        """
        of = job.variant if self._own_starts else None
        first = self._starts.get((of, job.fold))
        if first is None or job.variant == START or not self._compose.starts_elsewhere(job):
            return None
        start = self._compose(_with_seed(first, seed), None)
        if (kind := start.state.kind) != "done":
            raise ConfigError(f"its Stage 1 is {kind}")
        return start.best


def _seed_of(folder: Path) -> int | None:
    settings = (read_record(folder) or {}).get("settings")
    seed = settings.get("seed") if isinstance(settings, Mapping) else None
    return seed if isinstance(seed, int) else None


def _with_seed(job: Job, seed: int) -> Job:
    words = [word for word in job.words if not word.startswith("seed=")]
    return replace(job, seed=seed, words=(*words, f"seed={seed}"))


def _is_start(each: Composed) -> bool:
    return each.job.variant == START


def _labels(jobs: Sequence[Composed]) -> list[tuple[str, str]]:
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
