"""Step: one path is for those who have a token."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from ztunnel.demo.bookinfo.issuer import Issuer
from ztunnel.demo.bookinfo.place import NAMESPACE, PAGE, Bookinfo, read
from ztunnel.demo.bookinfo.visit import statuses
from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.manifest import Manifest, parse

_CALLS = 10
_POLICY = "security/products-by-token"
_PRODUCTS = "/api/v1/products"
_ISSUER = "https://issuer.bookinfo.example"
_LIFE_SECONDS = 600.0


def measure(place: Bookinfo, findings: Findings) -> None:
    """Note who is let in where."""
    issuer, stranger = Issuer(_ISSUER), Issuer(_ISSUER)
    until = datetime.now(UTC).timestamp() + _LIFE_SECONDS
    manifests = [*read(_POLICY), *_trusts(issuer)]
    place.change(manifests)
    try:
        cases = (
            ("the page without a token", PAGE, "", 200),
            ("products without a token", _PRODUCTS, "", 403),
            ("products with a token of the issuer", _PRODUCTS, issuer.token("jason", until), 200),
            ("products with a token that has expired", _PRODUCTS, issuer.token("jason", until - 7200), 401),
            (
                "products with a token that somebody else signed",
                _PRODUCTS,
                stranger.token("jason", until),
                401,
            ),
            ("the page with such a token", PAGE, stranger.token("jason", until), 401),
        )
        for what, path, token, status in cases:
            headers = [f"authorization:Bearer {token}"] if token else []
            seen = statuses(place.look(_CALLS, path=path, headers=headers))
            findings.note(f"{what}: {dict(seen)}", seen == {status: _CALLS})
    finally:
        place.change(manifests, delete=True)


def _trusts(issuer: Issuer) -> tuple[Manifest, ...]:
    """The product page knows its key."""
    rule = {"issuer": issuer.name, "jwks": issuer.jwks(), "forwardOriginalToken": True}
    body = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "issuer", "namespace": NAMESPACE},
        "spec": {
            "targetRefs": [{"kind": "Service", "group": "", "name": "productpage"}],
            "jwtRules": [rule],
        },
    }
    return parse(json.dumps(body), "<issuer>")


STEP = Claim(
    2,
    "One path is for who has a token, and nobody is let in by a wrong one",
    f"{_CALLS} calls of each kind; the key of the issuer is made up on the spot",
    measure,
)
