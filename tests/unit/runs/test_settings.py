"""Which settings of a run folder differ from those of a command."""

from __future__ import annotations

from pathlib import Path

from av1part.runs.settings import changed_settings, write_config


def test_a_key_that_an_older_run_lacks_is_what_it_did_without(tmp_path: Path) -> None:
    write_config(tmp_path, {"seed": 1, "data": {"size": 16, "path": "a"}})
    now = {"size": 16, "path": "b"}
    assert changed_settings(tmp_path, {"seed": 1, "data": {**now, "levels": False}}) == []
    assert changed_settings(tmp_path, {"seed": 2, "data": {**now, "levels": True}}) == [
        "data.levels",
        "seed",
    ]
