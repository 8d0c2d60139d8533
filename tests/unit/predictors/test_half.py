"""Bundles with weights of float16: rounded once, computed in float32, and nothing else changed."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from av1part import embedded
from av1part.data.store.store import Store
from av1part.predictors.bundle import Bundle, bundle_contents, read_bundle, write_bundle
from av1part.predictors.bundle_file import halved, read_bundle_file, to_bytes
from av1part.predictors.interface import Predictor
from av1part.predictors.superblock import SuperblockPredictor
from av1part.system.errors import BundleError

from .small import small_predictors, small_superblock


@pytest.fixture(scope="module")
def network() -> SuperblockPredictor:
    return small_superblock()


@pytest.fixture(scope="module")
def half(network: SuperblockPredictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("half") / "half.av1part"
    return write_bundle(file, Bundle(network, half=True))


def rounded(network: SuperblockPredictor) -> SuperblockPredictor:
    """Round the kernels of a network, by PyTorch."""
    module = copy.deepcopy(network.module)
    with torch.no_grad():
        for weights in module.parameters():
            if weights.dim() > 1:
                weights.copy_(weights.half().float())
    return replace(network, module=module)


def picture(name: str) -> np.ndarray:
    return Store.open(embedded.STORE).plane(name)[0]


def test_it_answers_as_the_network_with_rounded_weights(
    network: SuperblockPredictor, half: Path
) -> None:
    bundle, own = read_bundle(half), rounded(network)
    assert bundle.half
    assert bundle.domain == network.domain
    plane = picture("brick")[:200, :300]
    for qindex in (80, 200):
        answers, wanted = bundle.predict(plane, 8, qindex), own.predict(plane, 8, qindex)
        assert sorted(answers) == [8, 16, 32, 64]
        for size, probabilities in answers.items():
            assert probabilities.dtype == np.float32
            assert np.array_equal(probabilities, wanted[size])


@pytest.mark.parametrize("name", ["brick", "chelsea", "rocket"])
def test_probabilities_stay_within_a_bound(
    name: str, network: SuperblockPredictor, half: Path
) -> None:
    plane, bundle = picture(name), read_bundle(half)
    exact, answers = (p.predict(plane, 8, 128) for p in (network, bundle))
    largest = max(np.abs(exact[size] - answers[size]).max() for size in exact)
    assert 0 < largest < 0.01


def test_kernels_alone_are_stored_so_and_read_as_float32(
    network: SuperblockPredictor, half: Path
) -> None:
    facts, arrays = read_bundle_file(half)
    kernels = {name for name, own in network.module.named_parameters() if own.dim() > 1}
    assert kernels
    assert {name for name, array in arrays.items() if array.dtype == np.float16} == kernels
    state = network.module.state_dict()
    exact = {name for name in arrays if name not in kernels}
    assert any(name.endswith("num_batches_tracked") for name in exact)
    assert all(np.array_equal(arrays[name], state[name].numpy()) for name in exact)
    opened = read_bundle(half).predictor
    assert isinstance(opened, SuperblockPredictor)
    assert {own.dtype for own in opened.module.parameters()} == {torch.float32}
    shown = bundle_contents(half)["bundle"]["dtypes"]
    assert shown["float16"] == len({facts["tensors"][name] for name in kernels})
    assert sum(shown.values()) == len(load(half.read_bytes()))


def test_the_same_bytes_each_time_also_from_what_was_opened(
    network: SuperblockPredictor, half: Path, tmp_path: Path
) -> None:
    for bundle in (Bundle(network, half=True), read_bundle(half)):
        assert write_bundle(tmp_path / "again", bundle).read_bytes() == half.read_bytes()
    whole = write_bundle(tmp_path / "whole", Bundle(network))
    assert not read_bundle(whole).half
    saved = whole.stat().st_size - half.stat().st_size
    parameters = sum(own.numel() for own in network.module.parameters() if own.dim() > 1)
    assert saved == pytest.approx(2 * parameters, rel=0.02, abs=200)


def test_what_float16_cannot_hold_stays_as_it_is() -> None:
    smallest = np.float32(np.finfo(np.float16).smallest_normal)
    arrays = {
        "plain": np.array([[0.1, -3.0]], np.float32),
        "zero": np.zeros((2, 2), np.float32),
        "empty": np.zeros((0, 2), np.float32),
        "largest": np.array([[65504.0, 65519.0]], np.float32),
        "mixed": np.array([[1.0, 1e-7]], np.float32),
        "smallest": np.array([[smallest]], np.float32),
        "overflow": np.array([[1.0, 65520.0]], np.float32),
        "tiny": np.array([[smallest * 0.9, 0.0]], np.float32),
        "vanishing": np.array([[1e-12]], np.float32),
        "no weight": np.array([0.1], np.float32),
        "count": np.array(3, np.int64),
    }
    stored = halved(arrays, set(arrays) - {"no weight", "count"})
    half = {name for name, array in stored.items() if array.dtype == np.float16}
    assert half == {"plain", "zero", "empty", "largest", "mixed", "smallest"}
    for name, array in arrays.items():
        if name in half:
            error = np.abs(stored[name].astype(np.float64) - array)
            assert (error <= np.maximum(np.abs(array) * 2.0**-11, 2.0**-25)).all(), name
        else:
            assert stored[name] is array
    assert np.isfinite(stored["largest"]).all()


@pytest.mark.parametrize("value", [1e5, 1e-6])
def test_a_network_with_such_a_kernel_is_bundled_exactly(
    value: float, network: SuperblockPredictor, tmp_path: Path
) -> None:
    module = copy.deepcopy(network.module)
    name, kernel = next((n, p) for n, p in module.named_parameters() if p.dim() > 1)
    with torch.no_grad():
        kernel.clamp_(-1, 1).mul_(value / kernel.abs().max())
    file = write_bundle(tmp_path / "odd", Bundle(replace(network, module=module), half=True))
    _, arrays = read_bundle_file(file)
    assert np.array_equal(arrays[name], kernel.detach().numpy())
    assert arrays[name].dtype == np.float32
    assert read_bundle(file).half


def test_other_kinds_have_none(small_store: Path, store_8x8: Path, tmp_path: Path) -> None:
    predictors: dict[str, Predictor] = small_predictors(small_store, store_8x8)
    for kind, predictor in predictors.items():
        if kind in ("superblock", "adapted"):
            continue
        file = tmp_path / kind
        with pytest.raises(BundleError, match=f"a {kind} has no weights .* leave out half=true"):
            write_bundle(file, Bundle(predictor, half=True))
        assert not file.exists()
        facts, arrays = read_bundle_file(write_bundle(file, Bundle(predictor)))
        del facts["tensors"]
        narrow = {
            name: array.astype(np.float16) if array.dtype.kind == "f" else array
            for name, array in arrays.items()
        }
        file.write_bytes(to_bytes(facts, narrow))
        with pytest.raises(BundleError, match="an array is of float16"):
            read_bundle(file)
