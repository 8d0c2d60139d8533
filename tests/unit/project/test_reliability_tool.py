"""What `make reliability` keeps and writes of what its tests measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
ROW = {"part": "kill", "fault": "SIGKILL", "tries": "50", "lost": "0", "how": "seed 1"}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "reliability_tool", ROOT / "tools" / "reliability.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_rows_that_are_kept(tool: ModuleType) -> None:
    page = tool.PAGE.read_text()
    assert tool.to_page(page, tool.read()) == page


def test_a_fault_that_is_tried_again_replaces_its_row(tool: ModuleType) -> None:
    other = {**ROW, "part": "fuzz", "fault": "hostile input"}
    again = {**ROW, "lost": "1", "how": "seed 2"}
    assert tool.merged([ROW, other], [again]) == [other, again]
    assert tool.merged([], [ROW]) == [ROW]


def test_a_part_that_is_none_is_named(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["fuzz", "kil", "--", "-k", "x"]) == 2
    assert "no part kil: choose of cuts encoder fuzz kill storage" in capsys.readouterr().out
