"""A thousand routes, a policy, and tokens: the same for our waypoint and for the Envoy.

The Envoy is set up as Istio does: it goes through routes in their order, and proves each token anew."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from ztunnel.demo.bookinfo.issuer import Issuer

ROUTES = 1000
ASKED = 900
"""The route that is asked for."""

_NAME = "https://issuer.bench.example"
_LIFE_SECONDS = 3600.0
_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"


def path(number: int) -> str:
    """What a route is for begins so."""
    return f"/r{number:04}/"


@dataclass(frozen=True, slots=True)
class Rules:
    """Of one run, whose tokens nobody else can make."""

    issuer: Issuer

    def header(self) -> str:
        """The field with a token, as load generators take it."""
        until = datetime.now(UTC).timestamp() + _LIFE_SECONDS
        return f"authorization: Bearer {self.issuer.token('bench', until)}"

    def manifests(self, namespace: str) -> str:
        """For ours: one VirtualService, who may call and how, and whose tokens count."""
        here = {"namespace": namespace}
        to = [{"destination": {"host": "server"}}]
        routes = [{"match": [{"uri": {"prefix": path(n)}}], "route": to} for n in range(ROUTES)]
        target = [{"kind": "Service", "group": "", "name": "server"}]
        source = {"principals": [f"cluster.local/ns/{namespace}/sa/client"], "requestPrincipals": ["*"]}
        allowed = {"from": [{"source": source}], "to": [{"operation": {"methods": ["GET", "POST"]}}]}
        objects = [
            (
                "networking.istio.io/v1",
                "VirtualService",
                {"hosts": ["server"], "http": [*routes, {"route": to}]},
            ),
            ("security.istio.io/v1", "AuthorizationPolicy", {"targetRefs": target, "rules": [allowed]}),
            (
                "security.istio.io/v1",
                "RequestAuthentication",
                {"targetRefs": target, "jwtRules": [{"issuer": _NAME, "jwks": self.issuer.jwks()}]},
            ),
        ]
        return "".join(
            json.dumps({"apiVersion": api, "kind": kind, "metadata": {"name": "rules", **here}, "spec": spec})
            + "\n---\n"
            for api, kind, spec in objects
        )

    def routes(self) -> str:
        """For the Envoy, as lines of its configuration."""
        to = {"cluster": "app1", "timeout": "0s"}
        return _lines(14, [{"match": {"prefix": path(n)}, "route": to} for n in range(ROUTES)])

    def filters(self) -> str:
        """For the Envoy: a token of the issuer is required, and GET and POST are allowed to whoever has one.
        Who calls has proved it to the listener before."""
        provider = {"issuer": _NAME, "local_jwks": {"inline_string": self.issuer.jwks()}}
        wants = {"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}
        methods = [
            {"header": {"name": ":method", "string_match": {"exact": method}}} for method in ("GET", "POST")
        ]
        policy = {"permissions": methods, "principals": [{"any": True}]}
        config: dict[str, dict[str, object]] = {
            "jwt_authn.v3.JwtAuthentication": {"providers": {"bench": provider}, "rules": [wants]},
            "rbac.v3.RBAC": {"rules": {"action": "ALLOW", "policies": {"bench": policy}}},
        }
        return _lines(
            10,
            [
                {"name": name.partition(".")[0], "typed_config": {"@type": f"{_FILTERS}.{name}", **said}}
                for name, said in config.items()
            ],
        )


def new_rules() -> Rules:
    """With a key of their own."""
    return Rules(Issuer(_NAME))


def _lines(indent: int, items: list[dict[str, object]]) -> str:
    return "".join(f"{' ' * indent}- {json.dumps(item)}\n" for item in items)
