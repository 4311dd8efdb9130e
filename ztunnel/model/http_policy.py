"""Authorization policies as a waypoint enforces them: rules OR, clauses AND, matches OR, terms AND.

`from`, `to` and each condition of `when` are clauses alike; an attribute has one name wherever it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from ztunnel.model.address import IPNetwork


class HttpAction(Enum):
    """What a policy does with what it matches (Istio's AuthorizationPolicy.Action)."""

    ALLOW = 0
    DENY = 1
    AUDIT = 2
    CUSTOM = 3


class Attribute(StrEnum):
    """What is looked at, by its key of `when`, or else by its field of an operation."""

    PRINCIPAL = "source.principal"
    NAMESPACE = "source.namespace"
    SERVICE_ACCOUNT = "source.serviceAccount"
    TRUST_DOMAIN = "source.trustDomain"
    SOURCE_IP = "source.ip"
    REMOTE_IP = "remote.ip"
    DESTINATION_IP = "destination.ip"
    DESTINATION_PORT = "destination.port"
    SNI = "connection.sni"
    REQUEST_PRINCIPAL = "request.auth.principal"
    AUDIENCES = "request.auth.audiences"
    PRESENTER = "request.auth.presenter"
    CLAIM = "request.auth.claims"
    HEADER = "request.headers"
    HOST = "hosts"
    METHOD = "methods"
    PATH = "paths"


CONNECTION_ATTRIBUTES = frozenset(
    (
        Attribute.PRINCIPAL,
        Attribute.NAMESPACE,
        Attribute.SERVICE_ACCOUNT,
        Attribute.TRUST_DOMAIN,
        Attribute.SOURCE_IP,
        Attribute.DESTINATION_IP,
        Attribute.DESTINATION_PORT,
        Attribute.SNI,
    )
)
"""Those that a connection has without HTTP. `remote.ip` is not among them: it is of X-Forwarded-For."""


class TextKind(Enum):
    """How a text is compared. WILDCARD: `*` stands for any characters wherever it is; TEMPLATE: `{*}` is one
    segment of a path, `{**}` any number of them; REGEX: an expression of RE2 matches the whole text."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    PRESENCE = "presence"
    WILDCARD = "wildcard"
    TEMPLATE = "template"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class TextMatch:
    """One comparison with a text; `text` is empty for PRESENCE."""

    kind: TextKind
    text: str = ""


Value = TextMatch | IPNetwork | int
"""What an attribute is compared with: a text, a range of addresses, a port."""


@dataclass(frozen=True, slots=True)
class Term:
    """One attribute: any of `values` has to match, where there are any, and none of `not_values` may.

    `argument` is the header's name in lower case, or the path to a claim.
    """

    attribute: Attribute
    values: tuple[Value, ...] = ()
    not_values: tuple[Value, ...] = ()
    argument: tuple[str, ...] = ()


HttpMatch = tuple[Term, ...]
HttpClause = tuple[HttpMatch, ...]
HttpRule = tuple[HttpClause, ...]


@dataclass(frozen=True, slots=True)
class HttpPolicy:
    """One policy. No rules match nothing; a rule without clauses, a clause without matches and a match
    without terms match everything. `provider` is who is to be asked, of CUSTOM."""

    name: str
    namespace: str
    action: HttpAction
    rules: tuple[HttpRule, ...] = ()
    dry_run: bool = False
    provider: str = ""

    @property
    def key(self) -> str:
        """`namespace/name`: how services name it."""
        return f"{self.namespace}/{self.name}"
