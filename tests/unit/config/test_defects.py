"""Which of the study's defects a run may have on purpose, and with what; a normal run has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from av1part.cli.main import config_folder
from av1part.config.check import check_values, plain
from av1part.config.defects import check_cascade, check_defects, check_members, refuse_defective
from av1part.config.store import register
from av1part.defects import CASCADE_ONLY, DEFECTS, RELOADED, WITHOUT_TRAINING, banner
from av1part.runs.settings import changed_settings, relevant_settings, write_config
from av1part.system.errors import CheckpointError, ConfigError

AB = ("stage=stage3_ab", "data.augment=symmetries")
STAGE2 = ("stage=stage2", "method=adapter")
NEEDS = {
    "scaled_once_eval": ("scaled_twice",),
    "tiny_noise": ("scaled_twice",),
}
"""Defects that go with another alone."""


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


def settings(*overrides: str) -> dict[str, Any]:
    cfg = compose("train", list(overrides))
    check_values(cfg, "train")
    return plain(cfg)


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(*overrides)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_normal_run_has_none() -> None:
    assert settings()["defects"] == []
    assert plain(compose("pipeline", ["stage1=a"]))["defects"] == []


def test_the_key_changes_nothing_of_a_normal_run(tmp_path: Path) -> None:
    """What was written before there was the key has the same settings."""
    now = settings("stage=stage2")
    before = {key: value for key, value in now.items() if key != "defects"}
    assert relevant_settings(now) == relevant_settings(before)
    write_config(tmp_path, before)
    old = (tmp_path / "config.yaml").read_bytes()
    assert changed_settings(tmp_path, now) == []
    write_config(tmp_path, now)
    assert (tmp_path / "config.yaml").read_bytes() == old


def test_the_key_is_a_setting_of_a_defective_run(tmp_path: Path) -> None:
    healthy, own = settings(*STAGE2), settings(*STAGE2, "defects=[late_thaw]")
    write_config(tmp_path, healthy)
    assert changed_settings(tmp_path, own) == ["defects"]
    write_config(tmp_path, own)
    assert changed_settings(tmp_path, own) == []
    assert changed_settings(tmp_path, healthy) == ["defects"]
    assert relevant_settings(own)["defects"] == ["late_thaw"]


@pytest.mark.parametrize("name", [n for n in DEFECTS if n not in CASCADE_ONLY])
def test_each_is_taken_where_it_does_something(name: str) -> None:
    words = AB if "labels" in name else STAGE2
    own = ",".join((*NEEDS.get(name, ()), name))
    assert name in settings(*words, f"defects=[{own}]")["defects"]


def test_all_that_go_together_go_together() -> None:
    own = [n for n in DEFECTS if n not in (*CASCADE_ONLY, "scaled_twice_eval")]
    settings(*AB, "method=adapter", f"defects=[{','.join(own)}]")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("defects=[none]", "'none' is none of scaled_twice_eval"),
        ("defects=[1]", "1 is none of"),
        ("defects=late_thaw", "defects must be a list"),
        ("defects=[late_thaw,late_thaw]", "twice"),
        ("defects=[two_orders]", "give it to pipeline alone"),
        ("defects=[chosen_on_scored]", "give it to pipeline alone"),
        ("defects=[scaled_twice,scaled_twice_eval]", "leave one of them out"),
        ("defects=[scaled_once_eval]", "needs scaled_twice too"),
        ("defects=[tiny_noise]", "give scaled_twice too"),
        ("defects=[late_thaw] method=finetune", "use method=adapter"),
        ("defects=[late_thaw] trainer.max_epochs=8", "at least 9"),
        ("defects=[late_thaw] scheduler=onecycle", "another scheduler than onecycle"),
        ("defects=[late_thaw] optimizer=muon", "optimizer=adamw"),
        ("defects=[mirror_labels] data.augment=symmetries", "stage=stage3_ab alone"),
        ("defects=[mirror_labels] stage=stage3_ab", "data.augment=symmetries"),
        ("defects=[turn_labels] data.augment=symmetries", "stage 3 alone"),
        ("defects=[turn_labels] stage=stage3_rect", "data.augment=symmetries"),
        ("defects=[random_blocks] data.protocol=by_segment", "leave out data.protocol=by_segment"),
        ("defects=[not_strict] stage=superblock", "use backbone=resnet18"),
        ("defects=[not_strict] backbone.planes=[level]", "backbone.planes=null"),
    ],
)
def test_what_makes_no_sense_is_one_line(words: str, why: str) -> None:
    own = words.split()
    base = [word for word in STAGE2 if word.split("=")[0] not in {w.split("=")[0] for w in own}]
    assert why in refused(*base, *own)


@pytest.mark.parametrize(
    ("defects", "options", "why"),
    [
        (["nothing"], {}, "is none of"),
        (["two_orders", "two_orders"], {}, "twice"),
        (["chosen_on_scored"], {"split": "test"}, "use split=val and calibration=fit"),
        (["chosen_on_scored"], {"calibration": "stored"}, "calibration=fit"),
        (["chosen_on_scored"], {"calibration": "none"}, "calibration=fit"),
        (["scaled_twice_eval", "scaled_twice"], {}, "leave one of them out"),
    ],
)
def test_a_cascade_s_are_checked(defects: list[str], options: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check_cascade(defects, **{"split": "val", "calibration": "auto"} | options)


def test_a_cascade_may_have_what_none_was_trained_with() -> None:
    check_cascade(WITHOUT_TRAINING, split="val", calibration="fit")
    check_members(WITHOUT_TRAINING, [(), ()])
    check_members(["late_thaw"], [(), ("late_thaw",)])
    with pytest.raises(CheckpointError, match="trained with late_thaw"):
        check_members(["late_thaw"], [(), ()])


def test_a_defective_checkpoint_is_refused_by_name() -> None:
    refuse_defective("a.ckpt", (), ())
    refuse_defective("a.ckpt", ("late_thaw",), ("late_thaw", "not_strict"))
    with pytest.raises(CheckpointError, match=r"a.ckpt is defective.*defects=\[late_thaw\]"):
        refuse_defective("a.ckpt", ("late_thaw",), ("not_strict",))


def test_settings_without_defects_are_not_looked_at() -> None:
    check_defects({"defects": []})


def test_a_banner_names_each_and_what_it_does() -> None:
    said = banner(["late_thaw", "not_strict", "of_later"])
    assert said.startswith("DEFECTIVE ON PURPOSE, defects=[late_thaw,not_strict,of_later]")
    assert all(DEFECTS[name] in said for name in ("late_thaw", "not_strict"))
    assert "of_later: unknown" in said
    assert set(RELOADED) < set(DEFECTS)


def test_meta_learning_takes_none() -> None:
    assert "use another than method=meta" in refused(
        "stage=stage2", "method=meta", "defects=[scaled_twice]"
    )
