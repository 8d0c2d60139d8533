"""The predictor that comes with the package, whichever it is: small, open, and as its card says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from av1part import embedded
from av1part.data.store.store import Store
from av1part.evaluation.attach import DataSource
from av1part.metrics.scores import LEAST_PROBABILITY
from av1part.options import PRETRAINED
from av1part.predictors.bundle import bundle_contents, bundle_path, read_bundle, write_bundle
from av1part.predictors.fit import fit_bundle
from av1part.predictors.named import open_predictor
from av1part.predictors.superblock import SuperblockPredictor
from av1part.system.errors import BundleError
from av1part.system.files import sha256_file

CARD = Path(__file__).parents[3] / "docs" / "pretrained.md"
PICTURE = "rocket"


def stated(row: str) -> str:
    """Return what the model card's table says."""
    (value,) = re.findall(rf"^\| {row} \| (.+) \|$", CARD.read_text(), re.MULTILINE)
    return value


def test_it_is_small_and_opens() -> None:
    assert embedded.PRETRAINED_FILE.stat().st_size < 2 << 20
    bundle = read_bundle(PRETRAINED)
    assert bundle.file == embedded.PRETRAINED_FILE
    assert bundle.half
    assert isinstance(bundle.predictor, SuperblockPredictor)
    assert bundle.predictor.temperatures.keys() == set(bundle.domain.sizes), "it is calibrated"
    for named in ("Apache-2.0", "CID22", "Cloudinary", "CC BY-SA 4.0"):
        assert named in bundle.licence


def test_its_domain_is_that_of_the_model_card() -> None:
    bundle = read_bundle(PRETRAINED)
    low, high = bundle.domain.qindexes
    assert stated("range of `base_q_idx`") == f"{low} to {high}"
    assert stated("bit depth") == " and ".join(map(str, bundle.domain.bit_depths))
    assert stated("node sizes") == ", ".join(f"{s}x{s}" for s in sorted(bundle.domain.sizes))
    assert stated("1:4 partitions") == ("yes" if bundle.domain.one_to_four else "no")


def test_the_model_card_is_of_this_file() -> None:
    predictor = read_bundle(PRETRAINED).predictor
    assert isinstance(predictor, SuperblockPredictor)
    assert stated("SHA-256") == f"`{sha256_file(embedded.PRETRAINED_FILE)}`"
    parameters = sum(tensor.numel() for tensor in predictor.module.parameters())
    assert stated("parameters") == f"{parameters:,}"
    crop = predictor.module.hparams["data"]["crop"]
    assert f"crops of {crop}x{crop}" in CARD.read_text()


def log_loss(predictor: str | None) -> float:
    """Return the log loss at 16x16 on one picture, of a bundle or of the class prior."""
    store = Store.open(embedded.STORE)
    source = DataSource(str(embedded.STORE), "by_sequence", str(embedded.SPLIT_LIST))
    bundle = fit_bundle("prior", source) if predictor is None else read_bundle(predictor)
    nodes = store.nodes.filter(sequence=PICTURE, size=16, frame=0)
    losses = []
    for (qindex,), own in nodes.group_by("qindex"):
        rows, cols, types = (own[name].to_numpy() for name in ("row", "col", "partition"))
        answers = bundle.predict(store.plane(PICTURE)[0], 8, int(str(qindex)))[16]
        losses.append(-np.log(answers[rows // 16, cols // 16, types].clip(LEAST_PROBABILITY)))
    return float(np.concatenate(losses).mean())


def test_it_predicts_better_than_the_class_prior_of_these_very_pictures() -> None:
    assert log_loss(PRETRAINED) < log_loss(None) - 0.1


def test_the_word_means_the_shipped_file_and_a_path_means_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pretrained").write_text("mine")
    with pytest.raises(BundleError, match=r"comes with av1part: give \./pretrained"):
        write_bundle("pretrained", read_bundle(embedded.PRETRAINED_FILE))
    assert bundle_path("pretrained") == embedded.PRETRAINED_FILE
    assert "not ./pretrained" in caplog.text
    assert bundle_path("./pretrained") == Path("./pretrained")
    with pytest.raises(BundleError, match="truncated or no safetensors"):
        read_bundle("./pretrained")
    assert bundle_contents("pretrained")["bundle"]["kind"] == "superblock"
    named = open_predictor("pretrained")
    assert (named.name, named.identity["file"]) == ("pretrained", "pretrained.av1part")
