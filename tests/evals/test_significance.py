"""What a few seeds show: parity with SciPy, and false alarms of studies without a difference."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unmask.evals.significance import Measured, differences, holm, student_p, welch_p

STUDIES, MOST_FALSE_ALARMS = 1000, 80
floats = st.floats(-100, 100)
seeds = st.lists(floats, min_size=2, max_size=6)


@given(st.floats(-60, 60), st.floats(1, 200))
def test_students_tail_is_scipys(t, freedom):
    assert student_p(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-9, abs=1e-14)


def test_students_tail_at_its_ends():
    assert student_p(0.0, 4.0) == 1
    assert student_p(math.inf, 4.0) == 0


def test_welch_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(100):
        one = rng.normal(0, rng.uniform(0.1, 3), rng.integers(2, 8)).tolist()
        other = rng.normal(1, rng.uniform(0.1, 3), rng.integers(2, 8)).tolist()
        expected = stats.ttest_ind(one, other, equal_var=False).pvalue
        assert welch_p(one, other) == pytest.approx(expected, rel=1e-9)


@given(seeds, seeds, st.floats(0, 1))
def test_welch_is_a_symmetric_probability(one, other, step):
    p = welch_p(one, other, step=step)
    assert 0 <= p <= 1
    assert p == welch_p(other, one, step=step)


def test_without_spread_nothing_is_certain():
    assert welch_p([0.8] * 3, [0.9] * 3) == 1
    assert welch_p([0.80] * 3, [0.82] * 3, step=0.02) > 0.01
    with pytest.raises(ValueError, match="two values"):
        welch_p([1.0], [1.0, 2.0])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_bounds_and_order(p_values):
    corrected = holm(p_values)
    assert all(p <= c <= min(1, len(p_values) * p) for p, c in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert sorted(corrected) == [corrected[i] for i in order]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def false_alarms(draw, *, values, quantities, step=0.0):
    """Studies in which any difference is shown, although all values are equally good."""
    names = [str(i) for i in range(values)]

    def study():
        measured = {str(q): Measured({name: draw() for name in names}, step) for q in range(quantities)}
        return any(one.is_shown for one in differences(measured, "0"))

    return sum(study() for _ in range(STUDIES))


@pytest.mark.parametrize(("values", "runs", "quantities"), [(2, 3, 1), (2, 5, 1), (3, 3, 2), (6, 3, 2)])
def test_false_alarms_of_1000_studies_of_normal_spread(values, runs, quantities):
    rng = np.random.default_rng(values + 10 * runs + 100 * quantities)
    count = false_alarms(
        lambda: rng.normal(0.7, 0.02, runs).tolist(), values=values, quantities=quantities
    )
    assert count <= MOST_FALSE_ALARMS


@pytest.mark.parametrize(
    ("images", "accuracy", "values"), [(50, 0.9, 2), (50, 0.98, 5), (657, 0.78, 2), (657, 0.78, 5)]
)
def test_false_alarms_of_1000_studies_of_accuracies(images, accuracy, values):
    """Accuracies over few images are often equal in all of three runs."""
    rng = np.random.default_rng(images + values)

    def draw():
        return (rng.binomial(images, accuracy, 3) / images).tolist()

    assert false_alarms(draw, values=values, quantities=2, step=1 / images) <= MOST_FALSE_ALARMS


def test_false_alarms_of_seeds_that_hardly_matter():
    """All runs come to about the same, so that the accuracy is one of two neighbouring numbers."""
    rng = np.random.default_rng(0)

    def draw():
        return ((45 + (rng.random(3) < 0.3)) / 50).tolist()

    assert false_alarms(draw, values=5, quantities=2, step=1 / 50) <= MOST_FALSE_ALARMS


def test_a_large_difference_is_shown_and_named():
    measured = Measured(
        {"random": [0.70, 0.71, 0.69], "grid": [0.5, 0.51, 0.5], "block": [0.7, 0.7, 0.71]}
    )
    grid, block = differences({"accuracy": measured}, "random")
    assert (grid.value, grid.is_shown, block.is_shown) == ("grid", True, False)
    assert grid.mean < grid.baseline_mean


def test_two_seeds_and_those_that_diverged_show_nothing():
    few = Measured({"a": [0.1, 0.1], "b": [0.9, 0.9]})
    diverged = Measured({"a": [0.1, 0.11, 0.1], "b": [0.9, 0.9, math.nan]})
    assert differences({"one": few, "two": diverged}, "a") == []
    assert differences({"one": few}, "not measured") == []
