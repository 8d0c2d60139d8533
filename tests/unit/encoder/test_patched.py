"""The patched encoder is proven before it is believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from av1part.data.build.libaom import Children, encoder_arguments, find_aomenc
from av1part.encoder import patched
from av1part.encoder.patched import NAME, PATCH, find_patched, run_encode
from av1part.system.errors import EncoderError

CLIP = Path(__file__).parents[2] / "data" / "crops_72x56.y4m"


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of `make libaom`'s programs."""
    monkeypatch.setenv("AV1PART_CACHE", str(tmp_path))
    folder = tmp_path / "libaom" / "bin"
    folder.mkdir(parents=True)
    return folder


def install(folder: Path, program: Path, patch: str = PATCH) -> None:
    shutil.copy(program, folder / NAME)
    (folder / NAME).with_suffix(".json").write_text(json.dumps({"patch": patch}))


def test_none_is_named_with_the_remedy(bin_folder: Path) -> None:
    with pytest.raises(EncoderError, match="no aomenc-av1part found: run `make libaom`"):
        find_patched()


@pytest.mark.libaom
def test_a_stock_encoder_of_its_name_is_refused(bin_folder: Path) -> None:
    install(bin_folder, find_aomenc().path)
    with pytest.raises(EncoderError, match=r"is not the patched aomenc .*run `make libaom`"):
        find_patched()


@pytest.mark.libaom
def test_one_of_another_patch_is_refused(bin_folder: Path) -> None:
    install(bin_folder, find_aomenc().path, "1 2")
    with pytest.raises(EncoderError, match="another patch than this av1part: run `make libaom`"):
        find_patched()


@pytest.mark.patched
def test_one_that_counts_and_takes_no_hints_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "deaf"
    script.write_text(f'#!/bin/sh\nunset AV1PART_HINTS\nexec "{find_patched().path}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("AV1PART_CACHE", str(tmp_path))
    (tmp_path / "libaom" / "bin").mkdir(parents=True)
    install(tmp_path / "libaom" / "bin", script)
    with pytest.raises(EncoderError, match="takes no hints: run `make libaom`"):
        find_patched()


@pytest.mark.patched
def test_an_encode_without_a_search_is_refused() -> None:
    arguments = [*encoder_arguments(32, bit_depth=8, cpu_used=8), "--allintra"]
    with pytest.raises(EncoderError, match="a speed that searches partitions"):
        run_encode(find_patched().path, CLIP, arguments, Children())


@pytest.mark.patched
def test_an_encode_has_its_figures() -> None:
    program = patched.find_patched().path
    done = run_encode(program, CLIP, encoder_arguments(43, bit_depth=8, cpu_used=4), Children())
    assert done.stream.startswith(b"DKIF")
    assert 0 < done.seconds < 60
    assert done.counts.work > 72 * 56 * 2
    assert done.costs is None
