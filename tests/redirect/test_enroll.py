from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from tests.kernel.lab import Kernel, unique
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.address import parse_ip
from ztunnel.redirect.enroll import EnrolledPod, PodNetwork, fill_listeners
from ztunnel.redirect.layout import ListenerKind

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_pods_are_listed_with_their_addresses_until_they_are_withdrawn(kernel: Kernel) -> None:
    a, b = kernel.enroll("a"), kernel.enroll("b")
    assert kernel.redirection.enrolled() == {
        pod.cookie: EnrolledPod(pod.ipv4, pod.ipv6, frozenset(pod.addresses)) for pod in (a, b)
    }
    kernel.redirection.withdraw(a)
    kernel.redirection.withdraw(a)
    assert set(kernel.redirection.enrolled()) == {b.cookie}
    kernel.redirection.withdraw_cookie(b.cookie)
    assert kernel.redirection.enrolled() == {}
    assert kernel.redirection.generation(b.cookie) == 0


def test_a_pod_that_is_enrolled_again_has_its_new_addresses(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    generation = kernel.redirection.generation(pod.cookie)
    third = parse_ip("10.77.0.44")
    kernel.redirection.enroll(replace(pod, ipv6=None, addresses=(pod.addresses[0], third)))
    assert kernel.redirection.enrolled() == {
        pod.cookie: EnrolledPod(pod.ipv4, None, frozenset({pod.addresses[0], third}))
    }
    assert kernel.redirection.generation(pod.cookie) == generation


def test_a_pod_that_cannot_be_enrolled_is_not(kernel: Kernel) -> None:
    pod = kernel.lab.pod("a")
    with open("/dev/null") as no_namespace:
        bad = replace(pod, netns=_Descriptor(no_namespace.fileno()))
        with pytest.raises(OSError, match="bpf"):
            kernel.redirection.enroll(bad)
    assert kernel.redirection.enrolled() == {}


class _Descriptor(NetworkNamespace):
    """Something open that is no namespace."""

    def __init__(self, fd: int) -> None:
        self._number = fd

    def fileno(self) -> int:
        return self._number


def test_a_pod_whose_namespace_is_gone_is_withdrawn_by_its_cookie(kernel: Kernel) -> None:
    name = unique()
    subprocess.run(["ip", "netns", "add", name], check=True)
    with NetworkNamespace.open(f"/run/netns/{name}") as netns:
        cookie = netns.cookie
        ip = parse_ip("10.77.0.77")
        kernel.redirection.enroll(PodNetwork(cookie, netns, ip, None, (ip,)))
    subprocess.run(["ip", "netns", "del", name], check=True)
    assert set(kernel.redirection.enrolled()) == {cookie}
    kernel.redirection.withdraw_cookie(cookie)
    assert kernel.redirection.enrolled() == {}
    assert list((kernel.settings.pins / "pods").iterdir()) == []


def test_what_the_kernel_has_forgotten_of_a_pod_it_is_told_again(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    redirection = kernel.redirection
    before = redirection.enrolled()
    assert redirection.look(pod) == []
    for name in ("enrolled", "owners", "generations"):
        for key in redirection._maps[name]:
            redirection._maps[name].drop(key)
        assert redirection.look(pod) == ["pod entry"]
        assert redirection.enrolled() == before
        assert redirection.generation(pod.cookie)
        assert redirection.look(pod) == []
    (kernel.settings.pins / "pods" / str(pod.cookie)).unlink()
    assert redirection.look(pod) == ["pod link"]
    assert redirection.look(pod) == []


def test_listeners_are_entered_for_all_addresses_of_their_pods(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    kernel.enroll("b")
    sock = kernel.listen(kernel.lab.a)
    slots = {(ListenerKind.OUTBOUND, 0): sock.fileno(), (ListenerKind.INBOUND, 3): sock.fileno()}
    fill_listeners(kernel.redirection._maps, {pod.cookie: slots, 4711: slots})
    for ip in pod.addresses:
        assert kernel.redirection.listens(ip, ListenerKind.OUTBOUND)
        assert kernel.redirection.listens(ip, ListenerKind.INBOUND, 3)
        assert not kernel.redirection.listens(ip, ListenerKind.INBOUND, 0)
    for ip in kernel.lab.pod("b").addresses:
        assert not kernel.redirection.listens(ip, ListenerKind.OUTBOUND)
