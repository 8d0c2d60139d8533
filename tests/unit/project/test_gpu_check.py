"""`make gpu-check`: one line without a GPU; it runs, and fails where answers differ."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from ...conftest import load_file

ROOT = Path(__file__).parents[3]
SMALL = ("--device", "cpu", "--steps", "4", "--width", "2")


@pytest.fixture
def tool() -> ModuleType:
    return load_file(ROOT / "tools/gpu_check.py")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "gpu-check: there is no GPU here that torch can use: nothing was checked"
    ]


@pytest.mark.slow
def test_it_runs_and_fails_where_answers_differ(
    tool: ModuleType,
    one_to_four_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (*SMALL, "--data", str(one_to_four_store))
    assert tool.main(words) == 0
    lines = [ln for ln in capsys.readouterr().out.splitlines() if ln.startswith("gpu-check:")]
    assert lines[-1] == "gpu-check: 12 checks, 0 failed"
    assert "1.00 x the crops a second" in lines[0]
    assert "equal bit for bit" in lines[1], "crops and answers are compared before the other ways"

    class Shifted(tool.DeviceCrops):  # type: ignore[name-defined, misc]
        def __call__(self, index: torch.Tensor) -> torch.Tensor:
            return torch.roll(super().__call__(index), 1, -1)

    monkeypatch.setattr(tool, "DeviceCrops", Shifted)
    original = tool._answers

    def other(best: Path, device: torch.device, precision: str) -> object:
        answers = original(best, device, precision)
        if precision == "bf16-mixed":
            answers[16].logits[:] = np.roll(answers[16].logits, 1, axis=1)
        return answers

    monkeypatch.setattr(tool, "_answers", other)
    assert tool.main(words) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert len(failed) == 2
    assert "crops cut on the device" in failed[0]
    assert "16x16 nodes in bf16-mixed" in failed[1]
