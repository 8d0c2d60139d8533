"""`av1part adapt`, as a user gives its words, and what it writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from av1part import embedded
from av1part.cli.commands import adapt
from av1part.data.build import build
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.predictors.adapted import AdaptedSuperblock
from av1part.predictors.bundle import Bundle, bundle_contents, read_bundle, write_bundle
from av1part.predictors.fitted import ClassPrior
from av1part.system.errors import EncoderError
from av1part.system.files import sha256_file

from ..encoding import corner, write_clip
from ..unit.predictors.small import small_adapted, small_superblock
from .conftest import Command


def moving(
    out: Path, *clips: str, picture: str = "astronaut", frames: int = 5, side: int = 192
) -> Path:
    """Write a dataset of clips that move over a picture by superblocks, with real decisions."""
    whole, writer = Store.open(embedded.STORE), StoreWriter(out, {"made": "by the tests"})
    plane, parts, clips = whole.plane(picture)[0], [], clips or ("clip",)
    for clip, frame in product(clips, range(frames)):
        at = 64 * frame
        own = whole.nodes.filter(sequence=picture).with_columns(
            pl.col("row") - at,
            pl.col("col") - at,
            sequence=pl.lit(clip),
            frame=pl.lit(frame, dtype=pl.Int32),
        )
        first = pl.min_horizontal("row", "col")
        last = pl.max_horizontal("row", "col") + pl.col("size")
        parts.append(own.filter((first >= 0) & (last <= side)))
    luma = np.stack([plane[64 * f : 64 * f + side, 64 * f : 64 * f + side] for f in range(frames)])
    for clip in clips:
        writer.add_plane(clip, luma, 8)
    facts = {"bit_depth": 8, "source": "clip.mkv", "source_sha256": "c" * 64}
    return writer.finish(pl.concat(parts), dict.fromkeys(clips, facts), {}).path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moving(tmp_path_factory.mktemp("moving") / "dataset")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of an untrained network of width 2, which any clip improves."""
    file = tmp_path_factory.mktemp("base") / "small.av1part"
    return write_bundle(file, Bundle(small_superblock(), "warn", "CC0-1.0, the tests", half=True))


def test_a_dataset_as_the_clip(av1part: Command, base: Path, clip: Path) -> None:
    ran = av1part("adapt", base, clip, "out=mine.av1part", "prior=50")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["mine-adapted", "mine.av1part"]
    *_, report, last = ran.out.strip().splitlines()
    assert report == "report: mine-adapted/report.html"
    assert last.startswith("adapted is better than base on 2 held-back frames: mean log loss")
    assert "labels were there already; adapting" in ran.out
    # The record: base, clip, frames, settings; the licence goes on.
    sections = bundle_contents("mine.av1part")
    assert sections["bundle"]["kind"] == "adapted"
    assert sections["bundle"]["licence"] == "CC0-1.0, the tests"
    assert sections["bundle"]["dtypes"]["float16"] > 0  # as its base has
    assert sections["adapted base"]["sha256"] == sha256_file(base)
    assert (sections["adapted clip"]["file"], sections["adapted clip"]["frames"]) == ("clip.mkv", 5)
    assert sections["trained on 2"]["clip_sha256"] == "c" * 64
    assert sections["trained on 2"]["frames"] == [0, 1]
    assert sections["adapted steps"] == {"steps": 10, "rate": 1.0, "prior": 50.0}
    shown = av1part("bundle", "mine.av1part", "--show")
    assert (shown.code, "clip.mkv" in shown.out) == (0, True)
    # Scores are those of the file, on frames that it has not seen.
    record = json.loads(Path("mine-adapted/scores.json").read_text())
    assert list(record["predictors"]) == ["base", "adapted", "clip prior", "ridge"]
    assert record["data"]["frames"] == [3, 4]
    assert record["predictors"]["adapted"]["sha256"] == sha256_file(Path("mine.av1part"))
    bundle, store = read_bundle("mine.av1part"), Store.open(clip)
    assert isinstance(bundle.predictor, AdaptedSuperblock)
    own = store.nodes.filter(pl.col("frame") >= 3, size=16)
    losses = []
    for (frame, qindex), nodes in own.group_by("frame", "qindex"):
        answer = bundle.predict(store.plane("clip")[int(frame)], 8, int(qindex))[16]
        row, col = (nodes[c].to_numpy() // 16 for c in ("row", "col"))
        losses.extend(-np.log(answer[row, col, nodes["partition"].to_numpy()]))
    at_16 = record["sizes"]["16"]["predictors"]
    found = at_16["adapted"]["scores"]["log_loss"]["estimate"]
    assert found == pytest.approx(np.mean(losses), abs=1e-5)
    assert found < at_16["base"]["scores"]["log_loss"]["estimate"] - 0.1
    # The prior is that of the labelled frames.
    seen = store.nodes.filter(pl.col("frame") < 2)
    prior = ClassPrior.fit(store, seen)
    expected = []
    for (qindex,), nodes in own.group_by("qindex"):
        shares = prior.shares.at(16, int(qindex))
        expected.extend(-np.log(shares[nodes["partition"].to_numpy()]))
    scored = at_16["clip prior"]["scores"]["log_loss"]["estimate"]
    assert scored == pytest.approx(np.mean(expected), abs=1e-4)
    text = Path("mine-adapted/report.md").read_text(encoding="utf-8")
    assert "Pictures are frames of one clip" in text
    assert "sizes with new heads" in text
    assert "1 frame between the last labelled and the first held-back frame" in text
    # The same again, the same bytes; the page from its folder; the file in other verbs.
    again = av1part("adapt", base, clip, "out=again.av1part", "prior=50")
    assert again.code == 0, again.err
    assert Path("again.av1part").read_bytes() == Path("mine.av1part").read_bytes()
    page = av1part("report", "mine-adapted", "out=page")
    assert page.code == 0, page.err
    assert Path("page/report.html").read_bytes() == Path("mine-adapted/report.html").read_bytes()
    write_clip(Path("rest.y4m"), [corner("astronaut", 80, 96)])
    used = av1part("predict", "rest.y4m", "model=mine.av1part", "out=predicted", "cq_levels=[20]")
    assert used.code == 0, used.err
    # What it was trained on is not scored with it by mistake.
    compared = av1part(
        "compare", "mine.av1part", f"data.path={clip}", "split=all", "baselines=[]", "out=c"
    )
    assert (compared.code, "was trained on a part of" in compared.err) == (2, True)


def test_options_of_adapting(av1part: Command, base: Path, clip: Path) -> None:
    words = (
        "adapt",
        base,
        clip,
        "out=folder/mine.av1part",
        "report=scores",
        "frames=1",
        "scored=1",
    )
    more = ("gap=1", "steps=2", "rate=0.5", "licence=CC-BY-4.0, me", "outside=refuse")
    ran = av1part(*words, *more, "sequence=clip", "device=cpu", "precision=32-true")
    assert ran.code == 0, ran.err
    assert Path("scores/report.html").is_file()
    sections = bundle_contents("folder/mine.av1part")
    assert sections["adapted steps"] == {"steps": 2, "rate": 0.5, "prior": 1000.0}
    assert sections["adapted labels"]["frames"] == [1]
    assert (sections["bundle"]["licence"], sections["bundle"]["outside"]) == (
        *("CC-BY-4.0, me", "refuse"),
    )
    assert sections["adapted base"]["licence"] == "CC0-1.0, the tests"
    assert json.loads(Path("scores/scores.json").read_text())["data"]["frames"] == [4]


def test_what_is_no_better_says_so(
    av1part: Command, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The second half of this clip has other types at the same pixels: nothing carries over."""
    out = tmp_path_factory.mktemp("other") / "dataset"
    store = Store.open(moving(tmp_path_factory.mktemp("whole") / "dataset"))
    writer = StoreWriter(out, {"made": "by the tests"})
    writer.add_plane("clip", np.array(store.plane("clip")), 8)
    second = pl.col("frame") >= 2
    swapped = pl.when(second & (pl.col("partition") == 0)).then(3)
    swapped = swapped.when(second & (pl.col("partition") == 3)).then(0)
    nodes = store.nodes.with_columns(partition=swapped.otherwise(pl.col("partition")))
    writer.finish(nodes, {"clip": {"bit_depth": 8}}, {})
    ran = av1part("adapt", base, out, "out=mine.av1part", "prior=50")
    assert ran.code == 0, ran.err
    assert "adapted is NOT better than base" in ran.out.strip().splitlines()[-1]
    assert read_bundle("mine.av1part").name == "superblock, adapted"


def test_what_cannot_be_is_one_line(
    av1part: Command,
    base: Path,
    clip: Path,
    small_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("others")
    store = Store.open(small_store)
    prior = write_bundle(folder / "prior", Bundle(ClassPrior.fit(store, store.nodes)))
    adapted = write_bundle(folder / "adapted", Bundle(small_adapted()))
    refusing = write_bundle(folder / "refuse", Bundle(small_superblock(), "refuse"))
    (folder / "bad").write_bytes(b"x" * 100)
    for name in ("a", "b"):
        write_clip(folder / f"{name}.y4m", [corner("coffee", 64, 64)])
    deep = write_clip(folder / "deep.y4m", [corner("coffee", 64, 64)] * 2, 10)
    one = moving(folder / "one", frames=1)
    Path("taken").write_bytes(b"x")
    Path("full").mkdir()
    Path("full/x").touch()
    before = sorted(Path.cwd().iterdir())
    new = "out=new.av1part"
    for words, error in (
        ((base,), "it needs SOURCE"),
        ((base, clip), "needs out=FILE"),
        ((base, clip, "out=taken"), "taken exists"),
        ((base, clip, "out=taken/x"), "taken is a file"),
        ((base, clip, "out=pretrained"), "give out=./pretrained"),
        ((base, clip, new, "report=full"), "full is not an empty folder"),
        ((base, clip, new, "steps=0"), "steps must be a number from 1"),
        ((base, clip, new, "rate=0"), "rate must be a number"),
        ((base, clip, new, "prior=0.5"), "prior must be a number"),
        ((base, clip, new, "gap=3"), "gap=3 leaves no frame"),
        ((base, clip, new, "cq_levels=[20]", "jobs=1"), "leave out cq_levels, jobs"),
        ((base, clip, new, "sequence=other"), "sequence=other: "),
        ((base, folder / "a.y4m", new, "sequence=a"), "a.y4m is none"),
        ((base, folder / "a.y4m", new), "a.y4m has one frame"),
        ((base, folder / "[ab].y4m", new), "is 2 files: give one clip"),
        ((base, folder / "none.mkv", new), "none.mkv does not exist"),
        ((base, folder / "a.y4m", new, "cq_levels=[64]"), "cq_levels"),
        ((base, one, new), "has one frame"),
        ((base, small_store, new), "name the clip, sequence="),
        ((refusing, deep, new), "sources of [10] bits"),
        ((refusing, folder / "a.y4m", new, "cq_levels=[2]"), "qindex [8] is outside of 80 to 220"),
        ((prior, clip, new), "prior holds class prior, and av1part adapt takes a superblock"),
        ((adapted, clip, new), "is adapted already: adapt what it was adapted from, base.av1part"),
        ((folder / "bad", clip, new), "bad is refused"),
        ((folder / "none", clip, new), "none does not exist"),
    ):
        ran = av1part("adapt", *words)
        assert ran.code == 2, words
        assert len(ran.error_lines) == 1, ran.err
        assert error in ran.error_lines[0], (words, ran.err)
    assert sorted(Path.cwd().iterdir()) == before
    swept = av1part("adapt", base, clip, new, "-m")
    assert (swept.code, "leave out -m" in swept.err) == (2, True)


def test_a_file_that_answers_otherwise_is_not_kept(
    av1part: Command, base: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = adapt.write_bundle

    def other(path: Path, bundle: Bundle, check: Callable[[Bundle], None]) -> Path:
        predictor = bundle.predictor
        assert isinstance(predictor, AdaptedSuperblock)
        head = replace(predictor.heads[16], bias=predictor.heads[16].bias + 1)
        changed = replace(predictor, heads={**predictor.heads, 16: head})
        return write(path, replace(bundle, predictor=changed), check)

    monkeypatch.setattr(adapt, "write_bundle", other)
    ran = av1part("adapt", base, clip, "out=mine.av1part")
    assert ran.code == 2
    assert "answers otherwise than what was written" in ran.err
    assert not list(Path.cwd().iterdir())


def test_clips_that_the_base_was_trained_on_are_refused(av1part: Command) -> None:
    dataset = moving(Path("three"), "a", "b", "c", frames=2)
    data = SuperblockDataModule(dataset)
    data.setup()
    base = write_bundle("net.av1part", Bundle(small_superblock(dataset)))
    nodes = data.store.nodes
    for split in ("train", "val", "test"):
        (clip,) = nodes[data.readers[split].nodes]["sequence"].unique()
        ran = av1part("adapt", base, dataset, f"sequence={clip}", f"out={split}.av1part")
        if split == "train":
            assert ran.code == 2
            (error,) = ran.error_lines
            assert f"net.av1part was trained on {clip} of " in error
            assert not list(Path.cwd().glob("train*"))
        else:
            assert ran.code == 0, ran.err
            text = Path(f"{split}-adapted/report.md").read_text(encoding="utf-8")
            assert "no gap: the first held-back frame is the one behind" in text


@pytest.mark.libaom
def test_seconds_are_those_of_a_whole_search(
    av1part: Command, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(Path("a.y4m"), [corner("coffee", 64, 64, (100, 20 * i)) for i in range(4)])
    words = ("adapt", base, clip, "cq_levels=[32,50]", "cpu_used=6", "jobs=1", "labels=labels")
    encode, encodes = build.encode, []

    def stops(*given: Any) -> None:
        encodes.append(given)
        if len(encodes) == 4:  # the last one of the held-back frames
            raise EncoderError("stopped")
        encode(*given)

    with monkeypatch.context() as patch:
        patch.setattr(build, "encode", stops)
        stopped = av1part(*words, "out=mine.av1part")
    assert (stopped.code, "stopped" in stopped.err, len(encodes)) == (2, True, 4)
    ran = av1part(*words, "out=mine.av1part")
    assert ran.code == 0, ran.err
    assert "labels of the labelled frames were there already, adapting" in ran.out
    assert "the held-back frames took an unknown time (a stopped run was resumed)" in ran.out
    record = json.loads(Path("mine-adapted/scores.json").read_text())["adapting"]
    assert record["origin"] == {"labelled": "there", "held_back": "resumed"}
    assert [record["seconds"][part] for part in ("labelled", "held_back")] == [None, None]
    # One half of the labels is there, the other is encoded.
    shutil.rmtree("labels/held_back")
    ran = av1part(*words, "out=again.av1part")
    assert ran.code == 0, ran.err
    assert "labels of the labelled frames were there already, adapting" in ran.out
    record = json.loads(Path("again-adapted/scores.json").read_text())["adapting"]
    seconds = record["seconds"]["held_back"]
    assert f"full search of the held-back frames {seconds:.1f} s (1 encoder" in ran.out


@pytest.mark.libaom
def test_a_clip_is_labelled_adapted_to_and_scored(av1part: Command, base: Path) -> None:
    frames = [corner("coffee", 72, 136, (100, 20 * i)) for i in range(6)]
    clip = write_clip(Path("my clip.y4m"), frames)
    words = ("adapt", base, clip, "frames=2", "scored=1", "cq_levels=[32,50]", "cpu_used=6")
    ran = av1part(*words, "labels=labels", "jobs=1", "out=mine.av1part")
    assert ran.code == 0, ran.err
    assert "full search of the labelled frames" in ran.out
    assert "(1 encoder at a time), adapting" in ran.out
    sections = bundle_contents("mine.av1part")
    assert sections["adapted clip"]["file"] == "my clip.y4m"
    assert sections["adapted clip"]["sha256"] == sha256_file(clip)
    assert sections["adapted labels"]["frames"] == [0, 2]
    assert sections["domain"]["qindexes"] == [128, 200]
    assert any("--cpu-used=6" in a for a in sections["adapted labels"]["arguments"].values())
    record = json.loads(Path("mine-adapted/scores.json").read_text())
    assert record["adapting"]["seconds"]["labelled"] > 0
    assert record["adapting"]["seconds"]["held_back"] > 0
    labelled, held_back = (Store.open(Path("labels") / p) for p in ("labelled", "held_back"))
    np.testing.assert_array_equal(labelled.plane("my_clip")[1], frames[2])
    assert (labelled.plane("my_clip").shape[0], held_back.plane("my_clip").shape[0]) == (2, 1)
    # With the labels there, other steps need no encoder.
    again = av1part(*words, "labels=labels", "jobs=1", "out=other.av1part", "steps=3")
    assert again.code == 0, again.err
    assert "labels were there already" in again.out
    # Frames of neither half may be among those that the base was trained on.
    network = small_superblock()
    for store in (labelled, held_back):
        network.module.hparams["data"]["manifest_sha256"] = store.manifest_sha256
        write_bundle("net.av1part", Bundle(network))
        trained = av1part("adapt", "net.av1part", *words[2:], "labels=labels", "out=x.av1part")
        assert trained.code == 2
        assert f"net.av1part was trained on a part of labels/{store.path.name}" in trained.err
    other = av1part(*words, "labels=labels", "out=x.av1part", "one_to_four=true")
    assert other.code == 2
    assert "labels of other frames or settings" in other.err
    # Flat frames have one class; nothing is left of them.
    np.full(2 * 64 * 80 * 3 // 2, 90, np.uint8).tofile("flat.yuv")
    raw = ("width=80", "height=64", "bit_depth=8", "layout=420", "interlaced=weave")
    few = ("cq_levels=[50]", "cpu_used=6", "out=flat.av1part")
    flat = av1part("adapt", base, "flat.yuv", *raw, *few)
    assert flat.code == 2
    assert len(flat.error_lines) == 1
    assert "so there is nothing to adapt to" in flat.err
    assert not list(Path.cwd().glob("flat*.av1part"))


@pytest.mark.patched
def test_the_encoder_takes_its_hints(av1part: Command) -> None:
    write_bundle("mine.av1part", Bundle(small_adapted()))
    write_clip(Path("rest.y4m"), [corner("coffee", 72, 96)])
    Path("conf/plan").mkdir(parents=True)
    points = "points:\n  fast: {cpu_used: 5}\n  mine: {cpu_used: 5, predictor: model, tau: 0.7}\n"
    Path("conf/plan/few.yaml").write_text(f"{points}anchors: [fast]\n")
    words = ("plan=few", "--config-dir", "conf", "model=mine.av1part", "out=encoded")
    ran = av1part("encode", "rest.y4m", *words)
    assert ran.code == 0, ran.err
    identity = json.loads(Path("encoded/plan.json").read_text())["predictors"]["model"]
    assert identity["name"] == "superblock, adapted"
    assert identity["sha256"] == sha256_file(Path("mine.av1part"))
