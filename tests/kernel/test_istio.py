"""What Istio's data plane leaves in a pod is told from what the pod's own processes do."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.lab import Lab, shell, unique
from ztunnel.kernel.istio import PORTS, chains, has_rules, listeners
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.way_back import WayBack, has_istio_rule, remove_way_back

RULE = "pref 32764 fwmark 0x111/0xfff lookup 100"
IPTABLES = ("iptables-legacy", "ip6tables-legacy")


@pytest.fixture
def name(lab: Lab) -> Iterator[str]:
    """The namespace of pod `a`, without anything of these tests afterwards."""
    yield lab.names["a"]
    run(lab.names["a"], "nft", "flush ruleset")


def run(name: str, *words: str) -> None:
    subprocess.run(["ip", "netns", "exec", name, *words], check=True, capture_output=True)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")])
def test_listeners_are_told_with_the_cgroups_they_come_from(lab: Lab, family: int, host: str) -> None:
    with ExitStack() as stack:

        def listen(port: int) -> None:
            with lab.a.entered():
                sock = stack.enter_context(socket.socket(family))
            sock.bind((host, port))
            sock.listen()

        with lab.in_cgroup("proxy"):
            listen(PORTS[0])
        listen(PORTS[1])
        listen(15053)
        assert listeners(lab.a) == {PORTS[0]: {lab.cgroup_id("proxy")}, PORTS[1]: {lab.cgroup_id("app")}}
        assert listeners(lab.b) == {}
    assert listeners(lab.a) == {}


@pytest.mark.parametrize("chain", ["ISTIO_OUTPUT", "istio-output"])
@pytest.mark.parametrize("family", ["ip", "ip6", "inet"])
def test_chains_of_its_agent_are_known_by_their_names(lab: Lab, name: str, family: str, chain: str) -> None:
    assert not has_rules(lab.a)
    run(name, "nft", f"add table {family} nat; add chain {family} nat OUTPUT")
    assert chains(lab.a) == ["OUTPUT"]
    assert not has_rules(lab.a)
    run(name, "nft", f"add chain {family} nat {chain}")
    assert sorted(chains(lab.a)) == sorted(["OUTPUT", chain])
    assert has_rules(lab.a)
    assert not has_rules(lab.b)


@pytest.fixture
def fresh() -> Iterator[tuple[str, NetworkNamespace]]:
    """A namespace of the test's own: tables of iptables' older kind stay for as long as it does."""
    name = unique()
    subprocess.run(["ip", "netns", "add", name], check=True)
    with NetworkNamespace.open(f"/run/netns/{name}") as netns:
        yield name, netns
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize("which", [0, 1])
def test_chains_of_the_older_iptables_are_told_by_the_rule_beside_them(
    fresh: tuple[str, NetworkNamespace], which: int
) -> None:
    name, netns = fresh
    run(name, "ip", f"-{(4, 6)[which]}", "rule", "add", *RULE.split())
    assert has_istio_rule(netns)
    assert not has_rules(netns)  # the rule alone sends nothing anywhere
    run(name, IPTABLES[which], "-t", "nat", "-N", "ISTIO_OUTPUT")
    assert chains(netns) == []
    assert has_rules(netns)


def test_our_own_rule_is_not_its(lab: Lab, name: str) -> None:
    WayBack().ensure(lab.a)
    try:
        assert "fwmark 0x111/0xfff" in shell(name, "ip rule")
        assert not has_istio_rule(lab.a)
    finally:
        remove_way_back(lab.a)
