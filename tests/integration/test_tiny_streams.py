"""The committed streams: aomenc still makes them, inspect still prints what is committed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from av1part.data.build.libaom import (
    Children,
    encode,
    encoder_arguments,
    find_aomenc,
    find_inspect,
    inspect_stream,
    parse_inspect,
)
from av1part.data.build.sources import open_source
from av1part.data.build.yuv import write_y4m_frame, y4m_header

DATA = Path(__file__).parents[1] / "data"
SOURCES = ("crops_72x56.y4m", "crop_67x51_10le.yuv")
GENERATE = bool(os.environ.get("GENERATE_EXPECTED"))

pytestmark = pytest.mark.libaom


@pytest.mark.parametrize("name", SOURCES)
def test_aomenc_makes_the_committed_stream(name: str, tmp_path: Path) -> None:
    aomenc = find_aomenc()
    if aomenc.version != "v3.6.0":
        pytest.skip(f"the committed streams are of aomenc v3.6.0, this is {aomenc.version}")
    source = open_source(DATA / name)
    reader = source.reader
    y4m, ivf = tmp_path / "in.y4m", tmp_path / "out.ivf"
    with y4m.open("wb") as file:
        file.write(y4m_header(reader.width, reader.height, reader.bit_depth))
        for planes in source.frames():
            write_y4m_frame(file, planes)
    arguments = encoder_arguments(20, bit_depth=reader.bit_depth)
    encode(aomenc.path, y4m, ivf, arguments, Children())
    expected = DATA / f"{Path(name).stem}.ivf"
    if GENERATE:
        expected.write_bytes(ivf.read_bytes())
    assert ivf.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("name", SOURCES)
def test_inspect_prints_what_is_committed(name: str) -> None:
    inspect = find_inspect()
    stream = DATA / f"{Path(name).stem}.ivf"
    expected = stream.with_suffix(".json")
    command = [inspect.path, stream, "-bs", "-x"]
    if GENERATE:
        printed = subprocess.run(command, capture_output=True, check=True).stdout
        expected.write_bytes(printed)
    live = list(inspect_stream(inspect.path, stream, Children()))
    with expected.open("rb") as file:
        committed = list(parse_inspect(file, expected.name))
    assert len(live) == len(committed) == open_source(DATA / name).reader.frames
    for ours, theirs in zip(live, committed, strict=True):
        assert ours.qindex == theirs.qindex == 80
        assert (ours.blocks == theirs.blocks).all()
