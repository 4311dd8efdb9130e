from collections.abc import Callable

import pytest

from ztunnel.demo.claims import ports
from ztunnel.demo.claims.claim import Claim

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_a_thousand_calls_pass_through_a_hundred_ports(check: Callable[[Claim], list[str]]) -> None:
    assert check(ports.CLAIM) == []
