from __future__ import annotations

import os

import pytest

from tests.kernel.lab import Kernel
from ztunnel.errors import Unsupported
from ztunnel.kernel.sockets import cookie_of
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.layout import ListenerKind

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_a_restarted_proxy_finds_what_is_enrolled(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    kernel.redirection.close()
    with Redirection.open(kernel.settings.pins) as again:
        assert set(again.enrolled()) == {pod.cookie}
        again.enroll(pod)
        again.withdraw(pod)
        assert again.enrolled() == {}


def test_nothing_is_opened_where_nothing_is_loaded(tmp_path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Unsupported, match="no redirection is loaded"):
        Redirection.open(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_disowned_cgroup_is_captured_like_any(kernel: Kernel) -> None:
    kernel.enroll("a")
    kernel.redirection.cgroups.disown_cgroup(kernel.lab.cgroup_id("proxy"))
    with kernel.lab.in_cgroup("proxy"), pytest.raises(ConnectionRefusedError):
        kernel.connect(kernel.lab.a, "10.77.0.3", 8080)


def test_who_listens_is_known_by_its_cookie(kernel: Kernel) -> None:
    pod = kernel.lab.pod("a")
    listener = kernel.listen(pod.netns)
    ip = pod.addresses[0]
    assert kernel.redirection.listens(ip, ListenerKind.INBOUND) == 0
    kernel.redirection.listener(ip, ListenerKind.INBOUND, listener.fileno())
    assert kernel.redirection.listens(ip, ListenerKind.INBOUND) == cookie_of(listener)
    assert kernel.redirection.listens(ip, ListenerKind.OUTBOUND) == 0
    listener.close()
    assert kernel.redirection.listens(ip, ListenerKind.INBOUND) == 0
