"""What stands on a pod about its enrolment, and what has to be written there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.control.calling import pod
from ztunnel.control.status.enrolment import (
    OURS,
    REDIRECTION,
    Due,
    due,
    is_foreign,
    is_ours,
    kubelet_uid,
    note,
)
from ztunnel.state import kube
from ztunnel.xds.enrolment import EnrolledPod

WEB = pod("web", "web", "n1")
MARKED = {REDIRECTION: "enabled", OURS: "enabled"}
ON, OFF = Due("uid-web", enrolled=True), Due("uid-web", enrolled=False)


def annotated(annotations: dict[str, str], one: kube.Pod = WEB) -> kube.Pod:
    return replace(one, meta=replace(one.meta, annotations=annotations))


def written(one: kube.Pod, wanted: Due) -> dict[str, object] | None:
    made = note(one, wanted)
    return None if made is None else dict(made.value["metadata"]["annotations"])


def test_enrolment_is_written_for_the_pod_of_that_uid_alone() -> None:
    made = note(WEB, ON)
    assert made is not None
    assert made.value == {"metadata": {"uid": "uid-web", "annotations": MARKED}}
    assert made.enrolled
    assert note(WEB, replace(ON, uid="another")) is None


@pytest.mark.parametrize(
    ("annotations", "wanted", "expected"),
    [
        ({}, OFF, None),
        (MARKED, ON, None),
        (MARKED, OFF, {REDIRECTION: None, OURS: None}),
        ({OURS: "enabled"}, ON, MARKED),  # somebody has taken the other one off
        ({OURS: "enabled"}, OFF, {REDIRECTION: None, OURS: None}),
        ({OURS: "enabled", REDIRECTION: "pending"}, ON, MARKED),
        ({REDIRECTION: "enabled"}, ON, MARKED),  # Istio's CNI agent said so, and it is true no more
        ({REDIRECTION: "enabled"}, OFF, None),
        ({REDIRECTION: "pending"}, OFF, None),
        ({REDIRECTION: "disabled"}, ON, MARKED),
        ({REDIRECTION: "disabled"}, OFF, None),
    ],
)
def test_what_is_written(
    annotations: dict[str, str], wanted: Due, expected: dict[str, object] | None
) -> None:
    assert written(annotated(annotations), wanted) == expected


@pytest.mark.parametrize("wanted", [ON, OFF])
def test_a_pod_that_ends_is_left_as_it_is(wanted: Due) -> None:
    ends = annotated(MARKED if wanted is OFF else {})
    assert note(replace(ends, meta=replace(ends.meta, deleting=True)), wanted) is None
    assert note(replace(ends, phase="Succeeded"), wanted) is None


@pytest.mark.parametrize(
    ("annotations", "ours", "foreign"),
    [
        ({}, False, False),
        (MARKED, True, False),
        ({REDIRECTION: "enabled"}, False, True),
        ({REDIRECTION: "pending"}, False, True),
        ({REDIRECTION: "disabled"}, False, False),
    ],
)
def test_whose_word_it_is(annotations: dict[str, str], ours: bool, foreign: bool) -> None:
    one = annotated(annotations)
    assert (is_ours(one), is_foreign(one)) == (ours, foreign)


def test_a_report_asks_for_its_pods_and_takes_the_word_off_the_others() -> None:
    old, stranger = annotated(MARKED, pod("old", "web", "n1")), annotated({}, pod("plain", "web", "n1"))
    reported = [EnrolledPod("shop", "web", "uid-web"), EnrolledPod("shop", "new", "uid-new")]
    assert due([WEB, old, stranger], reported) == {
        ("shop", "web"): ON,
        ("shop", "new"): Due("uid-new", enrolled=True),  # not known here yet
        ("shop", "old"): Due("uid-old", enrolled=False),
    }


def test_a_static_pod_is_known_by_what_its_kubelet_calls_it() -> None:
    mirror = annotated({"kubernetes.io/config.mirror": "h", "kubernetes.io/config.hash": "static"})
    assert (kubelet_uid(WEB.meta), kubelet_uid(mirror.meta)) == ("uid-web", "static")
    made = note(mirror, Due("static", enrolled=True))
    assert made is not None
    assert made.value["metadata"]["uid"] == "uid-web"
