"""What `make pretrained` runs."""

from __future__ import annotations

import copy
import csv
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from av1part import embedded
from av1part.data.store.store import Store
from av1part.predictors.bundle import read_bundle
from av1part.system.errors import Av1partError, BundleError, CalibrationError, ConfigError

from ..predictors.small import save_stage, small_superblock

TOOL = Path(__file__).parents[3] / "tools" / "pretrained.py"
TINY = ("backbone.width=2", "trainer.max_steps=2", "data.crop=64", "logger=none")


def test_without_a_corpus_it_says_how_to_make_one(tmp_path: Path) -> None:
    before = embedded.PRETRAINED_FILE.read_bytes()
    ran = subprocess.run(
        [sys.executable, TOOL, "--corpus", tmp_path / "none"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert "none/one_to_four: make corpus SOURCE=folder first" in ran.stderr
    assert embedded.PRETRAINED_FILE.read_bytes() == before


def test_the_folder_of_its_run_is_no_choice(pretrained_tool: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "out.av1part"
    for word in ("name=mine", "++name=mine", "~resume"):
        with pytest.raises(ConfigError, match=re.escape(f"{word}: the run is runs/pretrained")):
            pretrained_tool.main(["--corpus", str(tmp_path), "--out", str(out), word])
    with pytest.raises(ConfigError, match="--multirun: the file holds one network"):
        pretrained_tool.main(["--corpus", str(tmp_path), "--out", str(out), "--multirun"])


@pytest.mark.slow
def test_it_trains_calibrates_and_bundles_and_goes_on(
    one_to_four_store: Path,
    tmp_path: Path,
    pretrained_tool: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus, file = Path("corpus"), Path("out.av1part")
    corpus.mkdir()
    (corpus / "one_to_four").symlink_to(one_to_four_store)
    names = Store.open(one_to_four_store).sequences
    with (corpus / "split.csv").open("w") as split:
        rows = [(n, "val" if i < 2 else "train") for i, n in enumerate(names)]
        csv.writer(split).writerows([("sequence", "split"), *rows])
    words = ["--corpus", "corpus", "--out", str(file), *TINY]
    assert pretrained_tool.main(words) == 0
    bundle = read_bundle(file)
    assert bundle.half
    assert bundle.licence == pretrained_tool.LICENCE
    assert bundle.domain.one_to_four
    data = file.read_bytes()
    assert pretrained_tool.main(words) == 0  # the run is finished: nothing changes
    assert file.read_bytes() == data
    checkpoint = "runs/pretrained/checkpoints/best.ckpt"
    assert pretrained_tool.main(["--checkpoint", checkpoint, "--out", "again"]) == 0
    assert Path("again").read_bytes() == data


def test_a_failure_leaves_the_file_as_it_was(
    tmp_path: Path, pretrained_tool: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("old.av1part")
    file.write_text("old")
    checkpoint = save_stage(small_superblock().module, tmp_path / "raw.ckpt")

    def refused(error: type[Av1partError], words: list[str], match: str) -> None:
        with pytest.raises(error, match=match):
            pretrained_tool.main(["--out", str(file), *words])
        assert file.read_text() == "old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["old.av1part", "raw.ckpt"]

    refused(CalibrationError, ["--checkpoint", str(checkpoint)], "av1part calibrate")
    refused(ConfigError, ["--checkpoint", str(checkpoint), "seed=3"], "trains nothing")
    monkeypatch.setattr(pretrained_tool, "MOST_BYTES", 1000)
    monkeypatch.setattr(pretrained_tool, "load_superblock", lambda *_, **__: small_superblock())
    refused(BundleError, ["--checkpoint", str(checkpoint)], "a wheel takes 1,000 at most")


def test_it_says_what_the_rounding_changes(pretrained_tool: ModuleType) -> None:
    network = small_superblock()
    assert "more than 0.0000 from" in pretrained_tool.rounding(network, network)
    assert " another in 0 of " in pretrained_tool.rounding(network, network)
    module = copy.deepcopy(network.module)
    with torch.no_grad():
        for weights in module.parameters():
            weights.mul_(1.5)
    said = pretrained_tool.rounding(network, replace(network, module=module))
    assert "more than 0.0000 from" not in said
    assert " another in 0 of " not in said
