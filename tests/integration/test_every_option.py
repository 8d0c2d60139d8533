"""Every choice of a group trains for an epoch on the embedded data: nothing is left untried."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from av1part import embedded
from av1part.cli.main import config_folder
from av1part.config.check import leaves
from av1part.config.schema import groups_of

from .conftest import META, TINY, Command

CONF = config_folder()
FILES = {
    "=".join(path.relative_to(CONF).with_suffix("").as_posix().split("/", 1))
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF and path.relative_to(CONF).parts[0] not in ("hydra", "plan", "shared")
}
EXPERIMENTS = sorted(word for word in FILES if word.startswith("experiment="))
OPTIONS = FILES - set(EXPERIMENTS)
OPTIONS |= {
    f"{group}={name}" for group, spec in groups_of("train").items() for name in spec.choices
}

GLOBAL = "# @package _global_"
SCRATCH = "method=scratch"
ADAPTER = "stage=stage2 method=adapter"
# A run tries several options at once; those that the test itself adds are not among them.
RUNS = [
    "stage=stage1 backbone=resnet18 loss=hard_negative head=mlp logger=csv trainer=cpu",
    "stage=stage1 backbone=resnet18_plain loss=focal head=linear logger=default trainer=ddp",
    "stage=stage1 backbone=resnet18_small scheduler=onecycle callbacks=default data=default",
    f"stage=stage2 {SCRATCH} scheduler=constant logger=none optimizer=adamw cache=off",
    f"stage=stage1 {SCRATCH} optimizer=muon scheduler=onecycle",
    "stage=stage2 method=auto scheduler=cosine",
    "stage=stage2 method=frozen cache=auto loss=cb_focal",
    "stage=stage2 method=finetune loss=cross_entropy",
    f"stage=stage2 {SCRATCH} loss=balanced",
    "stage=stage2 method=partial",
    "stage=stage2 method=meta",
    "stage=stage2 method=ulmfit",
    f"{ADAPTER} adapter=bitfit",
    f"{ADAPTER} adapter=block",
    f"{ADAPTER} adapter=bottleneck",
    f"{ADAPTER} adapter=conv1x1",
    f"{ADAPTER} adapter=depthwise3x3",
    f"{ADAPTER} adapter=l234",
    f"{ADAPTER} adapter=l34",
    f"{ADAPTER} adapter=lora",
    f"{ADAPTER} adapter=ssf",
    "stage=stage3_rect injection=confusion",
    "stage=stage3_rect injection=none",
    "stage=stage3_ab injection=uniform",
    f"stage=stage3_1to4 {SCRATCH} taxonomy=v6_1to4 data.protocol=random_blocks",
    "stage=stage1 trainer=gpu",
    "stage=superblock backbone=superblock",
    "stage=superblock loss=cost_sensitive",
    "stage=stage1 backbone.planes=[level,detail,steps] conditioning=qindex_blocks data.context=8",
    f"stage=stage2 {SCRATCH} backbone=resnet18_small backbone.planes=[steps] conditioning=qindex",
    f"stage=stage1 {SCRATCH} backbone=superblock data.context=16",
    f"stage=stage2 {SCRATCH} backbone=superblock backbone.depth=2 conditioning=none",
]
# Experiments, which the unit tests compose, are left to `make test-all`.
TRIED = [*RUNS, *(pytest.param(word, marks=pytest.mark.slow) for word in EXPERIMENTS)]


def test_every_option_is_in_a_run() -> None:
    assert {word for run in RUNS for word in run.split()} >= OPTIONS


@pytest.mark.parametrize("options", TRIED)
def test_an_epoch_with_these_options(
    av1part: Command,
    options: str,
    small_store: Path,
    one_to_four_store: Path,
    stage1: Path,
    stage2: Path,
    some_costs: Callable[[Path], Path],
) -> None:
    words = options.split()
    groups = [word.partition("=")[0] for word in words]
    more = ["name=tried", "trainer.max_epochs=1", "cache.folder=features"]
    more += [word for word in TINY if word.partition("=")[0] not in (*groups, "trainer.max_epochs")]
    if {"method=meta", "experiment=exp13b/meta"} & set(words):
        more = [*META[2:], *(word for word in more if not word.startswith("data.batch_size"))]
    if "trainer=ddp" in words:
        more += ["trainer.accelerator=cpu", "trainer.devices=1"]
    if "injection=confusion" in words:
        more.append(f"injection.stage2={stage2}")
    if {"loss=cost_sensitive", "experiment=predictor/costs"} & set(words):
        more.append(f"data.costs={some_costs(small_store)}")
    if "taxonomy=v6_1to4" in words:
        more.append(f"data.path={one_to_four_store}")
    else:
        more += [f"data.path={small_store}", f"data.split_list={embedded.SPLIT_LIST}"]
        first = {"stage=stage1", "stage=superblock", SCRATCH}
        first |= {"experiment=demo/stage1", "experiment=demo/superblock"}
        if not first & set(words):
            more.append(f"stage1={stage1}")
        if options.startswith("experiment=demo/stage"):
            more += ["backbone.se=true", "backbone.attention=true"]  # as that Stage 1 has them
    ran = av1part("train", *words, *more)
    if "trainer=gpu" in words and not torch.cuda.is_available():
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
    # What each file says is what ran.
    composed = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    overridden = {word.partition("=")[0] for word in more}
    for option in FILES & set(words) - set(EXPERIMENTS):
        group, _, name = option.partition("=")
        file = OmegaConf.to_container(OmegaConf.load(CONF / f"{group}/{name}.yaml"), resolve=False)
        at = "" if (CONF / f"{group}/{name}.yaml").read_text().startswith(GLOBAL) else f"{group}."
        for key, value in leaves(OmegaConf.create({k: file[k] for k in set(file) - {"defaults"}})):
            if f"{at}{key}" not in overridden and "${" not in str(value):
                assert OmegaConf.select(OmegaConf.create(composed), f"{at}{key}") == value, key
