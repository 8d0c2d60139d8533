"""Checkpoints that describe something else than they hold: refused before anything is built."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch

from av1part.checkpoints.load import load_stage
from av1part.data.store.store import Store
from av1part.system.errors import Av1partError, CheckpointError

from ...reliability.fuzz.checkpoints import saved, small_checkpoint

Checkpoint = dict[str, Any]


@pytest.fixture(scope="module")
def whole(small_store: Path) -> Checkpoint:
    return small_checkpoint(small_store)


def refusal(checkpoint: Checkpoint, file: Path) -> str:
    file.write_bytes(saved(checkpoint))
    with pytest.raises(CheckpointError) as caught:
        load_stage(file)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert str(file) in said
    return said


def with_option(whole: Checkpoint, key: str, value: Any) -> Checkpoint:
    return {**whole, "hyper_parameters": {**whole["hyper_parameters"], key: value}}


def test_a_whole_one_loads_with_its_own_tensors(whole: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(saved(whole))
    module = load_stage(tmp_path / "a.ckpt")
    assert all(torch.equal(v, whole["state_dict"][k]) for k, v in module.state_dict().items())
    assert {t.device.type for t in (*module.parameters(), *module.buffers())} == {"cpu"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backbone", {"width": 4096}),
        ("backbone", {"width": 10**9}),
        ("backbone", {"width": 10**400}),
        ("head", {"kind": "mlp", "hidden": [10**6, 10**6]}),
    ],
)
def test_a_network_of_any_size_takes_no_memory(
    whole: Checkpoint, tmp_path: Path, key: str, value: Any
) -> None:
    """A width of 4096 would be 180 GB, described by a file of 300 KB."""
    bound = 1 << 30
    size = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (size + bound, before[1]))
    try:
        said = refusal(with_option(whole, key, value), tmp_path / "a.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    assert "of another architecture" in said or "does not describe a stage" in said
    assert "allocate" not in said


@pytest.mark.parametrize("key", ["backbone", "head", "loss", "optimizer", "data", "start"])
def test_no_configuration_from_a_checkpoint_is_instantiated(
    whole: Checkpoint, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("instantiate", "call", "get_method", "get_class"):
        monkeypatch.setattr(hydra.utils, name, lambda *a, **o: pytest.fail("instantiated"))
    target = {"_target_": "os.system", "command": "touch was-here"}
    own = whole["hyper_parameters"].get(key)
    options = with_option(whole, key, {**(own or {}), **target})
    (tmp_path / "a.ckpt").write_bytes(saved(options))
    if key in ("backbone", "head", "loss"):
        assert "does not describe a stage" in refusal(options, tmp_path / "a.ckpt")
    else:  # what building takes nothing from is kept as it is
        assert load_stage(tmp_path / "a.ckpt").hparams[key]["_target_"] == "os.system"
    assert not Path("was-here").exists()


def test_a_message_is_one_line_whatever_it_quotes(tmp_path: Path) -> None:
    assert str(Av1partError("a\nb \u2028c")) == "a b c"
    with pytest.raises(Av1partError) as caught:
        Store.open(tmp_path / "two\nlines")
    assert len(str(caught.value).splitlines()) == 1


def test_two_lists_of_defects_are_refused(whole: Checkpoint, tmp_path: Path) -> None:
    """Neither hides a defect of the other."""
    file = tmp_path / "a.ckpt"
    assert "two different lists" in refusal(with_option(whole, "defects", ["late_thaw"]), file)
    named = {**whole, "av1part": {**whole["av1part"], "defects": ["late_thaw"]}}
    assert "two different lists" in refusal(named, file)
    both = {**with_option(whole, "defects", ["not_strict"]), "av1part": {**named["av1part"]}}
    assert "two different lists" in refusal(both, file)


@pytest.mark.parametrize("value", [["late_thaw"], ["of_later"], "late_thaw", {"a": 1}, 5, [[]]])
def test_a_defective_checkpoint_is_refused_by_default(
    whole: Checkpoint, tmp_path: Path, value: Any
) -> None:
    own = with_option(whole, "defects", value)
    own["av1part"] = {**whole["av1part"], "defects": value}
    said = refusal(own, tmp_path / "a.ckpt")
    assert "is defective on purpose" in said


def test_a_checkpoint_with_an_unknown_defect_is_no_stage(whole: Checkpoint, tmp_path: Path) -> None:
    own = with_option(whole, "defects", ["of_later"])
    own["av1part"] = {**whole["av1part"], "defects": ["of_later"]}
    (tmp_path / "a.ckpt").write_bytes(saved(own))
    with pytest.raises(CheckpointError, match="'of_later' is none of"):
        load_stage(tmp_path / "a.ckpt", defects=["of_later"])
