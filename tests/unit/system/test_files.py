"""JSON files of others: whatever is in them is a value, None, or an error with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from av1part.system.files import atomic_folder, load_json, read_json, write_json

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


def test_a_folder_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "made"
    with atomic_folder(final) as part:
        (part / "a").write_text("1")
        assert not final.exists()
    assert [path.name for path in final.iterdir()] == ["a"]
    assert [path.name for path in final.parent.iterdir()] == ["made"]
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as part:
        (part / "b").touch()
    assert (tmp_path / "empty" / "b").exists()


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        with atomic_folder(folder) as part:
            (part / "a").write_text("1")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail(tmp_path / "deep" / "made")
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError):  # noqa: PT011
        fail(tmp_path / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
