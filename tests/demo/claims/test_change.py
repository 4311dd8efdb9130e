from collections.abc import Callable

import pytest

from ztunnel.demo.claims import change
from ztunnel.demo.claims.claim import Claim

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_a_change_of_policy_ends_what_it_refuses_and_nothing_else(
    check: Callable[[Claim], list[str]],
) -> None:
    assert check(change.CLAIM) == []
