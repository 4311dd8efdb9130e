from collections.abc import Callable

import pytest

from ztunnel.demo.claims import direct
from ztunnel.demo.claims.claim import Claim
from ztunnel.demo.claims.stage import LABEL, NAMESPACE, Stage

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

SHOP = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}, labels: {{{LABEL}: ambient}}, annotations: {{ztunnel.io/same-node: "%s"}}}}
"""


def test_calls_on_one_node_are_direct_authorized_and_counted(check: Callable[[Claim], list[str]]) -> None:
    assert check(direct.CLAIM) == []


def test_a_proxy_in_the_path_is_seen(stage: Stage) -> None:
    laboratory = stage.laboratory

    def modes() -> set[str]:
        return {
            each["sameNode"] for each in stage.dump("node-1")["workloads"] if each["namespace"] == NAMESPACE
        }

    laboratory.apply(SHOP % "mtls")
    try:
        stage.until("the mode is in force", lambda: modes() == {"mtls"})
        to = stage.pod("orders-1")
        local = direct.open_direct(stage, "load", "tunnelled", to)
        assert not direct.is_direct(stage, "load", local, "orders-1", to)
    finally:
        stage.caller("load").close("tunnelled")
        laboratory.apply(SHOP % "auto")
        stage.until("the mode is in force", lambda: modes() == {"auto"})
