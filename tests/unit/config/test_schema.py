"""Every file under conf/ composes, and every option of it fits what it configures."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from av1part.cli.main import VERBS, config_folder
from av1part.config.schema import check_values, plain, register_resolvers
from av1part.data.serve.augment import Augmentation
from av1part.data.serve.datamodule import BlockDataModule
from av1part.models.losses import LOSSES, build_loss
from av1part.stages.base import StageModule, stage_class
from av1part.system.errors import ConfigError
from av1part.training.run import build_datamodule

CONF = config_folder()
PRIMARY = sorted(p.stem for p in CONF.glob("*.yaml") if p.stem != "base")
GROUP_FILES = sorted(
    p.relative_to(CONF).with_suffix("").as_posix()
    for p in CONF.rglob("*.yaml")
    if p.parent != CONF and p.relative_to(CONF).parts[0] != "hydra"
)


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def settings(*overrides: str) -> dict[str, Any]:
    return plain(compose("train", list(overrides)))


def module(values: dict[str, Any]) -> StageModule:
    """Build the module that a configuration describes, for made-up data."""
    classes = {"stage1": 2, "stage2": 3, "stage3_rect": 2, "stage3_ab": 4, "stage3_1to4": 2}
    stage = values["stage"]["name"]
    backbone = {k: v for k, v in values["backbone"].items() if k != "weights"}
    method = dict(values["method"])
    name = method.pop("name")
    del method["lr_backbone"]
    return stage_class(stage)(
        taxonomy="v6_1to4" if stage == "stage3_1to4" else values["taxonomy"],
        method=name,
        method_options=method,
        backbone={**backbone, "width": 8},
        head=values["head"],
        loss=values["loss"],
        optimizer=values["optimizer"],
        scheduler=values["scheduler"],
        data={"bit_depth": 8, "size": 16, "context": 0, "class_counts": [5] * classes[stage]},
        adapter=values["adapter"] if name == "adapter" else None,
        conditioning=values["conditioning"],
    )


def test_there_is_a_configuration_a_verb() -> None:
    assert set(PRIMARY) == {verb.config for verb in VERBS.values()}


@pytest.mark.parametrize("name", PRIMARY)
def test_the_defaults_of_a_verb_pass_their_own_checks(name: str) -> None:
    check_values(compose(name), name)


def test_the_plan_of_the_demo_passes_the_checks() -> None:
    for overrides in plain(compose("demo"))["plan"].values():
        check_values(compose("train", overrides), "train")


@pytest.mark.parametrize("name", GROUP_FILES)
def test_every_option_composes_and_builds(name: str) -> None:
    group, _, option = name.partition("/")
    check_values(compose("train", [f"{group}={option}"]), "train")
    values = settings(f"{group}={option}")
    assert module(values).stage_name == values["stage"]["name"]
    BlockDataModule(**values["data"])


def test_the_study_s_training_defaults() -> None:
    """DESIGN section 4, the contract for exp11a."""
    v1 = settings("experiment=exp11a/v1")
    assert v1["stage"]["name"] == "stage2"
    assert v1["method"]["name"] == "adapter"
    assert v1["adapter"] == {
        "kind": "bottleneck",
        "layers": [1, 2, 3, 4],
        "placement": "layer",
        "bottleneck": 64,
        "dropout": 0.1,
        "init_std": 1e-3,
    }
    assert v1["head"] == {"kind": "mlp", "dropout": 0.5, "hidden": [256, 128]}
    assert v1["loss"] == {"kind": "cb_focal", "beta": 0.9999, "gamma": 2.0, "smoothing": 0.0}
    assert (v1["data"]["noise"], v1["data"]["mixup"]) == (0, 0)
    assert v1["injection"]["source"] == "none"
    assert (v1["optimizer"]["lr"]["adapters"], v1["optimizer"]["lr"]["head"]) == (1e-4, 5e-4)
    assert v1["optimizer"]["weight_decay"] == 1e-4
    assert v1["scheduler"] == {"kind": "cosine", "eta_min": 1e-6}
    assert (v1["data"]["batch_size"], v1["trainer"]["max_epochs"]) == (128, 50)
    assert (v1["callbacks"]["patience"], v1["seed"], v1["conditioning"]) == (5, 42, "none")
    assert (v1["backbone"]["se"], v1["backbone"]["attention"]) == (True, True)


def test_the_demo_trains_the_study_s_adapter_architecture_unreduced() -> None:
    demo = plain(compose("demo"))
    adapter = settings(*demo["plan"]["stage2-adapter"])
    reference = settings("experiment=exp11a/v1")
    for key in ("backbone", "adapter", "head", "conditioning"):
        assert adapter[key] == reference[key]
    assert demo["cascade"]["stage3_ab"] == ["stage3_ab-1", "stage3_ab-2", "stage3_ab-3"]
    seeds = [settings(*demo["plan"][name])["seed"] for name in demo["cascade"]["stage3_ab"]]
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("kind", LOSSES)
def test_loss_options_are_all_used(kind: str) -> None:
    """A loss's file has every parameter of it, at its default."""
    options = settings(f"loss={kind}")["loss"]
    build_loss([4, 5], **options)
    parameters = list(inspect.signature(LOSSES[kind]).parameters.values())[1:]
    assert options == {"kind": kind, **{p.name: p.default for p in parameters}}


def test_augmentation_reaches_the_batches() -> None:
    words = ("data.augment=symmetries", "data.noise=0.1", "data.mixup=0.3", "data.context=2")
    data = build_datamodule(settings("stage=stage3_ab", "injection=uniform", *words))
    data.setup()
    augmentation = data.augmentation
    assert (augmentation.symmetries, augmentation.noise, augmentation.mixup) == (True, 0.1, 0.3)
    assert (augmentation.foreign, augmentation.context, augmentation.bit_depth) == ("random", 2, 8)
    plain = build_datamodule(settings())
    plain.setup()
    assert plain.augmentation == Augmentation(plain.stage, plain.seed, 8)


@pytest.mark.parametrize(
    "word",
    [
        *("loss.smoothing=1", "loss.smoothing=-0.1", "data.noise=2", "data.noise=null"),
        *("data.mixup=-1", "data.mixup=much", "injection.share=1", "injection.share=lots"),
        *("injection.labels=best", "injection.source=all", "injection.source=null"),
        *("+loss.ratio=0.5", "+loss.ratio=null", "+scheduler.pct_start=null", "+adapter.rank=null"),
        *("+method.lr_decay=1e100", "loss.gamma=inf", "loss.gamma=nan", "cache.limit_gb=nan"),
        *("data.eval_batch_size=65537", "data.context=257"),  # no checkpoint may say so
        *("trainer.gradient_clip_val=nan", "stage.lr_backbone=inf", "optimizer.lr.head=inf"),
        *("+loss.alpha=[1,nan]", "+note=[[inf]]", "name=nan", f"loss.gamma={10**400}"),
    ],
)
def test_values_out_of_range_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=word.partition("=")[0].lstrip("+")):
        check_values(compose("train", [word]), "train")


def test_a_stage_of_a_cascade_may_be_several_checkpoints() -> None:
    cfg = compose("pipeline", ["stage1=[a.ckpt,2026]", "stage2=8"])
    check_values(cfg, "pipeline")
    assert (cfg.stage1, cfg.stage2) == (["a.ckpt", "2026"], "8")
    for word in ("stage1=[[a.ckpt]]", "stage1=[a.ckpt,null]", "stage1=[true]", "data.path=[a]"):
        with pytest.raises(ConfigError, match=word.partition("=")[0]):
            check_values(compose("pipeline", [word]), "pipeline")


def test_experiments_say_question_and_launch() -> None:
    for file in (CONF / "experiment").rglob("*.yaml"):
        text = file.read_text()
        assert "# Question:" in text, file
        assert "# Launch:" in text, file
    assert Path(CONF / "experiment" / "exp11a" / "v1.yaml").is_file()
