"""sweep.json, which names the variant, fold and seed of each folder to reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from av1part.runs.sweeps import START, SWEEP_FILE, SWEEP_FORMAT, read_record, read_sweep
from av1part.sweeps.compose import Composed, Composer
from av1part.sweeps.plan import Job, expand_seeds
from av1part.sweeps.state import State
from av1part.system.environment import git_commit, versions
from av1part.system.errors import ConfigError
from av1part.system.files import write_json

log = logging.getLogger(__name__)


def recorded(folder: Path) -> list[dict[str, Any]]:
    """Return the jobs that sweep.json names; none where there is no such file.

    Args:
        folder: The sweep's.

    Returns:
        Records with `folder`, `variant` and `member`.

    Raises:
        ConfigError: if the file cannot be read; it must not be overwritten then.
    """
    if not (folder / SWEEP_FILE).exists():
        return []
    jobs: list[dict[str, Any]] = read_sweep(folder)["jobs"]
    return jobs


def write_record(
    compose: Composer,
    jobs: Sequence[Composed],
    earlier: Sequence[dict[str, Any]],
    arguments: Sequence[str],
) -> None:
    """Write sweep.json.

    It names the plan's jobs and, of the runs that an earlier start recorded, those of other seeds
    that the plan would make the same today: means and tests are over them all. The log names the
    runs that are left out. Jobs of several stages are no sweep, since no table holds them.

    Args:
        compose: The sweep's composer.
        jobs: All of the plan's.
        earlier: What sweep.json named before, as `recorded` returns it.
        arguments: Overrides of the command line.
    """
    stages = {job.wanted["settings"]["stage.name"] for job in jobs if job.job.variant != START}
    if len(stages) > 1:
        return
    records = [
        {
            "folder": job.folder.relative_to(compose.folder).as_posix(),
            "variant": variant,
            "member": member,
            "words": list(job.job.overrides),
        }
        for job, (variant, member) in zip(jobs, _labels(jobs), strict=True)
    ]
    folders = {record["folder"] for record in records}
    variants = {record["variant"] for record in records}
    earlier = [record for record in earlier if record["folder"] not in folders]
    reasons = _reasons(compose, _other_seeds(compose, earlier, arguments)) if earlier else {}
    for record in earlier:
        reason = reasons.get(record["folder"], "the plan has no such run")
        if record["variant"] not in variants:
            reason = "the plan has no such variant"
        if reason:
            log.info("%s is no longer in sweep.json: %s", record["folder"], reason)
        else:
            records.append(record)
    write_json(
        compose.folder / SWEEP_FILE,
        {
            "format": SWEEP_FORMAT,
            "experiment": OmegaConf.select(compose.config, "hydra.runtime.choices.experiment"),
            "baseline": compose.plan.baseline,
            "git_commit": git_commit(),
            "versions": versions(),
            "jobs": records,
        },
    )


def _other_seeds(
    compose: Composer, earlier: Sequence[Mapping[str, Any]], arguments: Sequence[str]
) -> list[Job]:
    """Return the plan's jobs for the seeds of recorded runs."""
    records = (read_record(compose.folder / record["folder"]) or {} for record in earlier)
    settings = [record.get("settings") for record in records]
    seeds = {entry.get("seed") for entry in settings if isinstance(entry, Mapping)}
    parser = OverridesParser.create(config_loader=compose.loader)
    return expand_seeds(
        compose.plan, arguments, parser, sorted(seed for seed in seeds if type(seed) is int)
    )


def _reasons(compose: Composer, jobs: Sequence[Job]) -> dict[str, str]:
    """Return, by folder, why its run is not what the job makes today; empty if it is."""
    reasons: dict[str, str] = {}
    starts: list[Composed] = []
    for job in jobs:  # Stage-1 runs come first
        try:
            composed = compose.with_start(job, starts)
        except ConfigError as error:  # such as a file that is gone
            reasons[job.place] = str(error)
            continue
        if composed is None:
            reasons[job.place] = "its Stage 1 is not done"
            continue
        if job.variant == START:
            starts.append(composed)
        place = composed.folder.relative_to(compose.folder).as_posix()
        reasons[place] = _reason(composed.state)
    return reasons


def _reason(state: State) -> str:
    if state.kind == "done":
        return ""
    return f"made from {state.why}" if state.kind == "outdated" else "it has no result"


def _labels(jobs: Sequence[Composed]) -> list[tuple[str, str]]:
    """Return variant and member of each job, named by its overrides where the plan has no names."""
    shared = set.intersection(*(set(job.job.overrides) for job in jobs)) if jobs else set()
    labels = []
    for job in jobs:
        own = [override for override in job.job.overrides if override not in shared]
        seeds = [override.replace("=", "-") for override in own if override.startswith("seed=")]
        rest = " ".join(override for override in own if not override.startswith("seed="))
        member = job.job.member if job.job.variant else "_".join(seeds) or "run"
        labels.append((job.job.variant or rest or "run", member))
    return labels
