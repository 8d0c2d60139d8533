"""The command line's manners: help, paths of any kind, one line and exit code 2 for bad input."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from av1part import embedded
from av1part.cli.arguments import split_positionals
from av1part.cli.main import VERBS
from av1part.config.words import quote_word
from av1part.data.legacy.importer import LAYOUTS
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.system.locks import folder_lock

from .conftest import Command, Ran


def refused(ran: Ran, *words: str) -> None:
    """Check for exit code 2 and one line that holds these words."""
    assert ran.code == 2, ran.out + ran.err
    lines = ran.err.splitlines()
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("av1part: ")
    for word in words:
        assert word in lines[0]


def test_report_on_encodes_lands_in_their_folder(
    av1part: Command, encodes_examples: ModuleType, tmp_path: Path
) -> None:
    points, clips = encodes_examples.CLAIM, encodes_examples.clips(2)
    rows = list(encodes_examples.rows(points, list(clips)))
    folder = encodes_examples.write_encodes(tmp_path / "encodes", points, clips, rows)
    ran = av1part("report", folder)
    assert ran.code == 0, ran.err
    assert str(folder / "report.html") in ran.out
    written = {"report.html", "report.md", "table.csv", "clips.csv", "plots", "tables"}
    assert {p.name for p in folder.iterdir()} == written | {"plan.json", "encodes.jsonl"}
    refused(av1part("report", folder, "--thesis", f"out={tmp_path / 'x'}"), "is reported alone")
    refused(av1part("report", folder, f"publish={tmp_path / 'x'}"), "publish= is of one sweep")
    (folder / "encodes.jsonl").write_text("{}\n")
    refused(av1part("report", folder, f"out={tmp_path / 'x'}"), "encodes.jsonl", "line 1")
    assert not (tmp_path / "x").exists()


def test_help_and_version(av1part: Command) -> None:
    usage = av1part("--help")
    assert usage.code == 0
    assert all(name in usage.out for name in VERBS)
    assert av1part("--version").out.startswith("av1part ")
    nothing = av1part()
    assert nothing.code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, av1part: Command) -> None:
    ran = av1part(*verb.split(), "--help")
    assert ran.code == 0, ran.err
    assert VERBS[verb].does in ran.out
    assert ("It has no keys." in ran.out) is (verb in ("data info", "doctor"))
    if verb not in ("train", "demo"):
        assert "Groups and their options" not in ran.out
    if verb == "train":
        groups = ("stage", "method", "backbone", "adapter", "head", "loss", "optimizer")
        for group in (*groups, "scheduler", "data", "trainer", "callbacks", "logger"):
            assert f"\n  {group} " in ran.out, group
        assert "resnet18*, resnet18_plain" in ran.out
        assert "exp11a/v1" in ran.out
    if verb == "data import":
        assert all(layout in ran.out.splitlines()[1] for layout in LAYOUTS)
    if verb == "calibrate":
        assert "stage1=CKPT" in ran.out.splitlines()[0]


@pytest.mark.parametrize("verb", VERBS)
def test_hydras_own_flags_work_without_data_and_leave_nothing(verb: str, av1part: Command) -> None:
    ran = av1part(*verb.split(), "--cfg", "job")
    assert ran.code == 0, ran.err
    assert ran.out.strip()
    assert not list(Path.cwd().iterdir())


def test_info_and_own_configurations(av1part: Command, tmp_path: Path) -> None:
    assert av1part("train", "--info", "defaults-tree").code == 0
    (tmp_path / "mine" / "head").mkdir(parents=True)
    (tmp_path / "mine" / "head" / "wide.yaml").write_text(
        "kind: mlp\ndropout: 0.3\nhidden: [512]\n"
    )
    ran = av1part("train", "--config-dir", tmp_path / "mine", "head=wide", "--cfg", "job")
    assert "hidden:\n  - 512" in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("validate", "x.ckpt", "--sohw"), "--sohw"),
        (("train", "--show"), "--show"),
        (("train", "--cfg", "jbo"), "jbo"),
        (("train", "--config-dir"), "--config-dir"),
        (("train", "-m", "seed=1,2", "--cfg", "job"), "--cfg"),
        (("demo", "-m", "trainer.max_epochs=1,2"), "av1part train -m"),
    ],
)
def test_a_wrong_flag_is_one_line(words: tuple[str, ...], said: str, av1part: Command) -> None:
    refused(av1part(*words), said)
    assert not list(Path.cwd().iterdir())


def test_typos_in_what_the_demo_hands_on(av1part: Command) -> None:
    refused(av1part("demo", "trainer.max_epoch=1"), "max_epoch")
    refused(av1part("demo", "seed=7"), "the demo's plan sets seed")
    refused(av1part("demo", "data.size=12"), "data.size")
    assert not list(Path.cwd().iterdir())


def test_unknown_verbs(av1part: Command) -> None:
    refused(av1part("trian"), "did you mean 'train'")
    refused(av1part("data", "biuld"), "did you mean 'data build'")
    refused(av1part("frobnicate"), "verbs are")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trainer.max_epoch=3",), "max_epoch"),
        (("stage=stage9",), "stage9"),
        (("method=frozn",), "frozn"),
        (("experiment=none/such",), "none/such"),
        (("data.batch_size=many",), "data.batch_size must be an integer"),
        (("resume=perhaps",), "resume must be true or false"),
        (("adapter.layers=3",), "adapter.layers must be a list"),
        (("adapter.layers=[7]", "method=adapter", "stage1=x"), "adapter layers"),
        (("data.sampling=balanced",), ["balances", "class", "balance", "twice"][-1]),
        (("data.protocol=by_magic",), "data.protocol"),
        (("data.size=12",), "data.size"),
        (("taxonomy=v5",), "v5"),
        (("conditioning=time",), "conditioning"),
        (("trainer.max_epochs=few",), "trainer"),
        (("trainer.accelerator=abacus",), "abacus"),
        (("logger.names=[wandb]",), "wandb"),
        (("loss.beta=high",), "loss.beta"),
        (("+loss.zeta=1",), "zeta"),
        (("name=a/b",), "name"),
        (("seed=1", "seed"), "seed"),
        (("data.path=/no/such/dataset",), "/no/such/dataset"),
        (("data.split_list=/no/list.csv",), "/no/list.csv"),
        (("method=frozen",), "give stage1=CKPT"),
        (("backbone.weights=/no/weights.pth", "method=finetune"), "/no/weights.pth"),
        (("{broken",), "{broken"),
        (("backbone.stem=smal",), "smal"),
        (("callbacks.verify_every=epohc",), "epohc"),
        (("callbacks.save_every=epohc",), "epohc"),
        (("scheduler.kind=cosin",), "cosin"),
        (("optimizer.lr.head=-1",), "optimizer.lr.head"),
        (("optimizer.lr.head=null",), "optimizer.lr.head"),
        (("name=null",), "name"),
        (("seed=-1",), "seed"),
        (("seed=null",), "seed"),
        (("data.split_seed=-1",), "data.split_seed"),
        (("data.batch_size=null",), "data.batch_size"),
        (("data.batch_size=1",), "data.batch_size"),
        (("data.context=null",), "data.context"),
        (("data.context=16", "data.protocol=by_segment"), "data.context=16"),
        (("loss.beta=1.0",), "loss.beta"),
        (("backbone.width=0",), "backbone.width"),
        (("callbacks.tolerance_pp=null",), "callbacks.tolerance_pp"),
        (("callbacks.verify_batches=0",), "callbacks.verify_batches"),
        (("callbacks.patience=0",), "callbacks.patience"),
        (("scheduler=onecycle", "scheduler.pct_start=abc"), "scheduler.pct_start"),
        (("scheduler=onecycle", "scheduler.pct_start=7"), "scheduler.pct_start"),
        (("trainer.precision=64-true",), "trainer.precision"),
        (("trainer.max_epochs=0",), "trainer.max_epochs"),
        (("--config-dir", "/no/folder"), "/no/folder"),
    ],
)
def test_bad_configuration_is_one_line(words: tuple[str, ...], said: str, av1part: Command) -> None:
    refused(av1part("train", *words), said)
    assert not list(Path.cwd().iterdir()), "nothing may be left"


def test_bad_data_is_one_line(av1part: Command, small_store: Path, tmp_path: Path) -> None:
    broken = tmp_path / "in" / "broken"
    shutil.copytree(small_store, broken)
    (broken / "planes" / "rocket.npy").write_bytes(b"short")
    refused(av1part("train", f"data.path={broken}"), "rocket.npy")
    refused(av1part("data", "info", broken), "rocket.npy")
    refused(av1part("data", "info", tmp_path / "none"), "not a dataset folder")
    refused(av1part("report", tmp_path / "none"), "none")
    refused(av1part("validate"), "CKPT")
    refused(av1part("data", "build", "x.y4m"), "out=DIR")
    refused(av1part("pipeline"), "stage1=CKPT")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_constant_qindex_cannot_be_a_condition(
    av1part: Command, small_store: Path, tmp_path: Path
) -> None:
    """All of the study's data had qp 80."""
    whole = Store.open(small_store)
    writer = StoreWriter(tmp_path / "one", {})
    for sequence in whole.sequences:
        writer.add_plane(sequence, whole.plane(sequence), 8)
    nodes = whole.nodes.filter(pl.col("qindex") == whole.nodes["qindex"].min())
    writer.finish(nodes, {s: {"bit_depth": 8} for s in whole.sequences}, {})
    words = ("train", f"data.path={tmp_path / 'one'}", f"data.split_list={embedded.SPLIT_LIST}")
    refused(av1part(*words, "conditioning=qindex"), "conditioning=qindex", "constant")


def test_validate_repeats_what_training_recorded(
    av1part: Command, stage1: Path, stage1_run: Path, tmp_path: Path
) -> None:
    ran = av1part("validate", stage1, "out=again")
    assert ran.code == 0, ran.err
    assert "every figure" in ran.out
    recorded = json.loads((stage1_run / "metrics.json").read_text())
    again = json.loads(Path("again/metrics.json").read_text())
    assert all(recorded[key] == value for key, value in again.items())
    os.chdir(stage1.parent)
    assert "every figure" in av1part("validate", "best.ckpt").out
    refused(av1part("validate", stage1, "device=abacus"), "abacus")
    test = av1part("validate", stage1, "split=test", f"out={tmp_path / 'test'}")
    assert test.code == 0
    assert json.loads((tmp_path / "test" / "metrics.json").read_text())["split"] == "test"


def test_other_pixels_than_training_saw_are_refused(
    av1part: Command, stage1: Path, small_store: Path, tmp_path: Path
) -> None:
    """Scaling twice, or by the wrong depth, cannot pass: the study's first defect."""
    whole = Store.open(small_store)

    def copy(name: str, scale: float, depth: int) -> Path:
        writer = StoreWriter(tmp_path / name, {})
        for s in whole.sequences:
            writer.add_plane(s, (whole.plane(s) * scale).astype(np.uint16), depth)
        facts = {s: {"bit_depth": depth} for s in whole.sequences}
        return writer.finish(whole.nodes, facts, {}).path

    listed = f"data.split_list={embedded.SPLIT_LIST}"
    ten = av1part("validate", stage1, f"data.path={copy('ten', 4, 10)}", listed)
    refused(ten, "10-bit", "8-bit")
    dark = av1part("validate", stage1, f"data.path={copy('dark', 0.1, 8)}", listed)
    refused(dark, "look scaled")
    same = av1part("validate", stage1, f"data.path={copy('same', 1, 8)}", listed)
    assert same.code == 0, same.err


def test_a_dataset_that_changed_is_not_validated_on(
    av1part: Command, on_small: tuple[str, ...], small_store: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(small_store, mine)
    words = [w for w in on_small if not w.startswith("data.path")]
    assert av1part("train", "name=s1", *words, f"data.path={mine}").code == 0
    manifest = json.loads((mine / "manifest.json").read_text())
    (mine / "manifest.json").write_text(json.dumps({**manifest, "note": "edited"}))
    refused(av1part("validate", "runs/s1/checkpoints/best.ckpt"), "has changed since")
    shutil.rmtree(mine)
    refused(av1part("validate", "runs/s1/checkpoints/best.ckpt"), "give data.path=DIR")


def test_a_split_list_that_is_gone_is_named(
    av1part: Command, on_small: tuple[str, ...], tmp_path: Path
) -> None:
    shutil.copy(embedded.SPLIT_LIST, tmp_path / "mine.csv")
    words = [word for word in on_small if not word.startswith("data.split_list")]
    assert av1part("train", "name=s1", *words, "data.split_list=mine.csv").code == 0
    best = "runs/s1/checkpoints/best.ckpt"
    assert av1part("validate", best).code == 0
    (tmp_path / "mine.csv").rename(tmp_path / "moved.csv")
    refused(av1part("validate", best), f"{tmp_path / 'mine.csv'}, is not there", "data.split_list=")
    assert av1part("validate", best, "data.split_list=moved.csv").code == 0


def test_a_cascade_is_not_written_into_the_folder_of_a_training(
    av1part: Command, on_small: tuple[str, ...], stage1: Path
) -> None:
    """One that was stopped could not be resumed, and one that runs would be mixed with it."""
    ran = av1part("train", "stage=stage1", "name=s1", *on_small)
    assert ran.code == 0
    Path("runs/s1/metrics.json").unlink()  # as if it had been stopped before
    before = sorted(Path("runs/s1").rglob("*"))
    refused(av1part("pipeline", f"stage1={stage1}", "name=s1"), "runs/s1 holds an unfinished train")
    assert sorted(Path("runs/s1").rglob("*")) == before
    Path("runs/busy").mkdir()
    with folder_lock(Path("runs/busy"), "-"):
        refused(av1part("pipeline", f"stage1={stage1}", "name=busy"), "runs/busy is in use by")
    assert not list(Path("runs/busy").iterdir())


def test_a_full_disk_ends_in_one_line(
    av1part: Command, on_small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real full device: /dev/full takes no byte."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    before = Path.open

    def open_full(self: Path, mode: str = "r", *args: object, **options: object) -> object:
        if "w" in mode and self.name.startswith("samples.npz"):
            return before(Path("/dev/full"), mode, *args, **options)  # type: ignore[call-overload]
        return before(self, mode, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", open_full)
    ran = av1part("train", "stage=stage1", "name=s1", *on_small)
    assert ran.code == 2
    assert "No space left on device" in ran.error_lines[0]
    gc.collect()  # what is said of files that were left open is an error here
    assert not Path("runs/s1/metrics.json").exists()
    assert not list(Path("runs/s1").rglob("*.part"))


ODD_NAMES = ["a b.ckpt", "x=1.ckpt", "(1).ckpt", "it's.ckpt", "${x}.ckpt", "a,b.ckpt", "ü.ckpt"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_paths_of_any_kind(name: str, av1part: Command, stage1: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(stage1, tmp_path / name))
    assert av1part("validate", path.name).code == 0, "positional"
    ran = av1part("train", "experiment=exp11a/v1", f"stage1={path.name}", "--cfg", "job")
    assert ran.code == 0, ran.err


def test_training_starts_from_a_path_of_any_kind(
    av1part: Command, stage1: Path, on_small: tuple[str, ...], tmp_path: Path
) -> None:
    path = Path(shutil.copy(stage1, tmp_path / "a, b=(it's ${x} ü).ckpt"))
    words = ("stage=stage2", f"stage1={path.name}", "name=s2", *on_small)
    ran = av1part("train", *words, "trainer.max_epochs=1")
    assert ran.code == 0, ran.err


def test_the_home_folder_is_expanded(
    av1part: Command, stage1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(stage1, tmp_path / "m.ckpt")
    assert av1part("validate", "~/m.ckpt").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("validate", "{}"),
        ("report", "{}"),
        ("calibrate", "{}"),
        ("data", "info", "{}"),
        ("data", "import", "v6-pt", "{}", "out=x"),
        ("train", "data.path={}"),
        ("train", "-m", "data.path={}", "seed=1,2"),
        ("train", "data.split_list={}"),
        ("train", "method=frozen", "stage=stage2", "stage1={}"),
        ("pipeline", "stage1={}"),
        ("validate", "stage1.ckpt", "out={}"),
    ],
)
def test_a_home_that_nobody_has_is_refused(
    words: tuple[str, ...], av1part: Command, stage1: Path, tmp_path: Path
) -> None:
    shutil.copy(stage1, tmp_path / "stage1.ckpt")
    ran = av1part(*(word.replace("{}", "~no-such-user/x") for word in words))
    refused(ran, "~no-such-user/x: the system does not know that home folder")


def test_a_loop_of_links_is_refused(av1part: Command, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").symlink_to("b.ckpt")
    (tmp_path / "b.ckpt").symlink_to("a.ckpt")
    refused(av1part("validate", "a.ckpt"), "a.ckpt")


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1))
def test_quoted_paths_come_back_whole(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    if text in ("null", "none", "imagenet") or text[0] in "'\"[":
        return
    word = quote_word(f"stage1={text}", multirun=False)
    value = OverridesParser.create().parse_override(word).value()
    assert OmegaConf.create({"path": value}).path == text


def test_lists_of_paths_are_quoted_one_by_one() -> None:
    assert quote_word("stage3_ab=[a b,c=d]", multirun=False) == "stage3_ab=[a b,'c=d']"
    assert quote_word("stage1=a,b", multirun=True) == "stage1=a,b"


def test_positionals_and_overrides_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "k=v.y4m").touch()
    words = [str(tmp_path / "k=v.y4m"), "clip.y4m", "out=d", "-m", "--cfg", "job", "sizes=[16]"]
    positional, rest = split_positionals(words, (1, None))
    assert positional == words[:2]
    assert rest == ["out=d", "sizes=[16]", "-m", "--cfg", "job"]  # overrides in one place
    after = ["-dash.y4m", "out=e"]
    assert split_positionals(["out=d"], (1, None), after) == (after, ["out=d"])


def test_a_positional_word_may_have_a_name(tmp_path: Path) -> None:
    here = tmp_path / "net"
    here.touch()
    named = [f"net={here}", "trees=peers.av1part", "old=runs/x"]
    others = ["out=d/e", "data.path=a/b", "spilt=val", "+net=x/y", "~net", "hydra.run.dir=a/b"]
    words = [*named, *others]
    assert split_positionals(words, (1, None), keys={"out", "data", "hydra"}) == (named, others)
    assert split_positionals(words, (0, None)) == ([], words)


def test_the_console_script_from_another_folder(tmp_path: Path) -> None:
    """As a user starts it: a process of its own, wherever it stands."""
    script = Path(sys.executable).with_name("av1part")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    words = [script, "train", "trainer.max_epoch=3"]
    typo = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (typo.returncode, len(typo.stderr.splitlines())) == (2, 1)
    assert not list(tmp_path.iterdir())


Y4M = b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420jpeg\n"


@pytest.mark.libaom
def test_a_missing_source_is_one_line(av1part: Command) -> None:
    refused(av1part("data", "build", "x.y4m", "out=o"), "x.y4m")
    assert not list(Path.cwd().iterdir())


def test_without_libaom_one_line_names_the_target(
    av1part: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV1PART_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("AV1PART_AOMENC", "AV1PART_INSPECT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "a.y4m").write_bytes(Y4M + b"FRAME\n" + bytes(64 * 48 * 3 // 2))
    refused(av1part("data", "build", "a.y4m", "out=made"), "make libaom")
    assert [p.name for p in tmp_path.iterdir()] == ["a.y4m"]


@pytest.mark.libaom
@pytest.mark.parametrize(
    ("name", "content", "words", "said"),
    [
        ("empty.y4m", b"", (), "empty.y4m"),
        ("cut.y4m", Y4M + b"FRAME\n" + bytes(1000), (), "cut.y4m"),
        ("none.y4m", Y4M, (), "none.y4m"),
        ("text.mp4", b"this is no video at all", (), "text.mp4"),
        ("plain.yuv", bytes(64 * 48 * 3 // 2), (), "plain.yuv"),
        ("a_64x48.yuv", bytes(64 * 48), (), "a_64x48.yuv"),
        ("b.yuv", bytes(4608), ("width=64", "height=47"), "b.yuv"),
        ("c_64x48_12bit.yuv", bytes(64 * 48 * 3), (), "12"),
        ("d_64x48.yuv", bytes(4608), ("sizes=[16,17]",), "17"),
        ("e_64x48.yuv", bytes(4608), ("cq_levels=[64]",), "64"),
    ],
)
def test_bad_sources_are_one_line_and_leave_nothing(
    name: str, content: bytes, words: tuple[str, ...], said: str, av1part: Command, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(av1part("data", "build", name, "out=made", *words), said)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_the_help_shows_what_words_and_own_files_make_of_it(
    av1part: Command, tmp_path: Path
) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("defaults: [focal]\ngamma: 3.5\n")
    ran = av1part("train", "--config-dir", tmp_path, "loss=mine", "--help")
    assert ran.code == 0, ran.err
    assert "mine*" in ran.out
    assert re.search(r"loss\.gamma +3\.5 ", ran.out)
    assert "no_such" in av1part("train", "no_such=1", "--help").error_lines[0]


def test_the_pipeline_is_not_scored_on_train(av1part: Command, stage1: Path) -> None:
    ran = av1part("pipeline", f"stage1={stage1}", "split=train")
    assert ran.code == 2
    assert "split must be val or test" in ran.error_lines[0]


def test_an_option_that_says_nothing_is_refused(av1part: Command, stage1: Path) -> None:
    ran = av1part("calibrate", stage1, "ensemble=vote")
    assert ran.code == 2
    assert "where ensemble= says nothing" in ran.error_lines[0]


@pytest.mark.parametrize("record", ["[]", "{}", '{"macro_f1": "high"}', "{"])
def test_a_damaged_record_of_training_does_not_stop_a_validation(
    av1part: Command, stage1_run: Path, tmp_path: Path, record: str
) -> None:
    shutil.copytree(stage1_run, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text(record)
    ran = av1part("validate", tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert ran.code == 0, ran.err
    assert "cannot be read" in ran.out


def test_doctor_tells_what_is_here_and_leaves_nothing(av1part: Command) -> None:
    ran = av1part("doctor")
    assert ran.code == 0, ran.err
    for word in ("torch", "aomenc", "inspect", "cores", "embedded dataset", "runs", "GPU"):
        assert word in ran.out
    assert not list(Path.cwd().iterdir())
    assert av1part("doctor", "now").code == 2


def test_doctor_ends_with_2_where_nothing_can_be_trained(
    av1part: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"errors": {"torch": "OSError: libcudart.so \x1b[31m"}}
    monkeypatch.setattr("av1part.cli.commands.doctor.try_imports", lambda: broken)
    Path("runs").touch()
    ran = av1part("doctor")
    refused(ran, "torch cannot be imported", "make setup", "and 1 more")
    assert "\x1b" not in ran.out + ran.err
