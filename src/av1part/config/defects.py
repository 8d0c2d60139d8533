"""`defects=`: which of the study's defects a run may have, and with what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from av1part.defects import (
    CASCADE_ONLY,
    CHOSEN_ON_SCORED,
    DEFECTS,
    LATE_THAW,
    MIRROR_LABELS,
    RANDOM_BLOCKS,
    SCALED_ONCE_EVAL,
    SCALED_TWICE,
    SCALED_TWICE_EVAL,
    THAW_EPOCH,
    TINY_NOISE,
    TURN_LABELS,
    WITHOUT_TRAINING,
    listed,
)
from av1part.options import META, RESNET_BACKBONE
from av1part.system.errors import CheckpointError, ConfigError


def check_defects(settings: Mapping[str, Any]) -> None:
    """Refuse defects that do not exist, or that do nothing with the other settings of a training.

    Args:
        settings: The composed configuration of `av1part train`, plain values.

    Raises:
        ConfigError: naming the defect and the remedy.
    """
    defects = settings["defects"]
    if not defects:
        return
    check_names(defects)
    stage, backbone = settings["stage"]["name"], settings["backbone"]
    kind = backbone.get("kind", RESNET_BACKBONE)
    if kind != RESNET_BACKBONE or backbone.get("planes") is not None:
        raise ConfigError(
            f"{listed(defects)} are of the study's networks: use backbone=resnet18 with "
            "backbone.planes=null, or leave them out"
        )
    if settings["method"]["name"] == META:
        raise ConfigError(
            f"{listed(defects)} are of the study's methods: use another than method={META}, or "
            "leave them out"
        )
    scheduler, optimizer = settings["scheduler"]["kind"], settings["optimizer"].get("kind")
    rules = {
        **dict.fromkeys(CASCADE_ONLY, (False, "is of the cascade: give it to pipeline alone")),
        SCALED_TWICE_EVAL: (
            SCALED_TWICE not in defects,
            f"is what {SCALED_TWICE} does too: leave one of them out",
        ),
        SCALED_ONCE_EVAL: (SCALED_TWICE in defects, f"needs {SCALED_TWICE} too"),
        TINY_NOISE: (
            SCALED_TWICE in defects,
            f"is many times a block's contrast, if at all, only "
            f"on pixels divided twice: give {SCALED_TWICE} too",
        ),
        LATE_THAW: (
            settings["method"]["name"] == "adapter"
            and settings["trainer"]["max_epochs"] > THAW_EPOCH
            and scheduler != "onecycle"
            and optimizer is None,
            f"thaws what method=adapter froze, in epoch {THAW_EPOCH}: use method=adapter, "
            f"trainer.max_epochs of at least {THAW_EPOCH + 1}, optimizer=adamw and another "
            "scheduler than onecycle",
        ),
        MIRROR_LABELS: (
            stage == "stage3_ab" and settings["data"]["augment"] == "symmetries",
            "changes labels of stage=stage3_ab alone, with data.augment=symmetries: use both",
        ),
        TURN_LABELS: (
            stage.startswith("stage3") and settings["data"]["augment"] == "symmetries",
            "changes labels of a stage 3 alone, with data.augment=symmetries: use both",
        ),
        RANDOM_BLOCKS: (
            settings["data"]["protocol"] == "by_sequence",
            "takes the place of data.protocol=by_sequence: leave out data.protocol="
            f"{settings['data']['protocol']}",
        ),
    }
    _apply(rules, defects)


def check_cascade(defects: Sequence[str], *, split: str, calibration: str) -> None:
    """Refuse defects that do not exist, or that do not go with the settings of a pipeline.

    Args:
        defects: Of `av1part pipeline`.
        split: The split that is scored.
        calibration: Where threshold and temperatures come from.

    Raises:
        ConfigError: naming the defect and the remedy.
    """
    check_names(defects)
    rules = {
        CHOSEN_ON_SCORED: (
            split == "val" and calibration in ("auto", "fit"),
            "fits threshold and temperatures on the val nodes that are scored: use split=val and "
            "calibration=fit",
        ),
        SCALED_TWICE_EVAL: (
            SCALED_TWICE not in defects,
            f"is what {SCALED_TWICE} does too: leave one of them out",
        ),
    }
    _apply(rules, defects)


def check_names(defects: Any) -> None:
    """Refuse what is no list of different defects.

    Args:
        defects: The value of the key.

    Raises:
        ConfigError: naming the first that is none.
    """
    if not isinstance(defects, (list, tuple)):
        raise ConfigError(f"defects must be a list, such as [{LATE_THAW}], got {defects!r}")
    unknown = [name for name in defects if name not in list(DEFECTS)]
    if unknown:
        raise ConfigError(f"defects: {unknown[0]!r} is none of {', '.join(DEFECTS)}")
    if len(set(defects)) < len(defects):
        raise ConfigError(f"{listed(defects)} names a defect twice: name each once")


def check_members(defects: Sequence[str], members: Iterable[Iterable[str]]) -> None:
    """Refuse defects of a cascade that are of training, and that no checkpoint has.

    Args:
        defects: Of `av1part pipeline`.
        members: The defects of each checkpoint.

    Raises:
        CheckpointError: naming the defect.
    """
    trained = {name for own in members for name in own}
    missing = [n for n in defects if n not in trained and n not in WITHOUT_TRAINING]
    if missing:
        raise CheckpointError(
            f"{listed(defects)}: no checkpoint of this cascade was trained with {missing[0]}: "
            "leave it out, or give one that was"
        )


def refuse_defective(what: str, own: Iterable[str], accepted: Iterable[str]) -> None:
    """Refuse a checkpoint with defects that are not expected of it.

    Args:
        what: The checkpoint, as an error names it.
        own: Its defects.
        accepted: Those that it may have.

    Raises:
        CheckpointError: naming its defects.
    """
    names = list(own)
    if not set(names) <= set(accepted):
        raise CheckpointError(
            f"{what} is defective on purpose ({listed(names)}): only validate and report take it, "
            "and train and pipeline with the same defects=; use another checkpoint here"
        )


def _apply(rules: Mapping[str, tuple[bool, str]], defects: Sequence[str]) -> None:
    for name in defects:
        fits, why = rules.get(name, (True, ""))
        if not fits:
            raise ConfigError(f"{listed(defects)}: {name} {why}")
