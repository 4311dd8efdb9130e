"""At no time do two lead, whoever is slow, and somebody leads again soon."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.kube.lease import DURATION_SECONDS, RENEW_SECONDS, Candidate

WALL = datetime(2026, 1, 1, tzinfo=UTC)


def candidate(identity):
    return Candidate("ns", "it", identity)


def stored(lease, version):
    return {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(version)}}


def test_a_lease_is_made_kept_and_released():
    a = candidate("a")
    made = a.next(None, 0.0, WALL)
    assert made["spec"] == {
        "holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 0,
        "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:00.000000Z",
    }  # fmt: skip
    assert made["metadata"] == {"namespace": "ns", "name": "it"}
    assert not a.leads(0.0)
    a.wrote(0.0)
    assert a.leads(RENEW_SECONDS - 0.1)
    again = a.next(stored(made, 7), 2.0, WALL + timedelta(seconds=2))
    assert again["metadata"]["resourceVersion"] == "7"
    assert (again["spec"]["acquireTime"], again["spec"]["leaseTransitions"]) == (
        made["spec"]["acquireTime"],
        0,
    )
    a.wrote(2.0)
    freed = a.released(stored(again, 8), WALL)
    assert (freed["spec"]["holderIdentity"], a.leads(2.1)) == ("", False)
    taken = candidate("b").next(stored(freed, 9), 100.0, WALL)
    assert (taken["spec"]["holderIdentity"], taken["spec"]["leaseTransitions"]) == ("b", 1)


def test_another_ones_lease_is_taken_when_it_has_not_changed_for_its_duration():
    a, b = candidate("a"), candidate("b")
    lease = stored(a.next(None, 0.0, WALL), 1)
    assert b.next(lease, 1000.0, WALL) is None
    assert b.next(lease, 1000.0 + DURATION_SECONDS - 0.1, WALL) is None
    renewed = stored(a.next(lease, 14.0, WALL + timedelta(seconds=14)), 2)
    assert b.next(renewed, 1014.5, WALL) is None
    assert b.next(renewed, 1029.0, WALL) is None
    assert b.next(renewed, 1029.6, WALL)["spec"]["holderIdentity"] == "b"


def test_who_finds_another_ones_name_in_the_lease_leads_no_longer():
    a = candidate("a")
    a.next(None, 0.0, WALL)
    a.wrote(0.0)
    a.next(stored(candidate("b").next(None, 0.0, WALL), 1), 1.0, WALL)
    assert not a.leads(1.0)


def test_a_lease_of_nonsense_is_waited_for_and_taken():
    for spec in (None, 7, {"holderIdentity": "x", "leaseDurationSeconds": "y", "leaseTransitions": "z"}):
        a, lease = candidate("a"), {"metadata": {"resourceVersion": "1"}, "spec": spec}
        a.next(lease, 0.0, WALL)
        assert a.next(lease, DURATION_SECONDS + 0.1, WALL)["spec"]["holderIdentity"] == "a"


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0.1, 9.0), st.floats(0.0, 8.0), st.booleans()), max_size=40
)


@settings(max_examples=40)
@given(STEPS)
def test_two_never_lead_at_a_time(steps):
    """Three replicas look at the lease at any time; writing takes any time, and only the version that was
    read can be replaced."""
    replicas, lease, version, now = [candidate(name) for name in "abc"], None, 0, 0.0
    for who, pause, takes, answered in steps:
        now += pause
        made = replicas[who].next(
            None if lease is None else stored(lease, version), now, WALL + timedelta(seconds=now)
        )
        if made is not None:
            asked = now
            now += takes
            lease, version = made, version + 1
            if answered:
                replicas[who].wrote(asked)
        assert sum(one.leads(now) for one in replicas) <= 1
