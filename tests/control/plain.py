"""Routes as plain values that a golden file can hold: of each thing what it says, and not what it leaves as
it is by default."""

from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from ztunnel.model.route_policy import ISTIO_RETRY, Retry
from ztunnel.model.service import ServiceName


def plain(value: Any) -> Any:
    """As YAML has it."""
    if isinstance(value, ServiceName | IPv4Network | IPv6Network):
        return str(value)
    if isinstance(value, Retry) and value == ISTIO_RETRY:
        return "istio"
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, frozenset):
        return sorted(map(plain, value))
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if not is_dataclass(value):
        return value
    said = {}
    for each in fields(value):
        one = getattr(value, each.name)
        if each.default is MISSING or one != each.default:
            said[each.name] = plain(one)
    return {"kind": type(value).__name__, **said} if type(value).__name__ in _UNION else said


_UNION = ("Forward", "Redirect", "DirectResponse")


def routes_as_plain(routes: Any) -> Any:
    """By service, with where each rule comes from as text; those for connections are marked so."""
    return {
        name: [_rule("rule", rule) for rule in found.rules]
        + [_rule("connections", rule) for rule in found.connections]
        for name, found in sorted(routes.items())
    }


def _rule(kind: str, rule: Any) -> Any:
    said = {key: one for key, one in plain(rule).items() if key not in ("name", "source")}
    return {kind: f"{rule.source}{f' ({rule.name})' if rule.name else ''}", **said}
