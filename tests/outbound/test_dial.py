"""Sessions that are dialled: who answers, who does not, and with which certificate."""

from __future__ import annotations

import socket

import trio

from tests.builders import identity
from tests.inbound.parts import Signer, Sockets
from tests.outbound.dialling import CLIENT, GONE, running
from tests.outbound.parts import address_of, is_reset
from ztunnel.errors import NoCertificate
from ztunnel.model.identity import SpiffeId
from ztunnel.outbound.find import Patience


async def test_somebody_else_at_the_other_end_is_refused(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        _, client = mesh.call(mesh.key(identity("default/other")))
        await mesh.until(lambda: not len(mesh.desk.calls))
        assert is_reset(client)
        assert "peer did not present the expected SAN" in mesh.lines()
        assert len(mesh.tunnels._pool) == 0


async def test_a_port_where_nobody_listens_is_tried_again_for_a_while(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets, Patience(refused_seconds=0.1)) as mesh:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            began = trio.current_time()
            _, client = mesh.call(mesh.key(endpoint=address_of(nobody)))
            await mesh.until(lambda: not len(mesh.desk.calls))
            assert trio.current_time() - began >= 0.1
        assert is_reset(client)
        assert "Connection refused" in mesh.lines()


async def test_a_port_that_begins_to_listen_meanwhile_is_reached(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        late = sockets.keep(socket.socket())
        late.bind(("127.0.0.1", 0))
        mesh.call(mesh.key(endpoint=address_of(late)))
        await trio.lowlevel.checkpoint()
        late.listen()
        late.setblocking(False)
        mesh.nursery.start_soon(mesh.serve, late)
        await mesh.until(lambda: mesh.asked)


async def test_a_pod_that_is_gone_dials_nobody(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets, Patience(session_seconds=0.2)) as mesh:
        _, client = mesh.call(network=GONE)
        await mesh.until(lambda: not len(mesh.desk.calls))
        assert is_reset(client)


async def test_a_peer_that_says_nothing_is_given_up_in_time(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets, Patience(session_seconds=0.2)) as mesh:
        mute = sockets.listen()
        _, client = mesh.call(mesh.key(endpoint=address_of(mute)))
        await mesh.until(lambda: not len(mesh.desk.calls))
        assert is_reset(client)
        assert "maybe a NetworkPolicy is blocking HBONE port" in mesh.lines()


class Slow:
    """A certificate source that never answers for one identity."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer

    async def create(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> object:
        if identity == CLIENT.identity:
            await trio.sleep_forever()
        return await self.signer.create(csr_pem, identity, ttl_seconds)


async def test_a_certificate_that_does_not_come_is_named_as_the_reason(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(Slow(signer), sockets, Patience(session_seconds=0.2)) as mesh:  # type: ignore[arg-type]
        _, client = mesh.call()
        await mesh.until(lambda: not len(mesh.desk.calls))
        assert is_reset(client)
        assert f"no certificate for {CLIENT.identity} in time" in mesh.lines()
        flags = {row.labels.response_flags for row in mesh.desk.metrics.rows(0.0) if row.failed}
        assert flags == {NoCertificate.flag.value}


async def test_a_session_of_a_certificate_that_was_replaced_meanwhile_is_not_pooled(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets) as mesh:
        await mesh.certificates.fetch(CLIENT.identity)
        slow = sockets.listen()
        mesh.call(mesh.key(endpoint=address_of(slow)))
        await trio.lowlevel.wait_readable(slow)
        mesh.certificates.forget(CLIENT.identity)
        mesh.certificates.want(CLIENT.identity)
        await mesh.certificates.fetch(CLIENT.identity)
        mesh.nursery.start_soon(mesh.serve, slow)
        await mesh.until(lambda: mesh.asked)
        assert len(mesh.sessions) == 2
        assert len(mesh.tunnels._pool) == 1
