"""Whether policies let a request through, as Envoy's RBAC filters do that istiod sets up: CUSTOM, then DENY,
then ALLOW, rules in the order of their names. Where a CUSTOM rule matches, its provider is asked first, and
the others decide after that; where these name several providers, what they match is refused (istiod, unless
PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS).

It is worked out in two steps, so that a request costs little where there are thousands of rules. What a
connection alone decides (who calls, from where, to which port) is decided once for all of its kind, and only
the rules that are left are compared with each request. Rules that name their callers, or the segment that a
path begins with, are found by these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.policy.rule import CompiledRule, Decision, Rest, Tried, caller_keys, matched, segment_of
from ztunnel.model.connection import Connection
from ztunnel.model.http_policy import HttpAction, HttpPolicy

_REMEMBERED: Final = 512
"""Kinds of connections of which it is kept what they leave of the rules."""

_DESTINATIONS: Final = 4096
"""Sets of policies that are kept compiled; those of services that are gone are among them."""

ADMITTED: Final = Decision(True)
_NONE_ALLOWED: Final = Decision(False, details=matched("none"))
_ACTIONS: Final = (HttpAction.CUSTOM, HttpAction.DENY, HttpAction.ALLOW)


Compile = Callable[[HttpPolicy], list[CompiledRule]]


def compile_policy(policy: HttpPolicy) -> list[CompiledRule]:
    """Its rules, in order."""
    return [CompiledRule(policy, number) for number in range(len(policy.rules))]


class Authorizations:
    """What policies say about all destinations, kept for as long as these policies are the same: a change
    costs what has changed."""

    def __init__(self) -> None:
        self._policies: Mapping[str, HttpPolicy] = {}
        self._made: dict[tuple[str, ...], Authorization] = {}
        self._compiled: dict[str, tuple[HttpPolicy, list[CompiledRule]]] = {}

    def of(self, policies: Mapping[str, HttpPolicy], names: tuple[str, ...]) -> Authorization:
        """What the policies of these names say together; `policies` are all that there are now. The very same
        object as before where they are the same."""
        if policies is not self._policies:
            self._change(policies)
        made = self._made.get(names)
        if made is None:
            if len(self._made) >= _DESTINATIONS:
                self._made.clear()
            made = self._made[names] = Authorization(policies, names, self._compile)
        return made

    def _change(self, policies: Mapping[str, HttpPolicy]) -> None:
        before, self._policies = self._policies, policies
        self._made = {
            names: made
            for names, made in self._made.items()
            if all(policies.get(name) is before.get(name) is not None for name in names)
        }
        for key in [key for key, (policy, _) in self._compiled.items() if policies.get(key) is not policy]:
            del self._compiled[key]

    def _compile(self, policy: HttpPolicy) -> list[CompiledRule]:
        known = self._compiled.get(policy.key)
        if known is None:
            known = self._compiled[policy.key] = policy, compile_policy(policy)
        return known[1]


class Authorization:
    """What all policies say that concern one destination; compiled once for these policies.

    Args:
        policies: by key; those of `names` that are not there refuse everything.
        names: of the policies.
        compiled: gives a policy's rules.
    """

    def __init__(
        self,
        policies: Mapping[str, HttpPolicy],
        names: Iterable[str],
        compiled: Compile = compile_policy,
    ) -> None:
        found = [(name, policies.get(name)) for name in names]
        missing = next((name for name, policy in found if policy is None), "")
        known = [policy for _, policy in found if policy is not None]
        in_force = [one for one in known if not one.dry_run]
        self._lost = not_received(missing) if missing else None
        self._rules = {
            action: _Indexed(rule for one in in_force if one.action is action for rule in compiled(one))
            for action in _ACTIONS
        }
        providers = sorted({one.provider for one in in_force if one.action is HttpAction.CUSTOM})
        self._conflict = several_providers(providers) if len(providers) > 1 else ""
        self._has_allow = any(one.action is HttpAction.ALLOW for one in in_force)
        audits = [one for one in in_force if one.action is HttpAction.AUDIT]
        self._tried = [(one, _Indexed(compiled(one))) for one in known if one.dry_run]
        self._audits = [(one, _Indexed(compiled(one))) for one in audits]
        self._by_source = any(one.uses_source_ip for one in self._all())
        self._judges: dict[tuple[object, ...], Judge] = {}

    def _all(self) -> list[_Indexed]:
        return [*self._rules.values(), *(rules for _, rules in self._tried + self._audits)]

    def judge(self, connection: Connection, http: bool = True, sni: str | None = "") -> Judge:
        """Who decides about that connection, if it is no HTTP, and else about its requests. `sni` None: it
        may be TLS in which nobody has looked for a name."""
        source = connection.source.ip if self._by_source else None
        key = connection.identity, source, connection.destination, sni, http
        judge = self._judges.get(key)
        if judge is None:
            if len(self._judges) >= _REMEMBERED:
                self._judges.clear()
            judge = self._judges[key] = self._make(connection, http, sni)
        return judge

    def _make(self, connection: Connection, http: bool, sni: str | None) -> Judge:
        def left(rules: _Indexed) -> _Left:
            return _Left(rules.left(connection, sni, http))

        custom, denying, allowing = (left(self._rules[action]) for action in _ACTIONS)
        tried = [(policy, left(rules)) for policy, rules in self._tried]
        audits = [(policy, left(rules)) for policy, rules in self._audits]
        asking = custom, self._conflict
        allowed = allowing if self._has_allow else None
        return Judge(self._lost, asking, (denying, allowed), (tried, audits))


def several_providers(names: Iterable[str]) -> str:
    """Why nobody is asked."""
    return f"CUSTOM policies name several providers, and one is asked: {', '.join(names)}"


def not_received(name: str) -> Decision:
    """Of a policy that is to count, and is not known: nobody is let through until it is."""
    return Decision(
        False, name, details=f"policy_not_enforced[{name}]", reason=f"{name} has not been received (yet)"
    )


_Watched = list[tuple[HttpPolicy, "_Left"]]


class Judge:
    """Decides for connections of one kind."""

    def __init__(
        self,
        lost: Decision | None,
        asking: tuple[_Left, str],
        deciding: tuple[_Left, _Left | None],
        watched: tuple[_Watched, _Watched],
    ) -> None:
        """Made by `Authorization`. `asking` are CUSTOM's rules, and why nobody can be asked; `deciding` those
        of DENY and of ALLOW, None where there are no policies of this; `watched` are those under trial, and
        AUDIT's."""
        self._lost = lost
        self._asking, self._conflict = asking
        self._denying, self._allowing = deciding
        self._tried, self._audits = watched

    def decide(self, asked: Attributes | None, *, permitted: bool = False) -> Decision:
        """About a request; None: about the connection, which is no HTTP. `permitted`: whoever is to be asked
        before has let it through. Otherwise a decision with a `provider` says that that is to be asked."""
        if self._lost is not None:
            return self._lost
        custom = None if permitted else self._asking.first(asked)
        if custom is not None:
            if self._conflict:
                return replace(custom.decision, reason=self._conflict, provider="")
            return custom.decision
        denying = self._denying.first(asked)
        if denying is not None:
            return denying.decision
        by = ADMITTED
        if self._allowing is not None:
            allowing = self._allowing.first(asked)
            if allowing is None:
                return _NONE_ALLOWED
            by = allowing.decision
        if not self._tried and not self._audits:
            return by
        return self._noted(by, asked)

    def _noted(self, by: Decision, asked: Attributes | None) -> Decision:
        """An admission, with what was only to be told."""
        found = [(policy, rules.first(asked)) for policy, rules in self._tried]
        allowed = bool(by.policy) or any(
            policy.action is HttpAction.ALLOW and rule is not None for policy, rule in found
        )
        tried = [
            Tried(
                policy.key,
                not allowed if policy.action is HttpAction.ALLOW else rule is not None,
                policy.action,
                rule.name if rule is not None else "",
            )
            for policy, rule in found
            if policy.action is not HttpAction.AUDIT
        ]
        audited = [policy.key for policy, rules in self._audits if rules.first(asked) is not None]
        return replace(by, tried=tuple(tried), audited=tuple(audited)) if tried or audited else by


class _Indexed:
    """Rules in the order of their names, found by the callers that they name."""

    def __init__(self, found: Iterable[CompiledRule]) -> None:
        rules = sorted(found, key=_name)
        self.uses_source_ip = any(rule.uses_source_ip for rule in rules)
        self._of_anybody: list[tuple[int, CompiledRule]] = []
        self._of_caller: dict[str, list[tuple[int, CompiledRule]]] = {}
        for number, rule in enumerate(rules):
            if rule.callers is None:
                self._of_anybody.append((number, rule))
            else:
                for caller in rule.callers:
                    self._of_caller.setdefault(caller, []).append((number, rule))

    def left(self, connection: Connection, sni: str | None, http: bool) -> list[Rest]:
        """What that connection leaves of them, in order."""
        found = dict(self._of_anybody)
        for caller in caller_keys(connection):
            found.update(self._of_caller.get(caller, ()))
        rests = (found[number].rest(connection, sni, http) for number in sorted(found))
        return [rest for rest in rests if rest is not None]


def _name(rule: CompiledRule) -> str:
    return rule.name


class _Left:
    """Rules that one kind of connection leaves, found by the segment that a path begins with."""

    def __init__(self, rests: Iterable[Rest]) -> None:
        self._anywhere: list[tuple[int, Rest]] = []
        self._below: dict[str, list[tuple[int, Rest]]] = {}
        for number, rest in enumerate(rests):
            if rest.segments is None:
                self._anywhere.append((number, rest))
            else:
                for segment in rest.segments:
                    self._below.setdefault(segment, []).append((number, rest))

    def first(self, asked: Attributes | None) -> CompiledRule | None:
        """The first that matches."""
        before, found = -1, None
        if self._below and asked is not None:
            for number, rest in self._below.get(segment_of(asked.path), ()):
                if rest.match(asked):
                    before, found = number, rest.rule
                    break
        for number, rest in self._anywhere:
            if found is not None and number > before:
                break
            if rest.match(asked):
                return rest.rule
        return found
