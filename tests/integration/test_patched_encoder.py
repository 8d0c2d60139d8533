"""aomenc-av1part does what aomenc does without hints, and with hints searches what they name."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from av1part.data.build.libaom import Children, encode, encoder_arguments, find_aomenc
from av1part.data.build.sources import open_source
from av1part.data.build.yuv import write_y4m_frame, y4m_header
from av1part.encoder.counts import costs_table, read_costs
from av1part.encoder.hints import KEEP, open_hints
from av1part.encoder.patched import find_patched, run_encode
from av1part.partition import SIZES, Partition
from av1part.system.errors import EncoderError, HintsError

from ..encoding import corner, everywhere, random_masks_encode, run, trees, write_clip, write_hints

SHARED = Path(__file__).parents[3] / "shared" / "data" / "clips"

pytestmark = pytest.mark.patched

Words = NDArray[np.uint16]
SMALL = {"chelsea": (128, 128), "coffee": (140, 90)}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two clips of one frame; the second has nodes over its edges."""
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: write_clip(folder / f"{name}.y4m", [corner(name, *shape)])
        for name, shape in SMALL.items()
    }


# Without hints


@pytest.mark.parametrize("cpu_used", [0, 2, 6])
@pytest.mark.parametrize("clip", SMALL)
def test_without_hints_the_stream_is_that_of_the_stock_encoder(
    clips: dict[str, Path], clip: str, cpu_used: int, tmp_path: Path
) -> None:
    stock, patched = find_aomenc(), find_patched()
    if stock.version != patched.version:
        pytest.skip(f"aomenc is {stock.version}, aomenc-av1part {patched.version}")
    out = tmp_path / "stock.ivf"
    for cq_level in (20, 32, 43, 55):
        for one_to_four in (False, True):
            arguments = encoder_arguments(
                cq_level, bit_depth=8, cpu_used=cpu_used, one_to_four=one_to_four
            )
            encode(stock.path, clips[clip], out, arguments, Children())
            ours = run_encode(patched.path, clips[clip], arguments, Children(), costs=True)
            assert ours.stream == out.read_bytes(), (cq_level, one_to_four)


def test_two_runs_count_the_same(clips: dict[str, Path]) -> None:
    first, second = (run(clips["coffee"], 43, costs=True) for _ in range(2))
    assert first.counts.calls.equals(second.counts.calls)
    assert first.costs is not None
    assert second.costs is not None
    assert costs_table(first.costs).equals(costs_table(second.costs))


def test_more_threads_are_refused(clips: dict[str, Path]) -> None:
    with pytest.raises(EncoderError, match=r"exit status 2: av1part: counting needs --threads=1"):
        run(clips["chelsea"], 43, 0, "--threads=2")


def agreement(done: Any, shape: tuple[int, int]) -> tuple[int, int]:
    """Count nodes of a stream, and those whose cheapest candidate is the stream's choice."""
    last = {
        (int(r["frame"]), 1 << int(r["size_log2"]), int(r["mi_row"]) * 4, int(r["mi_col"]) * 4): r
        for r in done.costs
    }
    nodes = agree = 0
    for number, levels in enumerate(trees(done.stream)):
        for size, rows, cols, types in levels:
            for row, col, type_ in zip(rows.tolist(), cols.tolist(), types.tolist(), strict=True):
                if size in SIZES and row + size <= shape[0] and col + size <= shape[1]:
                    nodes += 1
                    agree += int(last[number, size, row, col]["cost"].argmin()) == type_
    return nodes, agree


@pytest.mark.parametrize("cpu_used", [0, 1, 4])
def test_the_cheapest_candidate_is_the_stream_s_choice(
    clips: dict[str, Path], cpu_used: int
) -> None:
    nodes = agree = 0
    for name, shape in SMALL.items():
        for cq_level in (20, 43):
            of_one = agreement(run(clips[name], cq_level, cpu_used, costs=True), shape)
            nodes, agree = nodes + of_one[0], agree + of_one[1]
    assert nodes > 200
    assert agree >= 0.99 * nodes


# With hints


def test_none_at_16_and_below_leaves_no_smaller_leaf(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    hints = tmp_path / "a.hints"
    write_hints(hints, SMALL["chelsea"], everywhere(Partition.NONE), (8, 16))
    calls = run(clips["chelsea"], 20, hints=hints).counts.calls
    assert calls.select("width", "height").min().row(0) == (16, 16)
    without = run(clips["chelsea"], 20).counts.calls
    assert without.select("width", "height").min().row(0) == (4, 4)


def test_a_mask_that_keeps_the_pruning_searches_less(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    some = everywhere(Partition.NONE, Partition.SPLIT, Partition.HORZ)
    work = {}
    for keep in (0, KEEP):
        path = tmp_path / f"{keep}.hints"
        write_hints(path, SMALL["chelsea"], lambda n, s, k=keep: some(n, s) | k, SIZES)  # type: ignore[misc]
        work[keep] = run(clips["chelsea"], 43, hints=path).counts.work
    assert work[KEEP] < work[0] < run(clips["chelsea"], 43).counts.work


def test_masks_that_name_all_or_nothing_are_no_hints(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    plain = run(clips["coffee"], 43)
    for mask in (0, 0x3FF, KEEP, KEEP | 0x3FF):
        hints = tmp_path / "a.hints"
        write_hints(hints, SMALL["coffee"], lambda _, s, m=mask: np.full(s, m, np.uint16), SIZES)  # type: ignore[misc]
        assert run(clips["coffee"], 43, hints=hints).stream == plain.stream


def test_streams_hold_only_types_that_random_masks_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(18)
    checked = [random_masks_encode(rng, tmp_path) for _ in range(15)]
    assert [wrong for one in checked for wrong in one.wrong] == []
    assert sum(one.nodes for one in checked) > 200


# Hint files that do not fit


def put(at: int, value: int) -> Callable[[Words], Words]:
    return lambda words: np.where(np.arange(len(words)) == at, value, words).astype(np.uint16)


DAMAGED: dict[str, tuple[Callable[[Words], Words], str]] = {
    "truncated": (lambda words: words[:-1], "is shorter than its header says"),
    "a header alone": (lambda words: words[:7], "is shorter than its header says"),
    "half a header": (lambda words: words[:4], "is not a hint file"),
    "empty": (lambda words: words[:0], "is not a hint file"),
    "foreign": (put(1, 7), "is not a hint file"),
    "version 2": (put(2, 2), "is of another version than 1"),
    "trailing": (lambda words: np.append(words, words[-1:]), "has bytes behind its end"),
    "no levels": (put(5, 0), "has a header that is not valid"),
    "level 4": (put(5, 0b10010), "has a header that is not valid"),
    "no frames": (put(6, 0), "has a header that is not valid"),
    **{
        f"bit {k}": (put(12, 1 << k | 1), "has a mask with one of bits 10 to 14")
        for k in range(10, 15)
    },
}


def encode_raw(y4m: Path, hints: Path, folder: Path) -> None:
    """Encode without the checks of `run_encode`."""
    arguments = encoder_arguments(43, bit_depth=8, cpu_used=6)
    environment = {"AV1PART_HINTS": str(hints), "AV1PART_COUNTS": str(folder / "counts")}
    out = folder / "a.ivf"
    encode(find_patched().path, y4m, out, arguments, Children(), environment)


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_hint_file_ends_the_encode(
    clips: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    change, reason = DAMAGED[kind]
    hints = tmp_path / "a.hints"
    write_hints(hints, SMALL["chelsea"], everywhere(Partition.NONE), (16,))
    change(np.fromfile(hints, "<u2")).tofile(hints)
    with pytest.raises(EncoderError, match=rf"exit status 2: av1part: .*a\.hints {reason}") as one:
        encode_raw(clips["chelsea"], hints, tmp_path)
    assert len(str(one.value).splitlines()) == 1
    assert not (tmp_path / "counts").exists()
    with pytest.raises(HintsError, match=r"a\.hints"):
        open_hints(hints)


def test_an_odd_byte_at_the_end_ends_the_encode(clips: dict[str, Path], tmp_path: Path) -> None:
    hints = tmp_path / "a.hints"
    write_hints(hints, SMALL["chelsea"], everywhere(Partition.NONE), (16,))
    whole = hints.read_bytes()
    for data, reason in ((whole + b"\0", "bytes behind its end"), (whole[:-1], "is shorter")):
        hints.write_bytes(data)
        with pytest.raises(EncoderError, match=reason):
            encode_raw(clips["chelsea"], hints, tmp_path)


def test_hints_for_other_frames_end_the_encode(clips: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.hints"
    write_hints(other, (128, 136), everywhere(Partition.NONE), (16,))
    with pytest.raises(EncoderError, match=r"other\.hints is for frames of another size"):
        encode_raw(clips["chelsea"], other, tmp_path)
    two = write_clip(tmp_path / "two.y4m", [corner("chelsea", 128, 128)] * 2)
    fewer, more = tmp_path / "fewer.hints", tmp_path / "more.hints"
    for path, frames in ((fewer, 1), (more, 3)):
        write_hints(path, (128, 128), everywhere(Partition.NONE), (16,), frames)
    with pytest.raises(EncoderError, match=r"fewer\.hints is for fewer frames"):
        encode_raw(two, fewer, tmp_path)
    with pytest.raises(HintsError, match=r"more\.hints is for 3 frames, two has 2"):
        run(two, 43, 6, hints=more)


def test_a_missing_hint_file_is_one_line_on_stderr(clips: dict[str, Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [find_patched().path, *encoder_arguments(43, bit_depth=8), "-o", tmp_path / "a", "-"],
        input=clips["chelsea"].read_bytes(),
        env={**os.environ, "AV1PART_HINTS": str(tmp_path / "gone")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.decode().splitlines() if "av1part" in x]
    assert line.endswith(f"av1part: {tmp_path}/gone cannot be opened")


# Real clips


def psnr(stream: bytes, luma: NDArray[Any], folder: Path) -> float:
    """Return the PSNR of a stream's first frame, in dB."""
    file = folder / "a.ivf"
    file.write_bytes(stream)
    with av.open(file) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="yuv420p")
    error = np.square(frame[: luma.shape[0]].astype(float) - luma).mean()
    return 10 * math.log10(255**2 / error)


def bd_rate(anchor: list[tuple[int, float]], other: list[tuple[int, float]]) -> float:
    """Return the mean difference of rate at equal PSNR in percent, by PCHIP over log rate."""
    curves = []
    for points in (sorted(anchor, key=lambda p: p[1]), sorted(other, key=lambda p: p[1])):
        quality = [p[1] for p in points]
        curves.append((PchipInterpolator(quality, np.log([p[0] for p in points])), quality))
    low, high = max(q[0] for _, q in curves), min(q[-1] for _, q in curves)
    areas = [float(curve.integrate(low, high)) for curve, _ in curves]
    return 100 * (math.exp((areas[1] - areas[0]) / (high - low)) - 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["park_joy_480x270.y4m", "blue_sky_640x360.yuv"])
def test_oracle_masks_save_half_the_work_for_nearly_nothing(name: str, tmp_path: Path) -> None:
    if not (SHARED / name).is_file():
        pytest.skip(f"there is no {SHARED / name}")
    y4m, hints = tmp_path / "a.y4m", tmp_path / "a.hints"
    (planes,) = open_source(SHARED / name).frames(1)
    luma = planes[0]
    with y4m.open("wb") as file:
        file.write(y4m_header(luma.shape[1], luma.shape[0], 8))
        write_y4m_frame(file, planes)
    plain, limited, saved = [], [], []
    for cq_level in (20, 32, 43, 55):
        anchor = run(y4m, cq_level)
        (levels,) = trees(anchor.stream)
        chosen = {size: (rows, cols, types) for size, rows, cols, types in levels}

        def masks(size: int, shape: tuple[int, int]) -> Words:
            mask = np.ones(shape, np.uint16)
            rows, cols, types = chosen[size]  # noqa: B023
            mask[rows // size, cols // size] |= (1 << types.astype(int)).astype(np.uint16)
            return mask

        write_hints(hints, luma.shape, masks, (16, 32, 64))
        oracle = run(y4m, cq_level, hints=hints)
        plain.append((len(anchor.stream), psnr(anchor.stream, luma, tmp_path)))
        limited.append((len(oracle.stream), psnr(oracle.stream, luma, tmp_path)))
        saved.append(1 - oracle.counts.work / anchor.counts.work)
    print(f"{name}: work saved {np.mean(saved):.3f}, BD-rate {bd_rate(plain, limited):+.3f} %")
    assert np.mean(saved) >= 0.5
    assert bd_rate(plain, limited) < 0.3


def test_a_key_frame_coded_before_it_is_shown_takes_no_hint(tmp_path: Path) -> None:
    """It took the masks of the frame shown next, 9 here, as if they were its own."""
    frames = [corner("coffee", 64, 64, (2 * i, 3 * i)) for i in range(20)]
    y4m, hints, costs = (
        write_clip(tmp_path / "a.y4m", frames),
        tmp_path / "hints",
        tmp_path / "costs",
    )
    write_hints(hints, (64, 64), everywhere(Partition.NONE), SIZES, len(frames))
    command = [find_patched().path, "--ivf", "--passes=2", "--end-usage=q", "--cq-level=43"]
    command += ["--cpu-used=3", "--threads=1", "--lag-in-frames=19", "--kf-max-dist=16"]
    command += ["--enable-fwd-kf=1", "--fwd-kf-dist=7", "-o", tmp_path / "a.ivf", y4m]
    environment = {"AV1PART_HINTS": str(hints), "AV1PART_COSTS": str(costs)}
    subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True)
    assert set(read_costs(costs)["frame"].tolist()) == {0, 16}
