"""The verdict: Istio's order, Istio's texts, and refusing where something is missing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import BuiltPolicy, connection, policy, strict, workload, world_of
from ztunnel.authz.verdict import NO_POLICY, Admitted, Trial, allowing_keys, judge, trials
from ztunnel.errors import Denied, Flag

SERVER = workload("server").at("10.0.1.1")
CALL = connection("10.0.0.1", "10.0.1.1:8080", "default/client")
PLAIN = connection("10.0.0.1", "10.0.1.1:8080")
ALL_MATCH = policy("all").rule()
NONE_MATCHES = policy("none")
OURS = policy("ours").when(namespaces=["default"])
CLIENT = "cluster.local/ns/default/sa/client"


def not_allowed(*keys: str) -> str:
    """The text where none of these ALLOW policies matched the call."""
    text = "connection closed due to policy rejection: allow policies exist, but none allowed"
    return f"{text} (identity {CLIENT}; policies: {', '.join(keys)})"


def denied_by(key: str) -> str:
    """The text of an explicit denial."""
    return f"connection closed due to policy rejection: explicitly denied by: {key}"


@pytest.mark.parametrize(
    ("policies", "by"),
    [
        ([], None),
        ([ALL_MATCH], "default/all"),
        ([NONE_MATCHES, OURS], "default/ours"),
        ([OURS.everywhere()], "default/ours"),
        ([policy("d").deny()], None),
        ([policy("d").deny().when(destination_ports=[1]), OURS], "default/ours"),
        ([policy("theirs", "other")], None),
        ([policy("unlisted").selecting().deny().rule()], None),
        ([NONE_MATCHES.dry()], None),
        ([policy("d").deny().dry().rule()], None),
    ],
)
def test_admitted(policies: list[BuiltPolicy], by: str | None) -> None:
    evidence = judge(world_of(SERVER, *policies), SERVER, CALL)
    assert isinstance(evidence, Admitted)
    assert (evidence.workload, evidence.connection, evidence.by) == (SERVER, CALL, by)


@pytest.mark.parametrize(
    ("policies", "text", "key"),
    [
        ([NONE_MATCHES], not_allowed("default/none"), NO_POLICY),
        (
            [policy("a").when(namespaces=["other"]), NONE_MATCHES],
            not_allowed("default/a", "default/none"),
            NO_POLICY,
        ),
        ([policy("d").deny().rule()], denied_by("default/d"), "default/d"),
        ([policy("d").deny().rule(), ALL_MATCH], denied_by("default/d"), "default/d"),
        ([policy("d", "root").deny().everywhere().rule(), ALL_MATCH], denied_by("root/d"), "root/d"),
        ([policy("d", "root").everywhere()], not_allowed("root/d"), NO_POLICY),
        ([NONE_MATCHES, ALL_MATCH.dry()], not_allowed("default/none"), NO_POLICY),
    ],
)
def test_refused(policies: list[BuiltPolicy], text: str, key: str) -> None:
    with pytest.raises(Denied) as caught:
        judge(world_of(SERVER, *policies), SERVER, CALL)
    assert (str(caught.value), caught.value.policy) == (text, key)
    assert caught.value.flag is Flag.DENY


def test_a_listed_policy_counts_wherever_it_lives() -> None:
    listed = SERVER.selected_by(strict())
    world = world_of(listed, strict())
    assert judge(world, listed, CALL).by is None
    with pytest.raises(Denied, match="explicitly denied by: istio-system/istio_converted_static_strict"):
        judge(world, listed, PLAIN)


def test_a_listed_policy_that_has_not_been_received_refuses_and_is_named() -> None:
    listed = SERVER.selected_by("default/late")
    for others in ([], [ALL_MATCH]):
        with pytest.raises(Denied, match="policy not received yet: default/late") as caught:
            judge(world_of(listed, *others), listed, CALL)
        assert caught.value.policy == "default/late"
    with pytest.raises(Denied, match="explicitly denied by: default/d"):
        judge(world_of(listed, policy("d").deny().rule()), listed, CALL)


def test_a_refusal_tells_that_nobody_was_proved() -> None:
    with pytest.raises(Denied) as caught:
        judge(world_of(SERVER, *(policy(name) for name in "abcde")), SERVER, PLAIN)
    assert str(caught.value) == (
        "connection closed due to policy rejection: allow policies exist, but none allowed (no identity: the "
        "connection is plaintext; policies: default/a, default/b, default/c and 2 more)"
    )
    listed = SERVER.selected_by(strict())
    with pytest.raises(Denied) as caught:
        judge(world_of(listed, strict()), listed, PLAIN)
    assert str(caught.value) == (
        denied_by("istio-system/istio_converted_static_strict")
        + " (PeerAuthentication STRICT; no identity: the connection is plaintext)"
    )


def test_the_policies_that_allow_are_those_in_force() -> None:
    world = world_of(SERVER, NONE_MATCHES, ALL_MATCH.dry(), policy("d").deny(), policy("x", "other"))
    assert allowing_keys(world, SERVER) == ["default/none"]


ALL_DENIED = policy("d").deny().dry().rule()


@pytest.mark.parametrize(
    ("policies", "tried"),
    [
        ([ALL_DENIED], [Trial("default/d", True, "rule 1 has no conditions")]),
        ([policy("d").deny().dry()], [Trial("default/d", False, "")]),
        ([NONE_MATCHES.dry()], [Trial("default/none", True, "it has no rules")]),
        ([NONE_MATCHES.dry(), OURS], [Trial("default/none", False, "")]),
        (
            [NONE_MATCHES.dry(), policy("b").dry().rule()],
            [Trial("default/none", False, ""), Trial("default/b", False, "")],
        ),
        (
            [policy("a").dry().when(namespaces=["x"]), ALL_DENIED],
            [
                Trial("default/a", True, "rule 1: namespaces"),
                Trial("default/d", True, "rule 1 has no conditions"),
            ],
        ),
        ([OURS], []),
    ],
)
def test_policies_under_trial_only_say_what_they_would(
    policies: list[BuiltPolicy], tried: list[Trial]
) -> None:
    world = world_of(SERVER, *policies)
    assert sorted(judge(world, SERVER, CALL).tried) == sorted(tried)
    assert sorted(trials(world, SERVER, CALL)) == sorted(tried)


def test_nothing_is_tried_on_what_is_refused() -> None:
    assert trials(world_of(SERVER, NONE_MATCHES, ALL_DENIED), SERVER, CALL) == ()


_kinds = st.sampled_from(["deny", "allow"])
_hits = st.booleans()


@given(st.lists(st.tuples(_kinds, _hits), max_size=5))
@settings(deadline=None)
def test_deny_before_allow_and_an_empty_list_allows(given_policies: list[tuple[str, bool]]) -> None:
    made = []
    for number, (kind, hit) in enumerate(given_policies):
        each = policy(f"p{number}")
        each = each.deny() if kind == "deny" else each
        made.append(each.rule() if hit else each)
    allows = [hit for kind, hit in given_policies if kind == "allow"]
    expected = ("deny", True) not in given_policies and (not allows or any(allows))
    try:
        judge(world_of(SERVER, *made), SERVER, CALL)
        admitted = True
    except Denied:
        admitted = False
    assert admitted == expected
