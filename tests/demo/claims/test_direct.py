from collections.abc import Callable

import pytest

from ztunnel.demo.claims import direct
from ztunnel.demo.claims.claim import Claim
from ztunnel.demo.claims.shop import LABEL, NAMESPACE, Shop

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

SHOP = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}, labels: {{{LABEL}: ambient}}, annotations: {{ztunnel.io/same-node: "%s"}}}}
"""


def test_calls_on_one_node_are_direct_authorized_and_counted(check: Callable[[Claim], list[str]]) -> None:
    assert check(direct.CLAIM) == []


def test_a_proxy_in_the_path_is_seen(shop: Shop) -> None:
    laboratory = shop.laboratory

    def modes() -> set[str]:
        return {
            each["sameNode"] for each in shop.dump("node-1")["workloads"] if each["namespace"] == NAMESPACE
        }

    laboratory.apply(SHOP % "mtls")
    try:
        shop.until("the mode is in force", lambda: modes() == {"mtls"})
        to = shop.pod("orders-1")
        local = direct.open_direct(shop, "load", "tunnelled", to)
        assert not direct.is_direct(shop, "load", local, "orders-1", to)
    finally:
        shop.caller("load").close("tunnelled")
        laboratory.apply(SHOP % "auto")
        shop.until("the mode is in force", lambda: modes() == {"auto"})
