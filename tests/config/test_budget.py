"""A length as time becomes steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.config.budget import Costs, Layout, seconds_in, steps_within


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172_800), (" 1H ", 3600)],
)
def test_times(time, seconds):
    assert seconds_in(time) == seconds


@pytest.mark.parametrize("time", ["", "10", "soon", "10 minutes", "m", "-5m", "0s", "30m1h", "1e3s"])
def test_no_times(time):
    with pytest.raises(ValueError, match=r"--time takes a length such as 90s, 10m or 1h30m.*write 10m"):
        seconds_in(time)


def layout(steps: int) -> Layout:
    """Two evaluators, the second every 10 steps; 20 checkpoints at most."""
    return Layout(steps, 5.5, (min(steps, 20), -(-steps // 10)), min(steps, 20))


def test_steps_in_time():
    costs = Costs(step=2.0, later_step=1.0, once=10.0, evaluations=(0.5, 1.0), save=0.25)
    # 30 steps: 10 at the start, 5.5 steps of 2 s and 24.5 of 1 s, 10 + 3 of evaluations, 5 of saving.
    assert layout(30).seconds(costs) == 10 + 11 + 24.5 + 10 + 3 + 5
    assert steps_within(63.5, costs, layout) == 30
    assert steps_within(63.4, costs, layout) == 29
    assert steps_within(11, costs, layout) == 0, "not even one"


positive = st.floats(1e-3, 10)


@given(st.floats(1, 1e5), positive, positive, positive)
def test_the_most_that_fit(seconds, step, look, save):
    costs = Costs(step=step, later_step=step / 2, once=0.5, evaluations=(look, look), save=save)
    steps = steps_within(seconds, costs, layout)
    assert layout(steps + 1).seconds(costs) > seconds
    assert steps == 0 or layout(steps).seconds(costs) <= seconds
