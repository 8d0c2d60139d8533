"""The whole chain: demo, cascade and report; and one clip from start to finish."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from av1part import embedded
from av1part.checkpoints.calibration import read_calibration
from av1part.cli.commands.demo import lost_against_guessers
from av1part.config.schema import Superblock
from av1part.data.store.store import Store
from av1part.encoder.patched import find_patched
from av1part.predictors.bundle import bundle_contents, read_bundle
from av1part.predictors.superblock import SuperblockPredictor
from av1part.runs.encodes import ROWS_FILE, read_encodes
from av1part.system.errors import EncoderError

from .conftest import TINY, Command, read_viewer


def test_the_gate_reads_every_metric_against_both_guessers() -> None:
    names = ("macro_f1", "accuracy", "f1_positive")
    guesses = {g: dict.fromkeys(names, 0.6) for g in ("constant", "prior")}
    won = {**dict.fromkeys(names, 0.7), "baselines": guesses}
    assert lost_against_guessers(won) == ""
    for guesser in guesses:
        for metric in names:
            beaten = {**guesses, guesser: {**guesses[guesser], metric: 0.7}}
            assert lost_against_guessers({**won, "baselines": beaten}).startswith(metric)


@pytest.fixture(scope="module")
def demo_words(small_store: Path) -> tuple[str, ...]:
    return (*TINY, f"data.path={small_store}", f"data.split_list={embedded.SPLIT_LIST}")


@pytest.mark.slow
def test_the_demo_fails_if_stage_1_learns_nothing(
    av1part: Command, demo_words: tuple[str, ...]
) -> None:
    still = [f"optimizer.lr.{part}=1e-12" for part in ("backbone", "conditioning", "head")]
    ran = av1part("demo", *demo_words, *still, "trainer.max_epochs=1")
    assert ran.code == 1
    assert "does not beat both guessers" in ran.err


def test_demo_pipeline_and_report(
    av1part: Command, demo_words: tuple[str, ...], small_store: Path
) -> None:
    ran = av1part("demo", *demo_words)
    folder = Path("runs/demo")
    # On so little data Stage 1 may or may not beat the guessers; the exit code says which.
    behind = lost_against_guessers(json.loads((folder / "stage1" / "metrics.json").read_text()))
    assert ran.code == (1 if behind else 0), ran.err
    assert str(folder / "report" / "report.html") in ran.out
    names = ["stage1", "stage2-frozen", "stage2-adapter", "stage3_rect"]
    names += [f"stage3_ab-{i}" for i in (1, 2, 3)]
    names += ["superblock"]
    for name in names:
        record = json.loads((folder / name / "checkpoints" / "best.verified.json").read_text())
        assert record["delta_pp"] == 0
    report = json.loads((folder / "pipeline" / "pipeline.json").read_text())
    table = pl.read_parquet(folder / "pipeline" / "predictions.parquet")
    # Supports by an independent count, ids as AV1 has them.
    nodes = Store.open(embedded.STORE).nodes
    for id_, name in enumerate(report["class_names"]):
        counted = table.filter(pl.col("partition") == id_).height
        assert report["overall"]["per_class"][name]["support"] == counted
    assert nodes["partition"].max() == 7
    assert report["oracles"][-1]["accuracy"] == 1.0
    assert len(report["checkpoints"]["stage3_ab"]) == 3
    assert set(report["threshold"]["cross_fitted"]) == {"brick", "coffee", "rocket"}
    page = (folder / "report" / "report.html").read_text()
    assert "always" in page.lower()
    compare_viewer(folder / "report", folder / "pipeline", small_store)
    assert av1part("report", folder / "stage2-frozen").code == 0
    compare_viewer(folder / "stage2-frozen" / "report", folder / "stage2-frozen", small_store)
    assert "superblock" in page
    assert f"model={folder}/superblock.av1part" in ran.out
    rows = check_bundle_and_comparison(folder, ran.out)
    scores = check_superblock(folder, ran.out)
    again = av1part("demo", *demo_words)
    assert again.code == ran.code
    assert check_bundle_and_comparison(folder, again.out) == rows
    assert check_superblock(folder, again.out) == scores
    assert again.err.count("finished: it stays as it is") == len(names)

    best = {n: folder / n / "checkpoints" / "best.ckpt" for n in names}
    words = [f"stage1={best['stage1']}", f"stage2={best['stage2-frozen']}"]
    words += [f"stage3_rect={best['stage3_rect']}"]
    words += [f"stage3_ab=[{','.join(str(best[f'stage3_ab-{i}']) for i in (1, 2, 3))}]"]
    ran = av1part("pipeline", *words, "name=tested", "split=test")
    assert ran.code == 0, ran.err
    tested = json.loads(Path("runs/tested/pipeline.json").read_text())
    assert tested["split"] == "test"
    # Nothing is fitted on test: the threshold is the one fitted on val.
    assert tested["threshold"]["cross_fitted"] == {}
    ran = av1part("report", "runs/tested")
    assert ran.code == 0, ran.err
    wrong = av1part("pipeline", *[w.replace("stage3_rect=", "stage3_ab=") for w in words])
    assert wrong.code == 2
    swapped = [words[0], f"stage2={best['stage3_rect']}", *words[2:]]
    assert "is of stage3_rect, expected one of stage2" in av1part("pipeline", *swapped).err


def missing_patched() -> str:
    try:
        find_patched()
    except EncoderError as error:
        return str(error)
    return ""


def check_bundle_and_comparison(folder: Path, out: str) -> str:
    """Check the cascade's bundle, and the comparison in the encoder where that is built."""
    calibrated = bundle_contents(folder / "model.av1part")["cascade 16"]
    pipeline = json.loads((folder / "pipeline" / "pipeline.json").read_text())
    assert calibrated["threshold"] == pipeline["threshold"]["fitted"]
    if missing := missing_patched():
        assert f"not compared in the encoder: {missing}" in out
        return ""
    (comparison,) = [path for path in (folder / "encode").iterdir() if path.is_dir()]
    assert str(comparison / "report.html") in out
    encodes = read_encodes(comparison)
    assert encodes.finished
    assert encodes.points["cpu1_model_90"].kind == "learned"
    return (comparison / ROWS_FILE).read_text()


def check_superblock(folder: Path, out: str) -> Path:
    """Check the superblock network's bundle and its line; return the comparison's one folder."""
    network = read_bundle(folder / "superblock.av1part").predictor
    assert isinstance(network, SuperblockPredictor)
    stored = read_calibration(folder / "superblock" / "checkpoints" / "best.ckpt")
    assert stored is not None
    assert stored.by_size is not None
    assert network.temperatures == {16: stored.by_size["16"].fitted}
    # It is told the data and the epochs, not the width of the stages' network.
    assert network.module.hparams["backbone"]["width"] == Superblock().width
    history = (folder / "superblock" / "history.csv").read_text().splitlines()
    assert history[-1].startswith("1,")
    (compared,) = (folder / "compare").iterdir()
    assert f"{compared}/report.html" in out
    record = json.loads((compared / "scores.json").read_text())
    assert record["data"]["split"] == "val"
    line = next(line for line in out.splitlines() if line.startswith("most probable of all types"))
    found = record["sizes"]["16"]["predictors"]
    shown = []
    for name in ("superblock", "cascade", "class prior"):
        loss, accuracy = (found[name]["scores"][k]["estimate"] for k in ("log_loss", "accuracy"))
        shown.append(f"{loss:.3f}, accuracy {100 * accuracy:.2f} %")
    assert [part for part in shown if part in line] == shown
    return compared


def compare_viewer(report: Path, run: Path, store: Path) -> None:
    """Compare a report's viewer with the dataset, and with the run's predictions by node number."""
    viewer = read_viewer(report / "report.html")
    nodes = Store.open(store).nodes.with_row_index("node")
    shown = nodes.filter(sequence=viewer.sequence, frame=0, qindex=viewer.qindex)
    table = pl.read_parquet(run / "predictions.parquet").drop(
        "sequence", "qindex", "partition", strict=False
    )
    found = shown.join(table, on="node")
    assert found.height == (viewer.planes[0] != 255).sum() > 0
    for node in found.iter_rows(named=True):
        at = viewer.planes[:, node["row"] // viewer.size, node["col"] // viewer.size]
        assert at[2] == node["partition"]
        assert at[0] & 15 == node["prediction"]
        expected = [node[f"p.{name}"] for name in viewer.classes]
        assert np.abs(at[3:] / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_stages_of_different_splits_are_refused(
    av1part: Command, stage1: Path, small_store: Path
) -> None:
    """Val nodes of one stage would be training nodes of another."""
    words = ("train", *TINY, f"data.path={small_store}")
    other = ("data.protocol=random_blocks",)
    ran = av1part(*words, *other, "stage=stage2", f"stage1={stage1}")
    assert ran.code == 2
    assert "another split of this dataset" in ran.error_lines[0]
    listed = (f"data.split_list={embedded.SPLIT_LIST}",)
    for stage in ("stage2", "stage3_rect", "stage3_ab"):
        split = other if stage == "stage2" else listed
        ran = av1part(*words, *split, f"stage={stage}", "method=scratch", f"name={stage}")
        assert ran.code == 0, ran.err
    best = [f"{s}=runs/{s}/checkpoints/best.ckpt" for s in ("stage2", "stage3_rect", "stage3_ab")]
    ran = av1part("pipeline", f"stage1={stage1}", *best)
    assert ran.code == 2
    assert "another split_sha256 than stage1" in ran.error_lines[0]
    ran = av1part("validate", stage1, f"data.path={small_store}", "data.protocol=random_blocks")
    assert ran.code == 2
    assert "its training nodes would be evaluated on" in ran.error_lines[0]


@pytest.mark.libaom
def test_one_clip_from_start_to_finish(av1part: Command, tmp_path: Path) -> None:
    """What a newcomer does with a video of their own: build, train, cascade, report."""
    clip = _clip(tmp_path / "my clip.y4m")
    ran = av1part("data", "build", clip, "out=mine", "cq_levels=[20,43]", "cpu_used=4")
    assert ran.code == 0, ran.err
    words = ("data.path=mine", *TINY, "data.protocol=by_segment")
    refused = av1part("train", *words[:-1])
    assert refused.code == 2
    assert "by_segment" in refused.err
    assert av1part("train", "stage=stage1", "name=s1", *words).code == 0
    one = "stage1=runs/s1/checkpoints/best.ckpt"
    for stage in ("stage2", "stage3_rect", "stage3_ab"):
        ran = av1part("train", f"stage={stage}", f"name={stage}", one, *words)
        assert ran.code == 0, ran.err
    rest = [f"{s}=runs/{s}/checkpoints/best.ckpt" for s in ("stage2", "stage3_rect", "stage3_ab")]
    ran = av1part("pipeline", one, *rest)
    assert ran.code == 0, ran.err
    ran = av1part(
        "pipeline", one, *rest, "data.path=mine", "data.protocol=by_segment", "name=again"
    )
    assert ran.code == 0, ran.err
    ran = av1part("report", "runs/pipeline", "runs/s1")
    assert ran.code == 0, ran.err
    assert "by_segment" in (Path("runs/pipeline/report/report.md")).read_text()


def _clip(path: Path) -> Path:
    """Pan over an embedded photograph: six frames of 256x192."""
    plane = Store.open(embedded.STORE).plane("grass")[0]
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W256 H192 F25:1 Ip A1:1 C420jpeg\n")
        for i in range(6):
            luma = np.ascontiguousarray(plane[8 * i : 8 * i + 192, 16 * i : 16 * i + 256])
            file.write(b"FRAME\n" + luma.tobytes() + bytes([128]) * (2 * 128 * 96))
    return path
