"""From a plan to jobs: names, words, order, and plans that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from av1part.runs.sweeps import START
from av1part.sweeps.plan import Job, expand, read_plan
from av1part.system.errors import ConfigError

PARSER = OverridesParser.create()
ROOT = Path(__file__).resolve().parents[3]


def jobs(plan: dict[str, Any], *arguments: str) -> list[Job]:
    return expand(read_plan(plan), list(arguments), PARSER)


def test_variants_folds_and_seeds() -> None:
    found = jobs(
        {
            "variants": {"a": ["method=frozen"], "b": ["method=adapter"]},
            "folds": {"x": ["data.split_list=x.csv"], "y": ["data.split_list=y.csv"]},
            "seeds": [7, 8],
            "start": ["stage=stage1"],
        },
        "trainer.max_epochs=1",
    )
    names = [f"{job.variant}/{job.member}" for job in found]
    members = ["fold-x_seed-7", "fold-x_seed-8", "fold-y_seed-7", "fold-y_seed-8"]
    assert names == [f"{v}/{m}" for v in (START, "a", "b") for m in members]
    assert found[0].overrides == (
        *("stage=stage1", "data.split_list=x.csv", "trainer.max_epochs=1", "seed=7"),
    )
    assert found[-1].overrides == (
        *("data.split_list=y.csv", "method=adapter", "trainer.max_epochs=1", "seed=8"),
    )


def test_the_command_line_counts_more_than_a_variant() -> None:
    (job,) = jobs({"variants": {"short": ["trainer.max_epochs=3"]}}, "trainer.max_epochs=9")
    assert job.overrides == ("trainer.max_epochs=3", "trainer.max_epochs=9")


def test_several_values_are_several_variants() -> None:
    plan = {"variants": {"g": ["optimizer.lr.head=1e-4,1e-3", "adapter.layers=[1],[3,4]"]}}
    assert [job.variant for job in jobs(plan)] == [
        "g_lr.head-0.0001_layers-1",
        "g_lr.head-0.0001_layers-3-4",
        "g_lr.head-0.001_layers-1",
        "g_lr.head-0.001_layers-3-4",
    ]
    crossed = jobs(
        {"variants": {"a": [], "b": []}, "params": {"data.context": "0,4"}}, "loss=focal"
    )
    assert [job.variant for job in crossed] == [
        *("a_context-0", "a_context-4", "b_context-0", "b_context-4"),
    ]
    assert all(job.overrides[-1] == "loss=focal" for job in crossed)


def test_values_of_the_command_line_do_not_multiply_stage_1() -> None:
    plan = {"variants": {"a": []}, "seeds": [0], "start": ["stage=stage1"]}
    found = jobs(plan, "adapter.bottleneck=8,16", "data.size=16")
    assert [job.variant for job in found] == [START, "a_bottleneck-8", "a_bottleneck-16"]
    assert found[0].overrides == ("stage=stage1", "data.size=16", "seed=0")


def test_a_start_of_each_variant_has_its_words() -> None:
    plan = {
        "variants": {"a": ["data.context=0"], "b": ["data.context=4", "method=frozen"]},
        "seeds": [1],
        "start": ["stage=stage1", "method=auto"],
        "start_per_variant": True,
    }
    found = jobs(plan, "trainer.max_epochs=2")
    assert [(job.variant, job.member, job.of) for job in found] == [
        (START, "a_seed-1", "a"),
        (START, "b_seed-1", "b"),
        ("a", "seed-1", None),
        ("b", "seed-1", None),
    ]
    assert found[1].overrides == (
        *("data.context=4", "method=frozen", "trainer.max_epochs=2"),
        *("stage=stage1", "method=auto", "trainer.max_epochs=2", "seed=1"),
    )


def test_the_command_line_leaves_a_start_what_it_is_and_replaces_params() -> None:
    plan = {
        "variants": {"a": []},
        "params": {"data.context": "0,4"},
        "start": ["stage=stage1", "method=auto"],
    }
    found = jobs(plan, "stage=stage3_rect", "data.context=8")
    assert [job.overrides for job in found] == [
        ("stage=stage1", "method=auto", "data.context=8"),
        ("stage=stage3_rect", "data.context=8"),
    ]


def test_without_a_plan_it_is_hydras_own_product() -> None:
    found = jobs({}, "seed=1,2", "method=frozen,finetune")
    assert [job.overrides for job in found] == [
        ("seed=1", "method=frozen"),
        ("seed=1", "method=finetune"),
        ("seed=2", "method=frozen"),
        ("seed=2", "method=finetune"),
    ]
    assert {job.variant for job in found} == {None}


@pytest.mark.parametrize(
    ("plan", "arguments", "says"),
    [
        ({"sede": [1]}, (), "hydra.sweeper.sede is unknown"),
        ({"seeds": "12"}, (), "distinct integers"),
        ({"seeds": []}, (), "distinct integers"),
        ({"seeds": [1, True]}, (), "distinct integers"),
        ({"variants": {"a": []}}, ("seed=1,2",), "seeds are no variants"),
        ({"variants": {"a": ["seed=1,2"]}}, (), "seeds are no variants"),
        ({"variants": {"a": ["data.x=1,2"]}}, ("data.x=3",), "data.x tells variants"),
        ({"variants": {"-stage1": []}}, (), "rename"),
        ({"variants": {"report": []}}, (), "rename"),
        ({"seeds": [1]}, ("seed=3",), r"hydra\.sweeper\.seeds=\[\.\.\.\]"),
        ({"variants": ["a"]}, (), "must map names"),
        ({"variants": {"a/b": []}}, (), "a/b"),
        ({"variants": {"a": [1]}}, (), "no override"),
        ({"variants": {START: []}}, (), "rename"),
        ({"variants": {"a": [], "a_x-1": []}, "params": {"data.x": "1"}}, (), None),
        ({"variants": {"a": ["data.x=1,2"], "a_x-1": []}}, (), "two variants called a_x-1"),
        ({"variants": {"a": ["data.x=interval(0,1)"]}}, (), "lists its values"),
        ({"start": ["stage=stage1"]}, ("stage1=s.ckpt",), "leave out stage1="),
        ({"start_per_variant": True}, (), "with a start"),
        ({"start": [], "start_per_variant": 1}, (), "true or false"),
        ({"params": [1]}, (), "must map keys"),
        ({"start": "stage=stage1"}, (), "must be a list"),
    ],
)
def test_plans_that_cannot_be(plan: dict, arguments: tuple[str, ...], says: str | None) -> None:
    if says is None:
        jobs(plan, *arguments)
        return
    with pytest.raises(ConfigError, match=says):
        jobs(plan, *arguments)


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from("xyz"), max_size=3, unique=True),
)
def test_no_two_jobs_share_a_folder(seeds: list[int], names: list[str], folds: list[str]) -> None:
    found = jobs(
        {
            "variants": {name: [] for name in names},
            "folds": {fold: [] for fold in folds},
            "seeds": seeds,
            "start": ["stage=stage1"],
        }
    )
    folders = {(job.variant, job.member) for job in found}
    assert len(folders) == len(found) == (len(names) + 1) * len(seeds) * max(1, len(folds))


def test_exp11a_is_the_grid_that_was_asked_for() -> None:
    given = {}
    for name in ("shared/sweep", "experiment/exp11a/all"):  # the latter extends the former
        given |= yaml.safe_load((ROOT / f"conf/{name}.yaml").read_text())["hydra"]["sweeper"]
    found = jobs(given, "experiment=exp11a/all")
    variants = dict.fromkeys(job.variant for job in found)
    # Stage 1, methods, the study's, layers, and rate x bottleneck, of which v1 is a cell.
    assert len(variants) == 1 + 4 + 5 + 4 + (12 - 1)
    assert len(found) == 5 * len(variants)
