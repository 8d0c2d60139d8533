"""Opening the test split of a sweep: once, when it is complete, for the variants that are named.

Variants, epochs and everything else are chosen on val. Their scores on test are written into
test.json, with time and commit. A second opening has to be asked for, and is recorded too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import Timeout

from av1part.checkpoints.load import load_stage
from av1part.defects import DEFECTS
from av1part.evaluation.attach import attach_data, check_pixels, device_of
from av1part.evaluation.scores import split_scores
from av1part.evaluation.trees import train_peers
from av1part.models.freeze import state_sha256
from av1part.runs.schema import CONFIG_FILE, METRICS_FILE, best_checkpoint
from av1part.runs.sweeps import START, TEST_FILE, TEST_FORMAT, config_sha256, read_sweep
from av1part.system.environment import git_commit, versions
from av1part.system.errors import ConfigError, first_line
from av1part.system.files import read_json, write_json
from av1part.system.locks import LOCK, file_lock
from av1part.trees.boosting import Boosting, check_library

log = logging.getLogger(__name__)


def open_test(
    folder: Path,
    variants: Sequence[str] | None,
    *,
    reopen: bool = False,
    device: str = "cpu",
    precision: str = "32-true",
) -> dict[str, Any]:
    """Evaluate the best checkpoints of a sweep on test, and record the scores.

    Args:
        folder: The sweep's.
        variants: Names of variants; None for all.
        reopen: Whether test may be opened again.
        device: To compute on.
        precision: To compute in.

    Returns:
        Contents of test.json: `opened`, a list of times, commits and variants; `runs`, place to
        metrics on test and the hash of the checkpoint.

    Raises:
        ConfigError: if a job has no result yet, a variant is unknown, test was opened before, or
            trees stand beside a run and LightGBM is not installed.
        CheckpointError: if a checkpoint is missing or is not what was verified.
        StoreError: if the data is missing or has changed.
    """
    try:
        with file_lock(folder / LOCK, timeout=0):
            return _open_test(folder, variants, reopen, device, precision)
    except Timeout:
        raise ConfigError(
            f"another process runs or opens the sweep in {folder}: wait for it"
        ) from None


def _open_test(
    folder: Path, variants: Sequence[str] | None, reopen: bool, device: str, precision: str
) -> dict[str, Any]:
    chosen = dict(_chosen(folder, variants))
    if any(_settings(folder / place).get("baselines") == "trees" for place in chosen):
        check_library()
    before = _opened_before(folder, reopen=reopen)
    opening = {
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "variants": sorted(set(chosen.values())),
        "git_commit": git_commit(),
        "versions": versions(),
    }
    runs = dict(before.get("runs", {}))
    record = {"format": TEST_FORMAT, "opened": [*before.get("opened", []), opening], "runs": runs}
    write_json(folder / TEST_FILE, record)  # before the first look, however that ends
    for place in chosen:
        runs[place] = _scores(folder / place, device, precision)
        log.info("%s on test: macro-F1 %.2f %%", place, 100 * runs[place]["macro_f1"])
        write_json(folder / TEST_FILE, record)
    return record


def _settings(run: Path) -> dict[str, Any]:
    """Return config.yaml of a run.

    Raises:
        ConfigError: if it is missing or damaged.
    """
    try:
        settings = yaml.safe_load((run / CONFIG_FILE).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{run / CONFIG_FILE} cannot be read ({first_line(error)}): restore it, or train the "
            "run again"
        ) from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{run / CONFIG_FILE} holds no configuration: restore it")
    return settings


def _scores(run: Path, device: str, precision: str) -> dict[str, Any]:
    """Score a run's best checkpoint, beside trees where it was trained beside them."""
    module = load_stage(best_checkpoint(run), defects=DEFECTS).to(device_of(device))
    data, config, peers = attach_data(module), _settings(run), None
    check_pixels(module, data, "test")
    if config.get("baselines") == "trees":
        peers = train_peers(data, Boosting(**config["trees"]))
    scores, _ = split_scores(module, data, "test", precision=precision, peers=peers)
    return {
        "checkpoint_sha256": state_sha256(module.state_dict()),
        "config_sha256": config_sha256(run, config),
        "dataset_sha256": data.store.manifest_sha256,
        **scores,
        **({"defects": list(module.defects)} if module.defects else {}),
    }


def _chosen(folder: Path, variants: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """Yield place and variant of the runs.

    Raises:
        ConfigError: if sweep.json is damaged, a job has no result yet, or a variant is unknown.
    """
    jobs = [(job["folder"], job["variant"]) for job in read_sweep(folder)["jobs"]]
    jobs = [(place, variant) for place, variant in jobs if variant != START]
    missing = [place for place, _ in jobs if not (folder / place / METRICS_FILE).is_file()]
    if missing:
        raise ConfigError(
            f"{len(missing)} jobs of {folder} have no result, such as {missing[0]}: finish the "
            "sweep before its test split is opened"
        )
    known = sorted({variant for _, variant in jobs})
    unknown = sorted(set(variants or ()) - set(known))
    if unknown:
        raise ConfigError(f"variants: {unknown[0]} is none of {', '.join(known)}")
    for place, variant in jobs:
        if variants is None or variant in variants:
            yield place, variant


def _opened_before(folder: Path, *, reopen: bool) -> dict[str, Any]:
    """Return test.json as it is, empty if there is none.

    Raises:
        ConfigError: if there is one and it is not to be opened again, or cannot be read.
    """
    file = folder / TEST_FILE
    if not file.exists():
        return {}
    before = read_json(file)
    if before is None:
        raise ConfigError(f"{file} cannot be read: restore it; test has been opened before")
    if not reopen:
        times = ", ".join(str(opening.get("at")) for opening in before.get("opened", []))
        raise ConfigError(
            f"the test split of {folder} was opened {times}, see {file}: reopen=true opens it "
            "again, which the file and every report then say"
        )
    return before
