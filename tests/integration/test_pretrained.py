"""The predictor that comes with the package, by the word `pretrained`, in every verb."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from av1part import embedded
from av1part.predictors.bundle import read_bundle
from av1part.predictors.bundle_file import read_bundle_file
from av1part.runs.encodes import PLAN_FILE, read_encodes
from av1part.system.files import sha256_file

from ..encoding import corner, write_clip
from ..unit.predictors.small import save_stage, small_superblock
from .conftest import Command

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "tests" / "data" / "crops_72x56.y4m"
PLAN = """\
points:
  fast: {cpu_used: 6}
  wide: {cpu_used: 6, predictor: model, tau: 0.95}
"""


def test_predict_needs_no_model(av1part: Command) -> None:
    ran = av1part("predict", CLIP, "out=a", "qindex=[100]", "hints=true")
    assert ran.code == 0, ran.err
    lines = [line for line in ran.out.splitlines() if "pretrained" in line]
    assert lines == ["predictor: none is given, so pretrained, which comes with av1part"]
    named = av1part("predict", CLIP, "model=pretrained", "out=b", "qindex=[100]", "hints=true")
    assert named.code == 0, named.err
    assert "none is given" not in named.out
    first, second = (pl.read_parquet(Path(out) / f"{CLIP.stem}.parquet") for out in "ab")
    assert first.equals(second)
    assert set(first["size"]) == {8, 16, 32}  # the clip has no whole 64x64
    hints = [Path(out, f"{CLIP.stem}.q100.hints").read_bytes() for out in "ab"]
    assert hints[0] == hints[1]
    for out in "ab":
        facts = json.loads(Path(out, "predictions.json").read_text())
        assert facts["predictor"] == "superblock"
        assert facts["settings"]["model"] == "pretrained"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("model=pretrained", "superblock=x.ckpt"), "takes one predictor"),
        (("ensemble=vote",), "a bundle has its own"),
        (("model=pretrain",), "bundle pretrain does not exist"),
    ],
)
def test_what_predict_refuses(av1part: Command, words: tuple[str, ...], error: str) -> None:
    ran = av1part("predict", CLIP, "out=out", *words)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert error in ran.error_lines[0]
    assert not Path("out").exists()


def test_bundle_shows_it(av1part: Command) -> None:
    ran = av1part("bundle", "pretrained", "--show")
    assert ran.code == 0, ran.err
    assert sha256_file(embedded.PRETRAINED_FILE) in ran.out
    assert "CID22" in ran.out


def test_compare_scores_it_beside_others(av1part: Command, small_store: Path) -> None:
    words = ("split=all", "baselines=[]", f"data.path={small_store}")
    ran = av1part("compare", "pretrained", "mine=pretrained", *words, "out=out")
    assert ran.code == 0, ran.err
    found = json.loads(Path("out/scores.json").read_text())["predictors"]
    assert sorted(found) == ["mine", "pretrained"]
    assert found["pretrained"]["file"] == found["mine"]["file"] == "pretrained.av1part"
    assert found["pretrained"]["sha256"] == sha256_file(embedded.PRETRAINED_FILE)
    missing = av1part("compare", "pretrain", *words, "out=two")
    assert missing.code == 2
    assert "there is no file pretrain: name a bundle, a checkpoint or pretrained" in missing.err


def test_half_is_for_networks(av1part: Command) -> None:
    save_stage(small_superblock().module, Path("net.ckpt"))
    for half in ("false", "true"):
        words = ("superblock=net.ckpt", f"half={half}", f"out={half}.av1part")
        assert av1part("bundle", *words).code == 0
    assert read_bundle("true.av1part").half
    shown = av1part("bundle", "true.av1part", "--show").out
    assert '"float16": ' in shown
    _, arrays = read_bundle_file("false.av1part")
    assert {array.dtype.name for array in arrays.values()} == {"float32", "int64"}
    refused = av1part("bundle", "kind=prior", "half=true", "out=prior.av1part")
    assert refused.code == 2
    assert "half=true is for superblock=CKPT" in refused.error_lines[0]
    assert not Path("prior.av1part").exists()


@pytest.mark.patched
def test_encode_takes_it(av1part: Command) -> None:
    write_clip(Path("clip.y4m"), [corner("coffee", 64, 96)])
    Path("conf/plan").mkdir(parents=True)
    Path("conf/plan/mine.yaml").write_text(PLAN)
    words = ("plan=mine", "--config-dir", "conf", "model=pretrained", "out=out")
    ran = av1part("encode", "clip.y4m", *words)
    assert ran.code == 0, ran.err
    facts = json.loads((Path("out") / PLAN_FILE).read_text())
    assert sha256_file(embedded.PRETRAINED_FILE) in json.dumps(facts)
    rows = read_encodes(Path("out")).rows
    assert (rows.filter(pl.col("point") == "wide")["inference_seconds"] > 0).all()
