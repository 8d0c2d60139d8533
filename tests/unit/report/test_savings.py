"""The figures of a comparison of encodes: rows whose savings and losses are known by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from av1part.metrics.bdrate import BadCurve
from av1part.report.encodes import AnchorComparison, BadClip, PointChange
from av1part.report.savings import compare, repeat_spread
from av1part.runs.encodes import read_encodes
from av1part.system.errors import ReportError

Row = dict[str, Any]
Edit = Callable[[list[Row]], list[Row]]


@pytest.fixture
def made(encodes_examples: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a folder of two points, `cpu0` and `fast`, after an edit of rows."""
    example = encodes_examples.Example

    def make(edit: Edit = lambda rows: rows, clips: int = 2, **fast: Any) -> Path:
        facts: dict[str, Any] = {"time": 0.75, "work": 0.5, "size": 1.02} | fast
        points = {
            "cpu0": example("preset", 1.0, 1.0, 1.0),
            "fast": example(facts.pop("kind", "preset"), **facts),
        }
        names = encodes_examples.clips(clips, "photographs", "video")
        rows = edit(list(encodes_examples.rows(points, list(names))))
        return Path(encodes_examples.write_encodes(tmp_path / "encodes", points, names, rows))

    return make


def only(folder: Path) -> tuple[AnchorComparison, PointChange]:
    (comparison,) = compare(read_encodes(folder))
    (change,) = comparison.points
    return comparison, change


def changed(rows: list[Row], values: Mapping[str, Any], **where: Any) -> list[Row]:
    """Set values in the rows that are selected by columns."""
    chosen = [row for row in rows if all(row[key] == value for key, value in where.items())]
    assert chosen
    for row in chosen:
        row |= values
    return rows


def test_savings_and_losses_by_hand(made: Callable[..., Path]) -> None:
    """Times 12 s of 20 s at one level of one clip, a quarter less at all others."""

    def edit(rows: list[Row]) -> list[Row]:
        at = {"clip": "clip1", "cq_level": 32}
        changed(rows, {"seconds": 20.0}, point="cpu0", **at)
        changed(rows, {"seconds": 11.0, "inference_seconds": 1.0}, point="fast", **at)
        return changed(rows, {"work": 10**7}, point="fast", **at)  # of 10^8

    comparison, change = only(made(edit))
    assert comparison.measure == "time"
    assert [clip.saved("time") for clip in change.clips] == pytest.approx(
        [0.25, (0.25 + 0.4 + 0.25 + 0.25) / 4]
    )
    time, work, loss = change.saved("time"), change.saved("work"), change.loss()
    assert time is not None
    assert work is not None
    assert loss is not None
    assert time.estimate == pytest.approx((0.25 + 0.2875) / 2)
    assert (time.low, time.high) == pytest.approx((0.25, 0.2875))  # the clips are the extremes
    assert work.estimate == pytest.approx((0.5 + (3 * 0.5 + 0.9) / 4) / 2)
    assert loss.estimate == pytest.approx(0.02, abs=1e-5)
    assert comparison.ratio(change) == pytest.approx(time.estimate / 0.02, rel=1e-3)
    assert change.inference == pytest.approx((0 + (1 / 12) / 4) / 2)
    assert change.clips[1].levels[32].more_bytes == pytest.approx(0.02, abs=1e-5)


def test_inference_counts_and_repeats_give_their_median(
    made: Callable[..., Path], encodes_examples: ModuleType
) -> None:
    """Of 10 + 2, 30 + 2 and 13 + 2 seconds the median is 15, 3/4 of 20."""

    def edit(rows: list[Row]) -> list[Row]:
        changed(rows, {"seconds": 20.0}, point="cpu0")
        for repeat, seconds in enumerate((10.0, 30.0, 13.0)):
            values = {"seconds": seconds, "inference_seconds": 2.0, "work": 10**7 * (1 + repeat)}
            changed(rows, values, point="fast", repeat=repeat)
        return rows

    folder = made(edit, repeats=3, kind="learned")
    _, change = only(folder)
    time, work = change.saved("time"), change.saved("work")
    assert time is not None
    assert time.estimate == pytest.approx(0.25)
    assert work is not None
    assert work.estimate == pytest.approx(0.9)  # of the first repeat
    assert change.inference == pytest.approx(2 / 15)
    assert repeat_spread(read_encodes(folder)) == pytest.approx((32 - 12) / 15)


def test_the_mean_of_two_clips_and_the_worst(made: Callable[..., Path]) -> None:
    def edit(rows: list[Row]) -> list[Row]:
        for row in rows:
            if row["clip"] == "clip1" and row["point"] == "fast":
                row["bytes"] = round(row["bytes"] / 1.02 * 1.04)
        return rows

    _, change = only(made(edit))
    loss = change.loss()
    assert loss is not None
    assert loss.estimate == pytest.approx(0.03, abs=1e-5)
    assert (loss.low, loss.high) == pytest.approx((0.02, 0.04), abs=1e-5)
    assert change.worst == ("clip1", pytest.approx(0.04, abs=1e-5))
    video = change.loss("psnr_y", "video")
    assert video is not None
    assert video.estimate == pytest.approx(0.04, abs=1e-5)
    assert video.clusters == 1


def test_qualities_are_compared_each_by_itself(made: Callable[..., Path]) -> None:
    """Chroma alone is better by 4 dB: luma shows nothing of it, 6:1:1 one dB."""

    def edit(rows: list[Row]) -> list[Row]:
        for row in rows:
            row["vmaf"] = row["psnr_y"]
            if row["point"] == "fast":
                row["psnr_u"] += 4
                row["psnr_v"] += 4
        return rows

    comparison, change = only(made(edit, size=1.0))
    assert comparison.qualities == ("psnr_y", "psnr_611", "ssim", "vmaf")
    losses = {quality: change.loss(quality) for quality in comparison.qualities}
    for quality in ("psnr_y", "ssim", "vmaf"):
        assert losses[quality].estimate == pytest.approx(0, abs=1e-9)  # type: ignore[index,union-attr]
    # Bytes fall by 0.94 a cq level and quality by 0.22 dB: a dB is 0.94^(1 / 0.22) of the bytes.
    expected = 0.94 ** (1 / 0.22) - 1
    assert losses["psnr_611"].estimate == pytest.approx(expected, rel=1e-4)  # type: ignore[union-attr]


def test_vmaf_only_where_all_encodes_have_it(made: Callable[..., Path]) -> None:
    folder = made(lambda rows: changed(rows, {"vmaf": 90.0}, point="fast"))
    assert "vmaf" not in only(folder)[0].qualities


def test_one_clip_has_no_interval(made: Callable[..., Path]) -> None:
    _, change = only(made(clips=1))
    loss = change.loss()
    assert loss is not None
    assert (loss.low, loss.high, loss.clusters) == (None, None, 1)


def test_seconds_of_encodes_beside_others_do_not_count(made: Callable[..., Path]) -> None:
    one = {"clip": "clip0", "cq_level": 20, "point": "cpu0"}
    comparison, change = only(made(lambda rows: changed(rows, {"jobs": 2}, **one)))
    assert comparison.measure == "work"
    assert change.saved("time") is None
    assert change.clips[0].saved("time") is None
    assert change.clips[1].saved("time") == pytest.approx(0.25)
    assert comparison.ratio(change) == pytest.approx(0.5 / 0.02, rel=1e-3)


BAD: list[tuple[str, dict[str, Any], dict[str, Any], BadCurve]] = [
    ("fast", {"psnr_y": None}, {"cq_level": 20}, BadCurve.NO_QUALITY),
    ("fast", {"psnr_y": 1.0}, {"cq_level": 20}, BadCurve.NOT_MONOTONE),
    ("fast", {"bytes": 10}, {"cq_level": 32}, BadCurve.NOT_MONOTONE),
    ("cpu0", {"psnr_y": None}, {"cq_level": 20}, BadCurve.NO_QUALITY),
]


@pytest.mark.parametrize(("point", "values", "at", "reason"), BAD)
def test_bad_curve_is_named_and_enters_no_average(
    made: Callable[..., Path],
    point: str,
    values: dict[str, Any],
    at: dict[str, Any],
    reason: BadCurve,
) -> None:
    folder = made(lambda rows: changed(rows, values, clip="clip0", point=point, **at))
    comparison, change = only(folder)
    assert change.clips[0].loss["psnr_y"] == BadClip(point, reason)
    loss = change.loss()
    assert loss is not None
    assert (loss.estimate, loss.clusters) == (pytest.approx(0.02, abs=1e-5), 1)
    assert ("clip0", BadClip(point, reason)) in [entry[:2] for entry in comparison.bad]
    assert {clip for clip, *_ in comparison.bad} == {"clip0"}


def test_no_clip_with_a_bd_rate_cannot_be_judged(made: Callable[..., Path]) -> None:
    comparison, change = only(made(lambda rows: changed(rows, {"psnr_y": None}, point="fast")))
    assert change.loss() is None
    assert change.worst is None
    assert not comparison.judged(change)
    assert comparison.dominator(change) is None
    assert comparison.ratio(change) is None


def test_unfinished_folder_counts_complete_pairs_alone(made: Callable[..., Path]) -> None:
    """The last repeat of clip1's last level is missing: its first two do not count."""

    def edit(rows: list[Row]) -> list[Row]:
        at = {"clip": "clip1", "cq_level": 55, "point": "fast"}
        changed(rows, {"seconds": 0.01}, **at)  # would be seen
        return [row for row in rows if (*at.values(), 2) != tuple(row[k] for k in (*at, "repeat"))]

    folder = made(edit, repeats=3)
    encodes = read_encodes(folder)
    assert not encodes.finished
    _, change = only(folder)
    assert list(change.clips[0].levels) == [20, 32, 43, 55]
    assert list(change.clips[1].levels) == [20, 32, 43]
    assert change.clips[1].saved("time") == pytest.approx(0.25)
    assert change.clips[1].loss["psnr_y"] == BadClip("fast", BadCurve.FEW_POINTS)
    assert change.loss().clusters == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("column", ["seconds", "work", "bytes"])
def test_encode_of_nothing_is_refused(made: Callable[..., Path], column: str) -> None:
    folder = made(lambda rows: changed(rows, {column: 0}, clip="clip1", cq_level=43, point="fast"))
    with pytest.raises(ReportError, match="the encode of clip1 at cq 43 by fast took no time"):
        compare(read_encodes(folder))


def places(
    encodes_examples: ModuleType, folder: Path, points: Mapping[str, tuple[Any, ...]]
) -> AnchorComparison:
    """Compare points given by kind, time, bytes and superblock size with `cpu0`, of size 64."""
    example = encodes_examples.Example
    made = {"cpu0": example("preset", 1.0, 1.0, 1.0, 0, 64)}
    for name, (kind, time, size, sb_size) in points.items():
        made[name] = example(kind, time, time, size, 1, sb_size)
    clips = encodes_examples.clips(2)
    rows = [row | {"inference_seconds": 0.0} for row in encodes_examples.rows(made, list(clips))]
    encodes_examples.write_encodes(folder, made, clips, rows)
    return compare(read_encodes(folder))[0]


DOMINATION = [
    # Rivals beside the learned point, which saves 20 % at +1 %; who dominates it.
    ({}, None),
    ({"cpu1": ("preset", 0.7, 1.01, 64)}, "cpu1"),
    ({"cpu1": ("preset", 0.8, 1.005, 64)}, "cpu1"),
    ({"cpu1": ("preset", 0.7, 1.012, 64)}, None),
    ({"cpu1": ("preset", 0.85, 1.0, 64)}, None),
    ({"cpu1": ("preset", 0.7, 1.0, None)}, None),  # other superblocks
    ({"cpu1": ("oracle", 0.2, 1.0, 64)}, None),
    ({"cpu1": ("learned", 0.2, 1.0, 64)}, None),
    ({"cpu1": ("switch", 0.7, 1.0, 64)}, "cpu1"),
    ({"cpu1": ("baseline", 0.8, 1.01, 64)}, "cpu1"),  # equal, without a model
    ({"a": ("preset", 0.7, 1.0, 64), "b": ("preset", 0.6, 1.009, 64)}, "b"),  # saves most
]


@pytest.mark.parametrize(("rivals", "expected"), DOMINATION)
def test_domination(
    encodes_examples: ModuleType,
    tmp_path: Path,
    rivals: dict[str, tuple[Any, ...]],
    expected: str | None,
) -> None:
    points = {"model": ("learned", 0.8, 1.01, 64), **rivals}
    comparison = places(encodes_examples, tmp_path, points)
    change = next(c for c in comparison.points if c.point.name == "model")
    found = comparison.dominator(change)
    assert (found.name if found else None) == expected


def test_anchor_dominates_what_is_slower_and_worse(
    encodes_examples: ModuleType, tmp_path: Path
) -> None:
    comparison = places(encodes_examples, tmp_path, {"model": ("learned", 1.1, 1.01, 64)})
    assert comparison.dominator(comparison.points[0]) == comparison.anchor


def test_equal_presets_do_not_dominate_each_other(
    encodes_examples: ModuleType, tmp_path: Path
) -> None:
    same = ("preset", 0.8, 1.01, 64)
    comparison = places(encodes_examples, tmp_path, {"a": same, "b": same})
    assert [comparison.dominator(change) for change in comparison.points] == [None, None]


def test_points_of_the_anchors_superblocks_come_first(
    encodes_examples: ModuleType, tmp_path: Path
) -> None:
    points = {
        "auto": ("preset", 0.8, 1.01, None),
        "mine": ("preset", 0.8, 1.01, 64),
        "big": ("preset", 0.8, 1.01, 128),
    }
    comparison = places(encodes_examples, tmp_path, points)
    assert [(c.point.name, c.same_size) for c in comparison.points] == [
        ("mine", True),
        ("auto", False),
        ("big", False),
    ]


def test_no_rows_yet(made: Callable[..., Path]) -> None:
    comparison, change = only(made(lambda rows: []))
    assert change.clips == ()
    assert comparison.measure == "work"
    assert change.saved("work") is None
