from collections.abc import Callable

import pytest

from ztunnel.demo.claims import crash
from ztunnel.demo.claims.claim import Claim

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_a_killed_proxy_fails_closed_and_its_restart_fixes_all(check: Callable[[Claim], list[str]]) -> None:
    assert check(crash.CLAIM) == []
