"""What the benchmark of routes measures is what it says."""

from __future__ import annotations

import pytest

from bench.routes import MIXES, ROUTES, lines, measured, requests_of, router_of
from ztunnel.l7.routing.comparison import Asked


@pytest.mark.parametrize("name", MIXES)
def test_a_request_is_decided_by_the_rule_that_it_is_made_for(name: str) -> None:
    router = router_of(name)
    for number in (0, ROUTES // 2, ROUTES - 1):
        route = router.decide(Asked(requests_of(name, number)))
        assert route is not None
        assert route.name == str(number)
    assert router.decide(Asked(requests_of(name, ROUTES))) is None


def test_a_decision_takes_time() -> None:
    assert 0 < measured(router_of("exact paths"), requests_of("exact paths", 1), times=20) < 0.1
    assert [name for name, seconds, compiled in lines(times=20) if seconds > 0 and compiled > 0] == list(
        MIXES
    )
