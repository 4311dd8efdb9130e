"""Which ConfigMaps with the roots are due, where, and when again."""

from __future__ import annotations

import pytest

from ztunnel.ca.root_maps import KEY, OWN, SHARED, Due, RootMaps, map_value

HOME, ISTIO = "ztunnel-system", "istio-system"


def value(text="roots", manager="kubectl", **meta):
    data = None if text is None else {KEY: text}
    return {"metadata": {"managedFields": [{"manager": manager}], **meta}, "data": data}


@pytest.fixture
def maps():
    made = RootMaps(HOME, ISTIO)
    made.roots = "roots"
    for name in (HOME, "shop", "kube-system"):
        made.put_namespace(name, {"metadata": {"name": name}})
    return made


def names(due):
    return [(one.namespace, one.name) for one in due]


def test_every_namespace_gets_one_and_ours_both(maps):
    assert maps.due(0.0) == [
        Due("shop", SHARED, False), Due(HOME, SHARED, False), Due(HOME, OWN, False),
    ]  # fmt: skip


@pytest.mark.parametrize("beside_istiod", [False, True])
def test_a_control_plane_in_kube_system_has_one_to_mount(beside_istiod):
    """As istio/istio pull request 49261 had to make it for a ztunnel in that namespace."""
    maps = RootMaps("kube-system", ISTIO)
    maps.roots = "roots"
    for name in ("kube-system", "shop"):
        maps.put_namespace(name, {"metadata": {"name": name}})
    if beside_istiod:
        maps.put_map(ISTIO, SHARED, value("theirs", "pilot-discovery"))
    name = OWN if beside_istiod else SHARED
    assert maps.due(0.0) == [Due("kube-system", OWN, False), Due("shop", name, False)]


def test_without_roots_nothing_is_due(maps):
    maps.roots = ""
    assert maps.due(0.0) == []
    assert maps.next_at() == float("inf")
    assert maps.missing == 0


def test_what_is_as_it_is_to_be_is_left_alone(maps):
    for key in ((HOME, SHARED), (HOME, OWN), ("shop", SHARED)):
        maps.put_map(*key, value())
    assert maps.due(0.0) == []
    maps.put_map("shop", SHARED, value("others"))
    assert maps.due(0.0) == [Due("shop", SHARED, True)]
    maps.put_map("shop", SHARED, None)
    assert maps.due(0.0) == [Due("shop", SHARED, False)]
    maps.put_map("shop", SHARED, value(None))
    assert maps.missing == 1


def test_new_roots_are_due_everywhere(maps):
    for key in ((HOME, SHARED), (HOME, OWN), ("shop", SHARED)):
        maps.put_map(*key, value())
    maps.roots = "roots and more"
    assert len(maps.due(0.0)) == 3


@pytest.mark.parametrize("gone", [None, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}])
def test_a_namespace_that_goes_gets_none(maps, gone):
    maps.put_namespace("shop", gone)
    assert "shop" not in {one.namespace for one in maps.due(0.0)}


@pytest.mark.parametrize("where", [HOME, ISTIO])
def test_beside_an_istiod_ours_has_another_name_everywhere(maps, where):
    maps.put_map(where, SHARED, value("istiod's", "pilot-discovery"))
    assert maps.beside_istiod
    assert names(maps.due(0.0)) == [("shop", OWN), (HOME, OWN)]
    maps.put_map(where, SHARED, None)
    assert not maps.beside_istiod


def pem(*texts: str) -> str:
    lines = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
    return "".join(lines.format(each) for each in texts)


@pytest.mark.parametrize(
    ("ours", "theirs", "manager", "shared"),
    [
        (pem("AAAA"), pem("AAAA"), "pilot-discovery", True),
        (pem("AAAA", "BBBB"), pem("CCCC", "BB\nBB"), "pilot-discovery", True),
        (pem("AAAA"), pem("CCCC"), "pilot-discovery", False),
        (pem("AAAA"), pem("AAAA"), "kubectl", False),
        (pem("AAAA"), None, "pilot-discovery", False),
        ("", pem("AAAA"), "pilot-discovery", False),
        ("roots", "roots", "pilot-discovery", False),
    ],
)
def test_whether_an_istiod_trusts_the_same_root(maps, ours, theirs, manager, shared):
    maps.roots = ours
    assert not maps.shares_root
    maps.put_map("shop", SHARED, value(pem("AAAA", "BBBB", "CCCC"), "pilot-discovery"))
    assert not maps.shares_root, "what a tenant writes says nothing"
    maps.put_map(ISTIO, SHARED, value(theirs, manager))
    assert maps.shares_root is shared


def test_what_a_tenant_writes_in_its_namespace_says_nothing_of_an_istiod(maps):
    maps.put_map("shop", SHARED, value("forged", "pilot-discovery"))
    assert not maps.beside_istiod
    assert Due("shop", SHARED, True) in maps.due(0.0)


def test_an_istiod_s_name_can_be_adopted():
    maps = RootMaps(HOME, ISTIO, adopt=True)
    maps.roots = "roots"
    maps.put_namespace(ISTIO, {})
    maps.put_map(ISTIO, SHARED, value("istiod's", "pilot-discovery"))
    assert maps.due(0.0) == [Due(ISTIO, SHARED, True)]


def test_what_was_written_is_not_written_again_before_the_watch_has_told(maps):
    [first, *_] = maps.due(0.0)
    assert maps.written(first, 0.0)
    assert first not in maps.due(0.9)
    assert first in maps.due(1.0)


def test_a_failure_is_tried_again_later_and_later_and_is_news_once(maps):
    [first, *others] = maps.due(0.0)
    for one in others:
        maps.put_map(one.namespace, one.name, value())
    now, waits = 0.0, []
    for number in range(9):
        assert maps.failed(first, "forbidden", now) is (number == 0)
        waits.append(maps.next_at() - now)
        now = maps.next_at()
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert maps.failed(first, "another", now)


def test_what_somebody_else_keeps_on_writing_is_left_alone_for_a_while(maps):
    one = Due("shop", SHARED, True)
    now, repairs = 0.0, 0
    while maps.written(one, now):
        repairs += 1
        maps.put_map("shop", SHARED, value("theirs"))
        now += 2.0
    assert repairs == 5
    assert one not in maps.due(now + 599)
    assert one in maps.due(now + 600)


def test_a_repair_now_and_then_is_no_fight(maps):
    one = Due("shop", SHARED, True)
    assert all(maps.written(one, number * 15.0) for number in range(50))


def test_what_is_written_keeps_what_others_have_in_it():
    assert map_value(Due("shop", SHARED, True), "r") == {
        "metadata": {"labels": {"app.kubernetes.io/managed-by": "ztunnel-control"}}, "data": {KEY: "r"},
    }  # fmt: skip
    made = map_value(Due("shop", SHARED, False), "r")
    assert (made["kind"], made["metadata"]["name"], made["metadata"]["namespace"]) == (
        "ConfigMap",
        SHARED,
        "shop",
    )


@pytest.mark.parametrize(
    "odd", [{}, {"metadata": None, "data": []}, {"data": {KEY: 7}}, {"metadata": {"managedFields": [7]}}]
)
def test_an_odd_object_is_one_to_put_right(odd):
    maps = RootMaps(HOME, ISTIO)
    maps.roots = "roots"
    maps.put_namespace("shop", {"metadata": None})
    maps.put_map("shop", SHARED, odd | {"data": odd.get("data") or {}})
    assert maps.due(0.0) == [Due("shop", SHARED, True)]
