"""What a process does before it starts: threads, home, streams, and what others left behind."""

from __future__ import annotations

import getpass
import os
import pwd
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from av1part.cli import startup
from av1part.cli.startup import check_surroundings, share_cores
from av1part.system.errors import ConfigError


@pytest.mark.parametrize(("load", "spins"), [(0.0, "5000"), (0.49, "5000"), (0.5, "1000")])
def test_by_the_load_of_the_last_minute(
    monkeypatch: pytest.MonkeyPatch, load: float, spins: str
) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0))
    share_cores()
    assert os.environ == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": spins}


def test_what_the_user_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}
    monkeypatch.setattr(os, "environ", dict(given))
    share_cores()
    assert os.environ == given


def test_a_system_without_a_load_counts_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.delattr(os, "getloadavg")
    share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


def test_a_user_without_home_and_name_gets_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: object) -> None:
        raise KeyError

    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(RuntimeError):
        Path.home()
    startup._set_home()
    assert Path.home() == Path("/")
    assert getpass.getuser() == f"uid-{os.getuid()}"


def test_a_home_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"HOME": "/nonexistent", "LOGNAME": "me"}
    monkeypatch.setattr(os, "environ", dict(given))
    startup._set_home()
    assert os.environ == given


def test_ranks_are_forgotten_and_the_job_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "RANK": "x", "LOCAL_RANK": "1"}
    monkeypatch.setattr(os, "environ", {**left, "SLURM_JOB_ID": "7"})
    startup.forget_ranks()
    assert os.environ == {"SLURM_JOB_ID": "7"}


def test_what_no_command_can_work_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_surroundings(["größe"])
    with pytest.raises(ConfigError, match=r"b\\udcf6d: a name that is not UTF-8"):
        check_surroundings([os.fsdecode(b"b\xf6d")])
    monkeypatch.setattr(sys, "flags", SimpleNamespace(optimize=2))
    with pytest.raises(ConfigError, match="PYTHONOPTIMIZE"):
        check_surroundings([])
    monkeypatch.undo()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="the current folder was removed"):
        check_surroundings([])
