"""What `make compatibility` runs, and what it says of what it cannot."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[3] / "tools" / "compatibility.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The tool, with nothing installed and nowhere to fetch from."""
    spec = importlib.util.spec_from_file_location("compatibility_tool", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HOME", tmp_path / "compat")
    monkeypatch.setattr(module, "UV", tmp_path / "no-uv")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return module


def python(file: Path, version: str | None) -> Path:
    """Write what says it is a Python, or fails as a shim does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\necho {version}\n" if version else "#!/bin/sh\nexit 127\n")
    file.chmod(0o755)
    return file


def test_a_shim_gives_way_to_pyenv_s_newest(tool: ModuleType, tmp_path: Path) -> None:
    python(tmp_path / "bin/python3.12", None)
    for patch in ("3.12.9", "3.12.10"):
        python(tmp_path / f"pyenv/versions/{patch}/bin/python", "3.12")
    python(tmp_path / "pyenv/versions/3.12.11/bin/python", "3.13")
    newest = tmp_path / "pyenv/versions/3.12.10/bin/python"
    assert tool.find_python("3.12") == newest
    assert tool.find_python("3.12") != python(tmp_path / "bin/python3.1", "3.12")
    first = python(tmp_path / "bin/python3.12", "3.12")
    assert tool.find_python("3.12") == first


def test_what_cannot_be_run_is_a_line_and_no_failure(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def environment(part: str) -> Path:
        if part != "lowest":
            tool.HOME.mkdir(exist_ok=True)
            tool.find_python(tool.PARTS[part])
        return Path(sys.executable).parents[1]

    def run(command: list[object], **options: object) -> object:
        asked.append([str(word) for word in command])
        return type("Done", (), {"returncode": code})

    code = 0
    monkeypatch.setattr(tool, "environment", environment)
    monkeypatch.setattr(tool.subprocess, "run", run)
    assert tool.main([]) == 0
    said = capsys.readouterr().out.splitlines()[-3:]
    assert said[0] == "compatibility: lowest (Python 3.11): passed"
    for line, part in zip(said[1:], ("3.12", "3.13"), strict=True):
        start = f"compatibility: {part} (Python {part}): could not be run: no Python {part}"
        assert line.startswith(start)
    assert len(asked) == 1
    assert asked[0][-6:] == ["-p", "no:cacheprovider", *tool.TESTS]
    assert tool.main(["lowest", "--", "-k", "store"]) == 0
    assert asked[1][-2:] == ["-k", "store"]
    code = 1
    assert tool.main(["lowest"]) == 1
    assert "FAILED" in capsys.readouterr().out
    assert tool.main(["3.13"]) == 1  # nothing could be run: that is no success
    monkeypatch.setattr(tool, "run_tests", lambda part, _: part == "lowest")
    assert tool.main(["lowest"]) == 0
    assert tool.main(["lowest", "3.12"]) == 1


def test_too_little_room_is_said_before_anything_is_made(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python(tmp_path / "bin/python3.13", "3.13")
    monkeypatch.setattr(tool, "ROOM", 1e18)
    with pytest.raises(tool.CannotRunError, match="GB are free"):
        tool.environment("3.13")
    assert not (tool.HOME / "3.13").exists()


def test_an_unknown_part_is_refused(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["3.14"]) == 2
    assert capsys.readouterr().out == ("compatibility: no part 3.14: choose of lowest 3.12 3.13\n")
