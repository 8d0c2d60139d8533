"""Every choice of the schema and of conf/ composes, and fits what it configures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from av1part.cli.commands.demo import plan_configs as demo_configs
from av1part.cli.main import VERBS, config_folder
from av1part.config.check import check_values, is_distributed, leaves, plain
from av1part.config.help import help_text
from av1part.config.schema import VERB_KEYS, groups_of
from av1part.config.store import register
from av1part.config.words import rename_keys
from av1part.data.serve.augment import Augmenter
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.encoder.points import check_anchors, read_points
from av1part.models.losses import LOSSES, build_loss
from av1part.models.summary import count_parameters, count_trainable
from av1part.options import COST_SENSITIVE, RENAMED_KEYS, WITH_ADAPTERS
from av1part.partition import SIZES, SUPERBLOCK_STAGE
from av1part.stages.base import StageModule
from av1part.stages.choice import stage_class
from av1part.stages.meta import MetaOptions
from av1part.stages.superblock import SuperblockStage
from av1part.system.errors import ConfigError
from av1part.training.build import build_datamodule

CONF = config_folder()
PRIMARY = sorted(p.stem for p in CONF.glob("*.yaml") if p.stem != "base")
FILES = {
    p.relative_to(CONF).with_suffix("").as_posix()
    for p in CONF.rglob("*.yaml")
    if p.parent != CONF and p.relative_to(CONF).parts[0] not in ("hydra", "plan", "shared")
}
PLANS = sorted(p.stem for p in (CONF / "plan").glob("*.yaml"))
CHOICES = sorted(
    FILES | {f"{group}/{name}" for group, g in groups_of("train").items() for name in g.choices}
)


DATA = {"bit_depth": 8, "size": 16, "context": 0}


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def settings(*overrides: str) -> dict[str, Any]:
    return plain(compose("train", list(overrides)))


def module(values: dict[str, Any], *, width: int = 8) -> StageModule:
    """Build the module that a configuration describes, for made-up data."""
    classes = {"stage1": 2, "stage2": 3, "stage3_rect": 2, "stage3_ab": 4, "stage3_1to4": 2}
    stage = values["stage"]["name"]
    backbone = {k: v for k, v in values["backbone"].items() if k != "weights"}
    method = dict(values["method"])
    name = method.pop("name")
    if stage == SUPERBLOCK_STAGE:
        counts = {str(size): [5] * 8 + [0] * 2 for size in SIZES}
        counts["8"][4:] = [0] * 6
        return SuperblockStage(
            **{key: values[key] for key in ("taxonomy", "loss", "optimizer", "scheduler")},
            backbone={k: v for k, v in backbone.items() if k != "kind"} | {"width": 2},
            conditioning=values["conditioning"],
            data={**DATA, "crop": 256, "qindex": [80, 128], "counts_by_size": counts},
        )
    return stage_class(stage)(
        taxonomy="v6_1to4" if stage == "stage3_1to4" else values["taxonomy"],
        method=name,
        method_options=method,
        backbone={**backbone, "width": width},
        head=values["head"],
        loss=values["loss"],
        optimizer=values["optimizer"],
        scheduler=values["scheduler"],
        data={**DATA, "class_counts": [5] * classes[stage]},
        adapter=values["adapter"] if name in WITH_ADAPTERS else None,
        conditioning=values["conditioning"],
    )


def test_there_is_a_configuration_a_verb() -> None:
    assert set(PRIMARY) == {verb.config for verb in VERBS.values()}


def test_the_demo_trains_a_superblock_network_last_with_the_overrides_that_fit_it() -> None:
    plan = plain(compose("demo"))["plan"]
    network = plan.pop("superblock")
    words = ["data.protocol=by_segment", "backbone.width=8"]
    configs = demo_configs({"superblock": network, **plan}, words)
    assert list(configs) == [*(name for name in plan if name != "stage3_1to4"), "superblock"]
    assert {cfg.data.protocol for cfg in configs.values()} == {"by_segment"}
    assert configs["superblock"].backbone.width == 16
    assert configs["stage1"].backbone.width == 8
    assert "superblock" not in demo_configs(plan, words)


@pytest.mark.parametrize("name", PRIMARY)
def test_the_defaults_of_a_verb_pass_their_own_checks(name: str) -> None:
    check_values(compose(name), name)


def test_the_plan_of_the_demo_passes_the_checks() -> None:
    for overrides in plain(compose("demo"))["plan"].values():
        check_values(compose("train", overrides), "train")


@pytest.mark.parametrize("name", CHOICES)
def test_every_option_composes_and_builds(name: str) -> None:
    group, _, option = name.partition("/")
    cfg = compose("train", [f"{group}={option}"])
    check_values(cfg, "train")
    values = plain(cfg)
    if (values["stage"]["name"], values["loss"]["kind"]) == (SUPERBLOCK_STAGE, COST_SENSITIVE):
        values["data"]["costs"] = "costs.parquet"  # which has no default
    assert module(values).stage_name == values["stage"]["name"]
    build_datamodule({**values, "injection": {**values["injection"], "source": "none"}})


def test_the_trunk_brings_its_conditioning_and_nothing_else_does() -> None:
    assert settings("backbone=superblock")["conditioning"] == "qindex_blocks"
    assert settings("backbone=superblock", "conditioning=none")["conditioning"] == "none"
    for word in ("backbone=resnet18", "backbone=resnet18_small", "experiment=exp11a/v1"):
        assert settings(word)["conditioning"] == "none"
        assert settings(word)["backbone"]["planes"] is None


def test_the_study_s_training_defaults() -> None:
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


def test_the_study_s_network_is_that_of_its_experiment() -> None:
    built = module(settings("experiment=exp11a/v1"), width=64)
    assert count_trainable(built.classifier) == 288_707
    assert count_parameters(built.classifier) == 11_502_565


def test_the_demo_trains_its_stages_alike() -> None:
    """Else they make no cascade, and nothing starts from Stage 1's backbone."""
    demo = plain(compose("demo"))
    runs = {name: settings(*words) for name, words in demo["plan"].items()}
    assert runs.pop("superblock")["stage"]["name"] == "superblock"
    for key in ("backbone", "conditioning", "taxonomy"):
        assert len({str(run[key]) for run in runs.values()}) == 1, key
    for key in ("size", "context", "protocol"):
        assert len({run["data"][key] for run in runs.values()}) == 1, key
    assert {name for names in demo["cascade"].values() for name in names} <= runs.keys()
    assert demo["cascade"]["stage3_ab"] == ["stage3_ab-1", "stage3_ab-2", "stage3_ab-3"]
    assert len({runs[name]["seed"] for name in demo["cascade"]["stage3_ab"]}) == 3


@pytest.mark.parametrize("kind", LOSSES)
def test_loss_options_are_all_used(kind: str) -> None:
    """The schema has every parameter of a loss, at its default."""
    options = settings(f"loss={kind}")["loss"]
    build_loss([4, 5], **options)
    parameters = list(inspect.signature(LOSSES[kind]).parameters.values())[1:]
    assert options == {"kind": kind, **{p.name: p.default for p in parameters}}


def test_options_of_meta_are_all_used() -> None:
    """The schema has every option of the method, at its default."""
    options = settings("stage=stage2", "method=meta")["method"]
    assert options.pop("name") == "meta"
    assert MetaOptions.of(options) == MetaOptions()
    own = vars(MetaOptions()).keys() - {"episodes"}
    assert options.keys() == own | vars(MetaOptions().episodes).keys()


def test_data_options_are_those_of_the_data_module() -> None:
    parameters = inspect.signature(BlockDataModule).parameters
    data = settings()["data"]
    of_crops = inspect.signature(SuperblockDataModule).parameters
    assert all(data.pop(name) == of_crops[name].default for name in ("crop", "levels", "costs"))
    assert {name: parameters[name].default for name in data} == data


@pytest.mark.parametrize(
    ("words", "rate"),
    [
        ((), 1e-3),
        (("stage=stage2",), None),
        (("stage=stage2", "method=finetune"), 1e-4),
        (("stage=stage2", "method=scratch"), 1e-3),
        (("stage=stage3_ab", "method=partial"), 1e-4),
        (("method=finetune", "optimizer.lr.backbone=3e-4"), 3e-4),
    ],
)
def test_the_backbone_s_rate_follows_from_the_method(
    words: tuple[str, ...], rate: float | None
) -> None:
    assert settings(*words)["optimizer"]["lr"]["backbone"] == rate


@pytest.mark.parametrize("config", VERB_KEYS)
def test_every_default_is_of_its_type_and_in_its_range(config: str) -> None:
    """Also those of choices that no primary configuration takes."""
    choices = [f"{g}={name}" for g, spec in groups_of(config).items() for name in spec.choices]
    for word in choices or [None]:
        check_values(compose(config, [word] if word else []), config)


def test_the_help_has_a_line_for_every_key() -> None:
    text = help_text("train", ["loss=focal"])
    for key in dict(leaves(compose("train", ["loss=focal"]))):
        assert f"  {key} " in text, key
    assert "focal*" in text
    assert re.search(r"data\.size +16 +\S.*\(8 \| 16 \| 32 \| 64\)", text)
    assert "out  " in help_text("data_build", [])  # it has no default
    assert "???" not in help_text("demo", []), "the plan has runs"


@pytest.mark.parametrize("old", RENAMED_KEYS)
def test_renamed_keys_are_still_read(old: str, caplog: pytest.LogCaptureFixture) -> None:
    new = RENAMED_KEYS[old]
    value = {"data.split": "by_segment", "method.lr_backbone": 0.5}[old]
    assert rename_keys([f"{old}={value}"]) == [f"{new}={value}"]
    cfg = compose("train", [f"+{old}={value}"])  # as a file of one's own may have it
    check_values(cfg, "train")
    assert OmegaConf.select(cfg, new) == value
    assert OmegaConf.select(cfg, old) is None
    assert f"{old} is now called {new}" in caplog.text


def test_augmentation_reaches_the_batches() -> None:
    words = ("data.augment=symmetries", "data.noise=0.1", "data.mixup=0.3", "data.context=2")
    data = build_datamodule(settings("stage=stage3_ab", "injection=uniform", *words))
    data.setup()
    augmenter = data.augmenter
    assert (augmenter.symmetries, augmenter.noise, augmenter.mixup) == (True, 0.1, 0.3)
    assert (augmenter.foreign, augmenter.context, augmenter.bit_depth) == ("random", 2, 8)
    plain = build_datamodule(settings())
    plain.setup()
    assert plain.augmenter == Augmenter(plain.stage, plain.seed, 8, plain.store.nodes.height)


@pytest.mark.parametrize(
    "word",
    [
        *("loss.smoothing=1", "loss.smoothing=-0.1", "data.noise=2", "data.noise=null"),
        *("data.mixup=-1", "data.mixup=much", "injection.share=1", "injection.share=lots"),
        *("injection.labels=best", "injection.source=all", "injection.source=null"),
        *("+loss.ratio=0.5", "+loss.ratio=null", "+scheduler.pct_start=null", "+adapter.rank=null"),
        *("+method.lr_decay=1e100", "loss.gamma=inf", "loss.gamma=nan", "cache.limit_gb=nan"),
        *("data.eval_batch_size=65537", "data.context=257"),  # no checkpoint may say so
        *("trainer.gradient_clip_val=nan", "optimizer.lr.backbone=inf", "optimizer.lr.head=inf"),
        *("trainer.gradient_clip_val=much", "data.path=[a]", "data.size=12", "seed=1.5"),
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


@pytest.mark.parametrize(
    ("words", "several"),
    [
        ([], False),
        (["trainer.devices=2"], True),
        (["trainer.devices=[1]"], False),
        (["trainer=ddp"], True),
        (["trainer=ddp", "trainer.accelerator=cpu"], False),
        (["trainer.num_nodes=2"], True),
    ],
)
def test_which_runs_take_several_processes(words: list[str], several: bool) -> None:
    assert is_distributed(compose("train", words)) is several
    assert not is_distributed(compose("report", []))


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_composes_to_points(plan: str) -> None:
    cfg = compose("encode", [f"plan={plan}", "out=a"])
    check_values(cfg, "encode")
    values = plain(cfg)["plan"]
    points = read_points(values["points"])
    anchors = check_anchors(values["anchors"], points)
    sizes = {points[name].sb_size for name in anchors}
    hinted = [point for point in points.values() if point.has_hints]
    # Claims are made at equal superblock size.
    assert all(point.sb_size in sizes for point in hinted)
    assert all(point.one_to_four for point in hinted)
