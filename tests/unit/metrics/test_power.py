"""Tests over pictures and seeds, and how many of each they need: by libraries and by simulation."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import TTestPower

from av1part import embedded
from av1part.data.store.store import Store
from av1part.metrics.intervals import Bootstrap
from av1part.metrics.paired import Resampled
from av1part.metrics.power import (
    Components,
    crossed_test,
    detectable,
    pictures_needed,
    power,
    seeds_needed,
)
from av1part.metrics.scores import confusion_matrix, macro_f1_from_confusion
from av1part.partition import taxonomy


@pytest.fixture(scope="module")
def stage2_of_pictures() -> list[NDArray[np.int64]]:
    """Stage 2's labels of the embedded dataset's nodes of 16x16, picture by picture."""
    nodes = Store.open(embedded.STORE).nodes.filter(pl.col("size") == 16)
    labels = taxonomy("v6").stage("stage2").labels[nodes["partition"].to_numpy()]
    of_all = nodes.with_columns(label=labels).filter(pl.col("label") >= 0)
    return [each["label"].to_numpy() for each in of_all.partition_by("sequence")]


def drawn(
    rng: np.random.Generator, g: int, s: int, components: Components, mean: float = 0.0
) -> NDArray[np.float64]:
    """Draw observations with these components, shape (g, s)."""
    scales = (components.picture**0.5, components.seed**0.5, components.rest**0.5)
    shapes = ((g, 1), (1, s), (g, s))
    parts = [scale * rng.normal(size=shape) for scale, shape in zip(scales, shapes, strict=True)]
    total: NDArray[np.float64] = parts[0] + parts[1] + parts[2]
    return mean + total


@pytest.mark.filterwarnings("ignore:Using dict data")
def test_mean_squares_are_those_of_the_analysis_of_variance() -> None:
    values = drawn(np.random.default_rng(1), 7, 3, Components(4.0, 1.0, 2.0))
    g, s = values.shape
    table = {
        "value": values.ravel(),
        "picture": np.repeat(np.arange(g), s),
        "seed": np.tile(np.arange(s), g),
    }
    squares = anova_lm(ols("value ~ C(picture) + C(seed)", table).fit())
    picture, seed, rest = (squares["sum_sq"] / squares["df"]).tolist()
    found = Components.of(values)
    assert found.rest == pytest.approx(rest)
    assert found.picture == pytest.approx((picture - rest) / s)
    assert found.seed == pytest.approx(max(0, (seed - rest) / g))
    assert found.mean_squares(g, s)[0] == pytest.approx(picture)


def test_of_equal_seeds_it_is_the_t_test_over_pictures() -> None:
    each = [0.5, 0.1, -0.2, 0.4, 0.3]
    found = crossed_test(np.repeat(np.array(each)[:, None], 3, axis=1))
    expected = stats.ttest_1samp(each, 0.0)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_of_equal_pictures_it_is_the_t_test_over_seeds() -> None:
    each = [0.5, 0.1, 0.2]
    found = crossed_test(np.repeat(np.array(each)[None], 4, axis=0))
    assert found.p == pytest.approx(stats.ttest_1samp(each, 0.0).pvalue)
    assert found.freedom == 2


def test_values_without_spread() -> None:
    assert crossed_test(np.zeros((3, 2))).p == 1
    assert crossed_test(np.full((3, 2), 0.25)).p == 0


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (3,)])
def test_a_single_seed_or_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two of each"):
        crossed_test(np.ones(shape))
    with pytest.raises(ValueError, match="two of each"):
        Components.of(np.ones(shape))


def test_power_is_that_of_a_t_test_where_pictures_alone_differ() -> None:
    only_pictures = Components(4.0, 0.0, 0.0)
    for pictures in (5, 12, 41):
        expected = TTestPower().power(1.5 / 2.0, pictures, 0.05)
        found = power(1.5, only_pictures, pictures=pictures, seeds=2)
        assert found == pytest.approx(expected, abs=1e-6)


def test_power_is_what_simulation_gives() -> None:
    rng = np.random.default_rng(2)
    components = Components(9.0, 0.5, 6.0)
    found = np.mean([crossed_test(drawn(rng, 20, 4, components, 2.0)).p < 0.05 for _ in range(600)])
    assert found == pytest.approx(power(2.0, components, pictures=20, seeds=4), abs=0.06)


def test_a_lost_direction_counts_as_found() -> None:
    """The test is two-sided, so of no difference the power is its level."""
    assert power(0.0, Components(1.0, 0.2, 1.0), pictures=9, seeds=3) == pytest.approx(0.05)


GRID = [
    Components(picture, seed, rest)
    for picture in (0.0, 1.0, 9.0)
    for seed in (0.0, 0.01, 0.3)
    for rest in (0.1, 6.0)
]


@pytest.mark.parametrize("components", GRID, ids=str)
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_pictures_needed_are_the_least(components: Components, seeds: int) -> None:
    needed = pictures_needed(1.5, components, seeds=seeds)
    chances = [
        power(1.5, components, pictures=n, seeds=seeds) for n in range(2, (needed or 300) + 1)
    ]
    assert max([0.0, *chances[: -1 if needed else None]]) < 0.8
    assert needed is None or chances[-1] >= 0.8


def test_more_seeds_need_fewer_pictures() -> None:
    components = Components(9.0, 0.3, 6.0)
    five, ten = (pictures_needed(1.5, components, seeds=n) for n in (5, 10))
    assert five is not None
    assert ten is not None
    assert ten < five


def test_pictures_that_are_enough_are_found_though_far_more_are_not() -> None:
    """With two seeds and endless pictures one degree of freedom is left."""
    components = Components(1e-3, 1e-5, 1e-5)
    assert power(0.015, components, pictures=100_000, seeds=2) < 0.5
    needed = pictures_needed(0.015, components, seeds=2)
    assert needed is not None
    assert power(0.015, components, pictures=needed, seeds=2) >= 0.8


def test_where_seeds_differ_by_more_no_number_of_pictures_does() -> None:
    assert pictures_needed(0.5, Components(1.0, 1.0, 1.0), seeds=3) is None


def test_seeds_needed_are_the_least() -> None:
    components = Components(1.0, 3.0, 2.0)
    needed = seeds_needed(1.5, components, pictures=41)
    assert needed is not None
    chances = [power(1.5, components, pictures=41, seeds=n) for n in (needed - 1, needed)]
    assert chances[0] < 0.8 <= chances[1]
    assert seeds_needed(0.5, Components(9.0, 0.1, 1.0), pictures=5) is None
    assert seeds_needed(9.0, Components(0.1, 0.1, 0.1), pictures=41) == 2


def test_what_is_detectable_is_found_with_the_chance() -> None:
    components = Components(9.0, 0.3, 6.0)
    least = detectable(components, pictures=41, seeds=5)
    assert power(least, components, pictures=41, seeds=5) == pytest.approx(0.8)
    assert detectable(Components(0.0, 0.0, 0.0), pictures=3, seeds=2) == 0


@pytest.mark.parametrize(("seeds", "most"), [(5, 0.08), (3, 0.10)])
def test_seeds_that_differ_are_not_taken_for_evidence(seeds: int, most: float) -> None:
    """Over pictures alone, a luck of the seeds is found again in every picture."""
    rng = np.random.default_rng(3)
    components = Components(1.0, 1.0, 1.0)
    both, pictures = [], []
    for _ in range(2000):
        values = drawn(rng, 20, seeds, components)
        both.append(crossed_test(values).p < 0.05)
        pictures.append(stats.ttest_1samp(values.mean(1), 0.0).pvalue < 0.05)
    assert np.mean(pictures) > 0.2
    assert 0.02 < np.mean(both) < most


def test_shuffled_labels_are_found_different_at_the_level_of_the_tests(
    stage2_of_pictures: list[NDArray[np.int64]],
) -> None:
    """Two guessers of the real labels of eleven pictures, neither of which knows anything.

    Both guess each picture's own labels in an order of their own, so that they differ by chance
    alone, in pictures that differ in size and in classes. At a level of 5 % the share of 600
    shuffles is within 1 point (one standard error); that of the bootstrap is known to be higher
    with few pictures (`metrics.intervals`).
    """
    rng = np.random.default_rng(4)
    assert len(stage2_of_pictures) == 11

    def guessed(y: NDArray[np.int64]) -> NDArray[np.int64]:
        return confusion_matrix(rng.permutation(y), y, 3)

    scores = {"macro_f1": macro_f1_from_confusion}
    seen: dict[str, list[bool]] = {"pictures": [], "bootstrap": [], "both": []}
    for _ in range(600):
        contributions = []
        for seed in range(3):
            first, second = (
                Resampled.of(
                    np.stack(
                        [confusion_matrix(rng.permutation(y), y, 3) for y in stage2_of_pictures]
                    ),
                    scores,
                    Bootstrap(resamples=400),
                )
                for _ in range(2)
            )
            contributions.append(first.contributions(second)["macro_f1"])
            if seed == 0:
                difference = first.minus(second)["macro_f1"]
                assert difference.p is not None
                seen["pictures"].append(difference.p < 0.05)
                seen["bootstrap"].append(difference.interval.sign != "zero")
        seen["both"].append(crossed_test(np.stack(contributions, axis=1)).p < 0.05)
    rates = {name: np.mean(values) for name, values in seen.items()}
    assert 0.02 <= rates["pictures"] <= 0.08, rates
    assert 0.02 <= rates["both"] <= 0.08, rates
    assert 0.03 <= rates["bootstrap"] <= 0.14, rates
