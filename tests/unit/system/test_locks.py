"""One process at a time in a folder, whatever became of the one before."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from av1part.system.errors import ConfigError
from av1part.system.locks import HOLDER, LOCK, file_lock, folder_lock

HOLD = """
import sys, time
from pathlib import Path
from av1part.system.locks import folder_lock
with folder_lock(Path(sys.argv[1]), "elsewhere"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_held_folder_is_refused_with_its_holder(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with (
        pytest.raises(ConfigError, match=rf"in use by process {other.pid} on .+ since 2.+: wait"),
        folder_lock(tmp_path, "choose another name=..."),
    ):
        pass
    assert json.loads((tmp_path / HOLDER).read_text())["process"] == other.pid


def test_the_lock_of_a_killed_process_is_stale(
    tmp_path: Path, other: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / HOLDER).exists()
    with caplog.at_level("INFO"), folder_lock(tmp_path, "elsewhere"):
        assert json.loads((tmp_path / HOLDER).read_text())["process"] == os.getpid()
    assert f"left behind by process {other.pid}" in caplog.text


def test_a_holder_that_cannot_be_read_is_still_refused(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    (tmp_path / HOLDER).write_text("{")
    with (
        pytest.raises(ConfigError, match="in use by another process"),
        folder_lock(tmp_path, "elsewhere"),
    ):
        pass


def test_nothing_is_left_in_an_empty_folder_and_no_holder_in_a_used_one(tmp_path: Path) -> None:
    with folder_lock(tmp_path, "elsewhere"):
        pass
    assert list(tmp_path.iterdir()) == []
    with folder_lock(tmp_path, "elsewhere"):
        (tmp_path / "result").touch()
    assert {file.name for file in tmp_path.iterdir()} == {"result", LOCK}


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """As Lustre can be mounted: no marker is left that a killed process could not remove."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    for _ in range(2):
        with folder_lock(tmp_path, "elsewhere"):
            (tmp_path / "result").touch()
    assert "has no locks" in caplog.text
    assert {file.name for file in tmp_path.iterdir()} <= {LOCK, "result"}


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError), file_lock(tmp_path / "file" / LOCK):  # noqa: PT011
        pass
