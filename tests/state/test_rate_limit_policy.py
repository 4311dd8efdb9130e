"""RateLimitPolicy is read strictly: every wrong thing is found, at its field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ztunnel.model.http_policy import Attribute
from ztunnel.model.rate_limit import Descriptor, Entry, GlobalLimit, Limit, LimitKey, LocalRule
from ztunnel.state.manifest import Notes, compose
from ztunnel.state.rate_limit_policy import read_rate_limit_policy

TARGET = {"kind": "Service", "name": "web", "group": ""}
ONE = {"requests": 1, "unit": "Second"}


def read(spec: Any) -> tuple[Any, list[tuple[str, str]]]:
    notes = Notes()
    text = json.dumps({"metadata": {"name": "a", "namespace": "n"}, "spec": spec})
    found = read_rate_limit_policy(compose(text, notes))
    return found, [(fault.field, fault.message) for fault in notes.faults]


def limited(**limit: Any) -> dict[str, Any]:
    return {"targetRefs": [TARGET], "local": {"rules": [{"limit": limit}]}}


def asked(**more: Any) -> dict[str, Any]:
    service = {"host": "rls.shop.svc.cluster.local", "port": 8081, "domain": "shop"}
    entries = [{"entries": [{"value": "web"}]}]
    return {"targetRefs": [TARGET], "global": service | {"descriptors": entries} | more}


def test_everything_is_read() -> None:
    found, faults = read(
        {
            "targetRefs": [TARGET, {"kind": "HTTPRoute", "name": "r", "group": "gateway.networking.k8s.io"}],
            "xRateLimitHeaders": "DraftVersion03",
            "rateLimitedAsResourceExhausted": True,
            "local": {
                "rules": [
                    {"limit": {"requests": 10, "unit": "Minute", "burst": 5}},
                    {
                        "name": "per user",
                        "shared": True,
                        "clientSelectors": [{"headers": [{"name": "X-User", "type": "Distinct"}]}],
                        "limit": {"requests": 3, "fillInterval": "1m30s"},
                    },
                ]
            },
            "global": {
                "host": "rls.shop.svc.cluster.local",
                "port": 8081,
                "domain": "shop",
                "timeout": "100ms",
                "failureModeDeny": True,
                "hitsAddend": 2,
                "descriptors": [
                    {
                        "clientSelectors": [{"methods": [{"value": "POST"}]}],
                        "entries": [
                            {"value": "slow"},
                            {"key": "k", "type": "Generic", "value": "v"},
                            {"type": "Header", "header": "X-User"},
                            {"type": "Header", "header": "X-User", "key": "user"},
                            {"type": "RemoteAddress"},
                            {"type": "Claim", "claim": "realm.role", "key": "role"},
                            {"type": "Path", "key": "PATH"},
                            {"type": "Method"},
                            {"type": "Principal"},
                            {"type": "Namespace"},
                        ],
                    }
                ],
            },
        }
    )
    assert faults == []
    assert (found.meta.name, found.targets) == ("a", ("Service web", "HTTPRoute r"))
    assert (found.tells, found.exhausted) == (True, True)
    user = LimitKey(Attribute.HEADER, ("x-user",))
    assert found.rules == (
        LocalRule("rule 0", Limit(10, 60.0, 5)),
        LocalRule("per user", Limit(3, 90.0), (), (user,), True),
    )
    (descriptor,) = found.service.descriptors
    assert descriptor.entries == (
        Entry("generic_key", "slow"),
        Entry("k", "v"),
        Entry("x-user", "", user),
        Entry("user", "", user),
        Entry("remote_address", "", LimitKey(Attribute.SOURCE_IP)),
        Entry("role", "", LimitKey(Attribute.CLAIM, ("realm", "role"))),
        Entry("PATH", "", LimitKey(Attribute.PATH)),
        Entry("method", "", LimitKey(Attribute.METHOD)),
        Entry("principal", "", LimitKey(Attribute.PRINCIPAL)),
        Entry("namespace", "", LimitKey(Attribute.NAMESPACE)),
    )
    assert [term.attribute for term in descriptor.terms] == [Attribute.METHOD]
    service = found.service
    assert (service.timeout_seconds, service.deny, service.hits) == (0.1, True, 2)


def test_what_is_not_said() -> None:
    found, faults = read(asked())
    assert faults == []
    plain = (Descriptor((Entry("generic_key", "web"),)),)
    assert found.service == GlobalLimit("rls.shop.svc.cluster.local", 8081, "shop", plain, 0.02)
    assert (found.tells, found.exhausted, found.rules) == (False, False, ())
    assert read(limited(**ONE))[0].service is None


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        (None, "", "spec is missing"),
        ({"local": {"rules": [{"limit": ONE}]}}, "spec", "targetRefs are needed"),
        ({"targetRefs": [TARGET]}, "spec", "local, global or both are needed"),
        ({"targetRefs": [TARGET], "local": {}}, "spec.local", "from one to 128 rules"),
        (
            {"targetRefs": [TARGET], "local": {"rules": [{"limit": ONE}] * 129}},
            "spec.local",
            "from one to 128",
        ),
        ({"targetRefs": [TARGET], "local": {"rules": [{}]}}, "spec.local.rules[0]", "limit is needed"),
        (limited(**ONE) | {"typ": 1}, "spec.typ", "unknown field"),
        (limited(**ONE) | {"xRateLimitHeaders": "On"}, "spec.xRateLimitHeaders", "must be one of Off"),
        (limited(unit="Second"), "spec.local.rules[0].limit", "requests is needed"),
        (limited(requests=1), "spec.local.rules[0].limit", "unit or fillInterval is needed"),
        (limited(**ONE, fillInterval="1s"), "spec.local.rules[0].limit", "only one of them"),
        (limited(requests=1, unit="Week"), "spec.local.rules[0].limit.unit", "must be one of Second"),
        (limited(requests=-1, unit="Hour"), "spec.local.rules[0].limit.requests", "must be from 0"),
        (limited(requests=10**10, unit="Hour"), "spec.local.rules[0].limit.requests", "must be from 0"),
        (
            limited(requests="1", unit="Hour"),
            "spec.local.rules[0].limit.requests",
            "must be a decimal number",
        ),
        (
            limited(requests=0, unit="Hour", burst=1),
            "spec.local.rules[0].limit",
            "a burst is beyond requests",
        ),
        (limited(requests=1, fillInterval="0s"), "spec.local.rules[0].limit.fillInterval", "shorter than"),
        (limited(requests=1, fillInterval="x"), "spec.local.rules[0].limit.fillInterval", "not a duration"),
        (asked(host=""), "spec.global", "host and domain are needed"),
        (asked(domain=""), "spec.global", "host and domain are needed"),
        (asked(port=None), "spec.global", "port is needed"),
        (asked(port=0), "spec.global.port", "a port is"),
        (asked(timeout="0s"), "spec.global.timeout", "shorter than"),
        (asked(hitsAddend=0), "spec.global.hitsAddend", "must be from 1"),
        (asked(descriptors=[]), "spec.global", "from one to 128 descriptors"),
        (asked(descriptors=[{}]), "spec.global.descriptors[0]", "from one to 128 entries"),
        (
            asked(
                descriptors=[
                    {"entries": [{"value": "a"}], "clientSelectors": [{"path": {"type": "Distinct"}}]}
                ]
            ),
            "spec.global.descriptors[0]",
            "Distinct is for local limits",
        ),
        (asked(descriptors=[{"entries": [{}]}]), "spec.global.descriptors[0].entries[0]", "has a value"),
        (
            asked(descriptors=[{"entries": [{"type": "Header"}]}]),
            "spec.global.descriptors[0].entries[0]",
            "type Header has a header",
        ),
        (
            asked(descriptors=[{"entries": [{"type": "Path", "value": "x"}]}]),
            "spec.global.descriptors[0].entries[0]",
            "type Generic has a value",
        ),
        (
            asked(descriptors=[{"entries": [{"type": "Cookie"}]}]),
            "spec.global.descriptors[0].entries[0].type",
            "must be one of Generic",
        ),
    ],
)
def test_what_is_wrong_is_said(spec: Any, field: str, said: str) -> None:
    _, faults = read(spec)
    assert any(each == field and said in message for each, message in faults), faults
