"""Results of probes where something is missing, full, damaged or not UTF-8."""

from __future__ import annotations

import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from av1part import embedded
from av1part.cli.commands.doctor import _examined
from av1part.cli.doctor import ProbeResult, limits, probes
from av1part.encoder.patched import Patched

Usage = namedtuple("Usage", "total used free")


def failing(result: ProbeResult) -> dict[str, str]:
    return {problem.feature: str(problem) for problem in result.problems}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AV1PART_CACHE", str(tmp_path / "cache"))


def test_programs_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("AV1PART_AOMENC", "AV1PART_INSPECT"):
        monkeypatch.delenv(name, raising=False)
    result = probes.programs()
    rows = dict(result.rows)
    for name in ("aomenc", "inspect", "C++ compiler", "SLURM"):
        assert rows[name] == "not found", name
    lines = [str(problem) for problem in result.problems]
    for name, variable in (("aomenc", "AV1PART_AOMENC"), ("inspect", "AV1PART_INSPECT")):
        assert (
            f"av1part data build: no {name} found: run `make libaom`, or set {variable} "
            "to the program"
        ) in lines
    assert rows["aomenc-av1part"] == "not found"
    assert "hints in an encoder: no aomenc-av1part found: run `make libaom`" in lines
    assert "trainer.compile=true" in failing(result)
    assert not any(problem.fatal for problem in result.problems)


@pytest.mark.parametrize(
    ("assembler", "machine", "problem"),
    [("nasm", "x86_64", False), ("none", "x86_64", True), ("none", "aarch64", False)],
)
def test_a_patched_encoder_without_assembler_is_slow_on_x86(
    monkeypatch: pytest.MonkeyPatch, assembler: str, machine: str, problem: bool
) -> None:
    tool = Patched(Path("/bin/aomenc-av1part"), "v3.6.0", assembler)
    monkeypatch.setattr("av1part.encoder.patched.find_patched", lambda: tool)
    monkeypatch.setattr("platform.machine", lambda: machine)
    result = probes.programs()
    assert dict(result.rows)["aomenc-av1part"].startswith("/bin/aomenc-av1part, v3.6.0")
    lines = failing(result)
    assert ("times of the patched encoder" in lines) is problem
    assert not problem or "install nasm" in lines["times of the patched encoder"]


def test_no_file_stays(tmp_path: Path) -> None:
    result = probes.space()
    assert str(tmp_path / "runs") in dict(result.rows)["runs"]
    assert not list(tmp_path.iterdir())


def test_runs_that_cannot_be_written_are_fatal(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    (problem,) = (p for p in probes.space().problems if p.feature == "av1part train")
    assert problem.fatal
    assert problem.reason == f"{tmp_path / 'runs'} is not a folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    free, error = probes.free_space(tmp_path / "cache" / "deeper")
    assert (free, error) == (0, f"{tmp_path / 'cache'} cannot be written (Permission denied)")


def test_a_file_system_that_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(probes.tempfile, "TemporaryFile", refuse)
    failures = failing(probes.space())
    assert "cannot be written (Read-only file system)" in failures["av1part train"]
    assert "AV1PART_CACHE" in failures["cached features, make libaom"]


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 64_000_000))
    result = probes.space()
    failures = failing(result)
    assert "0.06 GB are free" in failures["av1part train"]
    assert "free space" in failures["cached features, make libaom"]
    if Path("/dev/shm").is_dir():
        assert "--shm-size" in failures["data.num_workers above 0"]
    assert not any(problem.fatal for problem in result.problems)


def test_a_small_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory", lambda: (64 * 10**9, 60 * 10**9))
    monkeypatch.setattr(limits, "memory_limit", lambda: 2 * 10**9)
    monkeypatch.setattr(limits, "affinity", lambda: 32)
    monkeypatch.setattr(limits, "core_quota", lambda: 1.5)
    result = probes.memory_and_cores(32)
    assert "2.0 GB granted to this container" in dict(result.rows)["memory"]
    assert "batch_size" in failing(result)["training at full width"]
    assert "OMP_NUM_THREADS=2" in failing(result)["training at full speed"]


def test_a_machine_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory", lambda: (64 * 10**9, None))
    monkeypatch.setattr(limits, "memory_limit", lambda: None)
    monkeypatch.setattr(limits, "core_quota", lambda: None)
    assert not probes.memory_and_cores(1).problems
    assert not probes.memory_and_cores(None).problems


def test_text_that_is_not_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probes._is_utf8("UTF-8")
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    (line,) = failing(probes.text_encoding()).values()
    assert "file names are ascii" in line
    assert "set LC_ALL=C.UTF-8" in line


def test_a_terminal_that_is_not_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(encoding="ascii"))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    (problem,) = probes.text_encoding().problems
    assert "escapes" in problem.feature
    assert problem.remedy == "unset PYTHONIOENCODING"


def test_a_cache_in_a_home_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AV1PART_CACHE", "~no-such-user/x")
    assert "~no-such-user/x" in failing(probes.space())["cached features, make libaom"]


def test_a_folder_that_was_removed_ends_no_probe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (problem,) = probes.surroundings().problems
    assert problem.fatal
    assert problem.remedy == "change to another one"
    assert "FileNotFoundError" in failing(_examined("disk space", probes.space))["disk space"]


def test_the_embedded_dataset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not probes.embedded_store().problems
    store = tmp_path / "store"
    shutil.copytree(embedded.STORE, store)
    plane = store / "planes" / "camera.npy"
    plane.write_bytes(plane.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr(embedded, "STORE", store)
    (problem,) = probes.embedded_store().problems
    assert problem.fatal
    assert "camera.npy" in problem.reason
