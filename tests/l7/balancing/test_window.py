"""What was a short while ago is counted, and what was before is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.balancing.window import Window


@given(st.floats(0.001, 1e4), st.lists(st.floats(0, 1e5), max_size=50).map(sorted), st.floats(0, 1e5))
def test_the_last_seconds_count_give_or_take_a_tenth(seconds, times, after):
    window, now = Window(seconds), 0.0
    for now in times:
        window.add(now)
    now += after
    found, near = window.count(now), seconds * 1e-6
    assert sum(now - each < seconds * 0.9 - near for each in times) <= found
    assert found <= sum(now - each <= seconds + near for each in times)


@pytest.mark.parametrize(("now", "count"), [(0.0, 5), (8.9, 5), (10.1, 0), (1e9, 0)])
def test_what_is_over_is_forgotten(now, count):
    window = Window(10.0)
    for _ in range(5):
        window.add(0.0)
    assert window.count(now) == count
    window.add(now)
    assert window.count(now) == count + 1


def test_a_clock_that_stands_still_or_goes_back_takes_nothing():
    window = Window(1.0)
    window.add(5.0)
    window.add(4.0)
    assert window.count(5.0) == 2
