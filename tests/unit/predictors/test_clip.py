"""Labelled frames of a clip: which are chosen, what is checked, and labels that are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from av1part import embedded
from av1part.data.build.settings import BuildSettings
from av1part.data.build.sources import open_source
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.partition import Partition
from av1part.predictors import clip
from av1part.predictors.clip import ClipPart, FrameChoice, Labelling, clip_of_dataset
from av1part.predictors.interface import Domain
from av1part.system.errors import ConfigError, StoreError

from ...encoding import corner, write_clip

FEW: dict[str, Any] = {"frames": 4, "scored": 4, "gap": None}


@given(
    total=st.integers(2, 5000),
    frames=st.integers(1, 40),
    scored=st.integers(1, 40),
    gap=st.none() | st.integers(0, 50),
)
def test_no_frame_is_in_both_halves(total: int, frames: int, scored: int, gap: int | None) -> None:
    half, every = total // 2, range(total)
    if half + (gap or 0) >= total:
        with pytest.raises(ConfigError, match=f"gap={gap} leaves no frame"):
            FrameChoice.of(every, "clip", frames=frames, scored=scored, gap=gap)
        return
    choice = FrameChoice.of(every, "clip", frames=frames, scored=scored, gap=gap)
    labelled, held_back = choice.labelled, choice.held_back
    skipped = gap
    if gap is None:  # a tenth, at least one, of two frames none
        skipped = 0 if total == 2 else max(1, total // 10)
    assert skipped is not None
    assert labelled[0] >= 0
    assert labelled[-1] < half <= half + skipped <= held_back[0]
    assert held_back[-1] < total
    assert len(labelled) == min(frames, half)
    assert len(held_back) == min(scored, total - half - skipped)
    for chosen in (labelled, held_back):
        assert list(chosen) == sorted(set(chosen))


def test_frames_are_spread_over_both_halves() -> None:
    choice = FrameChoice.of(range(80), "clip", frames=4, scored=2, gap=20)
    assert choice.labelled == (5, 15, 25, 35)
    assert choice.held_back == (65, 75)
    # By default a tenth of the clip lies between, at least a frame, if one is left to score on.
    assert FrameChoice.of(range(100), "clip", **{**FEW, "scored": 45}).held_back[0] == 60
    for total, labelled, held_back in ((9, (0, 1, 2, 3), (5, 6, 7, 8)), (3, (0,), (2,))):
        choice = FrameChoice.of(range(total), "clip", **FEW)
        assert (choice.labelled, choice.held_back) == (labelled, held_back)
    assert FrameChoice.of(range(2), "clip", **FEW) == FrameChoice((0,), (1,))
    with pytest.raises(StoreError, match=r"a\.png has one frame"):
        FrameChoice.of(range(1), "a.png", **FEW)


def test_the_gap_is_counted_in_frames_of_the_clip() -> None:
    every: dict[str, Any] = {"frames": 9, "scored": 9}
    # Eight frames have labels; a tenth of 0 to 99 is ten frames, 51 to 60.
    sparse = [0, 20, 40, 50, 55, 61, 80, 99]
    choice = FrameChoice.of(sparse, "clip", **every, gap=None)
    assert (choice.labelled, choice.held_back) == ((0, 20, 40, 50), (61, 80, 99))
    assert FrameChoice.of(sparse, "clip", **every, gap=4).held_back == (55, 61, 80, 99)
    assert FrameChoice.of(sparse, "clip", **every, gap=48).held_back == (99,)
    with pytest.raises(ConfigError, match=r"gap=49 leaves no frame .* give 48 or less"):
        FrameChoice.of(sparse, "clip", **every, gap=49)
    # Where a tenth would leave nothing, the last frame is scored on.
    assert FrameChoice.of([0, 96, 98, 99], "clip", **every, gap=None).held_back == (99,)


def clips(out: Path, types: Callable[[pl.DataFrame], pl.DataFrame] = lambda nodes: nodes) -> Path:
    """Write a dataset of two clips, of three frames: corners of pictures, with real decisions."""
    whole, writer = Store.open(embedded.STORE), StoreWriter(out, {"made": "by the tests"})
    parts = []
    for picture in ("chelsea", "coffee"):
        plane = whole.plane(picture)[0]
        writer.add_plane(
            picture, np.stack([plane[:128, 64 * f : 64 * f + 128] for f in (0, 1, 2)]), 8
        )
        for frame in range(3):
            own = whole.nodes.filter(sequence=picture).with_columns(
                pl.col("col") - 64 * frame, frame=pl.lit(frame, dtype=pl.Int32)
            )
            inside = (pl.col("col") >= 0) & (pl.col("col") + pl.col("size") <= 128)
            parts.append(own.filter(inside & (pl.col("row") + pl.col("size") <= 128)))
    facts = {
        "chelsea": {"bit_depth": 8, "source": "chelsea.mkv", "source_sha256": "c" * 64},
        "coffee": {"bit_depth": 8},
    }
    return writer.finish(types(pl.concat(parts)), facts, {}).path


@pytest.fixture(scope="module")
def two_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips(tmp_path_factory.mktemp("clips") / "two")


def test_a_sequence_of_a_dataset_is_a_clip(two_clips: Path) -> None:
    found = clip_of_dataset(two_clips, "chelsea", FEW)
    assert (found.file, found.sha256, found.total) == ("chelsea.mkv", "c" * 64, 3)
    assert found.labelling == (Labelling("there"), Labelling("there"))
    assert (found.labelled.frames, found.held_back.frames) == ({0: 0}, {2: 2})
    views = list(found.held_back)
    assert {view.sequence for view in views} == {"chelsea"}
    assert {view.picture for view in views} == {"frame 2"}
    store = Store.open(two_clips)
    own = store.nodes.filter(sequence="chelsea", frame=0)
    assert found.labelled.table.equals(own)
    assert sum(counts.sum() for counts in found.labelled.type_counts().values()) == own.height
    # A file without its source's hash is known by the dataset's.
    assert clip_of_dataset(two_clips, "coffee", FEW).sha256 == store.manifest_sha256
    with pytest.raises(ConfigError, match="has 2 sequences: name the clip, sequence=chelsea"):
        clip_of_dataset(two_clips, None, FEW)
    with pytest.raises(ConfigError, match=r"sequence=tea: .* has chelsea, coffee"):
        clip_of_dataset(two_clips, "tea", FEW)


def test_what_a_network_was_trained_on_is_no_clip(two_clips: Path) -> None:
    module = SuperblockDataModule(two_clips, protocol="by_segment")
    module.setup()
    trained = {
        "manifest_sha256": module.store.manifest_sha256,
        "split_sha256": module.split_sha256,
        "protocol": "by_segment",
    }
    # Three frames are cut into bands, of which each frame has one that was trained on.
    part = clip_of_dataset(two_clips, "chelsea", FEW).labelled
    with pytest.raises(StoreError, match=r"net was trained on chelsea of .*/two"):
        part.check_unseen("net", [trained])
    part.check_unseen("net", [])
    part.check_unseen("net", [{**trained, "manifest_sha256": "0" * 64}])
    # Of two sequences none is drawn for each split: they were listed.
    others = ({"split_sha256": "0" * 64}, {"protocol": "by_sequence"}, {"protocol": "none"})
    for other in others:
        with pytest.raises(StoreError, match="does not say whether chelsea is in it"):
            part.check_unseen("net", [{**trained, **other}])


def test_one_class_and_unknown_types_are_refused(tmp_path: Path, one_to_four_store: Path) -> None:
    one = clips(tmp_path / "one", lambda nodes: nodes.with_columns(partition=pl.lit(0)))
    part = clip_of_dataset(one, "chelsea", FEW).labelled
    with pytest.raises(StoreError, match=r"one class each size \(NONE at 16x16, NONE at"):
        part.check_classes([8, 16, 32, 64])
    sizes = lambda nodes: nodes.filter(pl.col("size") == 16)  # noqa: E731
    part = clip_of_dataset(clips(tmp_path / "16", sizes), "chelsea", FEW).labelled
    part.check_classes([8, 16])
    with pytest.raises(StoreError, match="nothing to adapt to"):
        part.check_classes([8])  # a size without nodes is none
    store = Store.open(one_to_four_store)
    name = store.nodes.filter(pl.col("partition") >= Partition.HORZ_4)["sequence"][0]
    part = ClipPart(store, name, {0: 0})
    part.check_types(Domain(), "net")
    with pytest.raises(
        StoreError, match=r"_4, which net does not know: label .* one_to_four=false"
    ):
        part.check_types(Domain(one_to_four=False), "net")
    with pytest.raises(StoreError, match="no labelled node"):
        ClipPart(store, name, {1: 1})


def test_labels_are_used_again_if_they_are_the_same(tmp_path: Path) -> None:
    frames = [corner("coffee", 64, 64, (50, 40 * i)) for i in range(4)]
    source = open_source(write_clip(tmp_path / "a.y4m", frames))
    written = tmp_path / "work" / "a.y4m"
    clip._write_frames(source, {written: (1, 3)})
    kept = open_source(written).reader
    for planes, number in zip(kept, (1, 3), strict=True):
        np.testing.assert_array_equal(planes[0], frames[number])
    settings = BuildSettings(cq_levels=[20, 40])
    assert clip._there(tmp_path / "labels", written, settings) is None
    store, writer = Store.open(embedded.STORE), StoreWriter(tmp_path / "labels", {"made": "here"})
    writer.add_plane("a", np.stack([frames[1], frames[3]]), 8)
    nodes = store.nodes.filter(sequence="coffee").with_columns(sequence=pl.lit("a"))
    inside = (pl.col("row") + pl.col("size") <= 64) & (pl.col("col") + pl.col("size") <= 64)
    facts = {"a": {"bit_depth": 8, "source_sha256": open_source(written).sha256}}
    made = {"cq_levels": [20, 40], "sizes": [64, 32, 16, 8], "cpu_used": 0, "one_to_four": False}
    made |= {"frames": None, "every": 1, "interlaced": "refuse"}
    writer.finish(nodes.filter(inside), facts, {"settings": made})
    assert clip._there(tmp_path / "labels", written, settings) is not None
    for path, other in (
        (written, BuildSettings(cq_levels=[20, 41])),
        (tmp_path / "a.y4m", settings),
    ):
        with pytest.raises(StoreError, match="labels of other frames or settings"):
            clip._there(tmp_path / "labels", path, other)
