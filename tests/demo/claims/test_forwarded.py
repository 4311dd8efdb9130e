from collections.abc import Callable

import pytest

from ztunnel.demo.claims import forwarded
from ztunnel.demo.claims.claim import Claim

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_what_a_pod_forwards_is_under_its_policies(check: Callable[[Claim], list[str]]) -> None:
    assert check(forwarded.CLAIM) == []
