"""Every option under conf/ trains for an epoch on the embedded data: nothing is left untried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from av1part import embedded
from av1part.cli.main import config_folder

from .conftest import Command

CONF = config_folder()
OPTIONS = sorted(
    path.relative_to(CONF).with_suffix("").as_posix()
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF and path.relative_to(CONF).parts[0] != "hydra"
)

# What an option needs beside it, where its group's words do not do.
GROUPS = {
    "stage": (),
    "method": ("stage=stage2",),
    "adapter": ("stage=stage2", "method=adapter"),
    "injection": ("stage=stage3_rect",),
    "experiment": (),
    "cache": ("stage=stage2", "method=frozen"),
}
SPECIAL = {
    "stage/stage3_1to4": ("taxonomy=v6_1to4", "data.protocol=random_blocks"),
    "trainer/ddp": ("trainer.accelerator=cpu", "trainer.devices=1"),
}
STARTS_AT_RANDOM = ("stage/stage1", "method/scratch")


def words_for(option: str) -> list[str]:
    group, _, name = option.partition("/")
    words = [f"{group}={name}", *GROUPS.get(group, ("stage=stage1",)), *SPECIAL.get(option, ())]
    words += ["name=tried", "data.batch_size=64", "trainer.max_epochs=1"]
    if group != "logger":
        words.append("logger=none")
    words.append("cache.folder=features" if group == "cache" else "cache=off")
    return [*words, "backbone.width=8", "callbacks.plots=false"]


def marked(option: str) -> object:
    """Leave experiments, which the unit tests compose, to `make test-all`."""
    return pytest.param(
        option, marks=[pytest.mark.slow] if option.startswith("experiment/") else []
    )


@pytest.mark.parametrize("option", map(marked, OPTIONS))
def test_an_epoch_with_this_option(
    av1part: Command,
    option: str,
    small_store: Path,
    one_to_four_store: Path,
    stage1: Path,
    stage2: Path,
) -> None:
    words = words_for(option)
    if option == "injection/confusion":
        words.append(f"injection.stage2={stage2}")
    if "taxonomy=v6_1to4" in words:
        words += [f"data.path={one_to_four_store}", "method=scratch"]
    else:
        words += [f"data.path={small_store}", f"data.split_list={embedded.SPLIT_LIST}"]
        if "stage=stage1" not in words and option not in STARTS_AT_RANDOM:
            words.append(f"stage1={stage1}")
    ran = av1part("train", *words)
    if option == "trainer/gpu" and not torch.cuda.is_available():
        assert ran.code == 2
        assert "No supported gpu backend found" in ran.error_lines[0]
        return
    assert ran.code == 0, ran.err
    folder = Path("runs/tried")
    for kind in ("best", "last"):
        record = json.loads((folder / "checkpoints" / f"{kind}.verified.json").read_text())
        assert record["delta_pp"] == 0
    assert len((folder / "history.csv").read_text().splitlines()) == 2
    assert json.loads((folder / "metrics.json").read_text())["epoch"] == 0
    # What the file says is what ran.
    group, _, _ = option.partition("/")
    if group != "experiment":
        said = OmegaConf.to_container(OmegaConf.load(CONF / f"{option}.yaml"), resolve=False)
        composed = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))[group]
        overridden = {word.partition("=")[0].partition(".")[2] for word in words}
        for key in set(said) - overridden - {"defaults"}:
            if "${" not in str(said[key]):
                assert composed[key] == said[key], key
