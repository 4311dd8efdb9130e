"""Listeners at the ports of Istio's rules."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.flow.driving import Bugs
from tests.zds.parts import MARK, SHARED, Pod
from ztunnel.flow.engine import Engine
from ztunnel.kernel.sockets import Listening
from ztunnel.pods.listen import CannotEnroll
from ztunnel.zds.listen import listen_for_names, listen_redirected, relay_names
from ztunnel.zds.relay import NameServers

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_the_three_listeners_take_both_families_and_carry_the_mark() -> None:
    with Pod(rules=False) as pod, pod.marked() as netns:
        listeners = listen_redirected(netns, "shop/web", SHARED)
        ports = [each.getsockname()[1] for each in listeners.all]
        assert ports == [15001, 15008, 15006]
        for each in listeners.all:
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == MARK
            assert each.getsockopt(socket.IPPROTO_IP, 19) == 1  # IP_TRANSPARENT
            assert each.getsockopt(socket.IPPROTO_IPV6, 75) == 1
            for address in ("127.0.0.1", "::1"):
                with netns.socket(
                    socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM
                ) as sock:
                    sock.setblocking(True)
                    sock.connect((address, each.getsockname()[1]))
        listeners.close()


@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_a_port_that_a_process_of_the_pod_has_is_named_and_none_is_kept(port: int) -> None:
    with Pod(rules=False) as pod, pod.marked() as netns:
        with netns.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
            holder.bind(("0.0.0.0", port))
            holder.listen()
            with pytest.raises(CannotEnroll, match=f"shop/web: port {port} is taken") as caught:
                listen_redirected(netns, "shop/web", SHARED)
            assert caught.value.port == port
        listen_redirected(netns, "shop/web", SHARED).close()


def test_the_relay_of_names_needs_its_port_too(tmp_path: Path) -> None:
    with Pod(rules=False) as pod, pod.marked() as netns:
        with netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
            holder.bind(("127.0.0.1", 15053))
            engine = Engine(Bugs())
            with pytest.raises(CannotEnroll, match="shop/web: port 15053 is taken"):
                relay_names(engine, netns, "shop/web", NameServers(tmp_path / "none"), shared=True)
            engine.close()
        by_tcp = listen_for_names(netns, "shop/web", SHARED)
        assert by_tcp.getsockname()[1] == 15053
        with pytest.raises(CannotEnroll, match="shop/web: port 15053 is taken"):
            listen_for_names(netns, "shop/web", Listening())
        by_tcp.close()


def test_a_successor_listens_beside_us_where_that_is_wanted_and_nobody_does_where_not() -> None:
    with Pod(rules=False) as pod, pod.marked() as netns:
        listeners = listen_redirected(netns, "shop/web", SHARED)
        listen_redirected(netns, "shop/web", SHARED).close()
        with pytest.raises(CannotEnroll):
            listen_redirected(netns, "shop/web", Listening(transparent=True))
        listeners.close()
