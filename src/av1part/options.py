"""Values of options that the configuration checks and the code behind it acts on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Conditioning = Literal["none", "qindex", "qindex_blocks"]
BackboneKind = Literal["resnet18", "superblock"]
Sampling = Literal["natural", "balanced"]
Augmentation = Literal["none", "symmetries"]
Planes = Literal["host", "device"]
InjectionSource = Literal["none", "confusion", "uniform"]
InjectionLabels = Literal["nearest", "random"]
Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "onecycle", "constant"]
MetaAlgorithm = Literal["reptile", "fomaml"]
Placement = Literal["layer", "block"]
Verification = Literal["module", "process"]
Ensemble = Literal["mean", "vote"]
CalibrationSource = Literal["auto", "fit", "stored", "none"]
ScoredSplit = Literal["val", "test", "all"]
PolicyKind = Literal["cumulated", "worth", "top", "none", "split"]
Bundled = Literal["cascade", "prior", "variance", "trees"]
TreeWeights = Literal["none", "balanced"]
Peers = Literal["none", "trees"]
Outside = Literal["warn", "refuse"]
LabelOrigin = Literal["encoded", "resumed", "there"]
"""Encoded now; partly by an earlier call, which was stopped; or all there before."""
InputPlane = Literal["level", "detail", "steps"]
Objective = Literal["macro_f1", "accuracy", "f1_positive"]
"""What a threshold maximises: macro-F1, accuracy, or the F1 of Stage 1's second class."""

CONDITIONINGS: tuple[str, ...] = get_args(Conditioning)
BACKBONES: tuple[str, ...] = get_args(BackboneKind)
RESNET_BACKBONE, SUPERBLOCK_BACKBONE = BACKBONES
SAMPLINGS: tuple[str, ...] = get_args(Sampling)
AUGMENTATIONS: tuple[str, ...] = get_args(Augmentation)
PLANES: tuple[str, ...] = get_args(Planes)
INJECTION_SOURCES: tuple[str, ...] = get_args(InjectionSource)
INJECTION_LABELS: tuple[str, ...] = get_args(InjectionLabels)
OPTIMIZERS: tuple[str, ...] = get_args(Optimizer)
SCHEDULES: tuple[str, ...] = get_args(Schedule)
META_ALGORITHMS: tuple[str, ...] = get_args(MetaAlgorithm)
PLACEMENTS: tuple[str, ...] = get_args(Placement)
VERIFICATIONS: tuple[str, ...] = get_args(Verification)
ENSEMBLES: tuple[str, ...] = get_args(Ensemble)
CALIBRATION_SOURCES: tuple[str, ...] = get_args(CalibrationSource)
OBJECTIVES: tuple[str, ...] = get_args(Objective)
SCORED_SPLITS: tuple[str, ...] = get_args(ScoredSplit)
POLICIES: tuple[str, ...] = get_args(PolicyKind)
BUNDLED: tuple[str, ...] = get_args(Bundled)
PEERS: tuple[str, ...] = get_args(Peers)
TREE_WEIGHTS: tuple[str, ...] = get_args(TreeWeights)
OUTSIDES: tuple[str, ...] = get_args(Outside)
INPUT_PLANES: tuple[str, ...] = get_args(InputPlane)

PROTOCOLS: Mapping[str, str] = {
    "by_sequence": "every picture or clip lies wholly in train, val or test",
    "by_segment": "ranges of frames (or bands of one frame) of the same clips, with a gap between "
    "train, val and test; optimistic for new content",
    "random_blocks": "the study's protocol, blocks of the same frames in train and val; for "
    "comparison with its figures only",
    "given": "the split the imported data came with; its sequences are unknown",
}
"""Protocol to its description in reports and errors."""

MIXED = ("by_segment", "random_blocks", "given")
"""Protocols under which one picture or clip may lie in several splits."""

DRAWN = ("by_sequence", "random_blocks")
"""Protocols that draw by a seed; `by_sequence` where no list says the split."""

META = "meta"
"""The method that learns a start for adapting to single pictures."""

WITH_ADAPTERS = ("adapter", META)
"""Methods that have adapters."""

COST_SENSITIVE = "cost_sensitive"
"""The loss that weighs nodes by a file of costs."""

PRECISIONS: tuple[str, ...] = ("32-true", "bf16-mixed", "16-mixed")
"""Precisions to compute in, by the names of Lightning's Trainer; weights stay float32."""

ACCELERATORS: tuple[str, ...] = ("cpu", "gpu", "cuda", "mps", "auto")
"""Where to train, by the names of Lightning's Trainer."""

MOST: Mapping[str, int] = {"context": 1 << 8, "eval_batch_size": 1 << 16}
"""What a run may ask of its data, and a checkpoint say of it: they decide a batch's memory."""

MOST_WIDTH, MOST_DEPTH = 4096, 64
"""Channels at stride 2, and residual blocks at each stride, that a superblock network may have."""

MOST_CROP = 1 << 12
"""Luma samples a side that a training crop may have."""

RENAMED_KEYS: Mapping[str, str] = {
    "data.split": "data.protocol",
    "method.lr_backbone": "optimizer.lr.backbone",
}
"""Keys of av1part 0.1 to what they are called now; the old ones are still read, with a warning."""

INPUT_KEYS = ("stage1", "data.path", "data.split_list", "data.costs")
"""Settings that name files: results depend on what these hold, by hash, and not on their names."""

PRETRAINED = "pretrained"
"""Stands for the bundle that comes with the package, wherever a bundle is named."""
