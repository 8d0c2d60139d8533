"""What a run says of its seconds and its memory."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from av1part.training.callbacks import timing
from av1part.training.callbacks.timing import Timing

MIB = 2**20


def started(path: Path, resumed: bool = False) -> Timing:
    trainer: Any = SimpleNamespace(callbacks=[], ckpt_path="last.ckpt" if resumed else None)
    trainer.strategy = SimpleNamespace(root_device=torch.device("cpu"))
    found = Timing(path)
    found.on_fit_start(trainer, trainer)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is forgotten through /proc")
def test_the_peak_is_of_this_run_and_not_of_an_earlier_one_in_the_process(tmp_path: Path) -> None:
    first = started(tmp_path / "a.json")
    taken = np.ones(256 * MIB, dtype=np.uint8)
    before = first.summary()["fit_peak_memory_bytes"]
    del taken
    second = started(tmp_path / "b.json").summary()["fit_peak_memory_bytes"]
    assert before > 256 * MIB
    assert second < before - 200 * MIB


def test_where_the_system_does_not_tell_the_peak_it_is_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_forget_peak", lambda: False)
    assert started(tmp_path / "a.json").summary()["fit_peak_memory_bytes"] is None


def test_a_run_on_the_cpu_leaves_a_gpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of CUDA's is there to be asked before something of the run is on the GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    told = started(tmp_path / "a.json").summary()
    assert "fit_peak_gpu_memory_bytes" not in told


@pytest.mark.parametrize("text", [None, "{", "[]", '{"seconds": 5.0}'])
def test_a_resumed_run_without_its_record_counts_what_follows(
    tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "timing.json"
    if text is not None:
        file.write_text(text)
    told = started(file, resumed=True).summary()
    assert told["seconds"] < 5
    assert told["epoch_seconds"] == []
