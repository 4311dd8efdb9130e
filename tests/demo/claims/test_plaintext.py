from collections.abc import Callable

import pytest

from ztunnel.demo.claims import plaintext
from ztunnel.demo.claims.claim import Claim
from ztunnel.demo.claims.shop import Shop

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_plaintext_from_outside_is_refused_or_counted(check: Callable[[Claim], list[str]]) -> None:
    assert check(plaintext.CLAIM) == []


def test_what_came_just_before_it_is_not_counted(shop: Shop, check: Callable[[Claim], list[str]]) -> None:
    """The page of metrics that was read before that call is shown again for a moment."""
    shop.samples("node-1")
    assert not shop.caller("client").call(shop.pod("orders-1")).error
    assert check(plaintext.CLAIM) == []
