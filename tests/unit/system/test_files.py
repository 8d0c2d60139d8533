"""JSON files of others: whatever is in them is a value, None, or an error with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from av1part.system.files import load_json, read_json, write_json

BROKEN = {
    "nested": b"[" * 200_000,
    "half": b'{"a": ',
    "no UTF-8": b'{"a": "\xff"}',
    "empty": b"",
    "long number": b"9" * 5000,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_has_a_reason_or_is_none(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (each kind has another text)
        load_json(file)
    assert str(caught.value)
    assert read_json(file) is None


def test_a_missing_file_and_a_folder_are_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "a.json") is None
    assert read_json(tmp_path) is None
    with pytest.raises(FileNotFoundError):
        load_json(tmp_path / "a.json")


def test_only_an_object_is_a_record(tmp_path: Path) -> None:
    for number, value in enumerate([{"a": [1, "ä"]}, [1], 1, None]):
        file = tmp_path / f"{number}.json"
        write_json(file, value)
        assert load_json(file) == value
        assert read_json(file) == (value if isinstance(value, dict) else None)
