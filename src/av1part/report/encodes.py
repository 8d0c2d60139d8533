"""What each point of an encoding comparison saves and loses against an anchor.

`report.savings` computes it from the rows of a folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from av1part.metrics.bdrate import BadCurve
from av1part.metrics.intervals import Bootstrap, Interval
from av1part.runs.encodes import PLAN_FILE, Clip, Kind, Point

Quality = Literal["psnr_y", "psnr_611", "ssim", "vmaf"]
Measure = Literal["time", "work"]

QUALITIES: Mapping[Quality, str] = {
    "psnr_y": "PSNR-Y",
    "psnr_611": "PSNR 6:1:1",
    "ssim": "SSIM",
    "vmaf": "VMAF",
}
"""Qualities at which rates are compared; the first decides."""

MODEL_FREE: tuple[Kind, ...] = ("preset", "switch", "baseline")
"""Kinds of point that compete with a learned one; an oracle knows the answer."""


@dataclass(frozen=True)
class Change:
    """One encode of a point against the anchor's of the same clip and cq level.

    Attributes:
        time_saved: Fraction of the anchor's; None where encodes ran beside others.
        inference: Fraction of the point's time; None likewise.
        work_saved: Fraction of the anchor's.
        more_bytes: Fraction of the anchor's.
        psnr_gain: Of luma, in dB; None where one is not known.
    """

    time_saved: float | None
    inference: float | None
    work_saved: float
    more_bytes: float
    psnr_gain: float | None


@dataclass(frozen=True)
class BadClip:
    """Why a clip has no BD-rate.

    Attributes:
        curve_of: Name of the point whose curve cannot be used, the anchor's first.
        reason: Why.
    """

    curve_of: str
    reason: BadCurve


@dataclass(frozen=True)
class ClipChange:
    """A point against the anchor on one clip.

    Attributes:
        clip: The clip.
        levels: Changes by cq level, of the levels that are complete for both.
        loss: BD-rate by quality as a fraction, or why there is none.
    """

    clip: Clip
    levels: Mapping[int, Change]
    loss: Mapping[Quality, float | BadClip]

    def saved(self, measure: Measure) -> float | None:
        """Average what is saved over cq levels, as a fraction; None if a time does not count."""
        return _mean([_saved(change, measure) for change in self.levels.values()])


@dataclass(frozen=True)
class PointChange:
    """A point against the anchor.

    Attributes:
        point: The point.
        clips: Those with a cq level that is complete for both.
        same_size: Whether its superblocks have the anchor's size.
    """

    point: Point
    clips: tuple[ClipChange, ...]
    same_size: bool

    def saved(self, measure: Measure, content: str | None = None) -> Interval | None:
        """Average what is saved over clips.

        Args:
            measure: Time or work.
            content: Only clips of this class.

        Returns:
            A fraction with its interval; None without clips, or if a time does not count.
        """
        values = [c.saved(measure) for c in self.clips if content in (None, c.clip.content)]
        known = [value for value in values if value is not None]
        return Bootstrap().mean(known) if known and len(known) == len(values) else None

    def loss(self, quality: Quality = "psnr_y", content: str | None = None) -> Interval | None:
        """Average BD-rates over the clips that have one.

        Args:
            quality: At which rates are compared.
            content: Only clips of this class.

        Returns:
            A fraction with its interval and the number of clips; None if no clip has one.
        """
        losses = [c.loss[quality] for c in self.clips if content in (None, c.clip.content)]
        known = [loss for loss in losses if not isinstance(loss, BadClip)]
        return Bootstrap().mean(known) if known else None

    @property
    def inference(self) -> float | None:
        """Mean share of inference in the point's time; None if there is none or no time counts."""
        share = _mean([_mean([x.inference for x in c.levels.values()]) for c in self.clips])
        return share or None

    def level(self, cq_level: int) -> Sequence[Change]:
        """Return the changes of all clips at one cq level."""
        return [c.levels[cq_level] for c in self.clips if cq_level in c.levels]

    @property
    def worst(self) -> tuple[str, float] | None:
        """The clip with the highest BD-rate (PSNR-Y), and that BD-rate; None if no clip has one."""
        known = [(c.loss["psnr_y"], c.clip.name) for c in self.clips]
        losses = [(loss, name) for loss, name in known if not isinstance(loss, BadClip)]
        return max(((name, loss) for loss, name in losses), key=lambda x: x[1], default=None)


@dataclass(frozen=True)
class AnchorComparison:
    """All other points against one anchor.

    Attributes:
        anchor: The anchor.
        points: The others, those with the anchor's size of superblocks first.
        qualities: Qualities that all encodes have.
    """

    anchor: Point
    points: tuple[PointChange, ...]
    qualities: tuple[Quality, ...]

    @cached_property
    def measure(self) -> Measure:
        """Time where it counts at all points, else work."""
        filled = [p for p in self.points if p.clips]
        timed = bool(filled) and all(p.saved("time") is not None for p in filled)
        return "time" if timed else "work"

    @cached_property
    def _places(self) -> Mapping[str, tuple[float, float]]:
        """What each point saves and loses, for those where both are known; the anchor too."""
        places = {self.anchor.name: (0.0, 0.0)}
        for change in self.points:
            saved, loss = change.saved(self.measure), change.loss()
            if saved is not None and loss is not None:
                places[change.point.name] = (saved.estimate, loss.estimate)
        return places

    def judged(self, change: PointChange) -> bool:
        """Return whether both savings and loss of a point are known."""
        return change.point.name in self._places

    def place(self, point: Point) -> tuple[float, float]:
        """Return what a judged point saves and loses, fractions; the anchor nothing."""
        return self._places[point.name]

    def ratio(self, change: PointChange) -> float | None:
        """Return what is saved by what is lost; None without a loss."""
        saved, loss = change.saved(self.measure), change.loss()
        if saved is None or loss is None or loss.estimate <= 0:
            return None
        return saved.estimate / loss.estimate

    def dominator(self, change: PointChange) -> Point | None:
        """Find the model-free point that makes a point needless.

        Args:
            change: A point.

        Returns:
            Of the points with superblocks of the same size that need no model, the anchor among
            them, the one that saves most among those that save at least as much at no more loss
            (BD-rate of PSNR-Y), one of both better; a learned point is also needless where both
            are equal. None if there is none, or the point cannot be judged.
        """
        if not self.judged(change):
            return None
        saved, loss = self.place(change.point)
        rivals = []
        for rival in (self.anchor, *(other.point for other in self.points)):
            free = rival.kind in MODEL_FREE and rival.sb_size == change.point.sb_size
            if rival == change.point or not free or rival.name not in self._places:
                continue
            its_saved, its_loss = self.place(rival)
            better = (its_saved, its_loss) != (saved, loss) or change.point.kind == "learned"
            if its_saved >= saved and its_loss <= loss and better:
                rivals.append((its_saved, -its_loss, rival))
        return max(rivals, key=lambda found: found[:2])[2] if rivals else None

    @property
    def bad(self) -> Sequence[tuple[str, BadClip, tuple[Quality, ...]]]:
        """Clips without a BD-rate: the clip's name, the reason, and for which qualities.

        A bad curve of the anchor is listed once, not for every point.
        """
        found: dict[tuple[str, str, BadCurve], dict[Quality, None]] = {}
        for change in self.points:
            for clip in change.clips:
                for quality in self.qualities:
                    loss = clip.loss[quality]
                    if isinstance(loss, BadClip):
                        key = (clip.clip.name, loss.curve_of, loss.reason)
                        found.setdefault(key, {})[quality] = None
        return [
            (clip, BadClip(of, reason), tuple(qualities))
            for (clip, of, reason), qualities in found.items()
        ]


def is_encodes(folder: Path) -> bool:
    """Return whether a folder is that of `av1part encode`."""
    return (folder / PLAN_FILE).is_file()


def _saved(change: Change, measure: Measure) -> float | None:
    return change.time_saved if measure == "time" else change.work_saved


def _mean(values: Sequence[float | None]) -> float | None:
    """Average values; None if there are none or one is not known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
