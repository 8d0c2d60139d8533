"""What a comparison of encodes consists of: points, clips, quantisers; plan.json of its folder."""

from __future__ import annotations

import fnmatch
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from av1part import __version__
from av1part.data.build.sources import Source
from av1part.data.build.yuv import NO_CONVERSION, RGB
from av1part.encoder.patched import PATCH, Patched
from av1part.encoder.points import CTC_QINDEX, PlannedPoint
from av1part.predictors.interface import Predictor
from av1part.predictors.run import qindex_of
from av1part.runs.encodes import FORMAT, PLAN_FILE, Kind
from av1part.system.errors import ConfigError, SourceError
from av1part.system.files import PART_SUFFIX, read_json, remove_parts, write_json
from av1part.system.locks import HOLDER, LOCK

log = logging.getLogger(__name__)

MIN_SIDE = 64
"""Smallest side of a clip: of a smaller one the search has no whole superblock."""


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        points: By name.
        anchors: Points that the others are compared with.
        cq_levels: aomenc's `--cq-level`.
        predictors: By a point's `predictor`.
        identities: What plan.json says of each of these.
        ctc: Encode as AOM's common test conditions, all-intra, say.
        frames: Frames of a clip at most; None for all.
        vmaf: Compute VMAF too.
        screen: Patterns of the names of clips that are screen content.
    """

    points: Mapping[str, PlannedPoint]
    anchors: Sequence[str]
    cq_levels: Sequence[int]
    predictors: Mapping[str, Predictor] = field(default_factory=dict)
    identities: Mapping[str, Any] = field(default_factory=dict)
    ctc: bool = False
    frames: int | None = None
    vmaf: bool = False
    screen: Sequence[str] = ()

    def qindex(self, cq_level: int, bit_depth: int) -> int:
        """Return the base_q_idx of frames at a level; streams are checked for it."""
        return CTC_QINDEX[bit_depth][cq_level] if self.ctc else qindex_of(cq_level)

    def kind(self, name: str) -> Kind:
        """Return the kind of a point."""
        identity = self.identities.get(self.points[name].predictor or "", {})
        return self.points[name].category(trained=identity.get("trained", True))

    def content(self, source: Source) -> str:
        """Return the class of a clip's content."""
        if any(fnmatch.fnmatchcase(source.sequence, pattern) for pattern in self.screen):
            return "screen"
        return "photographs" if source.reader.frames == 1 else "video"


def check_clips(sources: Sequence[Source]) -> None:
    """Check that the quality of encodes of these clips can be measured and compared.

    Args:
        sources: The clips.

    Raises:
        SourceError: naming the first whose cannot.
    """
    for source in sources:
        reader = source.reader
        if reader.conversion not in (NO_CONVERSION, RGB):
            raise SourceError(
                f"{source.path} is not 4:2:0 ({reader.coding.pixel_format}): its chroma would be "
                "compared with a conversion of it; convert it to 4:2:0 first"
            )
        if min(reader.width, reader.height) < MIN_SIDE:
            raise SourceError(
                f"{source.path} has frames of {reader.width}x{reader.height}: a comparison needs "
                f"sides of at least {MIN_SIDE}"
            )


def check_sizes(comparison: Comparison) -> None:
    """Check that points ask for hints only where their predictors predict.

    Args:
        comparison: With all predictors of its points.

    Raises:
        ConfigError: naming the first that does not.
    """
    for name, point in comparison.points.items():
        predictor = comparison.predictors.get(point.predictor or "")
        if predictor is not None:
            domain = point.domain(predictor.domain)
            try:
                point.policy.check_sizes(domain)
            except ConfigError as error:
                raise ConfigError(f"plan.points.{name}: {error}") from None
            if warning := point.policy.pruned_anyway(domain):
                log.warning("plan.points.%s: %s", name, warning)


def plan_facts(
    sources: Sequence[Source], comparison: Comparison, encoder: Patched
) -> dict[str, Any]:
    """Return the contents of plan.json, on which all rows depend."""
    return {
        "format": FORMAT,
        "made_by": {"av1part": __version__},
        "encoder": {
            "version": encoder.version,
            "patch": PATCH,
            "assembler": encoder.assembler,
        },
        "points": {
            name: {
                "kind": comparison.kind(name),
                "cpu_used": point.cpu_used,
                "sb_size": point.sb_size,
                "line": point.line(),
                "repeats": point.repeats,
                "policy": point.policy.facts() if point.has_policy else None,
                "arguments": point.encoder_arguments(
                    comparison.cq_levels[0], 8, ctc=comparison.ctc
                ),
            }
            for name, point in comparison.points.items()
        },
        "anchors": list(comparison.anchors),
        "clips": {
            source.sequence: {
                "content": comparison.content(source),
                "frames": min(comparison.frames or source.reader.frames, source.reader.frames),
                "width": source.reader.width,
                "height": source.reader.height,
                "bit_depth": source.reader.bit_depth,
                "file": source.path.name,
                "sha256": source.sha256,
                "conversion": source.reader.conversion,
            }
            for source in sources
        },
        "cq_levels": list(comparison.cq_levels),
        "ctc": comparison.ctc,
        "vmaf": comparison.vmaf,
        "predictors": dict(comparison.identities),
    }


def check_folder(out: Path) -> None:
    """Check that a folder is new, empty, or that of a comparison; a kill may have left parts.

    Args:
        out: The folder.

    Raises:
        ConfigError: if it holds something else.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is not a folder: choose another out=")
    if not out.exists() or (out / PLAN_FILE).exists():
        return
    for file in out.iterdir():
        if file.name not in (LOCK, HOLDER) and file.suffix != PART_SUFFIX:
            raise ConfigError(f"{out} is not empty and holds no comparison: choose another out=")


def begin_folder(out: Path, plan: Mapping[str, Any]) -> None:
    """Write the plan into a new folder, or see that one that was begun has the same.

    Other anchors are written over those of the folder: no encode depends on them.

    Args:
        out: The folder, which this process has locked.
        plan: Of `plan_facts`.

    Raises:
        ConfigError: if it holds another plan.
    """
    remove_parts(out, below=False)
    begun = out / PLAN_FILE
    if not begun.exists():
        write_json(begun, plan)
        return
    held = read_json(begun)
    wanted = json.loads(json.dumps(plan))
    if held is None:
        raise ConfigError(f"{begun} is damaged: remove {out}, or choose another out=")
    for key in (key for key in wanted if key != "anchors"):
        if held.get(key) != wanted[key]:
            what = _difference(held.get(key), wanted[key])
            raise ConfigError(
                f"{out} holds another plan ({key}{what}): choose another out=, or give the "
                "words that it was begun with"
            )
    if held.get("anchors") != wanted["anchors"]:
        write_json(begun, held | {"anchors": wanted["anchors"]})


def _difference(held: Any, wanted: Any) -> str:
    """Name the first member of two mappings that differs."""
    if not (isinstance(held, dict) and isinstance(wanted, dict)):
        return ""
    for key in (*wanted, *held):
        if held.get(key) != wanted.get(key):
            return f": {key}"
    return ": in another order"
