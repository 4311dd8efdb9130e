"""Conditions of ours are written beside those of others, and once."""

import pytest

from ztunnel.control.status.condition import Condition
from ztunnel.control.status.standing import merge, read_standing

STAMP, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def test_the_conditions_of_a_gateway_replace_those_that_the_api_server_begins_with():
    pending = {"type": "Accepted", "status": "Unknown", "reason": "Pending"}
    (made,) = merge(standing(pending), [Condition("Accepted", True, "Accepted", "x")], "now")
    assert (made["status"], made["lastTransitionTime"]) == ("True", "now")
    # Of anything else that type is somebody else's.
    assert merge(standing({**pending, "status": "True"}), [GOOD], "now")[0]["type"] == "Accepted"


def standing(*conditions, managed=(), generation=4):
    meta = {"resourceVersion": "7", "generation": generation, "managedFields": list(managed)}
    return read_standing({"metadata": meta, "status": {"conditions": list(conditions)}})


GOOD = Condition("ZtunnelAccepted", True, "Accepted", "attached to ztunnel")
OTHER = {"type": "Reconciled", "status": "True"}


def test_conditions_are_written_beside_those_of_others_and_once():
    written = merge(standing(OTHER), [GOOD], STAMP)
    assert written == [
        OTHER,
        {
            "type": "ZtunnelAccepted", "status": "True", "reason": "Accepted",
            "message": "attached to ztunnel",
            "observedGeneration": 4, "lastTransitionTime": STAMP,
        },
    ]  # fmt: skip
    assert merge(standing(*written), [GOOD], LATER) is None
    as_text = [OTHER, {**written[1], "observedGeneration": "4"}]
    assert merge(standing(*as_text), [GOOD], LATER) is None


def test_a_condition_begins_when_it_turns_and_follows_the_generation():
    written = merge(standing(), [GOOD], STAMP)
    (newer,) = merge(standing(*written, generation=5), [GOOD], LATER)
    assert (newer["observedGeneration"], newer["lastTransitionTime"]) == (5, STAMP)
    (turned,) = merge(standing(*written), [Condition("ZtunnelAccepted", False, "Invalid", "x")], LATER)
    assert turned["lastTransitionTime"] == LATER


def test_a_condition_of_ours_that_is_over_is_taken_away():
    bound = {"type": "istio.io/WaypointBound", "status": "False"}
    assert merge(standing(OTHER, bound), [], STAMP) == [OTHER]
    assert merge(standing(OTHER), [], STAMP) is None


def managed(manager, conditions):
    return {"manager": manager, "fieldsV1": {"f:status": {"f:conditions": conditions}}}


@pytest.mark.parametrize(
    ("entry", "foreign"),
    [
        (managed("pilot-discovery", {".": {}}), True),
        (managed("pilot-discovery", {'k:{"type":"istio.io/WaypointBound"}': {}}), True),
        (managed("cloud", {'k:{"type":"LoadBalancerReady"}': {}}), False),
        (managed("ztunnel-control", {".": {}}), False),
        ({"manager": "kubectl", "fieldsV1": {"f:spec": {}}}, False),
        (7, False),
        ({"fieldsV1": 7}, False),
    ],
)
def test_conditions_that_somebody_else_writes_are_known(entry, foreign):
    assert standing(managed=[entry]).foreign == foreign


@pytest.mark.parametrize(
    "value",
    [{}, {"metadata": 7, "status": []}, {"status": {"conditions": {}}}, {"metadata": {"managedFields": 7}}],
)
def test_nonsense_is_no_status(value):
    assert read_standing(value).conditions == ()
