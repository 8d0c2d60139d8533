"""Pickles that no honest program writes, and the zip files that torch expects around them."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from .case import MARK

GLOBALS = (
    *("os system", "posix system", "builtins eval", "builtins exec", "builtins bytearray"),
    *("subprocess Popen", "torch load", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"),
    *("torch._utils _rebuild_parameter", "torch._utils _rebuild_sparse_tensor", "torch Size"),
    *("torch._utils _rebuild_qtensor", "torch._utils _rebuild_meta_tensor_no_storage"),
    *("torch._tensor _rebuild_from_type_v2", "collections OrderedDict", "collections Counter"),
    *("torch._utils _rebuild_nested_tensor", "torch device", "torch.serialization _get_layout"),
    *("torch.nn.parameter Parameter", "torch Tensor", "_codecs encode", "builtins complex"),
    *("torch.storage _load_from_bytes", "torch._utils _rebuild_device_tensor_from_numpy"),
)


class Code:
    """Runs a command when it is unpickled by a reader that runs things."""

    def __init__(self, function: Any, *words: Any) -> None:
        self.call = function, words

    def __reduce__(self) -> Any:
        return self.call


def touching(mark: Path) -> Code:
    """Return what leaves a file behind if it is run."""
    return Code(os.system, f"touch '{mark}'")


def _number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


_STORAGE = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu")


@st.composite
def _pieces(draw: st.DrawFn) -> bytes:
    """A part of a pickle that leaves a value on the stack, or tries to."""
    numbers = st.sampled_from([0, 1, -1, 4, 2**31, 2**62, 10**9, 10**12, 10**400])
    kind = draw(st.sampled_from(["call", "storage", "deep", "laughs", "length", "plain", "bytes"]))
    if kind == "call":
        count = draw(st.integers(0, 4))
        args = b"".join(
            draw(st.one_of(numbers.map(_number), st.just(_text(f"touch {MARK}")), st.just(b"]")))
            for _ in range(count)
        )
        name = draw(st.sampled_from(GLOBALS)).replace(" ", "\n").encode()
        return b"c" + name + b"\n(" + args + b"tR"
    if kind == "storage":
        size, stride = (b"(" + _number(draw(numbers)) + b"t" for _ in range(2))
        head = b"ctorch._utils\n_rebuild_tensor_v2\n(" + _STORAGE + _number(draw(numbers)) + b"tQ"
        tail = _number(draw(numbers)) + size + stride
        return head + tail + b"\x89ccollections\nOrderedDict\n)RtR"
    if kind == "deep":
        return draw(st.sampled_from([b"]" * 5000 + b"a" * 4999, b"(" * 5000 + b"t" * 5000]))
    if kind == "laughs":
        return b"]q\x00" + b"".join(
            b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1])
            for i in range(30)
        )
    if kind == "length":
        return draw(st.sampled_from([b"X", b"T", b"\x8b", b"B"])) + struct.pack("<I", 2**31 - 1)
    if kind == "plain":
        return draw(st.one_of(numbers.map(_number), st.just(b"N"), st.just(_text("a"))))
    return draw(st.binary(max_size=30))


@st.composite
def pickles(draw: st.DrawFn) -> bytes:
    """A pickle of a dict with the keys of a checkpoint or of v6-pt, or of a bare value."""
    start = draw(st.sampled_from([b"\x80\x02", b"\x80\x02", b"\x80\x05", b""]))
    if draw(st.booleans()):
        return start + draw(_pieces()) + b"."
    keys = ["state_dict", "hyper_parameters", "av1part", "samples", "labels_stage0", "qps"]
    body = b"".join(_text(key) + draw(_pieces()) for key in draw(st.permutations(keys))[:4])
    return start + b"}(" + body + b"u."


def zipped(data: bytes) -> bytes:
    """Return a file of torch.save's form around a pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", bytes(16))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return out.getvalue()
