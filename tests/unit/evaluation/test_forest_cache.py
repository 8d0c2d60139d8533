"""Trees in the cache: trained once, never another's, and never trusted when damaged."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from av1part.evaluation import forest_cache
from av1part.evaluation.forest_cache import trained_once
from av1part.trees.boosting import Boosted, Boosting, Samples, boost

pytest.importorskip("lightgbm")

RNG = np.random.default_rng(2)
FEATURES = RNG.normal(size=(200, 5)).astype(np.float32)
SAMPLES = Samples(FEATURES, (FEATURES[:, 0] + FEATURES[:, 3] > 0).astype(np.int64))
SETTINGS = Boosting("none", 5, 5, 0.2, 4, 5, 1.0, seed=1, threads=1, tries=3)


class Trained:
    """Trains trees and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Boosted:
        self.times += 1
        return boost(SAMPLES, SAMPLES, 2, SETTINGS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(forest_cache, "default_folder", lambda: tmp_path / "trees")
    return tmp_path / "trees"


def same(first: Boosted, second: Boosted) -> bool:
    arrays = second.forest.arrays()
    return all(np.array_equal(a, arrays[k]) for k, a in first.forest.arrays().items()) and (
        (first.iterations, first.val_loss, first.settings)
        == (second.iterations, second.val_loss, second.settings)
    )


def test_the_same_trees_are_trained_once() -> None:
    train = Trained()
    first, again = (trained_once({"size": 16}, 5, train) for _ in range(2))
    assert train.times == 1
    assert same(first, again)
    assert asdict(again.settings) == asdict(SETTINGS)
    trained_once({"size": 8}, 5, train)
    assert train.times == 2


def test_other_code_and_libraries_are_other_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    train = Trained()
    trained_once({}, 5, train)
    monkeypatch.setattr(forest_cache, "_code_sha256", lambda: "other")
    trained_once({}, 5, train)
    assert train.times == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "features"])
def test_a_damaged_file_is_trained_again(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    train = Trained()
    first = trained_once({}, 5, train)
    file = next(folder.glob("*.npz"))
    content = bytearray(file.read_bytes())
    if damage == "changed":
        at = content.index(first.forest.leaf.tobytes())  # a leaf's last bits: only a check sees it
        content[at] ^= 1
    file.write_bytes(content[: {"cut": len(content) // 2, "empty": 0}.get(damage, len(content))])
    features = 1 if damage == "features" else 5  # a forest that asks for a feature that is not
    if damage == "features":
        assert first.forest.feature.max() >= 1
    with caplog.at_level(logging.WARNING):
        assert same(trained_once({}, features, train), first)
    assert train.times == 2
    assert "trained again" in caplog.text
    trained_once({}, 5, train)
    assert train.times == 2


def test_without_a_folder_they_are_not_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.write_text("a file")
    train = Trained()
    with caplog.at_level(logging.WARNING):
        trained_once({}, 5, train)
        trained_once({}, 5, train)
    assert train.times == 2
    assert "trees are not cached" in caplog.text


def test_the_least_recently_used_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = Trained()
    trained_once({"size": 8}, 5, train)
    bytes_ = next(folder.glob("*.npz")).stat().st_size
    monkeypatch.setattr(forest_cache, "MOST_BYTES", int(2.5 * bytes_))
    trained_once({"size": 16}, 5, train)
    trained_once({"size": 8}, 5, train)  # used again
    trained_once({"size": 32}, 5, train)
    assert train.times == 3
    assert len(list(folder.glob("*.npz"))) == 2
    trained_once({"size": 8}, 5, train)
    assert train.times == 3
    trained_once({"size": 16}, 5, train)
    assert train.times == 4
