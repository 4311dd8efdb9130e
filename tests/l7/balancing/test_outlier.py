"""Ejection: what counts, who is ejected, for how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.l7.hosts import hosts
from ztunnel.l7.balancing.outlier import Outliers, status_of_grpc
from ztunnel.model.traffic import Outlier

HALF = Outlier(server_errors=3, gateway_errors=0, most_percent=50)

# What happens to one endpoint of four, one after the other: a status, `connect` or `timeout` for a failure
# without one; and after how many of them it is ejected (None: never).
COUNTED = [
    (HALF, [500, 500, 500], 3),
    (HALF, [500, 200, 500, 500, 404, 500], None),
    (HALF, [500, 503, "connect"], 3),
    (HALF, [500, "timeout", 599], 3),
    (HALF, [499, 429, 400, 404], None),
    (Outlier(0, 2, most_percent=50), [500, 500, 500, 500], None),
    (Outlier(0, 2, most_percent=50), [502, 500, 502, 503], 4),
    (Outlier(0, 2, most_percent=50), [503, "connect"], 2),
    (Outlier(0, 2, most_percent=50), [503, "timeout"], 2),
    (Outlier(5, 2, most_percent=50), [500, 500, 503, 504], 4),
    (Outlier(0, 0, most_percent=50), [503] * 20, None),
    (Outlier(3, 0, 2, True, most_percent=50), [503, "connect", 503, 503], 4),
    (Outlier(9, 0, 2, True, most_percent=50), ["connect", "timeout"], 2),
    (Outlier(9, 0, 2, True, most_percent=50), ["connect", 200, "connect"], None),
    (Outlier(9, 0, 2, True, most_percent=50), ["connect", 503, "connect"], None),  # it could be reached
    (Outlier(9, 0, 0, True, most_percent=50), ["connect"] * 20, None),
    (Outlier(2, codes=(429, 503)), [429, 503], 2),
    (Outlier(2, codes=(429, 503)), [500, 429, 500, 404, 429], None),
    (Outlier(0, 2, codes=(429, 503)), [503, 429, 503, 503], 4),  # 429 is no gateway's
    (Outlier(2, codes=(429,)), [429, "connect"], 2),
]


def happens(outliers, host, what, count, now=0.0):
    if isinstance(what, int):
        return outliers.responded(host, what, count, now)
    return outliers.failed(host, what == "timeout", count, now)


@pytest.mark.parametrize(("outlier", "events", "after"), COUNTED)
def test_so_many_failures_in_a_row(outlier, events, after):
    outliers, (host, *_) = Outliers(outlier, 0.0), hosts(4)
    found = [number for number, what in enumerate(events, 1) if happens(outliers, host, what, 4)]
    assert found == ([after] if after else [])
    assert host.available == (after is None)
    assert outliers.ejections == len(found)


def eject(outliers, host, count, now=0.0):
    return any(outliers.responded(host, 500, count, now) for _ in range(3))


@pytest.mark.parametrize(("percent", "count", "most"), [
    (10, 1, 0), (10, 2, 1), (10, 9, 1), (10, 10, 1), (10, 20, 2), (50, 3, 1), (50, 4, 2), (67, 3, 2),
    (99, 1, 0), (100, 1, 1), (100, 3, 3),
])  # fmt: skip
def test_no_more_than_the_percentage_but_one_of_several(percent, count, most):
    outliers, members = Outliers(Outlier(3, most_percent=percent), 0.0), hosts(count)
    assert sum(eject(outliers, host, count) for host in members) == most
    assert outliers.overflows == count - most


def ejected_at_each_second(outliers, host, until):
    found = []
    for second in range(until):
        outliers.look(float(second))
        found.append(not host.available)
    return found


def test_the_time_grows_with_each_ejection_and_falls_with_each_interval():
    outliers, (host, *_) = Outliers(Outlier(3, base_seconds=30, interval_seconds=10), 0.0), hosts(4)
    now = 0.0
    for wanted in (30, 60, 90):
        assert eject(outliers, host, 4, now)
        began = now
        while not host.available:
            now += 1.0
            outliers.look(now)
        assert wanted <= now - began <= wanted + 10
    for _ in range(40):
        now += 10.0
        outliers.look(now)
    assert host.ejections == 0
    assert not outliers._watched
    assert eject(outliers, host, 4, now)
    assert host.ejections == 1


def test_no_ejection_is_longer_than_five_minutes_unless_the_base_time_is():
    for base, most in ((100, 300), (400, 400)):
        outliers, (host, *_) = Outliers(Outlier(3, base_seconds=base), 0.0), hosts(4)
        now = 0.0
        for _ in range(6):
            assert eject(outliers, host, 4, now)
            began = now
            while not host.available:
                now += 10.0
                outliers.look(now)
        assert most <= now - began <= most + 10
        assert host.ejections <= most // base + 1


def test_whoever_is_back_starts_afresh():
    outliers, (host, *_) = Outliers(Outlier(3, 2, base_seconds=10), 0.0), hosts(4)
    outliers.responded(host, 503, 4, 0.0)
    assert outliers.responded(host, 503, 4, 0.0)
    assert outliers.look(20.0)
    assert (host.server_errors, host.gateway_errors) == (0, 0)
    assert not outliers.responded(host, 503, 4, 20.0)


def test_what_an_ejected_endpoint_still_answers_does_not_count():
    outliers, (host, *_) = Outliers(HALF, 0.0), hosts(4)
    assert eject(outliers, host, 4)
    assert not eject(outliers, host, 4)
    assert outliers.ejections == 1


def test_an_endpoint_that_has_gone_is_forgotten_and_makes_room():
    outliers, members = Outliers(Outlier(3, most_percent=10), 0.0), hosts(4)
    assert eject(outliers, members[0], 4)
    assert not eject(outliers, members[1], 4)
    outliers.take_over(set(members[1:]))
    assert not outliers.ejected
    assert eject(outliers, members[1], 3)


def test_nobody_stays_ejected_where_nobody_looks_any_more():
    outliers, members = Outliers(HALF, 0.0), hosts(4)
    assert eject(outliers, members[0], 4)
    outliers.stop()
    assert members[0].available


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([200, 500, 503, "connect", "timeout", "look"]))),
       st.integers(0, 100), st.booleans())  # fmt: skip
def test_the_limit_holds_whatever_happens(events, percent, split):
    outlier = Outlier(2, 2, 2, split, 1.0, 2.0, percent)
    outliers, members, now = Outliers(outlier, 0.0), hosts(6), 0.0
    for number, what in events:
        now += 0.5
        if what == "look":
            outliers.look(now)
        else:
            happens(outliers, members[number], what, 6, now)
        ejected = [host for host in members if not host.available]
        assert set(ejected) == outliers.ejected
        assert len(ejected) <= max(1, percent * 6 // 100)


@pytest.mark.parametrize(("code", "status"), [
    (0, 200), (1, 200), (2, 500), (4, 504), (5, 200), (12, 501), (13, 500), (14, 503), (15, 500), (16, 200),
    (99, 200),
])  # fmt: skip
def test_calls_of_grpc_count_by_their_status(code, status):
    assert status_of_grpc(code) == status
