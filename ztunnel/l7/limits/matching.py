"""Which requests a limit is for, and what values they have."""

from __future__ import annotations

from collections.abc import Iterable

from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.policy.term import CompiledTerm
from ztunnel.model.connection import Connection
from ztunnel.model.http_policy import Attribute, HttpAction, Term
from ztunnel.model.rate_limit import LimitKey


class Terms:
    """Terms that all have to hold."""

    __slots__ = ("_of_connection", "_of_request")

    def __init__(self, terms: Iterable[Term]) -> None:
        # As of policies that refuse: nobody gets around a limit by a port that it writes behind the host.
        compiled = [CompiledTerm(term, HttpAction.DENY) for term in terms]
        self._of_connection = [term for term in compiled if term.of_connection]
        self._of_request = [term for term in compiled if not term.of_connection]

    def hold(self, asked: Attributes, connection: Connection) -> bool:
        """Whether they do, of this request of that connection."""
        for term in self._of_connection:
            if not term.holds_of_connection(connection, None):
                return False
        return all(term.holds_of_request(asked) for term in self._of_request)


def value_of(key: LimitKey, asked: Attributes, connection: Connection) -> str | None:
    """The value of a request; None: it has none."""
    attribute, identity = key.attribute, connection.identity
    if attribute is Attribute.HEADER:
        return asked.header(key.argument[0])
    if attribute is Attribute.CLAIM:
        return ",".join(asked.claim(key.argument)) or None
    if attribute is Attribute.SOURCE_IP:
        return str(connection.source.ip)
    if attribute is Attribute.METHOD:
        return asked.method
    if attribute is Attribute.PATH:
        return asked.path
    if attribute is Attribute.PRINCIPAL:
        return identity.principal if identity is not None else None
    if attribute is Attribute.NAMESPACE:
        return identity.namespace if identity is not None else None
    return None
