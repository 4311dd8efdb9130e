"""Where a redirected connection was to go."""

from __future__ import annotations

import socket

import pytest

from tests.zds.parts import Pod, caller
from ztunnel.kernel.original import original_destination
from ztunnel.model.address import parse_endpoint

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("address", ["10.99.0.1", "fd99::1"])
def test_what_was_called_is_told_of_each_family_on_any_listener(family: int, address: str) -> None:
    """By Istio's rules; of IPv4 also where the listener is dual stack."""
    if family == socket.AF_INET and ":" in address:
        address = "10.99.0.2"
    with Pod() as pod, pod.open() as there, there.socket(family, socket.SOCK_STREAM) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 15001))
        listener.listen()
        with caller(pod, address, 8080), listener.accept()[0] as accepted:
            wanted = f"[{address}]:8080" if ":" in address else f"{address}:8080"
            assert original_destination(accepted) == parse_endpoint(wanted)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("rules", [True, False])
def test_what_was_not_redirected_went_where_it_came(address: str, rules: bool) -> None:
    with (
        Pod(rules=rules) as pod,
        pod.open() as there,
        there.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener,
    ):
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", 15001))
        listener.listen()
        with caller(pod, address, 15001), listener.accept()[0] as accepted:
            wanted = f"[{address}]:15001" if ":" in address else f"{address}:15001"
            assert original_destination(accepted) == parse_endpoint(wanted)
