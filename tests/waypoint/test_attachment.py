"""What was attached until a moment ago is served, what has never been is not."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.builders import world_of
from tests.waypoint.mesh import CALLER, ME, SERVERS, SERVICE
from ztunnel.errors import NoDestination
from ztunnel.model.address import Endpoint
from ztunnel.model.service import Port
from ztunnel.waypoint.attachment import _MOST, GRACE_SECONDS, Attachments, may_come

WEB = Endpoint(ip_address("10.1.0.1"), 80)


def at(port: int) -> Endpoint:
    return Endpoint(WEB.ip, port)


ATTACHED = world_of(ME, CALLER, *SERVERS, SERVICE)
DETACHED = world_of(ME, CALLER, *SERVERS, replace(SERVICE, waypoint=None))
GONE = world_of(ME, CALLER, *SERVERS)


def target(port: int) -> Port:
    return SERVICE.ports[0]._replace(service=port)


def test_what_was_detached_is_served_for_a_moment() -> None:
    attachments = Attachments()
    chain = attachments.chain(ATTACHED, ME, WEB, 1.0)
    for later in (0.0, GRACE_SECONDS / 2, GRACE_SECONDS - 0.1):
        found = attachments.chain(DETACHED, ME, WEB, 1.0 + later)
        assert (found.destination, found.treatment) == (chain.destination, chain.treatment)
    with pytest.raises(NoDestination, match="does not stand for"):
        attachments.chain(DETACHED, ME, WEB, 1.0 + GRACE_SECONDS)


def test_what_was_never_attached_is_not() -> None:
    attachments = Attachments()
    attachments.chain(ATTACHED, ME, WEB, 1.0)
    for other in (at(90), Endpoint(ip_address("10.0.0.3"), 80)):
        with pytest.raises(NoDestination):
            attachments.chain(DETACHED, ME, other, 1.0)


def test_what_is_gone_is_not_served() -> None:
    attachments = Attachments()
    attachments.chain(ATTACHED, ME, WEB, 1.0)
    with pytest.raises(NoDestination, match="no service has this address"):
        attachments.chain(GONE, ME, WEB, 1.0)


def test_what_was_asked_for_long_ago_is_forgotten() -> None:
    attachments = Attachments()
    ports = range(1, _MOST + 1)
    many = replace(SERVICE, ports=tuple(target(port) for port in ports))
    world = world_of(ME, many)
    for port in ports:
        attachments.chain(world, ME, at(port), 1.0)
    attachments.chain(ATTACHED, ME, WEB, 1.0 + GRACE_SECONDS)  # it is known
    assert len(attachments._seen_at) == _MOST
    more = replace(SERVICE, ports=(target(_MOST + 1),))
    attachments.chain(world_of(ME, more), ME, at(_MOST + 1), 1.0 + GRACE_SECONDS)
    assert len(attachments._seen_at) == 2


@pytest.mark.parametrize(
    ("world", "asked", "comes"),
    [
        (DETACHED, WEB, True),
        (DETACHED, Endpoint(ip_address("10.0.0.3"), 80), True),
        (DETACHED, at(81), False),
        (GONE, WEB, False),
    ],
)
def test_a_call_waits_for_what_there_is(world, asked, comes) -> None:
    assert may_come(world, ME, asked) is comes
