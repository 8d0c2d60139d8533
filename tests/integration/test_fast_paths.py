"""What is there for speed changes no result: planes on the device, compiled steps, profilers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .conftest import Command


def metrics(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(f"runs/{name}/metrics.json").read_text())
    return found


@pytest.mark.parametrize("more", [(), ("data.context=4", "data.augment=symmetries")])
def test_planes_on_the_device_give_the_same_run(
    av1part: Command, on_small: tuple[str, ...], more: tuple[str, ...]
) -> None:
    words = ("train", "stage=stage1", *on_small, *more)
    for planes in ("host", "device"):
        ran = av1part(*words, f"data.planes={planes}", f"name={planes}")
        assert ran.code == 0, ran.err
    assert metrics("host") == metrics("device")
    histories = [Path(f"runs/{name}/history.csv").read_text() for name in ("host", "device")]
    assert histories[0] == histories[1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_trains_and_reads_back(
    av1part: Command, on_small: tuple[str, ...], stage1: Path
) -> None:
    words = ("train", "stage=stage2", "method=adapter", f"stage1={stage1}", *on_small)
    ran = av1part(*words, "trainer.compile=true", "name=compiled", "adapter.layers=[4]")
    assert ran.code == 0, ran.err
    record = json.loads(Path("runs/compiled/checkpoints/best.verified.json").read_text())
    assert abs(record["delta_pp"]) <= 1
    ran = av1part("validate", "runs/compiled/checkpoints/best.ckpt")
    assert ran.code == 0, ran.err


def test_tf32_is_asked_for_and_given_back(av1part: Command, on_small: tuple[str, ...]) -> None:
    import torch

    words = ("train", "stage=stage1", *on_small, "trainer.max_epochs=1")
    assert av1part(*words, "trainer.matmul_precision=high", "name=high").code == 0
    assert torch.get_float32_matmul_precision() == "high"
    assert av1part(*words, "name=highest").code == 0
    assert torch.get_float32_matmul_precision() == "highest"
    refused = av1part(*words, "trainer.matmul_precision=low", "name=low")
    assert refused.code == 2
    assert len(refused.error_lines) == 1


@pytest.mark.parametrize("kind", ["simple", "advanced"])
def test_a_profiler_writes_to_the_run_folder(
    av1part: Command, on_small: tuple[str, ...], kind: str
) -> None:
    words = ("train", "stage=stage1", *on_small, "trainer.max_epochs=1")
    ran = av1part(*words, f"trainer.profiler={kind}", "name=run")
    assert ran.code == 0, ran.err
    (file,) = Path("runs/run").glob("*profile*")
    assert "run_training_batch" in file.read_text()


def test_half_precision_trains_with_clipped_gradients_and_without_tolerance(
    av1part: Command, on_small: tuple[str, ...]
) -> None:
    """Scores of metrics.json are in float32, and so are others than those of the training."""
    words = ("train", "stage=stage1", *on_small, "trainer.precision=bf16-mixed")
    words += ("callbacks.tolerance_pp=0", "trainer.gradient_clip_val=0.1", "seed=1")
    ran = av1part(*words, "name=half")
    assert ran.code == 0, ran.err
    record = json.loads(Path("runs/half/checkpoints/best.verified.json").read_text())
    assert record["delta_pp"] == 0
    scores = json.loads(Path("runs/half/metrics.json").read_text())
    assert scores["macro_f1"] == pytest.approx(record["macro_f1_full"], abs=0.05)


def test_half_precision_is_for_validation_and_the_cascade_too(
    av1part: Command, stage1: Path
) -> None:
    whole, half = (
        av1part("validate", stage1, f"precision={precision}", f"out={precision}")
        for precision in ("32-true", "bf16-mixed")
    )
    assert whole.code == half.code == 0, half.err
    scores = [json.loads(Path(f"{p}/metrics.json").read_text()) for p in ("32-true", "bf16-mixed")]
    assert scores[0]["accuracy"] == pytest.approx(scores[1]["accuracy"], abs=0.02)
    refused = av1part("validate", stage1, "precision=8")
    assert refused.code == 2
    assert len(refused.error_lines) == 1
