"""The rules about tokens of all destinations, made ready once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ztunnel.l7.jwt.authentication import Authentication, Rule
from ztunnel.model.jwt import JwtPolicy, JwtRule

_REMEMBERED: Final = 1024

_Source = tuple[str, str]


class Authentications:
    """Kept for as long as policies are the same: a change costs what has changed.

    A control plane that has just been started may not have an issuer's keys yet: those that it had before
    count on.
    """

    def __init__(self) -> None:
        self._policies: Mapping[str, JwtPolicy] = {}
        self._made: dict[tuple[str, ...], Authentication] = {}
        self._rules: dict[str, tuple[JwtPolicy, list[Rule]]] = {}
        self._keys: dict[_Source, str] = {}

    def of(self, policies: Mapping[str, JwtPolicy], names: tuple[str, ...]) -> Authentication:
        """The rules of the policies of these names; `policies` are all that there are now. The very same
        object as before where they are the same. While one is not there, no request passes."""
        if policies is not self._policies:
            self._change(policies)
        made = self._made.get(names)
        if made is None:
            found = [(name, policies.get(name)) for name in names]
            missing = any(policy is None for _, policy in found)
            rules = [rule for _, policy in found if policy is not None for rule in self._rules_of(policy)]
            made = self._made[names] = Authentication(rules, missing=missing)
        return made

    def _change(self, policies: Mapping[str, JwtPolicy]) -> None:
        before, self._policies = self._policies, policies
        self._made = {
            names: made
            for names, made in self._made.items()
            if all(policies.get(name) is before.get(name) for name in names)
        }
        for key in [key for key, (policy, _) in self._rules.items() if policies.get(key) is not policy]:
            del self._rules[key]

    def _rules_of(self, policy: JwtPolicy) -> list[Rule]:
        known = self._rules.get(policy.key)
        if known is None:
            made = [Rule(self._keyed(rule), policy.key) for rule in policy.rules]
            known = self._rules[policy.key] = policy, made
        return known[1]

    def _keyed(self, rule: JwtRule) -> JwtRule:
        source = rule.issuer, rule.keys_url
        if not rule.keys:
            return replace(rule, keys=self._keys.get(source, ""))
        self._keys.pop(source, None)
        self._keys[source] = rule.keys
        if len(self._keys) > _REMEMBERED:
            del self._keys[next(iter(self._keys))]
        return rule
