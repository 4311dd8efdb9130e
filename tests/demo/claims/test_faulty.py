from collections.abc import Callable

import pytest

from ztunnel.demo.claims import faulty
from ztunnel.demo.claims.claim import Claim

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_a_faulty_object_costs_only_itself(check: Callable[[Claim], list[str]]) -> None:
    assert check(faulty.CLAIM) == []
