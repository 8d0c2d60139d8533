"""Values of options that the configuration checks and the code behind it acts on."""

from __future__ import annotations

from typing import Literal, get_args

Conditioning = Literal["none", "qindex"]
Sampling = Literal["natural", "balanced"]
Augmentation = Literal["none", "symmetries"]
InjectionSource = Literal["none", "confusion", "uniform"]
InjectionLabels = Literal["nearest", "random"]
Schedule = Literal["cosine", "onecycle", "constant"]
Placement = Literal["layer", "block"]

CONDITIONINGS: tuple[str, ...] = get_args(Conditioning)
SAMPLINGS: tuple[str, ...] = get_args(Sampling)
AUGMENTATIONS: tuple[str, ...] = get_args(Augmentation)
INJECTION_SOURCES: tuple[str, ...] = get_args(InjectionSource)
INJECTION_LABELS: tuple[str, ...] = get_args(InjectionLabels)
SCHEDULES: tuple[str, ...] = get_args(Schedule)
PLACEMENTS: tuple[str, ...] = get_args(Placement)
