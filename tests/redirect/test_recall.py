from __future__ import annotations

import socket

import pytest

from tests.kernel.lab import Kernel, endpoint, local_of, original
from ztunnel.redirect.layout import Recalled

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_a_destination_is_recalled_once(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    kernel.connect(pod.netns, "10.96.0.1", 443)
    _, peer = kernel.accept(proxy)
    recall = kernel.recall
    assert recall(pod.cookie, peer) == Recalled(original("10.96.0.1", 443), None)
    assert recall(pod.cookie, peer) is None


def test_the_same_port_in_another_pod_or_of_another_address_is_not_confused(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    kernel.connect(pod.netns, "10.96.0.1", 443)
    _, peer = kernel.accept(proxy)
    recall = kernel.recall
    assert recall(kernel.lab.b.cookie, peer) is None
    assert recall(pod.cookie, endpoint("10.77.0.9", peer.port)) is None
    assert recall(pod.cookie, peer) is not None


def test_at_another_port_it_is_another_connection(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    client = kernel.connect(pod.netns, "10.96.0.1", 443)
    accepted, peer = kernel.accept(proxy)
    assert peer == local_of(client)
    port = local_of(accepted).port
    assert kernel.redirection.original_destination(pod.cookie, peer, port ^ 1) is None
    assert kernel.redirection.original_destination(pod.cookie, peer, port) is not None


def test_a_port_that_is_used_again_recalls_the_later_destination(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    port = 0
    for host in ("10.96.0.1", "10.96.0.2"):
        client = kernel.socket(pod.netns)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no TIME_WAIT
        client.bind(("10.77.0.2", port))
        client.connect((host, 443))
        port = client.getsockname()[1]
        _, peer = kernel.accept(proxy)
        if host == "10.96.0.1":
            client.close()  # the proxy never asked
    recalled = kernel.recall(pod.cookie, peer)
    assert recalled is not None
    assert recalled.destination == original("10.96.0.2", 443)


def test_the_same_destination_is_the_same_object_from_whatever_port(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    proxy = kernel.proxy("a")
    found = []
    for host in ("10.96.0.1", "10.96.0.2", "10.96.0.1"):
        kernel.connect(pod.netns, host, 443)
        _, peer = kernel.accept(proxy)
        found.append(kernel.recall(pod.cookie, peer))
    first, other, again = found
    assert first is again
    assert first != other
