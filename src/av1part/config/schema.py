"""Every option of the command line, a line each: type, default, range, choices and meaning.

A class is one choice of a Hydra group (`loss=focal`) or the keys of a verb. `config.store` hands
them to Hydra, `config.check` checks a composed configuration against them, and `config.help` makes
`av1part <verb> --help` from them. Files under conf/ only change what stands here.

An annotation `X | None` is a key that may be null. `Any` leaves the check to Lightning.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from av1part.options import (
    ACCELERATORS,
    AUGMENTATIONS,
    BACKBONES,
    BUNDLED,
    CALIBRATION_SOURCES,
    CONDITIONINGS,
    ENSEMBLES,
    INJECTION_LABELS,
    INJECTION_SOURCES,
    INPUT_PLANES,
    META_ALGORITHMS,
    MOST,
    MOST_CROP,
    MOST_DEPTH,
    MOST_WIDTH,
    OBJECTIVES,
    OUTSIDES,
    PEERS,
    PLACEMENTS,
    PLANES,
    POLICIES,
    PRECISIONS,
    PROTOCOLS,
    SAMPLINGS,
    SCHEDULES,
    SCORED_SPLITS,
    TREE_WEIGHTS,
    VERIFICATIONS,
)
from av1part.partition import SIZES, TAXONOMIES

MISSING = "???"
"""Default of a key that must be given, as OmegaConf writes it."""

_TINY, _MOST = 1e-30, sys.float_info.max
_BELOW_ONE = 1 - 1e-12


@dataclass(frozen=True)
class Option:
    """What is known of a key beside its type and default.

    Attributes:
        text: What it does, for the help.
        low: Least value of a number, or of the numbers in a list.
        high: Greatest value, likewise.
        choices: All values it may have.
        path: Whether it is a path.
        many: Whether it may be a list of paths instead of one.
        infinite: Whether it may be infinite; no such key changes a result.
        kind: Type by its annotation: `int`, `float`, `bool`, `str`, `list`, `dict` or `Any`.
        nullable: Whether it may be null.
    """

    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None
    path: bool = False
    many: bool = False
    infinite: bool = False
    kind: str = "Any"
    nullable: bool = True


def option(default: Any, text: str, **more: Any) -> Any:
    """Return a dataclass field with its default, and the `Option` in its metadata.

    Lists and mappings are copied for each instance; `more` are further attributes of `Option`.
    """
    metadata = {"option": Option(text, **more)}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def checkpoint(default: Any, text: str) -> Any:
    """Return the field of a stage of a cascade: one checkpoint or a list of them."""
    return option(default, text, path=True, many=True)


# Groups of `av1part train`


@dataclass
class StageDefaults:
    """One classifier of the hierarchy."""

    name: str = option(
        "stage1", "stage1 | stage2 | stage3_rect | stage3_ab | stage3_1to4 | superblock"
    )
    method: str = option("scratch", "what method=auto stands for")


@dataclass
class Auto:
    """What the stage does by default: Stage 1 trains all, Stage 2 adapters, Stage 3 a head."""

    name: str = option("${stage.method}", "the method")


@dataclass
class Adapters:
    """Adapters and head, in a frozen backbone (Exp 11A)."""

    name: str = option("adapter", "the method")


@dataclass
class Finetune:
    """All parameters, from Stage 1's backbone (stage1=CKPT) or from backbone.weights."""

    name: str = option("finetune", "the method")


@dataclass
class Frozen:
    """The head alone, on a frozen backbone."""

    name: str = option("frozen", "the method")


@dataclass
class Meta:
    """Adapters and head, as a start that a few steps adapt to a picture (Reptile, MAML)."""

    name: str = option("meta", "the method")
    algorithm: str = option("reptile", "how the start is learnt", choices=META_ALGORITHMS)
    inner_steps: int = option(5, "on a picture's labelled blocks", low=1, high=1000)
    inner_lr: float = option(0.03, "of these steps, for adapters and head", low=_TINY, high=_MOST)
    tasks: int = option(4, "pictures at a qindex of an outer step", low=1, high=_MOST)
    support: float = option(
        0.5, "share of a picture, from its top, with labels", low=0.01, high=0.99
    )
    gap: int = option(64, "rows between these blocks and those asked for", low=0, high=_MOST)
    support_nodes: int | None = option(
        None, "labelled blocks of a picture, drawn; null: all", low=1, high=_MOST
    )
    least: int = option(8, "fewest blocks of either part, else no task", low=1, high=_MOST)


@dataclass
class Partial:
    """Some layers of the backbone (with their attention), and the head."""

    name: str = option("partial", "the method")
    layers: list[str] = option(["layer4"], "any of stem, layer1, layer2, layer3, layer4")


@dataclass
class Scratch:
    """All parameters, from a random start."""

    name: str = option("scratch", "the method")


@dataclass
class Ulmfit:
    """Gradual unfreezing from the top with discriminative rates (Howard and Ruder 2018)."""

    name: str = option("ulmfit", "the method")
    unfreeze: dict[str, int | None] = option(
        {"layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4, "stem": 5},
        "layer: first epoch in which it is trained; null: never",
        low=0,
        high=_MOST,
    )
    # The fifth layer's rate is its fourth power below the first's.
    lr_decay: float = option(
        2.6, "by which a layer's rate is below the next one's", low=1, high=1000
    )


@dataclass
class Backbone:
    """The study's ResNet-18 with squeeze-and-excitation and spatial attention."""

    width: int = option(64, "channels after the stem; 64 is the standard network", low=1, high=4096)
    planes: list[str] | None = option(
        None, f"null: the study's one scaled plane; or any of {', '.join(INPUT_PLANES)}"
    )
    se: bool = option(True, "squeeze-and-excitation after each layer")
    attention: bool = option(True, "7x7 spatial attention after layer 4")
    stem: str = option("imagenet", "imagenet: 7x7 stride 2 and pool; small: 3x3 stride 1, no pool")
    weights: str = option(
        "none", "none | imagenet | path of a state dict with torchvision's names", path=True
    )


@dataclass
class Superblock:
    """The superblock network's trunk: whole in stage=superblock, else up to the node's size."""

    kind: str = option("superblock", "the form of backbone", choices=BACKBONES)
    width: int = option(16, "channels at stride 2, and so at all", low=1, high=MOST_WIDTH)
    depth: int = option(1, "residual blocks, in proportion", low=1, high=MOST_DEPTH)
    planes: list[str] = option(list(INPUT_PLANES), f"any of {', '.join(INPUT_PLANES)}")
    energies: bool = option(True, "give each stride the log energies and rates of its cells")


@dataclass
class Bottleneck:
    """Pooled bottleneck (Rebuffi 2017, Houlsby 2019): what the study used."""

    kind: str = option("bottleneck", "the form of adapter")
    layers: list[int] = option([1, 2, 3, 4], "after which residual layers")
    placement: str = option("layer", "after a layer, or in each of its blocks", choices=PLACEMENTS)
    bottleneck: int = option(64, "width of the bottleneck", low=1, high=_MOST)
    dropout: float = option(0.1, "in the bottleneck", low=0, high=1)
    init_std: float = option(1e-3, "of the initial weights: nearly the identity", low=0, high=_MOST)


@dataclass
class Conv:
    """A bottleneck at each position, without pooling (Rebuffi 2018)."""

    kind: str = option("conv", "the form of adapter")
    layers: list[int] = option([1, 2, 3, 4], "after which residual layers")
    placement: str = option("layer", "after a layer, or in each of its blocks", choices=PLACEMENTS)
    bottleneck: int = option(64, "width of the bottleneck", low=1, high=_MOST)
    kernel: int = option(1, "side of the depthwise kernel in the middle", choices=(1, 3))
    dropout: float = option(0.1, "in the bottleneck", low=0, high=1)
    init_std: float = option(1e-3, "of the initial weights: nearly the identity", low=0, high=_MOST)


@dataclass
class Lora:
    """Low rank beside each 3x3 convolution (Hu 2022); exactly zero at the start."""

    kind: str = option("lora", "the form of adapter")
    layers: list[int] = option([1, 2, 3, 4], "in which residual layers")
    rank: int = option(8, "of the change", low=1, high=_MOST)
    alpha: float = option(16.0, "the change is scaled by alpha / rank", low=_TINY, high=_MOST)
    dropout: float = option(0.0, "before the change", low=0, high=1)


@dataclass
class Ssf:
    """Scale and shift after each BatchNorm of the layers (Lian 2022); the identity at the start."""

    kind: str = option("ssf", "the form of adapter")
    layers: list[int] = option([1, 2, 3, 4], "in which residual layers")


@dataclass
class BitFit:
    """Biases alone (Ben Zaken 2022): a shift after each BatchNorm of the layers."""

    kind: str = option("bitfit", "the form of adapter")
    layers: list[int] = option([1, 2, 3, 4], "in which residual layers")


@dataclass
class LinearHead:
    """One linear layer."""

    kind: str = option("linear", "the form of head")
    dropout: float = option(0.5, "before the layer", low=0, high=1)


@dataclass
class MlpHead:
    """The study's 512-256-128-k head."""

    kind: str = option("mlp", "the form of head")
    dropout: float = option(0.5, "before each layer", low=0, high=1)
    hidden: list[int] = option([256, 128], "widths of the hidden layers")


@dataclass
class ClassBalancedFocal:
    """Class-balanced focal loss (Cui 2019, Lin 2017)."""

    kind: str = option("cb_focal", "the loss")
    # At 1 the effective number of samples is 0 / 0.
    beta: float = option(0.9999, "of the effective number of samples", low=0, high=_BELOW_ONE)
    gamma: float = option(2.0, "by which easy samples count less", low=0, high=_MOST)
    smoothing: float = option(0.0, "share of each label spread over all", low=0, high=_BELOW_ONE)


@dataclass
class Balanced:
    """Focal loss (cross-entropy at gamma 0) whose class weights balance at any count."""

    kind: str = option("balanced", "the loss")
    power: float = option(1.0, "weights are 1 / nodes^power; 1: equal shares", low=0, high=_MOST)
    gamma: float = option(0.0, "by which easy samples count less", low=0, high=_MOST)
    smoothing: float = option(0.0, "share of each label spread over all", low=0, high=_BELOW_ONE)


@dataclass
class CrossEntropy:
    """Cross-entropy."""

    kind: str = option("cross_entropy", "the loss")
    smoothing: float = option(0.0, "share of each label spread over all", low=0, high=_BELOW_ONE)


@dataclass
class CostSensitive:
    """Superblock network: cross-entropy, by what losing a node's type costs the encoder."""

    kind: str = option("cost_sensitive", "the loss")
    power: float = option(1.0, "weights are regret^power; 0: cross-entropy", low=0, high=4)
    cap: float = option(20.0, "most weight, in means before they are made 1", low=1, high=_MOST)
    smoothing: float = option(0.0, "share of each label spread over all", low=0, high=_BELOW_ONE)


@dataclass
class Focal:
    """Focal loss (Lin 2017)."""

    kind: str = option("focal", "the loss")
    gamma: float = option(2.0, "by which easy samples count less", low=0, high=_MOST)
    alpha: Any = option(None, "null, or one weight a class")
    smoothing: float = option(0.0, "share of each label spread over all", low=0, high=_BELOW_ONE)


@dataclass
class HardNegative:
    """Stage 1 alone: all PARTITION blocks of a batch and the hardest NONE (OHEM, SSD)."""

    kind: str = option("hard_negative", "the loss")
    ratio: float = option(3.0, "most NONE blocks for each PARTITION block", low=1, high=_MOST)
    smoothing: float = option(0.0, "share of each label spread over all", low=0, high=_BELOW_ONE)


@dataclass
class Rates:
    """Learning rate of each part of the network; parts that are not trained have none."""

    backbone: float | None = option(
        "${backbone_rate:${method.name}}",
        "1e-3 from a random start, else 1e-4; null where it is frozen",
        low=_TINY,
        high=_MOST,
    )
    adapters: float = option(1e-4, "of the adapters", low=_TINY, high=_MOST)
    conditioning: float = option(5e-4, "of what takes the qindex in", low=_TINY, high=_MOST)
    head: float = option(5e-4, "of the head", low=_TINY, high=_MOST)


@dataclass
class AdamW:
    """AdamW, one group a part of the network; parts without trainable parameters are left out."""

    weight_decay: float = option(1e-4, "decoupled", low=0, high=_MOST)
    lr: Rates = field(default_factory=Rates)


@dataclass
class Muon(AdamW):
    """Muon for the kernels of convolutions below the head, AdamW for the rest, at one rate."""

    kind: str = option("muon", "the optimizer", choices=("muon",))
    momentum: float = option(0.95, "of Muon", low=0, high=_BELOW_ONE)


@dataclass
class Cosine:
    """CosineAnnealingLR over trainer.max_epochs."""

    kind: str = option("cosine", "the schedule", choices=SCHEDULES)
    eta_min: float = option(1e-6, "rate at the end", low=0, high=_MOST)


@dataclass
class OneCycle:
    """OneCycleLR over the run's steps, up to the optimizer's rates."""

    kind: str = option("onecycle", "the schedule", choices=SCHEDULES)
    pct_start: float = option(0.3, "share of the steps that rise", low=_TINY, high=_BELOW_ONE)


@dataclass
class Constant:
    """The optimizer's rates throughout."""

    kind: str = option("constant", "the schedule", choices=SCHEDULES)


@dataclass
class Data:
    """The dataset, its split and its batches."""

    path: str | None = option(None, "dataset folder; null: the embedded dataset", path=True)
    size: int = option(16, "luma samples a side of a block", choices=SIZES)
    crop: int = option(
        256, "side of a crop of stage=superblock, a multiple of 64", low=64, high=MOST_CROP
    )
    context: int = option(0, "margin around a block, luma samples", low=0, high=MOST["context"])
    protocol: str = option("by_sequence", "how nodes are split", choices=tuple(PROTOCOLS))
    split_seed: int = option(42, "of by_sequence and random_blocks", low=0, high=2**32 - 1)
    split_list: str | None = option(None, "CSV sequence,split for by_sequence", path=True)
    costs: str | None = option(None, "of data costs, for loss=cost_sensitive", path=True)
    batch_size: int = option(
        128, "blocks of a training batch; BatchNorm needs two", low=2, high=_MOST
    )
    eval_batch_size: int = option(1024, "in evaluation", low=1, high=MOST["eval_batch_size"])
    num_workers: int = option(0, "processes that make batches", low=0, high=1024)
    planes: str = option("host", "device: planes lie in the GPU's memory", choices=PLANES)
    sampling: str = option("natural", "balanced: classes drawn alike", choices=SAMPLINGS)
    augment: str = option("none", "symmetries, with their label maps", choices=AUGMENTATIONS)
    levels: bool = option(False, "stage=superblock: negate and shift the luma of crops")
    noise: float = option(0.0, "deviation, by that of each training block", low=0, high=1)
    mixup: float = option(0.0, "alpha of the Beta distribution; 0: none", low=0, high=_MOST)


@dataclass
class Injection:
    """Training blocks of a Stage 3 that do not belong to it, as Stage 2 would send them."""

    source: str = option("none", "where such blocks come from", choices=INJECTION_SOURCES)
    share: float | None = option(0.25, "of an epoch's blocks; 0 or null: none", low=0, high=0.9)
    labels: str = option("nearest", "of blocks of no class of the stage", choices=INJECTION_LABELS)
    stage2: str | None = option(None, "checkpoint of Stage 2, for source confusion", path=True)


@dataclass
class Cache:
    """Features of the frozen part, computed once for all epochs and runs."""

    mode: str = option("auto", "off: compute them in every epoch", choices=("auto", "off"))
    folder: str | None = option(None, "null: features/ in AV1PART_CACHE", path=True)
    limit_gb: float = option(
        20.0, "of all files; inf: no limit", low=0, high=math.inf, infinite=True
    )


@dataclass
class Trainer:
    """Arguments of Lightning's Trainer, and two of torch's own; null is Lightning's default.

    Its further arguments are in `config.unknown.NOT_TAKEN`.
    """

    accelerator: str = option("cpu", "where to train", choices=ACCELERATORS)
    devices: Any = option(1, "how many, or auto")
    num_nodes: int | None = option(None, "machines", low=1, high=_MOST)
    strategy: str | None = option(None, "ddp: several processes", choices=("auto", "ddp"))
    max_epochs: int = option(50, "epochs", low=1, high=_MOST)
    max_steps: int | None = option(None, "end after so many; -1: none", low=-1, high=_MOST)
    max_time: str | None = option(None, "end after DD:HH:MM:SS of training")
    min_epochs: int | None = option(None, "before patience or max_time end it", low=1, high=_MOST)
    min_steps: int | None = option(None, "likewise", low=1, high=_MOST)
    limit_train_batches: Any = option(None, "an epoch: a number of batches, or a share as 0.1")
    limit_val_batches: Any = option(None, "a validation: likewise")
    check_val_every_n_epoch: int | None = option(
        None, "validate after every n-th epoch, and the last", low=1, high=_MOST
    )
    val_check_interval: Any = option(None, "validate every so many batches, or share of an epoch")
    accumulate_grad_batches: int | None = option(None, "batches a step", low=1, high=_MOST)
    precision: str = option("32-true", "to compute in; weights stay float32", choices=PRECISIONS)
    deterministic: Any = option(
        True, "warn: allow CUDA kernels that are not", choices=(True, False, "warn")
    )
    benchmark: bool | None = option(None, "cuDNN times its algorithms first")
    gradient_clip_val: float | None = option(
        None, "largest norm, or value, of the gradient", low=0, high=_MOST
    )
    gradient_clip_algorithm: str | None = option(
        None, "what gradient_clip_val limits", choices=("norm", "value")
    )
    detect_anomaly: bool | None = option(None, "name the operation that gives NaN; slow")
    log_every_n_steps: int = option(50, "steps between log lines", low=0, high=_MOST)
    profiler: str | None = option(
        None, "where the time goes", choices=(None, "simple", "advanced", "pytorch")
    )
    matmul_precision: str = option(
        "highest", "high: float32 products in tf32 on a GPU", choices=("highest", "high")
    )
    compile: bool = option(False, "torch.compile what lies above the frozen trunk")


@dataclass
class Callbacks:
    """Early stopping, verified checkpoints, plots."""

    patience: int | None = option(5, "validations without a better score", low=1, high=_MOST)
    verify_every: str = option(
        "improvement", "epoch: every one in full", choices=("improvement", "epoch")
    )
    verify: str = option("module", "where a file is reloaded", choices=VERIFICATIONS)
    verify_batches: int | None = option(100, "val batches compared; null: all", low=1, high=_MOST)
    tolerance_pp: float = option(1.0, "largest difference of macro-F1, points", low=0, high=100)
    save_every: str = option(
        "improvement", "epoch: a checkpoint of every epoch", choices=("improvement", "epoch")
    )
    progress_bar: bool = option(True, "on a terminal; a log gets a line an epoch")
    plots: bool = option(True, "draw learning curves and confusion matrix")


@dataclass
class Logger:
    """Lightning's loggers."""

    names: list[str] = option(["csv", "tensorboard"], "any of csv, tensorboard")


# Groups of `av1part predict`


@dataclass
class CumulatedPolicy:
    """A node's most probable types whose probabilities add up to tau."""

    kind: str = option("cumulated", "", choices=POLICIES)
    tau: Any = option(0.9, "cumulated probability, or a list: one for each of policy.sizes")
    keep: bool = option(True, "the encoder's own pruning holds too; false: it is replaced")
    sizes: list[int] | None = option(None, "node sizes that get hints; null: all predicted ones")


@dataclass
class WorthPolicy:
    """A node's types that are worth their time, by what losing them would cost."""

    kind: str = option("worth", "", choices=POLICIES)
    least: float = option(0.02, "least expected worth of a type", low=_TINY, high=1)
    keep: bool = option(True, "the encoder's own pruning holds too; false: it is replaced")
    sizes: list[int] | None = option(None, "node sizes that get hints; null: all predicted ones")


@dataclass
class TopPolicy:
    """A node's k most probable types."""

    kind: str = option("top", "", choices=POLICIES)
    k: int = option(2, "how many", low=1, high=10)
    keep: bool = option(True, "the encoder's own pruning holds too; false: it is replaced")
    sizes: list[int] | None = option(None, "node sizes that get hints; null: all predicted ones")


@dataclass
class OneTypePolicy:
    """One type at every node: NONE or SPLIT."""

    kind: str = option("none", "", choices=POLICIES)
    keep: bool = option(True, "the encoder's own pruning holds too; false: it is replaced")
    sizes: list[int] | None = option(None, "node sizes that get hints; null: all predicted ones")


@dataclass
class Plan:
    """Ways to encode that are compared; auto is presets, and with model= the choice model."""

    points: dict[str, Any] = option({}, "name: its keys, such as {cpu_used: 1}")
    anchors: Any = option(None, "points that others are compared with; null: the slowest presets")


# Keys of the verbs


@dataclass
class Trees:
    """How boosted trees are trained: one set of trees a node size, log loss over AV1's types."""

    class_weights: str = option(
        "none", "balanced: each type's nodes n / (k n_c)", choices=TREE_WEIGHTS
    )
    iterations: int = option(500, "trees of a type, at most", low=1, high=10_000)
    patience: int = option(20, "iterations without a lower val loss", low=1, high=10_000)
    learning_rate: float = option(0.08, "share of each tree that is added", low=_TINY, high=1)
    leaves: int = option(31, "of a tree, at most", low=2, high=64)
    leaf_nodes: int = option(50, "training nodes of a leaf, at least", low=1, high=10**9)
    features: float = option(0.5, "share of the features for each tree", low=_TINY, high=1)
    seed: int = option(42, "of that choice", low=0, high=2**31 - 1)
    tries: int = option(1, "settings that are trained; val chooses one", low=1, high=80)


@dataclass
class Train:
    """Keys of `av1part train` outside of groups."""

    seed: int = option(42, "of weights, order, dropout, augmentation", low=0, high=2**32 - 1)
    taxonomy: str = option("v6", "which types there are", choices=tuple(TAXONOMIES))
    conditioning: str = option(
        "${conditioning_of:${oc.select:backbone.kind,resnet18}}",
        "qindex: FiLM on the pooled features; qindex_blocks: in every residual block",
        choices=CONDITIONINGS,
    )
    stage1: str | None = option(
        None, "checkpoint of stage1 or superblock whose backbone is the start", path=True
    )
    name: str = option("${stage.name}-${method.name}-seed${seed}", "of the folder, runs/<name>")
    resume: bool = option(False, "go on with the run in that folder, to the same result")
    defects: list[str] = option([], "the study's, on purpose; the run is marked: docs/forensics.md")
    baselines: str = option("none", "trees: beside constant and prior", choices=PEERS)
    trees: Trees = field(default_factory=Trees)


@dataclass
class OtherData:
    """Another dataset than the checkpoint's."""

    path: str | None = option(None, "null: the checkpoint's, its hash checked", path=True)
    protocol: str | None = option(None, "with data.path; null: the checkpoint's")
    split_list: str | None = option(None, "with data.path: CSV sequence,split", path=True)


@dataclass
class Calibrate:
    """Keys of `av1part calibrate`."""

    stage1: Any = checkpoint(None, "a whole cascade instead of CKPT..., as for pipeline")
    stage2: Any = checkpoint(None, "likewise")
    stage3_rect: Any = checkpoint(None, "likewise")
    stage3_ab: Any = checkpoint(None, "likewise")
    stage3_1to4: Any = checkpoint(None, "likewise")
    objective: str = option("macro_f1", "what the threshold maximises", choices=OBJECTIVES)
    ensemble: str = option("mean", "how several checkpoints answer", choices=ENSEMBLES)
    data: OtherData = field(default_factory=OtherData)
    device: str = option("cpu", "or cuda")


@dataclass
class Pipeline:
    """Keys of `av1part pipeline`."""

    stage1: Any = checkpoint(MISSING, "checkpoint, or a list of them: an ensemble")
    stage2: Any = checkpoint(None, "likewise; Stage 1's taxonomy says which stages there are")
    stage3_rect: Any = checkpoint(None, "likewise")
    stage3_ab: Any = checkpoint(None, "likewise; not at 8x8")
    stage3_1to4: Any = checkpoint(None, "likewise; for taxonomy v6_1to4, not at 8x8")
    ensemble: str = option("mean", "how several checkpoints answer", choices=ENSEMBLES)
    calibration: str = option(
        "auto", "auto: the stored one if it suits, else fit", choices=CALIBRATION_SOURCES
    )
    data: OtherData = field(default_factory=OtherData)
    split: str = option("val", "val | test; test is only used when asked for")
    name: str = option("pipeline", "of the result folder, runs/<name>")
    defects: list[str] = option([], "those of its checkpoints and of the cascade; marks the result")
    baselines: str = option("none", "trees: beside constant and prior", choices=PEERS)
    trees: Trees = field(default_factory=Trees)
    device: str = option("cpu", "or cuda")
    precision: str = option("32-true", "bf16-mixed: faster where there is bf16", choices=PRECISIONS)


@dataclass
class FittedOn:
    """The dataset that a predictor without a network is fitted on, and its split."""

    path: str | None = option(None, "dataset folder; null: the embedded dataset", path=True)
    protocol: str = option("by_sequence", "how nodes are split", choices=tuple(PROTOCOLS))
    split_seed: int = option(42, "of by_sequence and random_blocks", low=0, high=2**32 - 1)
    split_list: str | None = option(None, "CSV sequence,split for by_sequence", path=True)


@dataclass
class Bundle:
    """Keys of `av1part bundle`."""

    out: str = option(MISSING, "file to write", path=True)
    kind: str = option("cascade", "or fitted on data.*, train", choices=BUNDLED)
    stage1: Any = checkpoint(None, "checkpoint of a cascade; a list: an ensemble, or several sizes")
    stage2: Any = checkpoint(None, "likewise; Stage 1's taxonomy says which stages there are")
    stage3_rect: Any = checkpoint(None, "likewise")
    stage3_ab: Any = checkpoint(None, "likewise; not at 8x8")
    stage3_1to4: Any = checkpoint(None, "likewise; for taxonomy v6_1to4, not at 8x8")
    superblock: str | None = option(
        None, "checkpoint of stage=superblock, instead of a cascade", path=True
    )
    ensemble: str = option("mean", "how several checkpoints answer", choices=ENSEMBLES)
    calibration: str = option(
        "auto", "auto: stored beside the checkpoints, if there", choices=("auto", "stored", "none")
    )
    data: FittedOn = field(default_factory=FittedOn)
    trees: Trees = field(default_factory=Trees)
    licence: str | None = option(None, "a line for who gets the file, such as CC-BY-4.0")
    outside: str = option(
        "warn", "what it does outside of what it was trained on", choices=OUTSIDES
    )
    half: bool = option(False, "with superblock=: store its weights as float16, half the size")
    show: bool = option(False, "as --show: print what a bundle holds, run nothing")


@dataclass
class Predict:
    """Keys of `av1part predict`."""

    out: str = option(MISSING, "folder to make, with a table a source", path=True)
    model: str | None = option(
        None,
        "a file of av1part bundle; without any predictor: pretrained, the shipped one",
        path=True,
    )
    stage1: Any = checkpoint(None, "checkpoint of a cascade, or a list: an ensemble")
    stage2: Any = checkpoint(None, "likewise; Stage 1's taxonomy says which stages there are")
    stage3_rect: Any = checkpoint(None, "likewise")
    stage3_ab: Any = checkpoint(None, "likewise; not at 8x8")
    stage3_1to4: Any = checkpoint(None, "likewise; for taxonomy v6_1to4, not at 8x8")
    superblock: str | None = option(
        None, "checkpoint of stage=superblock, instead of a cascade", path=True
    )
    ensemble: str = option("mean", "how several checkpoints answer", choices=ENSEMBLES)
    calibration: str = option(
        "auto", "auto: stored beside the checkpoints, if there", choices=("auto", "stored", "none")
    )
    cq_levels: Any = option([20, 32, 43, 55], "aomenc's --cq-level, 0 to 63")
    qindex: Any = option(None, "list of base_q_idx, 0 to 255, instead of cq_levels")
    hints: bool = option(False, "write the hint files of the policy too")
    page: bool = option(False, "write a page that shows frames, cuts and probabilities too")
    frames: Any = option(None, "keep the first so many frames; null: all")
    every: Any = option(1, "of so many frames, keep one")
    width: Any = option(None, "of raw YUV whose name does not say")
    height: Any = option(None, "likewise")
    bit_depth: Any = option(None, "likewise")
    layout: Any = option(None, "likewise: 420, 422, 444, 440, gray, nv12, p010 and others")
    interlaced: Any = option("refuse", "weave: take both fields as one frame, as coded")
    device: str = option("cpu", "or cuda")
    precision: str = option("32-true", "bf16-mixed: faster where there is bf16", choices=PRECISIONS)


@dataclass
class Encode:
    """Keys of `av1part encode`."""

    out: str = option(MISSING, "folder of the comparison; one that was begun goes on", path=True)
    model: str | None = option(
        None, "a file of av1part bundle, or pretrained, for points with it", path=True
    )
    cq_levels: Any = option(None, "at least four of 1 to 63; null: 20 32 43 55, or CTC's")
    ctc: bool = option(False, "the command line of AOM's common test conditions, all-intra")
    frames: Any = option(None, "keep the first so many frames of a clip; null: all")
    jobs: Any = option(1, "encodes at a time; seconds count at 1 alone")
    repeats: Any = option(1, "of each encode, of whose seconds the median counts")
    vmaf: bool = option(False, "compute VMAF too, which needs the extra vmaf")
    screen: Any = option([], "patterns of the names of clips that are screen content")
    data: FittedOn = field(default_factory=FittedOn)
    width: Any = option(None, "of raw YUV whose name does not say")
    height: Any = option(None, "likewise")
    bit_depth: Any = option(None, "likewise")
    layout: Any = option(None, "likewise: 420, 422, 444, 440, gray, nv12, p010 and others")
    interlaced: Any = option("refuse", "weave: take both fields as one frame, as coded")


@dataclass
class Validate:
    """Keys of `av1part validate`."""

    data: OtherData = field(default_factory=OtherData)
    split: str = option("val", "val | test | train; test is only used when asked for")
    variants: Any = option(None, "of a sweep with split=test: which variants; null: all")
    reopen: bool = option(False, "look at test again, which is recorded")
    show: bool = option(False, "as --show: print what the checkpoint holds, run nothing")
    out: str | None = option(None, "folder for metrics.json and confusion.csv", path=True)
    baselines: str = option("none", "trees: beside constant and prior", choices=PEERS)
    trees: Trees = field(default_factory=Trees)
    device: str = option("cpu", "or cuda")
    precision: str = option("32-true", "bf16-mixed: faster where there is bf16", choices=PRECISIONS)


@dataclass
class ScoredData:
    """The dataset that predictors are scored on, and its split."""

    path: str | None = option(None, "dataset folder; null: the embedded dataset", path=True)
    protocol: str = option("by_sequence", "how nodes are split", choices=tuple(PROTOCOLS))
    split_seed: int = option(42, "of by_sequence and random_blocks", low=0, high=2**32 - 1)
    split_list: str | None = option(None, "CSV sequence,split for by_sequence", path=True)


@dataclass
class BaselineData:
    """The dataset whose training split the baselines are fitted on."""

    path: str | None = option(None, "for the baselines; null: that of data.path", path=True)
    protocol: str = option("by_sequence", "likewise", choices=tuple(PROTOCOLS))
    split_seed: int = option(42, "likewise", low=0, high=2**32 - 1)
    split_list: str | None = option(None, "likewise", path=True)


@dataclass
class WeightsData:
    """The dataset whose val split class weights are fitted on."""

    path: str | None = option(None, "dataset for class weights of Stage 2; null: none", path=True)
    protocol: str = option("by_sequence", "likewise", choices=tuple(PROTOCOLS))
    split_seed: int = option(42, "likewise", low=0, high=2**32 - 1)
    split_list: str | None = option(None, "likewise", path=True)


@dataclass
class Compare:
    """Keys of `av1part compare`."""

    out: str = option(MISSING, "folder to make, for scores and a report", path=True)
    split: str = option(
        "val", "what is scored; all: every node, of a dataset of its own", choices=SCORED_SPLITS
    )
    data: ScoredData = field(default_factory=ScoredData)
    baselines: Any = option(["prior", "variance"], "fitted on a training split, scored beside")
    fit: BaselineData = field(default_factory=BaselineData)
    weights: WeightsData = field(default_factory=WeightsData)
    against: str | None = option(None, "name the others are compared with; null: the first")
    calibration: str = option(
        "auto", "auto: stored beside a checkpoint, if there", choices=("auto", "stored", "none")
    )
    device: str = option("cpu", "or cuda")
    precision: str = option("32-true", "bf16-mixed: faster where there is bf16", choices=PRECISIONS)


@dataclass
class Adapt:
    """Keys of `av1part adapt`."""

    out: str = option(MISSING, "bundle to write", path=True)
    report: str | None = option(
        None, "folder for scores and a page; null: beside out, NAME-adapted", path=True
    )
    frames: int = option(4, "of the first half to label and adapt to", low=1, high=10**6)
    scored: int = option(4, "of the second half to label and score on", low=1, high=10**6)
    gap: int | None = option(
        None,
        "frames left out behind the first half; null: a tenth, at least one",
        low=0,
        high=10**9,
    )
    steps: int = option(10, "gradient steps of each head", low=1, high=1000)
    rate: float = option(1.0, "length of a step; 1 never raises the loss", low=_TINY, high=2)
    prior: float = option(1000.0, "nodes that the bundle's own head counts as", low=1, high=1e12)
    labels: str | None = option(
        None, "folder to keep the labels in, or with them; null: none is kept", path=True
    )
    sequence: str | None = option(None, "of SOURCE, where that is a dataset of several")
    cq_levels: Any = option([20, 32, 43, 55], "aomenc's --cq-level, 0 to 63")
    cpu_used: Any = option(0, "aomenc's --cpu-used of the full search, 0 to 9")
    one_to_four: bool | None = option(None, "allow HORZ_4 and VERT_4; null: if the bundle does")
    jobs: int = option(2, "encoders at a time", low=1, high=1024)
    licence: str | None = option(None, "a line for who gets the file; null: the bundle's")
    outside: str | None = option(
        None, "as of bundle; null: the bundle's own", choices=(None, *OUTSIDES)
    )
    width: Any = option(None, "of raw YUV whose name does not say")
    height: Any = option(None, "likewise")
    bit_depth: Any = option(None, "likewise")
    layout: Any = option(None, "likewise: 420, 422, 444, 440, gray, nv12, p010 and others")
    interlaced: Any = option("refuse", "weave: take both fields as one frame, as coded")
    device: str = option("cpu", "or cuda")
    precision: str = option("32-true", "bf16-mixed: faster where there is bf16", choices=PRECISIONS)


@dataclass
class DataBuild:
    """Keys of `av1part data build`."""

    out: str = option(MISSING, "dataset folder to make", path=True)
    cq_levels: Any = option([20, 32, 43, 55], "aomenc's --cq-level, 0 to 63")
    sizes: Any = option([64, 32, 16, 8], "node sizes kept")
    cpu_used: Any = option(0, "aomenc's --cpu-used, 0 to 9")
    one_to_four: Any = option(False, "allow HORZ_4 and VERT_4")
    frames: Any = option(None, "keep the first so many frames; null: all")
    every: Any = option(1, "of so many frames, keep one")
    jobs: Any = option(2, "encoders at a time")
    width: Any = option(None, "of raw YUV whose name does not say")
    height: Any = option(None, "likewise")
    bit_depth: Any = option(None, "likewise")
    layout: Any = option(None, "likewise: 420, 422, 444, 440, gray, nv12, p010 and others")
    interlaced: Any = option("refuse", "weave: take both fields as one frame, as coded")


@dataclass
class DataCosts:
    """Keys of `av1part data costs`."""

    out: str = option(MISSING, "file to make, such as costs.parquet", path=True)
    jobs: Any = option(2, "encoders at a time")
    width: Any = option(None, "of raw YUV whose name does not say")
    height: Any = option(None, "likewise")
    bit_depth: Any = option(None, "likewise")
    layout: Any = option(None, "likewise: 420, 422, 444, 440, gray, nv12, p010 and others")


@dataclass
class DataImport:
    """Keys of `av1part data import`."""

    out: str = option(MISSING, "dataset folder to make", path=True)
    sizes: Any = option([64, 32, 16, 8], "node sizes kept")
    yuv: str | None = option(None, "partition-frames: the clip, if not beside the text", path=True)
    width: Any = option(None, "of that clip, if its name does not say")
    height: Any = option(None, "likewise")
    bit_depth: Any = option(None, "null: what its name says, else 10")


@dataclass
class Report:
    """Keys of `av1part report`."""

    out: str | None = option(None, "folder; null: report/ in the first run's", path=True)
    thesis: bool = option(False, "of one sweep: thesis.md and thesis.tex too")
    publish: str | None = option(None, "of one sweep: folder for results to commit", path=True)
    predictions: bool = option(True, "publish the predictions of each node too")


@dataclass
class Demo:
    """Keys of `av1part demo`; those of `train` go to every training."""

    name: str = option("demo", "of the folder, runs/<name>")
    plan: dict[str, Any] = option({}, "run name: overrides of av1part train, in order")
    cascade: dict[str, Any] = option({}, "stage: runs of the plan")


@dataclass(frozen=True)
class Group:
    """A Hydra group.

    Attributes:
        choices: Name to an instance with its values.
        own: Keys that a file of one's own must have even where it has none of the others; None
            where it must have all of them.
        closed: Whether a key that none of the choices has is refused here; elsewhere the models
            or Lightning do so.
        verbs: Primary configurations that it belongs to.
    """

    choices: Mapping[str, Any]
    own: tuple[str, ...] | None = None
    closed: bool = False
    verbs: tuple[str, ...] = ("train",)


GROUPS: Mapping[str, Group] = {
    "stage": Group(
        {
            "stage1": StageDefaults(),
            "stage2": StageDefaults("stage2", "adapter"),
            "stage3_rect": StageDefaults("stage3_rect", "frozen"),
            "stage3_ab": StageDefaults("stage3_ab", "frozen"),
            "stage3_1to4": StageDefaults("stage3_1to4", "frozen"),
        },
        own=("name",),
    ),
    "method": Group(
        {
            "auto": Auto(),
            "adapter": Adapters(),
            "finetune": Finetune(),
            "frozen": Frozen(),
            "meta": Meta(),
            "partial": Partial(),
            "scratch": Scratch(),
            "ulmfit": Ulmfit(),
        },
        own=("name",),
    ),
    "backbone": Group({"resnet18": Backbone(), "superblock": Superblock()}, own=()),
    "adapter": Group(
        {
            "bottleneck": Bottleneck(),
            "conv1x1": Conv(),
            "lora": Lora(),
            "ssf": Ssf(),
            "bitfit": BitFit(),
        },
        own=("kind",),
    ),
    "head": Group({"linear": LinearHead(), "mlp": MlpHead()}, own=("kind",)),
    "loss": Group(
        {
            "balanced": Balanced(),
            "cb_focal": ClassBalancedFocal(),
            "cost_sensitive": CostSensitive(),
            "cross_entropy": CrossEntropy(),
            "focal": Focal(),
            "hard_negative": HardNegative(),
        },
        own=("kind",),
    ),
    "optimizer": Group({"adamw": AdamW(), "muon": Muon()}, closed=True),
    "plan": Group({"auto": Plan()}, own=(), verbs=("encode",)),
    "policy": Group(
        {
            "cumulated": CumulatedPolicy(),
            "worth": WorthPolicy(),
            "top": TopPolicy(),
            "none": OneTypePolicy("none"),
            "split": OneTypePolicy("split"),
        },
        own=("kind",),
        closed=True,
        verbs=("predict",),
    ),
    "scheduler": Group(
        {"cosine": Cosine(), "onecycle": OneCycle(), "constant": Constant()},
        own=("kind",),
        closed=True,
    ),
    "data": Group({"default": Data()}, closed=True),
    "injection": Group({"none": Injection()}, closed=True),
    "cache": Group({"auto": Cache()}, closed=True),
    "trainer": Group({"cpu": Trainer()}, closed=True),
    "callbacks": Group({"default": Callbacks()}, closed=True),
    "logger": Group({"default": Logger()}, closed=True),
}
"""Groups of `av1part train`. Further choices, such as adapter=l34, are files under conf/."""

VERB_KEYS: Mapping[str, Any] = {
    "train": Train(),
    "calibrate": Calibrate(),
    "pipeline": Pipeline(),
    "validate": Validate(),
    "bundle": Bundle(),
    "predict": Predict(),
    "encode": Encode(),
    "compare": Compare(),
    "adapt": Adapt(),
    "data_build": DataBuild(),
    "data_import": DataImport(),
    "data_costs": DataCosts(),
    "report": Report(),
    "demo": Demo(),
}
"""Primary configuration to its keys outside of groups."""


def groups_of(config: str) -> dict[str, Group]:
    """Return the groups of a primary configuration."""
    return {name: group for name, group in GROUPS.items() if config in group.verbs}


def options_of(config: str) -> dict[str, Option]:
    """Return the options of a primary configuration by their dotted keys.

    Args:
        config: Its name, such as `train`; one that is not in `VERB_KEYS` has none.

    Returns:
        Key to option. Of a group with several choices these are the keys of all of them; where
        choices share a key, that of the first.
    """
    found = dict(_walk(VERB_KEYS[config], "")) if config in VERB_KEYS else {}
    for group, spec in groups_of(config).items():
        for choice in spec.choices.values():
            for key, known in _walk(choice, f"{group}."):
                found.setdefault(key, known)
    return found


def _walk(values: Any, prefix: str) -> list[tuple[str, Option]]:
    found: list[tuple[str, Option]] = []
    for entry in fields(values):
        key, known = f"{prefix}{entry.name}", entry.metadata.get("option")
        if known is None:
            found += _walk(getattr(values, entry.name), f"{key}.")
            continue
        kind, _, null = str(entry.type).partition(" | None")
        nullable = bool(null) or "None" in str(entry.type) or kind == "Any"
        kind = kind.partition("[")[0]
        found.append((key, replace(known, kind=kind, nullable=nullable)))
    return found


def _text_options() -> dict[str, Option]:
    """Return the options of all verbs whose values are text, by key, with Hydra's own."""
    others = (*GROUPS, "experiment", "hydra.run.dir", "hydra.sweep.dir")
    found = {key: Option("", kind="str", nullable=False) for key in others}
    for config in VERB_KEYS:
        for key, known in options_of(config).items():
            if known.path or known.kind == "str":
                found[key] = replace(known, nullable=True)  # `check_values` judges a null
    return found


TEXT_OPTIONS = _text_options()
"""Options of any verb whose values are text, which the command line quotes for Hydra."""
