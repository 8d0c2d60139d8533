"""A sweep read back from its folders: variants, each with its members and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.metrics.intervals import Bootstrap
from av1part.metrics.paired import Resampled
from av1part.metrics.power import Components, Crossed, crossed_test
from av1part.metrics.scores import (
    best_constant,
    constant_confusion,
    f1_from_confusion,
    guesser_class_f1,
    macro_f1_from_confusion,
    prior_confusion,
)
from av1part.metrics.statistics import Difference, Mean, against_baseline, holm, mean_of
from av1part.report.published import is_published, publish, read_published
from av1part.runs.fields import REMEDY, Fields
from av1part.runs.read import Run, StageRun, load_run
from av1part.runs.schema import BY_SIZE, LOG_LOSS, METRICS_FILE
from av1part.runs.sweeps import START, SWEEP_FILE, TEST_FILE, read_test, sweep_problem
from av1part.runs.tables import by_epoch
from av1part.system.errors import ReportError
from av1part.system.files import slug

MACRO_F1 = "macro_f1"

TREES = "trees"
"""Key of boosted trees among the baselines of metrics.json."""


def by_log_loss(metrics: Fields) -> bool:
    """Return whether a run's checkpoint was chosen by log loss, with the class prior's beside it.

    Args:
        metrics: Of the run.

    Returns:
        Whether it is one of a superblock network.
    """
    prior = metrics.get("baselines", "prior", LOG_LOSS)
    return metrics.get(BY_SIZE) is not None and prior is not None


@dataclass(frozen=True)
class Member:
    """One run of a variant.

    Attributes:
        name: Its fold and seed, `fold-a_seed-1`; members of two variants with the same name are
            compared with each other.
        run: The run.
    """

    name: str
    run: StageRun

    @cached_property
    def curve(self) -> NDArray[np.float64]:
        """Macro-F1 on val after each epoch, fractions, shape (epochs,)."""
        return by_epoch(self.run.history, "macro_f1")

    @cached_property
    def score_curve(self) -> NDArray[np.float64]:
        """`score` on val after each epoch, shape (epochs,)."""
        return self.curve if self.log_loss is None else by_epoch(self.run.history, LOG_LOSS)

    @property
    def best(self) -> float:
        """Macro-F1 of the checkpoint that was kept, as it reads back."""
        return self.run.metrics.number("macro_f1")

    @property
    def log_loss(self) -> float | None:
        """Log loss of that checkpoint, if it was chosen by it; nats."""
        metrics = self.run.metrics
        return metrics.number(LOG_LOSS) if by_log_loss(metrics) else None

    @property
    def score(self) -> float:
        """What chose the checkpoint: its log loss, or its macro-F1."""
        return self.best if self.log_loss is None else self.log_loss

    @property
    def final(self) -> float:
        """Macro-F1 after the last epoch."""
        return float(self.curve[-1])

    @property
    def best_epoch(self) -> int:
        """Epoch of the checkpoint that was kept, from 0."""
        return self.run.metrics.integer("epoch")

    @property
    def class_f1(self) -> NDArray[np.float64]:
        """F1 of each class, fractions, shape (k,)."""
        return np.asarray(f1_from_confusion(self.run.confusion))

    def guesser_macro_f1(self, guesser: str) -> float:
        """Return the macro-F1 of `constant`, `prior` or `trees` on the same nodes."""
        return self.run.metrics.number("baselines", guesser, "macro_f1")

    @cached_property
    def train_counts(self) -> NDArray[np.float64] | None:
        """Nodes of each class in training.

        Returns:
            Counts, shape (k,); None if they were not recorded.

        Raises:
            ReportError: if they are not of the run's classes.
        """
        recorded = self.run.environment.get("dataset", "class_counts")
        if recorded is None:
            return None
        counts = self.run.environment.numbers("dataset", "class_counts")
        if len(counts) != len(self.run.class_names) or min(counts) < 0 or not sum(counts):
            raise ReportError(
                f"{self.run.environment.file} counts training nodes of other classes, {recorded}: "
                f"{REMEDY}"
            )
        return np.array(counts)

    def guesser_confusion(self, guesser: str, support: NDArray[np.int64]) -> NDArray[Any] | None:
        """Return the confusion matrix of a guesser on some of the nodes.

        Args:
            guesser: `constant` or `prior`.
            support: Nodes of each class, shape (k,).

        Returns:
            Counts, shape (k, k); None of a prior that was not recorded.
        """
        if guesser == "constant":
            return constant_confusion(support, best_constant(support))
        counts = self.train_counts
        return None if counts is None else prior_confusion(support, counts)

    def guesser_class_f1_scores(self, guesser: str) -> NDArray[np.float64] | None:
        """Return a guesser's F1 of each class, see `metrics.scores.guesser_class_f1`; or trees'."""
        if guesser == TREES:
            recorded = self.run.metrics.child("baselines", TREES, "per_class")
            return np.array([recorded.number(name, "f1") for name in self.run.class_names])
        support = self.run.confusion.sum(1)
        counts = support if guesser == "constant" else self.train_counts
        return None if counts is None else guesser_class_f1(guesser, support, counts)

    @cached_property
    def of_pictures(self) -> Resampled:
        """Macro-F1 without each picture that was validated on."""
        _, counts = self.run.picture_confusions
        return Resampled.of(counts, {MACRO_F1: macro_f1_from_confusion}, Bootstrap(resamples=1))

    @property
    def reload_delta(self) -> float | None:
        """Largest difference between live and reloaded macro-F1, points; None if none is known."""
        deltas = (record.optional("delta_pp") for record in self.run.verified.values())
        return max((abs(delta) for delta in deltas if delta is not None), default=None)


@dataclass(frozen=True)
class OverBoth:
    """The difference of a variant to the baseline, with pictures and seeds taken as samples.

    Attributes:
        pictures: Pictures validated on.
        seeds: Members that both have.
        test: The difference in macro-F1, as a fraction, and its test.
        components: What its variance is made of.
        p_holm: The p value, corrected for all variants of the sweep.
    """

    pictures: int
    seeds: int
    test: Crossed
    components: Components
    p_holm: float


@dataclass(frozen=True)
class Variant:
    """Runs that differ in seed and fold alone.

    Attributes:
        name: Its name in the plan.
        members: At least one, by name.
    """

    name: str
    members: tuple[Member, ...]

    @property
    def best(self) -> Mean:
        """Macro-F1 of the kept checkpoints."""
        return mean_of([member.best for member in self.members])

    @property
    def score(self) -> Mean:
        """What chose the checkpoints, as `Member.score`."""
        return mean_of([member.score for member in self.members])

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Counts of all members together, shape (k, k)."""
        total: NDArray[np.int64] = np.sum([m.run.confusion for m in self.members], axis=0)
        return total

    @property
    def reload_delta(self) -> float | None:
        """Largest of its members, points; None if one is not known."""
        deltas = [member.reload_delta for member in self.members]
        known = [delta for delta in deltas if delta is not None]
        return max(known) if len(known) == len(deltas) else None

    def number(self, *path: str) -> float:
        """Average a number of metrics.json over the members."""
        return float(np.mean([member.run.metrics.number(*path) for member in self.members]))


@dataclass(frozen=True)
class Sweep:
    """All finished runs of a sweep.

    Attributes:
        path: The folder.
        experiment: Its name.
        baseline: The variant that the others are compared with, if it has finished runs.
        variants: Best mean first, of log loss if `by_log_loss`, else of macro-F1.
        missing: Folders of jobs without a result.
        commit: Of the code that ran it, if known.
        test: test.json, if the test split was opened.
    """

    path: Path
    experiment: str
    baseline: str | None
    variants: tuple[Variant, ...]
    missing: tuple[str, ...]
    commit: str | None
    test: Fields | None = None

    @property
    def slug(self) -> str:
        """The experiment's name as that of a file."""
        return slug(self.experiment)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, which are the same in all runs."""
        return self.variants[0].members[0].run.class_names

    def dataset_facts(self, key: str) -> list[Any]:
        """Return the distinct values of a key of the runs' data in environment.json."""
        values = [
            member.run.environment.get("dataset", key)
            for variant in self.variants
            for member in variant.members
        ]
        return [value for index, value in enumerate(values) if value not in values[:index]]

    @property
    def same_nodes(self) -> bool:
        """Whether all runs were validated on the same nodes of the same data."""
        keys = ("manifest_sha256", "split_sha256")
        return all(len(self.dataset_facts(key)) == 1 for key in keys)

    @cached_property
    def by_log_loss(self) -> bool:
        """Whether all checkpoints were chosen by log loss, of which less is better."""
        return _by_log_loss(self.variants)

    @cached_property
    def has_trees(self) -> bool:
        """Whether boosted trees stand beside all runs."""
        return all(
            m.run.metrics.get("baselines", TREES) is not None
            for v in self.variants
            for m in v.members
        )

    @cached_property
    def differences(self) -> Mapping[str, Difference]:
        """Each variant against the baseline, in what chose the checkpoints; empty without one."""
        return self._against({v.name: {m.name: m.score for m in v.members} for v in self.variants})

    @cached_property
    def f1_differences(self) -> Mapping[str, Difference]:
        """Each variant against the baseline, in macro-F1; empty without a baseline."""
        return self._against({v.name: {m.name: m.best for m in v.members} for v in self.variants})

    @cached_property
    def over_both(self) -> Mapping[str, OverBoth]:
        """Each variant against the baseline over pictures and seeds, in macro-F1.

        Empty without a baseline. Without variants that share fewer than two members with it, or
        whose members were validated on fewer than two pictures or not all on the same.
        """
        by_name = {variant.name: variant for variant in self.variants}
        base = by_name.get(self.baseline or "")
        if base is None:
            return {}
        found: dict[str, tuple[int, int, Crossed, Components]] = {}
        for name, variant in by_name.items():
            if name == base.name:
                continue
            observed = _observed(variant, base)
            if observed is not None:
                shape = observed.shape
                found[name] = (*shape, crossed_test(observed), Components.of(observed))
        corrected = holm([test.p for _, _, test, _ in found.values()])
        return {
            name: OverBoth(*result, p_holm)
            for (name, result), p_holm in zip(found.items(), corrected, strict=True)
        }

    def _against(self, scores: Mapping[str, Mapping[str, float]]) -> Mapping[str, Difference]:
        return {} if self.baseline is None else against_baseline(scores, self.baseline)

    def is_better(self, difference: Difference) -> bool:
        """Return whether one of `differences` is in favour of its variant."""
        return (difference.mean < 0) == self.by_log_loss


def _observed(variant: Variant, base: Variant) -> NDArray[np.float64] | None:
    """Return what each picture and seed contributes to a difference in macro-F1, shape (g, s)."""
    of_base = {member.name: member for member in base.members}
    pairs = [(member, of_base[member.name]) for member in variant.members if member.name in of_base]
    pictures = {each.run.picture_confusions[0] for pair in pairs for each in pair}
    if len(pairs) < 2 or len(pictures) != 1 or len(next(iter(pictures))) < 2:
        return None
    return np.stack(
        [own.of_pictures.contributions(other.of_pictures)[MACRO_F1] for own, other in pairs], axis=1
    )


def _by_log_loss(variants: Sequence[Variant]) -> bool:
    return all(member.log_loss is not None for v in variants for member in v.members)


def is_sweep(folder: Path) -> bool:
    """Return whether a folder is that of a sweep."""
    return (folder / SWEEP_FILE).is_file()


def load_sweep(folder: Path) -> Sweep:
    """Read a sweep.

    Args:
        folder: With sweep.json and the runs' folders.

    Returns:
        The sweep, without its Stage-1 runs.

    Raises:
        ReportError: if sweep.json is of another format, it or a run is damaged, no run is
            finished, or runs differ in their classes.
    """
    record = Fields.read(folder / SWEEP_FILE)
    if problem := sweep_problem(record.file, record.data):
        raise ReportError(problem)
    members_of: dict[str, list[Member]] = {}
    missing = []
    published = dict(read_published(folder)) if is_published(folder) else None
    for job in record.items("jobs"):
        place, variant = job.text("folder"), job.text("variant")
        path = folder / place
        if variant == START:
            continue
        if published is not None:
            run: Run | None = published.get(place)
        else:
            run = load_run(path, place) if (path / METRICS_FILE).is_file() else None
        if run is None:
            missing.append(place)
            continue
        if not isinstance(run, StageRun):
            raise ReportError(f"{path} is not the run of a stage: {REMEDY}")
        members_of.setdefault(variant, []).append(Member(job.text("member"), run))
    if not members_of:
        raise ReportError(f"{folder} has no finished run: start the sweep again")
    variants = [Variant(name, tuple(members)) for name, members in members_of.items()]
    _check_alike(folder, variants)
    sign = 1 if _by_log_loss(variants) else -1
    variants.sort(key=lambda v: (sign * v.score.mean, v.name))
    baseline = record.get("baseline")
    experiment, commit = record.get("experiment"), record.get("git_commit")
    return Sweep(
        folder,
        folder.resolve().name if experiment is None else str(experiment),
        baseline if baseline in members_of else None,
        tuple(variants),
        tuple(missing),
        None if commit is None else str(commit),
        read_test(folder / TEST_FILE) if (folder / TEST_FILE).is_file() else None,
    )


def publish_sweep(folders: Sequence[Path], out: Path, *, predictions: bool = True) -> None:
    """Write the files of a sweep that a repository can keep; they read back as the sweep itself.

    Args:
        folders: One, that of a sweep.
        out: Folder to write to.
        predictions: Whether the classes of single nodes may be published.

    Raises:
        ReportError: if it is no sweep, or a run is damaged.
    """
    if len(folders) != 1 or not is_sweep(folders[0]) or is_published(folders[0]):
        named = " ".join(map(str, folders))
        raise ReportError(
            f"publish= is of one sweep, not of {named}: name the folder that holds its sweep.json"
        )
    if out.resolve().is_relative_to(folders[0].resolve()):
        raise ReportError(f"publish={out} lies in the sweep itself: name another folder")
    sweep = load_sweep(folders[0])
    runs = {m.run.name: m.run for v in sweep.variants for m in v.members}
    publish(folders[0], dict(sorted(runs.items())), out, predictions=predictions)


def _check_alike(folder: Path, variants: Sequence[Variant]) -> None:
    """Refuse runs that cannot stand in one table.

    Raises:
        ReportError: naming two that differ.
    """
    first = variants[0].members[0].run
    for name in (*first.class_names, *(variant.name for variant in variants)):
        # They go into scripts of the page.
        if "<" in name or not name.isprintable():
            raise ReportError(
                f"{folder / SWEEP_FILE}: {name!r} names no variant or class: {REMEDY}"
            )
    for variant in variants:
        for member in variant.members:
            if member.run.class_names != first.class_names:
                raise ReportError(
                    f"{folder}: {member.run.name} has the classes "
                    f"{', '.join(member.run.class_names)}, {first.name} "
                    f"{', '.join(first.class_names)}: report them separately"
                )
