"""RequestAuthentications: whose waypoint hears of them, and with which keys."""

from __future__ import annotations

import json

import pytest

from tests.control.policies.test_guard import ALL, policy
from tests.control.policies.written import Written
from tests.l7.issuers import jwk, jwks
from ztunnel.control.keys.key_source import KeySource
from ztunnel.control.settings import MeshSettings
from ztunnel.control.translation import Translator
from ztunnel.model.jwt import JwtPolicy
from ztunnel.xds.resource import JWT_POLICY

KEYS = jwks(jwk("ES256"))
TOLD = KeySource("https://issuer.example/keys")
FOUND = KeySource("https://found.example/.well-known/openid-configuration", discovers=True)


def authentication(targets: str, rules: str = "", namespace: str = "shop", name: str = "p") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {{targetRefs: [{targets}], jwtRules: [{rules}]}}\n---\n"
    )


WEB = "{kind: Service, name: web}"
BY_URL = "{issuer: 'https://issuer.example', jwksUri: 'https://issuer.example/keys', timeout: %s}"
BY_ISSUER = "{issuer: 'https://found.example'}"


class Mesh(Written):
    """The same with keys that somebody fetches."""

    def __init__(self) -> None:
        self.keys: dict[KeySource, str] = {}
        super().__init__(Translator(MeshSettings(), lambda source: self.keys.get(source, "")))

    def write(self, text: str) -> set[str]:
        """The manifests are these now; the names of the policies that are others then."""
        return set(self.change(text).http.get(JWT_POLICY, {}))

    def sent(self, name: str = "shop/p") -> JwtPolicy:
        found = self.translator.http.in_force[JWT_POLICY][name]
        assert isinstance(found, JwtPolicy)
        return found

    def named(self) -> set[str]:
        """The services whose waypoint is told of the policy."""
        return self.told_of("jwt_policies", "shop/p")


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        (WEB, {"web"}),
        (f"{WEB}, {{kind: Service, name: other}}", {"web", "other"}),
        ("{kind: ServiceEntry, name: out}", {"out"}),
        ("{kind: Gateway, name: wp}", {"wp", "door"}),
        ("{kind: Gateway, name: other}", set()),
        ("{kind: Service, name: nowhere}", set()),
        ("{kind: GatewayClass, name: ztunnel-waypoint}", set()),
    ],
)
def test_the_waypoint_of_what_is_targeted_is_told(targets: str, named: set[str]) -> None:
    mesh = Mesh()
    mesh.write(ALL + authentication(targets))
    assert mesh.named() == named
    mesh.write(ALL)
    assert mesh.named() == set()
    assert mesh.translator.http.in_force[JWT_POLICY] == {}


def test_policies_of_both_kinds_are_kept_apart() -> None:
    mesh = Mesh()
    mesh.write(ALL + authentication(WEB) + policy(WEB))
    (web,) = [one for one in mesh.translator.addresses.values() if getattr(one, "jwt_policies", ())]
    assert web.guards == web.jwt_policies == ("shop/p",)  # type: ignore[union-attr]


def test_keys_that_stand_in_it_are_nobodys_to_fetch() -> None:
    mesh = Mesh()
    mesh.write(ALL + authentication(WEB, "{issuer: i, jwks: '%s'}" % KEYS))  # noqa: UP031 (of braces)
    assert mesh.translator.jwt_policies.sources == {}
    assert json.loads(mesh.sent().rules[0].keys) == json.loads(KEYS)


def test_keys_are_wanted_where_they_are_told_to_be_and_at_the_issuer() -> None:
    mesh = Mesh()
    others = authentication(WEB, f"{BY_URL % '9s'}, {BY_ISSUER}", name="q")
    mesh.write(ALL + authentication(WEB, BY_URL % "2s") + others)
    assert mesh.translator.jwt_policies.sources == {TOLD: 9.0, FOUND: 5.0}
    mesh.write(ALL + authentication(WEB, BY_URL % "2s"))
    assert mesh.translator.jwt_policies.sources == {TOLD: 2.0}
    mesh.write(ALL)
    assert mesh.translator.jwt_policies.sources == {}


def test_of_what_is_named_it_is_known_where_its_keys_are() -> None:
    mesh = Mesh()
    both = authentication(WEB, f"{BY_URL % '9s'}, {BY_ISSUER}", name="q")
    mesh.write(ALL + authentication(WEB, BY_URL % "2s") + both)
    policies = mesh.translator.jwt_policies
    assert policies.sources_of(["shop/p", "shop/nowhere", "p"]) == {TOLD}
    assert policies.sources_of(["shop/q"]) == {TOLD, FOUND}
    assert policies.sources_of([]) == set()


def test_without_targets_it_is_for_nobody_and_fetches_nothing() -> None:
    """Who may write one could have us ask anybody."""
    mesh = Mesh()
    text = authentication("", BY_URL % "1s").replace("targetRefs: [], ", "")
    assert mesh.write(ALL + text) == set()
    assert mesh.translator.jwt_policies.sources == {}
    assert "RequestAuthentication shop/p: without targetRefs it does nothing" in "".join(
        mesh.translator.warnings()
    )


def test_other_keys_are_told_to_those_that_use_them_and_to_nobody_else() -> None:
    mesh = Mesh()
    rules = f"{BY_URL % '1s'}, {BY_ISSUER}"
    mesh.write(ALL + authentication(WEB, rules) + authentication(WEB, BY_ISSUER, name="q"))
    assert [rule.keys for rule in mesh.sent().rules] == ["", ""]
    mesh.keys[TOLD] = KEYS
    assert set(mesh.translator.jwt_policies.renew([TOLD]).http[JWT_POLICY]) == {"shop/p"}
    assert [rule.keys for rule in mesh.sent().rules] == [KEYS, ""]
    assert mesh.translator.jwt_policies.renew([TOLD]).http == {}
    mesh.keys[FOUND] = KEYS
    assert set(mesh.translator.jwt_policies.renew([FOUND]).http[JWT_POLICY]) == {"shop/p", "shop/q"}
    assert mesh.translator.jwt_policies.renew([KeySource("https://nobody.example/")]).http == {}


def test_what_is_written_anew_has_the_keys_that_are_there() -> None:
    mesh = Mesh()
    mesh.keys[TOLD] = KEYS
    mesh.write(ALL + authentication(WEB, BY_URL % "1s"))
    assert mesh.sent().rules[0].keys == KEYS
    mesh.write(ALL + authentication(WEB, (BY_URL % "1s").replace("issuer.example'", "else.example'", 1)))
    assert (mesh.sent().rules[0].issuer, mesh.sent().rules[0].keys) == ("https://else.example", KEYS)
