"""CreateCertificate over the real server, asked by grpcio: who gets a certificate, who does not, and why."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime

import grpc
import pytest
import trio
from cryptography import x509
from google.protobuf.struct_pb2 import Struct, Value

from tests.ca.test_authority_report import Log
from tests.control.calling import PROXY, Pods, Reviewer, pod, status, token
from tests.rpc.conftest import pair, serve  # noqa: F401 - fixtures
from ztunnel.ca.authenticate import Authenticator, TokenReviews
from ztunnel.ca.certify import PATH, CertificateService, Validity
from ztunnel.ca.issuance import Issuance
from ztunnel.ca.node_authorizer import NodeAuthorizer
from ztunnel.ca.sign import AuthoritySigner
from ztunnel.flow.rate import Rate
from ztunnel.identity import csr
from ztunnel.identity.issued import accept
from ztunnel.identity.sign import open_authority
from ztunnel.identity.standing import StandingAuthority
from ztunnel.model.identity import SpiffeId
from ztunnel.telemetry.figures import Figures
from ztunnel.xds.pb.citadel_pb2 import IstioCertificateRequest, IstioCertificateResponse

WEB = SpiffeId("cluster.local", "shop", "web")
DB = SpiffeId("cluster.local", "shop", "db")
ZTUNNEL = SpiffeId("cluster.local", "ztunnel-system", "ztunnel")
POD = pod("web-0", "web", "n1")
TOKENS = {
    token(name="proxy"): status(),
    token(name="pod"): status(POD),
    token(name="unbound"): status(user={"username": "system:serviceaccount:ztunnel-system:ztunnel"}),
}
PROXY_TOKEN, POD_TOKEN, UNBOUND_TOKEN = TOKENS


def now():
    return datetime.now(UTC)


class Control:
    """A control plane's certificate service that runs, and a client of grpcio's."""

    def __init__(self, running, service, reviewer, authority, log):
        self.running, self.service, self.reviewer = running, service, reviewer
        self.authority, self.log = authority, log

    async def ask(self, request, bearer=PROXY_TOKEN, seconds=4):
        """The answer, or the RpcError."""
        metadata = [("authorization", f"Bearer {bearer}"), ("clusterid", "Kubernetes")] if bearer else []
        raw = request if isinstance(request, bytes) else request.SerializeToString()

        def call():
            with self.running.grpcio() as channel:
                method = channel.unary_unary(PATH)
                try:
                    return IstioCertificateResponse.FromString(
                        method(raw, metadata=metadata, timeout=seconds)
                    )
                except grpc.RpcError as error:
                    return error

        return await trio.to_thread.run_sync(call)

    async def refused(self, request, bearer=PROXY_TOKEN):
        error = await self.ask(request, bearer)
        assert isinstance(error, grpc.RpcError), error
        return error.code(), error.details()

    def figures(self):
        figures = Figures()
        self.service._issuance.register(figures)
        return {one.name: dict(one.samples) for one in figures.families()}


@pytest.fixture
async def control(serve, tmp_path):  # noqa: F811
    reviewer, log = Reviewer(dict(TOKENS)), Log()
    authority = StandingAuthority(open_authority(tmp_path / "ca"))
    async with reviewer.server.api() as api:
        authenticate = Authenticator(authority, "cluster.local", now, TokenReviews(api, "cluster.local", now))
        pods = Pods(PROXY, POD, pod("db-0", "db", "n2"))
        authorizer = NodeAuthorizer(pods, ["ztunnel-system/ztunnel"], "cluster.local")
        service = CertificateService(authority, authenticate, authorizer, Issuance(log), now)
        async with serve({PATH: service.create_certificate}) as running:
            yield Control(running, service, reviewer, authority, log)
            assert running.bugs == []


def request(identity, impersonated=None, seconds=3600, made=None):
    metadata = Struct(
        fields={} if impersonated is None else {"ImpersonatedIdentity": Value(string_value=str(impersonated))}
    )
    text = (made or csr.create(identity)).csr_pem
    return IstioCertificateRequest(csr=text, validity_duration=seconds, metadata=metadata)


async def test_a_node_proxy_gets_a_certificate_for_a_pod_on_its_node(control):
    made = csr.create(WEB)
    answer = await control.ask(request(WEB, WEB, made=made))
    taken = accept(answer.cert_chain, WEB, made, now())
    assert taken.roots_pem == control.authority.current.roots_pem
    assert control.figures()["citadel_server_success_cert_issuance_count"] == {(): 1}
    assert control.log.lines == []


async def test_a_workload_gets_one_for_itself(control):
    made = csr.create(WEB)
    answer = await control.ask(request(WEB, made=made), bearer=POD_TOKEN)
    assert accept(answer.cert_chain, WEB, made, now()).identity == WEB
    answer = await control.ask(request(WEB, "", made=made), bearer=POD_TOKEN)  # empty is none, as for istiod
    assert accept(answer.cert_chain, WEB, made, now()).identity == WEB


def lifetime(answer):
    leaf = x509.load_pem_x509_certificate(answer.cert_chain[0].encode())
    return (leaf.not_valid_after_utc - now()).total_seconds()


@pytest.mark.parametrize(
    ("asked", "given"), [(3600, 3600), (0, 86_400), (-5, 86_400), (2**62, 90 * 86_400), (1, 1)]
)
async def test_the_lifetime_is_what_was_asked_for_within_bounds(control, asked, given):
    assert lifetime(await control.ask(request(WEB, WEB, seconds=asked))) == pytest.approx(given, abs=5)


async def test_the_bounds_are_the_operators(control):
    control.service.validity = Validity(600, 1200)
    assert lifetime(await control.ask(request(WEB, WEB, seconds=0))) == pytest.approx(600, abs=5)
    assert lifetime(await control.ask(request(WEB, WEB, seconds=9999))) == pytest.approx(1200, abs=5)


STATUS = grpc.StatusCode
REFUSED = {
    "no token": (request(WEB, WEB), "", STATUS.UNAUTHENTICATED, "neither a token", "no_credentials"),
    "a token that nobody knows": (
        request(WEB, WEB),
        token(name="x"),
        STATUS.UNAUTHENTICATED,
        "does not know the token",
        "bad_token",
    ),
    "another audience": (
        request(WEB, WEB),
        token({"aud": ["vault"], "exp": 4e9}),
        STATUS.UNAUTHENTICATED,
        "the token is for vault; it has to be for istio-ca",
        "wrong_audience",
    ),
    "an expired token": (
        request(WEB, WEB),
        token({"aud": ["istio-ca"], "exp": 1e9}),
        STATUS.UNAUTHENTICATED,
        "the token expired",
        "expired_token",
    ),
    "a pod of another node": (
        request(DB, DB),
        PROXY_TOKEN,
        STATUS.PERMISSION_DENIED,
        "no pod of shop/db runs on that node",
        "other_node",
    ),
    "a workload for another one": (
        request(DB, DB),
        POD_TOKEN,
        STATUS.PERMISSION_DENIED,
        "for itself only",
        "wrong_account",
    ),
    "a proxy whose token is bound to no pod": (
        request(WEB, WEB),
        UNBOUND_TOKEN,
        STATUS.PERMISSION_DENIED,
        "names no pod",
        "unknown_pod",
    ),
    "a request for another than was named": (
        request(DB, WEB),
        PROXY_TOKEN,
        STATUS.INVALID_ARGUMENT,
        "the signing request is for .*/db, the requester is .*/web",
        "bad_request",
    ),
    "another trust domain": (
        request(WEB, "spiffe://other.example/ns/shop/sa/web"),
        PROXY_TOKEN,
        STATUS.PERMISSION_DENIED,
        "another trust domain",
        "other_trust_domain",
    ),
    "an identity that is none": (
        request(WEB, "spiffe://cluster.local/web"),
        PROXY_TOKEN,
        STATUS.INVALID_ARGUMENT,
        "ImpersonatedIdentity: not of the form",
        "bad_request",
    ),
    "an identity without a trust domain": (
        request(WEB, "spiffe:///ns/shop/sa/web"),
        PROXY_TOKEN,
        STATUS.INVALID_ARGUMENT,
        "ImpersonatedIdentity: not a trust domain",
        "bad_request",
    ),
    "an identity that is no text": (
        IstioCertificateRequest(
            csr="x", metadata=Struct(fields={"ImpersonatedIdentity": Value(number_value=7)})
        ),
        PROXY_TOKEN,
        STATUS.INVALID_ARGUMENT,
        "is no text",
        "bad_request",
    ),
    "no signing request": (
        IstioCertificateRequest(csr="x"),
        POD_TOKEN,
        STATUS.INVALID_ARGUMENT,
        "not a signing request",
        "bad_request",
    ),
    "a signing request of a hundred kilobytes": (
        IstioCertificateRequest(csr="x" * 100_000),
        PROXY_TOKEN,
        STATUS.INVALID_ARGUMENT,
        "a request of 1000",
        "bad_request",
    ),
    "bytes that are no message": (
        b"\xff\xff\xff",
        PROXY_TOKEN,
        STATUS.INVALID_ARGUMENT,
        "no IstioCertificateRequest",
        "bad_request",
    ),
    "a text that is not UTF-8": (
        b"\x0a\x02\xff\xfe",
        PROXY_TOKEN,
        STATUS.INVALID_ARGUMENT,
        "no IstioCertificateRequest",
        "bad_request",
    ),
    "metadata of endless depth": (
        b"\x22\xc8\x01" + b"\x0a\x02" * 100,
        PROXY_TOKEN,
        STATUS.INVALID_ARGUMENT,
        "no IstioCertificateRequest",
        "bad_request",
    ),
}


@pytest.mark.parametrize(
    ("asked", "bearer", "code", "message", "reason"), REFUSED.values(), ids=REFUSED.keys()
)
async def test_refused_with_its_cause_logged_and_counted_is(control, asked, bearer, code, message, reason):
    found, details = await control.refused(asked, bearer)
    assert found is code
    assert re.search(message, details), details
    [(level, text, fields)] = control.log.lines
    assert (level, text, fields["reason"]) == ("warn", "certificate refused", reason)
    assert not bearer or bearer not in str(control.log.lines)
    figures = control.figures()
    assert figures["ztunnel_certificate_refusals_total"] == {(reason,): 1}
    known = code in (STATUS.UNAUTHENTICATED, STATUS.PERMISSION_DENIED)
    assert figures["citadel_server_authentication_failure_count"] == {(): int(known)}
    assert figures["citadel_server_success_cert_issuance_count"] == {(): 0}


async def test_a_token_of_a_megabyte_costs_only_its_call(control):
    error = await control.ask(request(WEB, WEB), bearer="a" * (1 << 20))
    assert isinstance(error, grpc.RpcError)
    assert isinstance(await control.ask(request(WEB, WEB)), IstioCertificateResponse)


async def test_an_api_server_that_is_gone_is_no_refusal_of_the_token(control):
    control.reviewer.fails = ConnectionError("gone")
    code, details = await control.refused(request(WEB, WEB))
    assert code is STATUS.UNAVAILABLE
    assert "tokens cannot be checked now" in details
    control.reviewer.fails = None
    assert isinstance(await control.ask(request(WEB, WEB)), IstioCertificateResponse)


async def test_without_an_authority_nothing_is_signed_and_that_is_said(control):
    control.authority.current = None
    code, details = await control.refused(request(WEB, WEB))
    assert code is STATUS.UNAVAILABLE
    assert "nothing can be signed now" in details
    assert control.figures()["citadel_server_csr_sign_err_count"] == {("CA_NOT_READY",): 1}


class HeldAuthority:
    """Signs when it is let, on the thread that asks it."""

    def __init__(self, authority):
        self.authority, self.go, self.asked = authority, threading.Event(), trio.Event()
        self.threads = set()

    def sign(self, *arguments):
        self.threads.add(threading.current_thread())
        trio.from_thread.run_sync(self.asked.set)
        assert self.go.wait(4)
        return self.authority.sign(*arguments)


async def test_the_loop_goes_on_while_something_is_signed(control):
    held = HeldAuthority(control.authority)
    control.service.signer = AuthoritySigner(held, now)
    answers = []

    async def ask():
        answers.append(await control.ask(request(WEB, WEB)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await held.asked.wait()
        assert (await control.refused(request(DB, DB)))[0] is STATUS.PERMISSION_DENIED
        held.go.set()
    assert isinstance(answers[0], IstioCertificateResponse)
    assert threading.main_thread() not in held.threads


@pytest.mark.timeout(60)
async def test_a_caller_that_asks_for_thousands_is_bounded_and_another_is_not(control):
    """Over one connection, each with its own answer."""
    control.service.rate = Rate(100, 1, 100)
    made = request(WEB, WEB).SerializeToString()
    metadata = [("authorization", f"Bearer {PROXY_TOKEN}")]

    def flood():
        codes = []
        with control.running.grpcio() as channel:
            method = channel.unary_unary(PATH)
            waiting = []
            for _ in range(400):
                waiting.append(method.future(made, metadata=metadata))
                if len(waiting) == 50:
                    codes += [each.code() for each in waiting]
                    waiting.clear()
            codes += [each.code() for each in waiting]
        return codes

    codes = await trio.to_thread.run_sync(flood)
    assert 100 <= codes.count(STATUS.OK) < 200
    assert set(codes) == {STATUS.OK, STATUS.RESOURCE_EXHAUSTED}
    assert isinstance(await control.ask(request(WEB), POD_TOKEN, seconds=20), IstioCertificateResponse)
