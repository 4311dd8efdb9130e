"""What a pod only forwards where the kernel has no netfilter programs: nftables resets what begins."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.kernel.behind import Behind
from tests.kernel.lab import Kernel, Lab, shell
from ztunnel.kernel.filter import TABLE, is_refusing, rules
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.enroll import PodNetwork

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

HOSTS = {4: ("10.77.0.3", "10.77.0.2"), 6: ("fd77::3", "fd77::2")}


@pytest.fixture(scope="module")
def behind(lab: Lab) -> Iterator[Behind]:
    with Behind(lab) as behind:
        yield behind


@pytest.fixture
def old(kernel: Kernel) -> Iterator[Redirection]:
    """The redirection as a kernel without such programs has it."""
    (kernel.settings.pins / "programs/forward").unlink()
    with Redirection.open(kernel.settings.pins) as redirection:
        assert not redirection.forwards.supported
        yield redirection


@pytest.fixture
def pod(old: Redirection, kernel: Kernel) -> Iterator[PodNetwork]:
    pod = kernel.lab.pod("b")
    old.enroll(pod)
    yield pod
    old.withdraw(pod)
    assert TABLE not in shell(kernel.lab.names["b"], "nft list tables")


def is_reset(kernel: Kernel, netns: NetworkNamespace, host: str, port: int) -> bool:
    """Whether it is refused, at once."""
    begun = time.monotonic()
    with kernel.socket(netns, host) as sock:
        try:
            sock.connect((host, port))
        except ConnectionRefusedError:
            assert time.monotonic() - begun < 0.5
            return True
    return False


@pytest.mark.parametrize("family", [4, 6])
def test_nothing_begins_either_way_and_what_is_open_goes_on(kernel, behind, old, pod, family) -> None:
    own, other = HOSTS[family]
    app, there = kernel.listen(behind.netns, 8080), kernel.listen(kernel.lab.a, 0)
    away = there.getsockname()[1]
    old.withdraw(pod)
    inner = kernel.connect(kernel.lab.a, own, 9090)
    server, _ = kernel.accept(app)
    outer = kernel.connect(behind.netns, other, away)
    far, _ = kernel.accept(there)
    old.enroll(pod)
    assert is_reset(kernel, kernel.lab.a, own, 9090)
    assert is_reset(kernel, behind.netns, other, away)
    for one, two in ((inner, server), (server, inner), (outer, far), (far, outer)):
        one.sendall(b"on")
        assert two.recv(9) == b"on"


def test_an_annotation_allows_it_and_takes_it_back(kernel, behind, old, pod) -> None:
    app = kernel.listen(behind.netns, 8080)
    old.enroll(replace(pod, forwards=True))
    for own, _ in HOSTS.values():
        kernel.connect(kernel.lab.a, own, 9090)
        kernel.accept(app)
    old.enroll(pod)
    assert is_reset(kernel, kernel.lab.a, HOSTS[4][0], 9090)


def test_a_pod_that_is_refused_forwards_nothing(kernel, behind, old, pod) -> None:
    old.refuse(replace(pod, uplinks=()))
    there = kernel.listen(kernel.lab.a, 0)
    for _, other in HOSTS.values():
        assert is_reset(kernel, behind.netns, other, there.getsockname()[1])


def test_between_two_things_behind_the_pod_nothing_is_refused(kernel, behind, old, pod) -> None:
    with Behind(kernel.lab, nat=False, number=1) as other:
        app = kernel.listen(other.netns, 8080)
        for host in ("172.31.1.2", "fd31:1::2"):
            kernel.connect(behind.netns, host, 8080)
            kernel.accept(app)


@pytest.mark.parametrize(
    ("script", "reason"), [("echo no such hook >&2; exit 1", "nft: no such hook"), ("", "install nftables")]
)
def test_where_nft_fails_the_pod_is_not_enrolled(kernel, old, tmp_path, monkeypatch, script, reason) -> None:
    if script:
        (tmp_path / "nft").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=reason):
        old.enroll(kernel.lab.pod("a"))
    assert old.enrolled() == {}


def test_rules_name_the_interfaces() -> None:
    assert "iif { 2, 3 }" in rules([2, 3])
    assert "iif" not in rules([])


def test_a_table_that_somebody_takes_away_is_made_again(old, pod, kernel) -> None:
    assert old.look(pod) == []
    shell(kernel.lab.names["b"], f"nft delete table inet {TABLE}")
    assert not is_refusing(pod.netns)
    assert old.look(pod) == ["forward link"]
    assert is_refusing(pod.netns)
    assert old.look(pod) == []
    allowed = replace(pod, forwards=True)
    old.enroll(allowed)
    assert not is_refusing(pod.netns)
    assert old.look(allowed) == []
