"""A node proxy's pods as a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.xds.enrolment import MOST_BYTES, MOST_PODS, EnrolledPod, parse_pods, render_pods
from ztunnel.xds.pb.enrolment_pb2 import EnrolledPods, Pod

WORDS = st.text("abc-.019", min_size=1, max_size=253)


@given(st.frozensets(st.builds(EnrolledPod, WORDS, WORDS, WORDS), max_size=20))
def test_pods_come_back_as_they_went(pods: frozenset[EnrolledPod]) -> None:
    assert parse_pods(render_pods(pods)) == pods


def test_the_order_is_the_same_whatever_the_set_s() -> None:
    pods = [EnrolledPod("shop", name, "u") for name in "cab"]
    assert render_pods(pods) == render_pods(reversed(pods))


@given(st.binary(max_size=200))
def test_any_bytes_are_pods_or_none(untrusted: bytes) -> None:
    try:
        parse_pods(untrusted)
    except PeerError:
        return


@pytest.mark.parametrize(
    ("untrusted", "said"),
    [
        (b"\xff", "not an EnrolledPods"),
        (b"x" * (MOST_BYTES + 1), "bytes; 1048576 are accepted"),
        (EnrolledPods(pods=[Pod(namespace="a", name="b")]).SerializeToString(), "a name and a UID"),
        (EnrolledPods(pods=[Pod(name="b", uid="u")]).SerializeToString(), "a pod has a namespace"),
        (
            EnrolledPods(pods=[Pod(namespace="a", name="b" * 254, uid="u")]).SerializeToString(),
            "a pod has a namespace",
        ),
        (
            EnrolledPods(pods=[Pod(namespace="a", name="b", uid="u")] * (MOST_PODS + 1)).SerializeToString(),
            "2001 pods on one node",
        ),
    ],
)
def test_what_is_no_report_is_said(untrusted: bytes, said: str) -> None:
    with pytest.raises(PeerError, match=said):
        parse_pods(untrusted)
