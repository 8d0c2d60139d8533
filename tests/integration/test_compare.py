"""`av1part compare`, as a user gives its words, and what it writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from av1part import embedded
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.data.store.store import Store
from av1part.evaluation.attach import attach_data
from av1part.evaluation.evaluate import evaluate_sizes
from av1part.metrics.scores import log_loss
from av1part.predictors.bundle import Bundle, write_bundle
from av1part.predictors.fitted import ClassPrior
from av1part.predictors.trees import BoostedTrees

from ..unit.predictors.small import save_stage, small_boosting, small_superblock
from .conftest import Command


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in a run's folder."""
    folder = tmp_path_factory.mktemp("network") / "runs" / "small" / "checkpoints"
    folder.mkdir(parents=True)
    return save_stage(small_superblock().module, folder / "best.ckpt")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a few trees, of 16x16 and 8x8 alone, trained on two pictures of train."""
    data = SuperblockDataModule()
    data.setup()
    store, of_size = data.store, data.views("train").nodes
    nodes = {size: of_size[size][:400] for size in (8, 16)}
    predictor = BoostedTrees.fit(store, nodes, nodes, small_boosting())
    return write_bundle(tmp_path_factory.mktemp("trees") / "peer.av1part", Bundle(predictor))


def test_it_scores_a_checkpoint_and_a_bundle_beside_baselines(
    av1part: Command, network: Path, trees: Path
) -> None:
    ran = av1part("compare", network, f"peers={trees}", "out=made")
    assert ran.code == 0, ran.err
    assert "report: made/report.html" in ran.out
    assert {path.name for path in Path("made").iterdir()} == {
        *("scores.json", "pictures.parquet", "report.html", "report.md", "plots", "tables"),
    }
    assert [path.name for path in Path.cwd().iterdir()] == ["made"]
    record = json.loads(Path("made/scores.json").read_text())
    assert list(record["predictors"]) == ["small", "peers", "class prior", "variance rule"]
    assert record["against"] == "small"
    assert record["left_out"] == {}
    assert record["weights"] is None
    assert list(record["sizes"]) == ["8", "16", "32", "64"]
    assert "peers" not in record["sizes"]["64"]["predictors"]
    # The network's log loss is that of evaluating the checkpoint.
    predictor = small_superblock()
    data = attach_data(predictor.module)
    for size, found in evaluate_sizes(predictor.module, data.batches("val")).items():
        own = record["sizes"][str(size)]["predictors"]["small"]["scores"]
        assert len(found.partition) == record["sizes"][str(size)]["nodes"]
        loss = log_loss(found.probabilities, found.partition)  # classes are the first ids
        assert own["log_loss"]["estimate"] == pytest.approx(loss, abs=1e-5)
        right = (found.predictions == found.partition).mean()
        assert own["accuracy"]["estimate"] == pytest.approx(right, abs=1e-3)
    pictures = pl.read_parquet("made/pictures.parquet")
    assert pictures["picture"].n_unique() == record["data"]["pictures"] == 3
    again = av1part("report", "made", "out=again")
    assert again.code == 0, again.err
    assert Path("again/report.html").read_bytes() == Path("made/report.html").read_bytes()
    # Nothing is replaced.
    taken = av1part("compare", network, "out=made")
    assert (taken.code, "made is not an empty folder" in taken.err) == (2, True)


def test_a_dataset_of_its_own_with_weights_and_a_reference(
    av1part: Command, network: Path, trees: Path, one_to_four_store: Path
) -> None:
    words = ("compare", f"net={network}", f"peers={trees}", f"data.path={one_to_four_store}")
    more = ("split=all", f"fit.path={embedded.STORE}", f"fit.split_list={embedded.SPLIT_LIST}")
    weights = (f"weights.path={embedded.STORE}", f"weights.split_list={embedded.SPLIT_LIST}")
    few = ("baselines=[prior]", "against=class prior")
    ran = av1part(*words, *more, *weights, *few, "out=made")
    assert ran.code == 0, ran.err
    record = json.loads(Path("made/scores.json").read_text())
    nodes = pl.read_parquet(one_to_four_store / "nodes.parquet").filter(size=16)
    counts = dict(nodes["partition"].value_counts().iter_rows())
    assert record["left_out"]["16"] == {
        "nodes": {n: counts[i] for n, i in (("HORZ_4", 8), ("VERT_4", 9)) if counts.get(i)},
        "lacking": ["net", "peers", "class prior"],
    }
    at_16 = record["sizes"]["16"]
    assert at_16["nodes"] == nodes.filter(pl.col("partition") < 8).height
    assert "difference" in at_16["predictors"]["net"]
    assert "difference" not in at_16["predictors"]["class prior"]
    # It may be published: it names no folder.
    assert str(one_to_four_store.parent) not in Path("made/scores.json").read_text()
    # Weights were fitted on another dataset, with the decisions of the same predictor.
    assert record["weights"]["fitted_on"]["split"] == "val"
    fitted = record["weights"]["predictors"]
    assert set(fitted) == {"net", "peers", "class prior"}
    assert all(own["macro_f1"] >= own["macro_f1_argmax"] for own in fitted.values())
    assert set(record["stage2"]["predictors"]["net"]) == {"argmax", "weighted"}
    text = Path("made/report.md").read_text(encoding="utf-8")
    assert "Left out for all predictors at 16x16" in text
    assert "SPLIT : RECT : AB" in text
    assert "fitted on val of `store`" in text


def test_what_cannot_be_is_one_line(
    av1part: Command, network: Path, trees: Path, store_8x8: Path, stage1: Path
) -> None:
    Path("damaged").write_bytes(b"x" * 100)
    own, listed = embedded.STORE, f"weights.split_list={embedded.SPLIT_LIST}"
    large = write_bundle("large", Bundle(ClassPrior.fit(*of_size(own, 64))))
    for words, error in (
        ((network,), "needs out=DIR"),
        ((network, "out=damaged/x"), "damaged is a file: choose another out="),
        (("out=x",), "it needs PREDICTOR"),
        ((network, "nowhere", "out=x"), "nowhere: there is no file nowhere"),
        ((network, "nt=no/where.ckpt", "out=x"), "compare has no key nt"),
        ((network, "ouut=x", "out=x"), "ouut"),
        (("damaged", "out=x"), "damaged is refused"),
        ((stage1, "out=x"), "stage"),
        ((network, network, "out=x"), "two predictors are called small: name them, NAME=PATH"),
        ((network, "out=x", "against=none"), "against=none: give one of small, class prior"),
        ((network, "out=x", "baselines=[forest]"), "give a list of prior, variance"),
        ((network, "out=x", "baselines=[[prior]]"), "give a list of prior, variance"),
        ((network, "out=x", "baselines=prior"), "give a list of prior, variance"),
        ((network, "out=x", "split=train"), "split must be one of val, test, all"),
        ((network, "out=x", "split=all"), "give fit.path=DIR"),
        ((network, "out=x", "split=all", "baselines=[]"), "small was trained on a part of"),
        ((network, "out=x", f"data.path={own}"), "small was trained with another split"),
        (
            (network, "out=x", "split=all", "baselines=[]", "data.split_list=x"),
            "leave out data.split_list",
        ),
        (
            (trees, "out=x", "baselines=[]", f"weights.path={own}", listed),
            "its val nodes are scored",
        ),
        ((trees, "out=x", listed), "weights.split_list does nothing without weights.path"),
        ((trees, "out=x", "fit.split_seed=1"), "fit.split_seed does nothing without fit.path"),
        ((trees, "out=x", "data.path=nowhere"), "nowhere"),
        (
            (large, "out=x", "split=all", "baselines=[]", f"data.path={store_8x8}"),
            "no predictor has a node size of the dataset",
        ),
        ((network, "out=x", "calibration=stored"), "no calibration of each node size is stored"),
        ((network, "out=damaged"), "damaged is not an empty folder"),
    ):
        ran = av1part("compare", *words)
        assert ran.code == 2, words
        assert len(ran.error_lines) == 1, (words, ran.err)
        assert error in ran.error_lines[0], words
    assert {path.name for path in Path.cwd().iterdir()} == {"damaged", "large"}
    swept = av1part("compare", network, "-m", "out=x,y")
    assert "leave out -m" in swept.error_lines[0]


def test_a_bundle_may_refuse_the_data_of_the_weights(
    av1part: Command, one_to_four_store: Path
) -> None:
    store = Store.open(one_to_four_store)
    prior = Bundle(ClassPrior.fit(store, store.nodes), outside="refuse")
    bundle = write_bundle("prior", prior)
    words = ("split=all", "baselines=[]", f"data.path={one_to_four_store}", "out=made")
    weights = (f"weights.path={embedded.STORE}", f"weights.split_list={embedded.SPLIT_LIST}")
    ran = av1part("compare", bundle, *words, *weights)
    assert ran.code == 2, ran.err
    assert "refuses what it was not trained on: qindex [220]" in ran.error_lines[-1]
    assert not Path("made").exists()


def of_size(path: Path, size: int) -> tuple[Store, pl.DataFrame]:
    store = Store.open(path)
    return store, store.nodes.filter(size=size)


def test_a_failure_leaves_nothing(
    av1part: Command, trees: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device", "made/report.html")

    monkeypatch.setattr("av1part.cli.commands.compare.write_compared_report", broken)
    ran = av1part("compare", trees, "out=deep/made", "baselines=[]")
    assert ran.code == 2
    assert "free space" in ran.error_lines[0]
    assert not list(Path.cwd().iterdir())


def test_an_empty_folder_may_be_given(av1part: Command, trees: Path) -> None:
    Path("made").mkdir()
    shutil.copy(trees, "a=b.av1part")
    ran = av1part("compare", "a=b.av1part", "--", "out=made")
    assert ran.code == 2  # what follows -- is a predictor
    ran = av1part("compare", "a=b.av1part", "out=made", "baselines=[]")
    assert ran.code == 0, ran.err
    record = json.loads(Path("made/scores.json").read_text())
    assert list(record["predictors"]) == ["a=b"]
