"""What changes while a pod stays enrolled is followed, and what others take away is made again."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.kernel.lab import Kernel, shell
from tests.kernel.test_attached import ALLOW
from tests.pods.parts import FWMARK, A, Node, Open, Scratch, is_served, made, served
from ztunnel.kernel import bpf
from ztunnel.kernel.sockets import listen_in
from ztunnel.pods.repair import SWEEP_SECONDS, TWO_MESHES
from ztunnel.pods.serve import GRACE_SECONDS
from ztunnel.pods.watch import LOOK_AGAIN_SECONDS, TRY_AGAIN_SECONDS
from ztunnel.redirect.layout import QUEUES, PodFlag
from ztunnel.redirect.plan import SK_LOOKUP

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

SHOWN = (
    "ip rule; ip -6 rule; ip route show table all; ip -6 route show table 100; "
    "cat /proc/sys/net/ipv4/tcp_* /proc/sys/net/ipv[46]/fwmark_reflect 2>/dev/null || true"
)


async def sweep() -> None:
    """Let everything in the pods' namespaces be looked at."""
    await trio.sleep(SWEEP_SECONDS + LOOK_AGAIN_SECONDS)
    await wait_all_tasks_blocked()


async def told(node: Node) -> None:
    """Let the engine hear what the kernel tells, and the pods look."""
    for _ in range(5):
        node.engine.round(0.0)
        await wait_all_tasks_blocked()


async def test_a_pod_with_another_account_gets_another_certificate(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        node.desk.publish(A.account("other"))
        await wait_all_tasks_blocked()
        assert (node.state, node.wanted) == ({"a": "Up"}, ["other"])
        node.desk.publish(A.account("other").plain())
        await trio.sleep(2 * GRACE_SECONDS)
        assert node.wanted == []


async def test_what_a_pod_may_forward_follows_its_annotation(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)

    def flags() -> PodFlag:
        return kernel.redirection.enrolled()[kernel.lab.a.cookie].flags

    async with node.running():
        assert flags() is PodFlag.NONE
        node.desk.publish(replace(A, forwards=True))
        await wait_all_tasks_blocked()
        assert flags() is PodFlag.FORWARDS
        node.desk.publish(A)
        await wait_all_tasks_blocked()
        assert flags() is PodFlag.NONE
        assert len(node.log.about("pod forwards")) == 2


async def test_addresses_come_and_go(kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock) -> None:
    with Scratch("10.9.0.1/24") as scratch:
        pod, node = served(nodes, kernel, scratch)
        listeners = kernel.redirection._maps["listeners"]
        async with node.running():
            assert len(list(listeners)) == QUEUES + 1
            scratch.address("add", "fd09::1/64")
            await sweep()
            assert len(list(listeners)) == 2 * (QUEUES + 1)
            assert [str(ip) for ip in node.direct.pods[pod.uid].addresses] == ["10.9.0.1", "fd09::1"]
            scratch.address("del", "fd09::1/64")
            await sweep()
            assert len(list(listeners)) == QUEUES + 1
            assert [str(ip) for ip in node.direct.pods[pod.uid].addresses] == ["10.9.0.1"]


async def test_a_change_that_the_kernel_tells_of_is_followed_at_once(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    with Scratch("10.9.0.1/24") as scratch:
        pod, node = served(nodes, kernel, scratch)
        async with node.running():
            scratch.address("add", "fd09::1/64")
            await told(node)
            assert [str(ip) for ip in node.direct.pods[pod.uid].addresses] == ["10.9.0.1", "fd09::1"]


TAKEN = [
    ("ip rule del pref 32764", "IPv4 rule", True),
    ("ip -6 rule del pref 32764", "IPv6 rule", True),
    ("ip route flush table 100", "IPv4 route", True),
    ("ip -6 route flush table 100", "IPv6 route", True),
    ("echo 0 >/proc/sys/net/ipv4/tcp_fwmark_accept", FWMARK, False),
    ("echo 0 >/proc/sys/net/ipv4/tcp_migrate_req", "net.ipv4.tcp_migrate_req", False),
    ("echo 0 >/proc/sys/net/ipv6/fwmark_reflect", "net.ipv6.fwmark_reflect", False),
]


def repairs(node: Node) -> dict[str, float]:
    found = next(each for each in node.figures.families() if each.name == "ztunnel_repairs_total")
    return {labels[0]: value for labels, value in found.samples}


@pytest.mark.parametrize(("command", "what", "is_told"), TAKEN)
async def test_what_somebody_takes_away_is_made_again_counted_and_told(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock, command: str, what: str, is_told: bool
) -> None:
    with Scratch("10.9.0.1/24") as scratch:
        _, node = served(nodes, kernel, scratch)
        async with node.running():
            await told(node)
            before = shell(scratch.name, SHOWN)
            shell(scratch.name, command)
            assert shell(scratch.name, SHOWN) != before
            await (told(node) if is_told else sweep())
            assert shell(scratch.name, SHOWN) == before
            assert repairs(node) == {what: 1}
            assert len(node.log.about("repaired")) == 1
            assert node.readiness.pending(0.0) == []


async def test_a_pod_that_is_removed_keeps_the_way_back_of_its_connections(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        live = Open(node, A.uid)
        node.desk.live.register(live)
        node.desk.publish(A.plain())
        await trio.sleep(2 * GRACE_SECONDS)
        shell(kernel.lab.names["a"], "ip rule del pref 32764")
        await sweep()
        assert "0x111" in shell(kernel.lab.names["a"], "ip rule")
        node.desk.live.unregister(live)
        await sweep()
        assert "0x111" not in shell(kernel.lab.names["a"], "ip rule")


async def test_what_cannot_be_repaired_is_said_until_it_can(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        shell(kernel.lab.names["a"], "ip rule add pref 1 lookup 200")
        await told(node)
        assert node.readiness.pending(0.0) == []
        assert "give it a higher number" in node.readiness.render(0.0)[1]
        assert node.pods.dump()[A.uid]["state"] == "Up"
        assert "higher number" in node.pods.dump()[A.uid]["reason"]
        assert set(kernel.redirection.enrolled()) == {kernel.lab.a.cookie}
        shell(kernel.lab.names["a"], "ip rule del pref 1")
        await trio.sleep(2 * TRY_AGAIN_SECONDS)
        assert node.readiness.pending(0.0) == []
        assert "reason" not in node.pods.dump()[A.uid]


async def test_a_listener_that_somebody_destroys_in_the_pod_is_made_again(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    """As `ss -K` does inside the pod."""
    node = made(nodes, kernel, A)
    async with node.running():
        (held,) = node.pods._held.values()
        lost = held.enrolled.listeners
        assert lost is not None
        shell(kernel.lab.names["a"], "ss -K -tln sport = :15008 >/dev/null")
        await told(node)
        assert held.enrolled.listeners is not lost
        assert is_served(kernel, node)
        assert repairs(node) == {"listener hbone": 1}
        assert node.readiness.pending(0.0) == []


@pytest.mark.parametrize("which", ["outbound", "inbound"])
async def test_a_listener_that_only_sk_lookup_finds_is_not_found_to_be_destroyed(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock, which: str
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        (held,) = node.pods._held.values()
        found = getattr(held.enrolled.listeners, which)
        listener: socket.socket = found[-1] if which == "inbound" else found
        shell(kernel.lab.names["a"], f"ss -K -tln sport = :{listener.getsockname()[1]} >/dev/null")
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert is_served(kernel, node)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("enrolled", "pod entry"),
        ("owners", "pod entry"),
        ("generations", "pod entry"),
        ("listeners", "listener entry"),
        ("", "pod link"),
    ],
)
async def test_what_the_kernel_has_lost_of_a_pod_it_is_told_again(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock, name: str, what: str
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        if name:
            entries = kernel.redirection._maps[name]
            for key in entries:
                entries.drop(key)
        else:
            (kernel.settings.pins / "pods" / str(kernel.lab.a.cookie)).unlink()
        await sweep()
        assert is_served(kernel, node)
        assert repairs(node) == {what: 1}
        await sweep()
        assert repairs(node) == {what: 1}


async def test_another_program_in_a_pods_namespace_is_named_once(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    other = bpf.prog_load(bpf.Program("tubular", SK_LOOKUP.kind, SK_LOOKUP.hook, ALLOW))
    async with node.running():
        link = bpf.link_create(other, kernel.lab.a.fileno(), SK_LOOKUP.hook)
        await sweep()
        await sweep()
        assert len(node.log.about("another program")) == 1
        (text,) = node.pods.dump()[A.uid]["otherPrograms"]
        assert "(tubular, loaded by uid 0) runs after ours on sk_lookup: it may drop plaintext" in text
        bpf.close(link)
        await sweep()
        assert "otherPrograms" not in node.pods.dump()[A.uid]
    bpf.close(other)


async def test_a_virtual_machine_that_comes_behind_a_pod_is_said(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    """KubeVirt makes its bridge when the pod has started."""
    node = made(nodes, kernel, A)
    async with node.running():
        assert "hidden" not in node.pods.dump()[A.uid]
        shell(kernel.lab.names["a"], "ip link add k6t-eth0 type bridge")
        await sweep()
        assert "interface k6t-eth0" in str(node.pods.dump()[A.uid]["hidden"])
        assert node.state == {"a": "Up"}
        shell(kernel.lab.names["a"], "ip link del k6t-eth0")
        await sweep()
        assert "hidden" not in node.pods.dump()[A.uid]


async def test_rules_of_another_mesh_that_come_into_a_pod_are_said(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        shell(kernel.lab.names["a"], "nft 'add table ip nat; add chain ip nat ISTIO_PRERT'")
        await sweep()
        assert TWO_MESHES in node.readiness.render(0.0)[1]
        assert is_served(kernel, node)  # it is ours all the same
        shell(kernel.lab.names["a"], "nft delete table ip nat")
        await sweep()
        assert TWO_MESHES not in node.readiness.render(0.0)[1]


async def test_a_port_that_is_taken_at_once_keeps_the_pod_captured_and_is_said(
    kernel: Kernel, nodes: ExitStack, autojump_clock: MockClock
) -> None:
    node = made(nodes, kernel, A)
    async with node.running():
        shell(kernel.lab.names["a"], "ss -K -tln sport = :15008 >/dev/null")
        with listen_in(kernel.lab.a, 15008, 1):
            await told(node)
            assert "port 15008 is taken" in node.readiness.render(0.0)[1]
            assert set(kernel.redirection.enrolled()) == {kernel.lab.a.cookie}
        await trio.sleep(2 * TRY_AGAIN_SECONDS)
        assert is_served(kernel, node)
        assert node.readiness.pending(0.0) == []
