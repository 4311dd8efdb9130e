"""Who calls: by a token that the API server knows, by one of a file, or by the connection's certificate."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import httpx2
import pytest
import trio
import trio.testing

from tests.control.calling import PROXY, SOURCE, Reviewer, peer, status, token
from tests.identity.builders import ALICE, NOW, Leaf
from tests.identity.builders import Authority as Root
from tests.identity.sets import one_step
from tests.kube.fake import answer
from tests.kube.fake import status as failure
from ztunnel.ca.authenticate import Authenticator, StaticTokens, TokenReviews
from ztunnel.ca.caller import Caller, Proof, Reason, Refused
from ztunnel.ca.token import hashed
from ztunnel.identity.authority import read_authority
from ztunnel.identity.plugged_in import assemble
from ztunnel.identity.standing import StandingAuthority
from ztunnel.model.identity import SpiffeId
from ztunnel.rpc.status import Code, RpcError

ZTUNNEL = SpiffeId("cluster.local", "ztunnel-system", "ztunnel")
CALLER = Caller(ZTUNNEL, Proof.TOKEN, "ztunnel-1", "uid-ztunnel-1", "n1")
GOOD, OTHER = token(name="good"), token(name="other")


class Clock:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


class Tokens:
    """TokenReviews in front of an API server that knows GOOD and OTHER."""

    def __init__(self, api, reviewer):
        self.reviewer, self.clock = reviewer, Clock()
        self.reviews = TokenReviews(api, "cluster.local", lambda: NOW, clock=self.clock)

    async def check(self, text=GOOD, source=SOURCE):
        return await self.reviews.check(text, source)

    async def refused(self, text=GOOD, source=SOURCE):
        with pytest.raises(Refused) as refusal:
            await self.check(text, source)
        return refusal.value.reason, str(refusal.value)


@pytest.fixture
async def tokens():
    reviewer = Reviewer({GOOD: status(), OTHER: status()})
    async with reviewer.server.api() as api:
        yield Tokens(api, reviewer)


async def test_the_api_server_is_asked_for_our_audience(tokens):
    assert await tokens.check() == CALLER
    assert tokens.reviewer.asked == [{"token": GOOD, "audiences": ["istio-ca"]}]


async def test_it_is_asked_again_after_a_while(tokens):
    for seconds, asked in ((0, 1), (9, 1), (2, 2)):
        tokens.clock.seconds += seconds
        assert await tokens.check() == CALLER
        assert tokens.reviews.reviews == asked


async def test_calls_that_come_at_once_with_one_token_are_one_question(tokens):
    found = []

    async def check():
        found.append(await tokens.check())

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(check)
    assert found == [CALLER] * 50
    assert tokens.reviews.reviews == 1


async def test_a_caller_that_gives_up_takes_no_other_s_answer_along(tokens):
    release = trio.Event()
    api = tokens.reviews._api
    create = api.create

    async def slow(*arguments):
        await release.wait()
        return await create(*arguments)

    api.create = slow
    found = []

    async def check():
        found.append(await tokens.check())

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as first:
                first.start_soon(tokens.check)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(check)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        release.set()
    assert found == [CALLER]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("opaque", Reason.BAD_TOKEN),
        (token({"aud": ["vault"], "exp": 4e9}), Reason.WRONG_AUDIENCE),
        (token({"exp": 4e9}), Reason.WRONG_AUDIENCE),
        (token({"aud": ["istio-ca"], "exp": 1000}), Reason.EXPIRED_TOKEN),
    ],
)
async def test_what_refuses_itself_is_no_question(tokens, text, reason):
    assert (await tokens.refused(text))[0] is reason
    assert tokens.reviewer.asked == []


async def test_a_token_that_the_api_server_does_not_know_is_refused_and_not_asked_about_again(tokens):
    stranger = token(name="stranger")
    for _ in range(3):
        reason, message = await tokens.refused(stranger)
        assert reason is Reason.BAD_TOKEN
        assert message == "the API server does not know the token: [invalid bearer token]"
    assert tokens.reviews.reviews == 1


async def test_a_flood_of_strange_tokens_from_one_address_does_not_reach_the_api_server(tokens):
    said = [(await tokens.refused(token(name=str(number))))[0] for number in range(500)]
    assert tokens.reviews.reviews == 20
    assert said == [Reason.BAD_TOKEN] * 20 + [Reason.TOO_MANY] * 480
    assert await tokens.check(source="fd00::9") == CALLER


OUTAGES = {
    "no connection": (httpx2.ConnectError("refused"), "no answer from the API server"),
    "too busy": (answer(429, failure(429, "TooManyRequests", "wait")), "asks for patience"),
    "an error": (answer(500, failure(500, "InternalError", "etcd")), "answers 500"),
    "no permission": (answer(403, failure(403, "Forbidden", "no")), "needs RBAC: create tokenreviews"),
    "our own token has expired": (
        answer(401, failure(401, "Unauthorized", "x")),
        "not known to the API server",
    ),
    "no review": (answer(201, []), "is no object"),
}


@pytest.mark.parametrize(("fails", "message"), OUTAGES.values(), ids=OUTAGES.keys())
async def test_where_the_api_server_cannot_say_it_is_not_the_token_that_is_bad(tokens, fails, message):
    tokens.reviewer.fails = fails
    for _ in range(30):  # and the address does not pay for it
        reason, said = await tokens.refused()
        assert reason is Reason.API_UNAVAILABLE
        assert said.startswith("tokens cannot be checked now: ")
        assert message in said
    tokens.reviewer.fails = None
    assert await tokens.check() == CALLER


async def test_in_an_outage_a_token_that_was_known_is_good_for_some_minutes(tokens):
    await tokens.check()
    tokens.reviewer.fails = httpx2.ConnectError("refused")
    tokens.clock.seconds += 299
    assert await tokens.check() == CALLER
    assert (await tokens.refused(OTHER))[0] is Reason.API_UNAVAILABLE
    tokens.clock.seconds += 1
    assert (await tokens.refused())[0] is Reason.API_UNAVAILABLE


async def test_an_api_server_that_does_not_answer_is_not_waited_for(tokens, autojump_clock):
    async def never(*_):
        await trio.sleep_forever()

    tokens.reviews._api.create = never
    reason, message = await tokens.refused()
    assert reason is Reason.API_UNAVAILABLE
    assert "no answer to a TokenReview within 5 s" in message


async def test_a_review_without_a_status_says_no(tokens):
    tokens.reviewer.fails = answer(201, {"kind": "TokenReview"})
    assert (await tokens.refused())[0] is Reason.BAD_TOKEN


# --- files and certificates ---------------------------------------------------------------


async def test_a_token_of_the_file_is_whose_it_says():
    caller = Caller(ZTUNNEL, Proof.STATIC_TOKEN, node="n1")
    tokens = StaticTokens({hashed("secret"): caller})
    assert await tokens.check("secret", SOURCE) == caller
    with pytest.raises(Refused, match="none of those in the token file"):
        await tokens.check("other", SOURCE)


SET = one_step()
STRANGE = Root.root()


def authenticator(found=SET, roots=""):
    files = found.files(root_cert=roots or found.root.pem)
    authority = read_authority(assemble(files, str), "cluster.local", NOW)
    static = StaticTokens({hashed("secret"): CALLER})
    return Authenticator(StandingAuthority(authority), "cluster.local", lambda: NOW, static)


async def test_a_certificate_of_ours_is_whose_it_says():
    found = await authenticator()({}, peer(SET.signer.svid()))
    assert found == Caller(ALICE, Proof.CERTIFICATE)


async def test_a_token_counts_before_a_certificate():
    assert await authenticator()({"authorization": "Bearer secret"}, peer(SET.signer.svid())) == CALLER
    with pytest.raises(Refused, match="none of those in the token file"):
        await authenticator()({"authorization": "Bearer wrong"}, peer(SET.signer.svid()))


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        (None, Reason.NO_CREDENTIALS),
        (STRANGE.svid(), Reason.BAD_CERTIFICATE),
        (b"junk", Reason.BAD_CERTIFICATE),
        (SET.signer.svid(Leaf().but(ca=True)), Reason.BAD_CERTIFICATE),
        (SET.signer.svid(Leaf().named("spiffe://other.example/ns/a/sa/b")), Reason.BAD_CERTIFICATE),
        (
            SET.signer.svid(
                Leaf().but(end=datetime(2020, 1, 1, tzinfo=UTC), begin=datetime(2019, 1, 1, tzinfo=UTC))
            ),
            Reason.BAD_CERTIFICATE,
        ),
    ],
)
async def test_a_certificate_that_proves_nothing_is_refused(leaf, reason):
    with pytest.raises(Refused) as refusal:
        await authenticator()({}, peer(leaf))
    assert refusal.value.reason is reason


async def test_a_certificate_of_the_intermediate_before_this_one_is_believed_with_that():
    earlier = SET.root.child("earlier")
    leaf = earlier.svid()
    with pytest.raises(Refused):
        await authenticator()({}, peer(leaf))
    caller = await authenticator()({}, replace(peer(leaf), intermediates=(earlier.der,)))
    assert caller.identity == ALICE


async def test_roots_that_are_trusted_since_count_at_once():
    before = authenticator()
    with pytest.raises(Refused):
        await before({}, peer(STRANGE.svid()))
    files = SET.files(root_cert=SET.root.pem + STRANGE.pem)
    before._authority.take(read_authority(assemble(files, str), "cluster.local", NOW))
    assert (await before({}, peer(STRANGE.svid()))).identity == ALICE


async def test_before_there_is_an_authority_no_certificate_is_believed():
    nobody = Authenticator(StandingAuthority(), "cluster.local", lambda: NOW, StaticTokens({}))
    with pytest.raises(Refused, match="has not been read yet") as refusal:
        await nobody({}, peer(SET.signer.svid()))
    assert refusal.value.reason is Reason.API_UNAVAILABLE


def test_the_pod_of_the_token_is_the_proxy():
    assert CALLER.pod == PROXY.meta.name


async def test_a_method_of_grpc_gets_a_status():
    identify = authenticator().identify
    assert await identify({"authorization": "Bearer secret"}, peer()) == CALLER
    with pytest.raises(RpcError, match="neither a token") as refusal:
        await identify({}, peer())
    assert refusal.value.code is Code.UNAUTHENTICATED
