"""One process at a time in a folder that a run, sweep or build writes to, and who it is.

The system lets go of a lock when its process ends, however it ends; what that has left behind
then tells the next one only whom it follows.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from av1part.system.errors import ConfigError
from av1part.system.files import write_json
from av1part.system.terminal import printable

log = logging.getLogger(__name__)

LOCK = ".lock"
"""Of a folder: the file whose lock is held, which stays; beside it lies `HOLDER`."""
HOLDER = ".lock.json"
"""Of a folder: process, host and since when; there while the lock is held, or after a kill."""


NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""What a file system says that has no locks, such as Lustre mounted without them."""


@contextmanager
def file_lock(file: Path, timeout: float = -1) -> Iterator[None]:
    """Hold a lock that the system releases with this process; go on with a warning without locks.

    Args:
        file: The file whose lock it is; made, and left.
        timeout: Seconds to wait for whoever holds it; -1 for as long as it takes.

    Yields:
        Nothing.

    Raises:
        Timeout: if another process holds it for longer.
        OSError: if the file cannot be made.
    """
    # A marker file in place of a lock would outlive a process that is killed.
    lock = FileLock(file, timeout=timeout, fallback_to_soft=False)
    with ExitStack() as held:
        try:
            held.enter_context(lock)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise
            log.warning(
                "%s: its file system has no locks, nothing keeps another process out", file.parent
            )
        yield


@contextmanager
def folder_lock(folder: Path, remedy: str) -> Iterator[None]:
    """Hold a folder while the block runs.

    Args:
        folder: The folder; must exist. If nothing is put into it, nothing is left in it. The block
            may remove or rename it.
        remedy: What else one may do where it is held, for the error.

    Yields:
        Nothing.

    Raises:
        ConfigError: if another process holds it, saying which.
    """
    holder, locked = folder / HOLDER, ExitStack()
    try:
        locked.enter_context(file_lock(folder / LOCK, timeout=0))
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
        with suppress(FileNotFoundError):  # what was done there may have been to remove it
            if all(file.name == LOCK for file in folder.iterdir()):
                (folder / LOCK).unlink()
        locked.close()


def _said(holder: Path) -> str:
    """Return who holds a folder, as they have said it."""
    try:
        said = json.loads(holder.read_text(encoding="utf-8"))
        job = f" (SLURM job {said['job']})" if said["job"] else ""
        return printable(f"process {said['process']} on {said['host']}{job} since {said['since']}")
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
