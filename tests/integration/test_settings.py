"""Settings that cannot be: one line that names key and remedy, before anything is opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Command
from .test_cli import refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "stage=stage2", "stage1=[a.ckpt,b.ckpt]"), "stage1 must be one path"),
        (("train", "data.path=[a,b]"), "data.path must be one path, got ['a', 'b']"),
        (("train", "-m", "data.path=[a,b]", "seed=1"), "data.path must be one path"),
        (("train", "data.split_list=[a]"), "data.split_list must be one path"),
        (("train", "injection=confusion", "injection.stage2=[a]"), "injection.stage2 must be one"),
        (("train", "stage=stage2", "stage1=x", "cache.folder=[a]"), "cache.folder must be one"),
        (("train", "-m", "stage1=true,false"), "stage1 must be one path, got True"),
        (("validate", "x.ckpt", "out=[a]"), "out must be one path"),
        (("report", "x", "out=[a]"), "out must be one path"),
        (("report", "x", "publish=[a]"), "publish must be one path"),
    ],
)
def test_a_path_is_text(words: tuple[str, ...], said: str, av1part: Command) -> None:
    refused(av1part(*words), said)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("key", ["data.path", "stage1", "data.split_list"])
def test_a_path_may_be_called_by_a_number(key: str, av1part: Command) -> None:
    refused(av1part("train", "-m", "stage=stage2", f"{key}=2026,2027"), "2026")


@pytest.mark.parametrize("given", ["5", "frozen", "[]", "{a: 1}"])
def test_variants_are_a_list(given: str, av1part: Command, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    refused(av1part("validate", tmp_path, "split=test", f"variants={given}"), "a list of names")


def test_a_variant_may_be_called_by_a_number(av1part: Command, tmp_path: Path) -> None:
    (tmp_path / "8" / "seed-0").mkdir(parents=True)
    (tmp_path / "8" / "seed-0" / "metrics.json").write_text("{}")
    jobs = [{"folder": "8/seed-0", "variant": "8"}]
    (tmp_path / "sweep.json").write_text(json.dumps({"format": 1, "jobs": jobs}))
    ran = av1part("validate", tmp_path, "split=test", "variants=[8]")
    refused(ran, "8/seed-0/checkpoints/best.ckpt does not exist")


def test_a_sweep_with_a_number_without_end_is_refused(av1part: Command) -> None:
    refused(av1part("train", "-m", "loss.gamma=inf,2"), "loss.gamma must be finite, got inf")
    assert not list(Path.cwd().iterdir())
