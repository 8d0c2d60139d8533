"""Points of a plan: what a line may say, and what the encoder is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from av1part.encoder.points import (
    CTC_LEVELS,
    OWN_ARGUMENTS,
    PlannedPoint,
    check_anchors,
    check_cq_levels,
    read_points,
)
from av1part.predictors.run import qindex_of
from av1part.system.errors import ConfigError

PLANS = Path(__file__).parents[3] / "conf/plan"
PRESETS = {"cpu0": {"cpu_used": 0}, "cpu1": {"cpu_used": 1}, "cpu2": {"cpu_used": 2}}


def read(line: Mapping[str, Any]) -> PlannedPoint:
    return read_points({"a": line})["a"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({}, "plan.points.a needs cpu_used"),
        ("cpu1", "plan.points.a must be keys"),
        ({"cpu_used": 10}, "a.cpu_used=10: give 0 to 9"),
        ({"cpu_used": True}, "a.cpu_used=True"),
        ({"cpu_used": 1, "speed": 2}, "has no key speed"),
        ({"cpu_used": 1, "sb_size": 32}, "sb_size=32: give 64, 128 or null"),
        ({"cpu_used": 1, "one_to_four": 0}, "one_to_four=0: give true or false"),
        ({"cpu_used": 1, "repeats": 0}, "repeats=0"),
        ({"cpu_used": 1, "arguments": "--a"}, "give a list"),
        ({"cpu_used": 1, "arguments": ["--threads=4"]}, "--threads=4, which the comparison sets"),
        ({"cpu_used": 1, "arguments": ["-o"]}, "-o, which"),
        ({"cpu_used": 1, "arguments": ["x.y4m"]}, "x.y4m, which"),
        ({"cpu_used": 1, "predictor": "trees"}, "predictor=trees: give model, variance"),
        ({"cpu_used": 1, "tau": 0.5}, "has a policy, and no predictor"),
        ({"cpu_used": 1, "predictor": "model", "tau": 2}, "policy.tau=2"),
        ({"cpu_used": 1, "predictor": "model", "tau": [0.9, 0.8]}, "one for each of policy.sizes"),
        ({"cpu_used": 1, "predictor": "model", "kind": "best"}, "policy.kind=best"),
        ({"cpu_used": 1, "predictor": "model", "k": "two"}, "policy.k=two: give 1"),
        ({"cpu_used": 1, "predictor": "model", "sizes": [128]}, "policy.sizes"),
        ({"cpu_used": 1, "types": []}, "types=[]: give a list of NONE, HORZ"),
        ({"cpu_used": 1, "types": ["AB"]}, "types=['AB']"),
        ({"cpu_used": 1, "types": ["NONE"], "predictor": "model"}, "give one of them"),
        ({"cpu_used": 1, "types": ["NONE"], "tau": 0.5}, "a.tau has no effect"),
        ({"cpu_used": 1, "types": ["NONE"], "kind": "top"}, "a.kind has no effect"),
        ({"cpu_used": 1, "predictor": "model", "least": 0.05}, "a.least has no effect, since kind"),
        ({"cpu_used": 1, "predictor": "model", "kind": "worth", "tau": 0.8}, "kind is worth"),
        ({"cpu_used": 1, "predictor": "model", "kind": "none", "k": 3}, "a.k has no effect"),
        ({"cpu_used": 1, "predictor": "random", "like": "b", "keep": False}, "keep has no effect"),
        ({"cpu_used": 1, "predictor": "random", "like": "b", "sizes": [8]}, "sizes has no effect"),
        ({"cpu_used": 1, "predictor": "model", "kind": "top", "k": 2.5}, "policy.k=2.5: give 1"),
        ({"cpu_used": 1, "predictor": "random"}, "belong together"),
        ({"cpu_used": 1, "like": "a"}, "belong together"),
        ({"cpu_used": 1, "predictor": "random", "like": "b"}, "like=b: name a point"),
    ],
)
def test_a_line_that_is_not_valid(line: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_points({"a": line})
    assert words in str(caught.value)


@pytest.mark.parametrize("lines", [None, [], {}, {"a": None}])
def test_a_plan_without_points(lines: object) -> None:
    with pytest.raises(ConfigError, match=r"plan\.points"):
        read_points(lines)


def test_a_point_may_not_be_called_like_a_path() -> None:
    with pytest.raises(ConfigError):
        read_points({"../a": {"cpu_used": 1}})


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"cpu_used": 1}, "preset"),
        ({"cpu_used": 1, "sb_size": 64}, "preset"),
        ({"cpu_used": 1, "one_to_four": False}, "switch"),
        ({"cpu_used": 1, "arguments": ["--enable-rect-partitions=0"]}, "switch"),
        ({"cpu_used": 1, "types": ["NONE", "SPLIT"]}, "baseline"),
        ({"cpu_used": 1, "predictor": "variance"}, "baseline"),
        ({"cpu_used": 1, "predictor": "model", "kind": "split"}, "baseline"),
        ({"cpu_used": 1, "predictor": "oracle"}, "oracle"),
        ({"cpu_used": 1, "predictor": "model"}, "learned"),
    ],
)
def test_the_kind_of_a_point(line: Mapping[str, Any], kind: str) -> None:
    point = read(line)
    assert point.category() == kind
    if kind == "learned":
        assert point.category(trained=False) == "baseline"


def test_the_encoder_does_not_prune_what_the_oracle_says() -> None:
    """It would drop AB and 1:4 types whose HORZ and VERT were not tried, so 8 % were lost."""
    assert not read({"cpu_used": 1, "predictor": "oracle"}).keep
    assert read({"cpu_used": 1, "predictor": "oracle", "keep": True}).keep
    assert read({"cpu_used": 1, "predictor": "model"}).keep


def test_what_the_encoder_is_told() -> None:
    switches = ["--enable-rect-partitions=0"]
    point = read({"cpu_used": 2, "sb_size": 64, "one_to_four": False, "arguments": switches})
    assert point.encoder_arguments(20, 10, ctc=False) == [
        *("--ivf", "--passes=1", "--end-usage=q", "--cq-level=20", "--kf-max-dist=0"),
        *("--cpu-used=2", "--threads=1", "--enable-1to4-partitions=0"),
        *("--bit-depth=10", "--input-bit-depth=10", "--sb-size=64", *switches),
    ]
    assert point.line() == (
        "cpu_used=2, sb_size=64, one_to_four=False, arguments=['--enable-rect-partitions=0']"
    )
    assert read({"cpu_used": 2, "predictor": "model", "tau": 0.5}).stock == read({"cpu_used": 2})


def test_common_test_conditions_are_those_of_aom() -> None:
    """The command line of AOM's common test conditions, all-intra."""
    wanted = {
        *("--cpu-used=0", "--passes=1", "--end-usage=q", "--cq-level=31", "--deltaq-mode=0"),
        *("--use-fixed-qp-offsets=1", "--enable-tpl-model=0", "--enable-fwd-kf=0", "--threads=1"),
        *("--enable-keyframe-filtering=0", "--kf-min-dist=0", "--kf-max-dist=0", "--row-mt=0"),
        *("--tile-rows=0", "--tile-columns=0"),
    }
    told = read({"cpu_used": 0}).encoder_arguments(31, 8, ctc=True)
    assert set(told) == {*wanted, "--ivf"}
    assert check_cq_levels(None, ctc=True) == [15, 23, 31, 39, 47, 55] == list(CTC_LEVELS)


def test_no_argument_of_the_comparison_can_be_given_twice() -> None:
    for argument in read({"cpu_used": 1, "sb_size": 64}).encoder_arguments(20, 10, ctc=True):
        known = ("--use-fixed", "--deltaq", "--enable-", "--kf-min")
        assert OWN_ARGUMENTS.fullmatch(argument) or argument.startswith(known), argument
    assert OWN_ARGUMENTS.fullmatch("--enable-1to4-partitions=1")
    assert not OWN_ARGUMENTS.fullmatch("--enable-rect-partitions=0")


@pytest.mark.parametrize(
    "levels",
    [
        [20, 32, 43],
        [20, 32, 43, 43],
        [20, 32, 43, 64],
        [0, 20, 32, 43],
        [20, 32, 43, 55.0],
        "20",
        20,
        [],
    ],
)
def test_quantisers_of_which_no_bd_rate_comes(levels: Any) -> None:
    with pytest.raises(ConfigError, match="at least four"):
        check_cq_levels(levels, ctc=False)


def test_quantisers() -> None:
    assert check_cq_levels(None, ctc=False) == [20, 32, 43, 55]
    assert check_cq_levels([1, 2, 3, 4, 5], ctc=False) == [1, 2, 3, 4, 5]
    assert [qindex_of(level) for level in (20, 32, 43, 55)] == [80, 128, 172, 220]
    with pytest.raises(ConfigError, match="15, 23, 31"):
        check_cq_levels([20, 32, 43, 55], ctc=True)


def test_anchors() -> None:
    points = read_points(
        {
            **PRESETS,
            "sb64": {"cpu_used": 1, "sb_size": 64},
            "off": {"cpu_used": 0, "one_to_four": False},
            "m": {"cpu_used": 1, "predictor": "model"},
        }
    )
    assert check_anchors(None, points) == ["cpu0", "cpu1", "sb64"]
    assert check_anchors(["off"], points) == ["off"]
    for wrong in (["m"], ["cpu9"], [], "cpu0"):
        with pytest.raises(ConfigError, match=r"plan\.anchors"):
            check_anchors(wrong, points)
    with pytest.raises(ConfigError, match="no preset"):
        check_anchors(None, {"m": points["m"]})


def points_of(plan: str) -> dict[str, Any]:
    """Return the lines of a plan's file over those of the plans that it begins with, as Hydra."""
    own = yaml.safe_load((PLANS / f"{plan}.yaml").read_text())
    lines: dict[str, Any] = {}
    for name in own.get("defaults", []):
        lines.update(points_of(name))
    for name, line in own["points"].items():
        lines[name] = line and {**(lines.get(name) or {}), **line}
    return lines


def test_a_name_means_the_same_point_in_every_plan() -> None:
    seen: dict[str, PlannedPoint] = {}
    for file in sorted(PLANS.glob("*.yaml")):
        for name, point in read_points(points_of(file.stem)).items():
            if file.stem != "demo":  # whose cpu1 has superblocks of 64
                once = replace(point, repeats=1)
                assert seen.setdefault(name, once) == once, f"{name} of {file.name}"
    assert points_of("learned").items() <= points_of("claimed").items()
