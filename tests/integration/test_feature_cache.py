"""Training on cached features gives what training on blocks gives."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from av1part.training import feature_cache

from .conftest import Command

METHODS = {
    "frozen": ("method=frozen", "conditioning=qindex"),
    "all layers": ("method=adapter",),
    "l34": ("method=adapter", "adapter=l34"),
    "lora": ("method=adapter", "adapter=lora"),
    "partial": ("method=partial",),
    "turned": ("method=adapter", "data.augment=symmetries"),
    "half": ("method=adapter", "adapter=l34", "trainer.precision=bf16-mixed"),
}


def history(name: str) -> list[dict[str, float]]:
    with Path(f"runs/{name}/history.csv").open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_metrics_are_those_without(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, method: str
) -> None:
    """Dropout is on; at 64 blocks a batch an epoch is some 30 steps."""
    own = [word for word in on_small if not word.startswith("cache")]
    words = ("train", "stage=stage2", *METHODS[method], f"stage1={stage1}", *own)
    ran = av1part(*words, "name=on", "cache.folder=features")
    assert ran.code == 0, ran.err
    assert "features of the frozen trunk" in ran.err
    off = av1part(*words, "name=off", "cache=off")
    assert off.code == 0, off.err
    assert "features of the frozen trunk" not in off.err
    for cached, plain in zip(history("on"), history("off"), strict=True):
        for key in ("train_loss", "val_loss"):
            assert cached[key] == pytest.approx(plain[key], rel=1e-6)
        assert cached["macro_f1"] == plain["macro_f1"]
    on, off_ = (json.loads(Path(f"runs/{n}/metrics.json").read_text()) for n in ("on", "off"))
    assert on == off_
    record = json.loads(Path("runs/on/checkpoints/best.verified.json").read_text())
    assert record["delta_pp"] == 0, "read back on blocks"
    timing = json.loads(Path("runs/on/timing.json").read_text())
    parts = ("features", "validation", "verification")
    assert all(timing[f"{part}_seconds"] > 0 for part in parts)


def test_the_limit_may_be_none(av1part: Command, on_small: tuple[str, ...], stage1: Path) -> None:
    own = [word for word in on_small if not word.startswith("cache")]
    words = ("train", "-m", "stage=stage2", "method=frozen", f"stage1={stage1}", *own)
    ran = av1part(*words, "cache.folder=features", "cache.limit_gb=inf", "trainer.max_epochs=1")
    assert ran.code == 0, ran.err
    assert len(list(Path("features").glob("*.npy"))) == 2


def test_runs_of_a_sweep_share_them_and_augmented_runs_do_without(
    av1part: Command, on_small: tuple[str, ...], stage1: Path
) -> None:
    own = [word for word in on_small if not word.startswith("cache")]
    words = ("train", "stage=stage2", "method=frozen", f"stage1={stage1}", *own)
    words = (*words, "cache.folder=features", "trainer.max_epochs=1")
    for seed in (1, 2):
        assert av1part(*words, f"seed={seed}", f"name=s{seed}").code == 0
    assert len(list(Path("features").glob("*.npy"))) == 2, "train and val, once for both seeds"
    for name in ("data.noise=0.1", "data.mixup=0.2"):
        ran = av1part(*words, name, f"name={name.partition('=')[0]}")
        assert ran.code == 0, ran.err
        assert "features of the frozen trunk" not in ran.err
    assert len(list(Path("features").glob("*.npy"))) == 2


def test_eight_of_each_that_do_not_fit_are_done_without(
    av1part: Command, on_small: tuple[str, ...], stage1: Path
) -> None:
    own = [word for word in on_small if not word.startswith("cache")]
    words = ("train", "stage=stage2", "method=frozen", f"stage1={stage1}", *own)
    words = (*words, "cache.folder=my features (1)", "cache.limit_gb=0.0002")
    ran = av1part(*words, "data.augment=symmetries", "name=turned")
    assert ran.code == 0, ran.err
    assert "more than cache.limit_gb: not cached" in ran.err
    assert not Path("my features (1)").exists()
    assert av1part(*words, "name=straight").code == 0
    assert list(Path("my features (1)").glob("*.npy"))


def test_a_folder_that_cannot_be_written_is_done_without(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_cache, "atomic_path", full)
    own = [word for word in on_small if not word.startswith("cache")]
    words = ("train", "stage=stage2", "method=frozen", f"stage1={stage1}", *own)
    ran = av1part(*words, "cache.folder=features", "name=done")
    assert ran.code == 0, ran.err
    assert "features are not cached: features (No space left on device)" in ran.err
    assert Path("runs/done/metrics.json").is_file()
