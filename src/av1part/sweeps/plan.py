"""The jobs of a sweep: variants x folds x seeds, with their overrides and folders."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from av1part.config.words import quote_word, rename_keys
from av1part.runs.schema import check_run_name
from av1part.runs.sweeps import START
from av1part.system.errors import ConfigError
from av1part.system.files import slug

_RESERVED = {START, "report", ".outdated"}
"""Folders of a sweep that are no variant's."""

_KEYS = ("variants", "params", "seeds", "folds", "start", "start_per_variant", "baseline")


@dataclass(frozen=True)
class Plan:
    """A sweeper's configuration, conf/hydra/sweeper/plan.yaml.

    Attributes:
        variants: Name to overrides; none is one without a name.
        params: Key to values, as text, of all variants; as Hydra's own sweeper has it.
        seeds: Of each variant; None leaves the seed to the overrides.
        folds: Name to overrides; none is one without a name.
        start: Overrides of the Stage-1 run of each fold and seed; None is no such run.
        start_per_variant: Whether each variant has such runs of its own, with its overrides too:
            where variants differ in data or backbone.
        baseline: The variant that others are compared with.
    """

    variants: Mapping[str, Sequence[str]]
    params: Mapping[str, str]
    seeds: Sequence[int] | None
    folds: Mapping[str, Sequence[str]]
    start: Sequence[str] | None
    start_per_variant: bool
    baseline: str | None

    @property
    def names_folders(self) -> bool:
        """Whether the plan names folders, by variant, fold and seed, or Hydra by the overrides."""
        return bool(self.variants or self.folds or self.start) or self.seeds is not None


@dataclass(frozen=True)
class Job:
    """A run of a sweep.

    Attributes:
        variant: Its name; `START` of a Stage-1 run, None where the plan names none.
        fold: Name of the fold, if there are some.
        seed: Its seed, if the plan names seeds.
        overrides: Overrides of `av1part train`, without those of its folder and its start.
        of: Of a Stage-1 run the variant it is for, if it is for one alone.
    """

    variant: str | None
    fold: str | None
    seed: int | None
    overrides: tuple[str, ...]
    of: str | None = None

    @property
    def member(self) -> str:
        """Which run of its variant it is: `fold-a_seed-1`."""
        parts = [f"fold-{self.fold}"] if self.fold is not None else []
        parts += [f"seed-{self.seed}"] if self.seed is not None else []
        return "_".join([*([self.of] if self.of else []), *parts]) or "run"

    @property
    def place(self) -> str:
        """Its folder in the sweep's, where the plan names folders."""
        return f"{self.variant or 'run'}/{self.member}"


def read_plan(options: Mapping[str, Any]) -> Plan:
    """Check the sweeper's configuration.

    Args:
        options: The keys of the sweeper's configuration, plain values.

    Returns:
        The plan.

    Raises:
        ConfigError: naming the key that is unknown or of another kind.
    """
    unknown = sorted(options.keys() - set(_KEYS))
    if unknown:
        raise ConfigError(f"hydra.sweeper.{unknown[0]} is unknown: it has {', '.join(_KEYS)}")
    variants, folds = options.get("variants") or {}, options.get("folds") or {}
    for key, named in (("variants", variants), ("folds", folds)):
        if not isinstance(named, Mapping):
            raise ConfigError(f"hydra.sweeper.{key} must map names to lists of overrides")
        for name, overrides in named.items():
            check_run_name(str(name))
            _check_overrides(f"{key}.{name}", overrides)
    seeds, start, baseline = (options.get(key) for key in ("seeds", "start", "baseline"))
    if seeds is not None and (
        not isinstance(seeds, Sequence)
        or isinstance(seeds, str)
        or not seeds
        or not all(type(seed) is int for seed in seeds)
        or len(set(seeds)) != len(seeds)
    ):
        raise ConfigError(f"hydra.sweeper.seeds must be distinct integers, got {seeds!r}")
    if start is not None:
        _check_overrides("start", start)
    own_starts = options.get("start_per_variant") or False
    if type(own_starts) is not bool or (own_starts and start is None):
        raise ConfigError("hydra.sweeper.start_per_variant is true or false, and true with a start")
    params = options.get("params") or {}
    if not isinstance(params, Mapping):
        raise ConfigError("hydra.sweeper.params must map keys to values, as in data.context: 0,4,8")
    return Plan(
        {str(name): _words(overrides) for name, overrides in variants.items()},
        {str(key): str(value) for key, value in params.items()},
        seeds,
        {str(name): _words(overrides) for name, overrides in folds.items()},
        None if start is None else _words(start),
        own_starts,
        baseline,
    )


def expand(plan: Plan, arguments: Sequence[str], parser: OverridesParser) -> list[Job]:
    """Return the jobs of a plan.

    Words of the command line count more than a variant's, so that `trainer.max_epochs=1` shortens
    all runs.

    Args:
        plan: The plan.
        arguments: Overrides of the command line; one that lists values makes a variant of each.
        parser: Hydra's.

    Returns:
        The jobs: Stage-1 runs first, then variant by variant.

    Raises:
        ConfigError: if an argument is no override, or contradicts the plan.
    """
    set_keys = {_key(override) for override in arguments}
    params = _words([f"{k}={v}" for k, v in plan.params.items() if k not in set_keys])
    arguments = [*params, *arguments]
    if plan.seeds is not None and "seed" in set_keys:
        raise ConfigError("the experiment names its seeds: use hydra.sweeper.seeds=[...]")
    for key in ("stage1", "backbone.weights"):
        if plan.start is not None and key in set_keys:
            raise ConfigError(f"the experiment trains its own Stage 1: leave out {key}=")
    variants = _variants(plan, arguments, parser, set_keys)
    if plan.baseline is not None and plan.baseline not in variants:
        known = ", ".join(str(name) for name in variants)
        raise ConfigError(f"hydra.sweeper.baseline={plan.baseline} is none of {known}")
    folds: list[tuple[str | None, Sequence[str]]] = [*plan.folds.items()] or [(None, ())]
    seeds: list[int | None] = [*plan.seeds] if plan.seeds else [None]
    members = list(itertools.product(folds, seeds))
    jobs = []
    if plan.start is not None:
        # The command line does not change what the start itself sets.
        fixed = {_key(override) for override in plan.start}
        common = [
            override
            for override in arguments
            if _key(override) not in fixed and not _lists_values(override, parser)
        ]
        shared: list[tuple[str | None, tuple[str, ...]]] = [(None, ())]
        jobs += [
            Job(START, fold, seed, _overrides(overrides, plan.start, of_fold, common, seed), of)
            for of, overrides in ([*variants.items()] if plan.start_per_variant else shared)
            for (fold, of_fold), seed in members
        ]
    for variant, overrides in variants.items():
        shown = variant if plan.names_folders else None
        jobs += [
            Job(shown, fold, seed, _overrides(of_fold, overrides, (), seed))
            for (fold, of_fold), seed in members
        ]
    return jobs


def _variants(
    plan: Plan, arguments: Sequence[str], parser: OverridesParser, set_keys: set[str]
) -> dict[str | None, tuple[str, ...]]:
    """Return the overrides of each variant, by name, or by the overrides where it has none.

    Raises:
        ConfigError: if two have one name, or a choice of values is no variant.
    """
    variants: dict[str | None, tuple[str, ...]] = {}
    common = _combinations(arguments, parser)
    named: list[tuple[str | None, Sequence[str]]] = [*plan.variants.items()] or [(None, ())]
    for name, own_overrides in named:
        for own, chosen in itertools.product(_combinations(own_overrides, parser), common):
            _check_choices(plan, own, chosen, set_keys)
            overrides = (*own.overrides, *chosen.overrides)
            if not plan.names_folders:
                variants[" ".join(overrides)] = overrides
                continue
            full = "_".join(slug(n) for n in (name, *own.names, *chosen.names) if n) or None
            if full in _RESERVED:
                raise ConfigError(f"hydra.sweeper.variants: {full} is a folder's name: rename it")
            if full in variants:
                raise ConfigError(f"the plan has two variants called {full}: rename one")
            variants[full] = overrides
    return variants


def expand_seeds(
    plan: Plan, arguments: Sequence[str], parser: OverridesParser, seeds: Sequence[int]
) -> list[Job]:
    """Return the jobs of a plan with other seeds than the plan's.

    Args:
        plan: The plan.
        arguments: Overrides of the command line.
        parser: Hydra's.
        seeds: The seeds.

    Returns:
        The jobs, as `expand` orders them; none if the plan gives folders without a seed.
    """
    if not seeds or (plan.names_folders and plan.seeds is None):
        return []
    if plan.seeds is not None:
        return expand(replace(plan, seeds=seeds), arguments, parser)
    overrides = [override for override in arguments if _key(override) != "seed"]
    return expand(plan, [*overrides, f"seed={','.join(map(str, seeds))}"], parser)


@dataclass(frozen=True)
class _Combination:
    overrides: tuple[str, ...]
    names: tuple[str, ...]
    keys: tuple[str, ...]


def _combinations(overrides: Sequence[str], parser: OverridesParser) -> list[_Combination]:
    """Return all choices of a value for each override that lists several.

    Raises:
        ConfigError: if an override gives a range instead of values.
    """
    choices: list[list[tuple[str, str | None]]] = []
    for override in parser.parse_overrides(list(overrides)):
        if not override.is_sweep_override():
            assert override.input_line is not None
            choices.append([(override.input_line, None)])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            values = override.sweep_string_iterator()
            short = key.lstrip("+").partition(".")[2] or key.lstrip("+")
            choices.append([(f"{key}={v}", f"{short}-{v}") for v in values])
        else:
            raise ConfigError(f"{override.input_line}: a sweep lists its values, as in key=1,2")
    return [
        _Combination(
            tuple(override for override, _ in chosen),
            tuple(name for _, name in chosen if name is not None),
            tuple(_key(override) for override, name in chosen if name is not None),
        )
        for chosen in itertools.product(*choices)
    ]


def _check_choices(plan: Plan, own: _Combination, chosen: _Combination, set_keys: set[str]) -> None:
    """Refuse choices that would make variants of seeds, or that the command line undoes.

    Raises:
        ConfigError: naming the key.
    """
    if plan.names_folders and "seed" in (*own.keys, *chosen.keys):
        raise ConfigError("seeds are no variants: use hydra.sweeper.seeds=[...]")
    undone = sorted(set_keys & set(own.keys))
    if undone:
        raise ConfigError(
            f"{undone[0]} tells variants of the experiment apart: leave it out of the command line"
        )


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _lists_values(override: str, parser: OverridesParser) -> bool:
    return bool(parser.parse_overrides([override])[0].is_sweep_override())


def _overrides(*parts: Any) -> tuple[str, ...]:
    *overrides, seed = parts
    return (*itertools.chain(*overrides), *([] if seed is None else [f"seed={seed}"]))


def _words(overrides: Sequence[str]) -> list[str]:
    """Return overrides of a file as those of a command line are handed to Hydra."""
    words = rename_keys(overrides)
    # An experiment may refer to other keys: injection.stage2=runs/x/seed-${seed}/best.ckpt.
    return [word if "${" in word else quote_word(word, multirun=True) for word in words]


def _check_overrides(key: str, overrides: Any) -> None:
    if isinstance(overrides, str) or not isinstance(overrides, Sequence):
        raise ConfigError(f"hydra.sweeper.{key} must be a list of overrides, got {overrides!r}")
    invalid = [override for override in overrides if not isinstance(override, str)]
    if invalid:
        raise ConfigError(f"hydra.sweeper.{key}: {invalid[0]!r} is no override, quote key=value")
