"""What control planes say of node proxies, as a table."""

from __future__ import annotations

import pytest

from ztunnel.analyze.sync import (
    ABSENT,
    NOT_SENT,
    STALE,
    SYNCED,
    TYPES,
    ProxySync,
    as_text,
    as_values,
    join,
    read_sync,
)


def entry(proxy: str, connected: str = "1", **resources: dict[str, object]) -> dict[str, object]:
    return {
        "proxy": proxy, "proxy_type": "ztunnel", "node": "n1", "cluster_id": "c", "istio_version": "1",
        "connected": connected, "resources": {TYPES[name.upper()]: one for name, one in resources.items()},
    }  # fmt: skip


def sent(number: str, acked: str, pending: bool = False, error: str = "") -> dict[str, object]:
    return {"sent": number, "acked": acked, "pending": pending, "last_error": error}


@pytest.mark.parametrize(
    ("resource", "state"),
    [
        (sent("2", "2"), SYNCED),
        (sent("2", "1"), STALE),
        (sent("2", ""), STALE),
        (sent("2", "2", pending=True), STALE),
        (sent("", ""), NOT_SENT),
    ],
)
def test_a_type_is_synced_where_the_last_response_is_accepted(
    resource: dict[str, object], state: str
) -> None:
    (one,) = read_sync("control", [entry("a.sys", workloads=resource, policies=sent("1", "1"))])
    assert one.states == {"WORKLOADS": state, "POLICIES": SYNCED}
    assert one.good is (state == SYNCED)


def test_what_was_not_subscribed_to_was_not_sent() -> None:
    (one,) = read_sync("control", [entry("a.sys")])
    assert set(one.states.values()) == {NOT_SENT}


def test_of_several_streams_of_a_proxy_the_newest_counts() -> None:
    old, new = entry("a.sys", "1"), entry("a.sys", "2", workloads=sent("1", "1"), policies=sent("1", "1"))
    assert [one.good for one in read_sync("control", [new, old])] == [True]


def test_proxies_of_other_kinds_are_left_out() -> None:
    assert read_sync("istiod", [{**entry("envoy.shop"), "proxy_type": "sidecar"}]) == []


@pytest.mark.parametrize("answer", [{}, None, ["x"], "[]"])
def test_what_is_no_answer_is_said(answer: object) -> None:
    with pytest.raises(ValueError, match="no list of proxies"):
        read_sync("control", answer)


def proxy(name: str, control: str, state: str) -> ProxySync:
    return ProxySync(name, "n1", "c", control, "1", dict.fromkeys(TYPES, state))


def test_who_is_nowhere_is_shown_and_of_two_the_better_counts() -> None:
    found = join(
        [proxy("a.sys", "one", STALE), proxy("a.sys", "two", SYNCED), proxy("b.sys", "two", SYNCED)],
        {"a.sys": "n1", "c.sys": "n3"},
    )
    assert [(one.proxy, one.control, one.node) for one in found] == [
        ("a.sys", "two", "n1"), ("b.sys", "two", "n1"), ("c.sys", "", "n3"),
    ]  # fmt: skip
    assert set(found[2].states.values()) == {ABSENT}
    assert not found[2].good


def test_a_table_has_what_was_refused_below_it() -> None:
    found = read_sync("control-x", [entry("a.sys", workloads=sent("2", "1", error="b: cannot"))])
    lines = as_text(found, ["control-y: no answer"]).splitlines()
    assert lines[0].split() == [
        "PROXY",
        "NODE",
        "CLUSTER",
        "CONTROL",
        "PLANE",
        "WORKLOADS",
        "POLICIES",
        "VERSION",
    ]
    assert lines[1].split() == ["a.sys", "n1", "c", "control-x", "STALE", "NOT", "SENT", "1"]
    assert lines[-2:] == ["a.sys refused WORKLOADS: b: cannot", "control-y: no answer"]
    (one,) = as_values(found)["proxies"]
    assert (one["states"], one["errors"]) == (
        {"workloads": "STALE", "policies": "NOT SENT"},
        {"workloads": "b: cannot"},
    )
