"""One process at a time in a run or sweep folder, and who it is.

The system lets go of a lock when its process ends, however it ends; what that has left behind
then tells the next one only whom it follows.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from av1part.errors import ConfigError
from av1part.files import write_json
from av1part.terminal import printable

log = logging.getLogger(__name__)

LOCK = ".lock"
"""Of a folder: the file whose lock is held, which stays; beside it lies `HOLDER`."""
HOLDER = ".lock.json"
"""Of a folder: process, host and since when; there while the lock is held, or after a kill."""


@contextmanager
def folder_lock(folder: Path, remedy: str) -> Iterator[None]:
    """Hold a folder while the block runs.

    Args:
        folder: The folder; must exist. If nothing is put into it, nothing is left in it.
        remedy: What else one may do where it is held, for the error.

    Yields:
        Nothing.

    Raises:
        ConfigError: if another process holds it, saying which.
    """
    lock, holder = FileLock(folder / LOCK, timeout=0), folder / HOLDER
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"{folder} is in use by {_said(holder)}: wait for it or end it, or {remedy}"
        ) from None
    try:
        if holder.exists():
            log.info("%s was left behind by %s, which runs no more", folder, _said(holder))
        write_json(
            holder,
            {
                "process": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "job": os.environ.get("SLURM_JOB_ID"),
            },
        )
        yield
    finally:
        holder.unlink(missing_ok=True)
        if all(file.name == LOCK for file in folder.iterdir()):
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def _said(holder: Path) -> str:
    """Return who holds a folder, as they have said it."""
    try:
        said = json.loads(holder.read_text(encoding="utf-8"))
        job = f" (SLURM job {said['job']})" if said["job"] else ""
        return printable(f"process {said['process']} on {said['host']}{job} since {said['since']}")
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
