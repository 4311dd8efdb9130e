from collections.abc import Callable

import pytest

from ztunnel.demo.claims import http_rules
from ztunnel.demo.claims.claim import Claim

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_requests_are_decided_behind_a_waypoint(check: Callable[[Claim], list[str]]) -> None:
    assert check(http_rules.CLAIM) == []
