"""Opening the test split: what is recorded, and what is refused, before anything is looked at."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from av1part.sweeps import final
from av1part.system.errors import ConfigError, StoreError


def job(variant: str) -> dict[str, str]:
    return {"folder": f"{variant}/seed-0", "variant": variant, "member": "seed-0"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "sweep"
    for variant in ("stage1", "frozen", "v1"):
        (folder / variant / "seed-0").mkdir(parents=True)
        (folder / variant / "seed-0/metrics.json").write_text("{}")
        (folder / variant / "seed-0/config.yaml").write_text("baselines: none\n")
    record = {"format": 1, "jobs": [job("stage1"), job("frozen"), job("v1")]}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


def test_the_opening_is_recorded_before_the_first_look(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def look(run: Path, *_: object) -> dict[str, Any]:
        seen.append(json.loads((sweep / "test.json").read_text()))
        if run.parent.name == "v1":
            raise StoreError("the dataset is gone")
        return {"macro_f1": 0.4}

    monkeypatch.setattr(final, "_scores", look)
    with pytest.raises(StoreError):
        final.open_test(sweep, None)
    assert [len(each["opened"]) for each in seen] == [1, 1]
    told = json.loads((sweep / "test.json").read_text())
    assert told["opened"][0]["variants"] == ["frozen", "v1"]
    assert told["runs"] == {"frozen/seed-0": {"macro_f1": 0.4}}
    with pytest.raises(ConfigError, match="reopen=true"):
        final.open_test(sweep, None)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("baselines: trees\n", "the extra trees"),
        ("- a list\n", "holds no configuration"),
        ("a: [\n", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_nothing_is_opened_where_a_run_cannot_be_scored(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, config: str | None, reason: str
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    file = sweep / "v1/seed-0/config.yaml"
    file.unlink() if config is None else file.write_text(config)
    with pytest.raises(ConfigError, match=reason):
        final.open_test(sweep, None)
    assert not (sweep / "test.json").exists()


def test_two_do_not_open_it_at_once(sweep: Path) -> None:
    with (
        FileLock(sweep / ".lock"),
        pytest.raises(ConfigError, match="another process"),
    ):
        final.open_test(sweep, None)
    assert not (sweep / "test.json").exists()


@pytest.mark.parametrize(
    "record",
    [
        "{}",
        '{"format": 2, "jobs": []}',
        '{"format": 1, "jobs": null}',
        '{"format": 1, "jobs": [{"folder": "frozen/seed-0"}]}',
        "[]",
        "{",
        '{"format": 1, "jobs": [{"folder": "../other/seed-0", "variant": "v1", "member": "m"}]}',
    ],
)
def test_a_damaged_record_is_refused(sweep: Path, record: str) -> None:
    (sweep / "sweep.json").write_text(record)
    with pytest.raises(ConfigError, match=r"sweep\.json"):
        final.open_test(sweep, None)
    assert not (sweep / "test.json").exists()
