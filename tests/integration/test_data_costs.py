"""`av1part data costs` with the real encoder: of the dataset's own nodes, or one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from av1part.data.store.costs import read_regrets
from av1part.data.store.store import Store
from av1part.encoder.patched import PATCH, find_patched
from av1part.system.files import sha256_file

from ..encoding import corner, write_clip
from .conftest import Command

pytestmark = pytest.mark.patched

SETTINGS = ("cq_levels=[32,55]", "cpu_used=2", "one_to_four=true")


@pytest.fixture
def pictures(av1part: Command) -> list[Path]:
    """Two pictures, and the dataset `built` of them."""
    for name in ("coffee", "chelsea"):
        Image.fromarray(corner(name, 96, 140)).save(f"{name}.png")
    found = [Path("coffee.png"), Path("chelsea.png")]
    assert av1part("data", "build", *found, "out=built", *SETTINGS).code == 0
    return found


def test_a_row_a_node_and_again_where_it_stopped(av1part: Command, pictures: list[Path]) -> None:
    ran = av1part("data", "costs", "built", *pictures, "out=costs.parquet", "jobs=1")
    assert ran.code == 0, ran.err
    assert not Path("costs.parquet.partial").exists()
    store = Store.open("built")
    regret = read_regrets(Path("costs.parquet"), store, np.arange(store.nodes.height))
    known = ~np.isnan(regret)
    assert 0.5 < known.mean() < 1
    sizes = store.nodes["size"].to_numpy()
    # What a frame costs is shared by its nodes: no regret is of its order, larger ones are larger.
    assert np.nanmax(regret) < 1
    means = [regret[known & (sizes == size)].mean() for size in (64, 32, 16, 8)]
    assert means == sorted(means, reverse=True)
    again = av1part("data", "costs", "built", *pictures, "out=costs.parquet")
    assert again.code == 2
    assert "costs.parquet exists" in again.error_lines[0]

    # Half of it alone; and one that was stopped goes on with what it has, to the same file.
    assert av1part("data", "costs", "built", pictures[0], "out=half[1].parquet").code == 0
    half = pl.read_parquet("half[1].parquet", glob=False)
    assert half["sequence"].unique().to_list() == ["coffee"]
    work = Path("rest.parquet.partial")
    work.mkdir()
    recipe = {"dataset": store.manifest_sha256, "aomenc": "v0", "patch": "another"}
    (work / "recipe.json").write_text(json.dumps(recipe))
    ran = av1part("data", "costs", "built", *pictures, "out=rest.parquet")
    assert ran.code == 2
    assert "is not left from a call with this dataset and encoder" in ran.error_lines[0]
    # A folder of the user's own that is called so, without any recipe.
    (work / "recipe.json").unlink()
    (work / "mine.txt").write_text("kept")
    ran = av1part("data", "costs", "built", *pictures, "out=rest.parquet")
    assert ran.code == 2
    assert "remove the folder" in ran.error_lines[0]
    assert (work / "mine.txt").read_text() == "kept"
    (work / "mine.txt").unlink()
    recipe = {
        "dataset": store.manifest_sha256,
        "aomenc": find_patched().version,
        "patch": PATCH,
    }
    (work / "recipe.json").write_text(json.dumps(recipe))
    own = half.drop("dataset").filter(qindex=128).with_columns(regret=pl.lit(0.5, pl.Float32))
    own.write_parquet(work / "coffee.32.parquet")
    assert av1part("data", "costs", "built", *pictures, "out=rest.parquet").code == 0
    kept = pl.read_parquet("rest.parquet").filter(sequence="coffee", qindex=128)
    assert (kept["regret"] == 0.5).all()
    others = ~((pl.col("sequence") == "coffee") & (pl.col("qindex") == 128))
    whole = (pl.read_parquet(f"{name}.parquet").filter(others) for name in ("rest", "costs"))
    assert next(whole).equals(next(whole))


def test_another_source_or_tree_is_refused(av1part: Command, pictures: list[Path]) -> None:
    Path("other").mkdir()
    Image.fromarray(corner("coffee", 96, 140, (0, 0))).save("other/coffee.png")
    ran = av1part("data", "costs", "built", "other", "out=c.parquet")
    assert ran.code == 2
    assert "other/coffee.png is not a file that built was made from" in ran.error_lines[0]
    ran = av1part("data", "costs", "built", pictures[0], "out=c.parquet", "jobs=0")
    assert ran.code == 2
    assert "jobs=0" in ran.error_lines[0]

    # As if it had been built by another encoder: one node is of another type.
    shutil.copytree("built", "odd")
    nodes = pl.read_parquet("odd/nodes.parquet")
    row = nodes.with_row_index().filter(sequence="coffee", size=8, qindex=128)["index"][0]
    types = nodes["partition"].to_list()
    types[row] = (types[row] + 1) % 4
    nodes.with_columns(partition=pl.Series(types, dtype=pl.Int8)).write_parquet("odd/nodes.parquet")
    manifest = json.loads(Path("odd/manifest.json").read_text())
    counts = pl.read_parquet("odd/nodes.parquet").group_by("size", "partition").len()
    names = ("NONE", "HORZ", "VERT", "SPLIT")
    manifest["nodes"]["8"] = {
        names[p]: n for p, n in sorted(counts.filter(size=8).select("partition", "len").iter_rows())
    }
    manifest["files"]["nodes.parquet"] = sha256_file(Path("odd/nodes.parquet"))
    manifest["settings"]["cq_levels"] = [32]  # not the other encode, whose nodes may agree
    Path("odd/manifest.json").write_text(json.dumps(manifest))
    ran = av1part("data", "costs", "odd", pictures[0], "out=new/c.parquet")
    assert ran.code == 2
    assert "chose other types for coffee at cq level 32" in ran.error_lines[-1]
    assert not Path("new").exists()


def test_a_raw_file_is_read_as_it_was_built(av1part: Command, tmp_path: Path) -> None:
    (tmp_path / "raw.yuv").write_bytes(corner("coffee", 64, 96).tobytes())
    words = ("layout=gray", "bit_depth=8")
    ran = av1part(
        "data", "build", "raw.yuv", "out=built", "width=96", "height=64", *words, *SETTINGS
    )
    assert ran.code == 0, ran.err
    ran = av1part(
        *("data", "costs", "built", "raw.yuv", "out=c.parquet", "width=64", "height=96", *words)
    )
    assert ran.code == 2
    assert "raw.yuv is read with width=64, and built was made with width=96" in ran.error_lines[0]
    assert not list(Path().glob("c.parquet*"))


def test_frames_of_a_clip_are_those_of_the_dataset(av1part: Command, tmp_path: Path) -> None:
    frames = [corner("coffee", 64, 96, (100 + 40 * i, 100)) for i in range(3)]
    clip = write_clip(tmp_path / "clip.y4m", frames, bit_depth=10)
    words = ("out=built", "every=2", *SETTINGS)
    assert av1part("data", "build", clip, *words).code == 0
    ran = av1part("data", "costs", "built", clip, "out=costs.parquet")
    assert ran.code == 0, ran.err
    table = pl.read_parquet("costs.parquet")
    assert (
        table["frame"].unique().sort().to_list()
        == Store.open("built").nodes["frame"].unique().sort().to_list()
    )
    assert len(table["frame"].unique()) == 2


def test_a_dataset_of_no_encoder_is_refused(av1part: Command, one_to_four_store: Path) -> None:
    Image.fromarray(corner("coffee", 96, 96)).save("coffee.png")
    ran = av1part("data", "costs", one_to_four_store, "coffee.png", "out=c.parquet")
    assert ran.code == 2
    assert "does not say how it was encoded" in ran.error_lines[0]
    assert not list(Path().glob("c.parquet*"))
