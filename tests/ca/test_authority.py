"""A node gets certificates for the enrolled workloads that run on it, and for nobody else."""

import threading
from datetime import UTC, datetime

import pytest
import trio

from ztunnel.ca.authority import NodeCertificates
from ztunnel.control.serve import Server
from ztunnel.errors import NoCertificate
from ztunnel.identity import csr
from ztunnel.identity.sign import open_authority
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import LeftTo, TunnelProtocol, Workload
from ztunnel.xds.snapshot import Snapshot, take

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEB = SpiffeId("cluster.local", "shop", "web")


def snapshot(node="n1", protocol=TunnelProtocol.HBONE, account="web", **more):
    one = Workload("c//Pod/shop/web-0", "web-0", "shop", account, node=node, protocol=protocol, **more)
    return take([one], "", Snapshot())


class Signer:
    """Signs anything, with the request itself."""

    def sign(self, csr_pem, identity, ttl_seconds, now):
        return [csr_pem, f"{identity} {ttl_seconds} {now}"]


async def create(served, identity=WEB):
    return await NodeCertificates(Signer(), Server(served), "n1", lambda: NOW).create("csr", identity, 60)


async def test_an_identity_of_the_node_is_signed():
    assert await create(snapshot()) == ["csr", f"{WEB} 60 {NOW}"]


async def test_so_is_one_of_a_pod_that_may_not_be_istio_s_any_more():
    assert await create(snapshot(native_tunnel=True, left_to=LeftTo.ISTIO))


@pytest.mark.parametrize(
    "served",
    [
        Snapshot(),
        snapshot(node="n2"),
        snapshot(node=""),
        snapshot(protocol=TunnelProtocol.NONE),
        snapshot(account="other"),
        snapshot(native_tunnel=True),
    ],
)
async def test_other_identities_are_refused(served):
    with pytest.raises(NoCertificate, match="no workload of the mesh on n1 has this identity"):
        await create(served)


async def test_an_identity_counts_from_the_snapshot_that_brings_it_to_the_one_that_takes_it():
    server = Server()
    source = NodeCertificates(Signer(), server, "n1", lambda: NOW)
    with pytest.raises(NoCertificate):
        await source.create("csr", WEB, 60)
    server.publish(snapshot())
    await source.create("csr", WEB, 60)
    server.publish(Snapshot())
    with pytest.raises(NoCertificate):
        await source.create("csr", WEB, 60)


async def test_the_loop_goes_on_while_something_is_signed():
    class Slow(Signer):
        def sign(self, *arguments):
            trio.from_thread.run_sync(begun.set)
            assert go.wait(4)
            return super().sign(*arguments)

    begun, go = trio.Event(), threading.Event()
    source = NodeCertificates(Slow(), Server(snapshot()), "n1", lambda: NOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.create, "csr", WEB, 60)
        await begun.wait()
        go.set()


async def test_the_meshs_own_authority_signs(tmp_path):
    now = datetime.now(UTC)
    source = NodeCertificates(open_authority(tmp_path / "ca"), Server(snapshot()), "n1", lambda: now)
    leaf, roots = await source.create(csr.create(WEB).csr_pem, WEB, 3600)
    assert "BEGIN CERTIFICATE" in leaf
    assert "BEGIN CERTIFICATE" in roots
