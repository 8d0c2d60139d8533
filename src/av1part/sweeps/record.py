"""sweep.json, which tells reports what each folder is: its variant, fold and seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from av1part.environment import git_commit, versions
from av1part.files import write_json
from av1part.sweeps.compose import Composed
from av1part.sweeps.plan import START, Plan
from av1part.sweeps.state import SWEEP, SWEEP_FORMAT, read_sweep


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
    folder: Path,
    plan: Plan,
    config: DictConfig,
    jobs: Sequence[Composed],
    earlier: Sequence[dict[str, Any]],
) -> None:
    """Write sweep.json.

    Runs of the same variants that an earlier start recorded, such as other seeds, stay in it.
    Jobs of several stages are no sweep, since no table holds them.

    Args:
        folder: The sweep's.
        plan: Its plan.
        config: Hydra's configuration of the sweep.
        jobs: All of the plan's.
        earlier: What it named before, as `recorded` has it.
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
