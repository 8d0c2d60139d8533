"""One process at a time in a folder that a run, sweep or build writes to.

The system releases a lock when its process ends, however it ends. The file that names the process
may stay, and then only tells the next one that the run before was killed.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from av1part.system.errors import ConfigError
from av1part.system.files import read_json, write_json
from av1part.system.terminal import printable

log = logging.getLogger(__name__)

LOCK = ".lock"
"""The file in a folder whose lock is held; it stays."""
HOLDER = ".lock.json"
"""The file beside it: process, host and time; there while the lock is held, or after a kill."""


NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""Errors of a file system without locks, such as Lustre mounted without them."""


@contextmanager
def file_lock(file: Path, timeout: float = -1) -> Iterator[None]:
    """Hold a lock that the system releases with this process; without locks, go on with a warning.

    Args:
        file: The file to lock; created, and left.
        timeout: Seconds to wait for the lock; -1 waits for as long as it takes.

    Yields:
        Nothing.

    Raises:
        Timeout: if another process holds it for longer.
        OSError: if the file cannot be created.
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
    """Lock a folder while the block runs.

    Args:
        folder: The folder; must exist. The block may remove or rename it. The lock's files are
            removed if the block leaves nothing else in it.
        remedy: Another remedy than to wait, for the error.

    Yields:
        Nothing.

    Raises:
        ConfigError: naming the process that holds it.
    """
    holder, locked = folder / HOLDER, ExitStack()
    try:
        locked.enter_context(file_lock(folder / LOCK, timeout=0))
    except Timeout:
        raise ConfigError(
            f"{folder} is in use by {_describe(holder)}: wait for it or end it, or {remedy}"
        ) from None
    try:
        if holder.exists():
            log.info("%s was left behind by %s, which runs no more", folder, _describe(holder))
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
        with suppress(FileNotFoundError):  # the block may have removed it
            if all(file.name == LOCK for file in folder.iterdir()):
                (folder / LOCK).unlink()
        locked.close()


def _describe(holder: Path) -> str:
    """Return which process holds a folder, from the file that it wrote."""
    record = read_json(holder) or {}
    if not {"process", "host", "since"} <= record.keys():
        return "another process"
    job = f" (SLURM job {record['job']})" if record.get("job") else ""
    return printable(
        f"process {record['process']} on {record['host']}{job} since {record['since']}"
    )
