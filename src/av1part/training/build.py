"""Building a run from its settings: data module, stage with its first weights, and their checks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch.nn import BatchNorm2d

from av1part.checkpoints.load import load_backbone
from av1part.config.schema import Data
from av1part.data.serve.costs import CostWeights
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.episodes import EpisodeDataModule
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.defects import BALANCED_TWICE, RANDOM_BLOCKS, banner, listed
from av1part.models.backbone import ResNet18
from av1part.models.freeze import frozen_text, state_sha256
from av1part.models.losses import build_loss
from av1part.models.summary import count_parameters, count_trainable, summarise
from av1part.models.weights import load_pretrained
from av1part.options import COST_SENSITIVE, RESNET_BACKBONE, SUPERBLOCK_BACKBONE, WITH_ADAPTERS
from av1part.partition import SUPERBLOCK_STAGE, taxonomy
from av1part.stages.base import StageModule
from av1part.stages.blocks import BlockStage
from av1part.stages.choice import CASCADE
from av1part.stages.superblock import SuperblockStage
from av1part.system.errors import ConfigError
from av1part.training.meta import check_meta, meta_options
from av1part.training.stage2_errors import build_injection
from av1part.training.trainer import Settings
from av1part.trees.boosting import check_library

log = logging.getLogger(__name__)


def build_datamodule(settings: Settings) -> BlockDataModule:
    """Return the data module of a configuration.

    Args:
        settings: The configuration of the run.

    Returns:
        The data module; nothing is opened yet.

    Raises:
        ConfigError: if an option of the data is of another kind of stage.
    """
    if settings["stage"]["name"] == SUPERBLOCK_STAGE:
        return _build_superblock_data(settings)
    crops = ("crop", "levels", "costs")
    _refuse_changed(settings["data"], crops, f"stage={settings['stage']['name']}")
    arguments = {
        **{key: value for key, value in _data_options(settings).items() if key not in crops},
        "stage": settings["stage"]["name"],
        "taxonomy": settings["taxonomy"],
        "seed": settings["seed"],
        "defects": settings["defects"],
    }
    meta = meta_options(settings)
    if meta is not None:
        check_meta(settings, meta)
        return EpisodeDataModule(**arguments, episodes=meta.episodes, tasks=meta.tasks)
    injection = build_injection(settings["injection"], arguments)
    return BlockDataModule(**arguments, injection=injection)


def _data_options(settings: Settings) -> dict[str, Any]:
    """Return the group `data`, as the run's defects change it."""
    data, defects = dict(settings["data"]), settings["defects"]
    if RANDOM_BLOCKS in defects:
        data |= {"protocol": "random_blocks", "split_list": None}
    if BALANCED_TWICE in defects:
        data["sampling"] = "balanced"
    return data


def _build_superblock_data(settings: Settings) -> SuperblockDataModule:
    """Return the data module of the superblock network."""
    data = settings["data"]
    blocks = ("size", "context", "eval_batch_size", "sampling", "noise", "mixup")
    _refuse_changed(data, blocks, f"stage={SUPERBLOCK_STAGE}")
    own = {key: value for key, value in data.items() if key not in blocks}
    return SuperblockDataModule(
        **own,
        cost_weights=_cost_weights(settings),
        taxonomy=settings["taxonomy"],
        seed=settings["seed"],
    )


def _cost_weights(settings: Settings) -> CostWeights | None:
    """Return how costs weigh nodes, None for a loss that does without.

    Raises:
        ConfigError: if costs are missing, or given to another loss.
    """
    loss = settings["loss"]
    if loss["kind"] != COST_SENSITIVE:
        _refuse_changed(settings["data"], ("costs",), f"loss={loss['kind']}")
        return None
    if settings["data"].get("costs") is None:
        raise ConfigError(
            f"loss={COST_SENSITIVE} needs data.costs=FILE: make it with "
            "`av1part data costs DATASET SOURCE... out=FILE`"
        )
    return CostWeights(**{key: loss[key] for key in ("power", "cap") if key in loss})


def _refuse_changed(data: Mapping[str, Any], keys: Sequence[str], word: str) -> None:
    """Refuse options that do nothing with a stage or a loss.

    Raises:
        ConfigError: naming the option.
    """
    for key in keys:
        if data.get(key, default := getattr(Data(), key)) != default:
            raise ConfigError(f"data.{key} does nothing with {word}: leave it out")


def build_module(settings: Settings, facts: Mapping[str, Any]) -> StageModule:
    """Build a stage and give its network the weights it starts from.

    Args:
        settings: The configuration of the run.
        facts: Of the data, as its data module's `facts` returns them; stored in the checkpoint.

    Returns:
        The stage, on the CPU; its hyper-parameter `start` is the source of the weights.

    Raises:
        ConfigError: if the stage has no such backbone.
    """
    stage = settings["stage"]["name"]
    if stage == SUPERBLOCK_STAGE:
        if not _on_trunk(settings):
            raise ConfigError(f"stage={stage} has no such backbone: use backbone=superblock")
        return _build_superblock(settings, facts)
    return _build_blocks(settings, facts)


def _on_trunk(settings: Settings) -> bool:
    """Return whether the backbone is the superblock network's trunk."""
    return bool(settings["backbone"].get("kind", RESNET_BACKBONE) == SUPERBLOCK_BACKBONE)


def _build_superblock(settings: Settings, facts: Mapping[str, Any]) -> SuperblockStage:
    """Build the superblock network, at random.

    Raises:
        ConfigError: if a start, a method or foreign blocks are asked for.
    """
    method, source = settings["method"]["name"], settings["injection"]["source"]
    for word, asked in (
        (f"method={method}", method != "scratch"),
        ("stage1", settings["stage1"] is not None),
        (f"injection={source}", source != "none"),
    ):
        if asked:
            raise ConfigError(
                f"stage={SUPERBLOCK_STAGE} is one network, trained from a random start on its own "
                f"nodes: leave out {word}"
            )
    module = SuperblockStage(
        backbone={k: v for k, v in settings["backbone"].items() if k != "kind"},
        **{key: settings[key] for key in ("taxonomy", "loss", "optimizer")},
        **{key: settings[key] for key in ("scheduler", "conditioning", "seed")},
        method=method,
        data=dict(facts),
    )
    _check_rates(module, settings["optimizer"]["lr"])
    start = state_sha256(module.classifier.backbone_state())
    module.hparams["start"] = {"weights": "none", "sha256": start}
    return module


def _build_blocks(settings: Settings, facts: Mapping[str, Any]) -> BlockStage:
    """Build a stage of the cascade and give its backbone the weights it starts from.

    Args:
        settings: The configuration of the run.
        facts: Of the data, as `BlockDataModule.facts` returns them; stored in the checkpoint.

    Returns:
        The stage, on the CPU; its hyper-parameter `start` is the source of the weights.

    Raises:
        ConfigError: if the method lacks a start or a learning rate.
        CheckpointError: if the start cannot be loaded, or does not fit.
    """
    method_options = dict(settings["method"])
    method, stage = str(method_options.pop("name")), settings["stage"]["name"]
    options = dict(settings["backbone"])
    weights, stage1 = "none", settings["stage1"]
    if not _on_trunk(settings):
        if "weights" not in options:
            raise ConfigError("backbone.weights is missing: give it a value, such as none")
        weights = options.pop("weights")
        if options.get("planes") is None:
            options.pop("planes", None)  # so that a checkpoint says what those of version 0.1 do
    if method == "scratch" and (stage1 is not None or weights != "none"):
        raise ConfigError("method=scratch starts at random: leave out stage1 and backbone.weights")
    if method != "scratch" and stage1 is None and weights == "none":
        raise ConfigError(
            f"method={method} of {stage} needs a trained backbone: give stage1=CKPT (or "
            "backbone.weights), or use method=scratch"
        )
    if stage1 is not None and weights != "none":
        raise ConfigError("give stage1=CKPT or backbone.weights, not both")
    if weights != "none" and options.get("planes") is not None:
        raise ConfigError("backbone.weights are of one plane: leave out these or backbone.planes")
    module = CASCADE[stage](
        taxonomy=settings["taxonomy"],
        method=method,
        backbone=options,
        head=settings["head"],
        loss=settings["loss"],
        optimizer=settings["optimizer"],
        scheduler=settings["scheduler"],
        data=dict(facts),
        adapter=settings["adapter"] if method in WITH_ADAPTERS else None,
        conditioning=settings["conditioning"],
        method_options=method_options,
        seed=settings["seed"],
        defects=settings["defects"] or None,
    )
    _check_rates(module, settings["optimizer"]["lr"])
    start: dict[str, Any] = {"weights": str(weights)}
    if stage1 is not None:
        start |= load_backbone(module, stage1)
    else:
        if isinstance(module.classifier.backbone, ResNet18):
            load_pretrained(module.classifier.backbone, weights)
        start["sha256"] = state_sha256(module.classifier.backbone.state_dict())
    module.hparams["start"] = start
    return module


def log_summary(module: StageModule, side: int) -> None:
    """Log the layers with their spatial size and parameters, and what is defective on purpose."""
    if module.defects:
        log.warning("%s", banner(module.defects))
    total, trainable = count_parameters(module.classifier), count_trainable(module.classifier)
    log.info(
        "%s, method %s: %s of %s parameters are trained (%.2f %%), frozen: %s",
        module.stage_name,
        module.hparams["method"],
        f"{trainable:,}",
        f"{total:,}",
        100 * trainable / total,
        frozen_text(module.classifier.thaw),
    )
    for row in summarise(module.classifier, side):
        where = f"{row.side}x{row.side}" if row.side else "-"
        log.info(
            "  %-12s %4d channels, map %-6s %11s parameters, %11s trained",
            row.name,
            row.channels,
            where,
            f"{row.parameters:,}",
            f"{row.trainable:,}",
        )


def _check_rates(module: StageModule, rates: Mapping[str, float | None]) -> None:
    missing = [part for part in module.classifier.parameter_groups() if rates[part] is None]
    if missing:
        raise ConfigError(
            f"optimizer.lr.{missing[0]} is null, but method={module.hparams['method']} trains it: "
            "give a rate (of the backbone, optimizer.lr.backbone=1e-4)"
        )


def warn_of_late_thaw(module: StageModule, epochs: int) -> None:
    """Warn of layers that the method's schedule would thaw only after the last epoch."""
    late = [k for k, first in module.classifier.thaw.items() if first and first >= epochs]
    if late:
        log.warning(
            "%s would thaw only after the last of %d epochs, and so is never trained: lower "
            "method.unfreeze or raise trainer.max_epochs (or max_steps)",
            ", ".join(late),
            epochs,
        )


def check_splits(data: BlockDataModule) -> None:
    """Refuse data without nodes in train or val, before minutes of training.

    Args:
        data: The data of a run.

    Raises:
        StoreError: naming the stage and the split.
    """
    for split in ("train", "val"):
        data.reader(split)


def log_tasks(data: BlockDataModule) -> None:
    """Log how many pictures are tasks, of a method that has any."""
    if isinstance(data, EpisodeDataModule):
        data.log_tasks()


def warn_of_missing_classes(data: BlockDataModule) -> None:
    """Warn of classes that have no node in train or val."""
    consequences = {"train": "it cannot be learnt", "val": "scores on val leave it out"}
    for split, consequence in consequences.items():
        counts = dict(zip(data.stage.classes, data.class_counts(split), strict=True))
        for missing in (name for name, count in counts.items() if not count):
            log.warning(
                "%s: no node in the %s split is %s (%s): %s; add sources or choose another split",
                data.stage_name,
                split,
                missing,
                ", ".join(f"{name} {count:,}" for name, count in counts.items()),
                consequence,
            )


def check_batch_norm(module: StageModule, blocks: int, processes: int) -> None:
    """Refuse too few training blocks for BatchNorm, which needs two in each batch of a process.

    Args:
        module: The stage.
        blocks: Training blocks of an epoch.
        processes: Processes that share them.

    Raises:
        ConfigError: if there are too few, and the method trains BatchNorm.
    """
    # BatchNorm is in the backbone alone, in eval mode where a layer is never trained.
    trained = any(first is not None for first in module.classifier.thaw.values())
    trained &= any(isinstance(part, BatchNorm2d) for part in module.modules())
    if trained and blocks < 2 * processes:
        raise ConfigError(
            f"{module.stage_name} has {blocks} training block{'s' * (blocks > 1)} for {processes} "
            f"process{'es' * (processes > 1)}: method={module.hparams['method']} trains BatchNorm, "
            "which needs two for each; add sources or use method=frozen"
        )


def check_processes(module: StageModule, processes: int) -> None:
    """Refuse several processes for a method that one alone can train.

    Args:
        module: The stage.
        processes: Processes of the training.

    Raises:
        ConfigError: naming the remedy.
    """
    if processes == 1:
        return
    why = None
    if isinstance(module, BlockStage) and module.meta is not None:
        why = "takes its outer steps itself, which nothing would join"
    elif any(module.classifier.thaw.values()):
        why = "thaws layers while it trains, which several processes cannot follow"
    if why is not None:
        raise ConfigError(f"method={module.hparams['method']} {why}: use trainer.devices=1")


def check_settings(settings: Settings, facts: Mapping[str, Any]) -> None:
    """Refuse settings that contradict each other or the data.

    Args:
        settings: The configuration of the run.
        facts: Of the data, as `BlockDataModule.facts` returns them.

    Raises:
        ConfigError: naming the key, or if the library that trains the trees is missing.
    """
    conditioning = settings["conditioning"]
    # FiLM layers of a backbone that is started from may have learnt on other data.
    learnt = conditioning == "qindex_blocks" and settings["stage1"] is not None
    if conditioning != "none" and not learnt and len(facts["qindex"]) < 2:
        raise ConfigError(
            f"conditioning={conditioning}, but all training nodes have qindex "
            f"{facts['qindex'][0]}: a constant tells nothing; use conditioning=none or build at "
            "several cq_levels"
        )
    if settings["baselines"] == "trees":
        check_library()
    root = taxonomy(settings["taxonomy"]).root.name
    if settings["loss"]["kind"] == "hard_negative" and settings["stage"]["name"] != root:
        raise ConfigError(
            f"loss=hard_negative keeps all PARTITION and the hardest NONE, so it is for {root} "
            f"alone: use another loss with stage={settings['stage']['name']}"
        )
    if settings["loss"]["kind"] == COST_SENSITIVE and settings["stage"]["name"] != SUPERBLOCK_STAGE:
        raise ConfigError(
            f"loss={COST_SENSITIVE} is for stage={SUPERBLOCK_STAGE} alone: use another loss with "
            f"stage={settings['stage']['name']}"
        )
    try:
        balances = build_loss(facts["class_counts"], **settings["loss"]).balances
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if BALANCED_TWICE in settings["defects"]:
        if not balances:
            raise ConfigError(
                f"{listed(settings['defects'])}: {BALANCED_TWICE} balances in the sampler what "
                "the loss balances too: use a loss that does, such as loss=cb_focal"
            )
    elif balances and settings["data"]["sampling"] == "balanced":
        raise ConfigError(
            "data.sampling=balanced with a loss that balances classes balances twice: use "
            "loss=focal or loss=cross_entropy, or data.sampling=natural"
        )
