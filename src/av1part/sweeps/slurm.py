"""The state of a sweep's jobs on SLURM.

A job that ends by itself leaves its result in a file below the sweep's `.submitit`. A job without a
result that is no longer in the queue was ended from outside. SLURM's accounting, which a cluster
need not have, is not used: submitit's own waiting never ends without it.
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
"""Folder in a sweep's: SLURM's scripts and logs, a folder for each job."""

_LOOK = 1.0
"""Seconds between two checks for results."""


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
    """Return a sweep's jobs that SLURM has in its queue.

    A job is recognised by its script, which lies in the sweep's folder: ids start again with a
    cluster.

    Args:
        sweep: The sweep's folder.

    Returns:
        Id (`7`, in an array `7_0`) to state of all that are waiting or running, of all users whose
        jobs the cluster shows; None if SLURM does not answer.
    """
    place = f"{(sweep / FOLDER).absolute()}/"
    states: dict[str, str] = {}
    # One user at a time: without one, the controller sends the jobs of all users.
    for user in _submitters(sweep):
        command = ["squeue", "--noheader", "--array", f"--user={user}", "--format=%i %T %o"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return None
        jobs = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
        states |= {job[0]: job[1] for job in jobs if len(job) == 3 and job[2].startswith(place)}
    return states


def _submitters(sweep: Path) -> list[int]:
    """Return the ids of this user and of the owners of what submitting left in the folder."""
    own, owners = os.getuid(), set()
    for path in (sweep / FOLDER).glob("*"):
        with suppress(OSError):  # it was renamed meanwhile
            owners.add(path.lstat().st_uid)
    # SLURM reports an error for a user that the system does not know.
    return [own, *sorted(uid for uid in owners - {own} if _is_known(uid))]


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def wait_for_earlier(sweep: Path) -> None:
    """Wait for the jobs of an earlier start of the sweep.

    Jobs outlive the process that submitted them, and two jobs must not write into one folder.

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
    """Return what `queued` does, waiting for SLURM's answer; empty where there is no SLURM."""
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
    """Wait for jobs until each has a result or is no longer in SLURM's queue.

    Args:
        results: A job's id to its result file.
        sweep: The sweep's folder.

    Yields:
        Id and, of a job without a result, its final state in SLURM, such as `TIMEOUT`; else None.
    """
    waiting = dict(results)
    suspects: set[str] = set()
    silent = False
    requested = started = time.monotonic()
    while waiting:
        for job in [job for job, file in waiting.items() if _is_there(file)]:
            del waiting[job]
            yield job, None
        now = time.monotonic()
        if waiting and now - requested >= _patience(now - started):
            requested = now
            left = queued(sweep)
            if left is None and not silent:
                log.warning("SLURM does not answer (squeue): waiting on")
            silent = left is None
            gone = set() if left is None else waiting.keys() - left.keys()
            # Only the second time: a result file may become visible here later than it was written.
            for job in sorted(gone & suspects):
                del waiting[job]
                yield job, _end_of(job)
            suspects = gone
        time.sleep(_LOOK)


def submission_error(error: Exception) -> SweepError:
    """Return the error of sbatch on one line."""
    message = " ".join(str(error).split()) or type(error).__name__
    return SweepError(f"SLURM took no jobs: {message} (see conf/hydra/launcher/slurm.yaml)")


@contextmanager
def cancelled_if_interrupted(jobs: Iterable[str]) -> Iterator[None]:
    """Cancel jobs on Ctrl-C; if this process ends in another way, they continue.

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
        # An array is cancelled by the id that its jobs share.
        for main in sorted({job.partition("_")[0] for job in jobs}):
            subprocess.run(["scancel", main], check=False, timeout=60)
        raise


def _patience(waited: float) -> float:
    """Return the seconds between two requests to SLURM, which grow with the time waited."""
    return min(60.0, max(2.0, waited / 10))


def _is_there(file: Path) -> bool:
    """Return whether a file exists; listing its folder refreshes a network file system's cache."""
    try:
        return any(path.name == file.name for path in file.parent.iterdir())
    except OSError:
        return False


def _end_of(job: str) -> str:
    """Return the final state of a job, which SLURM keeps for some minutes."""
    command = ["scontrol", "--oneliner", "show", "job", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return "ended"
    states = [word for word in done.stdout.split() if word.startswith("JobState=")]
    return states[0].removeprefix("JobState=") if states else "ended"
