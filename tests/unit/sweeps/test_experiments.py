"""Every experiment that is a sweep composes, job by job, to settings that training takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate

from av1part.cli.main import config_folder
from av1part.config.check import check_values
from av1part.config.defects import check_cascade, check_members
from av1part.config.store import register
from av1part.defects import DEFECTS
from av1part.sweeps.plan import Job, Plan, expand, read_plan

from ...conftest import load_file

FOLDER = config_folder() / "experiment"
SWEEPS = [
    file.relative_to(FOLDER).with_suffix("").as_posix()
    for file in sorted(FOLDER.rglob("*.yaml"))
    if "sweeper" in (yaml.safe_load(file.read_text()).get("hydra") or {})
]


def test_there_are_some() -> None:
    assert {"exp11a/all", "leak", "qindex", "input"} <= set(SWEEPS)


def plan_of(experiment: str) -> Plan:
    """Read an experiment's plan off the sweeper, as Hydra makes it."""
    cfg = compose("train", overrides=[f"experiment={experiment}"], return_hydra_config=True)
    sweeper = instantiate(cfg.hydra.sweeper)
    sweeper.setup(hydra_context=None, task_function=None, config=cfg)
    return read_plan(sweeper.plan)


@pytest.mark.parametrize("experiment", SWEEPS)
def test_it_composes(experiment: str) -> None:
    register()
    with initialize_config_dir(str(Path(config_folder())), version_base="1.3"):
        plan = plan_of(experiment)
        assert plan.baseline is not None
        assert plan.seeds is not None
        # A search has many tries of one seed; what it chooses is trained with several.
        # Three are enough for forensics, whose effects are large, and for claims by its pilot; of
        # Exp 13B they are the budget.
        fewest = {"predictor": 1, "forensics": 3, "claims": 3, "exp13b": 3}
        assert len(plan.seeds) >= fewest.get(re.split("[/_]", experiment)[0], 5)
        jobs = expand(plan, [f"experiment={experiment}"], OverridesParser.create())
        seen = set()
        for job in jobs:
            if job.seed != plan.seeds[0]:
                continue
            cfg = compose("train", overrides=list(job.overrides))
            check_values(cfg, "train")
            if experiment != "forensics_stage1":  # whose variants are starts for others
                assert (cfg.stage.name == "stage1") == (job.variant == "stage1")
            assert cfg.seed == plan.seeds[0]
            del cfg.name, cfg.stage.name, cfg.data.split_list  # of the fold
            seen.add((job.variant, str(cfg)))
    # No two variants are the same run under two names.
    assert len({settings for variant, settings in seen if variant != "stage1"}) == len(
        {variant for variant, _ in seen if variant != "stage1"}
    )


@pytest.mark.parametrize(
    "experiment",
    ["exp13b/meta", "exp13b/ordinary", "exp13b/trunk_meta", "exp13b/trunk_ordinary"],
)
def test_no_start_of_exp_13b_ends_before_another(experiment: str) -> None:
    register()
    with initialize_config_dir(str(Path(config_folder())), version_base="1.3"):
        plan = plan_of(experiment)
        jobs = expand(plan, [f"experiment={experiment}"], OverridesParser.create())
        found = [
            compose("train", overrides=list(job.overrides))
            for job in jobs
            if job.variant != "stage1"
        ]
    assert len(found) == 6
    for cfg in found:
        assert (cfg.scheduler.kind, cfg.callbacks.patience) == ("constant", None)
        assert cfg.trainer.max_epochs == 5


@pytest.mark.parametrize("experiment", [name for name in SWEEPS if "exp09" in name])
def test_confusion_is_measured_on_the_stage_2_of_the_same_seed(experiment: str) -> None:
    register()
    with initialize_config_dir(str(Path(config_folder())), version_base="1.3"):
        plan = plan_of(experiment)
        jobs = expand(plan, [f"experiment={experiment}"], OverridesParser.create())
        found = [job for job in jobs if job.variant == "confusion"]
        assert len(found) == 5
        last = found[-1]  # the others differ in the number alone
        measured = compose("train", overrides=list(last.overrides)).injection.stage2
        assert f"/seed-{last.seed}/" in measured


def test_cascades_of_forensics_have_the_defects_of_their_stages() -> None:
    """What the sweeps train is what the cascades are made of, and each may be given so."""
    register()
    tool = load_file(FOLDER.parents[1] / "experiments/forensics/cascade.py")
    trained: dict[str, dict[str | None, Job]] = {}
    with initialize_config_dir(str(Path(config_folder())), version_base="1.3"):
        for stage, sweep in tool.SWEEPS.items():
            plan = plan_of(sweep)
            assert list(plan.seeds or ()) == list(tool.SEEDS)
            jobs = expand(plan, [f"experiment={sweep}"], OverridesParser.create())
            trained[stage] = {job.variant: job for job in jobs if job.seed == 0}
        for name, cascade in tool.CASCADES.items():
            check_cascade(cascade.defects, split="val", calibration="fit")
            protocols, members = set(), []
            for stage, run in tool.runs(cascade, 0).items():
                cfg = compose("train", overrides=list(trained[stage][run.parent.name].overrides))
                assert cfg.stage.name == stage
                assert set(cfg.defects) <= set(cascade.defects), (name, stage)
                protocols.add("random_blocks" in cfg.defects)
                members.append(list(cfg.defects))
                if stage != "stage1":  # which starts from what its cascade has, or a healthy one
                    start = trained["stage1"][Path(cfg.stage1).parents[2].name]
                    first = compose("train", overrides=list(start.overrides)).defects
                    assert set(first) <= set(cfg.defects)
                    assert ("random_blocks" in first) == ("random_blocks" in cfg.defects)
            check_members(cascade.defects, members)
            assert len(protocols) == 1, name
    assert {d for cascade in tool.CASCADES.values() for d in cascade.defects} == set(DEFECTS)
