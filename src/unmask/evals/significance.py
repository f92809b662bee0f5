"""Whether a difference between a few runs is more than chance: Welch's t-test, corrected by Holm.

What is compared is one value of a setting with another, each measured with several seeds.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance
from typing import NamedTuple

LEVEL = 0.05
"""Probability of naming any difference if there is none."""
LEAST_SEEDS = 3
TERMS, EPS = 500, 1e-15


class Measured(NamedTuple):
    """One quantity: its values over seeds, by the value of the setting."""

    values: Mapping[str, Sequence[float]]
    step: float = 0.0
    """The least by which it can change: 1 / n for an accuracy over n images."""


class Difference(NamedTuple):
    """Difference of one value of the setting from the baseline, in one quantity."""

    quantity: str
    value: str
    mean: float
    baseline_mean: float
    p: float
    """After the correction for all that is compared."""

    @property
    def is_shown(self) -> bool:
        """At 95 %, whatever the number of comparisons."""
        return self.p < LEVEL


def differences(quantities: Mapping[str, Measured], baseline: str) -> list[Difference]:
    """Compares every value with the baseline in every quantity; all of them are one family.

    Values with fewer than 3 finite measurements are left out; so is everything if the baseline has
    fewer. If all values are equally good, the probability that any difference is shown is 5 % at most.
    """
    found = [
        Difference(name, value, fmean(mine), fmean(base), welch_p(mine, base, step=one.step))
        for name, one in quantities.items()
        if len(base := _finite(one.values.get(baseline, ()))) >= LEAST_SEEDS
        for value, seeds in one.values.items()
        if value != baseline and len(mine := _finite(seeds)) >= LEAST_SEEDS
    ]
    corrected = holm([one.p for one in found])
    return [one._replace(p=p) for one, p in zip(found, corrected, strict=True)]


def welch_p(one: Sequence[float], other: Sequence[float], *, step: float = 0.0) -> float:
    """Two-sided p-value of the means being equal, for samples of unequal variances (Welch 1947).

    `step` rounds what was measured: the variance of such a rounding, step^2 / 12, is added to each
    sample's, so that equal accuracies of three runs do not pass for certainty. 1 if nothing varies.

    Raises ValueError for fewer than two values.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError("Welch's test needs two values on each side: give more seeds")
    rounding = step**2 / 12
    a, b = ((variance(values) + rounding) / len(values) for values in (one, other))
    if a + b == 0:
        return 1.0
    t = (fmean(one) - fmean(other)) / math.sqrt(a + b)
    mine, theirs = a / (a + b), b / (a + b)
    return student_p(t, 1 / (mine**2 / (len(one) - 1) + theirs**2 / (len(other) - 1)))


def student_p(t: float, freedom: float) -> float:
    """Probability that Student's t is further from 0 than this, on either side."""
    if math.isinf(t):
        return 0.0
    total = freedom + t * t
    return _incomplete_beta(freedom / total, t * t / total, freedom / 2, 0.5)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that bound the probability of any false alarm among them (Holm 1979), in their order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """I_x(a, b), regularised, by its continued fraction (DLMF 8.17.22); SciPy is no dependency.

    `rest` is 1 - x, which may be too small to be subtracted.
    """
    if x == 0 or rest == 0:
        return float(rest == 0)
    if x > (a + 1) / (a + b + 2):  # there the fraction converges faster for the complement
        return 1 - _incomplete_beta(rest, x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logarithm + a * math.log(x) + b * math.log(rest)) / a
    return front / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d1 / (1 + d2 / (1 + ...)) by Lentz's method."""
    result, c, d = 1.0, 1.0, 0.0
    for term in range(1, TERMS):
        m = term // 2
        if term % 2:
            factor = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            factor = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + factor * d)
        c = 1 + factor / c
        result *= c * d
        if abs(c * d - 1) < EPS:
            break
    return result
