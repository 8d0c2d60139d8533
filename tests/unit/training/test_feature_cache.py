"""Features of the frozen trunk: the right ones, once, whoever asks, and never stale."""

from __future__ import annotations

import errno
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av1part.data.serve.augment import apply_symmetries
from av1part.data.serve.blocks import Batch, FeatureReader
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.store.store import Store
from av1part.models.classifier import POOLED, Classifier
from av1part.models.freeze import thaw_epochs
from av1part.partition import SYMMETRIES
from av1part.training.feature_cache import FeatureCache

GIB = 2**30
ALL = [1, 2, 3, 4]


def classifier(
    method: str = "adapter", options: dict[str, Any] | None = None, **adapter: Any
) -> Classifier:
    torch.manual_seed(3)
    return Classifier(
        classes=3,
        bit_depth=8,
        backbone={"width": 8},
        head={"kind": "linear"},
        adapter=adapter or None,
        thaw=thaw_epochs(method, options or {}),
    )


@pytest.mark.parametrize(
    ("method", "options", "adapter", "cut"),
    [
        ("scratch", {}, {}, None),
        ("finetune", {}, {}, None),
        ("ulmfit", {"unfreeze": {"layer4": 1, "stem": 3}}, {}, None),
        ("ulmfit", {"unfreeze": {"layer4": 1}}, {}, 3),
        ("partial", {"layers": ["layer3"]}, {}, 2),
        ("partial", {"layers": ["layer1"]}, {}, 0),
        ("partial", {"layers": ["stem", "layer4"]}, {}, None),
        ("frozen", {}, {}, POOLED),
        ("adapter", {}, {"kind": "bottleneck", "layers": ALL}, 1),
        ("adapter", {}, {"kind": "bottleneck", "layers": [3, 4]}, 3),
        ("adapter", {}, {"kind": "bottleneck", "layers": [4]}, 4),
        ("adapter", {}, {"kind": "bottleneck", "layers": [2], "placement": "block"}, 1),
        ("adapter", {}, {"kind": "lora", "layers": ALL}, 0),
        ("adapter", {}, {"kind": "ssf", "layers": [4]}, 3),
        ("adapter", {}, {"kind": "bitfit", "layers": [2, 4]}, 1),
    ],
)
def test_the_cut_is_the_last_place_below_which_nothing_is_trained(
    method: str, options: dict[str, Any], adapter: dict[str, Any], cut: int | None
) -> None:
    model = classifier(method, options, **adapter)
    assert model.cut == cut
    if cut is None:
        return
    for parameter in model.adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    blocks = torch.randint(0, 256, (8, 1, 16, 16)).to(torch.uint8)
    model.eval()
    qindex = torch.full((8,), 80)
    features = model.trunk(blocks, qindex, cut)
    assert torch.equal(model.from_cut(features, qindex, cut), model(blocks, qindex))
    # Nothing that is trained has a part in them, and everything that is has one after them.
    assert not features.requires_grad
    model.from_cut(features, qindex, cut).square().sum().backward()
    trained = [p for group in model.parameter_groups().values() for p in group]
    assert all(p.grad is not None for p in trained if p.requires_grad)


def trunk_of(model: Classifier, batch: Batch, cut: int) -> torch.Tensor:
    return model.trunk(batch["block"], batch["qindex"], cut)


@pytest.fixture
def data(small_store: Path) -> BlockDataModule:
    module = BlockDataModule(small_store, stage="stage2")
    module.setup()
    return module


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that were computed."""
    sizes: list[int] = []
    trunk = Classifier.trunk

    def counted(
        self: Classifier, block: torch.Tensor, qindex: torch.Tensor, cut: int
    ) -> torch.Tensor:
        sizes.append(len(block))
        return trunk(self, block, qindex, cut)

    monkeypatch.setattr(Classifier, "trunk", counted)
    return sizes


def test_features_are_the_trunks_and_computed_once(
    tmp_path: Path, data: BlockDataModule, computed: list[int]
) -> None:
    model, reader = classifier(kind="bottleneck", layers=[3, 4]).eval(), data.reader("train")
    cache = FeatureCache(tmp_path / "features", GIB)
    found = cache.features(model, reader, data.store)
    assert found is not None
    assert found.shape == (1, len(reader), 1, 1, 32)
    index = np.arange(0, len(reader), 7)
    fresh = trunk_of(model, reader[index], 3).detach().permute(0, 2, 3, 1)
    torch.testing.assert_close(found[0, index], fresh, rtol=1e-5, atol=1e-6)
    before = found[0, 0].clone()
    found[0, 0] += 1
    assert sum(computed) > len(reader)
    computed.clear()
    again = cache.features(model, reader, data.store)
    assert again is not None
    assert torch.equal(again[0, 0], before), "what is written to a tensor stays out of the file"
    assert torch.equal(found[0, 1:], again[0, 1:])
    assert sum(computed) < 100, "only a few, to see that they are right"


def test_a_turned_block_has_the_features_of_the_turned_block(
    tmp_path: Path, data: BlockDataModule
) -> None:
    model, reader = classifier(kind="bottleneck", layers=[2]).eval(), data.reader("train")
    found = FeatureCache(tmp_path, GIB).features(model, reader, data.store, turned=True)
    assert found is not None
    assert len(found) == len(SYMMETRIES)
    index = np.arange(0, len(reader), 11)
    batch = reader[index]
    served = FeatureReader(reader, found)
    for turn in range(len(SYMMETRIES)):
        turned = apply_symmetries(batch, torch.full((len(index),), turn))
        got = served[index + turn * len(reader)]
        fresh = trunk_of(model, turned, 2).detach()
        torch.testing.assert_close(got["features"], fresh, rtol=1e-5, atol=1e-6)
        assert torch.equal(got["node"], batch["node"])
        labels = apply_symmetries(got, torch.full((len(index),), turn))["partition"]
        assert torch.equal(labels, turned["partition"])


def test_half_precision_is_kept_bit_for_bit(tmp_path: Path, data: BlockDataModule) -> None:
    model, reader = classifier(kind="bottleneck", layers=[2]).eval(), data.reader("val")
    cache = FeatureCache(tmp_path, GIB)
    kept = [
        cache.features(model, reader, data.store, precision="bf16-mixed") for _ in ("made", "found")
    ]
    assert len(list(tmp_path.glob("*.npy"))) == 1
    index = np.arange(len(reader))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        fresh = trunk_of(model, reader[index], 2).permute(0, 2, 3, 1)
    for found in kept:
        assert found is not None
        assert found.dtype == torch.bfloat16
        assert torch.equal(found[0], fresh)
    cache.features(model, reader, data.store)
    assert len(list(tmp_path.glob("*.npy"))) == 2, "float32 has a file of its own"


def test_whatever_they_depend_on_makes_them_others(
    tmp_path: Path, data: BlockDataModule, small_store: Path
) -> None:
    cache, reader = FeatureCache(tmp_path, GIB), data.reader("val")
    model = classifier(kind="bottleneck", layers=[2, 4]).eval()

    def files() -> int:
        return len(list(tmp_path.glob("*.npy")))

    cache.features(model, reader, data.store)
    assert files() == 1
    # What lies behind the cut, and what is trained, does not matter.
    with torch.no_grad():
        model.backbone.layer4[0].conv1.weight += 1
        model.head[1].weight += 1
    cache.features(model, reader, data.store)
    assert files() == 1
    for change in (
        lambda: model.backbone.layer2[1].bn2.running_mean.add_(0.5),
        lambda: model.normalise.peak.mul_(4),
    ):
        with torch.no_grad():
            change()
        before = files()
        cache.features(model, reader, data.store)
        assert files() == before + 1
    other = BlockDataModule(small_store, stage="stage2", context=4)
    for changed in (data.reader("train"), other.reader("val")):
        before = files()
        cache.features(model, changed, data.store)
        assert files() == before + 1


@pytest.mark.parametrize("kind", ["resnet18", "superblock"])
def test_features_under_conditioning_are_of_each_node_s_qindex(
    tmp_path: Path, data: BlockDataModule, kind: str
) -> None:
    def conditioned(planes: list[str]) -> Classifier:
        torch.manual_seed(3)
        model = Classifier(
            classes=3,
            bit_depth=8,
            backbone={"kind": kind, "width": 4, "planes": planes},
            head={"kind": "linear"},
            conditioning="qindex_blocks",
            thaw=thaw_epochs("frozen", {}),
        )
        for name, parameter in model.backbone.named_parameters():
            if "film" in name or ".bn2." in name:
                torch.nn.init.normal_(parameter, std=0.2)
        return model.eval()

    cache, reader = FeatureCache(tmp_path, GIB), data.reader("val")
    model = conditioned(["level", "steps"])
    found = cache.features(model, reader, data.store)
    assert found is not None
    batch = reader[np.arange(len(reader))]
    with torch.no_grad():
        fresh = trunk_of(model, batch, POOLED)
        other = model.trunk(batch["block"], batch["qindex"].flip(0), POOLED)
    torch.testing.assert_close(found[0], fresh, rtol=1e-4, atol=1e-5)
    assert (fresh - other).abs().max() > 1e-3
    cache.features(conditioned(["level", "steps"]), reader, data.store)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    cache.features(conditioned(["steps", "level"]), reader, data.store)
    assert len(list(tmp_path.glob("*.npy"))) == 2, "the same tensors, other planes"


def test_a_damaged_file_is_made_anew(tmp_path: Path, data: BlockDataModule) -> None:
    cache, reader = FeatureCache(tmp_path, GIB), data.reader("val")
    model = classifier(kind="bottleneck", layers=ALL).eval()
    right = torch.clone(cache.features(model, reader, data.store))
    (file,) = tmp_path.glob("*.npy")
    for damage in (
        lambda: file.write_bytes(file.read_bytes()[:-100]),
        lambda: file.write_bytes(b"nothing"),
        lambda: np.save(file, right.double().numpy()),
        lambda: np.save(file, right.flip(1).numpy()),
    ):
        damage()
        mended = cache.features(model, reader, data.store)
        assert mended is not None
        assert torch.equal(mended, right)


def nfs_lock(file: Any, operation: int, flock: Any = fcntl.flock) -> None:
    """Lock as NFS does: exclusively only what is open for writing."""
    number = file if isinstance(file, int) else file.fileno()
    mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    if mode == os.O_RDONLY and operation & fcntl.LOCK_EX:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    flock(number, operation)


@pytest.mark.parametrize("flock", [fcntl.flock, nfs_lock], ids=["local", "nfs"])
def test_the_folder_keeps_its_limit(
    tmp_path: Path, data: BlockDataModule, monkeypatch: pytest.MonkeyPatch, flock: Any
) -> None:
    monkeypatch.setattr("fcntl.flock", flock)
    model = classifier(kind="bottleneck", layers=ALL).eval()
    sizes = {}
    for split in ("train", "val"):
        folder = tmp_path / split
        FeatureCache(folder, GIB).features(model, data.reader(split), data.store)
        (file,) = folder.glob("*.npy")
        sizes[split] = file.stat().st_size
    tight = FeatureCache(tmp_path / "tight", sizes["train"] + sizes["val"] - 1)
    used = tight.features(model, data.reader("val"), data.store)
    assert used is not None
    assert tight.features(model, data.reader("train"), data.store) is None, "in use"
    assert [file.stat().st_size for file in tight.folder.glob("*.npy")] == [sizes["val"]]
    del used
    kept = tight.features(model, data.reader("train"), data.store)
    held = [file.stat().st_size for file in (tmp_path / "tight").glob("*.npy")]
    assert held == [sizes["train"]], "the older file made room"
    assert kept is not None
    none = FeatureCache(tmp_path / "none", 1000)
    assert none.features(model, data.reader("train"), data.store) is None
    assert not (tmp_path / "none").exists()


def test_what_a_killed_run_was_writing_goes(tmp_path: Path, data: BlockDataModule) -> None:
    model, cache = classifier(kind="bottleneck", layers=ALL).eval(), FeatureCache(tmp_path, GIB)
    cache.features(model, data.reader("val"), data.store)
    (file,) = tmp_path.glob("*.npy")
    file.rename(file.with_name(f"{file.name}.99999.part"))
    assert cache.features(model, data.reader("val"), data.store) is not None
    assert sorted(each.suffix for each in tmp_path.iterdir()) == [".lock", ".npy"]


def test_two_that_want_the_same_compute_it_once(
    tmp_path: Path, data: BlockDataModule, computed: list[int]
) -> None:
    reader = data.reader("train")
    models = [classifier(kind="bottleneck", layers=ALL).eval() for _ in range(2)]

    def ask(model: Classifier) -> Any:
        return FeatureCache(tmp_path, GIB).features(model, reader, Store.open(data.path))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, models)
    assert torch.equal(first, second)
    assert sum(computed) < 1.5 * len(reader)
