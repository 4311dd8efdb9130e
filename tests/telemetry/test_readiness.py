"""Ready, or not ready and why."""

from __future__ import annotations

from ztunnel.telemetry.readiness import Readiness


def test_a_node_is_ready_when_nothing_is_pending():
    readiness = Readiness(["state manager", "proxy"])
    assert readiness.render(0) == (False, "not ready, pending: state manager, proxy\n")
    readiness.done("state manager")
    readiness.done("state manager")
    readiness.done("proxy")
    assert readiness.render(0) == (True, "ready\n")


def test_a_task_may_become_pending_again():
    readiness = Readiness()
    readiness.pend("workload proxy manager")
    readiness.pend("workload proxy manager")
    assert readiness.render(0) == (False, "not ready, pending: workload proxy manager\n")
    readiness.done("workload proxy manager")
    assert readiness.render(0) == (True, "ready\n")


def test_details_are_shown_and_do_not_count():
    readiness = Readiness(["proxy"])
    readiness.detail("manifests", "a.yaml:3: spec: wrong\nb.yaml: no")
    readiness.detail("bpf", "old")
    readiness.detail("bpf", "")
    readiness.detail("never", "")
    body = "not ready, pending: proxy\nmanifests: a.yaml:3: spec: wrong | b.yaml: no\n"
    assert readiness.render(0) == (False, body)
    readiness.done("proxy")
    assert readiness.render(0)[0]


def test_five_internal_errors_in_ten_seconds_make_the_node_not_ready():
    readiness = Readiness()
    for second in range(4):
        readiness.internal_error(second)
    assert readiness.pending(4) == []
    readiness.internal_error(4)
    assert readiness.render(4) == (False, "not ready, pending: internal errors\n")
    assert readiness.pending(9.9) == ["internal errors"]
    assert readiness.pending(10) == []
    assert readiness.internal_errors == 5


def test_five_internal_errors_in_a_longer_time_do_not():
    readiness = Readiness()
    for number in range(50):
        readiness.internal_error(number * 2.6)
        assert readiness.pending(number * 2.6) == []
