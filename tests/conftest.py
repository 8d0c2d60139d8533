"""Rules for all tests."""

from __future__ import annotations

import os

# Before torch is imported: networks this small are fastest, and the same, on one thread, and
# waiting threads must not spin on a machine that does other things.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import importlib.util
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from av1part import embedded
from av1part.data.build.libaom import find_aomenc, find_inspect
from av1part.data.store.costs import write_costs
from av1part.data.store.schema import NODE_KEY
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.encoder.patched import find_patched
from av1part.system.errors import EncoderError

CORNER = 160
"""Luma samples a side of the pictures in `one_to_four_store`."""

ONE_TO_FOUR = Path(__file__).parent / "data" / "one_to_four.parquet"
"""Nodes of an encode with 1:4 partitions, see tests/data/README.md."""


@cache
def _missing_tool() -> str:
    """Why libaom cannot be used here, or nothing."""
    try:
        find_aomenc()
        find_inspect()
    except EncoderError as error:
        return str(error)
    return ""


@cache
def _missing_patched() -> str:
    """Why the patched encoder cannot be used here, or nothing."""
    try:
        find_patched()
    except EncoderError as error:
        return str(error)
    return _missing_tool()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `libaom` or `patched` where their programs are missing, with the reason."""
    if item.get_closest_marker("libaom") and _missing_tool():
        pytest.skip(_missing_tool())
    if item.get_closest_marker("patched") and _missing_patched():
        pytest.skip(_missing_patched())


def load_file(file: Path) -> ModuleType:
    """Import a file that is in no package: tests are imported by file, so their helpers are too."""
    spec = importlib.util.spec_from_file_location(f"by_file_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def examples() -> ModuleType:
    """What writes run folders by hand."""
    return load_file(Path(__file__).parent / "unit" / "report" / "example_runs.py")


@pytest.fixture(scope="session")
def encodes_examples() -> ModuleType:
    """What writes folders of `av1part encode` by hand."""
    return load_file(Path(__file__).parent / "unit" / "report" / "example_encodes.py")


@pytest.fixture(scope="session")
def compared_examples() -> ModuleType:
    """What writes folders of `av1part compare` by hand."""
    return load_file(Path(__file__).parent / "unit" / "report" / "example_compared.py")


@pytest.fixture(scope="session")
def corpus_tool() -> ModuleType:
    """What `make corpus` runs."""
    return load_file(Path(__file__).parents[1] / "tools" / "corpus.py")


@pytest.fixture(scope="session")
def pretrained_tool() -> ModuleType:
    """What `make pretrained` runs."""
    return load_file(Path(__file__).parents[1] / "tools" / "pretrained.py")


@pytest.fixture(scope="session")
def experiments_tool() -> ModuleType:
    """What `make experiments-report` runs."""
    return load_file(Path(__file__).parents[1] / "tools" / "experiments_report.py")


def corners(out: Path, side: int, sizes: Collection[int]) -> Path:
    """Write a dataset of real decisions: a corner of each embedded picture."""
    whole, writer = Store.open(embedded.STORE), StoreWriter(out, {"made": "by the tests"})
    for sequence in whole.sequences:
        writer.add_plane(sequence, whole.plane(sequence)[:, :side, :side], 8)
    inside = (pl.col("row") + pl.col("size") <= side) & (pl.col("col") + pl.col("size") <= side)
    nodes = whole.nodes.filter(inside & pl.col("size").is_in(list(sizes)))
    return writer.finish(nodes, {s: {"bit_depth": 8} for s in whole.sequences}, {}).path


def centre(sequence: str, side: int = CORNER) -> NDArray[np.uint8]:
    """Return the middle of an embedded picture, uint8 `[side, side]`, from even row and column."""
    plane = Store.open(embedded.STORE).plane(sequence)[0]
    row, col = ((length - side) // 4 * 2 for length in plane.shape)
    return np.ascontiguousarray(plane[row : row + side, col : col + side])


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real decisions in nodes of 16x16."""
    return corners(tmp_path_factory.mktemp("data") / "small", 128, [16])


@pytest.fixture(scope="session")
def store_8x8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real decisions in nodes of 8x8."""
    return corners(tmp_path_factory.mktemp("data") / "8x8", 64, [8])


@pytest.fixture(scope="session")
def one_to_four_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real decisions with 1:4 partitions among them, on the middles of six pictures."""
    nodes = pl.read_parquet(ONE_TO_FOUR)
    names = sorted(nodes["sequence"].unique())
    writer = StoreWriter(tmp_path_factory.mktemp("data") / "one_to_four", {"made": "by the tests"})
    for name in names:
        writer.add_plane(name, centre(name)[None], 8)
    return writer.finish(nodes, {s: {"bit_depth": 8} for s in names}, {}).path


@pytest.fixture(scope="session")
def some_costs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """A function that writes a file of costs of a dataset: random regrets, some of them unknown."""

    def write(dataset: Path) -> Path:
        store, rng = Store.open(dataset), np.random.default_rng(0)
        regret = rng.lognormal(-7, 2, store.nodes.height)
        known = pl.when(pl.Series(rng.random(len(regret)) < 0.9)).then(pl.Series(regret))
        file = tmp_path_factory.mktemp("costs") / "costs.parquet"
        write_costs(
            file, store.nodes.select(*NODE_KEY, known.alias("regret")), store.manifest_sha256
        )
        return file

    return write


@pytest.fixture(scope="session")
def one_node() -> ModuleType:
    """What starts a SLURM."""
    return load_file(Path(__file__).parent / "cluster" / "one_node.py")


@pytest.fixture(scope="session")
def slurm_cluster(one_node: ModuleType) -> Iterator[Any]:
    """A SLURM of one node, a `Cluster` of tests/cluster/one_node.py; skips where none can start."""
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(one_node.one_node(gpus=4))
        except one_node.UnavailableError as error:
            pytest.skip(str(error))
        yield cluster


@pytest.fixture
def slurm(slurm_cluster: Any) -> Iterator[Any]:
    """The same without a job on it, and none left after."""
    slurm_cluster.clear()
    yield slurm_cluster
    slurm_cluster.clear()
