from collections.abc import Callable

import pytest

from ztunnel.demo.claims import rotation
from ztunnel.demo.claims.claim import Claim

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_certificates_are_replaced_under_load_and_a_mark_opens_no_way_out(
    check: Callable[[Claim], list[str]],
) -> None:
    assert check(rotation.CLAIM) == []
