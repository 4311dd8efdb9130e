"""What plays the sides of an exchange in these tests has what an exchange asks of them."""

import inspect

import pytest

from tests.waypoint.rig import Client, Server
from ztunnel.waypoint.downstream1 import Http1Server
from ztunnel.waypoint.downstream2 import ServerStream
from ztunnel.waypoint.exchange.sides import Downstream, Upstream
from ztunnel.waypoint.upstream.upstream1 import Http1Client


@pytest.mark.parametrize(
    ("side", "ends"), [(Downstream, (Client, Http1Server, ServerStream)), (Upstream, (Server, Http1Client))]
)
def test_every_end_takes_what_a_side_does(side, ends):
    asked = {name: one for name, one in vars(side).items() if inspect.isfunction(one) and name[0] != "_"}
    assert asked
    for end in ends:
        for name, one in asked.items():
            wanted = list(inspect.signature(one).parameters)
            assert list(inspect.signature(getattr(end, name)).parameters) == wanted, (end, name)
