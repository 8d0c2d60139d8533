"""What has become of a sweep's jobs on SLURM.

A job that ends by itself leaves its result in a file below the sweep's `.submitit`. One that has
neither a result nor a place in the queue was ended from outside. SLURM's accounting, which a
cluster need not have, is not asked: submitit's own waiting never ends without it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from av1part.system.errors import ConfigError, SweepError

log = logging.getLogger(__name__)

FOLDER = ".submitit"
"""Of a sweep's folder: SLURM's scripts and logs, a folder a job."""

_LOOK = 1.0
"""Seconds between two looks for results."""


def check_available() -> None:
    """Check that jobs can be submitted from here.

    Raises:
        ConfigError: naming what is missing.
    """
    if importlib.util.find_spec("submitit") is None or not _has_plugin():
        raise ConfigError(
            "hydra/launcher=slurm needs the extra: pip install 'av1part[cluster]' "
            "(or run the sweep without it)"
        )
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "hydra/launcher=slurm: no sbatch on PATH: start the sweep on a login node of a SLURM "
            "cluster (or run it without)"
        )


def _has_plugin() -> bool:
    return importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is not None


def queued(sweep: Path) -> dict[str, str] | None:
    """Ask SLURM for a sweep's jobs.

    They are told by their script, which lies in the sweep's folder: ids begin anew with a cluster.

    Args:
        sweep: The sweep's folder.

    Returns:
        Id (`7`, in an array `7_0`) to state of all that are waiting or running, whoever submitted
        them, where the cluster shows others' jobs; None if SLURM does not answer.
    """
    place = f"{(sweep / FOLDER).absolute()}/"
    found: dict[str, str] = {}
    # A user at a time: of one the controller sends that user's jobs alone, else everybody's.
    for user in _submitters(sweep):
        words = ["squeue", "--noheader", "--array", f"--user={user}", "--format=%i %T %o"]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return None
        jobs = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
        found |= {job[0]: job[1] for job in jobs if len(job) == 3 and job[2].startswith(place)}
    return found


def _submitters(sweep: Path) -> list[int]:
    """Return the ids of this user and of all who own what submitting left in the folder."""
    own, owners = os.getuid(), set()
    for each in (sweep / FOLDER).glob("*"):
        with suppress(OSError):  # it was renamed meanwhile
            owners.add(each.lstat().st_uid)
    # SLURM takes one whom the system no longer knows for a mistake in the question.
    return [own, *sorted(uid for uid in owners - {own} if _is_known(uid))]


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def wait_for_earlier(sweep: Path) -> None:
    """Wait for the jobs of an earlier start, whose process ended before them.

    Jobs outlive the process that submitted them, and two must not write into one folder.

    Args:
        sweep: The sweep's folder.
    """
    if not (sweep / FOLDER).is_dir() or not (left := _queued_for_sure(sweep)):
        return
    main = " ".join(sorted({job.partition("_")[0] for job in left}))
    log.info(
        "%d jobs of an earlier start are still with SLURM: waiting for them (or: scancel %s)",
        len(left),
        main,
    )
    started = time.monotonic()
    while left:
        time.sleep(_patience(time.monotonic() - started))
        now = queued(sweep)
        left = left if now is None else now


def _queued_for_sure(sweep: Path) -> dict[str, str]:
    """Return what `queued` does, waiting for SLURM's answer; nothing where there is no SLURM."""
    if shutil.which("squeue") is None:
        return {}
    started, left = time.monotonic(), queued(sweep)
    if left is None:
        log.warning("SLURM does not answer (squeue): it may have jobs of an earlier start, waiting")
    while left is None:
        time.sleep(_patience(time.monotonic() - started))
        left = queued(sweep)
    return left


def ended(results: Mapping[str, Path], sweep: Path) -> Iterator[tuple[str, str | None]]:
    """Wait for jobs, each until it has a result or SLURM no longer has it.

    Args:
        results: A job's id to the file that it leaves.
        sweep: The sweep's folder.

    Yields:
        Id, and None or how SLURM ended it without a result, such as `TIMEOUT`.
    """
    waiting = dict(results)
    suspects: set[str] = set()
    silent = False
    asked = started = time.monotonic()
    while waiting:
        for job in [job for job, file in waiting.items() if _is_there(file)]:
            del waiting[job]
            yield job, None
        now = time.monotonic()
        if waiting and now - asked >= _patience(now - started):
            asked = now
            left = queued(sweep)
            if left is None and not silent:
                log.warning("SLURM does not answer (squeue): waiting on")
            silent = left is None
            gone = set() if left is None else waiting.keys() - left.keys()
            # Twice, since a file may be seen here later than it was written there.
            for job in sorted(gone & suspects):
                del waiting[job]
                yield job, _end_of(job)
            suspects = gone
        time.sleep(_LOOK)


def submission_error(error: Exception) -> SweepError:
    """Return what sbatch said as an error of one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return SweepError(f"SLURM took no jobs: {said} (see conf/hydra/launcher/slurm.yaml)")


@contextmanager
def cancelled_if_interrupted(jobs: Iterable[str]) -> Iterator[None]:
    """Cancel jobs on Ctrl-C; when this process ends in another way they go on without it.

    Args:
        jobs: Their ids.

    Yields:
        Nothing.

    Raises:
        KeyboardInterrupt: once they are cancelled.
    """
    try:
        yield
    except KeyboardInterrupt:
        # What was submitted as one array by its one id.
        for main in sorted({job.partition("_")[0] for job in jobs}):
            subprocess.run(["scancel", main], check=False, timeout=60)
        raise


def _patience(waited: float) -> float:
    """Seconds between two questions to SLURM, which serves everybody: fewer as time goes by."""
    return min(60.0, max(2.0, waited / 10))


def _is_there(file: Path) -> bool:
    """Look for a file; listing its folder makes a network's file system look anew."""
    try:
        return any(each.name == file.name for each in file.parent.iterdir())
    except OSError:
        return False


def _end_of(job: str) -> str:
    """Return how a job ended, which SLURM remembers for some minutes."""
    words = ["scontrol", "--oneliner", "show", "job", job]
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return "ended"
    states = [word for word in said.split() if word.startswith("JobState=")]
    return states[0].removeprefix("JobState=") if states else "ended"
