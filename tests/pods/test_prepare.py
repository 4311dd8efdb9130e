"""What is ours in a pod's namespace is made, kept and undone, in real namespaces."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.kernel.lab import shell
from tests.pods.parts import Scratch
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.pods.prepare import Preparation, disown

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

SWITCHES = (
    "net.ipv4.tcp_fwmark_accept",
    "net.ipv4.tcp_migrate_req",
    "net.ipv4.fwmark_reflect",
    "net.ipv6.fwmark_reflect",
)
RESERVED = "net.ipv4.ip_local_reserved_ports"
RULES = ["IPv4 route", "IPv4 rule", "IPv6 route", "IPv6 rule"]


def values(netns: NetworkNamespace) -> list[str]:
    return [netns.read_sysctl(name) for name in SWITCHES]


def test_it_is_made_and_the_namespace_is_as_before_afterwards() -> None:
    with Scratch("10.9.0.1/24") as scratch, scratch.open() as netns:
        netns.write_sysctl(SWITCHES[1], "1")
        rules = shell(scratch.name, "ip rule; ip -6 rule")
        preparation = Preparation(netns, is_known=False)
        assert preparation.ensure() == [SWITCHES[0], *SWITCHES[2:], RESERVED, *RULES]
        assert values(netns) == ["1"] * 4
        assert preparation.ensure() == []
        preparation.undo()
        assert values(netns) == ["0", "1", "0", "0"]
        assert shell(scratch.name, "ip rule; ip -6 rule") == rules


@pytest.mark.parametrize("name", SWITCHES)
def test_a_sysctl_that_somebody_resets_is_set_again(name: str) -> None:
    with Scratch("10.9.0.1/24") as scratch, scratch.open() as netns:
        preparation = Preparation(netns, is_known=False)
        preparation.ensure()
        netns.write_sysctl(name, "0")
        assert preparation.ensure() == [name]
        assert netns.read_sysctl(name) == "1"


def test_ports_are_reserved_besides_those_of_the_pod() -> None:
    with Scratch("10.9.0.1/24") as scratch, scratch.open() as netns:
        netns.write_sysctl(RESERVED, "8080,65000-65535")
        preparation = Preparation(netns, is_known=False)
        preparation.ensure()
        assert netns.read_sysctl(RESERVED) == "8080,61440-65535"
        netns.write_sysctl(RESERVED, "8081")
        assert preparation.ensure() == [RESERVED]
        assert netns.read_sysctl(RESERVED) == "8081,61440-65535"
        preparation.undo()
        assert netns.read_sysctl(RESERVED) == "8081,65000-65535"


def test_what_a_predecessor_has_set_is_not_taken_for_the_pods_own() -> None:
    with Scratch("10.9.0.1/24") as scratch, scratch.open() as netns:
        Preparation(netns, is_known=False).ensure()
        successor = Preparation(netns, is_known=True)
        assert successor.ensure() == []
        successor.undo()
        assert values(netns) == ["0"] * 4


def test_what_nobody_keeps_any_more_is_disowned() -> None:
    with Scratch("10.9.0.1/24") as scratch, scratch.open() as netns:
        Preparation(netns, is_known=False).ensure()
        disown(netns)
        disown(netns)
        assert values(netns) == ["0"] * 4
        assert netns.read_sysctl(RESERVED) == ""
        assert "0x111" not in shell(scratch.name, "ip rule; ip -6 rule")


def test_where_ipv6_is_off_there_is_none_of_it_until_it_is_on() -> None:
    with Scratch("10.9.0.1/24") as scratch, scratch.open() as netns:
        netns.write_sysctl("net.ipv6.conf.all.disable_ipv6", "1")
        preparation = Preparation(netns, is_known=False)
        assert preparation.ensure()[-2:] == RULES[:2]
        assert preparation.ensure() == []
        assert "0x111" not in shell(scratch.name, "ip -6 rule")
        netns.write_sysctl("net.ipv6.conf.all.disable_ipv6", "0")
        assert preparation.ensure() == RULES[2:]
        netns.write_sysctl("net.ipv6.conf.all.disable_ipv6", "1")
        assert preparation.ensure() == []
        netns.write_sysctl("net.ipv6.conf.all.disable_ipv6", "0")
        assert preparation.ensure() == ["IPv6 route"]
        netns.write_sysctl("net.ipv6.conf.all.disable_ipv6", "1")
        preparation.undo()
        assert "0x111" not in shell(scratch.name, "ip rule; ip -6 rule")


class WithoutIpv6:
    """A namespace of a kernel that was started with `ipv6.disable=1`."""

    def __init__(self, netns: NetworkNamespace) -> None:
        self._netns = netns

    def read_sysctl(self, name: str) -> str:
        if name.startswith("net.ipv6."):
            raise FileNotFoundError(name)
        return self._netns.read_sysctl(name)

    def read_sysctls(self, names: Iterable[str]) -> dict[str, str]:
        return self._netns.read_sysctls(name for name in names if not name.startswith("net.ipv6."))

    def has_ipv6(self) -> bool:
        return False

    def __getattr__(self, name: str) -> object:
        return getattr(self._netns, name)


def test_a_kernel_without_ipv6_has_none_of_its_sysctls() -> None:
    with Scratch("10.9.0.1/24") as scratch, scratch.open() as netns:
        preparation = Preparation(WithoutIpv6(netns), is_known=False)
        assert preparation.ensure() == [*SWITCHES[:3], RESERVED, *RULES[:2]]
        assert preparation.ensure() == []
        preparation.undo()
        assert values(netns) == ["0"] * 4


class WritesNoIpv6(WithoutIpv6):
    """One whose files can be read and not be written to."""

    def read_sysctls(self, names: Iterable[str]) -> dict[str, str]:
        return self._netns.read_sysctls(names)

    def write_sysctl(self, name: str, value: str) -> None:
        if name.startswith("net.ipv6."):
            raise FileNotFoundError(name)
        self._netns.write_sysctl(name, value)


def test_a_sysctl_of_ipv6_that_cannot_be_written_to_is_none_that_is_needed() -> None:
    with Scratch("10.9.0.1/24") as scratch, scratch.open() as netns:
        preparation = Preparation(WritesNoIpv6(netns), is_known=False)
        assert preparation.ensure() == [*SWITCHES[:3], RESERVED, *RULES]
        assert preparation.ensure() == []
