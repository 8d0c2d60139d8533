"""What `make corpus` runs."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from av1part.data.store.store import Store
from av1part.system.errors import SourceError

from ...encoding import corner

TOOL = Path(__file__).parents[3] / "tools" / "corpus.py"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures for training and one for validation."""
    for split, name in (("train", "coffee"), ("train", "chelsea"), ("val", "brick")):
        folder = tmp_path / "pictures" / split
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(corner(name, 64, 64)).save(folder / f"{name}.png")
    return tmp_path / "pictures"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *words], capture_output=True, text=True)


@pytest.mark.libaom
def test_both_datasets_are_built_in_the_background(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    assert "building study and one_to_four" in run(pictures, out).stdout
    said, end = "", time.monotonic() + 300
    while "done" not in said and time.monotonic() < end:
        time.sleep(1)
        said = run(pictures, out).stdout
        assert "building" in said or "done" in said
    with (out / "split.csv").open() as file:
        split = {row["sequence"]: row["split"] for row in csv.DictReader(file)}
    assert split == {"coffee": "train", "chelsea": "train", "brick": "val"}
    qindexes = {
        name: set(Store.open(out / name).nodes["qindex"]) for name in ("study", "one_to_four")
    }
    assert qindexes["study"] <= {80, 128, 172, 220}
    assert 32 in qindexes["one_to_four"]


def test_folders_that_are_no_corpus(corpus_tool: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not a folder"):
        corpus_tool.parts_of(tmp_path / "none")
    (tmp_path / "train").mkdir()
    with pytest.raises(SourceError, match="needs train and val"):
        corpus_tool.parts_of(tmp_path)
    ended = run(tmp_path, tmp_path / "out")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1


def test_a_name_in_two_splits_is_refused(
    corpus_tool: ModuleType, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "val" / "coffee.png").write_bytes((pictures / "train" / "coffee.png").read_bytes())
    with pytest.raises(SourceError, match="several files are called coffee"):
        corpus_tool.write_split(corpus_tool.parts_of(pictures), tmp_path / "split.csv")


@pytest.mark.libaom
def test_a_build_that_fails_at_once_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = run(tmp_path / "empty", tmp_path / "corpus")
    assert ran.returncode == 2, ran.stdout
    assert len(ran.stderr.splitlines()) == 1
    assert str(tmp_path / "empty") in ran.stderr
