"""Labels survive the way there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.labels import WorkloadLabels
from ztunnel.xds.labels import parse_labels, render_labels
from ztunnel.xds.pb import labels_pb2 as pb

labels = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4).map(
    lambda it: frozenset(it.items())
)


@given(st.text(min_size=1, max_size=9), labels)
def test_labels_come_back_as_they_were(uid: str, some: frozenset[tuple[str, str]]) -> None:
    made = WorkloadLabels(uid, some)
    octets = render_labels(made).SerializeToString()
    assert parse_labels(pb.WorkloadLabels.FromString(octets)) == made


def test_labels_of_nobody_are_refused() -> None:
    with pytest.raises(PeerError, match="by its uid"):
        parse_labels(pb.WorkloadLabels(labels={"a": "b"}))
