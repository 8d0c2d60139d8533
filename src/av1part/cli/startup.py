"""This process, made ready before anything is imported that reads the environment.

A shell may have no home folder, a terminal without UTF-8, or variables that a notebook or a cluster
left behind. All of that is put right here, once, so that no other module must look at it.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from av1part.system.errors import ConfigError

RANKS = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK"),
    *("GROUP_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "JSM_NAMESPACE_RANK"),
    *("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
)
"""Variables by which launchers number the processes of one distributed run."""

_IDLE_LOAD = 0.5
"""Processes that ran in the last minute, on average, on a machine that has nothing else to do."""


def prepare() -> None:
    """Prepare this process; call it before torch, Lightning or matplotlib is imported."""
    _use_utf8()
    _open_streams()
    _set_home()
    _ignore_matplotlib_settings()
    share_cores()


def share_cores() -> None:
    """Set how long waiting threads spin before they sleep; call it before torch is imported.

    On a machine that does anything else besides, spinning on made training 20 times slower; not to
    spin at all costs a third of the speed of small batches. Where nothing else runs the moment is
    longer: that brings a fifth at batch 128, and would double a step on a busy machine.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    idle = hasattr(os, "getloadavg") and os.getloadavg()[0] < _IDLE_LOAD
    os.environ.setdefault("GOMP_SPINCOUNT", "5000" if idle else "1000")  # GNU's, torch's on Linux


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode where file names are ASCII: no other could be opened.

    Python chooses that mode itself in the C locale, unless PYTHONUTF8=0 forbids it.
    """
    if sys.getfilesystemencoding() == "ascii":
        os.environ["PYTHONUTF8"] = "1"  # of processes that this one starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _open_streams() -> None:
    """Have stdout and stderr escape what their encoding lacks; give closed ones somewhere to go."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The next file that is opened would get this number, and what is printed into it.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _set_home() -> None:
    """Give a user without HOME and passwd entry the home that containers do, and a name.

    Libraries ask for both when they are imported.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"
    try:
        getpass.getuser()
    except (ImportError, KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


def _ignore_matplotlib_settings() -> None:
    """Draw into files, whatever backend a notebook has chosen and whatever matplotlibrc says."""
    os.environ["MPLBACKEND"] = "agg"
    os.environ["MATPLOTLIBRC"] = os.devnull


def forget_ranks() -> None:
    """Remove what a shell in a cluster's allocation, or another program, left about processes.

    Of a run in one process alone: with such variables Lightning would wait for other processes, or
    take this one for another than the first, which writes no results.
    """
    for name in RANKS:
        os.environ.pop(name, None)


def check_surroundings(words: Sequence[str]) -> None:
    """Check what every command relies on.

    Args:
        words: The command line.

    Raises:
        ConfigError: naming the remedy.
    """
    if sys.flags.optimize > 1:
        raise ConfigError(
            "PYTHONOPTIMIZE=2 (python -OO) removes docstrings that libraries need: unset it, or "
            "set it to 1"
        )
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        raise ConfigError("the current folder was removed: change to another one") from None
    for text in (*words, here):
        try:
            text.encode()
        except UnicodeEncodeError:
            shown = text.encode(errors="backslashreplace").decode()
            raise ConfigError(
                f"{shown}: a name that is not UTF-8 cannot be written into results: rename it"
            ) from None


def finish(code: int) -> int:
    """Flush what was printed.

    Args:
        code: Exit code of the command.

    Returns:
        The exit code: that of the command, or 1 if its output could not be written. A reader that
        wants no more, such as `head`, is no error, and nothing is printed about it.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Python flushes once more when it ends, and would print what fails.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            code = code or 1
    return code
