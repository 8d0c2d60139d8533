"""Files of torch.save from strangers: nothing in them runs, and none is larger than it looks."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from av1part.system.safe_load import NotPlainError, load_plain

from ...reliability.fuzz.pickles import touching, zipped

PLAIN: dict[str, Any] = {
    "number": 1,
    "tensors": OrderedDict(a=torch.arange(3), b=torch.ones(2, 2, dtype=torch.bfloat16)),
    "parameter": torch.nn.Parameter(torch.zeros(2)),
    "dtype": torch.float32,
    "size": torch.Size([2, 3]),
}
BYTEARRAY = b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."


def refusal(file: Path, **options: bool) -> str:
    with pytest.raises(NotPlainError) as caught:
        load_plain(file, **options)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_plain_content_comes_back(tmp_path: Path, as_zip: bool, mapped: bool) -> None:
    torch.save(PLAIN, tmp_path / "a.pt", _use_new_zipfile_serialization=as_zip)
    read = load_plain(tmp_path / "a.pt", mapped=mapped)
    assert read.keys() == PLAIN.keys()
    assert all(torch.equal(read["tensors"][k], v) for k, v in PLAIN["tensors"].items())
    assert (read["dtype"], read["size"]) == (PLAIN["dtype"], PLAIN["size"])


def test_the_old_form_is_taken_only_where_it_may_be(tmp_path: Path) -> None:
    torch.save(PLAIN, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert "no file of torch.save" in refusal(tmp_path / "a.pt", legacy=False)


def as_torch_saves(value: Any, as_zip: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=as_zip)
    return file.getvalue()


@pytest.mark.parametrize(
    "write",
    [
        lambda code: as_torch_saves({"a": code}, True),
        lambda code: as_torch_saves({"a": code}, False),
        lambda code: zipped(pickle.dumps(code, 2)),
        lambda code: zipped(pickle.dumps(code, 5)),
        lambda code: zipped(pickle.dumps(code, 0)),
        lambda code: zipped(BYTEARRAY),
        lambda code: zipped(pickle.dumps(torch.load, 2)),
    ],
)
def test_code_is_not_run(tmp_path: Path, write: Callable[[Any], bytes]) -> None:
    """`bytearray`, which torch allows, would take 2 GB for 40 bytes of file."""
    (tmp_path / "a.pt").write_bytes(write(touching(tmp_path / "was-here")))
    assert "holds code or objects" in refusal(tmp_path / "a.pt")
    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/DATA.PKL"])
def test_names_are_looked_up_before_torch_reads_the_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *a, **o: pytest.fail("torch read it"))
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr(name, pickle.dumps(os.system, 2))
    assert "holds code or objects" in refusal(tmp_path / "a.pt")


def test_a_file_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", bytes(50_000_000))
    assert "would unpack to 50000000 bytes" in refusal(tmp_path / "a.pt")


def test_a_damaged_member_with_a_name_of_two_lines(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a\nb/data.pkl", b"x" * 100)
    data = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(data.replace(b"x" * 100, b"y" * 100))
    assert r"is damaged in 'a\nb/data.pkl'" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("data", [b"", b"\x80", b"no pickle", b"\x80\x02X\xff\xff\xff\x7f"])
def test_what_is_no_such_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(data)
    assert "is truncated or no file of torch.save" in refusal(tmp_path / "a.pt")
