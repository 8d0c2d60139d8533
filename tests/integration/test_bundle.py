"""`av1part bundle`, as a user gives its words, and what it makes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from av1part import embedded
from av1part.config.schema import Trees
from av1part.data.store.splits import read_split_list
from av1part.data.store.store import Store
from av1part.partition import taxonomy
from av1part.predictors.bundle import Bundle, read_bundle, write_bundle
from av1part.predictors.bundle_file import canonical
from av1part.predictors.cascade import load_cascades
from av1part.predictors.fitted import ClassPrior, VarianceRule
from av1part.predictors.trees import BoostedTrees
from av1part.trees.boosting import Boosting

from ..unit.predictors.small import save_stage, small_stage
from ..unit.predictors.test_bundle import put_together, same, take_apart
from .conftest import Command

Words = dict[str, list[Path]]


@pytest.fixture(scope="module")
def checkpoints(
    small_store: Path, store_8x8: Path, tmp_path_factory: pytest.TempPathFactory
) -> Words:
    """Stage name to its checkpoints: of 16x16 and 8x8, and two of Stage 3 AB."""
    folder, files = tmp_path_factory.mktemp("checkpoints"), {}
    for size, store in ((16, small_store), (8, store_8x8)):
        for stage in taxonomy("v6").at(size).stages:
            for seed in range(1 + (stage.name == "stage3_ab")):
                module = small_stage(stage.name, store, size, seed)
                path = save_stage(module, folder / f"{stage.name}-{size}-{seed}.ckpt")
                files.setdefault(stage.name, []).append(path)
    return files


def words_of(checkpoints: Words) -> list[str]:
    return [f"{stage}=[{','.join(map(str, paths))}]" for stage, paths in checkpoints.items()]


def test_cascades_of_several_sizes_in_one_file(av1part: Command, checkpoints: Words) -> None:
    licence = "CC BY 4.0, (c) the authors"
    words = ("bundle", *words_of(checkpoints), "ensemble=vote", "outside=refuse")
    ran = av1part(*words, "out=my model.av1part", f"licence={licence}")
    assert ran.code == 0, ran.err
    assert "my model.av1part" in ran.out
    bundle = read_bundle("my model.av1part")
    assert (bundle.licence, bundle.outside) == (licence, "refuse")
    plane = np.random.default_rng(0).integers(0, 256, (70, 90), np.uint8)
    loaded = load_cascades(checkpoints, ensemble="vote")
    assert bundle.domain == loaded.domain
    assert set(bundle.domain.sizes) == {8, 16}
    for qindex in (80, 200):
        answers = loaded.predict(plane, 8, qindex)
        assert same(answers, bundle.predict(plane, 8, qindex))
    shown = av1part("bundle", "my model.av1part", "--show")
    assert shown.code == 0
    assert licence in shown.out
    assert "cascade 16" in shown.out
    # Checkpoints are no longer needed, and nothing is replaced.
    again = av1part(*words, "out=my model.av1part")
    assert (again.code, again.error_lines[0].count("exists")) == (2, 1)


@pytest.mark.parametrize(("kind", "cls"), [("prior", ClassPrior), ("variance", VarianceRule)])
def test_a_predictor_fitted_on_the_training_nodes_alone(
    av1part: Command, kind: str, cls: type[ClassPrior] | type[VarianceRule]
) -> None:
    ran = av1part("bundle", f"kind={kind}", "out=fitted")
    assert ran.code == 0, ran.err
    store, table = Store.open(embedded.STORE), read_split_list(embedded.SPLIT_LIST)
    training = [name for name, split in table.items() if split == "train"]
    expected = cls.fit(store, store.nodes.filter(pl.col("sequence").is_in(training)))
    plane, bundle = store.plane("chelsea")[0][:192, :256], read_bundle("fitted")
    assert bundle.domain == expected.domain
    for qindex in (80, 172):
        assert same(expected.predict(plane, 8, qindex), bundle.predict(plane, 8, qindex))
    assert {s["manifest_sha256"] for s in bundle.sources} == {store.manifest_sha256}


def test_trees_trained_on_the_training_nodes(av1part: Command) -> None:
    few = ("trees.iterations=3", "trees.leaves=4", "trees.class_weights=balanced", "trees.seed=7")
    for name in ("trees", "again"):
        ran = av1part("bundle", "kind=trees", *few, f"out={name}", "licence=CC0-1.0")
        assert ran.code == 0, ran.err
    assert Path("trees").read_bytes() == Path("again").read_bytes()
    store, table = Store.open(embedded.STORE), read_split_list(embedded.SPLIT_LIST)
    nodes: list[dict[int, Any]] = []
    for split in ("train", "val"):
        names = [name for name, own in table.items() if own == split]
        own = store.nodes.with_row_index("node").filter(pl.col("sequence").is_in(names))
        by_size = own.group_by("size", maintain_order=True)
        nodes.append({int(s): g["node"].to_numpy().astype(np.int64) for (s,), g in by_size})
    values = Trees(class_weights="balanced", iterations=3, leaves=4, seed=7)
    expected = BoostedTrees.fit(store, *nodes, Boosting(**asdict(values)))
    plane, bundle = store.plane("chelsea")[0][:192, :256], read_bundle("trees")
    assert (bundle.domain, bundle.licence) == (expected.domain, "CC0-1.0")
    assert same(expected.predict(plane, 8, 128), bundle.predict(plane, 8, 128))
    assert {s["manifest_sha256"] for s in bundle.sources} == {store.manifest_sha256}
    shown = av1part("bundle", "trees", "--show")
    assert "balanced" in shown.out
    assert "val_loss" in shown.out


def test_what_cannot_be_is_one_line(
    av1part: Command, checkpoints: Words, small_store: Path
) -> None:
    one = f"stage1={checkpoints['stage1'][0]}"
    Path("damaged").write_bytes(b"x" * 100)
    for words, error in (
        ((), "needs out=FILE"),
        (("out=x",), "needs stage1=CKPT"),
        (("out=x", one), "the cascade also needs stage2=CKPT"),
        (("out=x", one, "kind=prior"), "leave out stage1"),
        (("out=x", one, f"data.path={small_store}"), "data.* is for kind=prior"),
        (("out=x", "kind=prior", "data.path=nowhere"), "nowhere"),
        (("out=x", "kind=forest"), "kind must be one of"),
        (("out=x", "kind=prior", "trees.seed=1"), "trees.* is for kind=trees"),
        (("out=x", "kind=trees", "trees.leaves=65"), "trees.leaves"),
        (("out=x", "outside=ignore"), "outside must be one of"),
        (("out=pretrained", "kind=prior"), "comes with av1part: give out=./pretrained"),
        (("damaged",), "give both words"),
        (("--show",), "give both words"),
        (("damaged", "--show"), "damaged is refused"),
        (("nowhere", "--show"), "nowhere does not exist"),
    ):
        ran = av1part("bundle", *words)
        assert ran.code == 2, words
        assert len(ran.error_lines) == 1
        assert error in ran.error_lines[0], words
    assert [path.name for path in Path.cwd().iterdir()] == ["damaged"]


def test_nothing_from_the_file_acts_on_the_terminal(av1part: Command) -> None:
    store = Store.open(embedded.STORE)
    write_bundle("good", Bundle(ClassPrior.fit(store, store.nodes)))
    facts, stored = take_apart(Path("good").read_bytes())
    facts["sources"] = [{"data\x1b[2Jset": "\x1b]0;mine\x07"}]
    facts["content"] = {"\x1b[2J": "\u202e"}
    Path("bad").write_bytes(put_together(facts, stored))
    ran = av1part("bundle", "bad", "--show")
    assert ran.code == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(ran.out)


def test_a_file_of_torch_is_no_bundle(av1part: Command) -> None:
    torch.save({"av1part": torch.zeros(2)}, "weights.pt")
    Path("plain.json").write_text(json.dumps({"av1part": canonical({})}))
    for name in ("weights.pt", "plain.json"):
        ran = av1part("bundle", name, "--show")
        assert ran.code == 2
        assert f"bundle {name} is refused" in ran.error_lines[0]


CLIP = Path(__file__).parents[1] / "data" / "crops_72x56.y4m"


def test_predict_takes_a_bundle(av1part: Command, checkpoints: Words) -> None:
    assert av1part("bundle", *words_of(checkpoints), "out=m.av1part").code == 0
    for out, words in (("a", ["model=m.av1part"]), ("b", words_of(checkpoints))):
        ran = av1part("predict", CLIP, *words, f"out={out}", "qindex=[100]", "frames=1")
        assert ran.code == 0, ran.err
    tables = [pl.read_parquet(f"{out}/{CLIP.stem}.parquet") for out in "ab"]
    assert tables[0].height > 0
    assert tables[0].equals(tables[1])


def test_predict_refuses_where_the_bundle_does(av1part: Command) -> None:
    assert av1part("bundle", "kind=prior", "out=m.av1part", "outside=refuse").code == 0
    words = ("predict", CLIP, "model=m.av1part", "out=out")
    for more, error in (
        (("qindex=[80,79]",), "m.av1part refuses what it was not trained on: qindex [79]"),
        (("qindex=[80]", "ensemble=vote"), "a bundle has its own"),
        (("qindex=[80]", "calibration=none"), "a bundle has its own"),
        (("qindex=[80]", "stage1=x.ckpt"), "takes one predictor"),
        (("model=x.av1part",), "x.av1part does not exist"),
    ):
        ran = av1part(*words, *more)
        assert ran.code == 2, more
        assert error in ran.error_lines[0]
        assert not Path("out").exists()
    assert av1part(*words, "qindex=[80]", "frames=1").code == 0


def test_a_bundle_below_a_file_is_refused_before_anything_is_fitted(av1part: Command) -> None:
    Path("taken").write_text("x")
    ran = av1part("bundle", "kind=trees", "out=taken/trees.av1part")
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "taken is a file: choose another out=" in ran.error_lines[0]
