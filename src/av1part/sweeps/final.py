"""Opening the test split of a sweep: once, when it is complete, for the variants that are named.

Variants, epochs and everything else are chosen on val. What the chosen score on test is written
into test.json, with who opened it when; to open it again has to be asked for and is recorded too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from av1part.checkpoint import load_stage
from av1part.environment import git_commit, versions
from av1part.errors import ConfigError
from av1part.files import write_json
from av1part.models.freeze import state_sha256
from av1part.sweeps.plan import START
from av1part.sweeps.run import RECORD
from av1part.sweeps.state import read_json
from av1part.training import split_scores
from av1part.validation import attach_data, check_pixels, device_of

log = logging.getLogger(__name__)

TEST = "test.json"


def open_test(
    folder: Path,
    variants: Sequence[str] | None,
    *,
    reopen: bool = False,
    device: str = "cpu",
    precision: str = "32-true",
) -> dict[str, Any]:
    """Evaluate the kept checkpoints of a sweep on test, and write that down.

    Args:
        folder: The sweep's.
        variants: Which of them; None for all.
        reopen: Whether test may be looked at although it has been before.
        device: To compute on.
        precision: To compute in.

    Returns:
        What test.json holds: `opened`, a list of times, commits and variants; `runs`, place to
        flat metrics on test and the identity of the checkpoint that they are of.

    Raises:
        ConfigError: if a job has no result yet, a variant is unknown, or test was opened before.
        CheckpointError: if a checkpoint is missing or is not what was verified.
        StoreError: if the data is missing or has changed.
    """
    record = read_json(folder / RECORD)
    if record is None:
        raise ConfigError(f"{folder / RECORD} cannot be read: start the sweep again")
    chosen = dict(_chosen(folder, record, variants))
    before = _opened_before(folder, reopen=reopen)
    found: dict[str, Any] = dict(before.get("runs", {}))
    for place in chosen:
        module = load_stage(folder / place / "checkpoints" / "best.ckpt").to(device_of(device))
        data = attach_data(module)
        check_pixels(module, data, "test")
        scores, _ = split_scores(module, data, "test", precision=precision)
        log.info("%s on test: macro-F1 %.2f %%", place, 100 * scores["macro_f1"])
        found[place] = {"checkpoint_sha256": state_sha256(module.state_dict()), **scores}
    opening = {
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "variants": sorted(set(chosen.values())),
        "git_commit": git_commit(),
        "versions": versions(),
    }
    told = {"format": 1, "opened": [*before.get("opened", []), opening], "runs": found}
    write_json(folder / TEST, told)
    return told


def _chosen(
    folder: Path, record: Mapping[str, Any], variants: Sequence[str] | None
) -> Iterator[tuple[str, str]]:
    """Yield place and variant of the runs.

    Raises:
        ConfigError: if a run of the sweep is missing, so that val can still choose; or a variant.
    """
    jobs = [job for job in record["jobs"] if job["variant"] != START]
    missing = [j["folder"] for j in jobs if not (folder / j["folder"] / "metrics.json").is_file()]
    if missing:
        raise ConfigError(
            f"{len(missing)} jobs of {folder} have no result, such as {missing[0]}: finish the "
            "sweep before its test split is opened"
        )
    known = sorted({job["variant"] for job in jobs})
    unknown = sorted(set(variants or ()) - set(known))
    if unknown:
        raise ConfigError(f"variants: {unknown[0]} is none of {', '.join(known)}")
    for job in jobs:
        if variants is None or job["variant"] in variants:
            yield job["folder"], job["variant"]


def _opened_before(folder: Path, *, reopen: bool) -> dict[str, Any]:
    """Return test.json as it is, empty if there is none.

    Raises:
        ConfigError: if there is one and it is not to be opened again, or cannot be read.
    """
    file = folder / TEST
    if not file.exists():
        return {}
    before = read_json(file)
    if before is None:
        raise ConfigError(f"{file} cannot be read: restore it; test has been opened before")
    if not reopen:
        times = ", ".join(str(each.get("at")) for each in before.get("opened", []))
        raise ConfigError(
            f"the test split of {folder} was opened {times}, see {file}: reopen=true opens it "
            "again, which the file and every report then say"
        )
    return before
