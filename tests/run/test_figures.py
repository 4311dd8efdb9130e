from __future__ import annotations

import trio
import trio.lowlevel

from tests.builders import identity
from tests.inbound.parts import Signer
from tests.run.parts import built, served_by, until
from ztunnel.control.serve import Server
from ztunnel.errors import NoCertificate
from ztunnel.run.figures import register_figures
from ztunnel.run.follow import ControlPlane


def samples(node):
    return {family.name: dict(family.samples) for family in node.reporting.figures.families()}


async def test_figures_are_those_of_the_parts():
    with built(served_by(Server())) as (node, _):
        register_figures(node)
        node.ledger.sessions, node.ledger.streams, node.ledger.glitches = 1, 2, 3
        node.handshakes.failed_total = 4
        found = samples(node)
        assert found["ztunnel_redirect_outcomes_total"] == {("captured",): 3}
        assert found["istio_tcp_sockets_open"] == {("source",): 0, ("destination",): 0}
        assert found["ztunnel_hbone_sessions"] == {(): 1}
        assert found["ztunnel_hbone_tunnels"] == {(): 2}
        assert found["ztunnel_hbone_glitches_total"] == {(): 3}
        assert found["ztunnel_hbone_handshakes_failed_total"] == {(): 4}
        assert found["ztunnel_direct_flows"] == {(): 0}
        assert node.reporting.figures.get_sample_value("workload_manager_active_proxy_count") == 0


async def test_an_identity_without_a_certificate_is_below_zero():
    signer = Signer()
    with built(ControlPlane(Server().session, signer)) as (node, _):
        register_figures(node)
        name = identity("shop/web")
        signer.error = NoCertificate("not now")
        node.certificates.want(name)
        assert samples(node)["ztunnel_certificate_expiry_seconds"] == {(str(name),): -1.0}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.certificates.run)
            while not node.certificates.failed_total:
                await trio.lowlevel.checkpoint()
            assert samples(node)["ztunnel_certificates_failed_total"] == {(): 1}
            signer.error = None
            await until(lambda: node.certificates.fetched_total)
            assert samples(node)["ztunnel_certificate_expiry_seconds"][str(name),] > 3000
            nursery.cancel_scope.cancel()
