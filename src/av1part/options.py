"""Values of options that the configuration checks and the code behind it acts on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Conditioning = Literal["none", "qindex"]
Sampling = Literal["natural", "balanced"]
Augmentation = Literal["none", "symmetries"]
Planes = Literal["host", "device"]
InjectionSource = Literal["none", "confusion", "uniform"]
InjectionLabels = Literal["nearest", "random"]
Schedule = Literal["cosine", "onecycle", "constant"]
Placement = Literal["layer", "block"]
Verification = Literal["module", "process"]
Ensemble = Literal["mean", "vote"]
CalibrationSource = Literal["auto", "fit", "stored", "none"]
Objective = Literal["macro_f1", "accuracy", "f1_positive"]
"""What a threshold maximises: macro-F1, accuracy, or the F1 of Stage 1's second class."""

CONDITIONINGS: tuple[str, ...] = get_args(Conditioning)
SAMPLINGS: tuple[str, ...] = get_args(Sampling)
AUGMENTATIONS: tuple[str, ...] = get_args(Augmentation)
PLANES: tuple[str, ...] = get_args(Planes)
INJECTION_SOURCES: tuple[str, ...] = get_args(InjectionSource)
INJECTION_LABELS: tuple[str, ...] = get_args(InjectionLabels)
SCHEDULES: tuple[str, ...] = get_args(Schedule)
PLACEMENTS: tuple[str, ...] = get_args(Placement)
VERIFICATIONS: tuple[str, ...] = get_args(Verification)
ENSEMBLES: tuple[str, ...] = get_args(Ensemble)
CALIBRATION_SOURCES: tuple[str, ...] = get_args(CalibrationSource)
OBJECTIVES: tuple[str, ...] = get_args(Objective)

MOST: Mapping[str, int] = {"context": 1 << 8, "eval_batch_size": 1 << 16}
"""What a run may ask of its data, and a checkpoint say of it: they decide a batch's memory."""

PATH_KEYS = (
    *("stage1", "stage2", "stage3_rect", "stage3_ab", "stage3_1to4", "out", "publish", "yuv"),
    *("data.path", "data.split_list", "backbone.weights", "cache.folder", "injection.stage2"),
)
"""Keys whose values are paths, which the command quotes for Hydra."""
