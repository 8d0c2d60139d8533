"""The stages by name."""

from __future__ import annotations

from collections.abc import Mapping

from av1part.stages.base import StageModule
from av1part.stages.blocks import BlockStage, Stage1, Stage2, Stage3Ab, Stage3OneToFour, Stage3Rect
from av1part.stages.superblock import SuperblockStage
from av1part.system.errors import ConfigError

CASCADE: Mapping[str, type[BlockStage]] = {
    cls.stage_name: cls for cls in (Stage1, Stage2, Stage3Rect, Stage3Ab, Stage3OneToFour)
}
"""Name of a stage of the cascade to its module."""

STAGES: Mapping[str, type[StageModule]] = {
    **CASCADE,
    SuperblockStage.stage_name: SuperblockStage,
}
"""Stage name to its module."""


def stage_class(name: str) -> type[StageModule]:
    """Return the module class of a stage.

    Args:
        name: Name of the stage.

    Returns:
        The class.

    Raises:
        ConfigError: if there is no such stage.
    """
    if name not in STAGES:
        raise ConfigError(f"stage must be one of {', '.join(STAGES)}, got {name!r}")
    return STAGES[name]
