"""The points of a comparison: one way to encode each, a line of a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from av1part.data.build.libaom import encoder_arguments
from av1part.data.build.settings import check_count
from av1part.encoder.policies import POLICY_KEYS, Policy
from av1part.partition import Partition
from av1part.predictors.interface import Domain
from av1part.runs.encodes import Kind
from av1part.runs.schema import check_run_name
from av1part.system.errors import ConfigError

MODEL = "model"
"""Predictor of a point: the bundle that `model=` names."""
FITTED = ("variance", "prior")
"""Predictors that are fitted on the data that `data.*` names."""
RANDOM, ORACLE = "random", "oracle"
PREDICTORS = (MODEL, *FITTED, RANDOM, ORACLE)

SB_SIZES = (64, 128)

OWN_ARGUMENTS = re.compile(
    r"--(?:ivf|obu|webm|output|passes|pass|fpf|limit|skip|end-usage|cq-level|kf-max-dist|cpu-used"
    r"|threads|row-mt|sb-size|enable-1to4-partitions|bit-depth|input-bit-depth|lag-in-frames|good"
    r"|rt|allintra|usage|psnr|min-q|max-q|tile-rows|tile-columns|width|height|resize-\S*"
    r"|superres-\S*|tune-content|monochrome|lossless|profile)(?:=.*)?|-[^-].*"
)
"""Arguments that a point may not have: the comparison sets them, or depends on them."""

CTC_QINDEX = {
    8: {15: 20, 23: 30, 31: 46, 39: 71, 47: 99, 55: 121},
    10: {15: 27, 23: 37, 31: 52, 39: 74, 47: 99, 55: 121},
}
"""By bit depth: cq level to the base_q_idx of key frames under AOM's common test conditions.

The offset of key frames is a ratio of step sizes, and the table of steps depends on the bit depth.
"""
CTC_LEVELS = tuple(CTC_QINDEX[8])

_CTC = (
    *("--use-fixed-qp-offsets=1", "--deltaq-mode=0", "--enable-tpl-model=0", "--enable-fwd-kf=0"),
    *("--enable-keyframe-filtering=0", "--kf-min-dist=0", "--row-mt=0"),
    *("--tile-rows=0", "--tile-columns=0"),
)
"""What AOM's common test conditions, all-intra, add to `encoder_arguments`."""


@dataclass(frozen=True)
class PlannedPoint:
    """A way to encode.

    Attributes:
        cpu_used: aomenc's `--cpu-used`, 0 to 9.
        sb_size: aomenc's `--sb-size`; None for the encoder's choice.
        one_to_four: Allow 1:4 partitions.
        arguments: Further arguments of aomenc.
        predictor: Who gives hints, of `PREDICTORS`; None for nobody.
        types: Instead of a predictor: AV1's types that may be searched, the same at all nodes.
        like: Of the random predictor: the point whose distribution of set sizes it draws.
        kind: As of `Policy`, like the five that follow.
        tau: Cumulated probability.
        least: Least expected worth of a type.
        k: Number of types.
        keep: Whether the encoder prunes too; in a plan not with the oracle, unless it says so.
        sizes: Node sizes that get hints.
        repeats: How often each encode is made, for its seconds.
    """

    cpu_used: int
    sb_size: int | None = None
    one_to_four: bool = True
    arguments: Sequence[str] = ()
    predictor: str | None = None
    types: Sequence[str] | None = None
    like: str | None = None
    kind: str = "cumulated"
    tau: float | Sequence[float] = 0.9
    least: float = 0.02
    k: int = 2
    keep: bool = True
    sizes: Sequence[int] | None = None
    repeats: int = 1

    @property
    def has_hints(self) -> bool:
        """Whether the encoder gets a hint file."""
        return self.predictor is not None or self.types is not None

    @property
    def has_policy(self) -> bool:
        """Whether a policy makes its masks of a predictor's distributions."""
        return self.predictor not in (None, RANDOM)

    @property
    def policy(self) -> Policy:
        """Return how masks are made of distributions."""
        kind: Any = self.kind  # which the policy checks
        return Policy(kind, self.tau, self.least, self.k, self.keep, self.sizes)

    def domain(self, predictor: Domain) -> Domain:
        """Return a predictor's domain as the policy sees it.

        Types that the encoder has switched off need no answer, so they count as known.
        """
        return predictor if self.one_to_four else replace(predictor, one_to_four=True)

    @property
    def mask(self) -> int:
        """Bits of `types`."""
        return sum(1 << Partition[name] for name in self.types or ())

    @property
    def stock(self) -> PlannedPoint:
        """The same encode without hints."""
        return PlannedPoint(self.cpu_used, self.sb_size, self.one_to_four, self.arguments)

    def category(self, *, trained: bool = True) -> Kind:
        """Return what kind of point it is.

        Args:
            trained: Whether the bundle of `model` was trained, and not fitted like a baseline.

        Returns:
            The kind.
        """
        if self.predictor == ORACLE:
            return "oracle"
        if self.predictor == MODEL and trained and self.kind not in ("none", "split"):
            return "learned"
        if self.has_hints:
            return "baseline"
        return "preset" if self.one_to_four and not self.arguments else "switch"

    def encoder_arguments(self, cq_level: int, bit_depth: int, *, ctc: bool) -> list[str]:
        """List aomenc's arguments; see `libaom.encoder_arguments`.

        Args:
            cq_level: aomenc's `--cq-level`.
            bit_depth: Bits per sample of the source.
            ctc: Encode as AOM's common test conditions, all-intra, say.

        Returns:
            The arguments, without output and input.
        """
        arguments = encoder_arguments(
            cq_level,
            bit_depth=bit_depth,
            cpu_used=self.cpu_used,
            one_to_four=self.one_to_four,
        )
        if ctc:
            arguments += _CTC
        if self.sb_size is not None:
            arguments.append(f"--sb-size={self.sb_size}")
        return [*arguments, *self.arguments]

    def line(self) -> str:
        """Return what differs from the defaults, as in a plan."""
        return ", ".join(f"{name}={value}" for name, value in self.facts().items())

    def facts(self) -> dict[str, Any]:
        """Return cpu_used, and what differs from the defaults."""
        defaults = {field.name: field.default for field in fields(self)}
        return {k: v for k, v in asdict(self).items() if v != defaults[k] or k == "cpu_used"}


def read_points(lines: object, repeats: int = 1) -> dict[str, PlannedPoint]:
    """Check the points of a plan.

    Args:
        lines: Name to keys of `PlannedPoint`; a line that is null is left out.
        repeats: Of points that do not say.

    Returns:
        The points, in the plan's order.

    Raises:
        ConfigError: naming the first point that is not valid.
    """
    if not isinstance(lines, Mapping):
        raise ConfigError(f"plan.points={lines}: give a line a point, as in conf/plan/presets.yaml")
    points = {
        check_run_name(str(name)): _read_point(str(name), line, repeats)
        for name, line in lines.items()
        if line is not None
    }
    if not points:
        raise ConfigError("plan.points is empty: give a line a point, or choose another plan=")
    for name, point in points.items():
        _check_like(name, point, points)
    return points


def _read_point(name: str, line: object, repeats: int) -> PlannedPoint:
    known = {field.name: field for field in fields(PlannedPoint)}
    if not isinstance(line, Mapping):
        raise ConfigError(f"plan.points.{name} must be keys with values, such as cpu_used: 1")
    for key in line:
        if key not in known:
            raise ConfigError(f"plan.points.{name} has no key {key}: it has {', '.join(known)}")
    missing = [key for key, field in known.items() if field.default is MISSING and key not in line]
    if missing:
        raise ConfigError(f"plan.points.{name} needs {missing[0]}")
    # libaom's pruning drops AB and 1:4 types whose HORZ and VERT were not tried, so that an oracle
    # that it prunes too would be no bound.
    own = {"repeats": repeats, "keep": line.get("predictor") != ORACLE}
    point = PlannedPoint(**{**own, **{str(key): line[key] for key in line}})
    _check_switches(f"plan.points.{name}", point)
    _check_hints(f"plan.points.{name}", point)
    return point


def _check_switches(name: str, point: PlannedPoint) -> None:
    """Check what the encoder is told.

    Raises:
        ConfigError: naming the first key that is not valid.
    """
    if type(point.cpu_used) is not int or not 0 <= point.cpu_used <= 9:
        raise ConfigError(f"{name}.cpu_used={point.cpu_used}: give 0 to 9")
    if point.sb_size not in (None, *SB_SIZES):
        raise ConfigError(f"{name}.sb_size={point.sb_size}: give 64, 128 or null")
    for key in ("one_to_four", "keep"):
        if type(getattr(point, key)) is not bool:
            raise ConfigError(f"{name}.{key}={getattr(point, key)}: give true or false")
    check_count(f"{name}.repeats", point.repeats)
    if not _is_list(point.arguments, str):
        raise ConfigError(f"{name}.arguments={point.arguments}: give a list of aomenc's arguments")
    for argument in point.arguments:
        if OWN_ARGUMENTS.fullmatch(argument) or not argument.startswith("--"):
            raise ConfigError(
                f"{name}.arguments has {argument}, which the comparison sets or relies on: leave "
                "it out"
            )


def _check_hints(name: str, point: PlannedPoint) -> None:
    """Check what the hints are made of.

    Raises:
        ConfigError: naming the first key that is not valid.
    """
    if point.predictor is not None and point.predictor not in PREDICTORS:
        raise ConfigError(f"{name}.predictor={point.predictor}: give {', '.join(PREDICTORS)}")
    if point.types is not None:
        if point.predictor is not None:
            raise ConfigError(f"{name} has types and a predictor: give one of them")
        names = [type_.name for type_ in Partition]
        if not _is_list(point.types, str) or not point.types or set(point.types) - set(names):
            raise ConfigError(f"{name}.types={point.types}: give a list of {', '.join(names)}")
    try:
        policy = point.policy
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    except TypeError:
        raise ConfigError(f"{name}: tau, least, k or sizes has a value that is no number") from None
    if not point.has_hints and policy != Policy():
        raise ConfigError(f"{name} has a policy, and no predictor: give one")
    if point.types is not None:
        unused, reason = {"kind", *POLICY_KEYS.values()}, "types are what may be searched"
    elif point.predictor == RANDOM:
        unused = {"kind", *POLICY_KEYS.values(), "keep", "sizes"}
        reason = "sets are as large as those of like"
    else:
        unused = set(POLICY_KEYS.values()) - {POLICY_KEYS.get(policy.kind)}
        reason = f"kind is {point.kind}"
    for key in sorted(unused):
        if getattr(point, key) != getattr(Policy(), key):
            raise ConfigError(f"{name}.{key} has no effect, since {reason}: leave it out")


def _check_like(name: str, point: PlannedPoint, points: Mapping[str, PlannedPoint]) -> None:
    if (point.predictor == RANDOM) != (point.like is not None):
        raise ConfigError(
            f"plan.points.{name}: predictor=random and like=POINT belong together: the sets that "
            "are drawn have the sizes of that point's"
        )
    if point.like is None:
        return
    other = points.get(point.like)
    if other is None or other.predictor in (None, RANDOM, ORACLE):
        raise ConfigError(
            f"plan.points.{name}.like={point.like}: name a point with a predictor of its own"
        )


def _is_list(values: object, kind: type) -> bool:
    return isinstance(values, (list, tuple)) and all(type(value) is kind for value in values)


def default_anchors(points: Mapping[str, PlannedPoint]) -> list[str]:
    """Return the points that others are compared with where a plan names none.

    Those are, for each superblock size, the slowest two of the encoder's own speeds.
    """
    presets = {name: point for name, point in points.items() if point.category() == "preset"}
    anchors: list[str] = []
    for sb_size in dict.fromkeys(point.sb_size for point in presets.values()):
        own = [name for name, point in presets.items() if point.sb_size == sb_size]
        anchors += sorted(own, key=lambda name: presets[name].cpu_used)[:2]
    return anchors


def check_anchors(anchors: Any, points: Mapping[str, PlannedPoint]) -> list[str]:
    """Check which points the others are compared with.

    Args:
        anchors: Names of points; None for `default_anchors`.
        points: The plan's.

    Returns:
        The names.

    Raises:
        ConfigError: if one is no point of the plan, or there is none.
    """
    if anchors is None:
        anchors = default_anchors(points)
        if not anchors:
            raise ConfigError("the plan has no preset to compare with: add one, such as cpu1")
    if not _is_list(anchors, str) or not anchors:
        raise ConfigError(f"plan.anchors={anchors}: give a list of points")
    names = [str(name) for name in anchors]
    for name in names:
        if name not in points:
            raise ConfigError(f"plan.anchors has {name}: it is no point of the plan")
        if points[name].has_hints:
            raise ConfigError(f"plan.anchors has {name}: an anchor has no hints")
    return names


def check_cq_levels(levels: Any, *, ctc: bool) -> list[int]:
    """Check aomenc's quantisers, of which a BD-rate needs four.

    Args:
        levels: The list; None for the usual one.
        ctc: Encode as AOM's common test conditions say.

    Returns:
        The levels.

    Raises:
        ConfigError: if they are too few, repeated, or not known.
    """
    allowed: Sequence[int] = list(CTC_LEVELS) if ctc else range(1, 64)
    if levels is None:
        return list(CTC_LEVELS) if ctc else [20, 32, 43, 55]
    good = _is_list(levels, int) and all(level in allowed for level in levels)
    if good and len(set(levels)) == len(levels) >= 4:
        return list(levels)
    expected = ", ".join(map(str, allowed)) if ctc else "1 to 63 (0 is lossless)"
    raise ConfigError(
        f"cq_levels={levels}: give at least four of {expected}, each once: a BD-rate needs them"
    )
