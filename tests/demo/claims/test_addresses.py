from collections.abc import Callable

import pytest

from ztunnel.demo.claims import addresses
from ztunnel.demo.claims.claim import Claim

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_the_ends_of_a_call_are_told_the_truth_in_every_family_and_place(
    check: Callable[[Claim], list[str]],
) -> None:
    assert check(addresses.CLAIM) == []
