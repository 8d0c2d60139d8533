"""A checkpoint that holds code, given to every command that reads one: nothing of it is run."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ..reliability.fuzz.pickles import Code, zipped
from .conftest import Command

MARK = "was-here"


def appended(stage1: Path, out: Path) -> None:
    """A whole checkpoint, with one entry more."""
    code = Code(os.system, f"touch {MARK}")
    torch.save({**torch.load(stage1, weights_only=True), "more": code}, out)


def in_place_of_all(_: Path, out: Path) -> None:
    out.write_bytes(zipped(pickle.dumps(Code(os.mkdir, MARK), 2)))


def in_the_pickle(stage1: Path, out: Path) -> None:
    """The payload runs before the first tensor is read, and leaves the rest as it was."""
    run = b"cos\nsystem\n(X" + len(f"touch {MARK}").to_bytes(4, "little")
    run += f"touch {MARK}".encode() + b"tR0"
    with zipfile.ZipFile(stage1) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            if member.endswith("data.pkl"):
                data = data[:2] + run + data[2:]
            new.writestr(member, data)


@pytest.mark.parametrize("write", [appended, in_place_of_all, in_the_pickle])
def test_code_in_a_checkpoint_is_not_run(
    write: Callable[[Path, Path], None],
    av1part: Command,
    on_small: tuple[str, ...],
    stage1: Path,
) -> None:
    evil = Path("evil.ckpt").resolve()
    write(stage1, evil)
    for words in (
        ("validate", evil),
        ("validate", evil, "--show"),
        ("train", "stage=stage2", "name=s2", f"stage1={evil}", *on_small),
        ("train", "stage=stage1", "name=s1", "method=finetune", f"backbone.weights={evil}"),
        ("calibrate", evil),
        ("pipeline", f"stage1={evil}", f"stage2={evil}"),
    ):
        ran = av1part(*words)
        assert ran.code == 2, (words, ran.err)
        assert len(ran.error_lines) == 1
        if words[0] != "pipeline":  # which asks for all its stages first
            assert "holds code or objects" in ran.error_lines[0], words
        assert not Path(MARK).exists(), words
    # The payload is no dud: the plain reader would have run it.
    torch.load(evil, weights_only=False)
    assert Path(MARK).exists()
