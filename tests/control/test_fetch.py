"""A node proxy's side over the network, with grpcio as an istiod that looks at every field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio

from tests.control.network import control_plane
from tests.control.standing import now, standing
from tests.control.test_serve import snapshot
from tests.rpc.conftest import Pair, grpcio_server, make_pair
from ztunnel import __version__
from ztunnel.config import read_settings
from ztunnel.control.connect import Upstream
from ztunnel.control.fetch import (
    CERTIFICATES,
    DISCOVERY,
    ENROLMENT,
    NetworkCertificates,
    NetworkReports,
    NetworkSessions,
)
from ztunnel.errors import ConfigError, NoCertificate, PeerError
from ztunnel.identity import csr, issued
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import Workload
from ztunnel.rpc.answer import ServerCall
from ztunnel.rpc.limits import CLIENT
from ztunnel.rpc.status import Code, RpcError
from ztunnel.run.follow import subscriber_of
from ztunnel.state.hold import Hold
from ztunnel.state.subscribe import subscribe
from ztunnel.state.world import World
from ztunnel.telemetry.component import XdsFigures
from ztunnel.telemetry.figures import Figures
from ztunnel.xds.enrolment import NOTED, EnrolledPod, parse_pods
from ztunnel.xds.pb.citadel_pb2 import IstioCertificateRequest, IstioCertificateResponse
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION
from ztunnel.xds.subscriber import Subscriber, Update, describe_node

pytestmark = pytest.mark.timeout(30)

ALICE = SpiffeId("cluster.local", "t", "alice")


@pytest.fixture(scope="module")
def istiod() -> Pair:
    return make_pair("127.0.0.1")


def upstream(pair: Pair, port: int, **changes: Any) -> Upstream:
    settings = {"token": "the-token", "metadata": (("clusterid", "K"), ("tenant", "x")), **changes}
    return Upstream("XDS", f"https://127.0.0.1:{port}", pair.root.decode(), **settings)


class Discovery:
    """Answers each type once, and keeps what it was sent."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.requests: list[DeltaDiscoveryRequest] = []

    def __call__(
        self, requests: Iterator[DeltaDiscoveryRequest], context: grpc.ServicerContext
    ) -> Iterator[DeltaDiscoveryResponse]:
        self.metadata = dict(context.invocation_metadata())
        for request in requests:
            self.requests.append(request)
            if not request.response_nonce:
                yield DeltaDiscoveryResponse(type_url=request.type_url, nonce=f"n{len(self.requests)}")

    @property
    def method(self) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(
            self, DeltaDiscoveryRequest.FromString, DeltaDiscoveryResponse.SerializeToString
        )


async def test_what_a_node_says_to_istiod(istiod: Pair) -> None:
    """Field by field as Istio's ztunnel does, and its version, for proxy-status."""
    environment = {
        "INSTANCE_IP": "10.0.0.9",
        "POD_NAME": "ztunnel-x",
        "POD_NAMESPACE": "istio-system",
        "ISTIO_META_CLUSTER_ID": "K",
        "ISTIO_METAJSON_LIST": "[1]",
    }
    settings = read_settings({"node": "n1"}, environment)
    subscriber = subscriber_of(settings, XdsFigures(Figures()))
    served = Discovery()
    with grpcio_server(istiod, {DISCOVERY: served.method}) as (_, port):
        async with NetworkSessions(upstream(istiod, port)).open() as (requests, responses):
            for request in subscriber.connect():
                await requests.send(request)
            for _ in range(2):
                await requests.send(subscriber.receive(await responses.receive()).answer)
            while len(served.requests) < 4:  # noqa: ASYNC110 (it is another thread's)
                await trio.sleep(0.001)
    assert served.metadata["authorization"] == "Bearer the-token"
    assert served.metadata["clusterid"] == "K"
    assert served.metadata["tenant"] == "x"
    first, second, *answers = served.requests
    assert {first.type_url, second.type_url} == {ADDRESS, AUTHORIZATION}
    for request in (first, second):
        assert request.node.id == ("ztunnel~10.0.0.9~ztunnel-x.istio-system~istio-system.svc.cluster.local")
        assert dict(request.node.metadata.items()) == {
            "NAME": "ztunnel-x",
            "NAMESPACE": "istio-system",
            "INSTANCE_IPS": "10.0.0.9",
            "NODE_NAME": "n1",
            "CLUSTER_ID": "K",
            "LIST": [1],
            "ZTUNNEL_VERSION": __version__,
        }
        assert not request.node.cluster
        assert not request.resource_names_subscribe
        assert not request.initial_resource_versions
    for answer in answers:
        assert answer.response_nonce.startswith("n")
        assert not answer.HasField("node")
        assert not answer.HasField("error_detail")


async def test_a_stream_that_breaks_says_why(istiod: Pair) -> None:
    def refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "authentication failure")
        yield b""

    method = grpc.stream_stream_rpc_method_handler(refuse)
    with (
        grpcio_server(istiod, {DISCOVERY: method}) as (_, port),
        pytest.raises(RpcError, match="UNAUTHENTICATED: authentication failure"),
    ):
        async with NetworkSessions(upstream(istiod, port)).open() as (_, responses):
            await responses.receive()


async def test_a_server_that_is_asked_too_often_is_asked_half_as_often(istiod: Pair) -> None:
    """As an istiod with `--keepaliveInterval=5m`; what its GOAWAY says is in the error of the stream."""
    said = ["too_many_pings", "too_many_pings", "something else"]

    def refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.abort(grpc.StatusCode.UNAVAILABLE, said.pop(0))
        yield b""

    seconds = []
    with grpcio_server(istiod, {DISCOVERY: grpc.stream_stream_rpc_method_handler(refuse)}) as (_, port):
        sessions = NetworkSessions(upstream(istiod, port), replace(CLIENT, ping_seconds=1000))
        while said:
            with pytest.raises(RpcError, match=said[0]):
                async with sessions.open() as (_, responses):
                    await responses.receive()
            seconds.append(sessions.limits.ping_seconds)
    assert seconds == [2000, 3600, 3600]


async def test_what_is_no_response_ends_the_stream(istiod: Pair) -> None:
    def babble(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"\xff\xff"
        next(requests)

    method = grpc.stream_stream_rpc_method_handler(babble)
    with (
        grpcio_server(istiod, {DISCOVERY: method}) as (_, port),
        pytest.raises(PeerError, match="no DeltaDiscoveryResponse"),
    ):
        async with NetworkSessions(upstream(istiod, port)).open() as (_, responses):
            await responses.receive()


async def test_nobody_there(istiod: Pair) -> None:
    with pytest.raises(RpcError, match="refused"):
        async with NetworkSessions(upstream(istiod, 1)).open():
            pass


async def test_each_stream_and_each_certificate_shows_the_token_of_the_moment(
    istiod: Pair, tmp_path: Path
) -> None:
    """The kubelet replaces it at four fifths of its time; istiod refuses an old one."""
    token, served, citadel = tmp_path / "token", Discovery(), Citadel(tmp_path)
    with grpcio_server(istiod, {DISCOVERY: served.method, CERTIFICATES: citadel.method}) as (_, port):
        control = upstream(istiod, port, token=str(token))
        sessions, certificates = NetworkSessions(control), NetworkCertificates(control)
        for number in (1, 2):
            token.write_text(f"token-{number}\n")
            async with sessions.open() as (requests, responses):
                await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
                await responses.receive()
            await certificates.create(csr.create(ALICE).csr_pem, ALICE, 3600.0)
            for metadata in (served.metadata, citadel.metadata):
                assert metadata["authorization"] == f"Bearer token-{number}"


async def test_a_missing_token_is_no_call(istiod: Pair, tmp_path: Path) -> None:
    missing = upstream(istiod, 1, token=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="AUTH_TOKEN"):
        async with NetworkSessions(missing).open():
            pass
    with pytest.raises(ConfigError, match="AUTH_TOKEN"):
        await NetworkCertificates(missing).create("", ALICE, 60)


class Citadel:
    """Signs, and keeps what it was asked."""

    def __init__(self, directory: Path) -> None:
        self._authority = standing(directory)
        self.asked: list[IstioCertificateRequest] = []
        self.metadata: dict[str, str] = {}
        self.status: grpc.StatusCode | None = None

    def __call__(
        self, request: IstioCertificateRequest, context: grpc.ServicerContext
    ) -> IstioCertificateResponse:
        self.metadata = dict(context.invocation_metadata())
        self.asked.append(request)
        if self.status is not None:
            context.abort(self.status, "because")
        chain = self._authority.sign(request.csr, ALICE, float(request.validity_duration), now())
        return IstioCertificateResponse(cert_chain=chain)

    @property
    def method(self) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            self, IstioCertificateRequest.FromString, IstioCertificateResponse.SerializeToString
        )


async def test_what_a_node_asks_of_a_ca(istiod: Pair, tmp_path: Path) -> None:
    citadel = Citadel(tmp_path)
    request = csr.create(ALICE)
    with grpcio_server(istiod, {CERTIFICATES: citadel.method}) as (_, port):
        chain = await NetworkCertificates(upstream(istiod, port)).create(request.csr_pem, ALICE, 3600.0)
    asked = citadel.asked[0]
    assert asked.csr == request.csr_pem
    assert asked.validity_duration == 3600
    assert dict(asked.metadata.items()) == {"ImpersonatedIdentity": str(ALICE)}
    assert citadel.metadata["authorization"] == "Bearer the-token"
    assert citadel.metadata["clusterid"] == "K"
    assert issued.accept(chain, ALICE, request, now()).identity == ALICE


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, NoCertificate),
        (grpc.StatusCode.PERMISSION_DENIED, NoCertificate),
        (grpc.StatusCode.UNAVAILABLE, NoCertificate),
        (grpc.StatusCode.INVALID_ARGUMENT, PeerError),
    ],
)
async def test_what_a_ca_refuses_is_an_error_that_is_asked_again(
    istiod: Pair, tmp_path: Path, status: grpc.StatusCode, error: type[Exception]
) -> None:
    citadel = Citadel(tmp_path)
    citadel.status = status
    with (
        grpcio_server(istiod, {CERTIFICATES: citadel.method}) as (_, port),
        pytest.raises(error, match="because"),
    ):
        await NetworkCertificates(upstream(istiod, port)).create("x", ALICE, 60)


async def test_a_ca_that_is_not_there(istiod: Pair) -> None:
    with pytest.raises(NoCertificate, match="refused"):
        await NetworkCertificates(upstream(istiod, 1)).create("x", ALICE, 60)


async def test_an_answer_that_is_none(tmp_path: Path) -> None:
    async def babble(call: ServerCall) -> None:
        await call.receive()
        await call.send(b"\xff")

    async def refuse(call: ServerCall) -> None:
        raise RpcError(Code.INTERNAL, "bug")

    for method, error in ((babble, PeerError), (refuse, NoCertificate)):
        async with control_plane(tmp_path, {CERTIFICATES: method}) as plane:
            with pytest.raises(error):
                await NetworkCertificates(plane.upstream()).create("x", ALICE, 60)


@pytest.mark.timeout(30)
async def test_connections_that_have_become_old_are_replaced_and_nothing_is_missed(tmp_path: Path) -> None:
    """Clients spread over replicas that came later; each change arrives, once."""
    async with control_plane(tmp_path, age_seconds=0.1) as plane:
        sessions, subscriber = NetworkSessions(plane.upstream()), Subscriber(describe_node("n", {}), "")
        hold, seen, streams = Hold(World("")), list[str](), 0

        def observe(update: Update) -> None:
            seen.extend(one.name for one in update.upserts if isinstance(one, Workload))

        async def follow() -> None:
            nonlocal streams
            while True:
                with suppress(RpcError):
                    async with sessions.open() as ends:
                        streams += 1
                        await subscribe(*ends, hold, subscriber, observe)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            for number in range(8):
                plane.server.publish(snapshot(*(f"pod-{each}" for each in range(number + 1))))
                while len(hold.world.workloads) <= number:  # noqa: ASYNC110 (it knows no Trio events)
                    await trio.sleep(0.001)
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        assert streams >= 2
        assert sorted(seen) == sorted(f"pod-{each}" for each in range(8))


async def test_a_ca_that_is_away_for_a_moment_is_asked_again(istiod: Pair, tmp_path: Path) -> None:
    """As in a rolling update: one replica leaves, the next one answers."""
    citadel = Citadel(tmp_path)
    citadel.status = grpc.StatusCode.UNAVAILABLE
    request = csr.create(ALICE)
    with grpcio_server(istiod, {CERTIFICATES: citadel.method}) as (_, port):
        async with trio.open_nursery() as nursery:

            async def come_back() -> None:
                while not citadel.asked:  # noqa: ASYNC110 (it is another thread's)
                    await trio.sleep(0.001)
                citadel.status = None

            nursery.start_soon(come_back)
            chain = await NetworkCertificates(upstream(istiod, port)).create(request.csr_pem, ALICE, 60.0)
    assert len(chain) == 2
    assert len(citadel.asked) == 2


async def test_pods_are_reported_with_the_token(istiod: Pair) -> None:
    told: list[tuple[dict[str, str], bytes]] = []

    def note(request: bytes, context: grpc.ServicerContext) -> bytes:
        told.append((dict(context.invocation_metadata()), request))
        return NOTED

    pods = [EnrolledPod("shop", "b", "u2"), EnrolledPod("shop", "a", "u1")]
    with grpcio_server(istiod, {ENROLMENT: grpc.unary_unary_rpc_method_handler(note)}) as (_, port):
        await NetworkReports(upstream(istiod, port)).send(pods)
    ((metadata, request),) = told
    assert metadata["authorization"] == "Bearer the-token"
    assert parse_pods(request) == set(pods)


async def test_a_control_plane_that_takes_no_reports_says_so(istiod: Pair) -> None:
    with grpcio_server(istiod, {}) as (_, port):
        with pytest.raises(RpcError) as caught:
            await NetworkReports(upstream(istiod, port)).send([])
        assert caught.value.code is Code.UNIMPLEMENTED
