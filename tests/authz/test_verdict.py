"""The verdict: Istio's order, Istio's texts, and refusing where something is missing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import BuiltPolicy, connection, policy, strict, workload, world_of
from ztunnel.authz.verdict import Admitted, judge
from ztunnel.errors import Denied, Flag

SERVER = workload("server").at("10.0.1.1")
CALL = connection("10.0.0.1", "10.0.1.1:8080", "default/client")
PLAIN = connection("10.0.0.1", "10.0.1.1:8080")
ALL_MATCH = policy("all").rule()
NONE_MATCHES = policy("none")
OURS = policy("ours").when(namespaces=["default"])
NOT_ALLOWED = "connection closed due to policy rejection: allow policies exist, but none allowed"


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
        ([NONE_MATCHES], NOT_ALLOWED, ""),
        ([policy("a").when(namespaces=["other"]), NONE_MATCHES], NOT_ALLOWED, ""),
        ([policy("d").deny().rule()], denied_by("default/d"), "default/d"),
        ([policy("d").deny().rule(), ALL_MATCH], denied_by("default/d"), "default/d"),
        ([policy("d", "root").deny().everywhere().rule(), ALL_MATCH], denied_by("root/d"), "root/d"),
        ([policy("d", "root").everywhere()], NOT_ALLOWED, ""),
        ([NONE_MATCHES, ALL_MATCH.dry()], NOT_ALLOWED, ""),
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


@pytest.mark.parametrize(
    ("policies", "dry_run"),
    [
        ([policy("d").deny().dry().rule()], "explicitly denied by: default/d"),
        ([policy("d").deny().dry()], ""),
        ([NONE_MATCHES.dry()], "allow policies exist, but none allowed"),
        ([NONE_MATCHES.dry(), OURS], ""),
        ([NONE_MATCHES.dry(), policy("b").dry().rule()], ""),
        ([OURS], ""),
    ],
)
def test_policies_under_trial_only_say_what_they_would(policies: list[BuiltPolicy], dry_run: str) -> None:
    assert judge(world_of(SERVER, *policies), SERVER, CALL).dry_run == dry_run


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
