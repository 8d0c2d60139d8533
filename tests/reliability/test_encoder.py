"""The patched encoder at length: stock streams without hints, and only types that hints name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from av1part.data.build.libaom import Children, encode, encoder_arguments, find_aomenc
from av1part.data.build.sources import open_source
from av1part.data.build.yuv import write_y4m_frame, y4m_header
from av1part.encoder.patched import find_patched, run_encode

from ..encoding import random_masks_encode
from .conftest import Reliability

ROOT = Path(__file__).parents[2]
CLIPS = ROOT.parent / "shared" / "data" / "clips"

pytestmark = [pytest.mark.slow, pytest.mark.patched]


def test_random_masks_decode_and_hold_only_their_types(
    reliability: Reliability, tmp_path: Path
) -> None:
    tries = reliability.pick(40, 200)
    rng = np.random.default_rng(200)
    checked = [random_masks_encode(rng, tmp_path) for _ in range(tries)]
    nodes, retried = sum(one.nodes for one in checked), sum(one.retried for one in checked)
    lost = sum(bool(one.wrong) for one in checked)
    how = (
        f"pictures of 64 to 199 samples a side, presets 0 to 6, {find_patched().version}; all "
        f"decode; {nodes:,} nodes with a mask that replaces the pruning hold a type of it, "
        f"{retried} more were searched again without masks"
    )
    reliability.record("random masks for the patched encoder", tries, lost, how)
    assert not lost, [wrong for one in checked for wrong in one.wrong]
    assert nodes > 10 * tries


def first_frame(name: str, folder: Path) -> tuple[Path, int]:
    """Write the first frame of a clip as y4m; return it with its bit depth."""
    if not (CLIPS / name).is_file():
        pytest.skip(f"there is no {CLIPS / name}")
    source = open_source(CLIPS / name)
    reader = source.reader
    with (folder / f"{name}.y4m").open("wb") as file:
        file.write(y4m_header(reader.width, reader.height, reader.bit_depth))
        for planes in source.frames(1):
            write_y4m_frame(file, planes)
    return folder / f"{name}.y4m", reader.bit_depth


def test_without_hints_real_clips_give_the_stock_streams(
    reliability: Reliability, tmp_path: Path
) -> None:
    stock, patched = find_aomenc(), find_patched()
    if stock.version != patched.version:
        pytest.skip(f"aomenc is {stock.version}, aomenc-av1part {patched.version}")
    presets = reliability.pick(1, 3)
    different, tries = [], 0
    for name in ("park_joy_480x270.y4m", "sparks_480x270_10le.yuv"):
        y4m, depth = first_frame(name, tmp_path)
        for cpu_used in (6, 2, 0)[:presets]:
            for cq_level in (20, 32, 43, 55):
                arguments = encoder_arguments(
                    cq_level, bit_depth=depth, cpu_used=cpu_used, one_to_four=True
                )
                encode(stock.path, y4m, tmp_path / "a.ivf", arguments, Children())
                ours = run_encode(patched.path, y4m, arguments, Children())
                tries += 1
                if ours.stream != (tmp_path / "a.ivf").read_bytes():
                    different.append((name, cpu_used, cq_level))
    how = (
        f"first frames of two clips, one of them 10 bit, at {presets} presets and 4 quantisers: "
        f"streams of aomenc {stock.version} and aomenc-av1part {patched.version} are equal"
    )
    reliability.record("encodes without hints", tries, len(different), how)
    assert not different
