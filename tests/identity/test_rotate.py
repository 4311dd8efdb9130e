"""Certificates over time: fetched, renewed, kept through a CA's failures, dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.identity.builders import ALICE, BOB, NOW, PEM, Authority, Leaf
from ztunnel.errors import ConfigError, Fault, NoCertificate, PeerError, Side, Unreachable
from ztunnel.identity import csr
from ztunnel.identity.rotate import Certificate, Certificates
from ztunnel.model.identity import SpiffeId

DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3600.0


class Middle:
    """An Rng without luck: no jitter either way in a backoff, 2.5 % of the lifetime before the half."""

    def random(self) -> float:
        return 0.5


def wall() -> datetime:
    """A wall clock that goes with Trio's."""
    return NOW + timedelta(seconds=trio.current_time())


def numbered(number: int) -> SpiffeId:
    return SpiffeId("cluster.local", "default", f"n{number}")


@dataclass
class Ca:
    """A certificate source that can be slow, down, or wrong, and notes when it was asked for whom."""

    root: Authority
    seconds: float = 0.0
    error: Exception | None = None
    leaf: Leaf | None = None
    gate: trio.Event | None = None
    asked: list[tuple[float, SpiffeId]] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0

    async def create(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> Sequence[str]:
        self.asked.append((trio.current_time(), identity))
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        try:
            await trio.sleep(self.seconds)
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.busy -= 1
        if self.error is not None:
            raise self.error
        return self.answer(csr_pem, identity, ttl_seconds)

    def answer(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> list[str]:
        end = wall() + timedelta(seconds=ttl_seconds)
        leaf = self.leaf or Leaf(begin=wall(), end=end).named(identity)
        asked = csr.parse(csr_pem)
        signed = leaf.but(key=PublicOnly(asked.public_key)).signed_by(self.root)
        return [signed.public_bytes(PEM).decode(), self.root.pem]


@dataclass
class PublicOnly:
    """What `Leaf` needs of a key whose private half is elsewhere."""

    half: object

    def public_key(self) -> object:
        return self.half


@pytest.fixture
def ca(root: Authority) -> Ca:
    return Ca(root)


@asynccontextmanager
async def running(source: Ca, **named: float) -> AsyncIterator[Certificates]:
    certificates = Certificates(source, wall, Middle(), **named)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(certificates.run)
        yield certificates
        nursery.cancel_scope.cancel()


async def refusal_of(certificates: Certificates, identity: SpiffeId) -> NoCertificate:
    with pytest.raises(NoCertificate) as refusal:
        await certificates.fetch(identity)
    return refusal.value


# --- having one --------------------------------------------------------------------------


async def test_a_wanted_identity_has_a_certificate_soon(ca: Ca, autojump_clock: MockClock) -> None:
    async with running(ca) as certificates:
        assert certificates.current(ALICE) is None
        certificates.want(ALICE)
        await wait_all_tasks_blocked()
        certificate = certificates.current(ALICE)
        assert isinstance(certificate, Certificate)
        assert certificate.identity == ALICE
        assert certificate.not_after == NOW + timedelta(days=1)
        assert certificate.server_context is not certificate.client_context
        assert ca.asked == [(0.0, ALICE)]


async def test_a_caller_waits_for_the_first_certificate(ca: Ca, autojump_clock: MockClock) -> None:
    ca.seconds = 2.0
    async with running(ca) as certificates:
        certificates.want(ALICE)
        certificate = await certificates.fetch(ALICE)
        assert trio.current_time() == 2.0
        assert certificates.current(ALICE) is certificate
        assert await certificates.fetch(ALICE) is certificate
        assert len(ca.asked) == 1


async def test_callers_that_wait_for_the_same_share_one_fetch(ca: Ca, autojump_clock: MockClock) -> None:
    ca.seconds = 2.0
    got = []

    async def call(certificates: Certificates) -> None:
        got.append(await certificates.fetch(ALICE))

    async with running(ca) as certificates:
        certificates.want(ALICE)
        async with trio.open_nursery() as callers:
            for _ in range(5):
                callers.start_soon(call, certificates)
    assert len(ca.asked) == 1
    assert len({id(one) for one in got}) == 1


async def test_a_caller_may_come_before_the_task_runs(ca: Ca, autojump_clock: MockClock) -> None:
    certificates = Certificates(ca, wall, Middle())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(certificates.fetch, ALICE)
        await wait_all_tasks_blocked()
        nursery.start_soon(certificates.run)
        await wait_all_tasks_blocked()
        assert [identity for _, identity in ca.asked] == [ALICE]
        nursery.cancel_scope.cancel()


async def test_an_identity_that_nobody_wants_is_kept_only_while_a_caller_waits(
    ca: Ca, autojump_clock: MockClock
) -> None:
    async with running(ca) as certificates:
        assert (await certificates.fetch(ALICE)).identity == ALICE
        assert certificates.current(ALICE) is None
        assert certificates.expiring() == ()


async def test_the_lifetime_asked_for_is_the_given_one(ca: Ca, autojump_clock: MockClock) -> None:
    async with running(ca, ttl_seconds=600.0) as certificates:
        certificates.want(ALICE)
        assert (await certificates.fetch(ALICE)).not_after == NOW + timedelta(minutes=10)


async def test_certificates_of_the_same_roots_share_what_was_proved(
    ca: Ca, autojump_clock: MockClock
) -> None:
    async with running(ca) as certificates:
        certificates.want(ALICE)
        certificates.want(BOB)
        alice, bob = await certificates.fetch(ALICE), await certificates.fetch(BOB)
        assert alice.bundles is bob.bundles
        assert "PRIVATE" not in repr(alice)
        assert serialization.load_pem_private_key(alice.key_pem.encode(), None)


# --- whose turn it is --------------------------------------------------------------------


async def test_eight_are_fetched_at_a_time(ca: Ca, autojump_clock: MockClock) -> None:
    ca.seconds = 1.0
    async with running(ca) as certificates:
        for number in range(20):
            certificates.want(numbered(number))
        await trio.sleep(10)
        assert ca.busiest == 8
        assert [at for at, _ in ca.asked] == [0.0] * 8 + [1.0] * 8 + [2.0] * 4
        assert all(certificates.current(numbered(number)) for number in range(20))


async def test_a_waiting_caller_goes_before_prefetches(ca: Ca, autojump_clock: MockClock) -> None:
    ca.seconds = 1.0
    async with running(ca) as certificates:
        for number in range(30):
            certificates.want(numbered(number))
        await wait_all_tasks_blocked()
        await certificates.fetch(numbered(29))
        assert trio.current_time() == 2.0
        assert numbered(29) in [identity for _, identity in ca.asked[8:16]]


async def test_a_prefetch_goes_before_a_refresh(ca: Ca, autojump_clock: MockClock) -> None:
    async with running(ca) as certificates:
        for number in range(16):
            certificates.want(numbered(number))
        await trio.sleep(DAY_SECONDS * 0.475 - 1)
        ca.seconds = 10.0
        del ca.asked[:]
        await trio.sleep(5)
        assert len(ca.asked) == 8
        certificates.want(ALICE)
        await trio.sleep(10)
        assert ALICE in [identity for _, identity in ca.asked[8:]]
        assert len(ca.asked) == 16


# --- renewal -----------------------------------------------------------------------------


async def test_a_certificate_is_renewed_at_half_of_its_life(ca: Ca, autojump_clock: MockClock) -> None:
    changed: list[tuple[float, SpiffeId]] = []
    async with running(ca) as certificates:
        certificates.on_change(lambda identity: changed.append((trio.current_time(), identity)))
        certificates.want(ALICE)
        first = await certificates.fetch(ALICE)
        await trio.sleep(DAY_SECONDS * 0.47)
        assert certificates.current(ALICE) is first
        await trio.sleep(DAY_SECONDS * 0.02)
        second = certificates.current(ALICE)
        assert second is not None
        assert (second.serial, second.key_pem) != (first.serial, first.key_pem)
        assert [identity for _, identity in changed] == [ALICE, ALICE]
        assert [at for at, _ in changed] == pytest.approx([0.0, DAY_SECONDS * 0.475], abs=1.0)
        await trio.sleep(7 * DAY_SECONDS)
        assert certificates.current(ALICE) is not None
        assert len(ca.asked) == pytest.approx(1 + 7.5 / 0.475, abs=1)


async def test_callers_do_not_wait_for_a_renewal(ca: Ca, autojump_clock: MockClock) -> None:
    async with running(ca) as certificates:
        certificates.want(ALICE)
        first = await certificates.fetch(ALICE)
        ca.gate = trio.Event()
        await trio.sleep(DAY_SECONDS * 0.475 + 1)
        assert ca.busy == 1
        with trio.fail_after(0.1):
            assert await certificates.fetch(ALICE) is first


async def test_a_certificate_whose_half_is_over_when_it_comes_is_not_renewed_in_a_loop(
    ca: Ca, autojump_clock: MockClock
) -> None:
    ca.leaf = Leaf(begin=NOW - timedelta(days=1), end=NOW + timedelta(hours=2)).named(ALICE)
    async with running(ca) as certificates:
        certificates.want(ALICE)
        await trio.sleep(HOUR_SECONDS - 1)
        assert len(ca.asked) == 1
        await trio.sleep(2)
        assert len(ca.asked) == 2


async def test_new_roots_come_with_the_next_certificate(ca: Ca, autojump_clock: MockClock) -> None:
    async with running(ca) as certificates:
        certificates.want(ALICE)
        old = await certificates.fetch(ALICE)
        ca.root = Authority.root("next")
        await trio.sleep(DAY_SECONDS * 0.5)
        new = certificates.current(ALICE)
        assert new is not None
        assert new.roots_pem == ca.root.pem
        assert new.bundles is not old.bundles


# --- failures ----------------------------------------------------------------------------


async def test_without_a_certificate_callers_get_the_cause_at_once(ca: Ca, autojump_clock: MockClock) -> None:
    ca.error = Unreachable("istiod.istio-system:15012 refused the connection")
    async with running(ca) as certificates:
        certificates.want(ALICE)
        refusal = await refusal_of(certificates, ALICE)
        assert str(refusal) == f"no certificate for {ALICE}: istiod.istio-system:15012 refused the connection"
        assert (refusal.side, refusal.__cause__) == (Side.US, ca.error)
        assert trio.current_time() == 0.0
        asked = len(ca.asked)
        assert await refusal_of(certificates, ALICE) is not refusal
        assert len(ca.asked) == asked


async def test_the_ca_is_asked_again_with_growing_patience(ca: Ca, autojump_clock: MockClock) -> None:
    ca.error = Unreachable("down")
    async with running(ca) as certificates:
        certificates.want(ALICE)
        await trio.sleep(600)
        times = [at for at, _ in ca.asked]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 150, 150], abs=0.01)
        assert certificates.failed_total == len(times)
        ca.error = None
        await trio.sleep(150)
        assert (await certificates.fetch(ALICE)).identity == ALICE
        assert certificates.expiring()[0].failures == 0
        assert certificates.fetched_total == 1


async def test_a_valid_certificate_is_kept_while_the_ca_is_down(ca: Ca, autojump_clock: MockClock) -> None:
    async with running(ca) as certificates:
        certificates.want(ALICE)
        first = await certificates.fetch(ALICE)
        ca.error = Unreachable("down")
        await trio.sleep(DAY_SECONDS * 0.8)
        assert certificates.current(ALICE) is first
        ca.error = None
        await trio.sleep(150)
        renewed = certificates.current(ALICE)
        assert renewed is not None
        assert renewed is not first


async def test_a_certificate_that_could_not_be_renewed_ends_with_its_life(
    ca: Ca, autojump_clock: MockClock
) -> None:
    async with running(ca) as certificates:
        certificates.want(ALICE)
        first = await certificates.fetch(ALICE)
        ca.error = Unreachable("down")
        await trio.sleep(DAY_SECONDS - 1)
        assert certificates.current(ALICE) is first
        await trio.sleep(2)
        assert certificates.current(ALICE) is None
        assert "down" in str(await refusal_of(certificates, ALICE))
        assert DAY_SECONDS in [at for at, _ in ca.asked]  # not later than at its expiry


ERRORS = {
    "a connection error": Unreachable("no route"),
    "a refusal": PeerError("permission denied"),
    "a root that has expired": ConfigError(Fault("root-cert.pem", 0, "", "the root expired")),
    "an operating system error": OSError(24, "Too many open files"),
    "a deadline of its own": trio.TooSlowError(),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
async def test_the_task_survives(ca: Ca, autojump_clock: MockClock, error: Exception) -> None:
    ca.error = error
    async with running(ca) as certificates:
        certificates.want(ALICE)
        await refusal_of(certificates, ALICE)
        ca.error = None
        await trio.sleep(1.1)
        assert certificates.current(ALICE)


async def test_a_ca_that_does_not_answer_is_given_up_after_15_seconds(
    ca: Ca, autojump_clock: MockClock
) -> None:
    ca.seconds = 3600.0
    async with running(ca) as certificates:
        certificates.want(ALICE)
        assert "did not answer within 15 s" in str(await refusal_of(certificates, ALICE))
        assert trio.current_time() == 15.0


HOUR = timedelta(hours=1)
WRONG = {
    "somebody else's": (Leaf().named(BOB), "did not present the expected SAN"),
    "an expired one": (Leaf(begin=NOW - 2 * HOUR, end=NOW - HOUR), "expired"),
    "one of tomorrow": (Leaf(begin=NOW + HOUR, end=NOW + 2 * HOUR), "not valid before"),
    "a CA's": (Leaf(ca=True), "is a CA's"),
    "one of another trust domain": (
        Leaf().named("spiffe://elsewhere.org/ns/default/sa/alice"),
        "expected trustdomain",
    ),
}


@pytest.mark.parametrize(("leaf", "message"), WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_certificate_is_not_taken(
    ca: Ca, autojump_clock: MockClock, leaf: Leaf, message: str
) -> None:
    ca.leaf = leaf
    async with running(ca) as certificates:
        certificates.want(ALICE)
        assert message in str(await refusal_of(certificates, ALICE))
        assert certificates.current(ALICE) is None


class KeySwapper(Ca):
    """Signs a key of its own."""

    def answer(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> list[str]:
        return super().answer(csr.create(identity).csr_pem, identity, ttl_seconds)


class Mute(Ca):
    """Answers with nothing."""

    def answer(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> list[str]:
        return []


@pytest.mark.parametrize(("kind", "message"), [(KeySwapper, "another key"), (Mute, "0 texts")])
async def test_a_wrong_answer_is_not_taken(
    root: Authority, autojump_clock: MockClock, kind: type[Ca], message: str
) -> None:
    async with running(kind(root)) as certificates:
        certificates.want(ALICE)
        assert message in str(await refusal_of(certificates, ALICE))


async def test_a_wrong_renewal_leaves_the_valid_certificate(ca: Ca, autojump_clock: MockClock) -> None:
    async with running(ca) as certificates:
        certificates.want(ALICE)
        first = await certificates.fetch(ALICE)
        ca.leaf = Leaf().named(BOB)
        await trio.sleep(DAY_SECONDS * 0.6)
        assert certificates.current(ALICE) is first
        assert "expected SAN" in certificates.expiring()[0].cause


# --- forgetting --------------------------------------------------------------------------


async def test_a_certificate_is_dropped_with_the_last_who_wanted_it(
    ca: Ca, autojump_clock: MockClock
) -> None:
    async with running(ca) as certificates:
        certificates.want(ALICE)
        certificates.want(ALICE)
        await wait_all_tasks_blocked()
        certificates.forget(ALICE)
        assert certificates.current(ALICE) is not None
        certificates.forget(ALICE)
        assert certificates.current(ALICE) is None
        await trio.sleep(2 * DAY_SECONDS)
        assert len(ca.asked) == 1


async def test_forgetting_ends_a_fetch_under_way(ca: Ca, autojump_clock: MockClock) -> None:
    ca.gate = trio.Event()
    async with running(ca) as certificates:
        certificates.want(ALICE)
        await wait_all_tasks_blocked()
        assert ca.busy == 1
        certificates.forget(ALICE)
        await wait_all_tasks_blocked()
        assert ca.busy == 0
        assert certificates.failed_total == 0


async def test_an_answer_that_comes_as_its_identity_is_forgotten_is_dropped(
    ca: Ca, autojump_clock: MockClock
) -> None:
    ca.gate = trio.Event()
    changed: list[SpiffeId] = []
    async with running(ca) as certificates:
        certificates.on_change(changed.append)
        certificates.want(ALICE)
        await wait_all_tasks_blocked()
        ca.gate.set()
        certificates.forget(ALICE)
        await wait_all_tasks_blocked()
        assert changed == []
        assert certificates.current(ALICE) is None


async def test_an_identity_wanted_again_at_once_is_fetched_again(ca: Ca, autojump_clock: MockClock) -> None:
    ca.gate = trio.Event()
    async with running(ca) as certificates:
        certificates.want(ALICE)
        await wait_all_tasks_blocked()
        certificates.forget(ALICE)
        certificates.want(ALICE)
        await wait_all_tasks_blocked()
        assert (len(ca.asked), ca.busy) == (2, 1)
        ca.gate.set()
        assert (await certificates.fetch(ALICE)).identity == ALICE


async def test_a_waiting_caller_still_gets_what_others_forget(ca: Ca, autojump_clock: MockClock) -> None:
    ca.seconds = 1.0
    async with running(ca) as certificates:
        certificates.want(ALICE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(certificates.fetch, ALICE)
            await wait_all_tasks_blocked()
            certificates.forget(ALICE)
        assert len(ca.asked) == 1
        assert certificates.current(ALICE) is None


# --- cancellation and clocks -------------------------------------------------------------


async def test_a_caller_that_is_cancelled_leaves_nothing(ca: Ca, autojump_clock: MockClock) -> None:
    ca.seconds = 5.0
    async with running(ca) as certificates:
        with trio.move_on_after(1) as patience:
            await certificates.fetch(ALICE)
        assert patience.cancelled_caught
        await wait_all_tasks_blocked()
        assert (certificates.expiring(), ca.busy) == ((), 0)


async def test_a_caller_cancelled_before_its_first_step_leaves_nothing(ca: Ca) -> None:
    certificates = Certificates(ca, wall, Middle())
    with trio.CancelScope() as scope:
        scope.cancel()
        await certificates.fetch(ALICE)
    assert certificates.expiring() == ()


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0, 1.5, DAY_SECONDS * 0.475, DAY_SECONDS * 0.475 + 0.5])
async def test_the_task_may_be_cancelled_at_any_point_and_run_again(
    ca: Ca, autojump_clock: MockClock, seconds: float
) -> None:
    ca.seconds = 1.0
    certificates = Certificates(ca, wall, Middle())
    certificates.want(ALICE)
    with trio.move_on_after(seconds):
        await certificates.run()
    assert ca.busy == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(certificates.run)
        assert (await certificates.fetch(ALICE)).identity == ALICE
        for number in range(9):  # no slot was lost
            certificates.want(numbered(number))
        await trio.sleep(2.5)
        assert all(certificates.current(numbered(number)) for number in range(9))
        nursery.cancel_scope.cancel()


async def test_a_wall_clock_that_is_set_forward_is_seen_within_half_a_minute(
    ca: Ca, autojump_clock: MockClock
) -> None:
    jump = timedelta()
    certificates = Certificates(ca, lambda: wall() + jump, Middle(), ttl_seconds=7200.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(certificates.run)
        certificates.want(ALICE)
        await certificates.fetch(ALICE)
        jump = timedelta(hours=1)
        ca.leaf = Leaf(begin=NOW, end=NOW + timedelta(days=1)).named(ALICE)
        await trio.sleep(31)
        assert len(ca.asked) == 2
        nursery.cancel_scope.cancel()


async def test_a_caller_after_a_clock_jump_past_expiry_waits_for_the_new_one(
    ca: Ca, autojump_clock: MockClock
) -> None:
    jump = timedelta()
    certificates = Certificates(ca, lambda: wall() + jump, Middle())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(certificates.run)
        certificates.want(ALICE)
        await certificates.fetch(ALICE)
        jump = timedelta(days=2)
        ca.leaf = Leaf(end=NOW + timedelta(days=9)).named(ALICE)
        assert certificates.current(ALICE) is None
        assert (await certificates.fetch(ALICE)).not_after == NOW + timedelta(days=9)
        assert trio.current_time() < 1
        nursery.cancel_scope.cancel()


# --- telemetry ---------------------------------------------------------------------------


async def test_how_each_identity_stands_is_told(ca: Ca, autojump_clock: MockClock) -> None:
    async with running(ca) as certificates:
        certificates.want(ALICE)
        await trio.sleep(HOUR_SECONDS)
        ca.error = PeerError("not authorized")
        certificates.want(BOB)
        await trio.sleep(2.5)
        alice, bob = certificates.expiring()
        assert (alice.identity, alice.failures, alice.cause) == (ALICE, 0, "")
        assert alice.seconds == pytest.approx(DAY_SECONDS - HOUR_SECONDS - 2.5, abs=0.01)
        assert (bob.seconds, bob.failures, bob.cause) == (None, 2, "not authorized")


async def test_a_failure_is_logged_with_its_cause(
    ca: Ca, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    ca.error = Unreachable("no route")
    async with running(ca) as certificates:
        certificates.want(ALICE)
        await wait_all_tasks_blocked()
    assert caplog.messages == [f"fetch 1 of a certificate for {ALICE} failed: no route"]
