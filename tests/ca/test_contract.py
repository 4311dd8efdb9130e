"""What a node proxy may rely on of whoever signs for it: the authority in its own process, that of a control
plane over the network, and a signer of the Kubernetes CSR API behind that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
import trio
from cryptography import x509

from tests.ca.signer import NAME, SignerOfTheCluster, sign_with
from tests.ca.test_authority_report import Log
from tests.control.calling import Pods, pod
from tests.control.network import TOKEN, control_plane
from ztunnel.ca.authority import NodeCertificates
from ztunnel.ca.caller import Caller, Proof
from ztunnel.ca.certify import PATH, CertificateService
from ztunnel.ca.issuance import Issuance
from ztunnel.ca.node_authorizer import NodeAuthorizer
from ztunnel.ca.sign import KubernetesSigner
from ztunnel.control.fetch import NetworkCertificates
from ztunnel.control.serve import Server
from ztunnel.errors import ConnectionFailed, NoCertificate, PeerError
from ztunnel.identity import csr
from ztunnel.identity.issued import accept
from ztunnel.identity.rotate import CertificateSource
from ztunnel.identity.sign import open_authority
from ztunnel.identity.standing import StandingAuthority
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.xds.snapshot import Snapshot, take

pytestmark = pytest.mark.timeout(30)

WEB, DB = SpiffeId("cluster.local", "shop", "web"), SpiffeId("cluster.local", "shop", "db")
ELSEWHERE = SpiffeId("cluster.local", "shop", "elsewhere")


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Signing:
    """A way to certificates, and the roots that it gives. `take_away` has it sign nothing any more."""

    source: CertificateSource
    roots_pem: str
    take_away: Callable[[], None]


@asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[Signing]:
    """In the node's own process."""
    authority = StandingAuthority(open_authority(directory / "ca", now(), "cluster.local"))
    pods = [
        Workload(f"K//Pod/shop/{who.service_account}", "x", "shop", who.service_account, node=node,
                 protocol=TunnelProtocol.HBONE)
        for who, node in ((WEB, "n1"), (DB, "n1"), (ELSEWHERE, "n2"))
    ]  # fmt: skip
    server = Server(take(pods, "", Snapshot()))
    assert authority.current is not None

    def take_away() -> None:
        authority.current = None

    yield Signing(NodeCertificates(authority, server, "n1", now), authority.current.roots_pem, take_away)


PROXY = pod("zt", "ztunnel", "n1", "ztunnel-system")


async def the_proxy(*_: object) -> Caller:
    """The node proxy of n1, proved."""
    identity = SpiffeId("cluster.local", "ztunnel-system", "ztunnel")
    return Caller(identity, Proof.TOKEN, "zt", PROXY.meta.uid, "n1")


@asynccontextmanager
async def serving(
    directory: Path, authority: StandingAuthority
) -> AsyncIterator[tuple[CertificateService, CertificateSource]]:
    """A control plane, and the way to it."""
    pods = Pods(pod("web-0", "web", "n1"), pod("db-0", "db", "n1"), pod("e-0", "elsewhere", "n2"), PROXY)
    authorizer = NodeAuthorizer(pods, ["ztunnel-system/ztunnel"], "cluster.local")
    service = CertificateService(authority, the_proxy, authorizer, Issuance(Log()), now)
    async with control_plane(directory, {PATH: service.create_certificate}) as plane:
        yield service, NetworkCertificates(plane.upstream(TOKEN))


@asynccontextmanager
async def over_the_network(directory: Path) -> AsyncIterator[Signing]:
    """By a control plane, from its own authority."""
    authority = StandingAuthority(open_authority(directory / "ca", now(), "cluster.local"))
    assert authority.current is not None
    roots = authority.current.roots_pem

    def take_away() -> None:
        authority.current = None

    async with serving(directory, authority) as (_, source):
        yield Signing(source, roots, take_away)


@asynccontextmanager
async def by_a_signer_of_the_cluster(directory: Path) -> AsyncIterator[Signing]:
    """By a control plane, which has it signed through the Kubernetes API."""
    authority = open_authority(directory / "signer", now(), "cluster.local")
    cluster, numbers = SignerOfTheCluster(sign_with(authority)), count()

    def take_away() -> None:
        def deny(one: dict[str, object]) -> None:
            one["status"] = {"conditions": [{"type": "Denied", "status": "True", "reason": "Closed"}]}

        cluster.act = deny

    own = StandingAuthority(open_authority(directory / "ca", now(), "cluster.local"))
    async with serving(directory, own) as (service, source), cluster.server.api() as api:
        service.signer = KubernetesSigner(
            api, NAME, lambda: authority.roots_pem, now, lambda: f"z-{next(numbers)}"
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster.run)
            yield Signing(source, authority.roots_pem, take_away)
            nursery.cancel_scope.cancel()


@pytest.fixture(params=[embedded, over_the_network, by_a_signer_of_the_cluster], ids=lambda one: one.__name__)
async def signing(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Signing]:
    async with request.param(tmp_path) as made:
        yield made


async def test_a_certificate_proves_the_one_identity_and_comes_with_its_roots(signing: Signing) -> None:
    made = csr.create(WEB)
    taken = accept(await signing.source.create(made.csr_pem, WEB, 3600.0), WEB, made, now())
    assert (taken.identity, taken.roots_pem) == (WEB, signing.roots_pem)


async def test_it_lasts_as_long_as_was_asked_for_and_begins_a_little_earlier(signing: Signing) -> None:
    begun, made = now(), csr.create(WEB)
    answer = await signing.source.create(made.csr_pem, WEB, 1200.0)
    leaf = x509.load_pem_x509_certificate(answer[0].encode())
    asked = begun + timedelta(seconds=1200)
    assert asked - timedelta(seconds=5) <= leaf.not_valid_after_utc <= asked + timedelta(seconds=10)
    assert leaf.not_valid_before_utc <= begun


async def test_many_are_signed_at_once_each_for_its_own_key(signing: Signing) -> None:
    requests = [csr.create(who) for who in (WEB, DB) * 5]
    answers: dict[int, object] = {}

    async def ask(number: int) -> None:
        who = (WEB, DB)[number % 2]
        answer = await signing.source.create(requests[number].csr_pem, who, 3600.0)
        answers[number] = accept(answer, who, requests[number], now())

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(ask, number)
    assert len(answers) == 10
    assert len({one.serial for one in answers.values()}) == 10  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["", "no request", csr.create(DB).csr_pem])
async def test_a_request_that_is_none_or_for_somebody_else_is_refused(signing: Signing, text: str) -> None:
    with pytest.raises(PeerError):
        await signing.source.create(text, WEB, 3600.0)


async def test_of_another_nodes_pod_there_is_none(signing: Signing) -> None:
    with pytest.raises(NoCertificate):
        await signing.source.create(csr.create(ELSEWHERE).csr_pem, ELSEWHERE, 3600.0)


async def test_where_nothing_can_be_signed_that_is_said_and_may_pass(signing: Signing) -> None:
    signing.take_away()
    with pytest.raises((NoCertificate, ConnectionFailed)) as refused:
        await signing.source.create(csr.create(WEB).csr_pem, WEB, 3600.0)
    assert str(refused.value)
