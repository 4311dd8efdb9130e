"""Rules of policies, compiled, and what a connection leaves of them for its requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.policy.term import CompiledTerm
from ztunnel.model.connection import Connection
from ztunnel.model.http_policy import Attribute, HttpAction, HttpPolicy, HttpRule

_CALLERS: Final = (Attribute.PRINCIPAL, Attribute.NAMESPACE, Attribute.SERVICE_ACCOUNT)

Match = list[CompiledTerm]
Clause = list[Match]


@dataclass(frozen=True, slots=True)
class Tried:
    """What a policy under trial (`istio.io/dry-run`) would do. `policy` is its key; `refuses`: were it in
    force, the request would be refused; `action` is its own, `rule` the name of the one that matches, empty
    for none."""

    policy: str
    refuses: bool
    action: HttpAction
    rule: str = ""

    @property
    def why(self) -> str:
        """The rule that matches, as the details of a refusal name it."""
        return matched(self.rule or "none")


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and by whom.

    Attributes:
        allowed: whether it is let through.
        policy: the key of the policy that decided; empty where none did.
        rule: its number in that policy, from 0; -1 where no rule did.
        details: Envoy's response code details of a refusal; empty where it is let through.
        reason: beyond that, in words, for the log.
        tried: what policies under trial would do.
        audited: the keys of AUDIT policies that match.
        provider: who is to be asked first, of CUSTOM; then it is decided by the others.
    """

    allowed: bool
    policy: str = ""
    rule: int = -1
    details: str = ""
    reason: str = ""
    tried: tuple[Tried, ...] = ()
    audited: tuple[str, ...] = ()
    provider: str = ""


def matched(name: str) -> str:
    """Envoy's response code details of what a rule of that name refuses."""
    return f"rbac_access_denied_matched_policy[{name}]"


class CompiledRule:
    """One rule.

    Attributes:
        name: as istiod calls it, by which rules are ordered.
        has_http: whether anything of it needs a request.
        uses_source_ip: whether connections of one caller may differ by their address.
        decision: what follows where it matches; what it admits by is in `details`, too.
        callers: who can be meant at all, by principal, namespace or account; None: that cannot be said.
    """

    __slots__ = ("_whole", "action", "callers", "clauses", "decision", "has_http", "name", "uses_source_ip")

    def __init__(self, policy: HttpPolicy, number: int) -> None:
        self.action = policy.action
        self.name = f"ns[{policy.namespace}]-policy[{policy.name}]-rule[{number}]"
        self.clauses = _compile(policy.rules[number], policy.action)
        terms = [term for clause in self.clauses for match in clause for term in match]
        self.has_http = any(not term.of_connection for term in terms)
        self.uses_source_ip = any(term.attribute is Attribute.SOURCE_IP for term in terms)
        self.decision = _decision(policy, number, self.name)
        self.callers = _callers(self.clauses)
        only_http = not any(term.of_connection for term in terms)
        self._whole = Rest(self, [clause for clause in self.clauses if clause]) if only_http else None

    def rest(self, connection: Connection, sni: str | None, http: bool) -> Rest | None:
        """What is left to be decided by requests; None: none of the connection matches.

        Without HTTP an ALLOW rule that needs it does not match, and what needs it counts as met in any other
        (istiod's generator.go, forTCP)."""
        if not http and self.has_http and self.action is HttpAction.ALLOW:
            return None
        if http and self._whole is not None:
            return self._whole
        clauses: list[Clause] = []
        for clause in self.clauses:
            left = _left(clause, connection, sni, http)
            if left is None:
                return None
            if left:
                clauses.append(left)
        return Rest(self, clauses)


class Rest:
    """What is left of a rule for the requests of one connection.

    Attributes:
        segments: the first segments of all paths that can match; None: that cannot be said.
    """

    __slots__ = ("_clauses", "rule", "segments")

    def __init__(self, rule: CompiledRule, clauses: list[Clause]) -> None:
        self.rule = rule
        self._clauses = clauses
        self.segments = _segments(clauses)

    def match(self, asked: Attributes | None) -> bool:
        """Whether the rule matches; without a request, by what a connection has."""
        if asked is None:
            return not self._clauses
        return all(_any_match(clause, asked) for clause in self._clauses)


def segment_of(path: str) -> str:
    """The first segment of a path."""
    end = path.find("/", 1)
    return path[1:] if end < 0 else path[1:end]


def caller_keys(connection: Connection) -> tuple[str, ...]:
    """What `callers` may call the client of a connection."""
    identity = connection.identity
    if identity is None:
        return ()
    account = f"{identity.namespace}/{identity.service_account}"
    return (
        f"{Attribute.PRINCIPAL.value} {identity.principal}",
        f"{Attribute.NAMESPACE.value} {identity.namespace}",
        f"{Attribute.SERVICE_ACCOUNT.value} {account}",
    )


def _compile(rule: HttpRule, action: HttpAction) -> list[Clause]:
    return [[[CompiledTerm(term, action) for term in match] for match in clause] for clause in rule]


def _decision(policy: HttpPolicy, number: int, name: str) -> Decision:
    if policy.action in (HttpAction.ALLOW, HttpAction.AUDIT):
        return Decision(True, policy.key, number, matched(name))
    return Decision(False, policy.key, number, matched(name), provider=policy.provider)


def _callers(clauses: list[Clause]) -> set[str] | None:
    for clause in clauses:
        found: set[str] = set()
        if clause and all(_named(match, found) for match in clause):
            return found
    return None


def _segments(clauses: list[Clause]) -> set[str] | None:
    for clause in clauses:
        found: set[str] = set()
        if all(_begins(match, found) for match in clause):
            return found
    return None


def _named(match: Match, found: set[str]) -> bool:
    """Add the callers that the match names; whether it names any."""
    for term in match:
        values = term.values
        if term.attribute in _CALLERS and values is not None and values.only_exact:
            found.update(f"{term.attribute.value} {text}" for text in values.exact)
            return True
    return False


def _begins(match: Match, found: set[str]) -> bool:
    """Add the segments that paths of the match begin with; whether that can be said."""
    for term in match:
        values = term.values
        if term.attribute is Attribute.PATH and values is not None and values.anchored:
            if any(text[:1] != "/" or text.find("/", 1) < 0 for text in values.prefixes):
                continue
            found.update(map(segment_of, values.exact))
            found.update(map(segment_of, values.prefixes))
            return True
    return False


def _left(clause: Clause, connection: Connection, sni: str | None, http: bool) -> Clause | None:
    """The matches that may still hold, each with what of it needs a request; empty: one holds in any case;
    None: none can."""
    left: Clause = []
    for match in clause:
        rest: Match = []
        for term in match:
            if not term.of_connection:
                rest.append(term)
            elif not term.holds_of_connection(connection, sni):
                break
        else:
            if not rest or not http:
                return []
            left.append(rest)
    return left if left or not clause else None


def _any_match(clause: Clause, asked: Attributes) -> bool:
    for match in clause:
        for term in match:
            if not term.holds_of_request(asked):
                break
        else:
            return True
    return False
