"""Terms of policies, compiled: whether one holds of a connection, and of a request."""

from __future__ import annotations

from typing import Final

from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.policy.texts import Blocks, Principals, Texts
from ztunnel.model.address import IPAddress
from ztunnel.model.connection import Connection
from ztunnel.model.http_policy import CONNECTION_ATTRIBUTES, Attribute, HttpAction, Term, Value

_TEXTS_OF_IDENTITY: Final = frozenset(
    (Attribute.PRINCIPAL, Attribute.NAMESPACE, Attribute.SERVICE_ACCOUNT, Attribute.TRUST_DOMAIN)
)
_ADDRESSES: Final = frozenset((Attribute.SOURCE_IP, Attribute.REMOTE_IP, Attribute.DESTINATION_IP))
_NO_PORTS: Final[frozenset[int]] = frozenset()
_LISTS: Final = {Attribute.AUDIENCES: ("aud",), Attribute.PRESENTER: ("azp",)}


class CompiledTerm:
    """One term.

    Attributes:
        of_connection: whether a connection alone decides it.
        values: the comparisons of which one has to hold, where they are with texts; for whoever sorts rules.
    """

    __slots__ = (
        "_blocks",
        "_lenient",
        "_not_blocks",
        "_not_ports",
        "_not_principals",
        "_not_values",
        "_ports",
        "_principals",
        "argument",
        "attribute",
        "of_connection",
        "values",
    )

    def __init__(self, term: Term, action: HttpAction) -> None:
        attribute = self.attribute = term.attribute
        self.argument = _LISTS.get(attribute, term.argument)
        self.of_connection = attribute in CONNECTION_ATTRIBUTES
        self._lenient = action is not HttpAction.ALLOW
        self.values: Texts | None = None
        self._not_values: Texts | None = None
        self._blocks: Blocks | None = None
        self._not_blocks: Blocks | None = None
        self._principals: Principals | None = None
        self._not_principals: Principals | None = None
        self._ports = self._not_ports = _NO_PORTS
        values, others = term.values, term.not_values
        if attribute is Attribute.DESTINATION_PORT:
            self._ports, self._not_ports = _ports(values), _ports(others)
        elif attribute in _ADDRESSES:
            self._blocks = Blocks(values) if values else None
            self._not_blocks = Blocks(others) if others else None
        elif attribute is Attribute.REQUEST_PRINCIPAL:
            self._principals = Principals(values) if values else None
            self._not_principals = Principals(others) if others else None
        else:
            fold = attribute is Attribute.HOST
            self.values = Texts(values, fold) if values else None
            self._not_values = Texts(others, fold) if others else None

    def holds_of_connection(self, connection: Connection, sni: str | None) -> bool:
        """Whether it holds; it is `of_connection`. `sni` None: there may be one, that nobody has read; then
        it is what lets nothing through."""
        attribute = self.attribute
        if attribute in _TEXTS_OF_IDENTITY:
            return self._text(_of_identity(attribute, connection))
        if attribute is Attribute.SOURCE_IP:
            return self._ip(connection.source.ip)
        if attribute is Attribute.DESTINATION_IP:
            return self._ip(connection.destination.ip)
        if attribute is Attribute.DESTINATION_PORT:
            port = connection.destination.port
            return (not self._ports or port in self._ports) and port not in self._not_ports
        return self._text(sni) if sni is not None else self._lenient

    def holds_of_request(self, asked: Attributes) -> bool:
        """Whether it holds; it is not `of_connection`."""
        attribute = self.attribute
        if attribute is Attribute.PATH:
            return self._text(asked.path)
        if attribute is Attribute.METHOD:
            return self._text(asked.method)
        if attribute is Attribute.HOST:
            return self._host(asked.host)
        if attribute is Attribute.HEADER:
            return self._header(asked.header(self.argument[0]))
        if attribute is Attribute.REMOTE_IP:
            return self._ip(asked.remote_ip)
        if attribute is Attribute.REQUEST_PRINCIPAL:
            return self._principal(asked.issuer, asked.subject)
        return self._claim(asked.claim(self.argument))

    def _text(self, text: str) -> bool:
        values, others = self.values, self._not_values
        return (values is None or values.match(text)) and (others is None or not others.match(text))

    def _host(self, host: str) -> bool:
        """Where a match refuses, `web:8080` and `web.` are `web` as well: a client does not get around a
        policy by a port that it writes behind the name. Where a match lets through, it is what is written
        (istiod's HostMatcher)."""
        values, others = self.values, self._not_values
        bare = host.rpartition(":")[0] if _has_port(host) else host
        bare = bare.removesuffix(".")
        if values is not None and not (values.match(host) or (self._lenient and values.match(bare))):
            return False
        return others is None or not (others.match(host) or (not self._lenient and others.match(bare)))

    def _header(self, value: str | None) -> bool:
        """A header that is not there meets no comparison; one that is empty is there."""
        values, others = self.values, self._not_values
        if value is None:
            return values is None
        if values is not None and not (values.present or values.match(value)):
            return False
        return others is None or not (others.present or others.match(value))

    def _ip(self, ip: IPAddress) -> bool:
        values, others = self._blocks, self._not_blocks
        return (values is None or values.match(ip)) and (others is None or not others.match(ip))

    def _principal(self, issuer: str, subject: str) -> bool:
        values, others = self._principals, self._not_principals
        if values is not None and not values.match(issuer, subject):
            return False
        return others is None or not others.match(issuer, subject)

    def _claim(self, texts: list[str]) -> bool:
        values, others = self.values, self._not_values
        if values is not None and not any(values.match(each) for each in texts):
            return False
        return others is None or not any(others.match(each) for each in texts)


def _of_identity(attribute: Attribute, connection: Connection) -> str:
    """Empty where nobody was proved: that meets no positive comparison."""
    identity = connection.identity
    if identity is None:
        return ""
    if attribute is Attribute.PRINCIPAL:
        return identity.principal
    if attribute is Attribute.NAMESPACE:
        return identity.namespace
    if attribute is Attribute.TRUST_DOMAIN:
        return identity.trust_domain
    return f"{identity.namespace}/{identity.service_account}"


def _ports(values: tuple[Value, ...]) -> frozenset[int]:
    return frozenset(value for value in values if isinstance(value, int))


def _has_port(host: str) -> bool:
    """Whether there is one behind the name; an address in brackets has colons of its own."""
    colon = host.rfind(":")
    return colon > 0 and host[colon + 1 :].isdigit() and host.find("]", colon) < 0
