import pytest

from ztunnel.demo.call import get
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_localhost_is_that_of_the_namespace(standing: Laboratory) -> None:
    netns = standing.names.netns(standing.names.pod("t", "near"))
    status, text = get(netns, 8080, "/x")
    assert status == 200
    assert '"pod": "near"' in text


def test_nobody_there_is_said(standing: Laboratory) -> None:
    with pytest.raises(LaboratoryFailed, match=r"http://localhost:15000/x in .*node-1: .*refused"):
        standing.node_get("node-1", "/x")
