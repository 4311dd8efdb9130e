"""Rules are made ready once, and keys that were there count until others come."""

from __future__ import annotations

from dataclasses import replace

from tests.l7.issuers import ISSUER, NOW, jwk, jwks, token
from ztunnel.l7.jwt.authentication import Authentication, Check, Outcome
from ztunnel.l7.jwt.authentications import Authentications
from ztunnel.l7.jwt.proofs import Proofs
from ztunnel.l7.jwt.token import Wrong
from ztunnel.l7.request import Request
from ztunnel.model.jwt import JwtPolicy, JwtRule

URL = "https://issuer.example/keys"
KEYS, OTHERS = jwks(jwk("ES256")), jwks(jwk("ES256", "k2"))
RULE = JwtRule(ISSUER, keys=KEYS, keys_url=URL)
POLICY = JwtPolicy("p", "shop", (RULE,))


def wrong(it: Authentication, kid: str = "k1") -> Wrong | None:
    asked = Request(b"GET", b"web", b"/", [(b"authorization", b"Bearer " + token(kid=kid))])
    known = Proofs()
    while isinstance(found := it.judge(asked, known, NOW), Check):
        known.check(*found)
    return found.wrong


def test_what_has_not_changed_is_the_very_same() -> None:
    it, policies = Authentications(), {"shop/p": POLICY, "shop/q": JwtPolicy("q", "shop")}
    both, one, none = it.of(policies, ("shop/p", "shop/q")), it.of(policies, ("shop/p",)), it.of(policies, ())
    changed = policies | {"shop/q": JwtPolicy("q", "shop", (RULE,))}
    assert it.of(changed, ("shop/p",)) is one
    assert it.of(changed, ()) is none
    assert it.of(changed, ("shop/p", "shop/q")) is not both
    assert len(it.of(changed, ("shop/p", "shop/q")).rules) == 2


def test_without_policies_everybody_passes_and_while_one_is_missing_nobody() -> None:
    it = Authentications()
    nobody = Request(b"GET", b"web", b"/", [])
    assert it.of({}, ()).judge(nobody, Proofs(), NOW) == Outcome()
    assert it.of({}, ("shop/p",)).judge(nobody, Proofs(), NOW) == Outcome(wrong=Wrong.NOT_RECEIVED)
    assert it.of({"shop/p": POLICY}, ("shop/p",)).judge(nobody, Proofs(), NOW) == Outcome()


def test_keys_that_were_there_count_until_others_come() -> None:
    it = Authentications()
    without = JwtPolicy("p", "shop", (replace(RULE, keys=""),))
    assert wrong(it.of({"shop/p": without}, ("shop/p",))) is Wrong.NO_KEYS
    assert wrong(it.of({"shop/p": POLICY}, ("shop/p",))) is None
    assert wrong(it.of({}, ("shop/p",))) is Wrong.NOT_RECEIVED
    assert wrong(it.of({"shop/p": without}, ("shop/p",))) is None
    renewed = JwtPolicy("p", "shop", (replace(RULE, keys=OTHERS),))
    assert wrong(it.of({"shop/p": renewed}, ("shop/p",))) is Wrong.NO_KEY
    assert wrong(it.of({"shop/p": renewed}, ("shop/p",)), "k2") is None


def test_keys_of_another_issuer_or_address_are_others() -> None:
    it = Authentications()
    assert wrong(it.of({"shop/p": POLICY}, ("shop/p",))) is None
    elsewhere = JwtPolicy("p", "shop", (replace(RULE, keys="", keys_url=URL + "2"),))
    assert wrong(it.of({"shop/p": elsewhere}, ("shop/p",))) is Wrong.NO_KEYS


def test_what_is_remembered_is_bounded() -> None:
    it = Authentications()
    assert wrong(it.of({"shop/p": POLICY}, ("shop/p",))) is None
    many = [replace(RULE, issuer=f"https://{n}.example", keys="{}") for n in range(1024)]
    it.of({"shop/p": JwtPolicy("p", "shop", tuple(many))}, ("shop/p",))
    without = JwtPolicy("p", "shop", (replace(RULE, keys=""),))
    assert wrong(it.of({"shop/p": without}, ("shop/p",))) is Wrong.NO_KEYS
